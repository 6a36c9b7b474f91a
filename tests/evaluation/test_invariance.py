"""Invariances: the score beside the official code and a second formula, and each change of an image by itself."""

import math

import numpy as np
import pytest
import torch
from golden_numbers import golden
from tiny_evaluation import ChannelMethod, With, context_of, object_source
from torch import nn

from scd.errors import DataError, UsageError
from scd.evaluation.background import fill_holes
from scd.evaluation.invariance import (
    KINDS,
    SIDES,
    Invariance,
    covered,
    firing_score,
    lit,
    moved,
    relative_similarity,
    usable,
    versions_of,
)

SIDE = 24


# -------------------------------------------------------------------- scores


@pytest.mark.parametrize(("place", "units"), [(0, 10), (1, 25)])
def test_the_official_score(place, units):
    """demystifyssl prints it in per cent."""
    numbers = golden("invariance")
    found = firing_score(numbers["features"], numbers["labels"], units)
    assert 100 * found == pytest.approx(float(numbers["score"][place]), rel=1e-12)


@pytest.mark.parametrize("classes", [1, 4])
def test_the_score_by_loops(classes):
    draw = np.random.default_rng(1)
    labels = np.arange(24) % classes
    features = draw.normal(size=(24, 1, 7)) + draw.uniform(0.1, 2, 7) * draw.normal(size=(24, 5, 7))
    share = max(1 / classes, 0.05) if classes > 1 else 0.05
    best = []
    for label in range(classes):
        scores = []
        for unit in range(7):
            values = sorted(features[:, :, unit].ravel())
            place = int(len(values) * (1 - share) + 1e-9)
            high, low = values[place], values[::-1][place]
            shares = []
            for own in features[labels == label][:, :, unit]:
                fired = max(sum(value > high for value in own), sum(value < low for value in own)) / len(own)
                shares += [fired] if fired else []
            everywhere = sum(value >= high for value in values) / len(values)
            scores.append((sum(shares) / len(shares) if shares else 0.0) / everywhere)
        best.append(sum(sorted(scores)[-3:]) / 3)
    found = firing_score(torch.from_numpy(features), torch.from_numpy(labels), 3)
    assert found == pytest.approx(share * sum(best) / classes, rel=1e-12)


def test_units_that_do_not_change_score_highest():
    draw = torch.Generator().manual_seed(0)
    objects = torch.randn(40, 1, 12, generator=draw, dtype=torch.float64)
    labels = torch.zeros(40, dtype=torch.long)
    noise = torch.randn(40, 9, 12, generator=draw, dtype=torch.float64)
    scores = [firing_score(objects + amount * noise, labels, 5) for amount in (0.01, 0.5, 5.0)]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0.9 and scores[2] < 0.4


def test_similarity_by_loops_and_at_its_ends():
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(5, 3, 6, generator=draw, dtype=torch.float64) + 1
    z = features / features.square().sum(dim=2, keepdim=True).sqrt()
    own = [float(z[i, 0] @ z[i, v]) for i in range(5) for v in (1, 2)]
    other = [float(z[i, 0] @ z[j, 0]) for i in range(5) for j in range(5) if i != j]
    mean, apart = sum(own) / len(own), sum(other) / len(other)
    assert relative_similarity(features) == pytest.approx((mean - apart) / (1 - apart), rel=1e-10)
    assert relative_similarity(features[:, :1].expand(-1, 3, -1)) == pytest.approx(1)
    assert relative_similarity(torch.ones(4, 3, 6)) == 0  # a collapsed network is not called invariant


# -------------------------------------------------------------------- changes of an image


def square(x0=8, y0=6, width=8, height=12):
    """An image (1, 3, S, S) that is 50 outside and 200 on a rectangle, and its mask."""
    masks = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    masks[:, y0 : y0 + height, x0 : x0 + width] = True
    return torch.where(masks[:, None], 200, 50).to(torch.uint8).expand(1, 3, -1, -1).clone(), masks


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_an_occluder_hides_the_share_from_its_side_and_nothing_else(side, share):
    images, masks = square()
    found = covered(images, masks, side, share)
    hidden = (found != images).any(dim=1)[0]
    assert hidden.sum() == share * masks.sum() and not (hidden & ~masks[0]).any() and (found[0, :, hidden] == 128).all()
    rows, columns = hidden.nonzero().T
    wide, high = round(share * 8), round(share * 12)
    expected = {  # first and last row and column
        "left": (6, 17, 8, 7 + wide), "right": (6, 17, 16 - wide, 15),
        "top": (6, 5 + high, 8, 15), "bottom": (18 - high, 17, 8, 15),
    }  # fmt: skip
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == expected[side]


def test_an_occluder_of_an_object_of_any_form():
    draw = torch.Generator().manual_seed(0)
    masks = torch.rand(20, SIDE, SIDE, generator=draw) > 0.6
    images = torch.randint(0, 100, (20, 3, SIDE, SIDE), dtype=torch.uint8, generator=draw)
    for side in SIDES:
        hidden = (covered(images, masks, side, 0.5) != images).any(dim=1)
        found = (hidden & masks).flatten(1).sum(dim=1) / masks.flatten(1).sum(dim=1)
        assert (found >= 0.5).all() and (found < 0.5 + 2 / SIDE).all()


def test_moves_are_what_they_say():
    images, masks = square()
    behind = fill_holes(images, masks.to(torch.uint8))
    assert (behind == 50).all()
    assert torch.equal(moved(images, masks, behind, 0, 1.0, 0.0, 0.0), images)
    shifted = moved(images, masks, behind, 0, 1.0, 0.125, 0.25)  # 3 columns to the right, 6 rows down
    assert torch.equal(shifted, square(11, 12)[0])
    turned = moved(images, masks, behind, 90, 1.0, 0.0, 0.0)
    assert torch.equal(turned, square(6, 8, 12, 8)[0])
    larger = (moved(images, masks, behind, 0, 1.25, 0.0, 0.0) > 125).float().mean()
    assert float(larger) == pytest.approx(1.25**2 * float(masks.float().mean()), rel=0.1)


def test_a_turn_is_clockwise():
    """An object with one bright pixel at its right end: after 90 degrees clockwise it is at the lower end."""
    images, masks = square(8, 10, 9, 3)
    images[:, :, 11, 16] = 255
    behind = torch.full_like(images, 50)
    found = moved(images, masks, behind, 90, 1.0, 0.0, 0.0)
    row, column = divmod(int(found[0, 0].flatten().argmax()), SIDE)
    assert (row, column) == (15, 12)


def test_light_changes_all_pixels_alike():
    images, _ = square()
    found = lit(images, (0.5, 1.0, 1.5))
    assert found[0, :, 0, 0].tolist() == [25, 50, 75] and found[0, :, 10, 10].tolist() == [100, 200, 255]


def test_there_are_nine_versions_the_first_of_which_is_the_image():
    images, masks = square()
    for kind in KINDS:
        versions = versions_of(kind, images, masks)
        assert versions.shape == (1, 9, 3, SIDE, SIDE) and torch.equal(versions[:, 0], images)
        assert len({tuple(version.flatten().tolist()) for version in versions[0]}) == 9


# -------------------------------------------------------------------- the protocol


def test_a_backbone_that_normalises_brightness_is_invariant_to_it():
    class Contrast(nn.Module):
        """The ratios of channels, which a factor does not change, or the channels themselves."""

        def __init__(self, ratios):
            super().__init__()
            self.scale, self.ratios = nn.Parameter(torch.ones(1)), ratios

        def forward(self, images):
            x = self.scale * (images + 3)
            grown = torch.cat([x, x.flip(1) * x, x.square()], dim=1)
            return grown / grown.flatten(1).norm(dim=1).view(-1, 1, 1, 1) if self.ratios else grown

    source = object_source(train=8, test=40)
    blind, seeing = (
        Invariance(objects=40, units=3)(context_of(With(Contrast(ratios)), source, 16)) for ratios in (True, False)
    )
    assert blind["illumination_similarity"] >= seeing["illumination_similarity"] - 1e-6
    assert blind["n_invariance"] == 40 and all(0 <= blind[f"{kind}_invariance"] <= 1 for kind in KINDS)


def test_the_background_alone_does_not_see_what_happens_to_the_object():
    """The blue channel holds the background, and the object in it is dark in all images."""
    found = Invariance(objects=30, units=1)(context_of(ChannelMethod(2), object_source(train=8, test=40), 16))
    assert found["n_invariance"] == 30 and math.isfinite(found["viewpoint_similarity"])


def test_objects_are_the_same_in_all_runs_and_usable():
    data = context_of(ChannelMethod(0), object_source(train=8, test=40), 16, seed=5).data
    rows = usable(data, 10)
    assert torch.equal(rows, usable(data, 10)) and len(rows) == 10 and torch.equal(rows, rows.sort().values)
    data.test.masks[rows[0]] = 0
    data.test.masks[rows[1]] = 1
    assert not set(rows[:2].tolist()) & set(usable(data, 40).tolist())


def test_what_it_needs():
    bare = context_of(ChannelMethod(0), object_source(leave_out=("mask",), train=8, test=8), 16)
    assert Invariance()(bare) == {}
    with pytest.raises(UsageError, match="1 object and 1 unit or more"):
        Invariance(units=0)
    with pytest.raises(DataError, match="needs two images with object and background"):
        Invariance(objects=1)(context_of(ChannelMethod(0), object_source(train=8, test=8), 16))
