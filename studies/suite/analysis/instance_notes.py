"""What a reader must know of maps of objects, from the maps of a few images of each split.

Objects that their map does not show, or shows outside of their box; boxes that were drawn as objects; and regions of
classes in the place of objects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import find_objects, label

from scd.data.images import undecoded
from scd.data.masks import read_mask
from scd.data.sources.instance_maps import BOX_ONLY, MANY, RECTANGLES
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.pixel_notes import spread_rows

OUTSIDE = 0.1  # share of an object's pixels that may lie outside of its box
MIXED = 0.2  # share of objects with such pixels that is not noted
FILLS, MOSTLY = 0.98, 0.75  # share of its box that an object fills if it is that box; share of such objects
PART, APART, FEWEST_IMAGES = 0.1, 0.3, 4  # share of the largest part that another one has; objects in parts; images
CORNERS = np.ones((3, 3), int)  # pixels that touch in a corner are one part


@dataclass
class SeenObjects:
    """What was seen of the objects in some maps, without crowds.

    Attributes:
        rows, total: images that were looked at, and their objects.
        hidden: objects without a pixel; outside: those with many pixels outside of their box.
        shown, boxes, parted: objects with pixels, those that fill a rectangle, and those in several parts.
        with_objects, repeating: images with objects, and those with two objects of a category.
    """

    rows: int = 0
    total: int = 0
    hidden: int = 0
    outside: int = 0
    shown: int = 0
    boxes: int = 0
    parted: int = 0
    with_objects: int = 0
    repeating: int = 0

    def add(self, values: np.ndarray, objects: Mapping[str, Any] | list[dict] | None) -> None:
        """The map (H, W) and the objects of an image."""
        numbers = numbers_of(objects)
        categories = [one for number, one in enumerate(field_of(objects, "category"), 1) if number in numbers]
        self.rows += 1
        self.total += len(numbers)
        self.hidden += len(np.setdiff1d(numbers, np.unique(values)))
        shares = shares_outside(values, field_of(objects, "bbox"))
        self.outside += sum(shares[number] > OUTSIDE for number in numbers)
        places = find_objects(values.astype(np.int32), max_label=max(numbers, default=0))
        for number in numbers:
            if (place := places[number - 1]) is not None:
                shape = values[place] == number
                self.shown += 1
                self.boxes += bool(shape.mean() >= FILLS)
                self.parted += is_in_parts(shape)
        self.with_objects += bool(numbers)
        self.repeating += len(set(categories)) < len(categories)


def notes_on_maps(images: EvaluationData, split: str, words: str) -> list[str]:
    """Notes on the maps of objects of a split, which ``words`` call.

    Raises:
        DataError: a mask that cannot be decoded, by source, row and file.
    """
    if "objects" not in images.columns(split):
        return []
    source, seen = images.source, SeenObjects()
    cells = undecoded(source.split(split).select_columns(["mask", "objects"]))
    for row in spread_rows(images, split):
        record = cells[row]
        seen.add(read_mask(record["mask"], "mask", row, source.name, "instances"), record["objects"])
    said = any(note.startswith(f"{split}: {what}") for note in source.notes for what in (BOX_ONLY, RECTANGLES))
    return [
        *notes_on_hidden_objects(seen, words),
        *([] if said else notes_on_boxes(seen, words)),
        *notes_on_regions(seen, words),
    ]


def notes_on_hidden_objects(seen: SeenObjects, words: str) -> list[str]:
    """Notes on objects of which their map shows no pixel, which are left out where objects are scored, and on those
    of which it shows many pixels outside of their box."""
    notes = []
    if seen.hidden:
        notes.append(
            f"Objects of which the map of objects shows no pixel, and that are left out: {seen.hidden:,} of "
            f"{seen.total:,} in the {seen.rows} {words} images that were looked at. A pixel belongs to one object, so "
            "that others hide those below them; in maps of your own the k-th object has the value k, and a map of "
            "classes hides objects."
        )
    if seen.outside > MIXED * seen.total:
        notes.append(
            f"Objects of which the map of objects shows more than {OUTSIDE:.0%} of the pixels outside of their box: "
            f"{seen.outside:,} of {seen.total:,} in the {seen.rows} {words} images that were looked at; check that "
            "boxes and maps have one scale."
        )
    return notes


def notes_on_boxes(seen: SeenObjects, words: str) -> list[str]:
    """A note on maps that show filled boxes and not the shapes of their objects."""
    if seen.shown < MANY or seen.boxes < MOSTLY * seen.shown:
        return []
    return [
        f"Objects that fill an upright rectangle in the map of objects: {seen.boxes:,} of {seen.shown:,} in the "
        f"{seen.rows} {words} images that were looked at. What is measured with masks is measured with boxes."
    ]


def notes_on_regions(seen: SeenObjects, words: str) -> list[str]:
    """A note on maps in which each category has one object an image, often in several parts, as maps of classes have
    when they are converted: several objects of a category are one then."""
    if seen.repeating or seen.with_objects < FEWEST_IMAGES or seen.parted <= APART * seen.shown:
        return []
    return [
        f"No image has two objects of a category, and {seen.parted:,} of {seen.shown:,} objects in the {seen.rows} "
        f"{words} images that were looked at consist of separate parts, as where a map of classes was converted. All "
        "objects of a category in an image count as one then; annotate each object, or give the map of classes as mask."
    ]


def is_in_parts(shape: np.ndarray) -> bool:
    """Whether an object (H, W) bool has two parts that do not touch, the smaller one of a tenth of the larger one."""
    parts, count = label(shape, CORNERS)
    if count < 2:
        return False
    areas = np.sort(np.bincount(parts.ravel())[1:])
    return bool(areas[-2] >= PART * areas[-1])


def shares_outside(values: np.ndarray, boxes: Sequence[Sequence[float] | None]) -> np.ndarray:
    """By the number of each object, the share of its pixels in a map (H, W) that lie outside of its box: (n + 1,).

    Objects without pixels, and those whose box is no four numbers, have 0. ``boxes`` are x, y, width, height.
    """
    known = [box is not None and len(box) == 4 and None not in box for box in boxes]
    edges = np.array([box if is_box else (0, 0, np.inf, np.inf) for box, is_box in zip(boxes, known, strict=True)])
    y, x = ((values > 0) & (values <= len(boxes))).nonzero()
    numbers = values[y, x]
    left, top, width, height = edges.reshape(-1, 4)[numbers - 1].T
    outside = (x < left - 1) | (x > left + width) | (y < top - 1) | (y > top + height)
    every, wrong = (np.bincount(found, minlength=len(boxes) + 1) for found in (numbers, numbers[outside]))
    return wrong / np.maximum(every, 1)


def field_of(objects: Mapping[str, Any] | list[dict] | None, name: str) -> list[Any]:
    """The values of a field of the objects of a row, whose fields are lists, or each is a mapping."""
    if isinstance(objects, Mapping):
        return list(objects[name])
    return [entry.get(name) for entry in objects or []]


def numbers_of(objects: Mapping[str, Any] | list[dict] | None) -> list[int]:
    """The numbers from 1 of the objects of a row that are no crowds; their fields are lists, or each is a mapping."""
    if isinstance(objects, Mapping):
        crowd = objects.get("iscrowd") or [0] * len(objects["category"])
    else:
        crowd = [entry.get("iscrowd", 0) for entry in objects or []]
    return [number for number, one in enumerate(crowd, 1) if not one]
