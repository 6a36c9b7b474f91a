"""Detectron2's ResNets: what their weights are called, and the shapes that its building plan gives them.

The norm of a convolution is its child, the stages are res2 to res5, and the downsampling is called a shortcut; MoCo's
conversion script (MIT) uses the same names. Weights of a frozen norm have no count of batches.
"""

BLOCKS = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3), "50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}


def detectron2_name(name: str) -> str:
    """The name that Detectron2's ResNets have for a torchvision name: layer1.0.bn2.weight is res2.0.conv2.norm.weight.

    The norm of a convolution is its child, the stages are res2 to res5, and the downsampling is called a shortcut.
    """
    first, *rest = name.split(".")
    if first.startswith("layer"):
        inside = {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"}
        inside |= {f"bn{i}": f"conv{i}.norm" for i in (1, 2, 3)}
        block, *part, value = rest
        part = ".".join(part)
        return f"res{int(first.removeprefix('layer')) + 1}.{block}.{inside.get(part, part)}.{value}"
    return ".".join(["stem", "conv1.norm" if first == "bn1" else first, *rest])


def detectron2_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of Detectron2's ResNet of that torchvision name, from its building plan.

    NOTE: written down from its scheme; Detectron2 itself is not asked.
    """
    depth, _, variant = name.removeprefix("wide_").removeprefix("resnet").removeprefix("resnext").partition("_")
    bottleneck = int(depth) >= 50
    groups = 32 if variant == "32x4d" else 1
    factor = 2 if name.startswith("wide_") or groups > 1 else 1  # of the inner width of a bottleneck
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(at: str, wide: int, narrow: int, side: int) -> None:
        shapes[f"{at}.weight"] = (wide, narrow, side, side)
        shapes.update({f"{at}.norm.{part}": (wide,) for part in ("weight", "bias", "running_mean", "running_var")})

    convolution("stem.conv1", 64, 3, 7)
    before = 64
    for stage, blocks in enumerate(BLOCKS[depth]):
        plain = 64 * 2**stage
        after, inner = (4 * plain, factor * plain) if bottleneck else (plain, plain)
        for block in range(blocks):
            at = f"res{stage + 2}.{block}"
            if block == 0 and (stage > 0 or before != after):
                convolution(f"{at}.shortcut", after, before, 1)
            if bottleneck:
                convolution(f"{at}.conv1", inner, before, 1)
                convolution(f"{at}.conv2", inner, inner // groups, 3)
                convolution(f"{at}.conv3", after, inner, 1)
            else:
                convolution(f"{at}.conv1", after, before, 3)
                convolution(f"{at}.conv2", after, after, 3)
            before = after
    return shapes
