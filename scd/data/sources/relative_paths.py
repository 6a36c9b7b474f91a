"""Image files that the rows of a parquet file name by relative paths: these start at the folder of that file."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset, Image
from pyarrow import ChunkedArray

from scd.errors import DataError

LONGEST_PATH = 200  # characters of a path in an error
FROM_HERE = "{} files named by relative paths are read from the working directory: the folder of the parquet file does \
not hold them."


def with_whole_paths(source: str, split: str, dataset: Dataset, folders: Sequence[Path]) -> tuple[Dataset, list[str]]:
    """The rows of a split with whole paths in the place of relative ones, and notes.

    The paths of a column start at one folder: at the first of ``folders`` that holds its first file, or else at the
    working directory, which is noted.

    Args:
        source: its name, for errors.
        dataset: whose columns ``image`` and ``mask``, where it has them, are of type ``Image``.
        folders: those of the parquet files.

    Raises:
        DataError: a file that is not there, by row.
    """
    notes = []
    for column in ("image", "mask"):
        if column not in dataset.column_names:
            continue
        cells, paths = cells_and_paths(dataset, column)
        relative = {row: path for row, path in paths.items() if is_relative(path)}
        if not relative:
            continue
        first = next(iter(relative.values()))
        here = Path.cwd()
        base = next((folder for folder in (*folders, here) if is_file(folder / first)), folders[0])
        for row, path in relative.items():
            if not is_file(base / path):
                raise DataError(
                    f"'{source}' {split} row {row}: the {column} '{shortened(path)}' is not a file of this machine; a "
                    f"relative path starts at the folder of the parquet file, here '{base}'"
                )
        if base not in folders:
            notes.append(FROM_HERE.format({"train": "Training"}.get(split, split.capitalize())))
        whole = cells.to_pylist()
        for row, path in relative.items():
            whole[row] = {"bytes": None, "path": str(base / path)}
        order = dataset.column_names
        dataset = dataset.remove_columns(column).add_column(column, whole, feature=Image()).select_columns(order)
    return dataset, list(dict.fromkeys(notes))


def cells_and_paths(dataset: Dataset, column: str) -> tuple[ChunkedArray, dict[int, str]]:
    """The cells of a column of images, and row -> path of those that name a file and do not hold its content."""
    cells = dataset.select_columns([column]).with_format("arrow")[:][column]
    paths = pc.if_else(pc.is_valid(pc.struct_field(cells, "bytes")), None, pc.struct_field(cells, "path"))
    return cells, {row: path for row, path in enumerate(paths.to_pylist()) if path}


def shortened(path: str) -> str:
    """A path as an error shows it."""
    return path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}..."


def is_relative(path: str) -> bool:
    """Whether text is a relative path; an encoded picture is none."""
    return not path.startswith("data:") and not Path(path).is_absolute()


def is_file(path: Path) -> bool:
    """Whether a path is that of a file; text that no file system takes as a path is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
