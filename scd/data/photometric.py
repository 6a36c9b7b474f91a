"""Photometric augmentations of a batch, every image with its own random parameters.

Images are float32 in [0, 1], (B, 3, h, w). Each operation clamps to [0, 1], as the 8-bit originals do.
The definitions of brightness, contrast, saturation and hue are torchvision's; tests compare with them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from scd.errors import unknown

GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, torchvision's constants
ORDERS = tuple(permutations(range(4)))  # orders of brightness 0, contrast 1, saturation 2, hue 3
PHOTOMETRIC_DRAWS = 10
SMALLEST_SIGMA = 0.25


@dataclass(frozen=True)
class Photometric:
    """Distribution of the photometric parameters.

    Args:
        brightness, contrast, saturation: half-width of the factor's range around 1.
        hue: half-width of the hue shift, in turns.
        jitter_p, grey_p, blur_p, solarise_p: probabilities.
        sigma: range of the blur's standard deviation, in pixels of a 224 px view.
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
    # BYOL (arXiv 2006.07733), appendix B, table 6: the two views differ in blur and solarisation
    "byol1": Photometric(0.4, 0.4, 0.2, 0.1, jitter_p=0.8, grey_p=0.2, blur_p=1.0),
    "byol2": Photometric(0.4, 0.4, 0.2, 0.1, jitter_p=0.8, grey_p=0.2, blur_p=0.1, solarise_p=0.2),
    # DINO (arXiv 2104.14294), the local crops of its released code
    "local": Photometric(0.4, 0.4, 0.2, 0.1, jitter_p=0.8, grey_p=0.2, blur_p=0.5),
    "none": Photometric(),
}


@dataclass
class PhotometricDraw:
    """The parameters of one batch, all on the CPU.

    ``factors`` (B, 3) of brightness, contrast and saturation; ``hue`` (B,) in turns; ``order`` (B, 4) which operation
    stands at which place; ``grey``, ``blur``, ``solarise`` (B,) bool; ``sigma`` (B,) in pixels of the view.
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
    """The named distribution. Raises UsageError for a name that does not exist."""
    if name not in PHOTOMETRICS:
        raise unknown("photometric recipe", name, PHOTOMETRICS)
    return PHOTOMETRICS[name]


def draw_parameters(draws: Tensor, recipe: Photometric, sigma_scale: float = 1.0) -> PhotometricDraw:
    """Turn uniform numbers (B, PHOTOMETRIC_DRAWS) into parameters; an operation that is not applied is the identity.

    NOTE: the blur's sigma is multiplied by ``sigma_scale`` (the view's size / 224 by default in ``ViewMaker``): the
    papers give it in pixels of a 224 px view, and the same blur on a 32 px view would remove most of the image.
    """
    jitter = draws[:, 0] < recipe.jitter_p
    half_widths = draws.new_tensor([recipe.brightness, recipe.contrast, recipe.saturation])
    low = (1 - half_widths).clamp(min=0)
    factors = low + draws[:, 1:4] * (1 + half_widths - low)
    hue = (2 * draws[:, 4] - 1) * recipe.hue
    orders = torch.tensor(ORDERS)[(draws[:, 5] * len(ORDERS)).long().clamp(max=len(ORDERS) - 1)]
    sigma = recipe.sigma[0] + draws[:, 8] * (recipe.sigma[1] - recipe.sigma[0])
    return PhotometricDraw(
        factors=torch.where(jitter[:, None], factors, torch.ones_like(factors)),
        hue=torch.where(jitter, hue, torch.zeros_like(hue)),
        order=orders,
        grey=draws[:, 6] < recipe.grey_p,
        blur=draws[:, 7] < recipe.blur_p,
        sigma=sigma * sigma_scale,
        solarise=draws[:, 9] < recipe.solarise_p,
        threshold=recipe.threshold,
    )


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
    image's mean luma (contrast) or each pixel's luma (saturation). So each image's three blends run at places 0, 1, 2
    of one loop over the batch, and its hue shift between them, where its order puts it: the batch is sorted by that
    place, so that the images of one place are a slice.

    Args:
        images: (B, 3, h, w) in [0, 1].
        factors: (B, 3) of brightness, contrast, saturation; 1 is the identity.
        hue: (B,) shift in turns.
        order: (B, 4), a permutation of brightness 0, contrast 1, saturation 2, hue 3 for every image. All on the CPU.
    """
    if bool((factors == 1).all()) and bool((hue == 0).all()):
        return images
    is_hue = order == 3
    blends = order[~is_hue].view(-1, 3)  # (B, 3), the order of the blends alone
    blend_factors = factors.gather(1, blends)
    hue_place = torch.where(hue == 0, 4, is_hue.int().argmax(dim=1))  # number of blends before the hue shift
    ranks = hue_place.argsort(stable=True)
    ends = hue_place.bincount(minlength=5).cumsum(0).tolist()
    images = images.index_select(0, ranks.to(images.device))
    blends, blend_factors, hue = blends[ranks], blend_factors[ranks], hue[ranks].to(images.device)
    start = 0
    for place in range(4):
        part = slice(start, ends[place])
        if part.start < part.stop:
            images[part] = shift_hue(images[part], hue[part])
        if place < 3:
            images = blend(images, blends[:, place], blend_factors[:, place])
        start = ends[place]
    return images.index_select(0, ranks.argsort().to(images.device))


def blend(images: Tensor, operation: Tensor, factor: Tensor) -> Tensor:
    """One blend per image, in place: ``operation`` (B,) 0 brightness, 1 contrast, 2 saturation with ``factor`` (B,)."""
    rest = 1 - factor
    weights = torch.stack([factor, rest * (operation == 1), rest * (operation == 2)]).to(images.device)
    own, by_mean, by_pixel = weights[:, :, None, None]  # (B, 1, 1) each
    grey = grey_plane(images)
    offset = grey.mean(dim=(1, 2), keepdim=True) * by_mean
    reference = grey.mul_(by_pixel).add_(offset)  # (B, h, w)
    return images.mul_(own[:, None]).add_(reference[:, None]).clamp_(0, 1)


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of each image by ``shift`` (B,) turns, keeping value and chroma.

    With v = max, c = max - min and h the hue in turns, a channel is v - c clamp(min(k, 4 - k), 0, 1) with
    k = (n + 6 h) mod 6 and n = 5, 3, 1 for red, green, blue: the HSV hexcone in closed form.
    """
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    scale = (6 * chroma).clamp_(min=1e-8).reciprocal_()
    hue = torch.where(
        value == red,
        (green - blue).mul_(scale),
        torch.where(value == green, (blue - red).mul_(scale).add_(1 / 3), (red - green).mul_(scale).add_(2 / 3)),
    )
    hue.add_(shift[:, None, None] + 1)  # (B, h, w), turns, positive
    out = torch.empty_like(images)
    for channel, n in enumerate((5, 3, 1)):
        k = (hue + n / 6).frac_().mul_(6)
        share = torch.minimum(k, 4 - k).clamp_(0, 1)
        torch.addcmul(value, share, chroma, value=-1, out=out[:, channel])
    return out


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
