"""Rectangles as torchvision draws them, and resampling as PyTorch computes it."""

import pytest
import torch
from torch.nn.functional import interpolate
from torchvision.transforms import RandomResizedCrop

from scd.data.crops import (
    RECTANGLE_DRAWS,
    interpolation_matrix,
    nearest_pixels,
    pick_pixels,
    resample,
    row_layout,
    sample_rectangles,
)


def draws(count: int) -> torch.Tensor:
    return torch.rand(count, RECTANGLE_DRAWS, generator=torch.Generator().manual_seed(0))


def test_rectangles_have_the_areas_and_ratios_of_random_resized_crop():
    rectangles = sample_rectangles(draws(20000), (0.2, 1.0), (3 / 4, 4 / 3))
    width, height = rectangles[:, 2] - rectangles[:, 0], rectangles[:, 3] - rectangles[:, 1]
    area, ratio = width * height, width / height
    assert rectangles.min() >= 0 and rectangles.max() <= 1
    assert area.min() > 0.2 - 1e-4 and area.max() <= 1
    assert ratio.min() > 3 / 4 - 1e-4 and ratio.max() < 4 / 3 + 1e-4
    # torchvision's own draws on a 1000 px image, where rounding does not matter
    torch.manual_seed(0)
    theirs = torch.tensor([RandomResizedCrop.get_params(torch.empty(1, 1000, 1000), [0.2, 1.0], [3 / 4, 4 / 3])
                           for _ in range(3000)]) / 1000  # fmt: skip
    assert area.mean() == pytest.approx(float((theirs[:, 2] * theirs[:, 3]).mean()), abs=0.01)
    assert rectangles[:, 1].mean() == pytest.approx(float(theirs[:, 0].mean()), abs=0.01)
    assert rectangles[:, 0].std() == pytest.approx(float(theirs[:, 1].std()), abs=0.01)
    assert ratio.log().std() == pytest.approx(float((theirs[:, 3] / theirs[:, 2]).log().std()), abs=0.01)


def test_impossible_rectangles_fall_back_to_the_central_one():
    """Areas of 0.99 with ratio 4 never fit; the fallback is the largest central rectangle of an allowed ratio."""
    rectangles = sample_rectangles(draws(4), (0.99, 1.0), (4.0, 4.5))
    torch.testing.assert_close(rectangles, torch.tensor([[0, 0.375, 1, 0.625]]).expand(4, -1))
    whole = sample_rectangles(torch.full((2, RECTANGLE_DRAWS), 0.999), (1.0, 1.0), (3 / 4, 4 / 3))
    torch.testing.assert_close(whole, torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, -1))


@pytest.mark.parametrize("size", [16, 33, 48, 80])
def test_resampling_the_whole_image_is_the_antialiased_resize(size):
    images = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    weights = interpolation_matrix(torch.zeros(3), torch.ones(3), 48, size)[:, None]
    ours = resample(row_layout(images), weights, weights)[0]
    theirs = interpolate(images.float() / 255, size=(size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_nearest_pixels_are_those_in_which_the_centres_lie():
    low, high = torch.tensor([0.0, 0.25, 0.0, 0.9]), torch.tensor([1.0, 0.75, 1.0, 1.0])
    flips = torch.tensor([False, False, True, False])
    found = nearest_pixels(low, high, 8, 4, flips)
    assert found.tolist() == [[1, 3, 5, 7], [2, 3, 4, 5], [7, 5, 3, 1], [7, 7, 7, 7]]
    assert nearest_pixels(low[:1], high[:1], 2, 6).tolist() == [[0, 0, 0, 1, 1, 1]]


def test_crops_of_maps_are_taken_pixel_by_pixel():
    maps = torch.arange(2 * 5 * 6).view(2, 5, 6)
    random = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 5, (2, 3, 4), generator=random)
    columns = torch.randint(0, 6, (2, 3, 7), generator=random)
    found = pick_pixels(maps, rows, columns)
    assert found.shape == (3, 2, 4, 7) and found.is_contiguous()
    for v in range(3):
        for b in range(2):
            assert torch.equal(found[v, b], maps[b][rows[b, v]][:, columns[b, v]])
