"""Reference arms of the studies: random weights below, supervised training on the labels above."""

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


def chosen_arms(settings: Settings, arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms that are asked for; the supervised one only where the images have labels, or where it is named."""
    chosen = settings.select(arms)
    if SUPERVISED not in chosen or SUPERVISED.name in settings.arms or has_labels(settings):
        return chosen
    return tuple(arm for arm in chosen if arm is not SUPERVISED)


def has_labels(settings: Settings) -> bool:
    """Whether each training image has one label."""
    if settings.embedded:  # known without drawing them: generated scenes have one where they have one object
        objects = settings.base["data"]["options"].get("objects", 1)
        return not isinstance(objects, list) or objects == [1, 1]
    if settings.declared:
        return settings.declared.get("classes") is not None
    from studies.suite.planning.assembly import open_data  # imports torch, which importing a study must not

    return open_data(settings.base["data"], settings.locations).labelled
