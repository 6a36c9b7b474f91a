"""Regions on a feature grid, draws, masks, means and matches, against plain loops and an image of coordinates."""

from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from scd.data.loader import ImageBatch
from scd.data.recipes import build_recipe
from scd.data.views import ViewMaker
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD
from scd.nn.region_pooling import (
    UNKNOWN,
    count_regions,
    draw_regions,
    masked_means,
    random_numbers,
    region_masks,
    regions_on_grid,
    same_region,
)


def drawn(*shape, seed=0, high=5, low=-1):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


# -------------------------------------------------------------------- the grid


def test_a_cell_belongs_to_the_region_of_most_of_its_pixels_and_of_several_to_the_lowest_id():
    segments = torch.tensor([[
        [9, 9, 4, 4],
        [9, 2, 7, 7],
        [-1, -1, 300, 5],
        [-1, 8, 6, 1],
    ]])  # fmt: skip
    assert regions_on_grid(segments, 2, 2).tolist() == [[[9, 4], [-1, 1]]]


@pytest.mark.parametrize("h, w", [(2, 3), (6, 6), (1, 1), (12, 12)])
def test_it_equals_averaged_masks_and_the_largest_average(h, w):
    """As DetCon does it: one mask for each id, average pooling, argmax."""
    segments = drawn(3, 12, 12, low=0)
    averages = F.adaptive_avg_pool2d(F.one_hot(segments, 5).permute(0, 3, 1, 2).double(), (h, w))
    assert torch.equal(regions_on_grid(segments, h, w), averages.argmax(dim=1))


@pytest.mark.parametrize("size, cells", [(7, 3), (10, 4), (3, 6), (5, 5)])
def test_a_grid_that_does_not_divide_the_view_reads_the_nearest_pixels(size, cells):
    segments = drawn(2, size, size)
    k = -(-size // cells)
    finer = segments[:, [[int((y + 0.5) * size / (cells * k))] for y in range(cells * k)],
                     [int((x + 0.5) * size / (cells * k)) for x in range(cells * k)]]  # fmt: skip
    found = regions_on_grid(segments, cells, cells)
    for b in range(2):
        for i in range(cells):
            for j in range(cells):
                pixels = finer[b, i * k : (i + 1) * k, j * k : (j + 1) * k].flatten().tolist()
                most = max(Counter(pixels).values())
                assert found[b, i, j] == min(id for id, count in Counter(pixels).items() if count == most)


# -------------------------------------------------------------------- draws


def test_draws_are_uniform_over_regions_whatever_their_sizes_and_with_replacement():
    grid = torch.full((1, 6, 6), 40)
    grid[0, 0, 0], grid[0, 3:5], grid[0, 5] = 7, 1000, UNKNOWN
    numbers = (torch.arange(9) + 0.5)[None] / 9
    assert draw_regions(grid, numbers).tolist() == [[7] * 3 + [40] * 3 + [1000] * 3]
    ends = torch.tensor([[0.0, 1 - 2**-24, 1 / 3 - 1e-6, 1 / 3 + 1e-6]])
    assert draw_regions(grid, ends).tolist() == [[7, 1000, 7, 40]]
    assert count_regions(grid).tolist() == [3]


def test_images_draw_on_their_own_and_one_without_a_known_region_draws_unknown():
    grid = torch.tensor([[[3, 3], [3, 3]], [[-1, -1], [-1, -1]], [[-1, 0], [5, 0]]])
    numbers = torch.tensor([[0.0, 0.4, 0.9]]).expand(3, -1)
    assert draw_regions(grid, numbers).tolist() == [[3, 3, 3], [-1, -1, -1], [0, 0, 5]]
    assert count_regions(grid).tolist() == [1, 0, 2]


def test_mirroring_a_grid_changes_no_draw():
    grid, numbers = drawn(4, 5, 5, high=9), torch.rand(4, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw_regions(grid, numbers), draw_regions(grid.flip(2), numbers))


def test_random_numbers_come_from_the_global_generator_and_each_process_has_its_rows(monkeypatch):
    cpu = torch.device("cpu")
    torch.manual_seed(3)
    expected = torch.rand(6, 4)
    torch.manual_seed(3)
    assert torch.equal(random_numbers(6, 4, cpu), expected)
    for rank in range(3):
        monkeypatch.setattr("scd.nn.region_pooling.place", lambda rank=rank: (rank, 3))
        torch.manual_seed(3)
        assert torch.equal(random_numbers(2, 4, cpu), expected[2 * rank : 2 * rank + 2])


# -------------------------------------------------------------------- masks, means, matches


def test_means_over_regions_are_those_of_plain_loops():
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    grid, ids = drawn(2, 4, 5, high=3), torch.tensor([[0, 2, 0, 8], [1, -1, 1, 0]])
    means = masked_means(maps, region_masks(grid, ids))
    assert means.shape == (2, 4, 3)
    for b in range(2):
        for r, name in enumerate(ids[b].tolist()):
            cells = [maps[b, :, y, x] for y in range(4) for x in range(5) if grid[b, y, x] == name]
            expected = sum(cells) / len(cells) if cells else torch.zeros(3).double()
            torch.testing.assert_close(means[b, r], expected)
    assert not means[0, 3].any() and means[1, 1].any()  # no cell of this id; the cells that are unknown


def test_a_mean_sends_its_gradient_to_its_mask_alone():
    maps = torch.zeros(1, 1, 2, 2, requires_grad=True)
    grid = torch.tensor([[[0, 0], [1, 0]]])
    masked_means(maps, region_masks(grid, torch.tensor([[0]]))).sum().backward()
    torch.testing.assert_close(maps.grad[0, 0], torch.tensor([[1 / 3, 1 / 3], [0, 1 / 3]]))


def test_regions_match_by_known_ids_within_an_image():
    ids, others = torch.tensor([[4, -1], [7, 4]]), torch.tensor([[4, -1, 4], [5, 4, 7]])
    assert same_region(ids, others).tolist() == [
        [[True, False, True], [False, False, False]],
        [[False, False, True], [False, True, False]],
    ]


# -------------------------------------------------------------------- an image of coordinates


CANVAS, IMAGES = 32, 24


def coordinate_views(scale):
    """Views of an image whose red is x and whose green is y, with eight regions, four in a row."""
    steps = torch.arange(CANVAS)
    red, green = (steps * 8).expand(CANVAS, -1), (steps * 8)[:, None].expand(-1, CANVAS)
    image = torch.stack([red, green, torch.zeros_like(red)]).to(torch.uint8).expand(IMAGES, -1, -1, -1)
    segments = ((steps // 8)[None] + 4 * (steps // 16)[:, None]).expand(IMAGES, -1, -1)
    batch = ImageBatch(image, torch.arange(IMAGES), slice(0, IMAGES), IMAGES, None, {"segments": segments})
    recipe = build_recipe("single", CANVAS, scale=(scale, 1.0))
    view = ViewMaker(recipe, 0, needs=frozenset({"segments"}))(batch, 0).views["v1"]
    assert 0 < view.flips.sum() < IMAGES
    return view


def pooled_coordinates(view):
    """Mean x and y (B, 8, 2) in pixels of the canvas, from the colours of each region's cells; and the grid."""
    grid = regions_on_grid(view.segments, 8, 8)
    means = masked_means(F.adaptive_avg_pool2d(view.images, 8), masks_of_all(grid))[..., :2]
    return (means * torch.tensor(IMAGENET_STD[:2]) + torch.tensor(IMAGENET_MEAN[:2])) * 255 / 8, grid


def masks_of_all(grid):
    return region_masks(grid, torch.arange(8).expand(len(grid), -1))


def test_a_regions_pooled_coordinates_agree_between_a_view_and_its_mirror_image():
    view = coordinate_views(scale=1.0)
    means, _ = pooled_coordinates(view)
    whole = (view.rectangles - torch.tensor([0.0, 0.0, 1.0, 1.0])).abs().amax(dim=1) < 1e-3
    centres = torch.tensor([[8 * (name % 4) + 3.5, 16 * (name // 4) + 7.5] for name in range(8)])
    for flipped in (False, True):
        rows = means[whole & (view.flips == flipped)]
        assert len(rows)
        torch.testing.assert_close(rows, centres.expand(len(rows), -1, -1), rtol=0, atol=0.3)


def test_a_regions_pooled_coordinates_are_those_of_its_cells_in_any_crop():
    view = coordinate_views(scale=0.2)
    means, grid = pooled_coordinates(view)
    cells = view.grid(8, 8) * CANVAS - 0.5  # (B, 8, 8, 2), the canvas's first pixel has its centre at 0
    masks = masks_of_all(grid)
    expected = masked_means(cells.permute(0, 3, 1, 2), masks)
    seen = masks.flatten(2).any(dim=2)
    assert 2 * len(grid) < seen.sum() < 8 * len(grid)
    torch.testing.assert_close(means[seen], expected[seen], rtol=0, atol=0.5)
