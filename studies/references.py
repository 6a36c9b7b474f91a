"""Reference arms: random weights below, supervised training on the labels above, and the true mask in SCD's place."""

from collections.abc import Sequence

from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm

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


def chosen_arms(settings: Settings, arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms that are asked for.

    The supervised one is left out where the images have no labels, and the true mask where they have no masks, unless
    the command line names them.
    """
    needs = {SUPERVISED.name: has_labels, ORACLE.name: has_masks}
    return tuple(
        arm
        for arm in settings.select(arms)
        if arm.name not in needs or arm.name in settings.arms or needs[arm.name](settings)
    )


def has_masks(settings: Settings) -> bool:
    """Whether the images have masks."""
    if settings.embedded:
        return True
    if settings.declared:
        return bool(settings.declared.get("masks"))
    from studies.suite.planning.assembly import open_data  # imports torch, which importing a study must not

    return open_data(settings.base["data"], settings.locations).mask_kind is not None


def has_labels(settings: Settings) -> bool:
    """Whether each training image has one label."""
    if settings.embedded:  # known without drawing them: generated scenes have one where they have one object
        objects = settings.base["data"]["options"].get("objects", 1)
        return not isinstance(objects, list) or objects == [1, 1]
    if settings.declared:
        return settings.declared.get("classes") is not None
    from studies.suite.planning.assembly import open_data  # imports torch, which importing a study must not

    return open_data(settings.base["data"], settings.locations).labelled
