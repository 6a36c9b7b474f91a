"""Instance maps and lists of objects, the columns that :mod:`scd.data.scene_readers` reads, made of other formats."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from datasets import ClassLabel, Features, Image, List, Value

from scd.data.sources.png import encode_png
from scd.errors import DataError

BOX_ONLY = "Objects without a segmentation, whose boxes are drawn filled"
RECTANGLES = "Objects whose segmentation is a rectangle, so that what is measured with masks is measured with boxes"
OUTSIDE = "Boxes without area inside their image, whose objects are left out"
CUT = "Boxes that leave their image and are cut at its border"
FEW = 5  # boxes that may leave their images in any set
SLACK = 1  # pixels by which a box may leave its image without a note
MANY = 20  # boxes whose places say in which unit or form they are written
LARGE = 150  # pixels; in larger images boxes that all end at 100 are unlikely
UPPER_LEFT = (
    "All {:,} boxes end within the left upper quarter of their images, as if the images had been enlarged after they "
    "were annotated; they are taken as they stand."
)
LEAST, MANY_OF = 2, 0.05  # number and share of empty images, and of crowds, that are noted
NEGATIVES = "Images without objects, which count as negatives"
UNFINISHED = "Leave out those that nobody has annotated, or what they show counts as background."
CROWDS = "Annotations with iscrowd=1, which are not scored as objects"
THOUSAND, LARGER, NEARLY = 1000, 1200, 900  # of a scale from 0 to 1000; pixels of larger images; where a box ends
PER_MILLE = (
    "All boxes end within 1000 of the left upper corner, in larger images, as boxes on a scale from 0 to 1000 would; "
    "they are taken as pixels."
)
PERCENT = "All boxes end within 100 of the left upper corner, as percentages would; they are taken as pixels."


def draw_instances(masks: Sequence[np.ndarray], crowd: Sequence[bool], height: int, width: int) -> dict:
    """The instance map (H, W) as the value of an ``Image`` column: 0 = no object, k = the k-th mask (H, W) bool.

    Crowds are drawn first, then larger objects before smaller ones, so that small ones stay visible.
    """
    out = np.zeros((height, width), np.uint8 if len(masks) < 256 else np.uint16)
    for k in sorted(range(len(masks)), key=lambda k: (not crowd[k], -masks[k].sum())):
        out[masks[k]] = k + 1
    return encode_png(out)


def filled_box(box: Sequence[float], height: int, width: int) -> np.ndarray:
    """Pixels (H, W) bool whose centre lies in a box [x, y, w, h]."""
    x, y, w, h = box
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    return ((rows > y) & (rows < y + h))[:, None] & ((columns > x) & (columns < x + w))[None]


def count_boxes(boxes: Sequence[Sequence[float]], height: int, width: int, counted: Counter[str]) -> None:
    """Count boxes [x, y, w, h] that leave their image, under a text for the notes of a source."""
    for x, y, w, h in boxes:
        if w <= 0 or h <= 0 or x >= width or y >= height or x + w <= 0 or y + h <= 0:
            counted[OUTSIDE] += 1
        elif x < -SLACK or y < -SLACK or x + w > width + SLACK or y + h > height + SLACK:
            counted[CUT] += 1


def check_boxes(counted: Counter[str], total: int, what: str, meaning: str) -> None:
    """Refuse a set of boxes of which most leave their image: they belong to other pictures, or mean something else.

    Args:
        counted: by :func:`count_boxes`; total: number of boxes.
        what: names the set; meaning: what its format's boxes are.

    Raises:
        DataError: half of the boxes or more, and at least five, leave their image or have no area.
    """
    leaving = counted[OUTSIDE] + counted[CUT]
    if leaving >= max(FEW, total / 2):
        raise DataError(
            f"{what}: {leaving:,} of {total:,} boxes leave their image, or have no area; either the images were "
            "resized and the boxes were not, or the boxes are centre, width and height: they must be "
            f"{meaning}, in pixels of these images"
        )


def percentages(boxes: Sequence[Sequence[float]], sizes: Sequence[tuple[int, int]]) -> list[str]:
    """A note on a set whose boxes may be percentages of their images, as Label Studio keeps them, or parts of 1000, as
    language models and Azure write them.

    Args:
        boxes: [x, y, w, h] of all images; sizes: width and height of each image in pixels.
    """
    large = sum(min(size) > LARGE for size in sizes)
    within = all(max(x + w, y + h) <= 100 for x, y, w, h in boxes)
    if len(boxes) >= MANY and within and large > len(sizes) / 2:
        return [PERCENT]
    ends = [max(x + w, y + h) for x, y, w, h in boxes]
    larger = sum(max(size) > LARGER for size in sizes)
    within = NEARLY <= max(ends, default=0) <= THOUSAND
    return [PER_MILLE] if len(boxes) >= MANY and within and larger > len(sizes) / 2 else []


def upper_left(boxes: Sequence[Sequence[float]], sizes: Sequence[tuple[int, int]]) -> list[str]:
    """A note on a set whose images may be larger than they were when they were annotated, by a factor of 2 or more.

    Args:
        boxes: [x, y, w, h] of all objects; sizes: width and height in pixels of the image of each box.
    """
    within = all(
        x + w <= width / 2 + SLACK and y + h <= height / 2 + SLACK
        for (x, y, w, h), (width, height) in zip(boxes, sizes, strict=True)
    )
    return [UPPER_LEFT.format(len(boxes))] if within and len(boxes) >= MANY else []


def negatives(objects: Sequence[int]) -> list[str]:
    """A note on a set of which many images have no object; ``objects`` are their numbers by image."""
    empty = sum(not number for number in objects)
    if not are_many(empty, len(objects)):
        return []
    return [f"{NEGATIVES}: {empty:,} of {len(objects):,}. {UNFINISHED}"]


def crowds(count: int, total: int) -> list[str]:
    """A note on a set of which many objects are crowds: how many of how many."""
    if not are_many(count, total):
        return []
    return [f"{CROWDS}: {count:,} of {total:,} ({count / total:.0%})."]


def are_many(count: int, total: int) -> bool:
    """Whether more are left out, or empty, than in the sets of COCO and VOC, where it is one in a hundred."""
    return count > total / 2 or (count >= LEAST and count >= MANY_OF * total)


def describe(counted: Counter[str], notes: Sequence[str] = ()) -> str:
    """What was counted, and other notes, a line each, for the description of a data set."""
    return "\n".join([f"{what}: {count:,}." for what, count in sorted(counted.items()) if count] + list(notes))


def object_features(names: Sequence[str]) -> Features:
    """``image``, ``mask`` and ``objects`` (lists ``bbox`` [x, y, w, h] in pixels, ``category``, ``iscrowd``)."""
    objects = {
        "bbox": List(List(Value("float32"))),
        "category": List(ClassLabel(names=list(names))),
        "iscrowd": List(Value("int32")),
    }
    return Features(image=Image(), mask=Image(), objects=objects)
