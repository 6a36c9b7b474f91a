"""What network a file of weights looks like, for the message that says why it does not fit."""

import re
from collections.abc import Mapping

from torch import Tensor

from scd.export.detectron2 import BLOCKS

SEQUENTIAL = {"4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def described(tensors: Mapping[str, Tensor]) -> str:
    """ "a resnet50", "a ViT of width 384, depth 12 and patches of 16 px", or "" where neither is recognised."""
    return _resnet(tensors) or _vit(tensors)


def _resnet(tensors: Mapping[str, Tensor]) -> str:
    stages: dict[str, set[int]] = {}
    for name in tensors:
        found = re.match(r"(?:layer([1-4])|res([2-5])|(?:trunk\.)?([4-7]))\.(\d+)\.", name)
        if found:
            first, second, third, block = found.groups()
            stage = int(first) if first else int(second) - 1 if second else int(third) - 3
            stages.setdefault(str(stage), set()).add(int(block))
    counts = tuple(max(stages.get(str(stage), {-1})) + 1 for stage in range(1, 5))
    bottleneck = any(re.search(r"\.0\.conv3\.", name) for name in tensors)
    for depth, blocks in BLOCKS.items():
        if counts == blocks and bottleneck == (int(depth) >= 50):
            return f"a resnet{depth}{_variant(tensors, bottleneck)}"
    return ""


def _variant(tensors: Mapping[str, Tensor], bottleneck: bool) -> str:
    first = next(
        (value for name, value in tensors.items() if name.endswith(("stem.conv1.weight", "conv1.weight"))), None
    )
    inner = next(
        (value for name, value in tensors.items() if re.search(r"(layer1|res2|4)\.0\.conv2\.weight$", name)), None
    )
    words = []
    if bottleneck and inner is not None and inner.shape[0] != 64:
        words.append("of another width (wide or grouped)")
    if first is not None and first.ndim == 4 and first.shape[-1] == 3 and first.shape[1] == 3:
        words.append("with a 3x3 stem (small_stem)")
    return " " + " ".join(words) if words else ""


def _vit(tensors: Mapping[str, Tensor]) -> str:
    blocks = [
        int(found.group(1)) for name in tensors if (found := re.match(r"(?:\w+\.)*?blocks\.(?:\d+\.)?(\d+)\.", name))
    ]
    projection = next((value for name, value in tensors.items() if name.endswith("patch_embed.proj.weight")), None)
    if not blocks or projection is None or projection.ndim != 4:
        return ""
    return f"a ViT of width {projection.shape[0]}, depth {max(blocks) + 1} and patches of {projection.shape[-1]} px"
