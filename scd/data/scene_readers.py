"""How the records of a set become scenes: one reader for each way to store objects and segments.

    SegmentReader    a mask of class ids; no objects
    ObjectReader     an instance map and ``objects`` with boxes and categories (COCO's); segments follow from them
    GeneratedReader  the same with a semantic map of things and stuff (the generator ``scenes``)

Entries that cannot be used are dropped and counted, as COCO's tools do with crowds; contradictions raise, by row.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from datasets import ClassLabel, Dataset
from PIL import Image
from scipy import ndimage

from scd.data.decoding import picture
from scd.data.images import check_size, square
from scd.data.masks import read_mask
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError

IGNORED = 255  # in semantic maps
AGREES = 2  # pixels by which a box and the extent of its object in the map may differ
SLACK = 0.01  # pixels by which a box may leave the image, because of rounding


@dataclass
class Objects:
    """Objects of one image: boxes x0, y0, x1, y1 in pixels (n, 4), classes (n,), number in the instance map (n,)."""

    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    classes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def reader_of(source: Source, dataset: Dataset, ignore: Sequence[int], segment_names: Sequence[str] | None) -> "Reader":
    """The reader for this kind of set. Raises UsageError for a set without scenes."""
    columns = dataset.column_names
    generated = {"instances", "semantic"} <= set(columns)
    if "objects" in columns and (generated or source.mask_kind == "instances"):
        if segment_names is not None:
            raise UsageError(f"'{source.name}' names its segments itself; leave segment_names out")
        kind = GeneratedReader if generated else ObjectReader
        reader = kind(source, ignore, _class_names(source, dataset))
        if len(reader.names_of_segments()) > IGNORED:
            raise UsageError(f"'{source.name}' has {len(reader.names_of_segments())} segments, {IGNORED} at most")
        return reader
    if source.mask_kind == "classes":
        return SegmentReader(source, ignore, segment_names)
    what = f"its columns: {', '.join(columns)}, masks: {source.mask_kind}"
    raise UsageError(f"'{source.name}' has neither objects with an instance map nor a mask of class ids; {what}")


def _class_names(source: Source, dataset: Dataset) -> tuple[str, ...]:
    objects = dataset.features["objects"]
    fields = objects if isinstance(objects, dict) else getattr(objects, "feature", None)  # lists, or a list of dicts
    if not isinstance(fields, dict) or not {"bbox", "category"} <= set(fields):
        raise DataError(f"'{source.name}': column 'objects' holds {objects}, it needs bbox and category")
    category = getattr(fields["category"], "feature", fields["category"])
    own = None if "label" in dataset.column_names else source.class_names  # those of labels are of whole images
    names = category.names if isinstance(category, ClassLabel) else own
    if not names:
        raise DataError(f"'{source.name}': the categories of its objects have no names (a ClassLabel)")
    return tuple(names)


class Reader(ABC):
    """Reads one record of a set; subclasses define where objects and segments come from."""

    def __init__(self, source: Source, ignore: Sequence[int], class_names: tuple[str, ...] = ()):
        self.source = source
        self.ignore = tuple(ignore)
        self.class_names = class_names
        self.dropped: Counter[str] = Counter()

    @abstractmethod
    def names_of_segments(self) -> tuple[str, ...]:
        """Names of the segment ids; those of a mask of class ids are known only for the records read so far."""

    def ids(self, record: dict, column: str, row: int, whole: Image.Image, size: int) -> tuple[np.ndarray, np.ndarray]:
        """A map of ids, (H, W) as in the file and (S, S) on the canvas."""
        what = f"{self.at(row)}: the {column}"
        values = read_mask(record[column], column, row, self.source.name, "instances")
        check_size(values, whole, what)
        if values.max() > np.iinfo(np.int32).max:
            raise DataError(f"{what} holds the number {values.max()}, which is too large for an id")
        canvas = square(Image.fromarray(values.astype(np.int32)), size, Image.Resampling.NEAREST)
        return values, np.asarray(canvas, np.int64)

    def at(self, row: int) -> str:
        return f"'{self.source.name}' row {row}"

    def scene(self, record: dict, row: int, size: int):
        """Image (3, S, S), semantic (S, S), instances (n, S, S) and the objects on the canvas."""
        whole = picture(record["image"], row, self.source.name)
        image = np.asarray(square(whole, size, Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        semantic, masks, objects = self.parts(record, row, whole, size)
        for number in self.ignore:
            semantic[semantic == number] = IGNORED
        return image, semantic.astype(np.uint8), masks, objects

    @abstractmethod
    def parts(self, record: dict, row: int, whole: Image.Image, size: int):
        """Semantic (S, S) int64, instances (n, S, S) bool and the objects on the canvas."""


class SegmentReader(Reader):
    """Sets whose mask holds class ids; no objects."""

    def __init__(self, source: Source, ignore: Sequence[int], names: Sequence[str] | None):
        super().__init__(source, ignore)
        self.names, self.largest = names, -1

    def names_of_segments(self) -> tuple[str, ...]:
        return tuple(self.names) if self.names is not None else tuple(f"class {k}" for k in range(self.largest + 1))

    def parts(self, record: dict, row: int, whole: Image.Image, size: int):
        values, semantic = self.ids(record, "mask", row, whole, size)
        used = np.setdiff1d(values, (*self.ignore, IGNORED))
        last = IGNORED - 1 if self.names is None else len(self.names) - 1
        wrong = used[(used < 0) | (used > last)]
        if len(wrong):
            raise DataError(f"{self.at(row)}: the mask holds the class {wrong[0]}, it must lie in 0 to {last}")
        self.largest = max(self.largest, *used.tolist(), -1)
        return semantic.copy(), np.zeros((0, size, size), bool), Objects()


class ObjectReader(Reader):
    """COCO-like sets: the instance map assigns pixels to the entries of ``objects``; segments follow from these."""

    column = "mask"

    def names_of_segments(self) -> tuple[str, ...]:
        return ("background", *self.class_names)

    def parts(self, record: dict, row: int, whole: Image.Image, size: int):
        values, numbers = self.ids(record, self.column, row, whole, size)
        categories, crowd, boxes = self.entries(record["objects"], row, values)
        lookup = np.concatenate([[0], np.where(crowd, IGNORED, categories + 1)])  # segment by object number
        objects = self.kept(row, values, categories, crowd, boxes, whole.size)
        left, top = (side / 2 - min(whole.size) / 2 for side in whole.size)
        moved = (objects.boxes - np.array([left, top, left, top])) * (size / min(whole.size))
        objects.boxes = moved.clip(0, size).astype(np.float32)
        masks = numbers == objects.numbers[:, None, None]
        visible = masks.any(axis=(1, 2)) & (objects.boxes[:, 2:] > objects.boxes[:, :2]).all(axis=1)
        self.count("off canvas", ~visible)
        self.count("image without objects", [not visible.any()])
        objects = Objects(objects.boxes[visible], objects.classes[visible], objects.numbers[visible])
        return self.segments(record, row, whole, size, lookup[numbers]), masks[visible], objects

    def segments(self, record: dict, row: int, whole: Image.Image, size: int, of_objects: np.ndarray) -> np.ndarray:
        """The semantic map on the canvas, given that of the objects."""
        return of_objects

    def entries(self, objects, row: int, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Categories (n,), crowd (n,) bool and boxes x, y, w, h (n, 4) of a row, checked against the map."""
        if objects is None or isinstance(objects, list):
            objects = objects or []
            objects = {key: [entry.get(key, 0) for entry in objects] for key in ("bbox", "category", "iscrowd")}
        if None in objects["category"]:
            raise DataError(f"{self.at(row)} object {objects['category'].index(None)}: it has no category")
        categories = np.array(objects["category"], np.int64)
        n = len(categories)
        crowd = np.array(objects.get("iscrowd", [0] * n), bool)
        if len(objects["bbox"]) != n or len(crowd) != n:
            raise DataError(f"{self.at(row)}: {n} categories, {len(objects['bbox'])} boxes and {len(crowd)} iscrowd")
        for k, (box, category) in enumerate(zip(objects["bbox"], categories, strict=True)):
            if box is None or len(box) != 4 or None in box or not np.isfinite(box).all():
                raise DataError(f"{self.at(row)} object {k}: the box is {box}, it needs four finite numbers")
            if not 0 <= category < len(self.class_names):
                last = len(self.class_names) - 1
                raise DataError(f"{self.at(row)} object {k}: the category is {category}, it must lie in 0 to {last}")
        if not 0 <= values.min() <= values.max() <= n:
            wrong = values.max() if values.max() > n else values.min()
            raise DataError(f"{self.at(row)}: the {self.column} shows object number {wrong}, the row lists {n} objects")
        return categories, crowd, np.array(objects["bbox"], np.float64).reshape(n, 4)

    def kept(self, row: int, values, categories, crowd, boxes, whole: tuple[int, int]) -> Objects:
        """The objects that are used, with boxes x0, y0, x1, y1 inside the whole image; the others are counted."""
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        inside = corners.clip(0, np.array([*whole, *whole]))
        empty = (boxes[:, 2:] <= 0).any(axis=1) | (inside[:, 2:] <= inside[:, :2]).any(axis=1)
        numbers = np.arange(1, len(boxes) + 1)
        hidden = np.bincount(values.ravel(), minlength=len(boxes) + 1)[1:] == 0
        for k in np.nonzero(~crowd & ~empty & ~hidden)[0]:
            (x0, y0), (x1, y1) = np.floor(inside[k, :2]).astype(int), np.ceil(inside[k, 2:]).astype(int)
            if not (values[y0:y1, x0:x1] == k + 1).any():
                raise DataError(f"{self.at(row)} object {k}: none of its pixels in the {self.column} lie in its box")
        use = ~crowd & ~empty & ~hidden
        self.check_meaning(row, values, boxes, use)
        self.count("crowd", crowd)
        self.count("empty box", ~crowd & empty)
        self.count("hidden", ~crowd & ~empty & hidden)
        self.count("clipped box", use & (np.abs(corners - inside) > SLACK).any(axis=1))
        return Objects(inside[use], categories[use], numbers[use])

    def check_meaning(self, row: int, values: np.ndarray, boxes: np.ndarray, use: np.ndarray) -> None:
        """Raise DataError if the boxes of a row fit its map as x0, y0, x1, y1 and none fits as x, y, w, h."""
        as_sides = as_corners = False
        for k, found in enumerate(ndimage.find_objects(values, max_label=len(boxes))):
            if use[k]:
                y, x = found
                extent = np.array([x.start, y.start, x.stop, y.stop])
                as_sides |= np.abs(extent - [*boxes[k, :2], *boxes[k, :2] + boxes[k, 2:]]).max() <= AGREES
                as_corners |= np.abs(extent - boxes[k]).max() <= AGREES
        if as_corners and not as_sides:
            raise DataError(f"{self.at(row)}: its boxes are x0, y0, x1, y1; they must be x, y, width, height")

    def count(self, reason: str, which) -> None:
        if np.any(which):
            self.dropped[reason] += int(np.sum(which))


class GeneratedReader(ObjectReader):
    """Sets with an instance map and a semantic map of things and stuff (the generator ``scenes``)."""

    column = "instances"

    def names_of_segments(self) -> tuple[str, ...]:
        return (*self.class_names, *(self.source.background_names or ()))

    def segments(self, record: dict, row: int, whole: Image.Image, size: int, of_objects: np.ndarray) -> np.ndarray:
        semantic = self.ids(record, "semantic", row, whole, size)[1].copy()
        last = len(self.names_of_segments()) - 1
        if semantic[semantic != IGNORED].max(initial=0) > last:
            raise DataError(f"{self.at(row)}: the semantic map holds {semantic.max()}, the last segment is {last}")
        things = (of_objects > 0) & (of_objects != IGNORED)
        if (semantic[things] != of_objects[things] - 1).any():
            raise DataError(f"{self.at(row)}: the semantic map does not show the classes of its instances")
        semantic[of_objects == IGNORED] = IGNORED
        return semantic
