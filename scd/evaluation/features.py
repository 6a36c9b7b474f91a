"""Frozen features and saliency maps of a set of images."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from scd.data.recipes import centre_view
from scd.errors import UsageError
from scd.method import Method, View, whole_view
from scd.nn.features import maps_and_vector

BATCH = 256  # images per forward pass; it does not change the result


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; afterwards every submodule has its former mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def extract(
    backbone: nn.Module, images: Tensor, size: int, batch: int = BATCH, device: str | torch.device = "cpu"
) -> Tensor:
    """Pooled features (N, C), float32 on ``device``, of the test-time view of every image.

    Global average pooling of the backbone's feature maps, or its CLS token where it has one; batch norm in evaluation
    mode, no augmentation (train and test alike, as in the kNN protocol of DINO).

    Args:
        backbone: on ``device``; maps (B, 3, s, s) to feature maps (B, C, h, w), or to these and one vector (B, C) per
            image.
        images: (N, 3, S, S) uint8.
        size: side s in pixels of the view that the network sees.
        batch: images per forward pass.

    Raises:
        UsageError: no images, or features that are not finite.
    """
    views = evaluation_views(images, size, batch, device)
    with frozen(backbone):
        features = torch.cat([maps_and_vector(backbone(view.images))[1].float() for view in views])
    return finite(features)


def extract_maps(
    backbone: nn.Module, images: Tensor, size: int, batch: int = BATCH, device: str | torch.device = "cpu"
) -> Tensor:
    """Feature maps (N, C, h, w), float32 on ``device``, of the test-time view of every image, see :func:`extract`."""
    views = evaluation_views(images, size, batch, device)
    with frozen(backbone):
        maps = torch.cat([maps_and_vector(backbone(view.images))[0].float() for view in views])
    return finite(maps)


def extract_saliency(
    method: Method, images: Tensor, size: int, batch: int = BATCH, device: str | torch.device = "cpu"
) -> Tensor | None:
    """The method's own maps (N, h, w) in [0, 1] of the test-time views, or None for a method that has none.

    The views have no masks: a method whose map is the true mask has no map here.

    Raises:
        UsageError: no images, or a map with values outside [0, 1].
    """
    parts = []
    with frozen(method):
        for view in evaluation_views(images, size, batch, device):
            saliency = method.saliency(view)
            if saliency is None:
                return None
            parts.append(saliency.float())
    maps = torch.cat(parts)
    if not ((maps >= 0) & (maps <= 1)).all():
        raise UsageError(f"{type(method).__name__}.saliency gave values outside [0, 1]")
    return maps


def evaluation_views(
    images: Tensor, size: int, batch: int = BATCH, device: str | torch.device = "cpu"
) -> Iterator[View]:
    """The views of whole images (N, 3, S, S) uint8 as an evaluation sees them, ``batch`` images at a time.

    Raises:
        UsageError: no images.
    """
    if len(images) == 0:
        raise UsageError("there are no images to evaluate")
    for part in images.split(batch):
        yield whole_view(centre_view(part.to(device), size))


def finite(features: Tensor) -> Tensor:
    """The features, if all are finite.

    Raises:
        UsageError: values that are not finite.
    """
    if not torch.isfinite(features).all():
        raise UsageError("the backbone's features hold values that are not finite; its training diverged")
    return features
