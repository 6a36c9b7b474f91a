"""What a reader must know of the labels of a study's images: names that are no classes, and what gives a class away."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from scd.data.decoding import as_rgb, open_cell, place
from scd.data.images import undecoded
from scd.data.sources.folder_scan import image_endings
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.pixel_notes import has_bars, spread_rows

FEWEST = 3  # images of a class that are looked at
MOST = 0.5
FEWEST_CLASSES = 8  # of one image each
LISTED = re.compile(r"\s*[\[({].*[\])}]\s*")
COMPRESSION = "strength of JPEG's compression"
STORED: dict[str, Callable[[Image.Image], object]] = {  # what a file says beside its pixels
    "formats": lambda image: image.format,
    "kinds of pixels": lambda image: image.mode,
    "sizes": lambda image: image.size,
    COMPRESSION: lambda image: quantisation(image),
}
BARS = "bars at two opposite ends"


def quantisation(image: Image.Image) -> str:
    """The mean step of a JPEG file's tables in words; of other files none."""
    tables = getattr(image, "quantization", None)
    return f"mean step {np.mean(list(tables[0])):.0f}" if tables else "none"


def notes_on_labels(images: EvaluationData) -> list[str]:
    """Notes on labels that look like lists or names of files, on classes of one image, and on what tells a class.

    Raises:
        DataError: an image that cannot be decoded, by source, row and file.
    """
    source = images.source
    if source.embedded or not images.has("label") or not source.class_names:
        return []
    counts = Counter(source.split("train")["label"][:])
    names = [source.class_names[label] for label in counts]
    notes = [*notes_on_lists_of_labels(names), *notes_on_file_names(names)]
    alone = sum(count == 1 for count in counts.values())
    if alone >= FEWEST_CLASSES and alone > MOST * len(counts):
        notes.append(
            f"Classes with one training image alone: {alone:,} of {len(counts):,}. Check that the labels are classes, "
            "not numbers or names of images."
        )
    return notes + notes_on_storage(images)


def notes_on_lists_of_labels(names: Sequence[str]) -> list[str]:
    """A note on classes whose names look like lists of labels, as "['cat', 'dog']" and "cat|dog"."""
    plain = {name.strip() for name in names}
    parts = {name: parts_of(name) for name in names}
    uses = Counter(part for found in parts.values() for part in set(found))
    lists = [
        name
        for name, found in parts.items()
        if LISTED.fullmatch(name) or (len(found) > 1 and all(uses[part] > 1 for part in found))
        or (len(words := name.split()) > 1 and all(word in plain for word in words))
    ]  # fmt: skip
    several = [name for name in names if len(parts[name]) > 1]
    if not lists or 2 * len(lists) < len(several):
        return []
    return [
        f"Labels that look like lists, of which each counts as a class of its own ({len(lists)}): {first(lists)}. "
        "Write one label for each image."
    ]


def parts_of(name: str) -> list[str]:
    """The texts between commas, semicolons and bars."""
    return [part for one in re.split(r"[,;|]", name) if (part := one.strip(" []{}()'\""))]


def notes_on_file_names(names: Sequence[str]) -> list[str]:
    """A note on classes that are mostly called like files of images."""
    files = [name for name in names if f".{name.rpartition('.')[2].lower()}" in image_endings() and "." in name]
    if len(files) <= MOST * len(names):
        return []
    return [f"Labels that are names of image files, each a class of its own ({len(files)}): {first(files)}."]


def notes_on_storage(images: EvaluationData) -> list[str]:
    """A note where the way in which images are stored tells their class: a network may learn it from its traces.

    Raises:
        DataError: an image that cannot be decoded, by source, row and file.
    """
    source = images.source
    cells = undecoded(source.split("train").select_columns(["image", "label"]))
    found: dict[str, dict[int, list]] = {what: defaultdict(list) for what in (*STORED, BARS)}
    for row in spread_rows(images, "train"):
        record = cells[row]
        stored = open_cell(record["image"], "image", row, source.name)
        for what, read in STORED.items():
            found[what][record["label"]].append(read(stored))
        pixels = np.asarray(as_rgb(stored, f"{place(record['image'], row, source.name)}: the image"))
        found[BARS][record["label"]].append("bars" if has_bars(pixels) else "none")
    notes = []
    for what, by_class in found.items():
        if notes and what == COMPRESSION:  # other formats have no such tables
            continue
        values = {label: set(seen) for label, seen in by_class.items() if len(seen) >= FEWEST}
        if len(values) != len(by_class) or any(len(seen) > 1 for seen in values.values()):
            continue
        each = {label: next(iter(seen)) for label, seen in values.items()}
        if len(set(each.values())) > 1:
            (one, first_value), (other, second) = different(each)
            one, other = source.class_names[one], source.class_names[other]
            notes.append(
                f"The classes differ in the {what} of their images, such as '{one}' "
                f"({in_words(first_value)}) and '{other}' ({in_words(second)}): a network may learn these in the place "
                "of what the images show."
            )
    return notes


def different(each: dict[int, object]) -> tuple[tuple[int, object], tuple[int, object]]:
    """The first class, and the first one that differs from it."""
    items = sorted(each.items(), key=lambda item: item[0])
    return items[0], next(item for item in items if item[1] != items[0][1])


def in_words(value: object) -> str:
    return "x".join(map(str, value)) + " px" if isinstance(value, tuple) else str(value)


def first(names: Sequence[str]) -> str:
    """The first names of classes, in quotes."""
    return ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
