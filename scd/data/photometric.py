"""Photometric augmentations of a batch, every image with its own random parameters.

Images are float32 in [0, 1], (B, 3, h, w). Each operation clamps to [0, 1], as the 8-bit originals do.
The definitions of brightness, contrast, saturation and hue are torchvision's; tests compare with them.

NOTE: BYOL's own code has other definitions: it adds a number to the brightness instead of multiplying it, its contrast
is around the mean of each channel instead of the mean luma, and its saturation scales the S of HSV instead of blending
with the luma. The ranges of the parameters are BYOL's; the operations are those of MoCo's and DINO's code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from scd.errors import unknown

GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, torchvision's constants
ORDERS = np.array(list(permutations(range(4))))  # orders of brightness 0, contrast 1, saturation 2, hue 3
PHOTOMETRIC_DRAWS = 10
SMALLEST_SIGMA = 0.25


@dataclass(frozen=True)
class Photometric:
    """Distribution of the photometric parameters.

    Args:
        brightness, contrast, saturation: half-width of the factor's range around 1.
        hue: half-width of the hue shift, in turns.
        jitter_p, grey_p, blur_p, solarise_p: probabilities.
        sigma: range of the blur's standard deviation, in pixels of the papers' view (224 px; local views 96 px).
        threshold: solarisation inverts values at or above it.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter_p: float = 0.0
    grey_p: float = 0.0
    blur_p: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarise_p: float = 0.0
    threshold: float = 0.5


PHOTOMETRICS = {
    # MoCo v2 (arXiv 2003.04297), section 3 and its released code
    "mocov2": Photometric(0.4, 0.4, 0.4, 0.1, jitter_p=0.8, grey_p=0.2, blur_p=0.5),
    # MoCo's released CIFAR-10 demo: MoCo v2 without blur
    "moco_cifar10": Photometric(0.4, 0.4, 0.4, 0.1, jitter_p=0.8, grey_p=0.2),
    # BYOL (arXiv 2006.07733), appendix B, table 6: the two views differ in blur and solarisation
    "byol1": Photometric(0.4, 0.4, 0.2, 0.1, jitter_p=0.8, grey_p=0.2, blur_p=1.0),
    "byol2": Photometric(0.4, 0.4, 0.2, 0.1, jitter_p=0.8, grey_p=0.2, blur_p=0.1, solarise_p=0.2),
    # DINO (arXiv 2104.14294), the local crops of its released code
    "local": Photometric(0.4, 0.4, 0.2, 0.1, jitter_p=0.8, grey_p=0.2, blur_p=0.5),
    "none": Photometric(),
}


@dataclass
class PhotometricDraw:
    """The parameters of one batch, on the CPU.

    ``factors`` (B, 3) of brightness, contrast and saturation; ``hue`` (B,) in turns; ``order`` (B, 4) which operation
    comes at which place; ``grey``, ``blur``, ``solarise`` (B,) bool; ``sigma`` (B,) in pixels of the view.
    """

    factors: Tensor
    hue: Tensor
    order: Tensor
    grey: Tensor
    blur: Tensor
    sigma: Tensor
    solarise: Tensor
    threshold: float


def photometric(name: str) -> Photometric:
    """The distribution of that name. Raises UsageError for a name that does not exist."""
    if name not in PHOTOMETRICS:
        raise unknown("photometric augmentation", name, PHOTOMETRICS)
    return PHOTOMETRICS[name]


def draw_parameters(draws: Tensor, distribution: Photometric, sigma_scale: float = 1.0) -> PhotometricDraw:
    """Turn uniform numbers (B, PHOTOMETRIC_DRAWS) into parameters; an operation that is not applied is the identity.

    NOTE: the blur's sigma is multiplied by ``sigma_scale``, the view's size over that of the papers' view (224 px, and
    96 px of local views). The papers give it in pixels: the same blur on a 32 px view would remove most of the image.
    """
    draws = draws.numpy()  # as in sample_rectangles
    jitter = draws[:, 0] < distribution.jitter_p
    half_widths = np.array([distribution.brightness, distribution.contrast, distribution.saturation], dtype=np.float32)
    low = np.maximum(1 - half_widths, 0)
    factors = np.where(jitter[:, None], low + draws[:, 1:4] * (1 + half_widths - low), np.float32(1))
    hue = np.where(jitter, (2 * draws[:, 4] - 1) * np.float32(distribution.hue), np.float32(0))
    sigma = distribution.sigma[0] + draws[:, 8] * np.float32(distribution.sigma[1] - distribution.sigma[0])
    parameters = {
        "factors": factors,
        "hue": hue,
        "order": ORDERS[(draws[:, 5] * len(ORDERS)).astype(np.int64).clip(max=len(ORDERS) - 1)],
        "grey": draws[:, 6] < distribution.grey_p,
        "blur": draws[:, 7] < distribution.blur_p,
        "sigma": sigma * np.float32(sigma_scale),
        "solarise": draws[:, 9] < distribution.solarise_p,
    }
    return PhotometricDraw(
        **{name: torch.from_numpy(value) for name, value in parameters.items()}, threshold=distribution.threshold
    )


def share_blurred(distribution: Photometric, sigma_scale: float = 1.0) -> float:
    """Share of the views that :func:`apply_photometric` blurs at all: those whose sigma is 0.25 pixels or more.

    Args:
        sigma_scale: as of :func:`draw_parameters`.
    """
    low, high = (sigma * sigma_scale for sigma in distribution.sigma)
    above = (high - max(low, SMALLEST_SIGMA)) / (high - low) if high > low else float(low >= SMALLEST_SIGMA)
    return distribution.blur_p * max(0.0, above)


def apply_photometric(images: Tensor, draw: PhotometricDraw) -> Tensor:
    """Colour jitter, then greyscale, blur and solarisation, as drawn; the input (B, 3, h, w) may be overwritten.

    NOTE: a blur with sigma below 0.25 pixels is left out: it moves less than 0.04 % of a pixel's weight to each
    neighbour, which changes no value of any image by half a level of 8 bits.
    """
    images = jitter_colours(images, draw.factors, draw.hue, draw.order)
    images = on_subset(images, draw.grey, lambda x, _: greyscale(x))
    blurred = draw.blur & (draw.sigma >= SMALLEST_SIGMA)
    images = on_subset(images, blurred, lambda x, index: gaussian_blur(x, draw.sigma[index]))
    return on_subset(images, draw.solarise, lambda x, _: solarise(x, draw.threshold))


def on_subset(images: Tensor, chosen: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Apply ``operation(images, index)`` to the chosen images only; ``chosen`` (B,) and ``index`` are on the CPU."""
    index = chosen.nonzero()[:, 0]
    if len(index) == 0:
        return images
    place = index.to(images.device)
    return images.index_copy_(0, place, operation(images.index_select(0, place), index))


def grey_plane(images: Tensor) -> Tensor:
    """Luma (B, h, w)."""
    red, green, blue = images.unbind(1)
    return (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])


def greyscale(images: Tensor) -> Tensor:
    """Images whose three channels are the luma."""
    return grey_plane(images)[:, None].expand_as(images)


def jitter_colours(images: Tensor, factors: Tensor, hue: Tensor, order: Tensor) -> Tensor:
    """ColorJitter with a separate order of the four operations for every image.

    The three blends share one form, x <- clamp(f x + (1 - f) reference), with the reference black (brightness), the
    image's mean luma (contrast) or each pixel's luma (saturation). The batch is sorted by the number of blends before
    an image's hue shift: first run the blends before it, each on the images that still have one, then all hue shifts
    at once, then the blends after it.

    Args:
        images: (B, 3, h, w) in [0, 1].
        factors: (B, 3) of brightness, contrast, saturation; 1 is the identity.
        hue: (B,) shift in turns.
        order: (B, 4), a permutation of brightness 0, contrast 1, saturation 2, hue 3 for every image. All on the CPU.
    """
    active = (factors != 1).any(dim=1) | (hue != 0)
    if not bool(active.any()):
        return images
    is_hue = order == 3
    blends = order[~is_hue].view(-1, 3)  # (B, 3), the order of the blends alone
    hue_place = torch.where(active, is_hue.int().argmax(dim=1), 4)  # blends before the hue shift; 4: left alone
    ranks = hue_place.argsort(stable=True)
    ends = hue_place.bincount(minlength=5).cumsum(0).tolist()
    weights = blend_weights(blends, factors.gather(1, blends))[:, ranks].to(images.device)  # (3, B, 3)
    images = images.index_select(0, ranks.to(images.device))
    for place in range(3):
        part = slice(ends[place], ends[3])
        blend(images[part], weights[:, part, place])
    if bool((hue != 0).any()):
        shift_hue(images[: ends[3]], hue[ranks[: ends[3]]].to(images.device))
    for place in range(3):
        part = slice(0, ends[place])
        blend(images[part], weights[:, part, place])
    return images.index_select(0, ranks.argsort().to(images.device))


def blend_weights(operation: Tensor, factor: Tensor) -> Tensor:
    """Weights (3, ...) of the image itself, of its mean luma and of its luma in a blend.

    Args:
        operation: (...) 0 brightness, 1 contrast, 2 saturation.
        factor: (...), 1 is the identity.
    """
    rest = 1 - factor
    return torch.stack([factor, rest * (operation == 1), rest * (operation == 2)])


def blend(images: Tensor, weights: Tensor) -> Tensor:
    """One blend per image, in place: ``weights`` (3, B) as :func:`blend_weights` makes them, on the images' device."""
    if len(images) == 0:
        return images
    own, by_mean, by_pixel = weights[:, :, None, None]  # (B, 1, 1) each
    grey = grey_plane(images)
    offset = grey.mean(dim=(1, 2), keepdim=True).mul_(by_mean)
    reference = grey.mul_(by_pixel).add_(offset)  # (B, h, w)
    return images.mul_(own[:, None]).add_(reference[:, None]).clamp_(0, 1)


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of each image by ``shift`` (B,) turns, in place, keeping value and chroma.

    The HSV hexcone without branches. With v = max, m = min, c = v - m, the hue lies |d| sixths of a turn away from
    red, d = (v - 2 m + green + blue - red) / c, on green's side where green > blue, else on blue's. A channel whose
    own hue is n sixths (red 0, green 2, blue 4) is v - c clamp(|x| - 1, 0, 1) at x sixths from it.
    """
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    sixfold = (value - low).mul_(6)
    hue = (green + blue).sub_(red).add_(value).sub_(low, alpha=2).div_(sixfold.clamp(min=1e-8))
    hue.copysign_(green - blue).add_(shift[:, None, None] + 2.5)  # (B, h, w), turns, half a turn on, positive
    own = images.new_tensor([0, 1 / 3, 2 / 3])[:, None, None]
    turns = (hue[:, None] - own).frac_().sub_(0.5).abs_()  # (B, 3, h, w), distance from the channel's own hue
    share = turns.clamp_(1 / 6, 1 / 3).mul_(sixfold[:, None])  # c times 1 to 2
    return torch.sub(value.add_(sixfold, alpha=1 / 6)[:, None], share, out=images).clamp_(0, 1)


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """Gaussian smoothing of one axis as matrices (B, size, size), the border pixel repeated outside the image.

    A Gaussian sampled at whole pixels up to 4 sigma away and normalised; ``sigma`` (B,) in pixels, on the CPU.
    NOTE: Pillow's GaussianBlur(radius=sigma) is three box blurs of about the same variance.
    """
    reach = max(1, math.ceil(4 * float(sigma.max())))
    taps = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (taps / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)  # (B, 2 reach + 1)
    columns = (torch.arange(size)[:, None] + taps).clamp(0, size - 1)  # (size, 2 reach + 1)
    matrix = kernel.new_zeros(len(sigma), size, size)
    return matrix.scatter_add_(2, columns.expand(len(sigma), -1, -1), kernel[:, None, :].expand(-1, size, -1))


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian blur of each image with its own ``sigma`` (B,) in pixels, on the CPU."""
    b, channels, height, width = images.shape
    horizontal = blur_matrix(sigma, width).to(images.device)
    vertical = horizontal if height == width else blur_matrix(sigma, height).to(images.device)
    out = torch.bmm(images.reshape(b, channels * height, width), horizontal.transpose(1, 2)).view_as(images)
    return torch.matmul(vertical[:, None], out)


def solarise(images: Tensor, threshold: float) -> Tensor:
    """Invert the values at or above the threshold."""
    return torch.where(images >= threshold, 1 - images, images)
