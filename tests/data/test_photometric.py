"""Batched photometrics against torchvision's functions for one image with the same parameters."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from scd.data.photometric import (
    ORDERS,
    PHOTOMETRIC_DRAWS,
    PHOTOMETRICS,
    SMALLEST_SIGMA,
    Photometric,
    apply_photometric,
    blend,
    blend_weights,
    draw_parameters,
    gaussian_blur,
    greyscale,
    jitter_colours,
    photometric,
    share_blurred,
    shift_hue,
    solarise,
)

B = 24


@pytest.fixture
def images() -> torch.Tensor:
    """Random colours, with exact greys, black, white and ties between channels among them."""
    images = torch.rand(B, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    images[0] = images[0, :1]  # grey
    images[1, :, :4], images[1, :, 4:8] = 0.0, 1.0
    images[2, 0] = images[2, 1]  # red equals green
    images[3, 1] = images[3, 2]
    return images


def close(ours: torch.Tensor, theirs: list[torch.Tensor], atol: float = 2e-5) -> None:
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("operation", "function"),
    [(0, reference.adjust_brightness), (1, reference.adjust_contrast), (2, reference.adjust_saturation)],
)
def test_blends(images, operation, function):
    factor = torch.linspace(0.2, 1.8, B)
    expected = [function(image, float(f)) for image, f in zip(images, factor, strict=True)]
    close(blend(images.clone(), blend_weights(torch.full((B,), operation), factor)), expected)


def test_blends_of_different_kinds_in_one_batch(images):
    functions = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation)
    operation, factor = torch.arange(B) % 3, torch.linspace(0.2, 1.8, B)
    expected = [functions[op](image, float(f)) for image, op, f in zip(images, operation.tolist(), factor, strict=True)]
    close(blend(images.clone(), blend_weights(operation, factor)), expected)


def test_hue(images):
    shift = torch.linspace(-0.5, 0.5, B)
    expected = [reference.adjust_hue(image, float(s)) for image, s in zip(images, shift, strict=True)]
    close(shift_hue(images.clone(), shift), expected)


def test_jitter_in_every_order(images):
    """All 24 orders in one batch equal torchvision's operations one after the other."""
    random = torch.Generator().manual_seed(1)
    factors = 0.6 + 0.8 * torch.rand(B, 3, generator=random)
    hue = 0.2 * torch.rand(B, generator=random) - 0.1
    hue[::5] = 0
    order = torch.from_numpy(ORDERS)
    names = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation, reference.adjust_hue)
    expected = []
    for i, image in enumerate(images):
        for operation in order[i].tolist():
            image = names[operation](image, float(factors[i, operation] if operation < 3 else hue[i]))
        expected.append(image)
    close(jitter_colours(images.clone(), factors, hue, order), expected)


def test_greyscale_and_solarise(images):
    torch.testing.assert_close(greyscale(images), reference.rgb_to_grayscale(images, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(solarise(images, 0.5), reference.solarize(images, 0.5), rtol=0, atol=0)


def test_blur_equals_the_sampled_gaussian():
    """Against torchvision's blur with the same support, away from the border (which it reflects and we repeat)."""
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.3, 0.8, 1.3, 2.0])
    ours = gaussian_blur(images, sigma)
    theirs = [reference.gaussian_blur(image, 17, float(s)) for image, s in zip(images, sigma, strict=True)]
    close(ours[..., 8:-8, 8:-8], [image[..., 8:-8, 8:-8] for image in theirs], atol=1e-4)
    torch.testing.assert_close(ours.mean(dim=(2, 3)), images.mean(dim=(2, 3)), rtol=0, atol=0.02)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_blur_is_near_pillows(sigma):
    """Pillow's radius is the standard deviation: its box blurs and the Gaussian agree to a few levels."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(sigma))) / 255
    ours = gaussian_blur(torch.from_numpy(noise).permute(2, 0, 1)[None] / 255, torch.tensor([sigma]))[0]
    assert np.abs(ours.permute(1, 2, 0).numpy() - theirs)[8:-8, 8:-8].mean() < 4 / 255


def test_a_blur_keeps_constant_images():
    constant = torch.full((2, 3, 16, 16), 0.37)
    torch.testing.assert_close(gaussian_blur(constant, torch.tensor([0.5, 9.0])), constant)


def test_parameters_have_the_papers_distributions():
    draws = torch.rand(40000, PHOTOMETRIC_DRAWS, generator=torch.Generator().manual_seed(0))
    for name, recipe in PHOTOMETRICS.items():
        draw = draw_parameters(draws, recipe)
        jittered = (draw.factors != 1).any(dim=1)
        assert jittered.float().mean() == pytest.approx(recipe.jitter_p, abs=0.01), name
        assert draw.grey.float().mean() == pytest.approx(recipe.grey_p, abs=0.01)
        assert draw.blur.float().mean() == pytest.approx(recipe.blur_p, abs=0.01)
        assert draw.solarise.float().mean() == pytest.approx(recipe.solarise_p, abs=0.01)
        assert draw.sigma.min() >= 0.1 and draw.sigma.max() <= 2.0
        if recipe.jitter_p:
            low, high = draw.factors[jittered].amin(dim=0), draw.factors[jittered].amax(dim=0)
            expected = torch.tensor([recipe.brightness, recipe.contrast, recipe.saturation])
            torch.testing.assert_close(low, 1 - expected, rtol=0, atol=0.01)
            torch.testing.assert_close(high, 1 + expected, rtol=0, atol=0.01)
            assert draw.hue.abs().max() == pytest.approx(0.1, abs=0.001)
            assert len(draw.order.unique(dim=0)) == 24
    byol2 = draw_parameters(draws, photometric("byol2"))
    assert not torch.equal(byol2.blur, byol2.solarise)


def test_blur_sigma_is_scaled_to_small_views():
    draws = torch.rand(100, PHOTOMETRIC_DRAWS)
    full, small = (draw_parameters(draws, photometric("mocov2"), scale).sigma for scale in (1.0, 32 / 224))
    torch.testing.assert_close(small, full * 32 / 224)


def test_a_blur_that_is_left_out_is_below_half_a_level():
    images = (torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    assert (gaussian_blur(images, torch.tensor([0.2499])) - images).abs().max() < 0.5 / 255


def test_all_operations_together(images):
    """apply_photometric equals torchvision image by image, with every operation in the batch."""
    draws = torch.rand(B, PHOTOMETRIC_DRAWS, generator=torch.Generator().manual_seed(4))
    draw = draw_parameters(draws, photometric("byol2"))
    draw.blur[:] = False
    draw.solarise[::3] = True
    names = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation, reference.adjust_hue)
    expected = []
    for i, image in enumerate(images):
        for operation in draw.order[i].tolist():
            image = names[operation](image, float(draw.factors[i, operation] if operation < 3 else draw.hue[i]))
        image = reference.rgb_to_grayscale(image, 3) if draw.grey[i] else image
        expected.append(reference.solarize(image, 0.5) if draw.solarise[i] else image)
    ours = apply_photometric(images.clone(), draw)
    wrong = (ours - torch.stack(expected)).abs() > 1e-4
    assert wrong.float().mean() < 1e-3  # a value within rounding of the threshold may be inverted on one side only
    assert draw.grey.any() and draw.solarise.any() and (draw.hue != 0).any()


def test_jitter_statistics_match_torchvisions_transform():
    """Mean and spread of many jittered copies of one image are those of torchvision's ColorJitter."""
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    transform = v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)
    theirs = torch.stack([transform(image) for _ in range(1500)])
    draw = draw_parameters(torch.rand(6000, PHOTOMETRIC_DRAWS), photometric("mocov2"))
    ours = jitter_colours(image.expand(6000, -1, -1, -1).clone(), draw.factors, draw.hue, draw.order)
    torch.testing.assert_close(ours.mean(dim=0), theirs.mean(dim=0), rtol=0, atol=0.03)
    torch.testing.assert_close(ours.std(dim=0), theirs.std(dim=0), rtol=0, atol=0.03)


# ---------------------------------------------------------------- how many views are blurred


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("mocov2", 224, 0.5 * (2 - 0.25) / 1.9),  # sigma is uniform in 0.1 to 2 pixels, below 0.25 nothing is blurred
        ("byol1", 32, (2 * 32 / 224 - 0.25) / (1.9 * 32 / 224)),
        ("byol2", 32, 0.1 * (2 * 32 / 224 - 0.25) / (1.9 * 32 / 224)),
        ("mocov2", 24, 0.0),  # the largest sigma is 0.214 pixels
        ("none", 224, 0.0),
    ],
)
def test_share_of_blurred_views(name, size, expected):
    assert share_blurred(photometric(name), size / 224) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "size"), [("mocov2", 224), ("byol1", 48), ("local", 40), ("byol1", 24)])
def test_share_of_blurred_views_is_that_of_the_draws(name, size):
    draw = draw_parameters(
        torch.rand(40000, PHOTOMETRIC_DRAWS, generator=torch.Generator().manual_seed(0)), photometric(name), size / 224
    )
    seen = (draw.blur & (draw.sigma >= SMALLEST_SIGMA)).float().mean()
    assert share_blurred(photometric(name), size / 224) == pytest.approx(float(seen), abs=0.01)


def test_a_blur_of_one_sigma_is_seen_or_not():
    one = Photometric(blur_p=0.3, sigma=(1.0, 1.0))
    assert share_blurred(one) == pytest.approx(0.3) and share_blurred(one, 0.2) == 0.0
