"""The maps after the stages of a backbone, taken from its ordinary forward pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from scd.nn.features import maps_and_vector


def maps_of_stages(backbone: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """The map after every stage of a backbone, or its last map alone, and its pooled vector (B, C).

    Args:
        backbone: maps images (B, 3, s, s) to (B, C, h, w), see :class:`scd.nn.backbone.FeatureMaps`. One without stages
            (a ViT, any timm model) has its last map alone.
        images: (B, 3, s, s).
    """
    with outputs_of(stages(backbone)) as found:
        maps, pooled = maps_and_vector(backbone(images))
    return found or [maps], pooled


def stages(backbone: nn.Module) -> list[nn.Module]:
    """The stages of a backbone's trunk, in order; what is left of the trunk is its stem."""
    trunk = getattr(backbone, "trunk", None)
    parts = trunk if isinstance(trunk, nn.Sequential) else ()
    return [part for part in parts if isinstance(part, (BasicBlock, Bottleneck, nn.Sequential))]


@contextmanager
def outputs_of(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Within the context, a forward pass fills the list with what the modules return, in the order of their calls."""
    found: list[Tensor] = []
    handles = [module.register_forward_hook(lambda _, __, output: found.append(output)) for module in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
