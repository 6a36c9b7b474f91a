"""Features of regions: segments on the grid of a feature map, regions drawn from them, means over them, matches by id.

Ids are whole numbers from 0 that name the same region of an image in all of its views; they are compared, never used as
indices, so they may be any numbers. ``UNKNOWN`` is the id of what belongs to no region. No shape depends on the data.
"""

import torch
from torch import Tensor

from scd.nn.processes import place

UNKNOWN = -1


def regions_on_grid(segments: Tensor, h: int, w: int) -> Tensor:
    """The region of each cell of a feature grid: that of most of the cell's pixels, of several the one of lowest id.

    This equals a mask for each id, averaged over the cells, and the id with the largest average at each of them
    (DetCon). A cell of which most is unknown is unknown.

    Args:
        segments: (B, H, W) int64 ids.
        h, w: of the grid. NOTE: where they do not divide H and W, each cell reads the pixels nearest to a regular grid
            of ceil(H / h) x ceil(W / w) points.

    Returns:
        (B, h, w) int64.
    """
    rows = nearest(segments.shape[1], h, segments.device)
    columns = nearest(segments.shape[2], w, segments.device)
    cells = segments[:, rows[:, :, None, None], columns].permute(0, 1, 3, 2, 4).flatten(3)  # (B, h, w, pixels)
    ids = cells.sort(dim=3).values
    votes = torch.searchsorted(ids, ids, right=True) - torch.searchsorted(ids, ids)  # pixels with the id of each pixel
    return ids.take_along_dim(votes.argmax(dim=3, keepdim=True), dim=3)[..., 0]  # argmax: the first, so the lowest id


def nearest(size: int, cells: int, device: torch.device) -> Tensor:
    """Pixels (cells, k), k = ceil(size / cells), of each of ``cells`` equal parts of ``size`` pixels in a row."""
    k = -(-size // cells)
    points = torch.arange(cells * k, device=device)
    return ((2 * points + 1) * size // (2 * cells * k)).view(cells, k)


def count_regions(grid: Tensor) -> Tensor:
    """Number (B,) of different known regions on a grid (B, h, w)."""
    return sorted_regions(grid)[1].sum(dim=1)


def random_numbers(images: int, count: int, device: torch.device) -> Tensor:
    """Uniform numbers (images, count) in [0, 1) for :func:`draw_regions`, from torch's global generator on the CPU.

    They do not depend on the device, nor on how the images of a batch are divided among processes.
    """
    rank, world = place()
    numbers = torch.rand(world * images, count, device="cpu")
    return numbers[rank * images : (rank + 1) * images].to(device)


def draw_regions(grid: Tensor, numbers: Tensor) -> Tensor:
    """Regions drawn uniformly and with replacement from those on the grid, whatever their sizes.

    Args:
        grid: (B, h, w) ids, see :func:`regions_on_grid`.
        numbers: (B, R) in [0, 1); the number u draws the region of rank floor(u * regions) in the order of ids.

    Returns:
        (B, R) ids; ``UNKNOWN`` for an image without a known region.
    """
    ids, is_first = sorted_regions(grid)
    last = is_first.sum(dim=1, keepdim=True) - 1
    rank = torch.minimum((numbers * (last + 1)).long(), last)  # -1 where there is no region
    return ids.gather(1, torch.searchsorted(is_first.cumsum(dim=1), rank + 1))


def sorted_regions(grid: Tensor) -> tuple[Tensor, Tensor]:
    """All ids (B, h·w) of a grid in rising order, and (B, h·w) bool: the first one of each known region."""
    ids = grid.flatten(1).sort(dim=1).values
    before = torch.cat([torch.full_like(ids[:, :1], UNKNOWN), ids[:, :-1]], dim=1)
    return ids, ids != before


def region_masks(grid: Tensor, ids: Tensor) -> Tensor:
    """Masks (B, R, h, w) bool of the regions with these ids (B, R) on a grid (B, h, w)."""
    return grid[:, None] == ids[:, :, None, None]


def masked_means(maps: Tensor, masks: Tensor) -> Tensor:
    """Mean features (B, R, C) of maps (B, C, h, w) over masks (B, R, h, w) bool; 0 where a mask is empty."""
    weights = masks.flatten(2).to(maps.dtype)  # (B, R, hw)
    sums = weights @ maps.flatten(2).transpose(1, 2)
    return sums / weights.sum(dim=2, keepdim=True).clamp_min(1)


def same_region(ids: Tensor, other_ids: Tensor) -> Tensor:
    """Which of an image's regions (B, R) are the same known region as which others (B, S): (B, R, S) bool."""
    return (ids[:, :, None] == other_ids[:, None]) & (ids != UNKNOWN)[:, :, None]
