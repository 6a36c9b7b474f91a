"""Distances in region trees by hand; they are an ultrametric, and views carry them, whatever their crop and flip."""

import pytest
import torch
import torch.nn.functional as F

from scd.data.loader import ImageBatch
from scd.data.recipes import build_recipe
from scd.data.views import IMAGENET_MEAN, IMAGENET_STD, ViewMaker
from scd.nn.region_pooling import UNKNOWN, regions_on_grid
from scd.nn.region_tree import CUTS, MODULI, MOST, tree_distances


def packed(coarse, middle, fine):
    """The id of a region from its numbers in the three cuts."""
    return coarse + 64 * middle + 1024 * fine


def test_each_cut_that_separates_two_pixels_counts_once():
    ids = torch.tensor([[packed(2, 1, 3), packed(2, 1, 0), packed(2, 0, 3), packed(1, 1, 3), 63, UNKNOWN]])
    assert tree_distances(ids[:, :1], ids).tolist() == [[[0, 1, 2, 3, 3, UNKNOWN]]]
    assert tree_distances(ids, ids[:, -1:]).tolist() == [[[UNKNOWN]] * 6]
    assert tree_distances(ids, ids[:, 1:3]).shape == (1, 6, 2)


def test_the_numbers_of_all_cuts_fit_into_one_id_of_15_bits():
    largest = packed(*(most - 1 for most in reversed(MOST)))
    assert largest == torch.iinfo(torch.int16).max == MODULI[0] - 1
    assert [MODULI[i] // MODULI[i + 1] for i in range(CUTS - 1)] == list(MOST[:-1]) and MODULI[-1] == MOST[-1]


def test_distances_are_an_ultrametric():
    ids = torch.randint(0, 2**15, (1, 60), generator=torch.Generator().manual_seed(0)) & 0b000110001000011
    d = tree_distances(ids, ids)[0]
    assert set(d.unique().tolist()) == {0, 1, 2, 3}
    assert torch.equal(d, d.T) and torch.equal(d == 0, ids.T == ids)
    assert (d[:, None, :] <= torch.maximum(d[:, :, None], d[None])).all()  # p, q, r


def test_plain_segments_are_a_flat_tree():
    ids = torch.tensor([[0, 1, 1, 40, 63]])
    d = tree_distances(ids, ids)[0]
    assert torch.equal(d, torch.where(ids.T == ids, 0, CUTS))


def test_images_are_compared_with_themselves_alone():
    ids = torch.tensor([[0, 0], [64, 0]])
    assert tree_distances(ids, ids).tolist() == [[[0, 0], [0, 0]], [[0, 2], [2, 0]]]


# -------------------------------------------------------------------- an image of coordinates


CANVAS, IMAGES, GRID = 32, 48, 8


def coordinate_view(seed):
    """A view of each image, whose red is x and whose green is y: left and right halves, then quarters, then eighths."""
    steps = torch.arange(CANVAS)
    red, green = (steps * 8).expand(CANVAS, -1), (steps * 8)[:, None].expand(-1, CANVAS)
    image = torch.stack([red, green, torch.zeros_like(red)]).to(torch.uint8).expand(IMAGES, -1, -1, -1)
    segments = packed(steps[None] // 16, steps[:, None] // 16, steps[None] // 8 % 2).expand(IMAGES, -1, -1)
    batch = ImageBatch(image, torch.arange(IMAGES), slice(0, IMAGES), IMAGES, None, {"segments": segments})
    recipe = build_recipe("single", CANVAS, scale=(0.05, 0.6))
    view = ViewMaker(recipe, seed, needs=frozenset({"segments"}))(batch, 0).views["v1"]
    assert 0 < view.flips.sum() < IMAGES
    return view


def places(view):
    """x and y (B, 2, cells) in pixels of the canvas, from the colours of the cells of a view."""
    means = F.adaptive_avg_pool2d(view.images, GRID)[:, :2].flatten(2)
    return (means * torch.tensor(IMAGENET_STD[:2])[:, None] + torch.tensor(IMAGENET_MEAN[:2])[:, None]) * 255 / 8


@pytest.mark.parametrize("seeds", [(0, 1), (2, 3)])
def test_cells_of_two_views_have_the_distance_of_the_places_that_they_show(seeds):
    one, other = (coordinate_view(seed) for seed in seeds)
    ids = [regions_on_grid(view.segments, GRID, GRID).flatten(1) for view in (one, other)]
    found = tree_distances(*ids)
    (x, y), (x2, y2) = ((xy + 0.5).unbind(dim=1) for xy in (places(one), places(other)))
    x, y, x2, y2 = x[:, :, None], y[:, :, None], x2[:, None], y2[:, None]
    expected = torch.full_like(found, 3)
    left = (x < 16) == (x2 < 16)
    expected[left] = 2
    expected[left & ((y < 16) == (y2 < 16))] = 1
    expected[((x // 8) == (x2 // 8)) & ((y < 16) == (y2 < 16))] = 0
    clear = ((x % 8 - 4).abs() < 2) & ((y % 16 - 8).abs() < 6) & ((x2 % 8 - 4).abs() < 2) & ((y2 % 16 - 8).abs() < 6)
    assert torch.equal(found[clear], expected[clear])
    assert set(found[clear].unique().tolist()) == {0, 1, 2, 3}
    common = torch.minimum(one.rectangles[:, 2:], other.rectangles[:, 2:]) > torch.maximum(
        one.rectangles[:, :2], other.rectangles[:, :2]
    )
    apart = ~common.all(dim=1)
    assert apart.any() and (found[apart] == 0).any()  # without an overlap, one region reaches into both views
    assert (found > 0).all(dim=2).any()  # a region that lies in one view only
