"""PASCAL VOC's own folders (VOCdevkit): boxes of VOC07+12, or segments of VOC12.

Format: M. Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, and its development kits.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath
from xml.etree import ElementTree

import numpy as np
from datasets import Dataset, Features, Image
from PIL import Image as PillowImage

from scd.data.cache import content_hash, file_hashes
from scd.data.decoding import open_cell, stored_size, upright_size
from scd.data.sources.example import example_images
from scd.data.sources.instance_maps import (
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
from scd.data.sources.mask_checks import Palettes, require_whole_ids, used_colours
from scd.data.sources.source import Source, cached_dataset
from scd.data.sources.voc_marks import (
    DELETED,
    DIFFICULT,
    EXCHANGED,
    RENAMED,
    REPEATED,
    annotation_notes,
    is_marked,
    not_read,
)
from scd.errors import DataError, UsageError, unknown

VERSION = "5"
NOTED = "6"  # version of the notes that are kept with the maps; it changes no identity
ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")  # of images
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
TURNED = "Images with an EXIF orientation, whose annotations count as drawn on the upright picture"
FROM_0 = "Boxes that begin at 0 or below, where VOC's pixels count from 1, and that are moved by one pixel and cut"
LEFT_OUT = "-1"  # an image without the class of a set
MARKS = (LEFT_OUT, "0", "1")  # in sets of one class; 0: with difficult objects of it alone
LOSSY = ("JPEG", "MPO")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
ONCE = ("name", "bndbox", *(f"bndbox/{key}" for key in CORNERS))  # elements of an object
VOID = 255  # the border of objects in segments
TASKS = {"detection": "Main", "segmentation": "Segmentation"}  # folder of ImageSets


class Voc(Source):
    """VOC's images with their annotations.

    Detection: columns ``image``, ``mask`` and ``objects`` as of :class:`scd.data.sources.coco.Coco`. Boxes are VOC's
    with 1 subtracted from xmin and ymin, since its pixels count from 1 and both corners belong to the box. They
    belong to the upright picture, see :mod:`scd.data.decoding`.
    NOTE: few images of VOC have instance masks, so the map shows filled boxes, larger before smaller: what is measured
    with masks (segments, coverage) is measured with boxes here. A box that smaller ones hide is dropped and counted.

    Segmentation: columns ``image`` and ``mask`` of class ids, 0 = background, 255 = ignored border.

    Args:
        root: the folder with VOC2007 and VOC2012 in it.
        train, test: YEAR/SET of the splits "train" and "test", e.g. "2012/train" and "2012/val" for segmentation. Sets
            of one class ("2007/cat_trainval") mark each image; those with -1 are left out, unless another set has them.
        task: "detection" or "segmentation".
        difficult: False leaves out objects that are marked as difficult. NOTE: VOC's own test ignores them; here those
            of the test split count unless they are left out.

    Raises:
        UsageError: an unknown task, or a split without a set.
        DataError: a file that is missing or cannot be read, a line of a set that names no image, an unknown class, a
            box without numbers, an object with two names or boxes, or annotations of an image of another size, by file;
            a split without any image or object; annotations of which most name another image; segments that are
            coloured, renumbered, of one class alone, or stored in a form that does not keep ids.
    """

    test_options = ("test",)

    def __init__(
        self,
        root: str | Path,
        train: Sequence[str] = ("2007/trainval", "2012/trainval"),
        test: Sequence[str] = ("2007/test",),
        task: str = "detection",
        difficult: bool = True,
    ):
        if task not in TASKS:
            raise unknown("task of VOC", task, TASKS)
        if not train or not test:
            raise UsageError("voc: name at least one set in train and one in test, as YEAR/SET")
        root = Path(root).expanduser()
        boxes = task == "detection"
        listed, notes, rows, deleted = {}, {}, {}, {}
        for split, sets in (("train", train), ("test", test)):
            listed[split], notes[split] = _listed(root, sets, task)
        for split, found in listed.items():
            counted: Counter[str] = Counter()
            read = partial(_objects, difficult=difficult, counted=counted) if boxes else _segments
            rows[split] = [read(root / f"VOC{year}", name) for year, name in found]
            notes[split] += annotation_notes(counted, len(found), f"'{split}' of '{root}'")
            deleted[split] = counted[DELETED]
        if boxes:
            check_objects(rows, deleted, root, difficult)
        format_ = {"format": "voc", "version": VERSION, "task": task}
        fingerprints = {split: content_hash({**format_, "content": _contents(found)}) for split, found in rows.items()}
        make = _with_boxes if boxes else _with_segments
        keys = {
            split: content_hash([fingerprint, str(root.resolve()), NOTED])
            for split, fingerprint in fingerprints.items()
        }
        splits = {split: cached_dataset("voc", key, partial(make, rows[split])) for split, key in keys.items()}
        super().__init__(
            root.resolve().name,
            splits,
            fingerprints,
            class_names=CLASSES if boxes else None,
            mask_kind="instances" if boxes else "classes",
            foreground=None if boxes else tuple(range(1, len(CLASSES) + 1)),
            description=f"PASCAL VOC for {task}: {', '.join(train)} and {', '.join(test)}",
            notes=[
                f"{split}: {note}"
                for split, found in notes.items()
                for note in (*found, *splits[split].info.description.splitlines())
            ],
        )

    @classmethod
    def example(cls, folder: Path) -> "Voc":
        year = folder / "VOC2007"
        for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (year / part).mkdir(parents=True)
        for split, count, first in (("trainval", 8, 0), ("test", 4, 8)):
            images, masks, labels = example_images(count, first)
            for number, (image, mask, label) in enumerate(zip(images, masks, labels, strict=True), first):
                PillowImage.fromarray(image).save(year / "JPEGImages" / f"{number:06d}.jpg")
                y, x = np.nonzero(mask)
                corners = {"xmin": x.min() + 1, "ymin": y.min() + 1, "xmax": x.max() + 1, "ymax": y.max() + 1}
                box = "".join(f"<{key}>{value}</{key}>" for key, value in corners.items())
                entry = f"<object><name>{('cat', 'dog')[label]}</name><bndbox>{box}</bndbox></object>"
                (year / "Annotations" / f"{number:06d}.xml").write_text(f"<annotation>{entry}</annotation>")
            names = "".join(f"{number:06d}\n" for number in range(first, first + count))
            (year / "ImageSets" / "Main" / f"{split}.txt").write_text(names)
        return cls(folder, train=["2007/trainval"], test=["2007/test"])


# ---------------------------------------------------------------- files


def _listed(root: Path, sets: Sequence[str], task: str) -> tuple[list[tuple[str, str]], list[str]]:
    """(year, name) of every image of some sets, each once, and notes."""
    found, excluded = [], set()
    for each in sets:
        year, separator, name = each.partition("/")
        if not separator:
            raise UsageError(f"voc: '{each}' is not of the form YEAR/SET, for example 2007/trainval")
        file = root / f"VOC{year}" / "ImageSets" / TASKS[task] / f"{name}.txt"
        try:
            lines = file.read_text(encoding="utf-8-sig").split("\n")
        except OSError as error:
            raise DataError(f"cannot read the set '{file}': {error.strerror or error}") from error
        except ValueError as error:
            raise DataError(f"the set '{file}' is no text in UTF-8 ({error}); save it as UTF-8") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                image, mark = _entry(line.strip(), root / f"VOC{year}", f"'{file}' line {number}")
                if mark == LEFT_OUT:
                    excluded.add((year, image))
                else:
                    found.append((year, image))
    once = list(dict.fromkeys(found))
    left_out = len(excluded - set(once))
    if not once:
        marked = f", and marks {left_out:,} with {LEFT_OUT}" if left_out else ""
        raise DataError(f"{', '.join(sets)} of '{root}' lists no image{marked}; give sets with images")
    repeated = len(found) - len(once)
    notes = [f"Images that are listed twice and count once: {repeated:,}."] if repeated else []
    if left_out:
        notes.append(f"Images that their set marks with {LEFT_OUT} and that are left out: {left_out:,}.")
    return once, notes


def _entry(line: str, folder: Path, what: str) -> tuple[str, str | None]:
    """The name of the image in a line of a set, which may hold spaces, and its mark in sets of one class.

    Raises:
        DataError: a line that has two meanings, or none; ``what`` names it.
    """
    name, mark = line, None
    words = line.rsplit(maxsplit=1)
    if len(words) == 2 and words[1] in MARKS:
        if _find(folder, line) is None:
            name, mark = words
        elif _find(folder, words[0]) is not None:
            raise DataError(
                f"{what}: '{line}' is the name of an image, and also that of another one, '{words[0]}', with the mark "
                f"{words[1]}; rename one of them"
            )
    if _find(folder, name) is not None:
        return name, mark
    ending = next((one for one in ENDINGS if name.endswith(one)), None)
    spaced = len(name.split()) > 1
    if ending and (not spaced or _find(folder, name.removesuffix(ending)) is not None):
        raise DataError(f"{what}: '{name}'; write the names of images without the ending {ending}")
    if spaced:
        raise DataError(
            f"{what}: there is no image '{name}' in JPEGImages; a line is the name of an image without the ending, and "
            f"in sets of one class {', '.join(MARKS[:-1])} or {MARKS[-1]} after it"
        )
    return name, mark


def _find(folder: Path, name: str) -> Path | None:
    """The image of a name, or None."""
    places = [folder / "JPEGImages" / f"{name}{ending}" for ending in ENDINGS]
    return next((place for place in places if place.is_file()), None)


def _image(folder: Path, name: str) -> Path:
    found = _find(folder, name)
    if found is None:
        raise DataError(f"the image '{folder / 'JPEGImages' / name}{ENDINGS[0]}' is listed but does not exist")
    return found


def _segments(folder: Path, name: str) -> dict:
    mask = folder / "SegmentationClass" / f"{name}.png"
    if not mask.is_file():
        raise DataError(f"'{mask}' is missing, the segments of {name}")
    return {"image": _image(folder, name), "mask": mask}


def _objects(folder: Path, name: str, difficult: bool, counted: Counter[str]) -> dict:
    """The image of a name, its size as annotated, and its objects: categories, boxes [x, y, w, h] in pixels from 0.

    ``counted`` is told of difficult and deleted objects, of those that are there twice, of what is not read of an
    object, and of a <filename> of another image.
    """
    file = folder / "Annotations" / f"{name}.xml"
    root = _annotation(file)
    other = _other_name(root, name)
    counted[RENAMED] += other is not None
    counted[EXCHANGED] += other is not None and _find(folder, other) is not None
    found: dict[tuple, None] = {}
    for number, entry in enumerate(root.findall("object")):
        if is_marked(entry, "deleted"):
            counted[DELETED] += 1
            continue
        for tag in ONCE:
            if (count := len(entry.findall(tag))) > 1:
                raise DataError(f"'{file}' object {number}: it has {count} <{tag}>; write one <object> for each object")
        label = (entry.findtext("name") or "").strip()
        if label not in CLASSES:
            raise DataError(
                f"'{file}' object {number}: '{label}' is none of VOC's {len(CLASSES)} classes; convert annotations of "
                "other classes to COCO's format and give data=coco"
            )
        hard = is_marked(entry, "difficult")
        if hard and not difficult:
            continue
        try:
            x0, y0, x1, y1 = (float(entry.findtext(f"bndbox/{key}")) for key in CORNERS)
        except (TypeError, ValueError) as error:
            raise DataError(f"'{file}' object {number}: its bndbox needs xmin, ymin, xmax and ymax") from error
        if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 < x0 or y1 < y0:
            raise DataError(
                f"'{file}' object {number}: its bndbox is {x0:g}, {y0:g}, {x1:g}, {y1:g}; it needs finite numbers, "
                "xmin and ymin first"
            )
        category_and_box = CLASSES.index(label), (x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1)
        counted[DIFFICULT] += hard and category_and_box not in found
        counted[REPEATED] += category_and_box in found
        counted.update(not_read(entry) if category_and_box not in found else ())
        found[category_and_box] = None
    categories, boxes = [category for category, _ in found], [list(box) for _, box in found]
    return {"image": _image(folder, name), "size": _size(root, file), "categories": categories, "boxes": boxes}


def _other_name(root: ElementTree.Element, name: str) -> str | None:
    """The name in <filename>, without folder and ending, where it is not the image's; tools write other folders."""
    written = PureWindowsPath((root.findtext("filename") or "").strip())
    spelled = {unicodedata.normalize("NFC", one).casefold() for one in (written.name, written.stem)}
    is_same = not written.name or unicodedata.normalize("NFC", name).casefold() in spelled
    return None if is_same else written.stem


def _annotation(file: Path) -> ElementTree.Element:
    """The root of a file of annotations, with its tags in small letters and without namespaces.

    Raises:
        DataError: a file that cannot be read, is not XML, or has another structure, in which objects would be missed.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except OSError as error:
        raise DataError(f"cannot read the annotations '{file}': {error.strerror or error}") from error
    except ElementTree.ParseError as error:
        raise DataError(f"'{file}' is not XML: {error}") from error
    except (LookupError, ValueError) as error:
        raise DataError(f"'{file}' has an encoding that cannot be read ({error}); save it as UTF-8") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2].lower()
    if root.tag != "annotation":
        raise DataError(f"'{file}' holds <{root.tag}>; VOC's files hold one <annotation>, of one image")
    for child in root:
        inside = {element.tag for element in child.iter() if element is not child}
        if "object" in inside or (child.tag != "object" and "bndbox" in {child.tag, *inside}):
            raise DataError(
                f"'{file}': an object or a box in <{child.tag}> would be missed; VOC's are <object> with <bndbox>, "
                "directly in <annotation>"
            )
    return root


def check_objects(rows: Mapping[str, Sequence[dict]], deleted: Mapping[str, int], root: Path, difficult: bool) -> None:
    """Raise DataError for a split without any object: nothing could be learned from it, or scored on it.

    Args:
        rows, deleted: by split, what was read and the number of objects that are marked as deleted.
    """
    for split, found in rows.items():
        if not any(row["categories"] for row in found):
            which = "object" if difficult else "object that is not marked as difficult"
            marked = f", objects marked as deleted: {deleted[split]:,}" if deleted[split] else ""
            raise DataError(
                f"'{split}' of '{root}' holds no {which} (images: {len(found):,}{marked}); check its sets and "
                "annotations, or give data=FOLDER for images alone"
            )


def _size(root: ElementTree.Element, file: Path) -> tuple[int, int] | None:
    """Width and height as annotated; None where one is missing or 0, as some tools write them."""
    try:
        sides = [float(root.findtext(f"size/{key}") or 0) for key in ("width", "height")]
        width, height = (int(side) for side in sides)
    except (ValueError, OverflowError) as error:
        raise DataError(f"'{file}': its size is not in pixels") from error
    return (width, height) if width > 0 and height > 0 else None


def _contents(rows: Sequence[dict]) -> list:
    """What identifies rows: files by name and content, objects as they are."""
    files = [value for row in rows for value in row.values() if isinstance(value, Path)]
    hashes = dict(zip(files, file_hashes(files), strict=True))
    return [
        [[value.name, hashes[value]] if isinstance(value, Path) else value for value in map(row.get, sorted(row))]
        for row in rows
    ]


# ---------------------------------------------------------------- rows


def _with_boxes(rows: list[dict]) -> Dataset:
    ends = [max(x + width, y + height) for row in rows for x, y, width, height in row["boxes"]]
    if ends and max(ends) <= 1:
        raise DataError(f"the boxes of '{rows[0]['image'].parents[1]}' are shares of the image; VOC's are in pixels")
    columns: dict[str, list] = {"image": [], "mask": [], "objects": []}
    counted: Counter[str] = Counter()
    sizes = []
    for row in rows:
        width, height = upright_size(row["image"], row["size"])
        sizes.append((width, height))
        counted[TURNED] += stored_size(row["image"])[1] != 1
        counted[FROM_0] += sum(min(box[:2]) <= -1 for box in row["boxes"])
        count_boxes(row["boxes"], height, width, counted)
        n = len(row["boxes"])
        columns["image"].append(str(row["image"].resolve()))
        masks = [filled_box(box, height, width) for box in row["boxes"]]
        columns["mask"].append(draw_instances(masks, [False] * n, height, width))
        columns["objects"].append({"bbox": row["boxes"], "category": row["categories"], "iscrowd": [0] * n})
    total = sum(len(row["boxes"]) for row in rows)
    check_boxes(counted, total, f"'{rows[0]['image'].parent.parent}'", "xmin, ymin, xmax, ymax")
    dataset = Dataset.from_dict(columns, features=object_features(CLASSES))
    boxes = [box for row in rows for box in row["boxes"]]
    of_boxes = [size for row, size in zip(rows, sizes, strict=True) for _ in row["boxes"]]
    notes = (percentages(boxes, sizes) or upper_left(boxes, of_boxes)) + negatives([len(row["boxes"]) for row in rows])
    dataset.info.description = describe(counted, notes)
    return dataset


def _with_segments(rows: list[dict]) -> Dataset:
    palettes, found = Palettes(), set()
    for row in rows:
        found |= segment_ids(row["mask"], palettes)
    if len(found - {VOID}) < 2:
        held = ", ".join(map(str, sorted(found)))
        raise DataError(
            f"the segments in '{rows[0]['mask'].parent}' hold {held} alone, where 0 is the background and {VOID} the "
            "ignored border: there is one class at most; convert masks of one object to parquet files with the columns "
            "image and mask"
        )
    columns = {name: [str(row[name].resolve()) for row in rows] for name in ("image", "mask")}
    return Dataset.from_dict(columns, features=Features(image=Image(), mask=Image()))


def segment_ids(file: Path, palettes: Palettes) -> set[int]:
    """The class ids of a file of segments, whose colours are added to ``palettes``.

    Raises:
        DataError: a file that cannot be decoded, is coloured, is stored in a form that does not keep ids, has another
            number than VOC's classes, or a palette that gives a class VOC's colour of another one, or another colour
            than an earlier file.
    """
    what = f"'{file}'"
    cell = {"path": str(file), "bytes": None}
    image = open_cell(cell, "mask", 0, file.name)
    if image.format in LOSSY:
        raise DataError(f"{what} is a JPEG, whatever its ending; JPEG keeps no class ids: use the original PNG files")
    require_whole_ids(cell, what)
    if image.mode not in ("P", "L", "1"):
        raise DataError(f"{what} is a coloured picture ({image.mode}); VOC's segments are palette images of class ids")
    shown = set(np.unique(np.asarray(image)).astype(int).tolist())
    for number in sorted(shown - {VOID}):
        if number > len(CLASSES):
            raise DataError(f"{what} holds the class {number}; VOC has 0 to {len(CLASSES)}, and {VOID} for borders")
    colours = used_colours(image)
    for number, colour in colours.items():
        meant = [k for k in range(len(CLASSES) + 1) if colour_of(k) == colour]
        if meant and number not in (*meant, VOID):
            raise DataError(
                f"{what}: its palette gives the class {number} the colour {colour}, which is VOC's of the class "
                f"{meant[0]}. Image tools renumber a palette when they save it; use the original files"
            )
    palettes.add(what, colours)
    return shown


def colour_of(number: int) -> list[int]:
    """Red, green and blue of a class in VOC's palette: its bits, dealt in turn to the channels from the highest bit."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
    return channels
