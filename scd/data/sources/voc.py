"""PASCAL VOC's own folders (VOCdevkit) as an image source: boxes of VOC07+12, or segments of VOC12.

Format: M. Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, and its development kits.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import datasets
import numpy as np
from datasets import Dataset, Features, Image
from PIL import Image as PillowImage

from scd.data.cache import cached_folder
from scd.data.sources.instance_maps import drawn, features
from scd.data.sources.source import Source, _hash, _quiet
from scd.errors import DataError, UsageError, unknown

VERSION = "1"
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
TASKS = {"detection": "Main", "segmentation": "Segmentation"}  # folder of ImageSets


def voc_source(
    root: str | Path,
    train: Sequence[str] = ("2007/trainval", "2012/trainval"),
    test: Sequence[str] = ("2007/test",),
    task: str = "detection",
    difficult: bool = True,
) -> Source:
    """VOC's images with their annotations as a source.

    Detection: columns ``image``, ``mask`` and ``objects`` as of :func:`scd.data.sources.coco.coco_source`. Boxes are VOC's with
    1 taken off xmin and ymin, since its pixels count from 1 and both corners belong to the box.
    NOTE: few images of VOC have instance masks, so the map shows filled boxes, larger before smaller: what is measured
    with masks (segments, coverage) is measured with boxes here. A box that smaller ones hide is dropped and counted.

    Segmentation: columns ``image`` and ``mask`` of class ids, 0 = background, 255 = ignored border.

    Args:
        root: the folder with VOC2007 and VOC2012 in it.
        train, test: YEAR/SET of the splits "train" and "test", e.g. "2012/train" and "2012/val" for segmentation.
        task: "detection" or "segmentation".
        difficult: False leaves out objects that are marked as difficult. NOTE: VOC's own test ignores them; here those
            of the test split count unless they are left out.

    Raises:
        UsageError: an unknown task, or a split without a set.
        DataError: a file that is missing or cannot be read, an unknown class or a box without numbers, by file.
    """
    if task not in TASKS:
        raise unknown("task of VOC", task, TASKS)
    if not train or not test:
        raise UsageError("voc_source: name at least one set in train and one in test, as YEAR/SET")
    root = Path(root).expanduser()
    listed = {split: _listed(root, sets, task) for split, sets in (("train", train), ("test", test))}
    boxes = task == "detection"
    read = partial(_objects, difficult=difficult) if boxes else _segments
    rows = {split: [read(root / f"VOC{year}", name) for year, name in ids] for split, ids in listed.items()}
    content = {split: [_content(row) for row in found] for split, found in rows.items()}
    fingerprint = _hash({"format": "voc", "version": VERSION, "task": task, **content})

    def fill(folder: Path) -> None:
        for split, found in rows.items():
            with _quiet():
                (_with_boxes if boxes else _with_segments)(found).save_to_disk(folder / split)

    folder = cached_folder("voc", _hash([fingerprint, str(root.resolve())]), fill)
    return Source(
        name=root.resolve().name,
        version=fingerprint[:8],
        splits={split: datasets.load_from_disk(folder / split) for split in rows},
        fingerprint=fingerprint,
        class_names=CLASSES if boxes else None,
        background_names=None,
        mask_kind="instances" if boxes else "classes",
        description=f"PASCAL VOC for {task}: {', '.join(train)} and {', '.join(test)}",
        foreground=None if boxes else tuple(range(1, len(CLASSES) + 1)),
    )


# ---------------------------------------------------------------- files


def _listed(root: Path, sets: Sequence[str], task: str) -> list[tuple[str, str]]:
    """(year, name of the image) of every line of some sets."""
    found = []
    for each in sets:
        year, separator, name = each.partition("/")
        if not separator:
            raise UsageError(f"voc_source: '{each}' is not of the form YEAR/SET, for example 2007/trainval")
        file = root / f"VOC{year}" / "ImageSets" / TASKS[task] / f"{name}.txt"
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise DataError(f"cannot read the set '{file}': {error.strerror or error}") from error
        found += [(year, line.split()[0]) for line in lines if line.strip()]
    return found


def _image(folder: Path, name: str) -> Path:
    path = folder / "JPEGImages" / f"{name}.jpg"
    if not path.is_file():
        raise DataError(f"the image '{path}' is listed and not there")
    return path


def _segments(folder: Path, name: str) -> dict:
    mask = folder / "SegmentationClass" / f"{name}.png"
    if not mask.is_file():
        raise DataError(f"'{mask}' is missing, the segments of {name}")
    return {"image": _image(folder, name), "mask": mask}


def _objects(folder: Path, name: str, difficult: bool) -> dict:
    """The image of a name and its objects: categories, and boxes [x, y, w, h] in pixels from 0."""
    file = folder / "Annotations" / f"{name}.xml"
    try:
        entries = ElementTree.parse(file).getroot().findall("object")
    except OSError as error:
        raise DataError(f"cannot read the annotations '{file}': {error.strerror or error}") from error
    except ElementTree.ParseError as error:
        raise DataError(f"'{file}' is not XML: {error}") from error
    categories, boxes = [], []
    for number, entry in enumerate(entries):
        label = (entry.findtext("name") or "").strip()
        if label not in CLASSES:
            raise DataError(f"'{file}' object {number}: '{label}' is none of VOC's {len(CLASSES)} classes")
        if not difficult and (entry.findtext("difficult") or "0").strip() == "1":
            continue
        try:
            x0, y0, x1, y1 = (float(entry.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax"))
        except (TypeError, ValueError) as error:
            raise DataError(f"'{file}' object {number}: its bndbox needs xmin, ymin, xmax and ymax") from error
        categories.append(CLASSES.index(label))
        boxes.append([x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1])
    return {"image": _image(folder, name), "categories": categories, "boxes": boxes}


def _content(row: dict) -> list:
    """What a row's identity is made of: files by name and size, objects as they are."""
    return [
        [value.name, value.stat().st_size] if isinstance(value, Path) else value for value in map(row.get, sorted(row))
    ]


# ---------------------------------------------------------------- rows


def _with_boxes(rows: list[dict]) -> Dataset:
    columns: dict[str, list] = {"image": [], "mask": [], "objects": []}
    for row in rows:
        with PillowImage.open(row["image"]) as image:
            width, height = image.size
        n = len(row["boxes"])
        columns["image"].append(str(row["image"].resolve()))
        columns["mask"].append(drawn([_filled(b, height, width) for b in row["boxes"]], [False] * n, height, width))
        columns["objects"].append({"bbox": row["boxes"], "category": row["categories"], "iscrowd": [0] * n})
    return Dataset.from_dict(columns, features=features(CLASSES))


def _filled(box: Sequence[float], height: int, width: int) -> np.ndarray:
    """Pixels (H, W) bool whose centre lies in a box [x, y, w, h]."""
    x, y, w, h = box
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    return ((rows > y) & (rows < y + h))[:, None] & ((columns > x) & (columns < x + w))[None]


def _with_segments(rows: list[dict]) -> Dataset:
    columns = {name: [str(row[name].resolve()) for row in rows] for name in ("image", "mask")}
    return Dataset.from_dict(columns, features=Features(image=Image(), mask=Image()))
