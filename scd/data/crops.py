"""Random rectangles and the antialiased interpolation that cuts them out, for a whole batch at once."""

import math

import torch
from torch import Tensor

TRIES = 10
RECTANGLE_DRAWS = 2 * TRIES + 2  # area and ratio of every try, then the position


def sample_boxes(draws: Tensor, scale: tuple[float, float], ratio: tuple[float, float]) -> Tensor:
    """Rectangles as RandomResizedCrop draws them, on square images.

    Ten tries of (area ~ U(scale), log ratio ~ U(log ratio)); the first one that fits in the image is placed uniformly.
    If none fits: the largest central rectangle whose ratio is allowed.

    Args:
        draws: (B, RECTANGLE_DRAWS) uniform numbers in [0, 1).
        scale: range of the area as a share of the image's area.
        ratio: range of width over height.

    Returns:
        (B, 4) x0, y0, x1, y1 in [0, 1].

    NOTE: continuous coordinates; torchvision rounds sides and positions to whole pixels, which on 32-64 px images
    leaves a visible lattice of scales.
    """
    areas = scale[0] + draws[:, :TRIES] * (scale[1] - scale[0])
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    ratios = torch.exp(log_low + draws[:, TRIES : 2 * TRIES] * (log_high - log_low))
    widths, heights = (areas * ratios).sqrt(), (areas / ratios).sqrt()
    fits = (widths <= 1) & (heights <= 1)
    first = fits.int().argmax(dim=1, keepdim=True)
    width, height = widths.gather(1, first)[:, 0], heights.gather(1, first)[:, 0]
    x0 = draws[:, -2] * (1 - width)
    y0 = draws[:, -1] * (1 - height)
    boxes = torch.stack([x0, y0, x0 + width, y0 + height], dim=1)
    central_width, central_height = min(1.0, ratio[1]), min(1.0, 1 / ratio[0])
    central = torch.tensor([1 - central_width, 1 - central_height, 1 + central_width, 1 + central_height]) / 2
    return torch.where(fits.any(dim=1, keepdim=True), boxes, central.to(boxes)).clamp_(0, 1)


def interpolation_matrix(low: Tensor, high: Tensor, source: int, size: int, flips: Tensor | None = None) -> Tensor:
    """Weights (B, size, source) that resample one axis from ``low`` to ``high``, antialiased, mirrored where flipped.

    Triangle filter of half-width max(1, source pixels per output pixel), renormalised at the image's border: on the
    whole axis this is what Pillow's and PyTorch's antialiased bilinear resize compute.

    Args:
        low, high: (B,) ends of the interval in [0, 1] of the axis.
        source, size: number of pixels before and after.
        flips: (B,) bool or None.

    NOTE: near the rectangle's border the filter sees source pixels just outside the rectangle, where they exist; crop
    and resize in two steps would repeat the rectangle's last pixel instead.
    """
    step = (high - low) * (source / size)  # (B,) source pixels per output pixel
    index = torch.arange(size, device=low.device, dtype=low.dtype) + 0.5
    centres = (low * source)[:, None] + index * step[:, None]  # (B, size)
    if flips is not None:
        centres = torch.where(flips[:, None], centres.flip(1), centres)
    pixels = torch.arange(source, device=low.device, dtype=low.dtype) + 0.5
    support = step.clamp(min=1.0)[:, None, None]
    weights = (1 - (pixels - centres[:, :, None]).abs() / support).clamp_(min=0)  # (B, size, source)
    return weights / weights.sum(dim=2, keepdim=True)


def resample(rows: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Apply per-image interpolation matrices to images in row layout.

    Args:
        rows: (B, H, C, W) images, channels between the rows and the columns, so that both products are plain bmm.
        vertical: (B, h, H); horizontal: (B, w, W).

    Returns:
        (B, C, h, w), contiguous.
    """
    b, height, channels, width = rows.shape
    out = torch.bmm(vertical, rows.reshape(b, height, channels * width))  # (B, h, C*W)
    out = torch.bmm(out.view(b, -1, width), horizontal.transpose(1, 2))  # (B, h*C, w)
    return out.view(b, -1, channels, horizontal.shape[1]).transpose(1, 2).contiguous()


def row_layout(images: Tensor) -> Tensor:
    """Images (B, C, H, W) uint8 as float32 (B, H, C, W) in [0, 1], the layout that :func:`resample` reads."""
    return images.transpose(1, 2).contiguous().to(torch.float32).div_(255)
