"""Tables beside the folders of images, or in them, that say more of each image: its patient, its video, its original.

A table lies in the folder of all images, in a folder of lists or of a split in it, or up to two folders above. Tables
of the same columns, one for each split, are read as one.
"""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from os.path import commonpath
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from scd.data.sources.folder_names import is_part, words_of
from scd.data.sources.folder_scan import printable
from scd.data.sources.source import split_of
from studies.suite.analysis.column_values import Cells
from studies.suite.analysis.group_columns import OF_FILES, is_group
from studies.suite.analysis.list_notes import TABLES, columns_of, entries, folders_of_lists, is_of

LARGEST = 2**25  # bytes of a table that is read
MOST_TABLES = 20
MOST_FOLDERS = 3  # before the name of an image
MOST_PARTS = 20  # folders of splits in the folder of all images; more are classes

Columns = dict[str, list[str | None]]


def values_by_tables(files: Sequence[Cells]) -> Iterator[tuple[str, Columns, Columns]]:
    """Where tables lie, in words, with the values of their columns for the training and for the scored images.

    Args:
        files: the paths of these images; where they are no files of this machine, there are no tables.
    """
    if not all(files) or not all(map(all, files)):
        return
    used = [[Path(path).absolute() for path in found] for found in files]
    if not all(found[0].is_file() for found in used):
        return
    root = Path(commonpath([path.parent for found in used for path in found]))
    parts = parts_of(root, used)
    tables = {path: read_table(path) for path in tables_around(root)}
    for paths in [*([path] for path in tables), *alike(tables)]:
        train, test = values_of_images({path: tables[path] for path in paths}, parts, used)
        if all(any(value is not None for values in cells.values() for value in values) for cells in (train, test)):
            yield in_words(paths), train, test


def alike(tables: Mapping[Path, Columns]) -> list[list[Path]]:
    """Tables that have the same columns of groups: those of the splits of a set."""
    found: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path, columns in tables.items():
        found[tuple(sorted(filter(is_group, columns)))].append(path)
    return [paths for groups, paths in found.items() if groups and len(paths) > 1]


def in_words(paths: Sequence[Path]) -> str:
    """ " of 'train.csv' and 'test.csv'"; with the folders of tables that have one name."""
    one_name = len({path.name for path in paths}) < len(paths)
    names = [f"'{printable(f'{path.parent.name}/{path.name}' if one_name else path.name)}'" for path in paths[:3]]
    more = [f"{len(paths) - 3} more"] if len(paths) > 3 else []
    *first, last = [*names, *more]
    return f" of {', '.join(first)} and {last}" if first else f" of {last}"


def values_of_images(
    tables: Mapping[Path, Columns], parts: Sequence[Path], used: Sequence[Sequence[Path]]
) -> tuple[Columns, Columns]:
    """The values of the columns that all tables have, for each image of the splits; None without a row."""
    common = [name for name in next(iter(tables.values())) if all(name in columns for columns in tables.values())]
    train, test = ({name: [None] * len(found) for name in common} for found in used)
    for path, columns in tables.items():
        part = part_of(path, parts)
        own = [[file if part is None or file.is_relative_to(part) else None for file in found] for found in used]
        for cells, rows in zip((train, test), rows_by_image(columns, own), strict=True):
            for place, row in enumerate(rows):
                for name in common if row is not None else ():
                    cells[name][place] = columns[name][row]
    return train, test


# ---------------------------------------------------------------- where they lie


def tables_around(root: Path) -> list[Path]:
    """The tables with a column of groups in the folder of all images, in its folders of lists and splits, and above.

    Beside a folder that may be one of many, a table that does not name it may be of another. The folder above the next
    one is looked at where the next one is called like one of images or of a split, as "imgs" of "imgs/train" is.
    """
    beside = tables_in(root.parent)
    if not is_inner(root):
        beside = [path for path in beside if is_of(path, root.name)]
    above = tables_in(root.parent.parent) if is_inner(root) and is_inner(root.parent) else []
    return list(dict.fromkeys([*tables_in(root), *beside, *above]))[:MOST_TABLES]


def is_inner(folder: Path) -> bool:
    return is_part(folder.name) or split_of(folder.name) is not None


def parts_of(root: Path, used: Sequence[Sequence[Path]]) -> list[Path]:
    """The folders in the folder of all images that hold images; [] where there are as many as classes may be."""
    names = {path.relative_to(root).parts[0] for found in used for path in found if path.parent != root}
    return [root / name for name in sorted(names)] if len(names) <= MOST_PARTS else []


def part_of(table: Path, parts: Sequence[Path]) -> Path | None:
    """The folder whose images a table names: the one that it lies in, or "train" of "train.csv"; None: any."""
    splits = {split_of(part.name): part for part in parts if split_of(part.name)}
    own = [part for part in parts if table.is_relative_to(part)]
    return own[0] if own else splits.get(split_of(table.stem))


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


def rows_by_image(columns: Mapping[str, Cells], paths: Sequence[Sequence[Path | None]]) -> list[list[int | None]]:
    """For each image of the splits the row of a table that names it, None without, and for None.

    They are named by the column that names most of them, and among such columns by one whose own name says so.
    """
    named = [path for found in paths for path in found if path]
    images = Counter(key for path in named for key in keys_of(path))
    best, result = (0, False), [[None] * len(found) for found in paths]
    for column, values in columns.items():
        if 2 * len(set(values)) < len(named):
            continue
        rows = rows_by_key(values)
        found = [[row_of(path, rows, images) if path else None for path in part] for part in paths]
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
