"""What a reader must know of the images of a study: what is not read, not used or left out, and copies."""

from collections.abc import Mapping, Sequence
from typing import Any

from scd.evaluation.copies import notes_on_copies
from scd.evaluation.protocol import EvaluationData
from studies.suite.planning.settings import Settings


def notes_on_images(images: EvaluationData) -> list[str]:
    """What a reader must know of images: what is not read, what limits leave out, and copies."""
    return [*images.notes, *notes_on_limits(images), *images.overlap(), *notes_on_copies(images)]


def notes_on_splits(images: EvaluationData) -> list[str]:
    """A note for each split that is neither trained on nor scored."""
    if images.source.embedded:
        return []
    unused = [split for split in images.source.splits if split not in ("train", images.split)]
    return [f"The {len(images.source.split(split)):,} {split} images are not used." for split in unused]


def left_out_protocols(settings: Settings, protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note on the protocols that were asked for and that the images do not allow."""
    if settings.embedded:
        return []
    asked = dict.fromkeys(settings.protocol(item)["name"] for item in settings.base["evaluation"]["protocols"])
    missing = [name for name in asked if name not in {protocol["name"] for protocol in protocols}]
    return (
        [f"Protocols that need what these images lack, and that are left out: {', '.join(missing)}."] if missing else []
    )


def notes_on_limits(images: EvaluationData) -> list[str]:
    """Notes on splits without labels of which a limit leaves out the last rows: they may be sorted by content."""
    if images.source.embedded:
        return []
    notes = []
    for split, name, limit in (
        ("train", "train_limit", images.train_limit),
        (images.split, "test_limit", images.test_limit),
    ):
        count = len(images.source.split(split))
        if "label" not in images.columns(split) and limit is not None and limit < count:
            notes.append(
                f"Of the {count:,} {split} images, which have no labels to be balanced by, the first {limit:,} are "
                f"used (data.{name})."
            )
    return notes
