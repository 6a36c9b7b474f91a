"""What a reader must know of the columns that are not read: of parquet files, and of tables beside folders of images.

They may name the classes, and show that each split has numbered these for itself. They may also name the patient, the
video or the original of each image, and show that both splits have images of one.
"""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from os.path import commonpath
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Value

from scd.data.sources.folder_names import is_part, words_of
from scd.data.sources.folder_scan import printable
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.list_notes import TABLES, columns_of, entries, folders_of_lists, is_of
from studies.suite.analysis.name_notes import used_paths
from studies.suite.analysis.used_rows import used_rows

Cells = Sequence[str | None]  # of a column, one for each row that is used; None where a row has none

OF_CLASSES = {"class", "classes", "label", "labels", "category", "species", "breed", "synset", "target"}
PURE = 0.9  # share of the rows of a label that have one text
FEWEST_ROWS = 2  # training rows of a text, on average
LONGEST = 200  # bytes of a text, on average

OF_ONE = {  # names of what several images show
    "patient", "subject", "participant", "donor", "person", "individual", "case", "lesion", "slide", "wsi",
    "video", "clip", "sequence", "seq", "original", "parent",
}  # fmt: skip
OF_SOME = {  # the same, or a kind of images, as camera and location are
    "source", "group", "scene", "session", "track", "event", "burst", "location", "site", "camera", "cam",
}  # fmt: skip
OF_FILES = {"image", "images", "img", "photo", "picture", "file", "filename", "path", "stem"}
OF_IDS = {
    "id", "ids", "identifier", "uid", "uuid", "hash", "key", "code", "name", "no", "nr", "num", "number", "index",
    "idx", "url", "of", "the",
}  # fmt: skip
NO_VALUE = {"", "-1", "nan", "none", "null", "na", "n/a", "<na>", "unknown"}
FEWEST_OF_ONE, FEWEST_OF_SOME = 2, 10  # values
PER_CLASS = 2  # values for each class, where a column may name a kind of images
DIGITS = 0.5  # share of the values that have a digit, where a column may name a kind of images
SHARE_OF_ONE, SHARE_OF_SOME = 0.1, 0.5  # of the scored images, that is not noted
REPEATED = 0.1  # share of the rows of a split, at least, whose value other rows of it have: else it numbers the rows

LARGEST = 2**25  # bytes of a table that is read
MOST_TABLES = 20
MOST_FOLDERS = 3  # before the name of an image


def notes_on_columns(images: EvaluationData) -> list[str]:
    """Notes on what columns that are not read say of classes and of groups of images; embedded images have none."""
    if images.source.embedded:
        return []
    rows = {split: used_rows(images, split).tolist() for split in ("train", images.split)}
    labels = labels_of(images, rows)
    stored = {split: stored_rows(images.source.split(split)) for split in rows}
    train, test = (values_of_rows(stored[split], rows[split]) for split in rows)
    notes = notes_on_texts(train, test, labels, images.split)
    classes = len(set(labels[0])) if labels else 0
    groups = notes_on_groups(train, test, classes, names_in(images.source))
    return [*notes, *(groups or notes_on_tables(images, classes))]


def names_in(source: Source) -> list[set[str]]:
    """The names of classes and those of backgrounds, where there are any."""
    return [set(names) for names in (source.class_names, source.background_names) if names]


def labels_of(images: EvaluationData, rows: Mapping[str, Sequence[int]]) -> list[list[str]]:
    """The names of the labels of the rows that are used, of the training split first; [] where a split has none."""
    names, found = images.source.class_names, []
    if not images.has("label") or not names:
        return []
    for split, chosen in rows.items():
        labels = images.source.split(split)["label"][:]
        found.append([names[labels[row]] for row in chosen])
    return found


# ---------------------------------------------------------------- columns of parquet files


def stored_rows(dataset: Dataset) -> Dataset | None:
    """The rows of a split with all columns of its files, from the cache; None where they are not kept there."""
    paths = dict.fromkeys(str(file["filename"]) for file in dataset.cache_files)
    parts = [Dataset.from_file(path) for path in paths]
    if not parts:
        return None
    whole = datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    return whole if len(whole) == len(dataset) else None


def values_of_rows(stored: Dataset | None, rows: Sequence[int]) -> dict[str, Cells]:
    """Column -> its values in some rows, as text: of those columns that hold text or numbers that may be names."""
    found: dict[str, Cells] = {}
    for column, feature in stored.features.items() if stored is not None else ():
        names = feature.names if isinstance(feature, ClassLabel) else None
        if not isinstance(feature, ClassLabel | Value):
            continue
        cells = stored.select_columns([column]).with_format("arrow")[:][column]
        if names is None and not is_group(column) and not is_text(cells):
            continue
        values = cells.take(pa.array(rows, pa.int64()))
        if names is None and pa.types.is_floating(values.type):
            values = whole_numbers(values)
        found[column] = [
            None if value is None else names[value] if names and 0 <= value < len(names) else str(value).strip()
            for value in values.to_pylist()
        ]
    return found


def is_text(cells: pa.ChunkedArray) -> bool:
    """Whether a column holds texts that are short enough for names."""
    text = pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)
    return text and cells.nbytes <= LONGEST * len(cells)


def whole_numbers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers without their fraction, as those of a column with empty cells are; null where they have one."""
    whole = pc.equal(values, pc.floor(values))
    return pc.cast(pc.if_else(whole, values, None), pa.int64(), safe=False)


# ---------------------------------------------------------------- texts of classes


def notes_on_texts(
    train: Mapping[str, Cells], test: Mapping[str, Cells], labels: Sequence[Sequence[str]], split: str
) -> list[str]:
    """A note on a column of text that names the classes, and that gives labels another name in the scored split."""
    for column in filter(test.__contains__, train if labels else ()):
        ours, theirs = (texts_of(values[column], found) for values, found in zip((train, test), labels, strict=True))
        if not ours or not theirs or FEWEST_ROWS * len(ours) > len(labels[0]):
            continue
        moved = sorted(label for label in ours.keys() & theirs.keys() if folded(ours[label]) != folded(theirs[label]))
        known = set(map(folded, ours.values()))
        crossed = [label for label in moved if folded(theirs[label]) in known]
        if crossed or (moved and OF_CLASSES & set(words_of(column))):
            label = (crossed or moved)[0]
            return [
                f"By the column '{printable(column)}', which is not read, the label '{label}' is "
                f"'{printable(ours[label])}' in the training split and '{printable(theirs[label])}' in the {split} "
                f"split ({len(moved)} such labels), as if each split had numbered its classes for itself: scored "
                "images are then compared with other classes. If the column names the classes, take it as the label "
                f"(data.options.columns.label={printable(column)})."
            ]
    return []


def texts_of(values: Cells, labels: Sequence[str]) -> dict[str, str]:
    """Label -> its text, where each label has one, in nearly all rows, and no two labels have the same; else {}."""
    found: dict[str, Counter[str | None]] = defaultdict(Counter)
    for value, label in zip(values, labels, strict=True):
        found[label][value] += 1
    texts = {}
    for label, counts in found.items():
        ((text, count),) = counts.most_common(1)
        if not text or count < PURE * counts.total():
            return {}
        texts[label] = text
    return texts if len(set(texts.values())) == len(texts) > 1 else {}


def folded(text: str) -> str:
    """A name without what people write differently: capitals, and what is neither a letter nor a digit."""
    return "".join(filter(str.isalnum, text.casefold())) or text


# ---------------------------------------------------------------- groups of images


class Shared(NamedTuple):
    """Values of a column that both splits have.

    Attributes:
        images: of the scored split, that have such a value.
        values: number of such values.
        count: of all values.
        first: one of them.
    """

    images: int
    values: int
    count: int
    first: str


def notes_on_groups(
    train: Mapping[str, Cells],
    test: Mapping[str, Cells],
    classes: int,
    known: Iterable[set[str]] = (),
    where: str = "",
) -> list[str]:
    """A note on a column by which both splits have images of one patient, video or original.

    Of several such columns, the one that joins most scored images is named, and of these the one with fewest values.

    Args:
        train, test: the values of each column, of the training and of the scored rows.
        classes: their number; 0 without labels.
        known: the names of classes and backgrounds: columns of these are none of groups.
        where: the file of the column.
    """
    found: list[tuple[int, int, str, Shared]] = []
    for column in filter(is_group, train.keys() & test.keys()):
        shared = shared_values(column, train[column], test[column], classes, known)
        if shared:
            found.append((-shared.images, shared.count, column, shared))
    if not found:
        return []
    *_, column, shared = min(found)
    total = len(test[column])
    return [
        f"By the column '{printable(column)}'{where}, which is not read, {shared.images:,} of the {total:,} scored "
        f"images belong to groups of training images ({shared.values:,} groups, such as '{printable(shared.first)}'): "
        "if images of a group show one person, object or scene, scores are too high. Split the images by this column: "
        "all images of a group belong in one split."
    ]


def shared_values(column: str, train: Cells, test: Cells, classes: int, known: Iterable[set[str]]) -> Shared | None:
    """The values of a column that both splits have; None where they do not look like those of groups of images."""
    ours, theirs = (Counter(value for value in values if not is_missing(value)) for values in (train, test))
    values = ours.keys() | theirs.keys()
    sure = is_sure(column)
    fewest = max(FEWEST_OF_ONE, classes + 1) if sure else max(FEWEST_OF_SOME, PER_CLASS * classes)
    if len(values) < fewest or any(values <= names for names in known):
        return None
    if not sure and sum(any(map(str.isdigit, value)) for value in values) < DIGITS * len(values):
        return None
    repeated = (sum(count for count in counts.values() if count > 1) for counts in (ours, theirs))
    if not any(rows >= REPEATED * len(of) and rows for rows, of in zip(repeated, (train, test), strict=True)):
        return None
    both = ours.keys() & theirs.keys()
    images = sum(theirs[value] for value in both)
    if images <= (SHARE_OF_ONE if sure else SHARE_OF_SOME) * len(test):
        return None
    return Shared(images, len(both), len(values), min(both))


def is_missing(value: str | None) -> bool:
    return value is None or value.strip().casefold() in NO_VALUE


def is_group(column: str) -> bool:
    """Whether a column names groups of images: by a word of these, and other words of names alone.

    "patient_id", "patientid" and "source_image" do; "patient_age", "image_id" and "scene_type" do not.
    """
    words = group_words(column)
    return bool(words & (OF_ONE | OF_SOME)) and words <= OF_ONE | OF_SOME | OF_FILES | OF_IDS


def is_sure(column: str) -> bool:
    """Whether a column that names groups hardly names a kind of images: "source_image" and not "source"."""
    words = group_words(column)
    return bool(words & OF_ONE) or ("source" in words and bool(words & OF_FILES))


def group_words(column: str) -> set[str]:
    """The words of a column's name; "patientid" is patient."""
    words = {word: word.removesuffix("id") for word in words_of(column)}
    return {short if short in OF_ONE | OF_SOME else word for word, short in words.items()}


# ---------------------------------------------------------------- tables beside folders


def notes_on_tables(images: EvaluationData, classes: int) -> list[str]:
    """A note on groups by a table that lies beside the folders of the images, and that names images of both splits."""
    paths = used_paths(images)
    if not all(map(all, paths)):
        return []
    used = [[Path(path).absolute() for path in found] for found in paths]
    if not all(found[0].is_file() for found in used):
        return []
    for table in tables_around(Path(commonpath([path.parent for found in used for path in found]))):
        columns = read_table(table)
        rows_of = rows_by_image(columns, used)
        if not all(any(row is not None for row in found) for found in rows_of):
            continue
        train, test = (
            {name: [None if row is None else values[row] for row in found] for name, values in columns.items()}
            for found in rows_of
        )
        where = f" of '{printable(table.name)}'"
        if notes := notes_on_groups(train, test, classes, names_in(images.source), where):
            return notes
    return []


def tables_around(root: Path) -> list[Path]:
    """The tables with a column of groups in the folder of all images, in its folders of lists, and beside it.

    Beside a folder that may be one of many, a table that does not name it may be of another.
    """
    beside = tables_in(root.parent)
    if not is_part(root.name):
        beside = [path for path in beside if is_of(path, root.name)]
    return list(dict.fromkeys([*tables_in(root), *beside]))[:MOST_TABLES]


def tables_in(folder: Path) -> list[Path]:
    found = [path for place in (folder, *folders_of_lists(folder)) for path in sorted(entries(place))]
    tables = [path for path in found if path.suffix.lower() in TABLES and any(map(is_group, columns_of(path)))]
    return [path for path in tables if path.is_file() and path.stat().st_size <= LARGEST]


def read_table(path: Path) -> dict[str, list[str | None]]:
    """Column -> the values of a table; {} of one that cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            if path.suffix.lower() == ".jsonl":
                records = [found for line in file if line.strip() and isinstance(found := json.loads(line), dict)]
            else:
                first = file.readline()
                file.seek(0)
                records = list(csv.DictReader(file, delimiter=max(",;\t", key=first.count)))
    except (OSError, ValueError, csv.Error):
        return {}
    return {name: [as_text(record.get(name)) for record in records] for name in (records[0] if records else ()) if name}


def as_text(value: Any) -> str | None:
    """A cell as text; None for one without a value, or with several."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int) else None


def rows_by_image(columns: Mapping[str, Cells], paths: Sequence[Sequence[Path]]) -> list[list[int | None]]:
    """For each image of the splits the row of a table that names it, None without.

    They are named by the column that names most of them, and among such columns by one whose own name says so.
    """
    images = Counter(key for found in paths for path in found for key in keys_of(path))
    best, result = (0, False), [[None] * len(found) for found in paths]
    for column, values in columns.items():
        if 2 * len(set(values)) < sum(map(len, paths)):
            continue
        rows = rows_by_key(values)
        found = [[row_of(path, rows, images) for path in part] for part in paths]
        count = sum(row is not None for part in found for row in part)
        if (rank := (count, bool(set(words_of(column)) & (OF_FILES | {"id"})))) > best:
            best, result = rank, found
    return result


def rows_by_key(values: Cells) -> dict[str, int]:
    """The rows by the names that they give to an image, of those that no two values have."""
    first: dict[str, int] = {}
    for row, value in enumerate(values):
        if value:
            first.setdefault(value, row)
    rows: dict[str, list[int]] = defaultdict(list)
    for value, row in first.items():
        for key in keys_of(PurePosixPath(value.replace("\\", "/"))):
            rows[key].append(row)
    return {key: found[0] for key, found in rows.items() if len(found) == 1}


def row_of(path: Path, rows: Mapping[str, int], images: Mapping[str, int]) -> int | None:
    return next((rows[key] for key in keys_of(path) if images[key] == 1 and key in rows), None)


def keys_of(path: PurePath) -> list[str]:
    """The ends of a path by which a table may call an image, with and without the ending, the longest first."""
    names = [name for name in path.parts if name != path.anchor]
    ends = ["/".join(names[-count:]) for count in range(min(MOST_FOLDERS + 1, len(names)), 0, -1)]
    return list(dict.fromkeys(key for end in ends for key in (end, end.removesuffix(path.suffix))))
