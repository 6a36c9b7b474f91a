"""COCO's own format: instances_*.json beside a folder of images.

Format: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and the data format page of its site.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from scd.data.cache import content_hash, file_hash, file_hashes
from scd.data.decoding import stored_size, upright_size
from scd.data.sources.coco_file import CocoFile, Entry, further_fields, read_coco
from scd.data.sources.example import example_images
from scd.data.sources.instance_maps import (
    BOX_ONLY,
    FEW,
    MANY,
    RECTANGLES,
    check_boxes,
    count_boxes,
    describe,
    draw_instances,
    filled_box,
    negatives,
    object_features,
    percentages,
    upper_left,
)
from scd.data.sources.labels import folded
from scd.data.sources.run_lengths import decode_run_lengths
from scd.data.sources.source import Source, cached_dataset
from scd.data.sources.turned_boxes import is_rectangle
from scd.data.sources.video_folders import in_both
from scd.errors import DataError, UsageError

VERSION = "6"
NOTED = "8"  # version of the notes that are kept with the maps; it changes no identity
AGREES = 2  # pixels by which a box and the extent of its segmentation may differ
NO_AREA = "Objects whose segmentation covers no pixel (points, lines, outside its image), which are left out"
FILLED = "Objects whose segmentation covers its whole image"
WHOLE = "Objects whose box is the whole image"
AREA = 1.5  # factor by which an area may differ from what is drawn
SMALL = 64  # pixels by which it may differ in any case, since pixels on a border are drawn whole
OTHER_AREA = (
    "Objects whose area is given and is neither that of their segmentation nor that of their box, so that one of them "
    "may have another scale, or a hole of it is filled"
)
NO_CLASS = (  # names of categories that are none, as they are folded
    "background", "ignore", "ignored", "ignoredregion", "ignoredregions", "dontcare", "don'tcare", "void", "unlabeled",
    "unlabelled",
)  # fmt: skip
LOOSE = "Objects whose box and segmentation overlap by less than half (IoU of the box with the segmentation's extent)"
TURNED = "Images with an EXIF orientation, whose annotations count as drawn on the upright picture"


class Coco(Source):
    """COCO's images and instance annotations; the instance maps are drawn once and kept in the cache.

    Columns: ``image``; ``mask`` (PNG, 0 = no object, k = k-th entry of ``objects``); ``objects`` with ``bbox``
    ([x, y, w, h] in pixels), ``category`` (contiguous, in the order of COCO's ids) and ``iscrowd``. Images without
    annotations stay, with empty lists. Objects without a segmentation get their filled box as mask. What is left out is
    counted in the notes. Boxes and segmentations belong to the upright picture, see :mod:`scd.data.decoding`.

    Attributes:
        image_fields: split -> name -> the values of a field of the images that is not read, by row.

    NOTE: one map has one object a pixel. Crowds are drawn first, then larger objects before smaller ones, so an object
    in front of a smaller one loses pixels that COCO's overlapping masks would give it.

    Args:
        images, annotations: folder and JSON file of the split "train".
        test_images, test_annotations: the same of the split "test"; both or neither.

    Raises:
        UsageError: only half of the test split is named.
        DataError: a file that is missing or is not such a file, an image that is missing, broken or of another size
            than its annotations, an entry that cannot be used (:mod:`scd.data.sources.coco_file`), by file and entry;
            a split without any object.
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        test_images: str | Path | None = None,
        test_annotations: str | Path | None = None,
    ):
        if (test_images is None) != (test_annotations is None):
            raise UsageError("coco: give test_images and test_annotations together")
        places = {"train": (Path(images).expanduser(), Path(annotations).expanduser())}
        if test_images is not None:
            places["test"] = (Path(test_images).expanduser(), Path(test_annotations).expanduser())
        read = {split: read_coco(*place) for split, place in places.items()}
        names = read["train"].names
        for split, content in read.items():
            check_names(content, names, places["train"][1])
            check_objects(split, content)
        format_ = {"format": "coco", "version": VERSION, "classes": names}
        fingerprints = {
            split: content_hash({**format_, "content": [file_hash(content.file), _contents(content, places[split][0])]})
            for split, content in read.items()
        }
        keys = {
            split: content_hash([fingerprints[split], str(place[0].resolve()), NOTED])
            for split, place in places.items()
        }
        name = places["train"][0].resolve().name
        splits = {
            split: cached_dataset("coco", key, partial(draw_coco, read[split], names)) for split, key in keys.items()
        }
        super().__init__(
            name,
            splits,
            fingerprints,
            class_names=names,
            mask_kind="instances",
            description=f"images of {name} with COCO's instance annotations",
            notes=[
                f"{split}: {note}"
                for split, content in read.items()
                for note in (*content.notes, *splits[split].info.description.splitlines())
            ]
            + names_alike(read, names)
            + background_category(read)
            + videos_in_both(read, places),
        )
        self.image_fields = {split: further_fields(content) for split, content in read.items()}

    @classmethod
    def example(cls, folder: Path) -> "Coco":
        for split, count, first in (("train", 8, 0), ("test", 4, 8)):
            (folder / split).mkdir()
            images, masks, labels = example_images(count, first)
            content: dict = {"images": [], "annotations": [], "categories": []}
            content["categories"] = [{"id": 7, "name": "light"}, {"id": 3, "name": "dark"}]
            for number, (image, mask, label) in enumerate(zip(images, masks, labels, strict=True)):
                Image.fromarray(image).save(folder / split / f"{number}.png")
                height, width = mask.shape
                content["images"].append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
                y, x = (axis.tolist() for axis in np.nonzero(mask))
                x0, y0, x1, y1 = min(x), min(y), max(x) + 1, max(y) + 1
                content["annotations"].append(
                    {
                        "id": 100 + number,
                        "image_id": number,
                        "category_id": (3, 7)[label],
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                        "iscrowd": 0,
                    }
                )
            (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
        return cls(folder / "train", folder / "train.json", folder / "test", folder / "test.json")


def check_names(content: CocoFile, names: Sequence[str], train: Path) -> None:
    """Raise DataError if objects of a split have a category that the training split does not name."""
    used = {entry.category: entry.label for image in content.images for entry in image.entries}
    for category, label in used.items():
        if category not in names:
            raise DataError(
                f"the categories of '{train}' and '{content.file}' differ: {label} is of the category '{category}', "
                "which only the second has"
            )


def names_alike(read: Mapping[str, CocoFile], names: Sequence[str]) -> list[str]:
    """A note on categories whose names differ in capitals, spaces or hyphens alone, if objects have both."""
    used = {entry.category for content in read.values() for image in content.images for entry in image.entries}
    groups = defaultdict(list)
    for name in names:
        if name in used:
            groups[folded(name)].append(f"'{name}'")
    listed = [" and ".join(group) for group in groups.values() if len(group) > 1]
    return [f"Categories that are almost alike: {', '.join(listed)}."] if listed else []


def background_category(read: Mapping[str, CocoFile]) -> list[str]:
    """Notes on objects of a category that is called background, or ignored: they count as objects of a class."""
    entries = [entry.category for content in read.values() for image in content.images for entry in image.entries]
    return [
        f"Objects of the category '{name}', which count as objects of a class: {count:,}."
        for name, count in Counter(entries).items()
        if folded(name).strip("_") in NO_CLASS
    ]


def videos_in_both(read: Mapping[str, CocoFile], places: Mapping[str, tuple[Path, Path]]) -> list[str]:
    """A note where the images of both splits are frames of the same videos, by their folders inside of the split's."""
    if "test" not in read:
        return []
    paths = [[Path(name) for name in _names(read[split], places[split][0])] for split in ("train", "test")]
    return in_both(*paths)


def check_objects(split: str, content: CocoFile) -> None:
    """Raise DataError for a split without any object: nothing could be learned from it, or scored on it."""
    crowds = [entry.crowd for image in content.images for entry in image.entries]
    if not crowds:
        raise DataError(
            f"'{split}' of '{content.file}' holds no object, its list of annotations is empty; check the file, or give "
            "data=FOLDER for images alone"
        )
    if all(crowds):
        raise DataError(
            f"'{split}' of '{content.file}' holds no object that is not a crowd: all of its {len(crowds):,} "
            "annotations have iscrowd=1, and crowds are not scored; set iscrowd to 0 for single objects"
        )


def draw_coco(content: CocoFile, names: Sequence[str]) -> Dataset:
    """Images, instance maps and objects; what was not drawn as it stands is described by the data set's description.

    Raises:
        DataError: an image, box or segmentation that cannot be used, by file and entry.
    """
    number = {name: k for k, name in enumerate(names)}
    columns: dict[str, list] = {"image": [], "mask": [], "objects": []}
    counted: Counter[str] = Counter()
    boxes = BoxMeaning(str(content.file))
    sizes, whole, rectangles = [], 0, 0
    for image in content.images:
        width, height = upright_size(image.path, image.size)
        sizes.append((width, height))
        counted[TURNED] += stored_size(image.path)[1] != 1
        masks = [draw_entry(entry, height, width, content.file, counted) for entry in image.entries]
        for entry, mask in zip(image.entries, masks, strict=True):
            boxes.add(entry, mask)
            if entry.segmentation:
                counted[NO_AREA] += not mask.any()
                counted[FILLED] += bool(mask.all())
                rectangles += is_rectangle(entry.segmentation)
            else:
                whole += bool(mask.all())
        count_boxes([entry.bbox for entry in image.entries], height, width, counted)
        crowd = [entry.crowd for entry in image.entries]
        columns["image"].append(str(image.path.resolve()))
        columns["mask"].append(draw_instances(masks, crowd, height, width))
        columns["objects"].append(
            {
                "bbox": [entry.bbox for entry in image.entries],
                "category": [number[entry.category] for entry in image.entries],
                "iscrowd": [int(one) for one in crowd],
            }
        )
    boxes.check()
    counted[LOOSE] = boxes.apart
    counted[RECTANGLES] = rectangles if 2 * rectangles > max(MANY, boxes.compared) else 0
    counted[WHOLE] = whole if 2 * whole > len(boxes.boxes) else 0
    counted[OTHER_AREA] = boxes.other_area if boxes.other_area >= max(FEW, 0.1 * len(boxes.boxes)) else 0
    check_boxes(counted, len(boxes.boxes), f"'{content.file}'", "x, y, width, height")
    drawn = any(entry.segmentation for image in content.images for entry in image.entries)
    notes = [] if drawn else percentages(boxes.boxes, sizes)
    notes = notes or upper_left(boxes.boxes, boxes.sizes)
    notes += negatives([len(image.entries) for image in content.images])
    dataset = Dataset.from_dict(columns, features=object_features(names))
    dataset.info.description = describe(counted, notes)
    return dataset


def draw_entry(entry: Entry, height: int, width: int, file: Path, counted: Counter[str]) -> np.ndarray:
    """One annotation's pixels (H, W) bool: polygons, run lengths, or without either its filled box.

    Raises:
        DataError: a segmentation that cannot be drawn, by file and entry.
    """
    shape = entry.segmentation
    if not shape:
        counted[BOX_ONLY] += 1
        return filled_box(entry.bbox, height, width)
    try:
        if isinstance(shape, dict):
            return decode_run_lengths(shape, height, width)
        drawn = polygons(shape, height, width)
        if not drawn:
            return np.zeros((height, width), bool)
        runs = coco_mask.merge(coco_mask.frPyObjects(drawn, height, width))
        return coco_mask.decode(runs).astype(bool)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"'{file}' {entry.label}: its segmentation cannot be drawn ({error})") from error


def polygons(shape: object, height: int, width: int) -> list[list[float]]:
    """Polygons of at least three corners as x, y, x, y, ...; also of one flat list, and of lists of corners.

    Raises:
        ValueError: something else than finite numbers in pairs, or a corner far outside the image.
    """
    if not isinstance(shape, list):
        raise ValueError(f"it is {type(shape).__name__}, not polygons or run lengths")
    if not any(isinstance(part, list) for part in shape):
        shape = [shape]
    elif len(shape) >= 3 and all(isinstance(part, list) and len(part) == 2 for part in shape):
        shape = [shape]  # corners of one polygon
    found = []
    for polygon in shape:
        try:
            corners = np.asarray(polygon)
        except ValueError as error:
            raise ValueError("a polygon is no list of numbers") from error
        corners = corners.reshape(-1) if corners.ndim == 2 and corners.shape[1] == 2 else corners
        if corners.ndim != 1 or (len(corners) and corners.dtype.kind not in "iuf"):
            raise ValueError("a polygon is no list of numbers")
        if len(corners) % 2:
            raise ValueError(f"a polygon has {len(corners)} numbers, they are pairs of x and y")
        x, y = corners.reshape(-1, 2).T.astype(float)
        inside = (np.abs(x - width / 2) <= 1.5 * width) & (np.abs(y - height / 2) <= 1.5 * height)
        if not inside.all():  # also NaN
            k = int(np.argmin(inside))
            raise ValueError(f"the corner ({x[k]:g}, {y[k]:g}) does not lie in or near the image")
        corners = corners.astype(float)
        if len(x) and corners.max() <= 1 < min(width, height) and (corners % 1 > 0).any():
            raise ValueError("its corners are shares of the image; COCO's are in pixels")
        if len(x) >= 3:
            found.append(corners.tolist())
    return found


@dataclass
class BoxMeaning:
    """Finds boxes that are not x, y, width and height in pixels, from all boxes of a file.

    They are corners if more boxes agree with the extent of their segmentation so, or if as x, y, width, height some
    leave the image and as corners none does. They are centre, width and height by the same two signs, the second of
    them in files of 20 boxes or more. They are y, x, height and width if some leave the image as they stand and none
    does so, in files of 20 or more. They are shares of the image if none is larger than a pixel. Boxes and
    segmentations of which most overlap by less than half do not belong together.
    """

    file: str
    boxes: list[list[float]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    as_sides: int = 0
    as_corners: int = 0
    as_centre: int = 0
    compared: int = 0
    apart: int = 0
    other_area: int = 0

    def add(self, entry: Entry, mask: np.ndarray) -> None:
        self.boxes.append(entry.bbox)
        self.sizes.append(mask.shape[::-1])
        if entry.area is not None and not entry.crowd:
            shown = (float(mask.sum()), entry.bbox[2] * entry.bbox[3])
            self.other_area += not any(is_near(entry.area, one) for one in shown)
        if entry.segmentation and not entry.crowd and mask.any():
            y, x = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
            extent = np.array([x[0], y[0], x[-1] + 1, y[-1] + 1])
            x0, y0, third, fourth = entry.bbox
            sides = np.abs(extent - [x0, y0, x0 + third, y0 + fourth]).max() <= AGREES
            corners = np.abs(extent - entry.bbox).max() <= AGREES
            half = np.array([third, fourth]) / 2
            centre = np.abs(extent - [*([x0, y0] - half), *([x0, y0] + half)]).max() <= AGREES
            self.as_sides += sides and not corners and not centre
            self.as_corners += corners and not sides
            self.as_centre += centre and not sides
            self.compared += 1
            self.apart += not sides and overlap(entry.bbox, extent) < 0.5

    def check(self) -> None:
        """Raise DataError for a file whose boxes mean something else."""
        if not self.boxes:
            return
        boxes, sizes = np.array(self.boxes), np.array(self.sizes)
        ends = boxes[:, :2] + boxes[:, 2:]
        if (ends <= 1).all() and (boxes >= 0).all() and (boxes % 1 > 0).any():
            raise DataError(f"'{self.file}': its boxes are shares of the image; COCO's are in pixels")
        ordered = (boxes[:, 2:] > boxes[:, :2]).all() and (boxes[:, 2:] <= sizes + 1).all()
        outside = (ends > sizes + AGREES).any()
        if self.as_corners > self.as_sides or (ordered and outside and not self.as_sides):
            raise DataError(f"'{self.file}': its boxes are x0, y0, x1, y1; COCO's are x, y, width, height")
        centres, half = boxes[:, :2], boxes[:, 2:] / 2
        centred = (centres >= half - 1).all() and (centres + half <= sizes + 1).all() and len(boxes) >= MANY
        if self.as_centre > self.as_sides or (centred and outside and not self.as_sides):
            raise DataError(
                f"'{self.file}': its boxes are centre, width, height; COCO's are x, y, width, height, from the left "
                "upper corner"
            )
        exchanged = (boxes[:, 1::-1] + boxes[:, :1:-1] <= sizes + AGREES).all() and len(boxes) >= MANY
        if exchanged and outside and not self.as_sides:
            raise DataError(
                f"'{self.file}': its boxes fit into their images as y, x, height, width alone; COCO's are x, y, width, "
                "height"
            )
        if self.apart > self.compared / 2:
            raise DataError(
                f"'{self.file}': {self.apart:,} of {self.compared:,} boxes overlap by less than half with their "
                "segmentation; one of the two has another scale, is mirrored, has x and y exchanged, or shows other "
                "objects"
            )


def is_near(area: float, other: float) -> bool:
    """Whether two areas in pixels are about the same."""
    return abs(area - other) <= SMALL or other / AREA <= area <= other * AREA


def overlap(box: Sequence[float], extent: np.ndarray) -> float:
    """Intersection over union of a box x, y, width, height and an extent x0, y0, x1, y1."""
    x, y, width, height = box
    across = min(x + width, extent[2]) - max(x, extent[0])
    down = min(y + height, extent[3]) - max(y, extent[1])
    both = max(across, 0) * max(down, 0)
    sides = extent[2:] - extent[:2]
    return float(both / (max(width, 0) * max(height, 0) + sides[0] * sides[1] - both))


def _contents(content: CocoFile, folder: Path) -> list:
    """What identifies the images: their names, those in the folder with their place in it, and their contents."""
    paths = [image.path for image in content.images]
    return sorted(zip(_names(content, folder), file_hashes(paths), strict=True))


def _names(content: CocoFile, folder: Path) -> list[str]:
    """The place of each image in the folder, or its name where it lies elsewhere."""
    paths = [image.path for image in content.images]
    return [path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name for path in paths]
