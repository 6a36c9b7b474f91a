"""What a reader must know of the images of a study: what is not read, not used or left out, and copies."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from scd.evaluation.copies import notes_on_copies
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.alignment_notes import notes_on_alignment
from studies.suite.analysis.altered_notes import notes_on_altered_copies, notes_on_trained_copies
from studies.suite.analysis.class_notes import notes_on_class_names
from studies.suite.analysis.column_notes import notes_on_columns
from studies.suite.analysis.label_notes import notes_on_labels
from studies.suite.analysis.mask_notes import notes_on_masks
from studies.suite.analysis.name_notes import notes_on_names
from studies.suite.analysis.neighbour_notes import notes_on_neighbours
from studies.suite.analysis.object_notes import notes_on_objects
from studies.suite.analysis.part_notes import notes_on_parts
from studies.suite.analysis.pixel_notes import notes_on_pixels
from studies.suite.analysis.repeat_notes import notes_on_repeats
from studies.suite.analysis.series_notes import notes_on_shared_videos
from studies.suite.analysis.shared_value_notes import notes_on_shared_values
from studies.suite.analysis.tag_notes import notes_on_tags
from studies.suite.analysis.used_rows import used_rows
from studies.suite.analysis.what_was_read import what_was_read
from studies.suite.planning.settings import Settings

OF_SERIES = (" series ", "By their names")  # in notes that say that training and scored images belong together
COPIES = re.compile(r"([\d,]+) of the [\d,]+ scored images are (?:training|nearly)")
MOST_NAMED = 5  # classes that a note names


def notes_on_images(images: EvaluationData) -> list[str]:
    """What a reader must know of images: the notes on their files, odd labels, pixels and masks, and copies.

    Altered copies are noted where there are more of them than of others, and frames of one recording are looked for
    where neither names nor copies have shown that training and scored images belong together.
    """
    copies, of_files = [*images.overlap(), *notes_on_copies(images)], notes_on_files(images)
    altered = notes_on_altered_copies(images, known=sum(map(counted_in, copies)))
    return [
        *of_files, *notes_on_labels(images), *notes_on_tags(images), *notes_on_pixels(images),
        *notes_on_masks(images), *notes_on_alignment(images), *copies, *altered,
        *([] if copies or altered or tell_of_series(of_files) else notes_on_neighbours(images)),
        *notes_on_repeats(images),
    ]  # fmt: skip


def notes_on_files(images: EvaluationData) -> list[str]:
    """What files and annotations say without the pixels: what is not read, odd classes, what limits leave out, odd
    names, columns that are not read, and marks of objects."""
    of_names = [*notes_on_names(images), *notes_on_shared_videos(images)]
    if not tell_of_series([*images.notes, *of_names]):
        of_names += notes_on_parts(images)
    of_columns = notes_on_columns(images) or notes_on_shared_values(images)
    return [
        *images.notes, *notes_on_class_names(images), *notes_on_limits(images), *of_names, *of_columns,
        *notes_on_objects(images),
    ]  # fmt: skip


def counted_in(note: str) -> int:
    """The scored images that a note on copies counts."""
    found = COPIES.match(note)
    return int(found[1].replace(",", "")) if found else 0


def tell_of_series(notes: Sequence[str]) -> bool:
    """Whether notes say that images belong to series or recordings, by their names."""
    return any(any(words in note for words in OF_SERIES) for note in notes)


def before_decoding(images: EvaluationData, step: str) -> list[str]:
    """What a dry run says of images, which it does not decode: how they are read, notes, and what it cannot note.

    Args:
        step: what comes first of what decodes them: "training".
    """
    if images.source.embedded:
        return []
    left = f"images were not decoded: notes on pixels, masks and labels come before the {step}"
    return [*in_lines(what_was_read(images, decode=False), notes_on_files(images)), left]


def in_lines(read: Sequence[str], notes: Sequence[str]) -> list[str]:
    """How images were read, and notes on them, as the command line prints them."""
    return [*(f"read as {line}" for line in read), *(f"note: {note}" for note in notes)]


def notes_on_trained_sources(sets: Sequence[EvaluationData], trained: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes on scored images among the training images of runs that have other images than the study.

    Args:
        sets: the images of the study, which are compared elsewhere, and those of protocols that have their own.
        trained: the configurations of the data of all runs.
    """
    known = [data.get("fingerprints") for data in trained]
    return [
        note
        for one in sets[1:]
        if dict(one.source.fingerprints) in known
        for other in sets
        if other is not one
        for note in notes_on_trained_copies(one, other)
    ]


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
    """Notes on what limits leave out: classes, and the last rows of splits without labels, which may be sorted."""
    if images.source.embedded:
        return []
    notes = notes_on_classes(images)
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


def notes_on_classes(images: EvaluationData) -> list[str]:
    """A note on classes of which no image is trained on or scored: the numbers are of the other classes."""
    names, parts = images.source.class_names, []
    for split in ("train", images.split):
        dataset = images.source.split(split)
        if "label" not in dataset.column_names:
            return []
        labels = dataset["label"][:]
        used = {labels[row] for row in used_rows(images, split)}
        words = "training" if split == "train" else split
        missing = sorted(set(range(len(names or ()))) - used)
        if missing:
            shown = ", ".join(f"'{names[label]}'" for label in missing[:MOST_NAMED])
            more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
            parts.append(f"Classes without an image among the {words} images that are used: {shown}{more}.")
    return parts
