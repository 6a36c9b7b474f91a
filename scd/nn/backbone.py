"""Backbones as feature maps: images (B, 3, s, s) to (B, C, h, w), CNN or ViT alike.

resnet_tiny             three stages of one BasicBlock; 8 x 8 map at 32 px; for CPUs
resnet18, resnet50, …   torchvision's ResNets without their classifier
timm/<name>             any timm model: a CNN's last map, or a ViT's patch tokens arranged as a map
"""

import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches

import timm
import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.resnet import BasicBlock

from scd.errors import UsageError, unknown
from scd.nn.normalisation import Renormalisation

PADDINGS = ("zeros", "reflect", "replicate")
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d")


class FeatureMaps(nn.Module):
    """A trunk that ends in a feature map.

    Args:
        name: for reports.
        trunk: maps images (B, 3, s, s) to (B, C, h, w).
        dim: C.
        channels_last: keep weights and activations in the NHWC memory format (faster convolutions, same numbers).
        normalisation: of the colours that the trunk sees, of :data:`scd.nn.normalisation.NORMALISATIONS`; images come
            normalised by "imagenet".
    """

    def __init__(
        self, name: str, trunk: nn.Module, dim: int, channels_last: bool = False, normalisation: str = "imagenet"
    ):
        super().__init__()
        self.name = name
        self.dim = dim
        self.channels_last = channels_last
        self.trunk = trunk.to(memory_format=torch.channels_last) if channels_last else trunk
        self.colours = None if normalisation == "imagenet" else Renormalisation(normalisation)

    def forward(self, images: Tensor) -> Tensor:
        """Feature maps (B, C, h, w) of images (B, 3, s, s), normalised by ImageNet's mean and standard deviation."""
        if self.colours is not None:
            images = self.colours(images)
        return self.trunk(images.contiguous(memory_format=torch.channels_last) if self.channels_last else images)


class TimmMaps(nn.Module):
    """A timm model up to its last features, arranged as a map.

    A CNN's last map is returned as it is; NHWC maps (Swin) are transposed. Of a ViT's tokens (B, P + h·w, C), after the
    model's final norm, the prefix (CLS, registers) is left out.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.prefix = getattr(model, "num_prefix_tokens", 0)
        self.channels_at_the_end = str(getattr(model, "output_fmt", "NCHW")) == "NHWC"

    def forward(self, images: Tensor) -> Tensor:
        features = self.model.forward_features(images)
        if features.ndim == 4:
            return features.permute(0, 3, 1, 2) if self.channels_at_the_end else features
        step_y, step_x = self.model.patch_embed.patch_size
        h, w = images.shape[2] // step_y, images.shape[3] // step_x
        return features[:, self.prefix :].transpose(1, 2).unflatten(2, (h, w))  # (B, P + h·w, C) -> (B, C, h, w)


def build_backbone(
    name: str, *, channels_last: bool = False, normalisation: str = "imagenet", **options
) -> FeatureMaps:
    """The backbone of that name, freshly initialised from torch's global generator.

    Args:
        name: "resnet_tiny", a torchvision ResNet ("resnet18", "resnet50", …) or "timm/<model>".
        channels_last, normalisation: see :class:`FeatureMaps`.
        options: of :func:`resnet_tiny`, :func:`torchvision_resnet` or :func:`timm_model`.

    Raises:
        UsageError: no such backbone or no such option; the text names the valid ones.
    """
    if name.startswith("timm/"):
        trunk, dim = timm_model(name.removeprefix("timm/"), **options)
    elif name == "resnet_tiny":
        trunk, dim = resnet_tiny(**_checked(name, resnet_tiny, options))
    elif name in RESNETS:
        trunk, dim = torchvision_resnet(name, **_checked(name, torchvision_resnet, options))
    else:
        raise unknown("backbone", name, ("resnet_tiny", *RESNETS, "timm/<model>"))
    return FeatureMaps(name, trunk, dim, channels_last, normalisation)


def resnet_tiny(
    widths: Sequence[int] = (16, 32, 64), strides: Sequence[int] = (1, 2, 1), padding: str = "zeros"
) -> tuple[nn.Module, int]:
    """A 3x3 stem of stride 2, then one BasicBlock per width; the trunk and its dim.

    Total stride is 2 · prod(strides): 4 with the defaults, an 8 x 8 map at 32 px.

    Args:
        widths: channels of each block.
        strides: of each block.
        padding: what the 3x3 convolutions see beyond the border: "zeros", "reflect" (the inner pixels mirrored) or
            "replicate" (the outermost pixel again). Zeros tell a convolution where the border is, so features, and a
            map that is made of them, can depend on the position alone; the other two do this less.

    Raises:
        UsageError: not as many strides as widths, or an unknown padding.
    """
    if len(widths) != len(strides):
        raise UsageError(f"resnet_tiny has {len(widths)} widths and {len(strides)} strides; give one stride per width")
    stem = [nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(True)]
    blocks = [
        BasicBlock(width_in, width, stride, _shortcut(width_in, width, stride))
        for width_in, width, stride in zip((widths[0], *widths[:-1]), widths, strides, strict=True)
    ]
    return _padded(_initialised(nn.Sequential(*stem, *blocks)), padding), widths[-1]


def torchvision_resnet(name: str, small_stem: bool = False, padding: str = "zeros") -> tuple[nn.Module, int]:
    """A torchvision ResNet without average pool and classifier; the trunk and its dim.

    Args:
        name: the torchvision name.
        small_stem: 3x3 stride-1 stem without max-pool, for images up to 64 px (MoCo's official CIFAR-10 demo);
            the total stride falls from 32 to 8. As in that demo, the new convolution
            has PyTorch's own initial weights and not torchvision's He-normal ones.
        padding: of the convolutions, see :func:`resnet_tiny`; the max-pool has none that shows.

    Raises:
        UsageError: an unknown padding.
    """
    net = getattr(resnet, name)()
    dim = net.fc.in_features
    stem = [net.conv1, net.bn1, net.relu, net.maxpool]
    if small_stem:
        stem = [nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False), net.bn1, net.relu]
    return _padded(nn.Sequential(*stem, net.layer1, net.layer2, net.layer3, net.layer4), padding), dim


def timm_model(model_name: str, **options) -> tuple[nn.Module, int]:
    """A timm model without its classifier; the trunk and its dim.

    Args:
        model_name: as in ``timm.list_models()``.
        options: of that model's constructor, for example ``img_size=32, patch_size=4, drop_path_rate=0.1``. A ViT is
            built with ``dynamic_img_size=True`` unless said otherwise, so that it takes crops of several sizes.

    Raises:
        UsageError: no such model, or an option that it does not take.
    """
    if not timm.is_model(model_name):
        near = get_close_matches(model_name, timm.list_models(), n=5, cutoff=0.4)
        hint = f"nearest: {', '.join(near)}; " if near else ""
        raise UsageError(f"unknown timm backbone '{model_name}'; {hint}timm.list_models() names all of them")
    if timm.models.is_model_in_modules(model_name, ["vision_transformer"]):
        options = {"dynamic_img_size": True, **options}
    try:
        model = timm.create_model(model_name, pretrained=False, num_classes=0, **options)
    except TypeError as error:
        raise UsageError(f"timm backbone '{model_name}' does not take these options: {error}") from error
    return TimmMaps(model), model.num_features


def _shortcut(width_in: int, width_out: int, stride: int) -> nn.Module | None:
    if stride == 1 and width_in == width_out:
        return None
    return nn.Sequential(nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out))


def _initialised(net: nn.Module) -> nn.Module:
    """He-normal convolutions as in torchvision's ResNet; BN keeps its default of weight 1 and bias 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _padded(net: nn.Module, padding: str) -> nn.Module:
    """The same network with this kind of padding in every convolution that has any."""
    if padding not in PADDINGS:
        raise unknown("padding", padding, PADDINGS)
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and any(module.padding):
            module.padding_mode = padding
    return net


def _checked(name: str, builder: Callable, options: dict) -> dict:
    valid = [option for option in inspect.signature(builder).parameters if option != "name"]
    for option in options:
        if option not in valid:
            raise unknown(f"option of backbone '{name}'", option, [*valid, "channels_last", "normalisation"])
    return options
