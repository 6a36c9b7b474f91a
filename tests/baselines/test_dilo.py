"""DiLo: its pastes against loops over pixels and the official code's, its probabilities, and views without object."""

import math
from dataclasses import replace

import pytest
import torch
from golden_numbers import golden
from small_moco import BATCH, ONE, SIDE, WHOLE, moco, outputs, views_at

from baselines.dilo import DiLo, grey_levels, other_backgrounds
from scd.data.cut_views import uniform
from scd.data.recipes import build_recipe
from scd.errors import UsageError
from scd.method import View
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from scd.profiling.flops import training_flops


def dilo(**options):
    return DiLo(moco(), **options)


def views(count=BATCH, empty=()):
    """v1 and v2 with random masks of about a third of the pixels; those of some images are empty."""
    draw = torch.Generator().manual_seed(2)
    made = views_at(ONE, [WHOLE] * BATCH)
    for view in made.values():
        view.masks = (torch.rand(count, SIDE, SIDE, generator=draw) < 0.3).float()
        view.masks[list(empty)] = 0
    return made


def many(count=400):
    """A view of many images, whose left half is the object."""
    draw = torch.Generator().manual_seed(3)
    masks = torch.zeros(count, SIDE, SIDE)
    masks[:, :, : SIDE // 2] = 1
    rectangles = torch.tensor(WHOLE).expand(count, 4)
    images = torch.randn(count, 3, SIDE, SIDE, generator=draw)
    return View("v1", "global", images, rectangles, torch.zeros(count, dtype=torch.bool), masks)


def changed(method, view, seed=5):
    torch.manual_seed(seed)
    return method.with_other_background(view)


# -------------------------------------------------------------------- the paste, written a second time


def test_a_paste_keeps_the_object_and_puts_one_grey_level_behind_it():
    view = views()["v1"]
    made, pasted, _ = changed(dilo(probability=1.0, blur_probability=0.0), view)
    assert pasted.all()
    torch.manual_seed(5)
    levels = torch.rand(BATCH, 4)[:, 2].tolist()
    for b in range(BATCH):
        for channel in range(3):
            behind = (math.floor(255 * levels[b]) / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
            for row in range(SIDE):
                for column in range(SIDE):
                    own = view.images[b, channel, row, column].item()
                    expected = own if view.masks[b, row, column] == 1 else behind
                    assert made.images[b, channel, row, column].item() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(made.masks, view.masks) and torch.equal(made.rectangles, view.rectangles)


def test_it_is_the_paste_of_the_official_code(monkeypatch):
    """Its ``composite_background``, on 8-bit images. Its blur is Pillow's, which approximates a Gaussian by boxes."""
    numbers = {name: value.float() for name, value in golden("dilo").items()}
    images = normalise(numbers["images"].permute(0, 3, 1, 2) / 255)
    count, side = len(images), images.shape[2]
    flips, masks = torch.zeros(count, dtype=torch.bool), (numbers["masks"] > 0).float()
    view = View("v1", "global", images, torch.tensor(WHOLE).expand(count, 4), flips, masks)
    zeros = torch.zeros(count)
    draws = torch.stack([zeros, numbers["blur_draws"], numbers["level_draws"], zeros], dim=1)
    monkeypatch.setattr("baselines.dilo.uniform", lambda rows, columns: draws)
    made, pasted, _ = dilo(probability=1.0, blur=5 / side).with_other_background(view)
    assert pasted.all()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    error = ((made.images * std + mean) * 255 - numbers["composites"].permute(0, 3, 1, 2)).abs()
    sharp = numbers["blur_draws"] >= 0.5
    assert 0 < sharp.sum() < count
    assert error[sharp].max() < 1e-3  # levels of 8 bits
    assert error[~sharp].max() < 255 * 0.03 and error[~sharp].mean() < 255 * 0.006


def test_a_blurred_mask_is_soft_at_the_border_of_the_object_alone():
    view = many(4)
    view.images.zero_()
    made, _, _ = changed(dilo(probability=1.0, blur_probability=1.0, blur=1 / SIDE), view)
    alpha = 1 - made.images[:, 0] / made.images[:, 0, :, -1:]  # the background's share, 1 far outside
    line = alpha[0, 0]
    shares = [math.exp(-0.5 * tap**2) for tap in range(-4, 5)]  # a Gaussian of one pixel, up to 4 of them
    for column in range(SIDE):
        inside = sum(share for tap, share in zip(range(-4, 5), shares, strict=True) if column + tap < SIDE // 2)
        assert line[column].item() == pytest.approx(inside / sum(shares), abs=1e-5)


def test_grey_levels_are_whole_numbers_of_8_bits():
    levels = grey_levels(torch.tensor([0.0, 0.5, 0.9999]))
    back = levels[:, :, 0, 0] * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN)
    assert torch.allclose(255 * back, torch.tensor([0.0, 127.0, 254.0])[:, None].expand(3, 3), atol=1e-4)


def test_another_images_background_has_no_object_of_its_own():
    view = views()["v1"]
    view.masks[1] = 1  # all object
    behind = other_backgrounds(view, torch.tensor([0.0, 0.5, 0.99, 0.4]))  # the next image, the one after it, ...
    for b, other in enumerate((1, 3, 1, 1)):
        object_ = view.masks[other] == 1
        for channel in range(3):
            values = view.images[other, channel]
            mean = values.mean() if object_.all() else values[~object_].mean()
            expected = torch.where(object_, mean, values)
            assert torch.allclose(behind[b, channel], expected, atol=1e-5)
    made, _, _ = changed(dilo(probability=1.0, blur_probability=0.0, background="images"), many(3))
    draws = numbers_of(3)[:, 3]
    others = [(b + 1 + int(draws[b] * 2)) % 3 for b in range(3)]
    assert torch.allclose(made.images[:, :, :, SIDE // 2 :], many(3).images[others, :, :, SIDE // 2 :])
    assert torch.equal(made.images[:, :, :, : SIDE // 2], many(3).images[:, :, :, : SIDE // 2])


def numbers_of(count, seed=5):
    torch.manual_seed(seed)
    return uniform(count, 4)


# -------------------------------------------------------------------- probabilities and views without object


def test_shares_of_pasted_and_of_blurred_views():
    view = many()
    method = dilo(probability=0.3, blur_probability=0.5, blur=1 / SIDE)
    made, pasted, _ = changed(method, view)
    assert pasted.float().mean().item() == pytest.approx(0.3, abs=0.07)
    assert torch.equal(made.images[~pasted], view.images[~pasted])
    edge = made.images[pasted][:, :, :, SIDE // 2]  # just outside the object: one colour unless the mask is blurred
    sharp = (edge - edge[:, :, :1]).abs().amax(dim=(1, 2)) < 1e-5
    assert sharp.float().mean().item() == pytest.approx(0.5, abs=0.15)


def test_views_are_pasted_on_their_own_and_shares_are_logged():
    method = dilo(probability=0.5)
    same = views()
    same["v2"] = replace(same["v1"], name="v2")
    seen = []
    method.siamese.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logs = outputs(method, same)
    drawn = numbers_of(2 * BATCH)[:, 0].view(2, BATCH) < 0.5
    kept = [(seen[0].views[name].images == same[name].images).flatten(1).all(dim=1) for name in ("v1", "v2")]
    assert torch.equal(torch.stack(kept), ~drawn) and not torch.equal(drawn[0], drawn[1])
    assert logs["pasted"].item() == pytest.approx(drawn.float().mean().item()) and logs["empty"] == 0


def test_views_without_object_stay_as_they_are():
    method = dilo(probability=1.0)
    made, pasted, empty = changed(method, views(empty=(1, 3))["v1"])
    assert empty.tolist() == [False, True, False, True] and pasted.tolist() == [True, False, True, False]
    assert torch.equal(made.images[[1, 3]], views()["v1"].images[[1, 3]])
    logs = outputs(method, views(empty=range(BATCH)))
    assert logs["empty"] == 1 and logs["pasted"] == 0
    assert torch.equal(logs["loss"], outputs(moco(), views())["loss"])


def test_probability_0_is_the_host_and_1_is_not():
    host = outputs(moco(), views())["loss"]
    assert torch.equal(outputs(dilo(probability=0.0), views())["loss"], host)
    assert not torch.equal(outputs(dilo(probability=1.0), views())["loss"], host)


def test_the_batch_is_left_as_it_was():
    given = views()
    before = {name: view.images.clone() for name, view in given.items()}
    outputs(dilo(probability=1.0), given)
    assert all(torch.equal(view.images, before[name]) for name, view in given.items())


def test_a_step_costs_what_the_hosts_costs():
    recipe = build_recipe("mocov2", SIDE)
    assert training_flops(dilo(), recipe, 8) == training_flops(moco(), recipe, 8)


def test_it_needs_masks_and_learns_from_nothing_else():
    assert dilo().needs == {"masks"} and dilo().supervision == "none"


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="probability lies in \\[0, 1\\], not 1.5"):
        dilo(probability=1.5)
    with pytest.raises(UsageError, match="blur_probability lies in \\[0, 1\\], not -1"):
        dilo(blur_probability=-1)
    with pytest.raises(UsageError, match="blur is above 0, not 0; blur_probability=0 leaves it out"):
        dilo(blur=0)
    with pytest.raises(UsageError, match="background.*grey"):
        dilo(background="texture")
