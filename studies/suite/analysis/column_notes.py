"""What a reader must know of the columns that are not read: of parquet files, and of tables beside folders of images.

They may name the classes, and show that each split has numbered these for itself. They may also name the patient, the
video or the original of each image, and show that both splits have images of one.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from datasets import Dataset
from datasets import Image as ImageFeature

from scd.data.images import undecoded
from scd.data.sources.coco import Coco
from scd.data.sources.folder_names import SPLIT_WORDS, words_of
from scd.data.sources.folder_scan import printable
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.column_values import Cells, are_files, stored_rows, values_of_rows, with_slashes
from studies.suite.analysis.group_columns import (
    OF_PLACES,
    are_counted,
    begin_anew,
    is_group,
    is_of_images,
    is_of_people,
    is_sure,
    place_of,
)
from studies.suite.analysis.name_notes import stored_paths, used_files
from studies.suite.analysis.table_notes import values_by_tables
from studies.suite.analysis.used_rows import used_rows

OF_CLASSES = {"class", "classes", "label", "labels", "category", "species", "breed", "synset", "target"}
PURE = 0.9  # share of the rows of a label that have one text
FEWEST_ROWS = 2  # training rows of a text, on average

NO_VALUE = {"", "-1", "nan", "none", "null", "na", "n/a", "<na>", "unknown"}
FEWEST_OF_ONE, FEWEST_OF_SOME = 4, 10  # values; of one: where each has images of several classes
PER_CLASS = 2  # values for each class, where a column may name a kind of images
DIGITS = 0.5  # share of the values that have a digit, where a column or its few values may name a kind of images
SHARE_OF_ONE, SHARE_OF_SOME = 0.1, 0.5  # of the scored images, that is not noted
REPEATED = 0.1  # share of the rows of a split, at least, whose value other rows of it have: else it numbers the rows
NEARLY, OTHER_ROWS = 0.9, 0.2  # shares of the images that a column names, and of those in other rows
OF_NAMES = {"img", "image", "photo", "picture", "frame", "file", *SPLIT_WORDS}  # words of names, that are no classes


def notes_on_columns(images: EvaluationData) -> list[str]:
    """Notes on what columns that are not read say of classes and of groups of images; embedded images have none."""
    if images.source.embedded:
        return []
    rows = {split: used_rows(images, split).tolist() for split in ("train", images.split)}
    labels = labels_of(images, rows)
    stored = {split: stored_rows(images.source.split(split)) for split in rows}
    train, test = (
        values_of_rows(stored[split], rows[split]) | values_of_fields(images.source, split, rows[split])
        for split in rows
    )
    files = used_files(images)
    texts = notes_on_texts(train, test, labels, images.split)
    texts = texts or notes_on_file_texts(files, train, test, labels, images.split)
    texts += notes_on_rows(images, {"train": train, images.split: test}, rows)
    groups = notes_on_groups(train, test, labels, names_in(images.source))
    groups = groups or notes_on_tables(files, labels, names_in(images.source))
    return [*notes_on_further_images(images, stored["train"]), *texts, *groups]


def values_of_fields(source: Source, split: str, rows: Sequence[int]) -> dict[str, Cells]:
    """The fields of COCO's entries of images that are not read, as columns: "images.video_id"; {} of other sources."""
    fields = source.image_fields[split] if isinstance(source, Coco) else {}
    return {f"images.{name}": [values[row] for row in rows] for name, values in fields.items()}


def notes_on_further_images(images: EvaluationData, stored: Dataset | None) -> list[str]:
    """A note on further columns of images, of which a label may tell as much: pairs of signatures, before and after.

    Args:
        stored: the training rows with all columns.
    """
    if stored is None:
        return []
    names = [name for name, feature in stored.features.items() if isinstance(feature, ImageFeature)]
    read = images.source.split("train")
    used = [name for name in ("image", "mask") if name in read.column_names]
    known = list(undecoded(read.select_columns(used))[0].values())
    first = undecoded(stored.select_columns(names), names)[0] if names else {}
    further = [name for name in names if first[name] is not None and first[name] not in known]
    if not further:
        return []
    named = ", ".join(f"'{printable(name)}'" for name in further)
    return [
        f"Columns of further images, which are not read: {named}. If a label is of several images, as of a pair, or "
        "a mask is among them, the numbers are of something else."
    ]


def notes_on_rows(
    images: EvaluationData, columns: Mapping[str, Mapping[str, Cells]], rows: Mapping[str, Sequence[int]]
) -> list[str]:
    """Notes on columns that name the images of other rows, as where images and their table were sorted differently.

    Args:
        columns: split -> values of its columns. rows: split -> the rows that are used.
    """
    notes = []
    for split, values in columns.items():
        stored = stored_paths(images, split, "image")
        own = [PurePosixPath(stored[row] or "").stem for row in rows[split]]
        are_numbers = sum(name.isdecimal() for name in own) > OTHER_ROWS * len(own)
        for column, cells in values.items():
            if are_numbers and not are_files(cells):  # they may count anything
                continue
            named = [PurePosixPath(with_slashes(cell) or "").stem for cell in cells]
            wrong = [(one, other) for one, other in zip(own, named, strict=True) if one != other]
            if len(set(own)) < NEARLY * len(own) or len(set(own) & set(named)) < NEARLY * len(own):
                continue
            if len(wrong) >= OTHER_ROWS * len(own):
                words = "training" if split == "train" else split
                one, other = wrong[0]
                notes.append(
                    f"By the column '{printable(column)}', which is not read, {len(wrong):,} of the {len(own):,} "
                    f"{words} rows are of another image than their own (such as '{printable(other)}' in the row of "
                    f"'{printable(one)}'), as where images and their table were sorted differently: labels may be "
                    "those of other images."
                )
                break
    return notes


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


# ---------------------------------------------------------------- texts of classes


def notes_on_texts(
    train: Mapping[str, Cells], test: Mapping[str, Cells], labels: Sequence[Sequence[str]], split: str
) -> list[str]:
    """A note on a column of text that names the classes, and that gives labels another name in the scored split."""
    for column in filter(test.__contains__, train if labels else ()):
        moved, crossed = moved_texts(train[column], test[column], labels)
        if crossed or (moved and OF_CLASSES & set(words_of(column))):
            found, name = moved_words(crossed or moved, split), printable(column)
            advice = f"take it as the label (data.options.columns.label={name})."
            if "." in name:  # part of another column, which cannot be read
                advice = "write it as a column of its own and take it as the label."
            return [f"By the column '{name}', which is not read, {found} If the column names the classes, {advice}"]
    return []


def notes_on_file_texts(
    files: Sequence[Cells],
    train: Mapping[str, Cells],
    test: Mapping[str, Cells],
    labels: Sequence[Sequence[str]],
    split: str,
) -> list[str]:
    """A note on names of files that hold the class, as "daisy_0012.jpg" does, and give labels another one's name.

    The folders of the images are compared by :mod:`name_notes`, those of other columns here.

    Args:
        files: of the training and of the scored images.
        train, test: the values of each column, of which some may be such names, too.
    """
    if not labels:
        return []
    named = [("", files, (name_text, numbered_text))]
    for column in filter(test.__contains__, train):
        pair = [[with_slashes(value) for value in values[column]] for values in (train, test)]
        if all(map(are_files, pair)) and pair != files:
            where = f" in the column '{printable(column)}'"
            named.append((where, pair, (folder_text, name_text, numbered_text)))
    for where, pair, forms in named:
        for form in forms:
            _, crossed = moved_texts(*([form(value) if value else None for value in part] for part in pair), labels)
            if crossed:
                return [f"By the names of the image files{where}, {moved_words(crossed, split)} Check the labels."]
    return []


def folder_text(path: str) -> str:
    return PurePosixPath(path).parent.name


def name_text(path: str) -> str:
    """The words of a file's name, without numbers: "daisy" of "daisy_0012.jpg"."""
    return text_of(re.sub(r"\d+", " ", PurePosixPath(path).stem))


def numbered_text(path: str) -> str:
    """The words of a file's name without the last number: "n01440764" of "n01440764_12.jpg"."""
    return text_of(re.sub(r"\d+(?=\D*$)", " ", PurePosixPath(path).stem))


def text_of(name: str) -> str:
    return " ".join(word for word in re.findall(r"[^\W_]+", name.casefold()) if word not in OF_NAMES)


Moved = list[tuple[str, str, str]]  # labels, each with its text in the training and in the scored split


def moved_texts(train: Cells, test: Cells, labels: Sequence[Sequence[str]]) -> tuple[Moved, Moved]:
    """The labels with another text in the scored split, and those of them whose text is there that of another label."""
    ours, theirs = (texts_of(values, found) for values, found in zip((train, test), labels, strict=True))
    if not ours or not theirs or FEWEST_ROWS * len(ours) > len(labels[0]):
        return [], []
    pairs = [(label, ours[label], theirs[label]) for label in sorted(ours.keys() & theirs.keys())]
    known = set(map(folded, ours.values()))
    moved = [found for found in pairs if folded(found[1]) != folded(found[2])]
    return moved, [found for found in moved if folded(found[2]) in known]


def moved_words(moved: Moved, split: str) -> str:
    label, ours, theirs = moved[0]
    return (
        f"the label '{label}' is '{printable(ours)}' in the training split and '{printable(theirs)}' in the {split} "
        f"split ({len(moved)} such labels), as if each split had numbered its classes for itself: scored images are "
        "then compared with other classes."
    )


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
    labels: Sequence[Sequence[str]],
    known: Iterable[set[str]] = (),
    where: str = "",
) -> list[str]:
    """A note on a column by which both splits have images of one patient, video or original.

    Of several such columns, the one that joins most scored images is named, and of these the one with fewest values.

    Args:
        train, test: the values of each column, of the training and of the scored rows.
        labels: of these rows; [] without labels.
        known: the names of classes and backgrounds: columns of these are none of groups.
        where: the file of the column.
    """
    found: list[tuple[int, int, str, Shared]] = []
    ours, theirs = group_columns(train), group_columns(test)
    for column in ours.keys() & theirs.keys():
        shared = shared_values(column, ours[column], theirs[column], labels, known)
        if shared:
            found.append((-shared.images, shared.count, column, shared))
    if not found:
        return []
    *_, column, shared = min(found)
    total = len(theirs[column])
    return [
        f"By the column '{printable(column)}'{where}, which is not read, {shared.images:,} of the {total:,} scored "
        f"images belong to groups of training images ({shared.values:,} groups, such as '{printable(shared.first)}'): "
        "if images of a group show one person, object or scene, scores are too high. Split the images by this column: "
        "all images of a group belong in one split."
    ]


def group_columns(columns: Mapping[str, Cells]) -> dict[str, Cells]:
    """The columns that may name groups. A well is named together with its plate, as "plate + well"."""
    found = {column: values for column, values in columns.items() if is_group(column) or is_of_images(column)}
    places = {place: column for column in columns if (place := place_of(column))}
    named = [places[place] for place in OF_PLACES if place in places]
    if len(named) < 2:
        return found
    if "well" in places:  # which numbers its sites and fields
        found = {column: values for column, values in found.items() if not {"site", "field"} & set(words_of(column))}
    found = {column: values for column, values in found.items() if column not in named}
    for count in range(1 + ("experiment" in places), len(named) + 1):
        rows = zip(*(columns[column] for column in named[:count]), strict=True)
        found[" + ".join(named[:count])] = [None if any(map(is_missing, row)) else "/".join(row) for row in rows]
    return found


def shared_values(
    column: str, train: Cells, test: Cells, labels: Sequence[Sequence[str]], known: Iterable[set[str]]
) -> Shared | None:
    """The values of a column that both splits have; None where they do not look like those of groups of images."""
    ours, theirs = (Counter(value for value in values if not is_missing(value)) for values in (train, test))
    values, classes = ours.keys() | theirs.keys(), len(set(labels[0])) if labels else 0
    sure = is_sure(column)
    numbered = sum(any(map(str.isdigit, value)) for value in values) >= DIGITS * len(values)
    fewest = FEWEST_OF_ONE if labels and numbered and is_across(train, labels[0]) else max(2, classes + 1)
    if len(values) < (fewest if sure else max(FEWEST_OF_SOME, PER_CLASS * classes)):
        return None
    if any(values <= names for names in known) or not (sure or numbered or is_of_people(column)):
        return None
    both = ours.keys() & theirs.keys()
    images = sum(theirs[value] for value in both)
    least = SHARE_OF_ONE if sure else SHARE_OF_SOME
    if is_of_images(column):  # names that begin anew in each split or class
        if begin_anew(ours, theirs) or not is_repeated(train, test, labels):
            return None
    elif not is_repeated(train, test):
        if not sure or not ours or are_counted(ours):  # numbers of rows
            return None
        least = SHARE_OF_SOME
    return Shared(images, len(both), len(values), min(both)) if images > least * len(test) else None


def is_across(values: Cells, labels: Sequence[str]) -> bool:
    """Whether all values of a column have several labels, as patients may have, and names of classes do not."""
    found: dict[str, set[str]] = defaultdict(set)
    for value, label in zip(values, labels, strict=True):
        if not is_missing(value):
            found[value].add(label)
    return bool(found) and all(len(of_one) > 1 for of_one in found.values())


def is_repeated(train: Cells, test: Cells, labels: Sequence[Sequence[str]] = ()) -> bool:
    """Whether many rows of a split have a value that other rows of it have, with the same label where there are any."""
    for values, of in zip((train, test), labels or (train, test), strict=True):
        counts = Counter(row for row in zip(values, of, strict=True) if not is_missing(row[0]))
        rows = sum(count for count in counts.values() if count > 1)
        if rows and rows >= REPEATED * len(values):
            return True
    return False


def is_missing(value: str | None) -> bool:
    return value is None or value.strip().casefold() in NO_VALUE


def notes_on_tables(files: Sequence[Cells], labels: Sequence[Sequence[str]], known: Sequence[set[str]]) -> list[str]:
    """A note on groups by a table that lies beside the folders of the images, and that names images of both splits."""
    for where, train, test in values_by_tables(files):
        if notes := notes_on_groups(train, test, labels, known, where):
            return notes
    return []
