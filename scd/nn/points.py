"""Points of an image that two views show: where they lie in each view, and a feature map's values there.

Places are x, y in [0, 1] of the source image, coordinates are x, y in [0, 1] of a view. In both, 0 and 1 are the outer
borders of the first and the last pixel or position: position i of w has its centre at (i + 0.5) / w, as in
:meth:`scd.method.View.grid`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.method import View
from scd.nn.precision import at_least_float32, no_autocast


def intersection(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """What two rectangles have in common, and whether that has an area.

    Args:
        one, other: (..., 4) x0, y0, x1, y1, of shapes that broadcast.

    Returns:
        (..., 4), without meaning where nothing is common, and (...) bool: rectangles that only touch share nothing.
    """
    low = torch.maximum(one[..., :2], other[..., :2])
    high = torch.minimum(one[..., 2:], other[..., 2:])
    return torch.cat([low, high], dim=-1), (high > low).all(dim=-1)


def overlap(view: View, other: View) -> tuple[Tensor, Tensor]:
    """The part of each source image that both views show, and the images that have one.

    Returns:
        Rectangles (B, 4) in [0, 1] of the source image, and (B,) bool. Where the views do not overlap, the rectangle is
        that of ``other``, so that points in it are at least points of one view.
    """
    common, found = intersection(view.rectangles, other.rectangles)
    return torch.where(found[:, None], common, other.rectangles), found


def random_shares(*shape: int, like: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), of the device and type of another tensor.

    They come from torch's global generator, which the training loop seeds before each step, and are drawn on the CPU,
    so that all devices agree.
    """
    return torch.rand(*shape, device="cpu").to(like)


def grid_points(rectangles: Tensor, side: int) -> Tensor:
    """Places (..., side·side, 2): the centres of a regular grid over each of the rectangles (..., 4), row by row."""
    centres = (torch.arange(side, device=rectangles.device, dtype=rectangles.dtype) + 0.5) / side
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return points_within(rectangles, torch.stack([x, y], dim=2).flatten(0, 1))


def points_within(rectangles: Tensor, shares: Tensor) -> Tensor:
    """Places (..., P, 2) at these shares (..., P, 2) in [0, 1] of the width and height of rectangles (..., 4)."""
    low, high = rectangles[..., None, :2], rectangles[..., None, 2:]
    return low + shares * (high - low)


def coordinates_in(view: View, places: Tensor) -> Tensor:
    """Coordinates (B, ..., 2) in a view of places (B, ..., 2) of the source images; outside [0, 1]: not in the view.

    This inverts the crop, the resize to the view's size, and then the flip.
    """
    rows = (len(places), *[1] * (places.ndim - 2))
    low, high = view.rectangles[:, :2].view(*rows, 2), view.rectangles[:, 2:].view(*rows, 2)
    x, y = ((places - low) / (high - low)).unbind(dim=-1)
    return torch.stack([torch.where(view.flips.view(rows), 1 - x, x), y], dim=-1)


def sample(maps: Tensor, coordinates: Tensor) -> Tensor:
    """Values (B, P, C) of maps (B, C, h, w) at coordinates (B, P, 2) of the view.

    Bilinear between the centres of the positions; beyond the outermost centres, half a position from the border, the
    nearest centre's or edge's value. At least float32, also under autocast.
    """
    with no_autocast(maps):
        maps = at_least_float32(maps)
        grid = (2 * coordinates - 1)[:, None].to(maps)  # (B, 1, P, 2), -1 and 1 are the map's outer borders
        values = F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return values[:, :, 0].transpose(1, 2)  # (B, C, 1, P) -> (B, P, C)
