"""What a reader must know of the objects in scenes: marks that are not read, objects that are there twice, crowds, and
images without one."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow
import pyarrow.compute as pc

from scd.data.images import undecoded
from scd.data.sources.coco_file import TWO_CATEGORIES
from scd.data.sources.coco_marks import (
    CROWD,
    LOW_SCORES,
    SCORES,
    SET,
    UNSEEN,
    VISIBILITY,
    is_low,
    is_mark,
    is_unseen,
)
from scd.data.sources.columns import category_names
from scd.data.sources.folder_scan import printable
from scd.data.sources.instance_maps import CROWDS, NEGATIVES, crowds, negatives
from scd.errors import DataError
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.what_was_read import categories_of

NEAR = 0.75  # IoU of two boxes that may be one object
DOUBLED, FEWEST = 0.05, 4  # share and number of objects that repeat an earlier one
MOST_ROWS = 5000  # whose boxes are compared
FEWEST_SCENES, RARELY, MOST_NAMED = 8, 0.05, 8  # scored images; share that shows a category rarely; names in a note
INNER = 0.25  # share of objects inside of another one of their category; 9 % in COCO
SLIVER, MANY_SLIVERS = 2, 0.1  # pixels; share of objects that are so thin
READ = ("bbox", "category", CROWD, "area", "id", "image_id", "bbox_id")  # and fields that only number objects
HARD = {"occluded", "truncated", "isoccluded", "istruncated"}  # hard to see, as field names in small letters


def notes_on_objects(images: EvaluationData) -> list[str]:
    """Notes on the objects of the training and scored images, of all rows; embedded ones need none.

    Raises:
        DataError: scored images without a single object.
    """
    if images.source.embedded:
        return []
    notes = []
    for split in ("train", images.split):
        if "objects" not in images.columns(split) or images.source.mask_kind != "instances":
            continue
        objects = objects_of(images, split)
        if split != "train" and not any(counts_of(objects)):
            raise DataError(
                f"'{images.source.name}' {split}: no image has an object, as where annotations are kept back; give "
                "annotated images as the test split, or leave the objects out: data.options.columns.objects=''"
            )
        noted = [note.removeprefix(f"{split}: ") for note in images.notes if note.startswith(f"{split}: ")]
        found = [
            *notes_on_fields(objects), *notes_on_values(objects), *notes_on_boxes(objects, noted),
        ]  # fmt: skip
        if split != "train":
            found += notes_on_everywhere(objects, images.source.class_names or category_names_of(images, split))
        if not any(note.startswith(NEGATIVES) for note in noted):  # by the source itself
            found += negatives(counts_of(objects))
        if not any(note.startswith(CROWDS) for note in noted):
            marks = values_of(objects, CROWD) if CROWD in fields_of(objects) else []
            found += crowds(sum(map(is_set, marks)), len(marks))
        notes += [f"{split}: {note}" for note in found]
    if images.source.mask_kind == "instances" and images.has("objects"):
        notes += notes_on_new_categories(images)
    return notes


def notes_on_everywhere(objects: pyarrow.Array, names: Sequence[str] | None) -> list[str]:
    """A note on categories that every scored image shows, and on scenes of which no category tells them apart.

    The mean average precision of scenes counts a category that every image shows with 1, whatever the network.

    Args:
        objects: of each scored image; names: of the categories.
    """
    shown = categories_shown(objects)
    counts = Counter(category for categories in shown for category in categories)
    everywhere = sorted(category for category, count in counts.items() if count == len(shown))
    if len(shown) < FEWEST_SCENES:
        return []
    if not any(RARELY * len(shown) <= count <= (1 - RARELY) * len(shown) for count in counts.values()):
        return [
            f"No category is shown by {RARELY:.0%} to {1 - RARELY:.0%} of these images, so that they hardly differ in "
            "what they show: the scene mAP says nothing of a network, or is missing; use segments or boxes."
        ]
    if not everywhere:
        return []
    return [
        f"Categories that every image shows: {listed(everywhere, names)}. The scene mAP counts each with 100 % for "
        "every network, so that it is too high and its differences are too small; leave them out for this number."
    ]


def categories_shown(objects: pyarrow.Array) -> list[set]:
    """The categories of the objects of each row."""
    return [set(categories_of(row)) for row in objects.to_pylist()]


def notes_on_new_categories(images: EvaluationData) -> list[str]:
    """A note on categories of scored objects that no training object has: base and novel classes, rare ones."""
    shown = {split: categories_shown(objects_of(images, split)) for split in ("train", images.split)}
    new = sorted(set().union(*shown[images.split]) - set().union(*shown["train"]))
    if not new:
        return []
    names = images.source.class_names or category_names_of(images, images.split)
    count = sum(bool(categories & set(new)) for categories in shown[images.split])
    return [
        "Categories of scored objects that no training object has, so that nothing learns them: "
        f"{listed(new, names)}, in {count:,} of the {len(shown[images.split]):,} scored images. They count in means "
        "over categories, alike for every network, so that differences are too small; leave them out, or annotate them "
        "in the training images."
    ]


def listed(categories: Sequence[int | str], names: Sequence[str] | None) -> str:
    """The first categories by name, and how many more there are."""
    words = ", ".join(f"'{printable(names[one])}'" if names else str(one) for one in categories[:MOST_NAMED])
    return words + (f" and {len(categories) - MOST_NAMED} more" if len(categories) > MOST_NAMED else "")


def category_names_of(images: EvaluationData, split: str) -> list[str] | None:
    """The names of the categories by their column; None without."""
    return category_names(images.source.split(split).features["objects"])


def notes_on_fields(objects: pyarrow.Array) -> list[str]:
    """Notes on fields by which other tools take objects out of the scores, or call them hard to see, and on further
    ones, none of which is read."""
    fields = sorted(fields_of(objects))
    marks = [field for field in fields if field != CROWD and is_mark_or_hard(field)]
    counts = {field: sum(map(is_set, values_of(objects, field))) for field in marks}
    notes = []
    if any(counts.values()):
        named = ", ".join(f"{field} {count:,}" for field, count in counts.items() if count)
        notes.append(
            f"Objects that have marks which are not read, so that they count like others: {named} of "
            f"{sum(counts_of(objects)):,}. Give iscrowd=1 to those that are not to be scored."
        )
    known = (*marks, *READ, *SCORES, VISIBILITY)
    others = [field for field in fields if field not in known and field.casefold() not in known]
    if others:
        notes.append(f"Fields of objects that are not read ({len(others)}): {printable(', '.join(others))}.")
    return notes


def is_mark_or_hard(field: str) -> bool:
    """Whether a field is called as a mark, or says that an object is hard to see."""
    return is_mark(field) or field.casefold().replace("_", "") in HARD


def notes_on_values(objects: pyarrow.Array) -> list[str]:
    """Notes on objects of a low score, as of pseudo labels, and on those of which nothing can be seen."""
    notes = []
    for what, names, is_so in ((LOW_SCORES, SCORES, is_low), (UNSEEN, (VISIBILITY,), is_unseen)):
        fields = [field for field in fields_of(objects) if field.casefold() in names]
        count = max((sum(map(is_so, values_of(objects, field))) for field in fields), default=0)
        if count:
            notes.append(f"Objects {what}, which count like others: {count:,} of {sum(counts_of(objects)):,}.")
    return notes


def notes_on_boxes(objects: pyarrow.Array, noted: Sequence[str]) -> list[str]:
    """Notes on objects whose boxes nearly equal that of another one, and on those that are a pixel or two wide.

    Args:
        objects: of each row, of which at most ``MOST_ROWS`` are looked at; noted: notes of the source.
    """
    rows = np.unique(np.linspace(0, len(objects) - 1, min(len(objects), MOST_ROWS)).astype(int))
    found = [single_objects(row) for row in objects.take(pyarrow.array(rows)).to_pylist()]
    among = f" of the {len(rows):,} images that were looked at" if len(rows) < len(objects) else ""
    return [
        *notes_on_doubled(found, among, noted),
        *notes_on_inner(found, among),
        *notes_on_slivers([boxes for boxes, _ in found], among),
    ]


def notes_on_doubled(found: Sequence[tuple[np.ndarray, np.ndarray]], among: str, noted: Sequence[str]) -> list[str]:
    """Notes on objects whose boxes nearly equal that of another one, as where two people annotated the same images.

    Args:
        found: boxes and categories of each image; among: says of which images they are, if not of all.
        noted: notes of the source, which finds equal boxes itself.
    """
    same = other = total = 0
    for boxes, categories in found:
        near = np.triu(overlaps(boxes) >= NEAR, 1)
        alike = categories[:, None] == categories
        doubled = [(near & chosen).any(axis=0) for chosen in (alike, ~alike)]
        same, other, total = same + doubled[0].sum(), other + doubled[1].sum(), total + len(boxes)
    notes = []
    if same >= max(FEWEST, DOUBLED * total):
        notes.append(
            f"Objects whose box nearly equals that of another object of their category (IoU of {NEAR} or more): "
            f"{same:,} of {total:,}{among}, as where two people or two tools annotated the same images. Only one of "
            "two can be found; keep one of each."
        )
    known = sum(int(re.sub(r"\D", "", note)) for note in noted if note.startswith(TWO_CATEGORIES))
    if other >= max(FEWEST, DOUBLED * total) and other >= 2 * known:
        notes.append(
            f"Objects whose box nearly equals that of an object of another category (IoU of {NEAR} or more): "
            f"{other:,} of {total:,}{among}, as where categories are nested (person, woman). Each counts as an object "
            "of its own."
        )
    return notes


def notes_on_inner(found: Sequence[tuple[np.ndarray, np.ndarray]], among: str) -> list[str]:
    """A note on objects whose box lies inside that of another one of their category, as of holes and of parts.

    Args:
        found: boxes and categories of each image; among: says of which images they are, if not of all.
    """
    inner = total = 0
    for boxes, categories in found:
        first, last = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        inside = ((first[:, None] >= first) & (last[:, None] <= last)).all(axis=2) & (categories[:, None] == categories)
        inside &= ~(boxes[:, None] == boxes).all(axis=2)
        inner, total = inner + int(inside.any(axis=1).sum()), total + len(boxes)
    if inner < max(FEWEST, INNER * total):
        return []
    return [
        f"Objects whose box lies inside that of another object of their category: {inner:,} of {total:,}{among}, as "
        "where holes of objects, or their parts, are annotated as objects. Each counts as an object of its own."
    ]


def notes_on_slivers(boxes: Sequence[np.ndarray], among: str) -> list[str]:
    """A note on objects of a pixel or two, as the rests of objects at the borders of tiles.

    Args:
        boxes: (n, 4) of each image; among: says of which images they are, if not of all.
    """
    sides = np.concatenate(boxes)[:, 2:].min(axis=1)
    thin = int(((sides > 0) & (sides <= SLIVER)).sum())
    if thin < max(FEWEST, MANY_SLIVERS * len(sides)):
        return []
    return [
        f"Objects whose box is at most {SLIVER} pixels wide or high, as what is left of an object at the border of a "
        f"tile: {thin:,} of {len(sides):,}{among}. Hardly anything of them can be seen; leave them out if they are "
        "such rests."
    ]


def entries_of(row: Mapping | list[dict] | None) -> list[dict]:
    """The objects of a row one by one, whose fields are lists, or each is a mapping."""
    if isinstance(row, Mapping):
        fields = [values or () for values in row.values()]
        return [dict(zip(row, values, strict=True)) for values in zip(*fields, strict=True)]
    return list(row or [])


def single_objects(row: Mapping | list[dict] | None) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) and categories (n,) of the objects of a row that are no crowds and whose box is four numbers."""
    kept = [one for one in entries_of(row) if not one.get(CROWD) and len(one.get("bbox") or ()) == 4]
    boxes = np.array([one["bbox"] for one in kept], float).reshape(-1, 4)
    return boxes, np.array([one["category"] for one in kept])


def overlaps(boxes: np.ndarray) -> np.ndarray:
    """Intersection over union (n, n) of boxes (n, 4) of x, y, width, height."""
    first, last = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = np.minimum(last[:, None], last) - np.maximum(first[:, None], first)
    shared = sides.clip(0).prod(axis=2)
    areas = boxes[:, 2:].prod(axis=1)
    return shared / np.maximum(areas[:, None] + areas - shared, 1e-9)


def objects_of(images: EvaluationData, split: str) -> pyarrow.Array:
    """The objects of each row: a mapping of lists, or a list of mappings."""
    rows = undecoded(images.source.split(split).select_columns(["objects"])).with_format("arrow")[:]
    return rows["objects"].combine_chunks()


def fields_of(objects: pyarrow.Array) -> list[str]:
    kind = objects.type if pyarrow.types.is_struct(objects.type) else objects.type.value_type
    return [kind.field(number).name for number in range(kind.num_fields)]


def values_of(objects: pyarrow.Array, field: str) -> Sequence[object]:
    """The values of a field of all objects."""
    if pyarrow.types.is_struct(objects.type):
        return pc.list_flatten(pc.struct_field(objects, field)).to_pylist()
    return pc.struct_field(pc.list_flatten(objects), field).to_pylist()


def counts_of(objects: pyarrow.Array) -> list[int]:
    """The number of objects of each row."""
    lists = pc.struct_field(objects, "category") if pyarrow.types.is_struct(objects.type) else objects
    return [count or 0 for count in pc.list_value_length(lists).to_pylist()]


def is_set(value: object) -> bool:
    """Whether the value of a mark is yes, or a number above 0, as a degree of occlusion."""
    return value in SET or (isinstance(value, int | float) and math.isfinite(value) and value > 0)
