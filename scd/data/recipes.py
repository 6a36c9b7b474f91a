"""View recipes by name: the global views of MoCo v2, BYOL or a method with one view, and extra views."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scd.data.crops import interpolation_matrix, resample, row_layout
from scd.data.views import CropSpec, Recipe
from scd.errors import UsageError, unknown
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise

EXTRA_KINDS = ("none", "same_rectangle", "random", "local")
LOCAL_SCALE = (0.05, 0.2)
LOCAL_SIZE = 96 / 224  # side of a local view over a global view's: SwAV, DINO


def mocov2(size: int, scale: Sequence[float] = (0.2, 1.0)) -> tuple[CropSpec, ...]:
    """MoCo v2's two views of one distribution (arXiv 2003.04297).

    Args:
        size: side of the views in pixels.
        scale: range of the crops' area.
    """
    return tuple(CropSpec(name, size, scale=pair("scale", scale), photometric="mocov2") for name in ("v1", "v2"))


def moco_cifar10(size: int, scale: Sequence[float] = (0.08, 1.0)) -> tuple[CropSpec, ...]:
    """The two views of MoCo's released CIFAR-10 demo: as :func:`mocov2`, smaller crops and no blur.

    NOTE: the demo computes in 8-bit images and crops whole pixels.
    """
    scale = pair("scale", scale)
    return tuple(CropSpec(name, size, scale=scale, photometric="moco_cifar10") for name in ("v1", "v2"))


def byol(size: int, scale: Sequence[float] = (0.08, 1.0)) -> tuple[CropSpec, ...]:
    """BYOL's two views (arXiv 2006.07733, appendix B): one always blurred; one rarely blurred and sometimes solarised.

    NOTE: bilinear instead of bicubic resampling.
    """
    augmentations = {"v1": "byol1", "v2": "byol2"}
    return tuple(CropSpec(name, size, scale=pair("scale", scale), photometric=p) for name, p in augmentations.items())


def single(size: int, scale: Sequence[float] = (0.2, 1.0), photometric: str = "none") -> tuple[CropSpec, ...]:
    """One view, for methods without pairs: masked autoencoders and supervised classifiers.

    Args:
        photometric: name of the photometric augmentation; "none" crops and flips only, as MAE does (arXiv 2111.06377).
    """
    return (CropSpec("v1", size, scale=pair("scale", scale), photometric=photometric),)


RECIPES = {"mocov2": mocov2, "moco_cifar10": moco_cifar10, "byol": byol, "single": single}


def build_recipe(
    name: str,
    size: int,
    scale: Sequence[float] | None = None,
    extra: Mapping[str, Any] | None = None,
    photometric: str | None = None,
    blur_reference: float | None = None,
) -> Recipe:
    """The recipe of that name with its extra views; the recipe's name in reports says both.

    Args:
        name: "mocov2", "moco_cifar10", "byol" or "single".
        size: side of the global views in pixels.
        scale: range of the global crops' area; None: the recipe's own.
        extra: arguments of :func:`extra_crops`; None: no extra views.
        photometric: of "single" alone.
        blur_reference: side in pixels of the global view that the blur's sigma of 0.1 to 2 pixels refers to, 224 when
            None; a smaller one blurs small views more. That of local views is 96/224 of it.

    Raises:
        UsageError: unknown recipe, photometric augmentation or kind of extra views, or an impossible size, scale or
            count.
    """
    if name not in RECIPES:
        raise unknown("view recipe", name, RECIPES)
    if photometric is not None and name != "single":
        raise UsageError(f"views.photometric is an option of the recipe 'single'; '{name}' has its own photometrics")
    options = {"scale": scale, "photometric": photometric}
    crops = RECIPES[name](size, **{key: value for key, value in options.items() if value is not None})
    if blur_reference is not None:
        crops = tuple(replace(crop, blur_reference=blur_reference) for crop in crops)
    extras = extra_crops(crops[0], **(extra or {}))
    kind = extras[0].name.rstrip("0123456789") if extras else None
    return Recipe(f"{name}+{len(extras)}{kind}" if extras else name, (*crops, *extras))


def extra_crops(
    v1: CropSpec,
    kind: str = "none",
    count: int = 0,
    size: int | None = None,
    scale: Sequence[float] | None = None,
    photometric: str | None = None,
    weight: float = 1.0,
) -> tuple[CropSpec, ...]:
    """Extra views: views for the online branch alone, compared with the target's global views (multi-crop).

    Sources: SwAV (arXiv 2006.09882, section 3.2); DINO (arXiv 2104.14294); multi-crop on the source side of MoCo in
    Asym-Siam (arXiv 2204.00613).

    Args:
        v1: the first global view, which the extra views follow unless an argument says otherwise.
        kind: "none"; "same_rectangle": v1's rectangle with a fresh flip and fresh photometrics (named same0, ...);
            "random": further crops of v1's distribution (random0, ...); "local": small crops (local0, ...).
        count: how many; 0 for "none" alone.
        size: side in pixels; default v1's, for "local" 96/224 of it, rounded to a multiple of 4 (SwAV, DINO: 96 px).
        scale: range of the area; default v1's, for "local" 0.05 to 0.2, where MoCo v2's global crops begin (SwAV: 0.05
            to 0.14, with global crops from 0.14 on); "same_rectangle" has v1's rectangle.
        photometric: name of the photometric augmentation; default v1's.
        weight: of each extra view's pairs in the mean of the image-level loss, beside 1 of the global views' pairs; one
            over ``count`` gives all extra views together the weight of the global ones (Asym-Siam).

    The blur of local views refers to a view of 96 px, as in the code of SwAV and DINO: 0.1 to 2 pixels there.

    NOTE: SwAV, DINO and Asym-Siam raise the lower end of the global scale when they add local crops. Here the global
    views stay, so that arms differ in the extra views alone. Local views get v1's photometrics for the same reason;
    "local" is DINO's augmentation of local views.
    NOTE: in a symmetric method, a view of v1's rectangle is compared with v1's own target view too: a pair that differs
    in photometrics and flip alone, which no other kind has.
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
            blur_reference=v1.blur_reference * (LOCAL_SIZE if is_local else 1.0),
            weight=weight,
        )
        for i in range(count)
    )


def extra_views(kind: str, size: int, scale: Sequence[float], count: int) -> dict[str, Any]:
    """The configuration of extra views with their defaults filled in: ``{"kind", "count", "size", "scale"}``.

    Args:
        kind, count: as of :func:`extra_crops`.
        size: side of the global views in pixels.
        scale: range of the global views' area.

    Raises:
        UsageError: an unknown kind or an impossible count.
    """
    crops = extra_crops(CropSpec("v1", size, scale=pair("scale", scale)), kind, count)
    if not crops:
        return {"kind": kind, "count": count}
    return {"kind": kind, "count": count, "size": crops[0].size, "scale": list(crops[0].scale)}


def pair(option: str, value: Sequence[float]) -> tuple[float, float]:
    """Two numbers as a tuple, from whatever sequence a configuration gives."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise UsageError(f"views.{option} needs two numbers [low, high], not {value}")
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
