"""How a study's images were read, one line for each split, so that a reader sees what was taken for what.

Notes name what looks wrong. These lines stand there always: a class that is none, a value that means "unknown" and
masks of the wrong polarity show in their counts and shares.
"""

from collections import Counter
from collections.abc import Sequence
from statistics import median

import numpy as np
from datasets import Dataset

from scd.data.masks import GREY_KINDS, VOID
from scd.data.sources.columns import category_names
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.mask_notes import look_at_masks

MOST_CLASSES, FIRST, LAST = 12, 6, 4  # classes that are all named; of more, the largest and the smallest ones
MOST_ROWS = 1000  # whose objects are counted
MOST_IDS = 12
FROM_FOLDERS = " by the names of folders"


def what_was_read(images: EvaluationData, decode: bool) -> list[str]:
    """One line for each split that is trained on or scored, such as "training: 40 images; ..."; none for embedded ones.

    Args:
        decode: also look at some masks.

    Raises:
        DataError: a mask that cannot be decoded, by source, row and file.
    """
    if images.source.embedded:
        return []
    return [described(images, split, decode) for split in ("train", images.split)]


def described(images: EvaluationData, split: str, decode: bool) -> str:
    """What the images of a split are taken for. Raises DataError as :func:`what_was_read`."""
    source, dataset = images.source, images.source.split(split)
    limit = images.streamed_limit if split == "train" else images.test_limit
    is_limited = limit is not None and limit < len(dataset)
    parts = [f"{len(dataset):,} images" + (f", at most {limit:,} used" if is_limited else "")]
    if "label" in dataset.column_names:
        from_folders = FROM_FOLDERS if FROM_FOLDERS in source.description else ""
        parts.append(classes_in_words(dataset["label"][:], source.class_names, from_folders))
    if "objects" in dataset.column_names:
        parts.append(objects_in_words(dataset, source.class_names or category_names(dataset.features["objects"])))
    if "mask" in dataset.column_names and (source.mask_kind != "instances" or "objects" not in dataset.column_names):
        parts.append(masks_in_words(images, split) if decode else f"masks of the kind '{source.mask_kind}'")
    return f"{'training' if split == 'train' else split}: {'; '.join(parts)}."


def classes_in_words(labels: Sequence[int], names: Sequence[str] | None, origin: str) -> str:
    """How many classes there are and where they come from, and the images of each, the largest first."""
    counts = Counter(labels).most_common()
    return f"{counted(len(counts), 'class', 'classes')}{origin} (images): {listed(counts, names)}"


def objects_in_words(dataset: Dataset, names: Sequence[str] | None) -> str:
    """How many objects the images have, and how many images have none, of evenly spread rows."""
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), MOST_ROWS)).astype(int)).tolist()
    categories = [categories_of(record["objects"]) for record in dataset.select(rows).select_columns("objects")]
    counts = Counter(category for found in categories for category in found).most_common()
    empty = sum(not found for found in categories)
    without = f"none in {empty:,} images" if empty else "at least one in every image"
    among = f" of {len(rows):,} images that were looked at" if len(rows) < len(dataset) else ""
    return (
        f"{sum(map(len, categories)):,} objects{among}, {without}, of "
        f"{counted(len(counts), 'category', 'categories')} (objects): {listed(counts, names)}"
    )


def categories_of(objects: dict | list[dict] | None) -> list[int]:
    """The categories of the objects of a row, whose fields are lists, or each is a mapping."""
    if isinstance(objects, dict):
        return list(objects.get("category") or [])
    return [entry["category"] for entry in objects or []]


def masks_in_words(images: EvaluationData, split: str) -> str:
    """What the masks show: how much of the image is object, and which ids they have."""
    kind, chosen = images.source.mask_kind, images.source.foreground
    seen = look_at_masks(images, split)
    text = f"masks of the kind '{kind}', object on {median(seen.shares):.0%} of the pixels (median of {seen.count})"
    if kind in GREY_KINDS:
        return text
    if kind == "instances":
        return f"{text}, {median(map(len, seen.shown)):g} objects an image (median)"
    ids = sorted(set(seen.ids) - {VOID})
    shown = ", ".join(map(str, ids[:MOST_IDS])) + (", ..." if len(ids) > MOST_IDS else "")
    unknown = f", {VOID} is unknown" if VOID in seen.ids else ""
    return f"{text}, ids {shown}, of which {'those above 0' if chosen is None else list(chosen)} are object{unknown}"


def listed(counts: Sequence[tuple[int, int]], names: Sequence[str] | None) -> str:
    """Classes with their counts; of many, the largest and the smallest ones."""
    words = [f"'{names[label]}' {count:,}" if names else f"{label} {count:,}" for label, count in counts]
    if len(words) <= MOST_CLASSES:
        return ", ".join(words)
    return f"{', '.join(words[:FIRST])}, ..., {', '.join(words[-LAST:])}"


def counted(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"
