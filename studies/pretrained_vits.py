"""Pre-trained ViTs beside a study's own: asked for by name, evaluated as they are, left out where not to be had."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas

from scd.errors import UsageError, unknown
from studies.suite.analysis import tables
from studies.suite.analysis.results import Evidence
from studies.suite.pages import report
from studies.suite.planning.study import Arm, RunSpec, Settings

PREFIX = "weights_"
SIDE = 112  # pixels at which they see the images: 7 patches of 16 or 8 of 14


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
    """One run without training for each checkpoint of ``axes.pretrained`` that is on disk or can be fetched.

    Args:
        method: whose configuration holds the backbone; it is not trained.

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


def trained_here(evidence: Evidence) -> Evidence:
    """The evidence without checkpoints."""
    return Evidence(evidence.about, evidence.runs[~evidence.runs["arm"].str.startswith(PREFIX)])


def section(
    page: report.Page, evidence: Evidence, metrics: Sequence[str], checkpoints: Mapping[str, Checkpoint]
) -> None:
    """One row per checkpoint that was asked for; those that were not to be had say so."""
    page.heading("Pre-trained checkpoints")
    asked = evidence.about["axes"].get("pretrained", [])
    if not asked:
        page.text(f"None was asked for. `axes.pretrained=[{','.join(checkpoints)}]` adds them, evaluated as they are.")
        return
    there = set(evidence.runs["arm"])
    labels = {PREFIX + name: checkpoints[name].label for name in asked if PREFIX + name in there}
    if labels:
        page.table(tables.arm_table(evidence, labels, metrics))
    missing = [checkpoints[name].label for name in asked if PREFIX + name not in there]
    if missing:
        rows = [{"checkpoint": label, "numbers": "not available here"} for label in missing]
        page.table(tables.Table(pandas.DataFrame(rows)))
        page.text("Not available: neither in timm's cache on this machine's disk nor over the network.")
    page.text(f"Trained by others, on other images, and seen at {SIDE} px: no control of any arm above.")
