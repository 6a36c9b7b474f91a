"""Named view recipes: two global views, and the extra views that the multi-crop question is about."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scd.data.crops import interpolation_matrix, resample, row_layout
from scd.data.views import IMAGENET_MEAN, IMAGENET_STD, CropSpec, Recipe, normalise
from scd.errors import UsageError, unknown

EXTRA_KINDS = ("none", "same_rectangle", "random", "local")
LOCAL_SCALE = (0.05, 0.2)
LOCAL_SIZE = 96 / 224  # side of a local view over a global view's: SwAV, DINO


def mocov2(size: int, scale: Sequence[float] = (0.2, 1.0), extra: Mapping | None = None) -> Recipe:
    """MoCo v2's two views of one distribution (arXiv 2003.04297), and extra views.

    Args:
        size: side of the global views in pixels.
        scale: range of the global crops' area.
        extra: see :func:`extra_crops`.
    """
    v1 = CropSpec("v1", size, scale=pair("scale", scale), photometric="mocov2")
    v2 = CropSpec("v2", size, scale=pair("scale", scale), photometric="mocov2")
    return with_extra("mocov2", v1, v2, extra)


def byol(size: int, scale: Sequence[float] = (0.08, 1.0), extra: Mapping | None = None) -> Recipe:
    """BYOL's two views (arXiv 2006.07733, appendix B): always blurred; seldom blurred and sometimes solarised.

    NOTE: bilinear instead of bicubic resampling.
    """
    v1 = CropSpec("v1", size, scale=pair("scale", scale), photometric="byol1")
    v2 = CropSpec("v2", size, scale=pair("scale", scale), photometric="byol2")
    return with_extra("byol", v1, v2, extra)


RECIPES = {"mocov2": mocov2, "byol": byol}


def build_recipe(name: str, size: int, scale: Sequence[float] | None = None, extra: Mapping | None = None) -> Recipe:
    """The named recipe; ``scale=None`` keeps the recipe's own global scale.

    Raises:
        UsageError: unknown recipe or kind of extra views, or an impossible size, scale or count.
    """
    if name not in RECIPES:
        raise unknown("view recipe", name, RECIPES)
    options = {} if scale is None else {"scale": scale}
    return RECIPES[name](size, extra=extra, **options)


def with_extra(name: str, v1: CropSpec, v2: CropSpec, extra: Mapping | None) -> Recipe:
    """The recipe of two global views and of the extra views asked for; its name says both."""
    crops = extra_crops(v1, **(extra or {}))
    kind = crops[0].name.rstrip("0123456789") if crops else None
    return Recipe(f"{name}+{len(crops)}{kind}" if crops else name, (v1, v2, *crops))


def extra_crops(
    v1: CropSpec,
    kind: str = "none",
    count: int = 0,
    size: int | None = None,
    scale: Sequence[float] | None = None,
    photometric: str | None = None,
) -> tuple[CropSpec, ...]:
    """Extra views, online only.

    Args:
        v1: the first global view, which the extra views follow in everything that is not said.
        kind: "none"; "same_rectangle": v1's rectangle with a fresh flip and fresh photometrics (named same0, ...);
            "random": further crops of v1's distribution (random0, ...); "local": small crops (local0, ...).
        count: how many; 0 only for "none".
        size: side in pixels; default v1's, for "local" 96/224 of it, rounded to a multiple of 4.
        scale: range of the area; default v1's, for "local" 0.05 to 0.2; "same_rectangle" has v1's rectangle.
        photometric: name of a photometric recipe; default v1's.

    NOTE: SwAV and DINO raise the lower end of the global scale when they add local crops. Here it stays, so that arms
    differ in the extra views alone. Local views get v1's photometrics for the same reason; "local" is DINO's.
    """
    if kind not in EXTRA_KINDS:
        raise unknown("kind of extra views", kind, EXTRA_KINDS)
    if kind == "none":
        if count:
            raise UsageError(f"views.extra: kind is 'none' but count is {count}; choose a kind or set count to 0")
        return ()
    if count < 1:
        raise UsageError(f"views.extra: kind '{kind}' needs a count of at least 1, not {count}")
    is_local = kind == "local"
    default_size = max(8, round(v1.size * LOCAL_SIZE / 4) * 4) if is_local else v1.size
    default_scale = LOCAL_SCALE if is_local else v1.scale
    return tuple(
        CropSpec(
            name=f"{'same' if kind == 'same_rectangle' else kind}{i}",
            size=size or default_size,
            scale=default_scale if scale is None or kind == "same_rectangle" else pair("extra.scale", scale),
            ratio=v1.ratio,
            photometric=photometric or v1.photometric,
            role="extra",
            flip=v1.flip,
            rectangle_of=v1.name if kind == "same_rectangle" else None,
        )
        for i in range(count)
    )


def pair(option: str, value: Sequence[float]) -> tuple[float, float]:
    """Two numbers as a tuple, from whatever sequence a configuration gives."""
    if len(value) != 2:
        raise UsageError(f"views.{option} needs two numbers (low, high), not {list(value)}")
    return float(value[0]), float(value[1])


@torch.no_grad()
def centre_view(
    images: Tensor,
    size: int,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Tensor:
    """The view for evaluation: the whole square image, resized (antialiased) and normalised.

    Args:
        images: (B, 3, S, S) uint8.
        size: side of the result.

    Returns:
        (B, 3, size, size) float32.
    """
    if images.shape[2] == size:
        return normalise(images.to(torch.float32).div_(255), mean, std)
    zeros, ones = torch.zeros(len(images), device=images.device), torch.ones(len(images), device=images.device)
    weights = interpolation_matrix(zeros, ones, images.shape[2], size)[:, None]
    return normalise(resample(row_layout(images), weights, weights)[0], mean, std)
