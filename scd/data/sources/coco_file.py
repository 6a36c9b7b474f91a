"""COCO's annotation file: images, categories and annotations, checked against each other.

What other tools write differently is accepted where it has one meaning: ids as numbers, text or both; sizes as floats
or left out; file names with backslashes, URL escapes or the folder of another place; a crowd flag that is missing,
null, true or text; a category that repeats the name of another one and has no objects; an entry that is there twice;
segmentations without any number, or all of a file that are the two corners of their box, which count as none.
Everything else is named.

Objects that are annotated twice count once. pycocotools would count both, so that one of them is always missed.
Objects with two categories count as two, and are noted.
"""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from PIL import Image

from scd.data.sources.coco_marks import notes_on_fields, notes_on_marks, notes_on_open_categories, notes_on_stuff
from scd.data.sources.coco_others import other_format
from scd.data.sources.folder_scan import printable
from scd.data.sources.instance_maps import crowds
from scd.data.sources.turned_boxes import TURNED_BOXES, is_turned_by
from scd.errors import DataError

TWO_CATEGORIES = "Objects that are annotated with two categories"
SHARED_IDS = "Annotations whose id another one has, each of which counts as an object, also if they are parts of one"
CORNER = 1  # pixels by which a corner in a segmentation may differ from the box's
OF_IMAGES = {"id", "file_name", "width", "height"}  # fields of an image that are read
KEYS = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id", "bbox"), "categories": ("id", "name")}


@dataclass
class CocoImage:
    """An image: its file, width and height where the annotations give them, its annotations, and further fields."""

    path: Path
    size: tuple[int, int] | None
    entries: list["Entry"] = field(default_factory=list)
    further: dict[str, str] = field(default_factory=dict)


@dataclass
class Entry:
    """An annotation: what it is called in messages, its category's name, box [x, y, w, h], shape and crowd flag.

    ``turned``: its box has a rotation, and no segmentation shows it. ``area``: in pixels, as the file says.
    """

    label: str
    category: str
    bbox: list[float]
    segmentation: Any
    crowd: bool
    turned: bool = False
    area: float | None = None


@dataclass
class CocoFile:
    """Images in the file's order, names of the categories in the order of their ids, and what is not used."""

    file: Path
    images: list[CocoImage]
    names: tuple[str, ...]
    notes: list[str]


def read_coco(folder: Path, file: Path) -> CocoFile:
    """The content of an annotation file.

    Args:
        folder: of the images.
        file: the JSON file.

    Raises:
        DataError: a file that cannot be read or is no such file, or an entry that has no one meaning, by name.
    """
    content = _parsed(file)
    images, notes = _images(content["images"], folder, file)
    names, dropped = _categories(content["categories"], content["annotations"], file)
    corners = _are_corners(content["annotations"])
    for number, entry in enumerate(content["annotations"]):
        label = f"annotation {entry['id']}" if "id" in entry else f"annotations[{number}]"
        image, category = (identity(entry[key], f"'{file}' {label}: {key}") for key in ("image_id", "category_id"))
        if image not in images:
            raise DataError(f"'{file}' {label}: there is no image {entry['image_id']}")
        if category not in names:
            raise DataError(f"'{file}' {label}: there is no category {entry['category_id']}")
        box, crowd = _box(entry["bbox"], f"'{file}' {label}"), _flag(entry.get("iscrowd"), f"'{file}' {label}: iscrowd")
        shape = entry.get("segmentation")
        if corners or _is_empty(shape):
            shape = None
        turned = not shape and _turned(entry.get("attributes"))
        area = _area(entry.get("area"))
        images[image].entries.append(Entry(label, names[category], box, shape, crowd, turned, area))
    repeated = ambiguous = 0
    for image in images.values():
        once = _annotated_once(image.entries)
        repeated += len(image.entries) - len(once)
        image.entries = once
        ambiguous += _of_two_categories(once)
    if repeated:
        notes.append(f"Objects that are annotated twice in '{file.name}' and count once: {repeated:,}.")
    if ambiguous:
        notes.append(f"{TWO_CATEGORIES}: {ambiguous:,}.")
    kept = [entry for image in images.values() for entry in image.entries]
    labels = Counter(entry.label for entry in kept)
    if shared := sum(count for count in labels.values() if count > 1):
        notes.append(f"{SHARED_IDS}: {shared:,} of {len(kept):,}.")
    rotated = sum(entry.turned for entry in kept)
    if rotated:
        notes.append(f"{TURNED_BOXES}: {rotated:,}.")
    notes += notes_on_marks(content["annotations"]) + notes_on_fields(content["annotations"])
    notes += notes_on_stuff(content["categories"], content["annotations"])
    notes += notes_on_open_categories(content["images"], content["annotations"], len(names) - len(dropped))
    notes += crowds(sum(entry.crowd for entry in kept), len(kept))
    ordered = tuple(name for key, name in sorted(names.items(), key=lambda item: order(item[0])) if key not in dropped)
    notes += [f"The category '{names[key]}' with the id {key} has no objects and repeats a name; it is left out."
              for key in dropped]  # fmt: skip
    return CocoFile(file, list(images.values()), ordered, notes)


def further_fields(content: CocoFile) -> dict[str, list[str | None]]:
    """The fields of the images of a file that are not read: name -> values in the order of the images, as text."""
    names = dict.fromkeys(name for image in content.images for name in image.further)
    return {name: [image.further.get(name) for image in content.images] for name in names}


def is_short(value: object) -> bool:
    """Whether a field holds a number or a text, and no list."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def _annotated_once(entries: Sequence[Entry]) -> list[Entry]:
    """The annotations of an image without those that repeat an earlier one.

    Two of a category are one object if their segmentations are equal, or their boxes where not both have a
    segmentation; the one with a segmentation is kept. Equal boxes around different segmentations are two objects.
    """
    boxes = [(entry.category, entry.crowd, tuple(entry.bbox)) for entry in entries]
    with_shape = {box for box, entry in zip(boxes, entries, strict=True) if entry.segmentation}
    kept: dict[tuple, Entry] = {}
    for box, entry in zip(boxes, entries, strict=True):
        if entry.segmentation:
            kept.setdefault((*box[:2], json.dumps(entry.segmentation)), entry)
        elif box not in with_shape:
            kept.setdefault(box, entry)
    return list(kept.values())


def _of_two_categories(entries: Sequence[Entry]) -> int:
    """How many objects of an image have several categories: equal segmentations or, without one, equal boxes."""
    categories: dict[tuple, set[str]] = defaultdict(set)
    for entry in entries:
        place = json.dumps(entry.segmentation) if entry.segmentation else tuple(entry.bbox)
        categories[place, entry.crowd].add(entry.category)
    return sum(len(found) > 1 for found in categories.values())


def _are_corners(annotations: Sequence[dict]) -> bool:
    """Whether the segmentations of a file are the two corners of its boxes, as some exports of boxes write them.

    A file with any other segmentation may hold lines, from one corner of their box to the other.
    """
    shapes = ((entry.get("segmentation"), entry["bbox"]) for entry in annotations)
    return all(_is_empty(shape) or _is_corners_of(box, shape) for shape, box in shapes)


def _is_corners_of(box: object, shape: object) -> bool:
    try:
        x, y, width, height = box
        x0, y0, x1, y1 = _numbers(shape)
        apart = (x0 - x, y0 - y, x1 - x - width, y1 - y - height)
        return all(abs(one) <= CORNER for one in apart)
    except (TypeError, ValueError):  # not four numbers
        return False


def _is_empty(shape: object) -> bool:
    """Whether a segmentation holds nothing: null, or lists without a number."""
    return not shape or (isinstance(shape, list) and all(isinstance(one, list) and _is_empty(one) for one in shape))


def _numbers(shape: object) -> list:
    """What lists in lists hold, in order. Raises TypeError for what is no list."""
    if not isinstance(shape, list):
        raise TypeError("no list")
    return [value for part in shape for value in (_numbers(part) if isinstance(part, list) else [part])]


def identity(value: object, what: str) -> str:
    """An id as text, equal for 7, 7.0, "7" and "007". Raises DataError for what is none, named by ``what``."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise DataError(f"{what} is {json.dumps(value)}, it must be a number or text")
    return str(value)


def order(key: str) -> tuple[bool, int, str]:
    """The place of an id: numbers by value, then text."""
    number = key.lstrip("-").isdecimal()
    return (not number, int(key) if number else 0, key)


def _parsed(file: Path) -> dict[str, list]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"cannot read the annotations '{file}': {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{file}' is not JSON: {error}") from error
    if (other := other_format(content)) is not None:
        raise DataError(f"'{file}' {other}")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in KEYS):
        raise DataError(f"'{file}' is not COCO's instances format, it needs the lists {', '.join(KEYS)}")
    for kind in ("images", "categories"):
        if not content[kind]:
            raise DataError(f"'{file}' lists no {kind}")
    for kind, needed in KEYS.items():
        for number, entry in enumerate(content[kind]):
            if not isinstance(entry, dict):
                raise DataError(f"'{file}' {kind}[{number}] is {json.dumps(entry)}, not an entry with {needed[0]}")
            missing = [key for key in needed if entry.get(key) is None]
            if missing:
                raise DataError(f"'{file}' {kind}[{number}] (id {entry.get('id')}) has no {missing[0]}")
    return content


def _images(entries: Sequence[dict], folder: Path, file: Path) -> tuple[dict[str, CocoImage], list[str]]:
    """Images by id, and notes."""
    images: dict[str, CocoImage] = {}
    ids_of: dict[Path, str] = {}
    names_of: dict[Path, str] = {}
    moved: set[Path] = set()
    outside: list[Path] = []
    repeated = 0
    for number, entry in enumerate(entries):
        key = identity(entry["id"], f"'{file}' images[{number}]: id")
        name, what = entry["file_name"], f"'{file}' image {key}"
        path = _located(folder, name, what)
        if path is None and (path := _located_elsewhere(folder, name)) is not None:
            moved.add(path)
        if path is None and (path := _located_outside(folder, name)) is not None:
            outside.append(path)
        if path is None:
            raise DataError(f"'{file}' lists the image {name}, which is not in '{folder}'")
        if path in moved and names_of.setdefault(path, name) != name:
            raise DataError(
                f"'{file}' lists {names_of[path]} and {name}, and '{folder}' holds one file for both, {path.name}; "
                "give the folder in which both lie"
            )
        names_of[path] = name
        if key in images and images[key].path == path:
            repeated += 1
            continue
        if key in images:
            raise DataError(f"'{file}' has the image id {key} twice, for {images[key].path.name} and {path.name}")
        if path in ids_of:
            raise DataError(f"'{file}' lists {entry['file_name']} twice, as image {ids_of[path]} and {key}")
        ids_of[path] = key
        further = {one: str(value) for one, value in entry.items() if one not in OF_IMAGES and is_short(value)}
        images[key] = CocoImage(path, _size(entry, what), further=further)
    notes = [f"Images that are listed twice in '{file.name}' and count once: {repeated:,}."] if repeated else []
    strange = sum(not _is_end_of(_plain(names_of[path]).parent, folder) for path in moved)
    if strange:
        notes.append(
            f"Images whose file_name names another folder, and that are read from '{folder.name}': {strange:,}."
        )
    if outside:
        notes.append(
            f"Images that are not in '{folder.name}' and are read from where their file_name says: {len(outside):,}, "
            f"the first from '{printable(outside[0].parent.name)}'."
        )
    return images, notes + _unlisted(set(ids_of) - set(outside), folder)


def _located(folder: Path, name: object, what: str) -> Path | None:
    """The file of an image in ``folder``, also if its name was written on Windows, or as part of an address."""
    if not isinstance(name, str):
        raise DataError(f"{what}: file_name is {json.dumps(name)}, it must be text")
    return next((path for path in _written(folder, name) if _is_inside(path, folder)), None)


def _written(folder: Path, name: str) -> list[Path]:
    """The files that a name may mean, from ``folder``; they may lie outside of it."""
    written = [
        folder / one for one in (name, name.replace("\\", "/"), _plain(name)) if str(one) and "\0" not in str(one)
    ]
    return [path for path in written if path.is_file()]


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder by its name, or after links are followed."""
    inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
    return inside or path.resolve().is_relative_to(folder.resolve())


def _located_elsewhere(folder: Path, name: str) -> Path | None:
    """The file in ``folder`` of an image whose name was written from another folder, by the last parts of its name;
    None if ``folder`` holds that folder."""
    plain = _plain(name)
    parts = [part for part in plain.parts if part not in (plain.anchor, "..")]
    if not parts or "\0" in str(plain):
        return None
    if len(parts) == len(plain.parts) and (folder / plain.parent).is_dir():
        return None
    ends = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((path for path in ends if path.is_file()), None)


def _located_outside(folder: Path, name: str) -> Path | None:
    """The file outside of ``folder`` to which the name of an image leads: a whole path, or one with ".."."""
    return next(iter(_written(folder, name)), None)


def _plain(name: str) -> Path:
    return Path(unquote(name).replace("\\", "/"))


def _is_end_of(part: Path, folder: Path) -> bool:
    """Whether the last folders of a path are these: ``images`` of ``/data/images``."""
    return folder.resolve().parts[-len(part.parts) :] == part.parts


def _unlisted(listed: set[Path], folder: Path) -> list[str]:
    endings = Image.registered_extensions()
    names = {path.resolve() for path in listed}
    found = [
        path
        for place in {path.parent for path in listed}
        for path in place.iterdir()
        if path.suffix.lower() in endings and path.is_file() and path.resolve() not in names
    ]
    note = f"Images in '{folder.name}' that its annotations do not list and that are left out: {len(found):,}."
    return [note] if found else []


def _size(entry: dict, what: str) -> tuple[int, int] | None:
    """Width and height, or None where the entry does not give them (some tools write 0)."""
    given = [entry.get(key) for key in ("width", "height")]
    if any(value in (None, 0) and not isinstance(value, bool) for value in given):
        return None
    for value in given:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value != int(value) or value < 0:
            raise DataError(f"{what}: its size is {given[0]}x{given[1]}, it must be whole pixels")
    return int(given[0]), int(given[1])


def _categories(entries: Sequence[dict], annotations: Sequence[dict], file: Path) -> tuple[dict[str, str], list[str]]:
    """Names by id, and the ids of those that repeat a name and have no objects."""
    names: dict[str, str] = {}
    for number, entry in enumerate(entries):
        key, name = identity(entry["id"], f"'{file}' categories[{number}]: id"), entry["name"]
        if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
            raise DataError(f"'{file}' category {key}: its name is {json.dumps(name)}, it must be text")
        if names.setdefault(key, str(name)) != str(name):
            raise DataError(f"'{file}' has the category id {key} twice, for '{names[key]}' and '{name}'")
    used = Counter(identity(entry["category_id"], f"'{file}': category_id") for entry in annotations)
    ids_of = defaultdict(list)
    for key in sorted(names, key=order):
        ids_of[names[key]].append(key)
    dropped = []
    for name, keys in ids_of.items():
        kept = [key for key in keys if used[key]]
        if len(kept) > 1:
            raise DataError(f"'{file}' calls two categories '{name}', the ids {kept[0]} and {kept[1]}")
        dropped += [key for key in keys if key != (kept or keys)[0]]
    return names, dropped


def _box(box: object, what: str) -> list[float]:
    numbers = box if isinstance(box, list) else []
    fit = [not isinstance(n, bool) and isinstance(n, int | float) and math.isfinite(n) for n in numbers]
    if len(fit) != 4 or not all(fit):
        raise DataError(f"{what}: its bbox is {json.dumps(box)}, it needs the four numbers x, y, width, height")
    return [float(number) for number in numbers]


def _flag(value: object, what: str) -> bool:
    if value is None:
        return False
    if value in (0, 1, "0", "1"):  # True and False equal 1 and 0
        return bool(int(value))
    raise DataError(f"{what} is {json.dumps(value)}, it must be 0 or 1")


def _area(value: object) -> float | None:
    """An area above 0; None for what is none, as some tools write 0 or text."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    return float(value) if known else None


def _turned(attributes: object) -> bool:
    """Whether the attributes of a box, as CVAT writes them, turn it by an angle in degrees that is not 0 or 180."""
    return isinstance(attributes, dict) and is_turned_by(attributes.get("rotation"))
