"""Points in two views, by images whose red is x and whose green is y, and by a bilinear formula of one line."""

import math

import pytest
import torch

from scd.data.loader import ImageBatch
from scd.data.views import CropSpec, Recipe, ViewMaker
from scd.method import View
from scd.nn.points import coordinates_in, grid_points, intersection, overlap, points_within, random_shares, sample

SIDE = 64  # of the source image
WHOLE = [0.0, 0.0, 1.0, 1.0]
CORNER, OTHER_CORNER = [0.0, 0.0, 0.5, 0.5], [0.4, 0.3, 1.0, 0.9]  # share 0.1 x 0.2
LEFT, RIGHT, FAR = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], [0.6, 0.0, 1.0, 1.0]  # LEFT touches RIGHT


def view(rectangles, flips=None):
    rectangles = torch.tensor(rectangles)
    flips = torch.zeros(len(rectangles), dtype=torch.bool) if flips is None else torch.tensor(flips)
    return View("", "global", None, rectangles, flips)


def coordinate_views(count=48):
    """Two crops of different sizes of images whose red is x and whose green is y, and a whole view."""
    centres = (torch.arange(SIDE) + 0.5) / SIDE * 255
    red = centres.expand(SIDE, SIDE)
    image = torch.stack([red, red.T, torch.zeros(SIDE, SIDE)]).round().to(torch.uint8)
    crops = (
        CropSpec("v1", 32, photometric="none"),
        CropSpec("v2", 20, scale=(0.05, 0.4), photometric="none"),
    )
    maker = ViewMaker(Recipe("test", crops), seed=3, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    batch = ImageBatch(image.expand(count, -1, -1, -1).contiguous(), torch.arange(count), slice(0, count), count)
    return maker(batch, 7).views


def test_values_at_matched_points_agree_between_crops_of_other_sizes_flipped_or_not():
    """To 1/100 of the image's side: colours have 255 levels, and a pixel of the larger crop is 1/32 of a side."""
    views = coordinate_views()
    one, other = views["v1"], views["v2"]
    assert {(a, b) for a, b in zip(one.flips.tolist(), other.flips.tolist(), strict=True)} == {
        (a, b) for a in (False, True) for b in (False, True)
    }
    rectangles, found = overlap(one, other)
    assert 0.6 < found.float().mean() < 1  # some of the small crops lie beside the other one
    torch.manual_seed(0)
    places = points_within(rectangles, random_shares(len(rectangles), 50, 2, like=rectangles))
    inside = found[:, None] & ((places > 3 / SIDE) & (places < 1 - 3 / SIDE)).all(dim=2)  # the filter ends at the image
    values = []
    for seen in (one, other):
        at = coordinates_in(seen, places)
        assert ((at >= -1e-5) & (at <= 1 + 1e-5))[found].all()  # in both views
        half = 0.5 / seen.images.shape[-1]
        inside &= ((at > half) & (at < 1 - half)).all(dim=2)  # between centres of pixels
        values.append(sample(seen.images, at)[:, :, :2])
    assert inside[found].float().mean() > 0.6
    assert (values[0] - values[1])[inside].abs().max() < 0.01
    for value in values:
        assert (value - places)[inside].abs().max() < 0.01


def test_at_a_views_border_the_value_is_at_most_half_a_position_away():
    seen = view([[0.2, 0.1, 0.8, 0.9]] * 2, [False, True])
    size = 5
    places = points_within(seen.rectangles, torch.rand(2, 400, 2, generator=torch.Generator().manual_seed(0)))
    values = sample(seen.grid(size, size).permute(0, 3, 1, 2), coordinates_in(seen, places))
    half = (seen.rectangles[:, 2:] - seen.rectangles[:, :2])[:, None] / size / 2
    first, last = seen.rectangles[:, None, :2] + half, seen.rectangles[:, None, 2:] - half
    nearest_centre = torch.minimum(torch.maximum(places, first), last)
    assert torch.allclose(values, nearest_centre, atol=1e-6)


def test_coordinates_invert_the_grid_of_a_view():
    draw = torch.Generator().manual_seed(0)
    low, high = 0.45 * torch.rand(6, 2, generator=draw), 0.55 + 0.45 * torch.rand(6, 2, generator=draw)
    seen = View("", "global", None, torch.cat([low, high], dim=1), torch.tensor([True, False] * 3))
    height, width = 3, 5
    found = coordinates_in(seen, seen.grid(height, width))
    for row in range(height):
        for column in range(width):
            expected = torch.tensor([(column + 0.5) / width, (row + 0.5) / height])
            assert torch.allclose(found[:, row, column], expected.expand(6, 2), atol=1e-5)
    assert torch.allclose(coordinates_in(view([WHOLE], [True]), torch.tensor([[[0.1, 0.2]]])), torch.tensor([0.9, 0.2]))


def test_views_that_overlap_in_a_corner_touch_or_lie_apart():
    rectangles, found = overlap(
        view([CORNER, LEFT, LEFT, WHOLE, RIGHT]), view([OTHER_CORNER, RIGHT, FAR, CORNER, LEFT], [True] * 5)
    )
    assert found.tolist() == [True, False, False, True, False]
    assert torch.allclose(rectangles[0], torch.tensor([0.4, 0.3, 0.5, 0.5]))
    assert rectangles[1:].tolist() == [RIGHT, pytest.approx(FAR), CORNER, LEFT]  # the second view's where none is found
    corners = intersection(torch.tensor([[LEFT], [RIGHT]]), torch.tensor([LEFT, CORNER]))
    assert corners[0].shape == (2, 2, 4) and corners[1].tolist() == [[True, True], [False, False]]


def test_random_points_fill_their_rectangles_and_come_from_the_global_generator():
    rectangles = torch.tensor([[WHOLE, CORNER], [OTHER_CORNER, FAR]])
    torch.manual_seed(1)
    shares = random_shares(2, 2, 2000, 2, like=rectangles)
    points = points_within(rectangles, shares)
    for b, i in ((0, 0), (0, 1), (1, 0), (1, 1)):
        low, high = rectangles[b, i, :2], rectangles[b, i, 2:]
        assert ((points[b, i] >= low - 1e-6) & (points[b, i] <= high + 1e-6)).all()
        assert torch.allclose(points[b, i].mean(dim=0), (low + high) / 2, atol=0.03)
        assert torch.allclose(points[b, i].std(dim=0), (high - low) / 12**0.5, atol=0.02)
    torch.manual_seed(1)
    assert torch.equal(random_shares(2, 2, 2000, 2, like=rectangles), shares)
    assert not torch.equal(random_shares(2, 2, 2000, 2, like=rectangles), shares)
    assert random_shares(3, like=torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


def test_grid_points_are_those_of_the_views_own_grid():
    seen = view([WHOLE, OTHER_CORNER])
    assert torch.allclose(grid_points(seen.rectangles, 3), seen.grid(3, 3).flatten(1, 2))


def bilinear_by_hand(maps, x, y):
    """The value (C,) of one map (C, h, w) at x, y in [0, 1]: a hat of width 1 around the centre of each position."""
    height, width = maps.shape[1:]
    column = min(max(x * width - 0.5, 0.0), width - 1.0)
    row = min(max(y * height - 0.5, 0.0), height - 1.0)
    total = torch.zeros(maps.shape[0], dtype=maps.dtype)
    for r in range(height):
        for c in range(width):
            total += maps[:, r, c] * max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c))
    return total


def test_sampling_equals_hats_around_the_positions():
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 4, 6, generator=draw, dtype=torch.float64)  # not square: x and y must not be exchanged
    at = torch.rand(2, 30, 2, generator=draw, dtype=torch.float64) * 1.2 - 0.1  # some beyond the border
    values = sample(maps, at)
    assert values.shape == (2, 30, 3) and values.dtype == torch.float64
    for b in range(2):
        for p in range(30):
            expected = bilinear_by_hand(maps[b], *at[b, p].tolist())
            assert torch.allclose(values[b, p], expected, atol=1e-12)


def test_sampling_at_the_centres_gives_the_map_and_its_gradient():
    maps = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    values = sample(maps, grid_points(torch.tensor([WHOLE]), 3))
    assert torch.allclose(values, maps.flatten(2).transpose(1, 2), atol=1e-6)
    values.sum().backward()
    assert torch.allclose(maps.grad, torch.ones_like(maps), atol=1e-5)


def test_sampling_keeps_full_precision_under_autocast():
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    at = grid_points(torch.tensor([CORNER, OTHER_CORNER]), 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (
            torch.equal(sample(maps, at), sample(maps.float(), at))
            and sample(maps.bfloat16(), at).dtype == torch.float32
        )
    assert math.isfinite(sample(maps, at).sum())
