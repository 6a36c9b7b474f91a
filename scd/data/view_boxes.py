"""Boxes of an image in the coordinates of its views."""

import torch
from torch import Tensor


def boxes_in_view(boxes: Tensor, rectangle: Tensor, flip: bool | Tensor) -> tuple[Tensor, Tensor]:
    """Boxes as a view of the image shows them.

    A point (x, y) of the image lies at u = (x - x0) / (x1 - x0), v = (y - y0) / (y1 - y0) of the view with rectangle
    (x0, y0, x1, y1), and at 1 - u where the view is mirrored.

    Args:
        boxes: (n, 4) float, x0, y0, x1, y1 in [0, 1] of the image.
        rectangle: (4,), a row of ``View.rectangles``; or (n, 4), one for each box.
        flip: an entry of ``View.flips``; or (n,).

    Returns:
        Boxes (n, 4) in [0, 1] of the view, clipped to it; and the share (n,) in [0, 1] of each box's area that the
        view shows. A box outside the view has share 0 and no area; so has a box that had none.
    """
    rectangle = torch.as_tensor(rectangle, dtype=boxes.dtype, device=boxes.device).expand(len(boxes), 4)
    flip = torch.as_tensor(flip, dtype=torch.bool, device=boxes.device).expand(len(boxes))
    corner, sides = rectangle[:, :2], rectangle[:, 2:] - rectangle[:, :2]
    low, high = (boxes[:, :2] - corner) / sides, (boxes[:, 2:] - corner) / sides  # (n, 2) each: u, v
    seen_low, seen_high = low.clamp(0, 1), high.clamp(0, 1)
    whole = (high - low).clamp_min(0).prod(dim=1)
    seen = (seen_high - seen_low).clamp_min(0).prod(dim=1)
    share = torch.where(whole > 0, seen / whole.clamp_min(torch.finfo(boxes.dtype).tiny), 0.0)
    (u0, v0), (u1, v1) = seen_low.unbind(dim=1), seen_high.unbind(dim=1)
    u0, u1 = torch.where(flip, 1 - u1, u0), torch.where(flip, 1 - u0, u1)
    return torch.stack([u0, v0, u1, v1], dim=1), share
