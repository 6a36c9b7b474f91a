"""What a reader must know of columns whose values most scored images share with training images, whatever their names.

Columns that are called like patients or videos are noted by :mod:`column_notes`. Of others, values cannot tell whether
they name persons, places and things, or kinds of them: the note says so.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.types

from scd.data.sources.folder_names import words_of
from scd.data.sources.folder_scan import printable
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.column_notes import OF_CLASSES, is_missing, labels_of
from studies.suite.analysis.column_values import Cells, is_number, is_text, single_columns, stored_rows
from studies.suite.analysis.used_rows import used_rows

FEWEST, PER_CLASS = 10, 2  # values in all, and for each class
REPEATED, SHARED = 0.5, 0.5  # shares of the training rows whose value others have, and of the scored rows
PURE = 0.95  # share of the training rows with the most frequent label of their value
MOST_ROWS = 0.2  # share of the training rows that the most frequent value has
DIGITS = 5  # behind the point, of a number
MOST_NAMED = 4
OF_KINDS = OF_CLASSES | {"kind", "type", "taxon", "genus", "family", "order", "variety", "model", "brand", "title"}


def notes_on_shared_values(images: EvaluationData) -> list[str]:
    """A note on columns that are not read by whose values scored images belong to training images."""
    if images.source.embedded:
        return []
    rows = {split: used_rows(images, split).tolist() for split in ("train", images.split)}
    train, test = (short_values(images, split, rows[split]) for split in rows)
    labels = labels_of(images, rows)
    found = [
        column
        for column in train.keys() & test.keys()
        if belongs_together(train[column], test[column], labels[0] if labels else ())
    ]
    if not found:
        return []
    named = ", ".join(f"'{printable(column)}'" for column in sorted(found)[:MOST_NAMED])
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return [
        f"By columns that are not read ({named}{more}), most scored images share their value with training images. If "
        "the values name persons, things or places, and not kinds of them, scores are too high: split the images by "
        "such a column."
    ]


def short_values(images: EvaluationData, split: str, rows: Sequence[int]) -> Mapping[str, Cells]:
    """Column -> its values in some rows, as text: of columns of short texts and of numbers."""
    found = {}
    for column, _, cells in single_columns(stored_rows(images.source.split(split))):
        if (is_number(cells.type) or is_text(cells)) and not OF_KINDS & set(words_of(column)):
            values = cells.take(pa.array(rows, pa.int64())).to_pylist()
            if pyarrow.types.is_floating(cells.type):
                values = [value if value is None else round(value, DIGITS) for value in values]
            found[column] = [None if value is None else str(value).strip() for value in values]
    return found


def belongs_together(train: Cells, test: Cells, labels: Sequence[str]) -> bool:
    """Whether the values of a column group the images of both splits, each group being of one class.

    Args:
        labels: of the training rows; empty without labels.
    """
    ours = Counter(value for value in train if not is_missing(value))
    classes = len(set(labels))
    if not ours or len(ours) < max(FEWEST, PER_CLASS * classes + 1) or max(ours.values()) > MOST_ROWS * len(train):
        return False
    if sum(count for count in ours.values() if count > 1) < REPEATED * len(train):
        return False
    if sum(value in ours for value in test if not is_missing(value)) <= SHARED * len(test):
        return False
    if not labels:
        return not any(map(is_decimal, ours))
    of_value: dict[str, Counter[str]] = defaultdict(Counter)
    for value, label in zip(train, labels, strict=True):
        if not is_missing(value):
            of_value[value][label] += 1
    return sum(max(counts.values()) for counts in of_value.values()) >= PURE * sum(ours.values())


def is_decimal(value: str) -> bool:
    """Whether a value is a whole number, which may measure or count something."""
    return value.lstrip("-").isdecimal()
