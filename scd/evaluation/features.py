"""Frozen features and saliency maps of a set of images: the one place where an evaluation runs a network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from scd.data.recipes import centre_view
from scd.errors import UsageError
from scd.nn.features import maps_and_vector


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; every submodule gets its own former mode back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def extract(
    backbone: nn.Module, images: Tensor, size: int, batch: int = 256, device: str | torch.device = "cpu"
) -> Tensor:
    """Pooled features (N, C), float32 on ``device``, of the test-time view of every image.

    Global average pooling of the backbone's feature maps, or its CLS token where it has one; BN in evaluation mode, no
    augmentation (train and test alike, as in the kNN protocol of DINO). The backbone must already live on ``device``.

    Args:
        backbone: maps (B, 3, s, s) to feature maps (B, C, h, w), or to these and one vector (B, C) per image.
        images: (N, 3, S, S) uint8.
        size: side s in pixels of the view that the network sees.
        batch: images per forward pass; it does not change the result.

    Raises:
        UsageError: no images, or features that are not finite.
    """
    with frozen(backbone):
        features = _in_batches(lambda views: maps_and_vector(backbone(views))[1].float(), images, size, batch, device)
    if not torch.isfinite(features).all():
        raise UsageError("the backbone's features hold values that are not finite; its training diverged")
    return features


def extract_saliency(
    method: nn.Module, images: Tensor, size: int, batch: int = 256, device: str | torch.device = "cpu"
) -> Tensor | None:
    """The method's own maps (N, h, w) in [0, 1] for the test-time views, or None for a method that has none.

    Raises:
        UsageError: no images, or a map that leaves [0, 1].
    """
    with frozen(method):
        if method.saliency(centre_view(images[:1].to(device), size)) is None:
            return None
        maps = _in_batches(lambda views: method.saliency(views).float(), images, size, batch, device)
    if not ((maps >= 0) & (maps <= 1)).all():
        raise UsageError(f"{type(method).__name__}.saliency gave values outside [0, 1]")
    return maps


def _in_batches(
    function: Callable[[Tensor], Tensor], images: Tensor, size: int, batch: int, device: str | torch.device
) -> Tensor:
    if len(images) == 0:
        raise UsageError("there are no images to evaluate")
    return torch.cat([function(centre_view(part.to(device), size)) for part in images.split(batch)])
