"""What studies share: reference arms, the positive controls made of them, and the correlation of the background.

The arms are random weights below, supervised training on the labels above, and the true mask in SCD's place. A correct
separation can help where the background is predictive in training and not in the test, so that is where studies ask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from scd.errors import DataError
from studies.suite.analysis.results import Results
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, Contrast, contrast_factory

RANDOM = Arm("random", "random weights", {}, "backbone, evaluation", "no training: the lower reference", pool="")
SUPERVISED = Arm(
    "supervised",
    "supervised",
    {"method": "supervised"},
    "backbone, images, epochs",
    "a classifier trained on the labels: the upper reference",
    pool="",
)
ORACLE = Arm(
    "oracle",
    "SCD with the true mask",
    {"wrapper": {"preset": "scd", "saliency": "oracle"}},
    "all of MoCo; SCD's projection and triplet loss",
    "the map is the true mask",
)

MAP_SCORES = (  # of maps against true masks, and what they stand beside; scd/evaluation/saliency.py
    "saliency_iou", "saliency_iou_inverted", "saliency_iou_trivial", "saliency_iou_possible", "saliency_iou_whole",
    "saliency_maxf", "saliency_maxf_inverted", "saliency_maxf_whole", "saliency_inverted_share",
)  # fmt: skip
PROBE, SESOI = "linear_top1", 0.01  # that a network has learned is judged by the linear probe
LONGER = "a longer training (`training.budget.value`)"
PREDICTIVE = (
    "images whose background is predictive in training and not in the test (embedded ones with `axes.rho=0.8`), more "
    "test images (`sizes.judged.test`), or another draw of them (`data.options.seed`)"
)


def learns(host: str, label: str, control: str = RANDOM.name) -> Contrast:
    """The positive control that a host has learned something: its linear probe against that of random weights."""
    contrast = contrast_factory(PROBE, SESOI, f"{label} is better than random weights")
    return replace(contrast(host, control), remedy=LONGER)


def separates(treatment: str, control: str, metric: str, sesoi: float = SESOI, remedy: str = PREDICTIVE) -> Contrast:
    """The positive control that a correct separation can be seen: the true mask against an arm without a separation."""
    return replace(contrast_factory(metric, sesoi, "a correct map helps")(treatment, control), remedy=remedy)


def background_correlation(settings: Settings) -> dict[str, Any]:
    """``axes.rho``, the correlation of background and object in training, where the images have that option."""
    rho = settings.axes.get("rho")
    return {"data": {"options": {"rho_train": rho}}} if rho is not None and settings.has_option("rho_train") else {}


def correlation_lines(results: Results) -> dict[str, str]:
    """How the page states the correlation of background and object; nothing where the images have no such option."""
    options: Mapping[str, Any] = results.about["base"].get("data", {}).get("options", {})
    if options.get("rho_train") is None:
        return {}
    probe = options.get("rho_probe") if options.get("probe") else options["rho_train"]
    return {
        "Background correlation": (
            f"ρ = {options['rho_train']:g} in training (`axes.rho`): how often the class of the background is the "
            "partner of the object's class (else it is drawn at random); ρ = "
            f"{probe:g} in the images that probes learn from and {options['rho_test']:g} in the test images. "
            "Accuracies under shift are of probes that learn from the training images. With a predictive background a "
            "method may learn the object or its background, so a correct separation can be seen"
        )
    }


def chosen_arms(settings: Settings, arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms that are asked for.

    The supervised one is left out where the images have no labels, and the true mask where the training images have no
    masks, unless the command line names them.

    Raises:
        DataError: the command line names an arm that learns from masks, and the training images have none.
    """
    chosen = []
    for arm in settings.select(arms):
        needed = "labels" if arm.name == SUPERVISED.name else "masks" if arm.name.startswith(ORACLE.name) else ""
        if not needed or (has_labels(settings) if needed == "labels" else has_masks(settings)):
            chosen.append(arm)
        elif arm.name in settings.arms:
            if needed == "masks":
                raise DataError(f"the arm '{arm.name}' learns from masks, and the training images have none")
            chosen.append(arm)  # refused with its reason when the run is planned
    return tuple(chosen)


def has_masks(settings: Settings) -> bool:
    """Whether the training images have masks."""
    if settings.embedded:
        return True
    if settings.declared:
        return bool(settings.declared.get("masks"))
    from studies.suite.planning.assembly import open_data  # imports torch, which importing a study must not

    return "mask" in open_data(settings.base["data"], settings.locations).split("train").column_names


def has_labels(settings: Settings) -> bool:
    """Whether each training image has one label."""
    if settings.embedded:  # known without drawing them: generated scenes have one where they have one object
        objects = settings.base["data"]["options"].get("objects", 1)
        return not isinstance(objects, list) or objects == [1, 1]
    if settings.declared:
        return settings.declared.get("classes") is not None
    from studies.suite.planning.assembly import open_data  # imports torch, which importing a study must not

    return open_data(settings.base["data"], settings.locations).labelled
