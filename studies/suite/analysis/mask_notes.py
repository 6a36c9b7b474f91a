"""What a reader must know of the masks of a study's images, from a few masks of each split.

Masks that may be inverted or that are all equal, class ids that count as background, that only one split has or that
lie on edges alone, and objects that their map does not show, or shows outside of their box.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from scd.data.decoding import place
from scd.data.images import undecoded
from scd.data.masks import GREY_KINDS, UNKNOWN, VOID, foreground, read_mask
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.pixel_notes import spread_rows

MOST_NAMED = 8  # ids that a note names
MIXED, FEWEST_MIXED = 0.2, 5  # share and number of masks that may be inverted among others
FEWEST_EQUAL = 4  # masks that are equal by chance less often
OUTSIDE = 0.1  # share of an object's pixels that may lie outside of its box
MANY_IDS = 65536
ON_EDGES, FEWEST_ON_EDGES = 0.9, 3  # share of an id's pixels between two other ids; ids that are noted
OFTEN = 0.25  # share of the scored masks that show an id which the training masks lack


@dataclass
class SeenMasks:
    """What was seen of the masks of a split.

    Attributes:
        count: how many there are.
        covered: those in which the object covers most of the border.
        shares: of the pixels of each that are object.
        ids: id -> masks that show it; empty for masks of grey levels.
        pixels, on_edges: id -> its pixels, and those that lie between a lower and a higher id; of masks of five ids or
            more.
        contents: hashes of the values.
    """

    count: int = 0
    covered: int = 0
    shares: list[float] = field(default_factory=list)
    ids: Counter[int] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    on_edges: Counter[int] = field(default_factory=Counter)
    contents: set[bytes] = field(default_factory=set)

    def add(self, values: np.ndarray, shown: np.ndarray, has_ids: bool) -> None:
        """The values (H, W) of a mask, and where they show the object."""
        border = np.concatenate([shown[0], shown[-1], shown[1:-1, 0], shown[1:-1, -1]])
        known = border[border != UNKNOWN]
        self.count += 1
        self.covered += bool(2 * (known == 1).sum() > len(known))
        self.shares.append(float((shown == 1).mean()))
        self.contents.add(blake2b(np.array(values.shape).tobytes() + values.tobytes(), digest_size=16).digest())
        if has_ids:
            shown_ids = np.unique(values).tolist()
            self.ids.update(shown_ids)
            if len(shown_ids) >= FEWEST_ON_EDGES + 2 and shown_ids[-1] < MANY_IDS:
                for counted, found in ((self.pixels, values.ravel()), (self.on_edges, values[between(values)])):
                    counts = np.bincount(found)
                    counted.update({int(number): int(counts[number]) for number in counts.nonzero()[0]})

    def edge_ids(self) -> list[int]:
        """Ids of which nearly all pixels lie between a lower and a higher id."""
        return sorted(id_ for id_, count in self.pixels.items() if self.on_edges[id_] >= ON_EDGES * count)


def between(values: np.ndarray) -> np.ndarray:
    """Where a pixel (H, W) lies between a lower and a higher one among its four neighbours: bool."""
    padded = np.pad(values.astype(np.int32), 1, mode="edge")
    centre = padded[1:-1, 1:-1]
    lower, higher = np.zeros(values.shape, bool), np.zeros(values.shape, bool)
    for beside in (padded[1:-1, 2:], padded[1:-1, :-2], padded[2:, 1:-1], padded[:-2, 1:-1]):
        lower |= beside < centre
        higher |= beside > centre
    return lower & higher


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
                *notes_on_equal_masks(seen[split], words),
                *notes_on_edges(seen[split], words),
            ]
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


def notes_on_equal_masks(seen: SeenMasks, words: str) -> list[str]:
    """A note on a split whose masks are all one, as where a loop wrote the same mask into every row."""
    if seen.count < FEWEST_EQUAL or len(seen.contents) > 1:
        return []
    return [f"All {seen.count} {words} masks that were looked at are equal; check that each image has its own."]


def notes_on_edges(seen: SeenMasks, words: str) -> list[str]:
    """A note on ids that lie on the edges between others alone, as where masks of ids were resized with smoothing."""
    found = seen.edge_ids()
    if len(found) < FEWEST_ON_EDGES or 2 * len(found) < len(seen.ids):
        return []
    listed = ", ".join(map(str, found[:MOST_NAMED])) + (", ..." if len(found) > MOST_NAMED else "")
    return [
        f"Ids of the {words} masks that show on edges between other ids alone, as where masks were resized with "
        f"smoothing, which makes ids that are no classes: {listed}. Resize masks of ids with the nearest neighbour."
    ]


def notes_on_new_ids(seen: Mapping[str, SeenMasks], scored: str) -> list[str]:
    """A note on class ids that many scored masks show and no training mask does, of those that were looked at."""
    if "train" not in seen or scored not in seen or not seen["train"].ids:
        return []
    test = seen[scored]
    new = sorted(id_ for id_, count in test.ids.items() if not seen["train"].ids[id_] and count >= OFTEN * test.count)
    if not new:
        return []
    listed = ", ".join(map(str, new[:MOST_NAMED])) + (", ..." if len(new) > MOST_NAMED else "")
    return [
        f"Ids that many of the {test.count} {scored} masks that were looked at show, and none of the "
        f"{seen['train'].count} training masks: {listed}. Check that both splits have the same ids."
    ]


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
