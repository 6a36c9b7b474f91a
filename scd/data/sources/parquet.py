"""Parquet files with a column of images, named by path or glob."""

import glob
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features

from scd.atomic import is_disk_full
from scd.data.cache import cache_dir, cache_full, cached_folder, content_hash, file_hashes
from scd.data.sources.columns import read_columns
from scd.data.sources.example import write_example_parquet
from scd.data.sources.quiet import without_progress_bars
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError

PART = re.compile(r"-(\d+)-of-(\d+)(-[0-9a-f]{8,})?$")  # of a split in parts: train-00000-of-00002.parquet
Files = str | os.PathLike | Sequence[str | os.PathLike]


class Parquet(Source):
    """Images of parquet files, which hold them or name their files; relative names start at the parquet file's folder.

    Args:
        train, validation, test: a path, a glob or a list of them for each split; at least one split.
        columns: image, label, mask, objects or background -> the name of that column in the files, where it differs.
        mask_kind: one of :data:`scd.data.masks.KINDS`; None: derived from the columns and the masks.
        foreground: for masks of class ids, the ids that are foreground; None: every id above 0.
        name: for reports and errors.

    Raises:
        UsageError: no files are named, or an option has an impossible value.
        DataError: a file that is missing or cannot be read, or a missing column.
    """

    def __init__(
        self,
        train: Files | None = None,
        validation: Files | None = None,
        test: Files | None = None,
        columns: Mapping[str, str | None] | None = None,
        mask_kind: str | None = None,
        foreground: Sequence[int] | None = None,
        name: str = "parquet",
    ):
        named = {"train": train, "validation": validation, "test": test}
        files = {split: find_files(split, value) for split, value in named.items() if value is not None}
        if not files:
            raise UsageError("source parquet: name at least one of train=, validation=, test= (file paths or globs)")
        digests = {split: file_hashes(found) for split, found in files.items()}
        splits = {split: read_parquet(found, digests[split]) for split, found in files.items()}
        super().__init__(
            **read_columns(name, splits, digests, columns, mask_kind, foreground, folders_of(files)),
            description=f"parquet files of {name}",
        )

    @classmethod
    def example(cls, folder: Path) -> "Parquet":
        write_example_parquet(folder)
        return cls(train=folder / "train.parquet", test=folder / "test.parquet")


def find_files(split: str, value: Files) -> list[Path]:
    """The existing files that a path, a glob or a list of them names, in sorted order.

    Raises:
        DataError: nothing is there, or a glob finds some parts of a split and not all.
    """
    found: list[Path] = []
    for pattern in [value] if isinstance(value, str | os.PathLike) else value:
        pattern = os.path.expanduser(os.fspath(pattern))
        matches = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern))
        if not matches:
            raise DataError(f"{split}={pattern}: no such file")
        sets: dict[str, list[Path]] = {}
        for path in map(Path, matches):
            sets.setdefault(PART.sub("", path.stem), []).append(path)
        for parts in sets.values() if matches != [pattern] else ():
            check_parts(split, parts)
        found.extend(Path(match) for match in matches)
    return found


def folders_of(files: Mapping[str, Sequence[Path]]) -> dict[str, list[Path]]:
    """The folders of each split's files, each once, as whole paths."""
    return {split: list(dict.fromkeys(path.absolute().parent for path in found)) for split, found in files.items()}


def check_parts(split: str, files: Sequence[Path]) -> None:
    """A split that is written in parts has all of them, once.

    Raises:
        DataError: it does not; the text names the missing ones.
    """
    numbered = [match for file in files if (match := PART.search(file.stem))]
    numbers, totals = [int(match[1]) for match in numbered], {int(match[2]) for match in numbered}
    if not numbered:
        return
    if len(totals) > 1 or len(set(numbers)) != len(files):
        raise DataError(f"{split}: '{files[0].parent}' holds parts of several data sets; leave the files of one")
    total = totals.pop()
    first = 1 if total in numbers and 0 not in numbers else 0
    missing = sorted(set(range(first, first + total)) - set(numbers))
    if missing:
        listed = ", ".join(f"{number:05d}" for number in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"{split}: '{files[0].parent}' lacks {len(missing)} of the {total} parts of this split ({listed}); "
            f"fetch them, or rename the others (without '-of-{total:05d}') to use them alone"
        )


def read_parquet(files: Sequence[Path], digests: Sequence[str]) -> Dataset:
    """The data set of some files; they are converted once, and the result is kept in the cache.

    Args:
        files: parquet files of the same columns.
        digests: their hashes.

    Raises:
        UsageError: the cache cannot be written.
        DataError: a file that is not a parquet file, with the names of all files.
    """

    def fill(folder: Path) -> None:
        named, cache = [glob.escape(str(path)) for path in files], str(folder / "unpacked")
        with without_progress_bars():
            made = Dataset.from_parquet(named, features=features_of(files), cache_dir=cache)
        for number, part in enumerate(made.cache_files):
            Path(part["filename"]).rename(folder / f"{number:05d}.arrow")
        del made
        shutil.rmtree(cache)

    try:
        folder = cached_folder("parquet", content_hash([datasets.__version__, *digests]), fill)
        parts = [Dataset.from_file(str(path)) for path in sorted(folder.glob("[0-9]*.arrow"))]
        return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    except (datasets.exceptions.DatasetGenerationError, RuntimeError, OSError, ValueError) as error:  # of pyarrow, too
        if is_disk_full(error):
            raise cache_full(cache_dir() / "parquet") from error
        listed = ", ".join(map(str, files))
        raise DataError(f"cannot read parquet ({listed}): {error.__cause__ or error}") from error


def features_of(paths: Sequence[Path]) -> Features | None:
    """The types of the columns, where the files do not say them in a way that can be read: None.

    Columns that are stored as a dictionary (pandas' categories) have the type of their values.

    Raises:
        DataError: two columns of one name; files without rows; or files of one split that name the classes of a column
            differently: its numbers mean different things.
    """
    schemas = [pq.read_schema(path) for path in paths]
    for path, schema in zip(paths, schemas, strict=True):
        if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
            raise DataError(f"'{path}' has {len(schema.names)} columns, of which two are called '{twice[0]}'; keep one")
    if not any(pq.read_metadata(path).num_rows for path in paths):
        raise DataError(f"'{paths[0]}' has no rows")
    found = [Features.from_arrow_schema(without_dictionaries(schema)) for schema in schemas]
    for path, features in zip(paths[1:], found[1:], strict=True):
        for column, feature in features.items():
            names = (getattr(found[0].get(column), "names", None), getattr(feature, "names", None))
            if column in found[0] and names[0] != names[1]:
                raise DataError(
                    f"'{paths[0]}' and '{path}' are one split, but name the classes of '{column}' differently; write "
                    "both with the same names"
                )
    stored = any(pa.types.is_dictionary(field.type) for schema in schemas for field in schema)
    return found[0] if stored else None


def without_dictionaries(schema: pa.Schema) -> pa.Schema:
    """The schema with the values' type in the place of each dictionary's."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field for field in schema
    ]
    return pa.schema(fields, schema.metadata)
