"""What a reader must know of the masks of a study's images, from a few masks of each split.

Masks that may be inverted, that are empty, all equal, or outlines. What is noted of ids of classes is in
:mod:`studies.suite.analysis.id_notes`, and of maps of objects in :mod:`studies.suite.analysis.instance_notes`.
"""

from functools import lru_cache

from scd.data.decoding import place
from scd.data.images import undecoded
from scd.data.masks import GREY_KINDS, VOID, foreground, read_mask
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.id_notes import (
    SeenMasks,
    notes_on_background,
    notes_on_edges,
    notes_on_levels_between,
    notes_on_new_ids,
    notes_on_numbers,
    notes_on_zero,
)
from studies.suite.analysis.instance_notes import MOSTLY, notes_on_maps
from studies.suite.analysis.pixel_notes import spread_rows

MIXED, FEWEST_MIXED = 0.2, 5  # share and number of masks that may be inverted among others
EMPTY, FEWEST_EMPTY = 0.1, 2  # share and number of masks without an object that are not noted, and that are
FROM_TRIMAP = {0, 1, 2}  # Oxford-IIIT Pet's trimap minus 1: the object is 0, the background 1
FEWEST_EQUAL = 4  # masks that are equal by chance less often
FEWEST_BOXES = 8  # masks of rectangles that may be drawings of boxes
OUTLINE = 0.5  # share of its pixels, with its holes filled, below which an object is an outline


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
        if source.mask_kind == "instances" and "objects" in images.columns(split):
            notes += notes_on_maps(images, split, words)
        else:
            seen[split] = look_at_masks(images, split)
            notes += [
                *notes_on_borders(seen[split], source.mask_kind, words),
                *notes_on_empty_masks(seen[split], words),
                *notes_on_equal_masks(seen[split], words),
                *notes_on_outlines(seen[split], words),
                *notes_on_rectangles(seen[split], words),
                *notes_on_levels_between(seen[split], source.mask_kind, words),
            ]
            if source.mask_kind != "instances":
                notes += [*notes_on_edges(seen[split], words), *notes_on_numbers(seen[split], words)]
    if source.mask_kind == "instances":
        return notes
    notes += notes_on_zero(seen.values())
    ids = {id_ for found in seen.values() for id_ in found.ids}
    return [*notes, *notes_on_background(ids, source.foreground), *notes_on_new_ids(seen, images.split)]


@lru_cache(maxsize=4)
def look_at_masks(images: EvaluationData, split: str) -> SeenMasks:
    """Decode some masks of a split; kept, as what was read and notes both ask. Raises as :func:`notes_on_masks`."""
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
    The three ids of a trimap minus 1 are.
    """
    ids = set(seen.ids) - {VOID}
    if kind != "instances" and len(ids) > 2 and ids != FROM_TRIMAP:
        return []
    mixed = seen.covered >= max(FEWEST_MIXED, MIXED * seen.count)
    if 2 * seen.covered <= seen.count and not mixed:
        return []
    hint = "white is the object and black the background"
    if kind == "instances":
        hint = "0 is the background"
    elif kind not in GREY_KINDS:
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


def notes_on_outlines(seen: SeenMasks, words: str) -> list[str]:
    """A note on masks that show the outline of their object and not its inside."""
    shares = [share for share in seen.filled if share > 0]
    outlines = sum(share < OUTLINE for share in shares)
    if 2 * outlines <= len(shares):
        return []
    return [
        f"Masks whose object is less than half of what it surrounds, as outlines are: {outlines} of the {seen.count} "
        f"{words} masks that were looked at. The inside counts as background; fill it if it is the object."
    ]


def notes_on_rectangles(seen: SeenMasks, words: str) -> list[str]:
    """A note on masks that were drawn from boxes."""
    if seen.boxes < max(FEWEST_BOXES, MOSTLY * seen.count):
        return []
    return [
        f"Masks whose object consists of upright rectangles: {seen.boxes} of the {seen.count} {words} masks that were "
        "looked at. What is measured with masks is measured with boxes."
    ]
