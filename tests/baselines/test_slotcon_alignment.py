"""SlotCon's alignment of two views' score maps against source coordinates and RoIAlign."""

import torch
from torchvision.ops import roi_align

from baselines.slotcon import align
from scd.method import View

WHOLE = [0.0, 0.0, 1.0, 1.0]
LEFT, RIGHT = [0.0, 0.1, 0.4, 0.9], [0.6, 0.1, 1.0, 0.9]  # nothing in common


def view(rectangles, flips):
    return View("", "global", None, torch.tensor(rectangles), torch.tensor(flips))


def random_views(count, seed=0):
    """Two views of each image: rectangles of 0.3 to 0.7 of a side around the middle, all four pairs of flips."""
    draw = torch.Generator().manual_seed(seed)
    views = []
    for flips in ([False, True], [False, False, True, True]):
        low, high = 0.45 * torch.rand(count, 2, generator=draw), 0.55 + 0.45 * torch.rand(count, 2, generator=draw)
        flips = torch.tensor(flips).repeat(count)[:count]
        views.append(View("", "global", None, torch.cat([low, high], dim=1), flips))
    return views


def overlap_coordinates(one, other, height, width):
    """Source coordinates (B, 2, height, width) of the centres of a grid over the overlap."""
    out = torch.empty(len(one.rectangles), 2, height, width)
    for b, (p, q) in enumerate(zip(one.rectangles.tolist(), other.rectangles.tolist(), strict=True)):
        x0, y0, x1, y1 = max(p[0], q[0]), max(p[1], q[1]), min(p[2], q[2]), min(p[3], q[3])
        for row in range(height):
            for column in range(width):
                out[b, 0, row, column] = x0 + (column + 0.5) / width * (x1 - x0)
                out[b, 1, row, column] = y0 + (row + 0.5) / height * (y1 - y0)
    return out


def test_maps_of_source_coordinates_are_equal_once_aligned():
    one, other = random_views(16)
    size = 7
    first, second, overlap = align(
        one.grid(size, size).permute(0, 3, 1, 2), other.grid(size, size).permute(0, 3, 1, 2), one, other
    )
    assert overlap.all()
    expected = overlap_coordinates(one, other, size, size)
    checked = 0
    for maps, seen in ((first, one), (second, other)):
        for b in range(16):
            for axis in range(2):
                start, end = seen.rectangles[b, axis], seen.rectangles[b, axis + 2]
                half = (end - start) / size / 2  # between a view's border and the centre of its first position
                wanted = expected[b, axis].clamp(start + half, end - half)  # beyond it, the border's value
                assert torch.allclose(maps[b, axis], wanted, atol=1e-5)
                checked += int((wanted == expected[b, axis]).sum())
    assert checked > 0.8 * 2 * expected.numel()  # exact nearly everywhere


def test_alignment_of_any_maps_equals_roi_align_and_a_flip():
    one, other = random_views(12, seed=1)
    size = 6
    maps = torch.randn(2, 12, 5, size, size, generator=torch.Generator().manual_seed(0))
    aligned = align(*maps, one, other)[:2]
    low = torch.maximum(one.rectangles, other.rectangles)[:, :2]
    high = torch.minimum(one.rectangles, other.rectangles)[:, 2:]
    for values, result, seen in zip(maps, aligned, (one, other), strict=True):
        corner, sides = seen.rectangles[:, :2], seen.rectangles[:, 2:] - seen.rectangles[:, :2]
        x0, y0 = ((low - corner) / sides * size).unbind(dim=1)
        x1, y1 = ((high - corner) / sides * size).unbind(dim=1)
        x0, x1 = torch.where(seen.flips, size - x1, x0), torch.where(seen.flips, size - x0, x1)
        rois = torch.stack([torch.arange(12.0), x0, y0, x1, y1], dim=1)
        expected = roi_align(values, rois, (size, size), aligned=True)
        expected = torch.where(seen.flips[:, None, None, None], expected.flip(3), expected)
        assert torch.allclose(result, expected, atol=1e-5)


def test_one_rectangle_gives_the_maps_themselves_mirrored_back():
    maps = torch.randn(2, 3, 4, 5)
    first, second, _ = align(maps, maps, view([WHOLE] * 2, [False, True]), view([WHOLE] * 2, [True, True]))
    assert torch.allclose(first[0], maps[0], atol=1e-6) and torch.allclose(first[1], maps[1].flip(2), atol=1e-6)
    assert torch.allclose(second, maps.flip(3), atol=1e-6)


def test_maps_of_different_sizes_meet_on_the_targets_grid():
    one, other = random_views(8)
    first, second, _ = align(one.grid(20, 20).permute(0, 3, 1, 2), other.grid(40, 40).permute(0, 3, 1, 2), one, other)
    assert first.shape == second.shape == (8, 2, 40, 40)
    assert torch.allclose(first, second, atol=0.5 / 20 + 1e-5)  # half a position of the coarser map, at its border


def test_views_that_share_nothing_are_said_and_stay_finite():
    one = view([LEFT, WHOLE, [0.0, 0.0, 0.5, 0.5]], [False] * 3)
    other = view([RIGHT, LEFT, [0.5, 0.0, 1.0, 0.5]], [True] * 3)  # the last: a common edge, no common area
    first, second, overlap = align(torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), one, other)
    assert overlap.tolist() == [False, True, False]
    assert torch.isfinite(first).all() and torch.isfinite(second).all()
