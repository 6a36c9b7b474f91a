"""COCO's own format (instances_*.json beside a folder of images) as an image source with instance maps.

Format: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and the data format page of its site.
"""

import json
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset

from scd.data.cache import cached_folder
from scd.data.sources.files import sha256_of
from scd.data.sources.instance_maps import drawn, features
from scd.data.sources.source import Source, _hash, _quiet
from scd.errors import DataError, UsageError

VERSION = "1"


def coco_source(
    images: str | Path,
    annotations: str | Path,
    test_images: str | Path | None = None,
    test_annotations: str | Path | None = None,
) -> Source:
    """COCO's images and instance annotations as a source; the instance maps are drawn once and kept in the cache.

    Columns: ``image``; ``mask`` (PNG, 0 = no object, k = k-th entry of ``objects``); ``objects`` with ``bbox``
    ([x, y, w, h] in pixels), ``category`` (contiguous, in the order of COCO's ids) and ``iscrowd``. Images without
    annotations stay, with empty lists; files that the annotations do not list are left alone.

    NOTE: one map has one object a pixel. Crowds are drawn first, then larger objects before smaller ones, so an object
    in front of a smaller one loses pixels that COCO's overlapping masks would give it.

    Args:
        images, annotations: folder and JSON file of the split "train".
        test_images, test_annotations: the same of the split "test"; both or neither.

    Raises:
        UsageError: pycocotools is not installed, or only half of the test split is named.
        DataError: a file that is missing or is not such a file, an image that is missing, an annotation of an unknown
            image or category.
    """
    if (test_images is None) != (test_annotations is None):
        raise UsageError("coco_source: give test_images and test_annotations together")
    places = {"train": (Path(images).expanduser(), Path(annotations).expanduser())}
    if test_images is not None:
        places["test"] = (Path(test_images).expanduser(), Path(test_annotations).expanduser())
    read = {split: _read(*place) for split, place in places.items()}
    names = {split: tuple(name for _, name in sorted(content["categories"].items())) for split, content in read.items()}
    if len(set(names.values())) > 1:
        raise DataError(f"the categories of '{places['train'][1]}' and '{places['test'][1]}' differ")
    content = {split: [sha256_of(file), _sizes(read[split]["images"])] for split, (_, file) in places.items()}
    fingerprint = _hash({"format": "coco", "version": VERSION, **content})

    def fill(folder: Path) -> None:
        for split, (_, file) in places.items():
            with _quiet():
                _dataset(read[split], file, names["train"]).save_to_disk(folder / split)

    where = _hash([fingerprint, {split: str(folder.resolve()) for split, (folder, _) in places.items()}])
    folder = cached_folder("coco", where, fill)
    return Source(
        name=places["train"][0].resolve().name,
        version=fingerprint[:8],
        splits={split: datasets.load_from_disk(folder / split) for split in places},
        fingerprint=fingerprint,
        class_names=names["train"],
        background_names=None,
        mask_kind="instances",
        description=f"images of {places['train'][0].resolve().name} with COCO's instance annotations",
    )


def _read(folder: Path, file: Path) -> dict:
    """Images by id, annotations by image id and category names by id, each checked against the others."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the annotations '{file}': {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"'{file}' is not JSON: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _KEYS):
        raise DataError(f"'{file}' is not COCO's instances format, it needs the lists {', '.join(_KEYS)}")
    if not content["images"]:
        raise DataError(f"'{file}' lists no images")
    for kind, needed in _KEYS.items():
        for number, entry in enumerate(content[kind]):
            missing = [key for key in needed if key not in entry]
            if missing:
                raise DataError(f"'{file}' {kind}[{number}] (id {entry.get('id')}) has no {missing[0]}")
    images = {image["id"]: {**image, "path": folder / image["file_name"]} for image in content["images"]}
    if len(images) < len(content["images"]):
        raise DataError(f"'{file}' lists {len(content['images'])} images, but only {len(images)} ids")
    for image in images.values():
        if not image["path"].is_file():
            raise DataError(f"'{file}' lists the image {image['file_name']}, which is not in '{folder}'")
    categories = {category["id"]: category["name"] for category in content["categories"]}
    by_image = {number: [] for number in images}
    for entry in content["annotations"]:
        if entry["image_id"] not in images:
            raise DataError(f"'{file}' annotation {entry['id']}: there is no image {entry['image_id']}")
        if entry["category_id"] not in categories:
            raise DataError(f"'{file}' annotation {entry['id']}: there is no category {entry['category_id']}")
        by_image[entry["image_id"]].append(entry)
    return {"images": images, "annotations": by_image, "categories": categories}


_KEYS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "segmentation"),
    "categories": ("id", "name"),
}


def _sizes(images: dict) -> list:
    return sorted((image["file_name"], image["path"].stat().st_size) for image in images.values())


def _dataset(content: dict, file: Path, names: tuple[str, ...]) -> Dataset:
    number = {category: k for k, category in enumerate(sorted(content["categories"]))}
    columns: dict[str, list] = {"image": [], "mask": [], "objects": []}
    for identity, image in content["images"].items():
        entries = content["annotations"][identity]
        columns["image"].append(str(image["path"].resolve()))
        columns["mask"].append(_map(entries, image["height"], image["width"], file))
        columns["objects"].append(
            {
                "bbox": [entry["bbox"] for entry in entries],
                "category": [number[entry["category_id"]] for entry in entries],
                "iscrowd": [int(entry.get("iscrowd", 0)) for entry in entries],
            }
        )
    return Dataset.from_dict(columns, features=features(names))


def _map(entries: list[dict], height: int, width: int, file: Path) -> dict:
    masks = [_mask(entry, height, width, file) for entry in entries]
    return drawn(masks, [bool(entry.get("iscrowd", 0)) for entry in entries], height, width)


def _mask(entry: dict, height: int, width: int, file: Path) -> np.ndarray:
    """One annotation's pixels (H, W) bool: polygons, or run lengths, compressed or not. Fewer than three corners make
    no polygon."""
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise UsageError("COCO's masks need pycocotools: pip install pycocotools") from error
    shape = entry["segmentation"]
    try:
        if isinstance(shape, dict):
            if list(shape["size"]) != [height, width]:
                raise ValueError(f"its size is {shape['size']}, the image's {[height, width]}")
            runs = coco_mask.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
        else:
            polygons = [polygon for polygon in shape if len(polygon) >= 6]
            if not polygons:
                return np.zeros((height, width), bool)
            runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        return coco_mask.decode(runs).astype(bool)
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"'{file}' annotation {entry['id']}: its segmentation cannot be drawn ({error})") from error
