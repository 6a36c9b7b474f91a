"""COCO's own format: instances_*.json beside a folder of images.

Format: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and the data format page of its site.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from scd.data.cache import content_hash, file_hash
from scd.data.sources.example import example_images
from scd.data.sources.instance_maps import draw_instances, object_features
from scd.data.sources.source import Source, cached_dataset
from scd.errors import DataError, UsageError

VERSION = "1"


class Coco(Source):
    """COCO's images and instance annotations; the instance maps are drawn once and kept in the cache.

    Columns: ``image``; ``mask`` (PNG, 0 = no object, k = k-th entry of ``objects``); ``objects`` with ``bbox``
    ([x, y, w, h] in pixels), ``category`` (contiguous, in the order of COCO's ids) and ``iscrowd``. Images without
    annotations stay, with empty lists; files that the annotations do not list are ignored.

    NOTE: one map has one object a pixel. Crowds are drawn first, then larger objects before smaller ones, so an object
    in front of a smaller one loses pixels that COCO's overlapping masks would give it.

    Args:
        images, annotations: folder and JSON file of the split "train".
        test_images, test_annotations: the same of the split "test"; both or neither.

    Raises:
        UsageError: only half of the test split is named.
        DataError: a file that is missing or is not such a file, an image that is missing, an annotation of an unknown
            image or category.
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
        read = {split: _read(*place) for split, place in places.items()}
        names = {split: _names(content) for split, content in read.items()}
        if len(set(names.values())) > 1:
            raise DataError(f"the categories of '{places['train'][1]}' and '{places['test'][1]}' differ")
        format_ = {"format": "coco", "version": VERSION}
        fingerprints = {
            split: content_hash({**format_, "content": [file_hash(file), _sizes(read[split]["images"])]})
            for split, (_, file) in places.items()
        }
        keys = {split: content_hash([fingerprints[split], str(place[0].resolve())]) for split, place in places.items()}
        name = places["train"][0].resolve().name
        super().__init__(
            name,
            {
                split: cached_dataset("coco", key, partial(_dataset, read[split], places[split][1]))
                for split, key in keys.items()
            },
            fingerprints,
            class_names=names["train"],
            mask_kind="instances",
            description=f"images of {name} with COCO's instance annotations",
        )

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


def _names(content: dict) -> tuple[str, ...]:
    return tuple(name for _, name in sorted(content["categories"].items()))


def _dataset(content: dict, file: Path) -> Dataset:
    number = {category: k for k, category in enumerate(sorted(content["categories"]))}
    columns: dict[str, list] = {"image": [], "mask": [], "objects": []}
    for identity, image in content["images"].items():
        entries = content["annotations"][identity]
        crowd = [int(entry.get("iscrowd", 0)) for entry in entries]
        height, width = image["height"], image["width"]
        masks = [_mask(entry, height, width, file) for entry in entries]
        columns["image"].append(str(image["path"].resolve()))
        columns["mask"].append(draw_instances(masks, crowd, height, width))
        columns["objects"].append(
            {
                "bbox": [entry["bbox"] for entry in entries],
                "category": [number[entry["category_id"]] for entry in entries],
                "iscrowd": crowd,
            }
        )
    return Dataset.from_dict(columns, features=object_features(_names(content)))


def _mask(entry: dict, height: int, width: int, file: Path) -> np.ndarray:
    """One annotation's pixels (H, W) bool: polygons, or run lengths, compressed or not.

    A polygon of fewer than three corners is empty.
    """
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
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"'{file}' annotation {entry['id']}: its segmentation cannot be drawn ({error})") from error
