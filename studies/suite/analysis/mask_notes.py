"""What a reader must know of the masks of a study's images, from a few masks of each split.

Masks that may be inverted, class ids that count as background, and objects that their map does not show.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scd.data.decoding import place
from scd.data.images import undecoded
from scd.data.masks import GREY_KINDS, UNKNOWN, VOID, foreground, read_mask
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.pixel_notes import spread_rows

MOST_NAMED = 8  # ids that a note names


def notes_on_masks(images: EvaluationData) -> list[str]:
    """Notes on the masks of the training and scored images; embedded ones need none.

    Raises:
        DataError: a mask that cannot be decoded, by source, row and file.
    """
    source, notes = images.source, []
    if source.embedded:
        return []
    ids: set[int] = set()
    for split in ("train", images.split):
        if "mask" not in images.columns(split):
            continue
        words = "training" if split == "train" else split
        if source.mask_kind == "instances":
            notes += notes_on_hidden_objects(images, split, words)
        else:
            found, split_ids = notes_on_borders(images, split, words)
            notes += found
            ids |= split_ids
    return [*notes, *notes_on_background(ids, source.foreground)]


def notes_on_borders(images: EvaluationData, split: str, words: str) -> tuple[list[str], set[int]]:
    """A note on masks that may be inverted: in most of them the object covers most of the border. And the class ids.

    Sets of objects that fill their images look like that as well, and so do ids of many classes, which are not judged.
    """
    source, rows = images.source, spread_rows(images, split)
    cells, covered, ids = undecoded(source.split(split).select_columns("mask")), 0, set()
    for row in rows:
        cell = cells[row]["mask"]
        what = f"{place(cell or {}, row, source.name)}: the mask"
        values = read_mask(cell, "mask", row, source.name, source.mask_kind)
        if source.mask_kind not in GREY_KINDS:
            ids.update(np.unique(values).tolist())
        shown = foreground(values, source.mask_kind, source.foreground, what)
        border = np.concatenate([shown[0], shown[-1], shown[1:-1, 0], shown[1:-1, -1]])
        known = border[border != UNKNOWN]
        covered += bool(2 * (known == 1).sum() > len(known))
    if 2 * covered <= len(rows) or len(ids - {VOID}) > 2:
        return [], ids
    hint = "white is the object and black the background"
    if source.mask_kind not in GREY_KINDS:
        hint = "the right id is the object (data.options.foreground)"
    return [
        f"The object covers most of the border in {covered} of the {len(rows)} {words} masks that were looked at, as "
        f"in inverted masks; check that {hint}."
    ], ids


def notes_on_background(ids: set[int], chosen: tuple[int, ...] | None) -> list[str]:
    """A note on several ids that count as background where the ids of the object are named: one may mean unknown."""
    others = sorted(ids - {VOID, *(chosen or ())})
    if chosen is None or len(others) < 2:
        return []
    listed = ", ".join(map(str, others[:MOST_NAMED])) + (", ..." if len(others) > MOST_NAMED else "")
    return [
        f"Ids of the masks that count as background, because data.options.foreground does not name them: {listed}. "
        f"Only {VOID} means unknown; write it in the place of an id that does, such as that of a trimap's border."
    ]


def notes_on_hidden_objects(images: EvaluationData, split: str, words: str) -> list[str]:
    """A note on objects of which their map shows no pixel; they are left out where objects are scored."""
    source, rows = images.source, spread_rows(images, split)
    if "objects" not in images.columns(split):
        return []
    cells, hidden, total = undecoded(source.split(split).select_columns(["mask", "objects"])), 0, 0
    for row in rows:
        record = cells[row]
        shown = np.unique(read_mask(record["mask"], "mask", row, source.name, "instances"))
        numbers = numbers_of(record["objects"])
        total += len(numbers)
        hidden += len(np.setdiff1d(numbers, shown))
    if not hidden:
        return []
    return [
        f"Objects of which the map of objects shows no pixel, and that are left out: {hidden:,} of {total:,} in the "
        f"{len(rows)} {words} images that were looked at. The k-th object has the value k in its map; a map of classes "
        "hides objects."
    ]


def numbers_of(objects: Mapping[str, Any] | list[dict] | None) -> list[int]:
    """The numbers from 1 of the objects of a row that are no crowds; their fields are lists, or each is a mapping."""
    if isinstance(objects, Mapping):
        crowd = objects.get("iscrowd") or [0] * len(objects["category"])
    else:
        crowd = [entry.get("iscrowd", 0) for entry in objects or []]
    return [number for number, one in enumerate(crowd, 1) if not one]
