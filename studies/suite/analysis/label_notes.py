"""What a reader must know of the labels of a study's images: names that are no classes, and what gives a class away."""

import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from scd.data.decoding import UNREADABLE, as_rgb, open_cell, place
from scd.data.images import undecoded
from scd.data.sources.folder_scan import image_endings
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.pixel_notes import has_bars, spread_rows
from studies.suite.analysis.used_rows import used_rows

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
MOST_ROWS, FEWEST_ROWS = 1000, 24  # training images whose storage is compared with their classes
LIFT, DEVIATIONS = 0.25, 3.0  # share of the other images that storage tells right; and standard deviations above chance


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
    return notes + (notes_on_storage(images) or notes_on_traces(images))


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


def notes_on_traces(images: EvaluationData) -> list[str]:
    """A note where the way in which images are stored tells the class of many, as where classes come from several sets.

    Only the heads of the files are read; a file without one is named where it is decoded.
    """
    source, rows = images.source, used_rows(images, "train")
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).astype(int)].tolist()
    cells, labels = undecoded(source.split("train").select_columns(["image", "label"])), []
    found: dict[str, list[object]] = {what: [] for what in STORED}
    for row in rows:
        record = cells[row]
        cell = record["image"]
        try:
            with Image.open(cell["path"] if cell["bytes"] is None else io.BytesIO(cell["bytes"])) as stored:
                values = {what: read(stored) for what, read in STORED.items()}
        except UNREADABLE:
            continue
        labels.append(record["label"])
        for what, value in values.items():
            found[what].append(value)
    if len(labels) < FEWEST_ROWS:
        return []
    usual = max(Counter(labels).values()) / len(labels)
    shares = {what: told_by(values, labels) for what, values in found.items()}
    what, share = max(shares.items(), key=lambda item: item[1])
    chance = usual + max(LIFT * (1 - usual), DEVIATIONS * (usual * (1 - usual) / len(labels)) ** 0.5)
    if share < chance:
        return []
    return [
        f"The {what} of the training images, without what these show, tell the class of {share:.0%} of the "
        f"{len(labels):,} that were looked at (the largest class has {usual:.0%}), as where classes come from several "
        "sets of images: a network may learn their traces in the place of what the images show."
    ]


def told_by(values: Sequence[object], labels: Sequence[int]) -> float:
    """The share of images whose class is the most frequent one among the other images with the same value.

    Several equally frequent classes share the hit. An image whose value no other one has gets the largest class.
    """
    by_value: dict[object, Counter[int]] = defaultdict(Counter)
    whole, hits = Counter(labels), 0.0
    for value, label in zip(values, labels, strict=True):
        by_value[value][label] += 1
    for value, label in zip(values, labels, strict=True):
        counts = by_value[value] if by_value[value].total() > 1 else whole
        others = {one: count - (one == label) for one, count in counts.items()}
        best = [one for one, count in others.items() if count == max(others.values())]
        hits += (label in best) / len(best)
    return hits / len(labels)


def different(each: dict[int, object]) -> tuple[tuple[int, object], tuple[int, object]]:
    """The first class, and the first one that differs from it."""
    items = sorted(each.items(), key=lambda item: item[0])
    return items[0], next(item for item in items if item[1] != items[0][1])


def in_words(value: object) -> str:
    return "x".join(map(str, value)) + " px" if isinstance(value, tuple) else str(value)


def first(names: Sequence[str]) -> str:
    """The first names of classes, in quotes."""
    return ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
