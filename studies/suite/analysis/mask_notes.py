"""What a reader must know of the masks of a study's images, from a few masks of each split.

Masks that may be inverted, that are empty or all equal, and objects that their map does not show, or shows outside of
their box. What is noted of ids of classes is in :mod:`studies.suite.analysis.id_notes`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scd.data.decoding import place
from scd.data.images import undecoded
from scd.data.masks import GREY_KINDS, VOID, foreground, read_mask
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.id_notes import (
    SeenMasks,
    notes_on_background,
    notes_on_edges,
    notes_on_new_ids,
    notes_on_numbers,
    notes_on_zero,
)
from studies.suite.analysis.pixel_notes import spread_rows

MIXED, FEWEST_MIXED = 0.2, 5  # share and number of masks that may be inverted among others
EMPTY, FEWEST_EMPTY = 0.1, 2  # share and number of masks without an object that are not noted, and that are
FEWEST_EQUAL = 4  # masks that are equal by chance less often
OUTSIDE = 0.1  # share of an object's pixels that may lie outside of its box


def notes_on_masks(images: EvaluationData) -> list[str]:
    """Notes on the masks of the training and scored images; embedded ones need none.

    Raises:
        DataError: a mask that cannot be decoded, by source, row and file.
    """
    source, notes = images.source, []
    if source.embedded:
        return []
    seen: dict[str, SeenMasks] = {}
    for split in ("train", images.split):
        if "mask" not in images.columns(split):
            continue
        words = "training" if split == "train" else split
        if source.mask_kind == "instances":
            notes += notes_on_hidden_objects(images, split, words)
        else:
            seen[split] = look_at_masks(images, split)
            notes += [
                *notes_on_borders(seen[split], source.mask_kind, words),
                *notes_on_empty_masks(seen[split], words),
                *notes_on_equal_masks(seen[split], words),
                *notes_on_edges(seen[split], words),
                *notes_on_numbers(seen[split], words),
            ]
    notes += notes_on_zero(seen.values())
    ids = {id_ for found in seen.values() for id_ in found.ids}
    return [*notes, *notes_on_background(ids, source.foreground), *notes_on_new_ids(seen, images.split)]


def look_at_masks(images: EvaluationData, split: str) -> SeenMasks:
    """Decode some masks of a split. Raises DataError as :func:`notes_on_masks`."""
    source, seen = images.source, SeenMasks()
    cells = undecoded(source.split(split).select_columns("mask"))
    for row in spread_rows(images, split):
        cell = cells[row]["mask"]
        what = f"{place(cell or {}, row, source.name)}: the mask"
        values = read_mask(cell, "mask", row, source.name, source.mask_kind)
        shown = foreground(values, source.mask_kind, source.foreground, what)
        seen.add(values, shown, source.mask_kind not in GREY_KINDS)
    return seen


def notes_on_borders(seen: SeenMasks, kind: str | None, words: str) -> list[str]:
    """A note on masks that may be inverted: in many of them the object covers most of the border.

    Sets of objects that fill their images look like that as well, and so do ids of many classes, which are not judged.
    """
    if len(set(seen.ids) - {VOID}) > 2:
        return []
    mixed = seen.covered >= max(FEWEST_MIXED, MIXED * seen.count)
    if 2 * seen.covered <= seen.count and not mixed:
        return []
    hint = "white is the object and black the background"
    if kind not in GREY_KINDS:
        hint = "the right id is the object (data.options.foreground)"
    return [
        f"The object covers most of the border in {seen.covered} of the {seen.count} {words} masks that were looked "
        f"at, as in inverted masks; check that {hint}{' in all of them' if 2 * seen.covered <= seen.count else ''}."
    ]


def notes_on_empty_masks(seen: SeenMasks, words: str) -> list[str]:
    """A note on masks without an object, as those of images that nobody has annotated."""
    empty = sum(share == 0 for share in seen.shares)
    if empty < FEWEST_EMPTY or empty <= EMPTY * seen.count:
        return []
    return [
        f"Masks that show no object: {empty} of the {seen.count} {words} masks that were looked at. Whatever is found "
        "in their images counts as false, with an IoU of 0, and where objects are needed they are skipped; leave out "
        "images that nobody has annotated."
    ]


def notes_on_equal_masks(seen: SeenMasks, words: str) -> list[str]:
    """A note on a split whose masks are all one, as where a loop wrote the same mask into every row."""
    if seen.count < FEWEST_EQUAL or len(seen.contents) > 1:
        return []
    return [f"All {seen.count} {words} masks that were looked at are equal; check that each image has its own."]


def notes_on_hidden_objects(images: EvaluationData, split: str, words: str) -> list[str]:
    """Notes on objects of which their map shows no pixel, which are left out where objects are scored, and on those
    of which it shows many pixels outside of their box."""
    source, rows = images.source, spread_rows(images, split)
    if "objects" not in images.columns(split):
        return []
    cells = undecoded(source.split(split).select_columns(["mask", "objects"]))
    hidden, outside, total = 0, 0, 0
    for row in rows:
        record = cells[row]
        values = read_mask(record["mask"], "mask", row, source.name, "instances")
        numbers = numbers_of(record["objects"])
        total += len(numbers)
        hidden += len(np.setdiff1d(numbers, np.unique(values)))
        shares = shares_outside(values, boxes_of(record["objects"]))
        outside += sum(shares[number] > OUTSIDE for number in numbers)
    notes = []
    if hidden:
        notes.append(
            f"Objects of which the map of objects shows no pixel, and that are left out: {hidden:,} of {total:,} in "
            f"the {len(rows)} {words} images that were looked at. The k-th object has the value k in its map; a map of "
            "classes hides objects."
        )
    if outside > MIXED * total:
        notes.append(
            f"Objects of which the map of objects shows more than {OUTSIDE:.0%} of the pixels outside of their box: "
            f"{outside:,} of {total:,} in the {len(rows)} {words} images that were looked at; check that boxes and "
            "maps have one scale."
        )
    return notes


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


def boxes_of(objects: Mapping[str, Any] | list[dict] | None) -> list[Sequence[float] | None]:
    """The boxes of the objects of a row, whose fields are lists, or each is a mapping."""
    if isinstance(objects, Mapping):
        return list(objects["bbox"])
    return [entry.get("bbox") for entry in objects or []]


def numbers_of(objects: Mapping[str, Any] | list[dict] | None) -> list[int]:
    """The numbers from 1 of the objects of a row that are no crowds; their fields are lists, or each is a mapping."""
    if isinstance(objects, Mapping):
        crowd = objects.get("iscrowd") or [0] * len(objects["category"])
    else:
        crowd = [entry.get("iscrowd", 0) for entry in objects or []]
    return [number for number, one in enumerate(crowd, 1) if not one]
