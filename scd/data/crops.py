"""Random rectangles and the antialiased interpolation that cuts them out, for a whole batch at once."""

import math

import numpy as np
import torch
from torch import Tensor

TRIES = 10
RECTANGLE_DRAWS = 2 * TRIES + 2  # area and ratio of every try, then the position


def sample_rectangles(draws: Tensor, scale: tuple[float, float], ratio: tuple[float, float]) -> Tensor:
    """Rectangles as RandomResizedCrop draws them, on square images.

    Ten tries of (area ~ U(scale), log ratio ~ U(log ratio)); the first one that fits in the image is placed uniformly.
    If none fits: the largest central rectangle whose ratio is allowed.

    Args:
        draws: (B, RECTANGLE_DRAWS) uniform numbers in [0, 1), on the CPU.
        scale: range of the area as a share of the image's area.
        ratio: range of width over height.

    Returns:
        (B, 4) x0, y0, x1, y1 in [0, 1].

    NOTE: continuous coordinates; torchvision rounds sides and positions to whole pixels, which on 32-64 px images
    leaves a visible lattice of scales.
    """
    draws = draws.numpy()  # NumPy: a dozen small operations take a fifth of PyTorch's time
    areas = scale[0] + draws[:, :TRIES] * (scale[1] - scale[0])
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    ratios = np.exp(log_low + draws[:, TRIES : 2 * TRIES] * (log_high - log_low))
    widths, heights = np.sqrt(areas * ratios), np.sqrt(areas / ratios)
    fits = (widths <= 1) & (heights <= 1)
    rows, first = np.arange(len(draws)), fits.argmax(axis=1)
    fitting = fits[rows, first]
    width = np.where(fitting, widths[rows, first], min(1.0, ratio[1]))
    height = np.where(fitting, heights[rows, first], min(1.0, 1 / ratio[0]))
    x0 = np.where(fitting, draws[:, -2], 0.5) * (1 - width)
    y0 = np.where(fitting, draws[:, -1], 0.5) * (1 - height)
    rectangles = np.stack([x0, y0, x0 + width, y0 + height], axis=1).clip(0, 1)
    return torch.from_numpy(rectangles.astype(np.float32, copy=False))


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
    centres = _centres(low, step, source, size, flips)
    pixels = torch.arange(source, device=low.device, dtype=low.dtype) + 0.5
    density = step.clamp(min=1.0).reciprocal()[:, None]
    distances = ((centres * density)[:, :, None] - (pixels * density)[:, None, :]).abs_()  # (B, size, source)
    weights = distances.sub_(1).clamp_(max=0)  # the triangle's negative, which normalising makes positive
    return weights.div_(weights.sum(dim=2, keepdim=True))


def nearest_pixels(low: Tensor, high: Tensor, source: int, size: int, flips: Tensor | None = None) -> Tensor:
    """The source pixel (B, size) in which the centre of each output pixel lies, on one axis.

    Args: see :func:`interpolation_matrix`.
    """
    step = (high - low) * (source / size)
    return _centres(low, step, source, size, flips).long().clamp_(0, source - 1)


def _centres(low: Tensor, step: Tensor, source: int, size: int, flips: Tensor | None) -> Tensor:
    """Position (B, size) of the output pixels' centres in source pixels, mirrored where flipped."""
    index = torch.arange(size, device=low.device, dtype=low.dtype) + 0.5
    centres = (low * source)[:, None] + index * step[:, None]
    return centres if flips is None else torch.where(flips[:, None], centres.flip(1), centres)


def pick_pixels(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Cut V crops out of every map (B, H, W) by the numbers of its pixels, without interpolation.

    Args:
        rows: (B, V, h); columns: (B, V, w).

    Returns:
        (V, B, h, w), contiguous.
    """
    image = torch.arange(len(maps), device=maps.device)[:, None, None, None]
    return maps[image, rows[:, :, :, None], columns[:, :, None, :]].transpose(0, 1).contiguous()


def resample(rows: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Cut V crops out of every image by their interpolation matrices.

    Args:
        rows: (B, H, C, W) images, channels between the rows and the columns, so that both products are plain bmm.
        vertical: (B, V, h, H); horizontal: (B, V, w, W).

    Returns:
        (V, B, C, h, w), contiguous.
    """
    b, height, channels, width = rows.shape
    v, h, w = vertical.shape[1], vertical.shape[2], horizontal.shape[2]
    out = torch.bmm(vertical.flatten(1, 2), rows.flatten(2))  # (B, V*h, C*W)
    out = torch.bmm(out.view(b * v, h * channels, width), horizontal.flatten(0, 1).transpose(1, 2))  # (B*V, h*C, w)
    return out.view(b, v, h, channels, w).permute(1, 0, 3, 2, 4).contiguous()


def row_layout(images: Tensor) -> Tensor:
    """Images (B, C, H, W) uint8 as float32 (B, H, C, W) in [0, 1], the layout that :func:`resample` reads."""
    return images.transpose(1, 2).contiguous().to(torch.float32).div_(255)
