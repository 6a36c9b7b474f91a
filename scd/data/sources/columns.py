"""From the columns of a file to the columns of a source: their names, and what the masks hold."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Image

from scd.data.cache import content_hash, file_hashes
from scd.data.masks import KINDS, find_kind
from scd.data.sources.labels import number_labels
from scd.data.sources.mask_checks import check_masks
from scd.data.sources.relative_paths import cells_and_paths, is_file, shortened, with_whole_paths
from scd.errors import DataError, UsageError, unknown

COLUMNS = ("image", "label", "mask", "objects", "background")
MOST_LISTED = 5  # names of columns in a note
NO_MAP = "The column objects is not used: there is no map of the objects' pixels beside it (a column mask)."
ALL_IDS = "The masks hold class ids, and every id above 0 counts as the object; data.options.foreground names others."


def read_columns(
    name: str,
    splits: Mapping[str, Dataset],
    contents: Mapping[str, object],
    columns: Mapping[str, str | None] | None = None,
    mask_kind: str | None = None,
    foreground: Sequence[int] | None = None,
    folders: Mapping[str, Sequence[Path]] | None = None,
) -> dict[str, Any]:
    """The arguments of :class:`scd.data.sources.source.Source` for data sets whose columns the user may name.

    Args:
        name: of the source, for reports and errors.
        splits: as read from the files, the training split first.
        contents: what identifies each split's files.
        columns: our column name -> the name in the files; None or absent: the same name; empty: left out.
        mask_kind: one of :data:`scd.data.masks.KINDS`; None: derived from the columns and the masks.
        foreground: for masks of class ids, the ids that are foreground.
        folders: those at which the relative paths of a split's images start; None: the working directory.

    Raises:
        UsageError: an unknown column or mask kind, or an option that these masks do not have.
        DataError: a column that is missing or does not hold images, a split without rows, objects whose categories have
            another numbering in another split, or masks whose palettes differ (:mod:`scd.data.sources.mask_checks`).
    """
    if mask_kind not in (None, *KINDS):
        raise unknown("mask_kind", mask_kind, KINDS)
    for ours in columns or {}:
        if ours not in COLUMNS:
            raise unknown("column", ours, COLUMNS)
    for split, dataset in splits.items():
        if len(dataset) == 0:
            raise DataError(f"split '{split}' of '{name}' has no rows")
    named = {ours: theirs for ours, theirs in (columns or {}).items() if theirs is not None}
    left_out = {ours for ours, theirs in named.items() if theirs == ""}
    dropped = left_out - set(named.values())  # a column that has another meaning stays
    splits = {split: without_columns(dataset, dropped) for split, dataset in splits.items()}
    named = {ours: theirs for ours, theirs in named.items() if theirs}
    notes = unread_columns(splits, named)
    labels = number_labels(name, {split: rename_columns(name, dataset, named) for split, dataset in splits.items()})
    backgrounds = number_labels(name, labels.splits, "background")
    splits = backgrounds.splits
    for split in folders or {}:
        splits[split], found = with_whole_paths(name, split, splits[split], folders[split])
        notes += found
    check_object_columns(name, splits)
    check_categories(name, splits)
    has_masks, has_objects = (any(it in d.column_names for d in splits.values()) for it in ("mask", "objects"))
    outside = {split: files_outside(name, split, dataset) for split, dataset in splits.items()}
    contents = {split: [contents[split], *found] if (found := outside[split]) else contents[split] for split in splits}
    if has_objects and not has_masks:
        notes = [*notes, NO_MAP]
    if not has_masks and (mask_kind is not None or foreground is not None):
        option = "mask_kind" if mask_kind is not None else "foreground"
        raise UsageError(f"'{name}' has no column of masks for data.options.{option}")
    kind, mask_notes = mask_kind, []
    if has_masks:
        identity = {split: [contents[split], named] for split in splits}
        if kind is None:
            kind, mask_notes = ("instances", []) if has_objects else find_kind(name, splits, identity)
        mask_notes = [*mask_notes, *check_masks(name, splits, identity, kind, mask_kind is not None)]
        if foreground is not None and kind != "classes":
            raise UsageError(
                f"data.options.foreground={list(foreground)} chooses among class ids, but the masks of '{name}' are "
                f"{kind}"
            )
    if kind == "classes" and foreground is None and mask_kind is None:
        mask_notes = [*mask_notes, ALL_IDS]
    foreground = tuple(int(value) for value in foreground) if foreground is not None else None
    fingerprints = {}
    for split in splits:
        used = {**named, **dict.fromkeys(sorted(left_out), "")}
        identity = {"content": contents[split], "columns": used, "mask": [kind, foreground]}
        if split != "train":  # the numbers of its labels depend on the training split's names
            identity["class_names"] = labels.names
            identity["background_names"] = backgrounds.names
        fingerprints[split] = content_hash(identity)
    return {
        "name": name,
        "splits": splits,
        "fingerprints": fingerprints,
        "class_names": labels.names,
        "background_names": None if backgrounds.plain else backgrounds.names,
        "mask_kind": kind,
        "foreground": foreground,
        "notes": [*notes, *mask_notes, *labels.notes, *backgrounds.notes],
    }


def without_columns(dataset: Dataset, columns: Collection[str]) -> Dataset:
    """The data set without some columns, where it has them."""
    return dataset.remove_columns([column for column in columns if column in dataset.column_names])


def check_object_columns(name: str, splits: Mapping[str, Dataset]) -> None:
    """Raise DataError for a column ``objects`` that does not hold boxes with categories.

    Beside such a column a mask is a map of the objects. Beside names or counts of objects it is none.
    """
    for split, dataset in splits.items():
        fields = object_fields(dataset.features["objects"]) if "objects" in dataset.column_names else {}
        if fields is None or (fields and not {"bbox", "category"} <= set(fields)):
            found = ", ".join(fields) if fields else "no fields"
            raise DataError(
                f"'{name}' {split}: the column objects has {found}, where boxes with categories are expected (bbox, "
                "category); if it is something else, leave it out with data.options.columns.objects=''"
            )


def object_fields(objects: Any) -> Mapping[str, Any] | None:
    """The fields of a column of objects, lists in a mapping or a list of mappings; None where it has none."""
    fields = objects if isinstance(objects, dict) else getattr(objects, "feature", None)
    return fields if isinstance(fields, dict) else None


def check_categories(name: str, splits: Mapping[str, Dataset]) -> None:
    """Raise DataError where the categories of objects have other names, or another order of them, in another split."""
    first: tuple[str, list[str] | None] | None = None
    for split, dataset in splits.items():
        if "objects" not in dataset.column_names:
            continue
        names = category_names(dataset.features["objects"])
        known, theirs = first = first or (split, names)
        if names != theirs:
            raise DataError(
                f"'{name}': the categories of the objects are {first_names(theirs)} in {known} and "
                f"{first_names(names)} in {split}; write both with the same names in the same order"
            )


def category_names(objects: Any) -> list[str] | None:
    """The names of the categories of a column ``objects``, lists in a mapping or a list of mappings; None without."""
    category = (object_fields(objects) or {}).get("category")
    return getattr(getattr(category, "feature", category), "names", None)


def first_names(names: Sequence[str] | None) -> str:
    """The first few names for a message; None: those of categories that have none."""
    if names is None:
        return "numbers without names"
    return ", ".join([*names[:MOST_LISTED], *(["..."] if len(names) > MOST_LISTED else [])])


def unread_columns(splits: Mapping[str, Dataset], named: Mapping[str, str]) -> list[str]:
    """A note on the columns that are not read: labels may stand under another name there."""
    read = {*named.values(), *(set(COLUMNS) - set(named))}
    others = dict.fromkeys(name for dataset in splits.values() for name in dataset.column_names if name not in read)
    if not others:
        return []
    labelled = named.get("label", "label") in next(iter(splits.values())).column_names
    hint = "" if labelled else "; one of labels is named with data.options.columns.label=NAME"
    return [f"Columns that are not read ({len(others)}): {first_names(list(others))}{hint}."]


def rename_columns(source: str, dataset: Dataset, columns: Mapping[str, str]) -> Dataset:
    """The data set with our column names and no other columns.

    Raises:
        UsageError: one column with two meanings.
        DataError: a column that is missing, with those that there are, or one that does not hold images.
    """
    for ours, theirs in columns.items():
        if theirs not in dataset.column_names:
            raise _no_column(source, theirs, dataset, ours)
    if len(set(columns.values())) < len(columns):
        raise UsageError(f"columns={dict(columns)} uses one column twice")
    taken = set(columns.values())  # a column that the user gives another meaning loses its own
    wanted = {ours: columns.get(ours, ours) for ours in COLUMNS if ours in columns or ours not in taken}
    if wanted.get("image") not in dataset.column_names:
        raise _no_column(source, "image", dataset, "image")
    present = {theirs: ours for ours, theirs in wanted.items() if theirs in dataset.column_names}
    dataset = dataset.select_columns(list(present))
    dataset = dataset.rename_columns({theirs: ours for theirs, ours in present.items() if theirs != ours})
    for column in ("image", "mask"):
        feature = dataset.features.get(column)
        if feature is None or isinstance(feature, Image):
            continue
        encoded = isinstance(feature, dict) and {"bytes", "path"} <= set(feature)
        if not encoded and getattr(feature, "dtype", "") not in ("string", "large_string", "binary", "large_binary"):
            what = f"{feature}, not images"
            if isinstance(feature, dict):
                what = f"the fields {', '.join(feature)}; a picture has the fields bytes and path"
            hint = "; data.options.columns.mask='' leaves it out" if column == "mask" else ""
            raise DataError(f"column '{wanted[column]}' of '{source}' holds {what}{hint}")
        dataset = dataset.cast_column(column, Image())
    return dataset


def files_outside(source: str, split: str, dataset: Dataset) -> list[str]:
    """Hashes of the image files that the cells of a data set only name, column by column.

    Raises:
        DataError: one that is not on this machine, by row.
    """
    hashes = []
    for column in ("image", "mask"):
        if column not in dataset.column_names:
            continue
        _, named = cells_and_paths(dataset, column)
        for row, path in named.items():
            if not is_file(Path(path)):
                if path.startswith("data:"):
                    raise DataError(
                        f"'{source}' {split} row {row}: the {column} is text of an encoded picture ({path[:22]}...); "
                        "store the picture's bytes"
                    )
                raise DataError(
                    f"'{source}' {split} row {row}: the {column} '{shortened(path)}' is not a file of this machine"
                )
        hashes += file_hashes([Path(path) for path in named.values()])
    return hashes


def _no_column(source: str, column: str, dataset: Dataset, ours: str) -> DataError:
    return DataError(
        f"'{source}' has no column '{column}'; its columns: {', '.join(dataset.column_names)}; "
        f"name yours with data.options.columns.{ours}=NAME"
    )
