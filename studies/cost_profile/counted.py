"""Counted cost: exact operations, parameters and activation memory of a training step, without a GPU."""

from typing import Any

import torch
from torch import nn

from scd.errors import UsageError
from scd.profiling.parameters import count_parameters
from scd.profiling.parts import PARTS, count_step
from studies.cost_profile.arms import CostArm, arms, settings_of
from studies.suite.execution.run import build_method, build_recipe_of

SCALES = {
    "resnet50": ("ResNet-50, 224 px", ("tier=paper",)),
    "vit_small": (
        "ViT-S/16, 224 px",
        ("tier=paper", "backbone.name=timm/vit_small_patch16_224", "backbone.channels_last=false"),
    ),
}
CURVES = {
    "image side (px), ResNet-50": [(side, ("tier=paper", f"sizes.crop={side}")) for side in (64, 96, 128, 224, 448)],
    "images per step, ResNet-50 at 224 px": [
        (batch, ("tier=paper", f"training.batch_size={batch}")) for batch in (64, 256, 1024)
    ],
    "layers of the backbone, ResNet at 224 px": [
        (layers, ("tier=paper", f"backbone.name=resnet{layers}")) for layers in (50, 101, 152)
    ],
}


def build_on_meta(config: dict[str, Any]) -> nn.Module:
    """The method of a configuration with shapes and no values, in a moment whatever its size."""
    with torch.device("meta"):
        return build_method(config)


def count_arm(arm: CostArm, words: tuple[str, ...]) -> dict[str, Any]:
    """One arm's row: numbers per source image unless their names say otherwise, or ``error``, why it has none."""
    row: dict[str, Any] = {"arm": arm.name, "label": arm.label, "host": arm.host}
    try:
        config = arm.config(settings_of(arm, words))
        method = build_on_meta(config)
        batch = config["training"]["batch_size"]
        count, parameters = count_step(method, build_recipe_of(config), batch), count_parameters(method)
    except (UsageError, TypeError, ValueError, RuntimeError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return row | {"error": reason}
    return row | {
        "batch_size": batch,
        "forward": sum(count.forward.values()) / batch,
        "training": count.total / batch,
        "step": count.total,
        **{f"part: {part}": count.part(part) / batch for part in PARTS},
        "activations": sum(count.activations.values()) / batch,
        "online": count.online,
        "target": count.target,
        "full_size": count.full_size,
        "parameters_trained": parameters.trained,
        "parameters_momentum": parameters.momentum,
        "parameters_inference": parameters.inference,
    }


def count_curve(curve: str) -> list[dict[str, Any]]:
    """SCD on MoCo against MoCo along one of ``CURVES``: rows of curve, x, added (share of MoCo's FLOPs) or error."""
    chosen = {arm.name: arm for arm in arms()}
    rows = []
    for x, words in CURVES[curve]:
        host, scd = (count_arm(chosen[name], words) for name in ("moco", "scd_moco"))
        if "error" in host or "error" in scd:
            rows.append({"curve": curve, "x": x, "error": host.get("error") or scd["error"]})
            continue
        rows.append({"curve": curve, "x": x, "added": scd["training"] / host["training"] - 1})
    return rows
