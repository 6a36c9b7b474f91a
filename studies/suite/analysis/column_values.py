"""The values of columns that are not read, from the files that a parquet source keeps."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Value

from scd.data.sources.folder_names import words_of
from studies.suite.analysis.group_columns import is_group, is_of_images, is_place

Cells = Sequence[str | None]  # of a column, one for each row that is used; None where a row has none

LONGEST = 200  # bytes of a text, on average
IMAGE_FILE = re.compile(r"(?!\w+://).*\.(jpe?g|jpe|png|bmp|gif|tiff?|webp|jp2|p[gpn]m|dcm)", re.IGNORECASE | re.DOTALL)
OF_MASKS = {"mask", "masks", "label", "labels", "annotation", "segmentation", "seg", "gt", "depth", "thumbnail"}
NEARLY = 0.95  # share of the rows whose texts are names of image files, and are different


def stored_rows(dataset: Dataset) -> Dataset | None:
    """The rows of a split with all columns of its files, from the cache; None where they are not kept there."""
    paths = dict.fromkeys(str(file["filename"]) for file in dataset.cache_files)
    parts = [Dataset.from_file(path) for path in paths]
    if not parts:
        return None
    whole = datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    return whole if len(whole) == len(dataset) else None


def values_of_rows(stored: Dataset | None, rows: Sequence[int]) -> dict[str, Cells]:
    """Column -> its values in some rows, as text: of those columns that hold text or numbers that may be names.

    A column that is part of another one is called like both: "metadata.patient_id".
    """
    found: dict[str, Cells] = {}
    for column, feature, cells in single_columns(stored):
        names = feature.names if isinstance(feature, ClassLabel) else None
        if names is None and not is_text(cells) and not (is_name(column) and is_plain(cells.type)):
            continue
        values = cells.take(pa.array(rows, pa.int64()))
        if names is None and pa.types.is_floating(values.type):
            values = whole_numbers(values)
        found[column] = [
            None if value is None else names[value] if names and 0 <= value < len(names) else str(value).strip()
            for value in values.to_pylist()
        ]
    return found


def single_columns(stored: Dataset | None) -> Iterator[tuple[str, Any, pa.ChunkedArray]]:
    """The columns with one value in a row: their names, types and cells; those of images are none."""
    for column, feature in stored.features.items() if stored is not None else ():
        if isinstance(feature, ClassLabel | Value) or is_holder(feature):
            cells = stored.select_columns([column]).with_format("arrow")[:][column]
            yield from single_parts(column, feature, cells)


def single_parts(column: str, feature: Any, cells: pa.ChunkedArray) -> Iterator[tuple[str, Any, pa.ChunkedArray]]:
    if isinstance(feature, ClassLabel | Value):
        yield column, feature, cells
    elif is_holder(feature):
        for name, inner in feature.items():
            yield from single_parts(f"{column}.{name}", inner, pc.struct_field(cells, name))


def is_holder(feature: Any) -> bool:
    """Whether a column has columns of its own, and holds no file."""
    return isinstance(feature, Mapping) and "bytes" not in feature


def is_name(column: str) -> bool:
    return is_group(column) or is_of_images(column) or is_place(column)


def is_plain(kind: pa.DataType) -> bool:
    """Whether cells are short texts or numbers, and no bytes or dates."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or is_number(kind)


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def is_text(cells: pa.ChunkedArray) -> bool:
    """Whether a column holds texts that are short enough for names."""
    text = pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)
    return text and cells.nbytes <= LONGEST * len(cells)


def whole_numbers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers without their fraction, as those of a column with empty cells are; null where they have one."""
    whole = pc.equal(values, pc.floor(values))
    return pc.cast(pc.if_else(whole, values, None), pa.int64(), safe=False)


# ---------------------------------------------------------------- names of files


def file_names(dataset: Dataset) -> list[str | None]:
    """The names of the image files of a split by a column of text; [] without one.

    Of several such columns, the first one that is called like files is taken, or the first one.
    """
    found = {}
    for column, _, cells in single_columns(stored_rows(dataset)):
        if is_text(cells) and not OF_MASKS & set(words_of(column)):
            values = [with_slashes(value) for value in cells.to_pylist()]
            if are_files(values) and len(set(values)) >= NEARLY * len(values):
                found[column] = values
    return next((found[column] for column in sorted(found, key=lambda name: not is_of_images(name))), [])


def with_slashes(name: str | None) -> str | None:
    return name and name.strip().replace("\\", "/")


def are_files(values: Cells) -> bool:
    """Whether texts end like the names of image files, nearly all of them."""
    return sum(1 for value in values if value and IMAGE_FILE.fullmatch(value)) >= NEARLY * len(values)
