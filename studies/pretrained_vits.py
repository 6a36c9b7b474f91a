"""Pre-trained ViTs beside a study's own arms: asked for by name, evaluated as they are, left out where unavailable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas

from scd.errors import UsageError, unknown
from studies.suite.analysis import tables
from studies.suite.analysis.results import Results
from studies.suite.pages.markdown import Blocks
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, RunSpec

PREFIX = "weights_"
SIDE = 112  # side in pixels of the images that they see: 7 patches of 16 or 8 of 14


@dataclass(frozen=True)
class Checkpoint:
    """A label for tables, timm's name of the model, and ``timm/TAG`` of the weights."""

    label: str
    model: str
    weights: str | None


CHECKPOINTS = {
    "dino": Checkpoint("ViT-S/16, DINO's weights", "vit_small_patch16_224", "timm/dino"),
    "dinov2": Checkpoint("ViT-S/14, DINOv2's weights", "vit_small_patch14_dinov2", "timm/lvd142m"),
    "mae": Checkpoint("ViT-B/16, MAE's weights", "vit_base_patch16_224", "timm/mae"),
}


def checkpoint_runs(settings: Settings, method: str, checkpoints: Mapping[str, Checkpoint]) -> list[RunSpec]:
    """One run without training for each checkpoint of ``axes.pretrained`` that is on disk or can be downloaded.

    Args:
        method: the method whose configuration holds the backbone; it is not trained.

    Raises:
        UsageError: a name that is none of the checkpoints.
    """
    runs = []
    for name in settings.axes.get("pretrained", []):
        if name not in checkpoints:
            raise unknown("pre-trained checkpoint (axes.pretrained)", name, checkpoints)
        chosen = checkpoints[name]
        if not available(chosen):
            continue
        backbone = {"_target_": "scd.nn.vit.vit", "name": chosen.model, "weights": chosen.weights}
        sizes = {"views": {"size": SIDE}, "evaluation": {"size": SIDE}}
        arm = Arm(PREFIX + name, chosen.label, {"method": method, "backbone": backbone, **sizes}, "", "")
        runs.append(settings.at_equal_epochs(arm, settings.seeds[0], trained=False))
    return runs


def available(checkpoint: Checkpoint) -> bool:
    """Whether the model can be built with its weights here."""
    from scd.nn.vit import vit  # imports torch

    try:
        vit(checkpoint.model, weights=checkpoint.weights)
    except UsageError:
        return False
    return True


def trained_here(results: Results) -> Results:
    """The results without checkpoints."""
    return results.with_runs(results.runs[~results.runs["arm"].str.startswith(PREFIX)])


def section(blocks: Blocks, results: Results, metrics: Sequence[str], checkpoints: Mapping[str, Checkpoint]) -> None:
    """One row per checkpoint that was asked for; those that are not available say so."""
    asked = results.about["axes"].get("pretrained", [])
    if not asked:
        names = ",".join(checkpoints)
        blocks.text(f"None was asked for. `axes.pretrained=[{names}]` adds them, evaluated as they are.")
        return
    there = set(results.runs["arm"])
    labels = {PREFIX + name: checkpoints[name].label for name in asked if PREFIX + name in there}
    if labels:
        blocks.table(tables.arm_table(results, labels, metrics))
    missing = [checkpoints[name].label for name in asked if PREFIX + name not in there]
    if missing:
        rows = [{"checkpoint": label, "numbers": "not available here"} for label in missing]
        blocks.table(tables.Table(pandas.DataFrame(rows)))
        blocks.text("Not available: neither in timm's cache on this machine nor over the network.")
    blocks.text(f"Trained by others, on other images, and evaluated at {SIDE} px: no control of any arm above.")
