"""What a reader must know of the objects in scenes: marks that are not read, crowds, and images without one."""

import math
from collections.abc import Sequence

import pyarrow
import pyarrow.compute as pc

from scd.data.images import undecoded
from scd.data.sources.coco_marks import MARKS, SET
from scd.data.sources.instance_maps import CROWDS, NEGATIVES, crowds, negatives
from scd.evaluation.protocol import EvaluationData

CROWD = "iscrowd"  # the one mark that is read
NOT_READ = {"crowd", "occluded", "truncated", *(mark.replace("_", "").removeprefix("is") for mark in MARKS)}


def notes_on_objects(images: EvaluationData) -> list[str]:
    """Notes on the objects of the training and scored images, of all rows; embedded ones need none."""
    if images.source.embedded:
        return []
    notes = []
    for split in ("train", images.split):
        if "objects" not in images.columns(split) or images.source.mask_kind != "instances":
            continue
        objects = objects_of(images, split)
        noted = [note.removeprefix(f"{split}: ") for note in images.notes if note.startswith(f"{split}: ")]
        found = notes_on_fields(objects)
        if not any(note.startswith(NEGATIVES) for note in noted):  # by the source itself
            found += negatives(counts_of(objects))
        if not any(note.startswith(CROWDS) for note in noted):
            marks = values_of(objects, CROWD) if CROWD in fields_of(objects) else []
            found += crowds(sum(map(is_set, marks)), len(marks))
        notes += [f"{split}: {note}" for note in found]
    return notes


def notes_on_fields(objects: pyarrow.Array) -> list[str]:
    """A note on fields by which other tools take objects out of the scores, or call them hard to see."""
    counts = {
        field: sum(map(is_set, values_of(objects, field)))
        for field in sorted(fields_of(objects))
        if field != CROWD and field.casefold().replace("_", "").removeprefix("is") in NOT_READ
    }
    if not any(counts.values()):
        return []
    named = ", ".join(f"{field} {count:,}" for field, count in counts.items() if count)
    return [
        f"Objects that have marks which are not read, so that they count like others: {named} of "
        f"{sum(counts_of(objects)):,}. Give iscrowd=1 to those that are not to be scored."
    ]


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
