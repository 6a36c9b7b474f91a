"""Class labels of all splits with one numbering.

The rules of every format that is read from files:

- A label is text, a whole number, a truth value, or a number with a name (``ClassLabel``). Its class is known by its
  name: the text, the number's decimal digits, or the name beside the number. Splits are aligned by these names, never
  by the numbers in the files.
- Classes are numbered from 0: those of the training split first, in the order of its file's names or sorted; then those
  that only other splits show, sorted. The numbers of the training labels depend on no other split.
- An empty cell, NaN, empty text and -1 are no label; the text "-1" is none where all other labels are digits, or where
  a split has no other. A split without any label is a split without labels, and the source says so. A split in which
  some images have no label is an error.
- Other names that may mean "no label", such as "nan" and "None", are classes, and the source says so.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset

from scd.errors import DataError

NO_LABEL = -1
DIGITS = re.compile(r"\d+(\.0+)?")
MINUS_ONE = re.compile(r"\s*-1(\.0+)?\s*")
DOUBTFUL = re.compile(r"\s*(-1(\.0+)?|n/?a|<na>|none|null|nan)?\s*", re.IGNORECASE)  # may mean that there is no label


@dataclass(frozen=True)
class Column:
    """The labels of one split.

    Attributes:
        names: of the classes, each once.
        numbers: (N,) int64, index into ``names``; -1 where there is no label.
        ordered: whether the file itself orders its names.
        numeric: whether the names are the digits of numbers.
        text: whether the file holds text.
    """

    names: tuple[str, ...]
    numbers: np.ndarray
    ordered: bool = False
    numeric: bool = False
    text: bool = False

    @property
    def counts(self) -> bool:
        """Whether a number of the file and its name are the same, as far as the file has both."""
        return not self.ordered or all(name == str(number) for number, name in enumerate(self.names))


@dataclass
class Numbered:
    """Splits whose labels have one numbering.

    Attributes:
        splits: as given, with a ``ClassLabel`` column in each split that has labels.
        names: of the classes; None where no split has labels.
        plain: True where the names are only the digits of numbers in the files.
        notes: what is not used, one sentence each.
    """

    splits: dict[str, Dataset]
    names: tuple[str, ...] | None = None
    plain: bool = False
    notes: list[str] = field(default_factory=list)


def number_labels(source: str, splits: Mapping[str, Dataset], column: str = "label") -> Numbered:
    """Labels of all splits with one numbering, by the rules of this module.

    Args:
        source: its name, for errors.
        splits: the training split first.
        column: "label" or "background".

    Raises:
        DataError: values that are no class labels, a split in which some images have no label, or splits whose classes
            cannot be aligned; the text names the split and the row.
    """
    result = Numbered(dict(splits))
    found: dict[str, Column] = {}
    columns = without_minus_one(
        {
            split: read_labels(f"'{source}' {split}", dataset, column)
            for split, dataset in splits.items()
            if column in dataset.column_names
        }
    )
    for split, read in columns.items():
        missing = read.numbers == NO_LABEL
        if missing.all():
            result.splits[split] = splits[split].remove_columns(column)
        elif missing.any():
            raise DataError(
                f"'{source}' {split} row {int(missing.argmax())}: no {column} ({int(missing.sum())} of {len(missing)} "
                f"rows have none); give all images of a split a {column}, or none"
            )
        else:
            found[split] = read
    if not found:
        if rows := sum(len(read.numbers) for read in columns.values()):
            result.notes = [f"No image has a {column}: all {rows} rows are empty or {NO_LABEL}."]
        return result
    without = [{"train": "training"}.get(split, split) for split in splits if split not in found]
    result.notes = [f"The {words} images have no {column}s." for words in without]
    first = next(iter(found))
    names = list(found[first].names if found[first].ordered else sorted_names(found[first]))
    for split, read in found.items():
        check_alignment(source, column, (first, found[first]), (split, read))
        used = [read.names[number] for number in np.unique(read.numbers)]
        names += sorted(set(used) - set(names), key=natural if read.numeric else None)
    place = {name: number for number, name in enumerate(names)}
    for split, read in found.items():
        numbers = np.array([place.get(name, NO_LABEL) for name in read.names], np.int64)[read.numbers]
        result.splits[split] = replaced(splits[split], column, numbers, names)
    result.names, result.plain = tuple(names), all(read.numeric for read in found.values())
    result.notes += [*doubtful(found.values(), column), *alike(names, column)]
    return result


def without_minus_one(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The labels of all splits, in which the text "-1" is no label where it stands for the number.

    It does where all other labels of all splits are digits, and in a split that has no other label. Beside names, and
    beside other numbers below 0, it is a class.
    """
    used = {split: sorted_names(read) for split, read in columns.items()}
    others = [name for names in used.values() for name in names if not MINUS_ONE.fullmatch(name)]
    numbers = all(DIGITS.fullmatch(name.strip()) for name in others)
    result = dict(columns)
    for split, read in columns.items():
        if read.text and (numbers or all(MINUS_ONE.fullmatch(name) for name in used[split])):
            minus_one = [number for number, name in enumerate(read.names) if MINUS_ONE.fullmatch(name)]
            none = np.isin(read.numbers, minus_one)
            result[split] = replace(read, numbers=np.where(none, NO_LABEL, read.numbers))
    return result


def doubtful(columns: Iterable[Column], column: str) -> list[str]:
    """A note on classes whose names may mean that there is no label."""
    rows: Counter[str] = Counter()
    for read in columns:
        numbers, counts = np.unique(read.numbers, return_counts=True)
        for number, count in zip(numbers, counts, strict=True):
            if DOUBTFUL.fullmatch(read.names[number]):
                rows[read.names[number].strip()] += int(count)
    if not rows:
        return []
    listed = ", ".join(f"'{name}' ({count} row{'s' if count > 1 else ''})" for name, count in rows.items())
    return [f"{column.capitalize()}s that may mean 'no {column}' and count as classes: {listed}."]


def alike(names: Sequence[str], column: str) -> list[str]:
    """A note on classes whose names differ in capitals, spaces or hyphens alone: they may be meant as one."""
    first: dict[str, str] = {}
    pairs = [(first[folded(name)], name) for name in names if first.setdefault(folded(name), name) != name]
    if not pairs:
        return []
    listed = ", ".join(f"'{one}' and '{other}'" for one, other in pairs[:3])
    more = ", ..." if len(pairs) > 3 else ""
    return [f"Names of {column}s that are almost alike count as different classes ({len(pairs)}): {listed}{more}."]


def read_labels(where: str, dataset: Dataset, column: str) -> Column:
    """The labels of one split.

    Raises:
        DataError: a column or a value that is no class label.
    """
    feature = dataset.features[column]
    values = dataset.select_columns([column]).with_format("arrow")[:].column(column).combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # of no chunk at all
        values = pa.array([], values.type)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if isinstance(feature, ClassLabel):
        numbers = pc.fill_null(values, NO_LABEL).to_numpy(zero_copy_only=False)
        wrong = (numbers < NO_LABEL) | (numbers >= len(feature.names))
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"{where} row {row}: {column} {numbers[row]}, but the column names {len(feature.names)} classes"
            )
        return Column(tuple(feature.names), numbers.astype(np.int64), ordered=True)
    if pa.types.is_null(kind):
        return Column((), np.full(len(values), NO_LABEL, np.int64))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return encoded(values, missing=("",), text=True)
    if pa.types.is_boolean(kind):
        return encoded(pc.cast(values, pa.string()))
    if pa.types.is_floating(kind):
        values = whole_numbers(where, values, column)
    elif not pa.types.is_integer(kind):
        raise DataError(
            f"{where}: column '{column}' holds {kind}, not one class for each image (text or whole numbers); name "
            f"another column with data.options.columns.{column}=..."
        )
    if pa.types.is_signed_integer(values.type):
        negative = pc.fill_null(pc.less(values, NO_LABEL), False).to_numpy(zero_copy_only=False)
        if negative.any():
            row = int(negative.argmax())
            raise DataError(
                f"{where} row {row}: {column} {values[row]}; classes are 0 or more, and {NO_LABEL} means no {column}"
            )
    return encoded(pc.cast(values, pa.string()), missing=(str(NO_LABEL),), numeric=True)


def whole_numbers(where: str, values: pa.Array, column: str) -> pa.Array:
    """Floating-point labels as integers, null where they are NaN.

    Raises:
        DataError: a value that is not a whole number.
    """
    numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)  # null becomes NaN
    missing = np.isnan(numbers)
    wrong = ~missing & ((numbers != np.floor(numbers)) | (np.abs(numbers) > 2**53))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{where} row {row}: {column} {numbers[row]:g} is not a whole number, so no class")
    return pa.array(np.where(missing, 0, numbers).astype(np.int64), mask=missing)


def encoded(values: pa.Array, missing: Sequence[str] = (), numeric: bool = False, text: bool = False) -> Column:
    """Text as numbers; some texts, with or without spaces around them, and null are no label."""
    table = pc.dictionary_encode(values)
    numbers = pc.fill_null(table.indices, NO_LABEL).to_numpy(zero_copy_only=False).astype(np.int64)
    names = table.dictionary.to_pylist()
    for number, name in enumerate(names):
        if name.strip() in missing:
            numbers[numbers == number] = NO_LABEL
    return Column(tuple(names), numbers, numeric=numeric, text=text)


def sorted_names(read: Column) -> list[str]:
    """The names that a split uses, sorted."""
    used = [read.names[number] for number in np.unique(read.numbers) if number != NO_LABEL]
    return sorted(used, key=natural if read.numeric else None)


def natural(name: str) -> int:
    """The number of a name that consists of digits."""
    return int(name)


def check_alignment(source: str, column: str, first: tuple[str, Column], other: tuple[str, Column]) -> None:
    """Make sure that the classes of a split mean the same as those of the first one.

    Raises:
        DataError: names in one and numbers in the other, or names that differ in capitals or spaces alone.
    """
    (known, theirs), (split, ours) = first, other
    strange = sorted(set(sorted_names(ours)) - set(theirs.names))
    if theirs.numeric != ours.numeric and (strange or not (theirs.counts and ours.counts)):
        kinds = {True: "numbers", False: "names"}
        raise DataError(
            f"'{source}': the {column}s of {known} are {kinds[theirs.numeric]} and those of {split} "
            f"{kinds[ours.numeric]}; give both in one form"
        )
    plain = {folded(name): name for name in theirs.names}
    for name in strange:
        if folded(name) in plain:
            other = plain[folded(name)]
            same = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)
            why = " with other Unicode characters (NFC and NFD) that look the same" if same else ""
            raise DataError(
                f"'{source}': {column} '{name}' of {split} is written '{other}' in {known}{why}; write both alike"
            )


def folded(name: str) -> str:
    """A name without what people and programs write differently: capitals, spaces, hyphens, leading zeros, the zeros
    of a decimal fraction (1.0), the Unicode form of a letter with an accent.

    What tells names apart stays: a minus before a number ("-5"), a hyphen at the end ("A-"), and that there is a space
    or a hyphen before a digit ("1-2" is not "12", but it is "1_2").
    """
    plain = unicodedata.normalize("NFC", name).casefold().replace("_", " ").strip()
    plain = re.sub(r"(?<!\w)-(?=\d)|-$", "\N{MINUS SIGN}", plain)
    plain = re.sub(r"[\s-]+(\d?)", lambda gap: f" {gap[1]}" if gap[1] else "", plain)
    plain = re.sub(r"^(\N{MINUS SIGN}?\d+)\.0+$", r"\1", plain)
    return re.sub(r"^(\N{MINUS SIGN}?)0+(?=.)", r"\1", plain)


def replaced(dataset: Dataset, column: str, numbers: np.ndarray, names: Sequence[str]) -> Dataset:
    """The data set with another column of labels in the same place."""
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel) and list(feature.names) == list(names):
        return dataset
    order, new = dataset.column_names, f"numbers of {column}"
    labelled = dataset.add_column(new, numbers, feature=ClassLabel(names=list(names)))
    return labelled.remove_columns(column).rename_column(new, column).select_columns(order)
