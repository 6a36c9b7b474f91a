"""Image sources: embedded generators, parquet files, image folders and hub sets, all as one :class:`Source`.

A mask is for scoring, or for a method that says so; which of its values count as foreground is part of the source.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import datasets
from datasets import ClassLabel, Dataset, Image, disable_progress_bars, enable_progress_bars

from scd.data.cache import cache_dir, cached_folder
from scd.data.sources import shapes
from scd.data.sources.files import find_images, folder_columns, parquet_files, sha256_of
from scd.data.sources.hub import load_hub
from scd.errors import DataError, UsageError, unknown

COLUMNS = ("image", "label", "mask", "objects", "background")
MASK_KINDS = ("binary", "instances", "classes")
KINDS = ("shapes", "parquet", "imagefolder", "hub")


@dataclass(frozen=True)
class Source:
    """A named, versioned set of images.

    Args:
        name: for the report; a path's source is named after its folder.
        version: of the generator, or the first characters of the fingerprint.
        splits: split name -> Dataset with the columns ``image`` and, where known, ``label``, ``mask``, ``objects``,
            ``background``.
        fingerprint: hash of the content and of the options that change it.
        class_names, background_names: names of the integer labels, where known.
        mask_kind: None; "binary" (object above 127); "instances" (k > 0 is object k); "classes" (class ids).
        foreground: for "classes", the ids that count as foreground; None means every id above 0.
        description: one line for the report.
    """

    name: str
    version: str
    splits: dict[str, Dataset]
    fingerprint: str
    class_names: tuple[str, ...] | None
    background_names: tuple[str, ...] | None
    mask_kind: str | None
    description: str
    foreground: tuple[int, ...] | None = None

    def split(self, name: str) -> Dataset:
        """One split. Raises UsageError for a split that does not exist."""
        if name not in self.splits:
            raise unknown(f"split of '{self.name}'", name, self.splits)
        return self.splits[name]


def open_source(name: str, **options) -> Source:
    """Open an image source by name or path.

    Args:
        name: "shapes" (the embedded generator); "parquet" with ``train=``, ``test=``, ``validation=`` (paths or
            globs); "imagefolder" with ``path=``; "hub" with ``repo=``, ``config=``, ``revision=``; or the path of a
            folder that holds train.parquet and test.parquet, or images.
        options: the generator's options (:class:`scd.data.sources.shapes.ShapesOptions`); for files also ``columns`` (a
            mapping of image, label, mask, objects, background to the set's own names), ``mask_kind``, ``foreground``
            (class ids) and, for one folder without splits, ``test_fraction``.

    Raises:
        UsageError: unknown name or option.
        DataError: missing file, empty folder or missing column.
    """
    if name == "shapes":
        return _open_shapes(options)
    if name == "parquet":
        return _open_parquet("parquet", options)
    if name == "imagefolder":
        return _open_folder(options)
    if name == "hub":
        return _open_hub(options)
    path = Path(name).expanduser()
    if path.is_dir():
        found = {split: str(path / f"{split}.parquet") for split in ("train", "validation", "test")}
        found = {split: file for split, file in found.items() if Path(file).is_file()}
        if found:
            return _open_parquet(path.resolve().name, {**found, **options})
        return _open_folder({"path": name, **options})
    if path.suffix == ".parquet" and path.is_file():
        raise UsageError(f"'{name}' is one parquet file; use the name parquet with train={name} and test=...")
    if "/" in name or "\\" in name:
        raise DataError(f"no such folder: '{name}'")
    raise unknown("data source", name, KINDS)


# ------------------------------------------------------------------------------------------------ the kinds


def _open_shapes(options: Mapping) -> Source:
    known = shapes.shapes_options(options)
    content = {"generator": "shapes", "version": shapes.VERSION, **shapes.describe(known)}
    fingerprint = _hash(content)

    def fill(folder: Path) -> None:
        for split, count in (("train", known.train), ("test", known.test)):
            with _quiet():
                shapes.to_dataset(known, split, count).save_to_disk(folder / split)

    folder = cached_folder("shapes", fingerprint, fill)
    return Source(
        name="shapes",
        version=shapes.VERSION,
        splits={split: datasets.load_from_disk(folder / split) for split in ("train", "test")},
        fingerprint=fingerprint,
        class_names=shapes.class_names(known.classes),
        background_names=shapes.background_names(known.classes),
        mask_kind="binary",
        description=f"embedded generator shapes {shapes.VERSION}: {known.classes} object classes on as many background "
        f"classes, {known.size} px, background correlation {known.rho_train:g} in train and {known.rho_test:g} in test",
    )


def _open_parquet(name: str, options: Mapping) -> Source:
    files, rest = _take(options, "train", "validation", "test")
    paths = {split: parquet_files(split, value) for split, value in files.items() if value is not None}
    if not paths:
        raise UsageError("source parquet: name at least one of train=, validation=, test= (file paths or globs)")
    digest = {split: [sha256_of(path) for path in found] for split, found in paths.items()}
    try:
        with _quiet():
            splits = {
                split: Dataset.from_parquet([str(p) for p in found], cache_dir=str(cache_dir() / "arrow"))
                for split, found in paths.items()
            }
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        listed = ", ".join(str(path) for found in paths.values() for path in found)
        raise DataError(f"cannot read parquet ({listed}): {error.__cause__ or error}") from error
    return _finish(name, splits, digest, rest, f"parquet files of {name}")


def _open_folder(options: Mapping) -> Source:
    known, rest = _take(options, "path", "test_fraction")
    if known["path"] is None:
        raise UsageError("source imagefolder: say where it is, path=FOLDER")
    root = Path(known["path"]).expanduser()
    fraction = 0.2 if known["test_fraction"] is None else float(known["test_fraction"])
    if not 0 < fraction < 1:
        raise UsageError(f"imagefolder: test_fraction is {fraction}, it must lie strictly between 0 and 1")
    found = find_images(root, fraction)
    splits, listing, names = {}, {}, found.class_names
    for split, files in found.splits.items():
        columns = folder_columns(files, names)
        features = {"image": Image()} | ({"label": ClassLabel(names=list(names))} if names else {})
        splits[split] = Dataset.from_dict(columns, features=datasets.Features(features))
        listing[split] = [(str(file.relative_to(root)), file.stat().st_size) for file in files]
    return _finish(root.resolve().name, splits, listing, rest, f"images of the folder {root.resolve().name}")


def _open_hub(options: Mapping) -> Source:
    known, rest = _take(options, "repo", "config", "revision")
    if known["repo"] is None:
        raise UsageError("source hub: name the data set, repo=OWNER/NAME")
    splits = load_hub(known["repo"], known["config"], known["revision"], cache_dir() / "hub")
    content = {**known, "splits": {split: dataset._fingerprint for split, dataset in splits.items()}}
    return _finish(known["repo"], splits, content, rest, f"{known['repo']} from the Hugging Face hub")


def _finish(name: str, splits: dict[str, Dataset], content: object, options: Mapping, description: str) -> Source:
    """Rename and check columns, find out what the labels and masks are, and hash it all."""
    known, rest = _take(options, "columns", "mask_kind", "foreground")
    for option in rest:
        raise unknown("option of this data source", option, (*known, "train", "validation", "test", "path", "repo"))
    if known["mask_kind"] not in (None, *MASK_KINDS):
        raise unknown("mask_kind", known["mask_kind"], MASK_KINDS)
    for split, dataset in splits.items():
        if len(dataset) == 0:
            raise DataError(f"split '{split}' of '{name}' has no rows")
    splits = _number_labels({split: _rename(name, d, known["columns"] or {}) for split, d in splits.items()})
    features = next(iter(splits.values())).features
    mask_kind = None
    if "mask" in features:
        mask_kind = known["mask_kind"] or ("instances" if "objects" in features else _guess_mask_kind(splits))
    foreground = tuple(int(value) for value in known["foreground"]) if known["foreground"] is not None else None
    fingerprint = _hash({"content": content, "columns": dict(known["columns"] or {}), "mask": [mask_kind, foreground]})
    return Source(
        name=name,
        version=fingerprint[:8],
        splits=splits,
        fingerprint=fingerprint,
        class_names=_label_names(features, "label"),
        background_names=_label_names(features, "background"),
        mask_kind=mask_kind,
        description=description,
        foreground=foreground,
    )


# ------------------------------------------------------------------------------------------------ parts


def _take(options: Mapping, *names: str) -> tuple[dict, dict]:
    """The named options (None where absent), and the rest."""
    return {name: options.get(name) for name in names}, {k: v for k, v in options.items() if k not in names}


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _rename(source: str, dataset: Dataset, columns: Mapping[str, str]) -> Dataset:
    """The user's column names become ours; a column that is not there raises, naming those that are."""
    for ours, theirs in columns.items():
        if ours not in COLUMNS:
            raise unknown("column", ours, COLUMNS)
        if theirs not in dataset.column_names:
            raise _no_column(source, theirs, dataset)
    if len(set(columns.values())) < len(columns):
        raise UsageError(f"columns={dict(columns)} uses one column twice")
    taken = set(columns.values())  # a column that the user gives another meaning has lost its own
    wanted = {ours: columns.get(ours, ours) for ours in COLUMNS if ours in columns or ours not in taken}
    if wanted.get("image") not in dataset.column_names:
        raise _no_column(source, "image", dataset)
    present = {theirs: ours for ours, theirs in wanted.items() if theirs in dataset.column_names}
    dataset = dataset.select_columns(list(present))
    dataset = dataset.rename_columns({theirs: ours for theirs, ours in present.items() if theirs != ours})
    for column in ("image", "mask"):
        feature = dataset.features.get(column)
        if feature is None or isinstance(feature, Image):
            continue
        encoded = isinstance(feature, dict) and {"bytes", "path"} <= set(feature)
        if not encoded and getattr(feature, "dtype", "") not in ("string", "large_string", "binary", "large_binary"):
            raise DataError(f"column '{wanted[column]}' of '{source}' holds {feature}, not images")
        dataset = dataset.cast_column(column, Image())
    return dataset


def _number_labels(splits: dict[str, Dataset]) -> dict[str, Dataset]:
    """Labels that are text become numbers, in the alphabetical order of all names in all splits."""
    features = [dataset.features.get("label") for dataset in splits.values()]
    if not any(getattr(feature, "dtype", None) in ("string", "large_string") for feature in features):
        return splits
    names = sorted(set().union(*(dataset.unique("label") for dataset in splits.values())))
    with _quiet():
        return {split: dataset.cast_column("label", ClassLabel(names=names)) for split, dataset in splits.items()}


def _no_column(source: str, column: str, dataset: Dataset) -> DataError:
    return DataError(
        f"'{source}' has no column '{column}'; its columns: {', '.join(dataset.column_names)}; "
        f"name yours with columns={{image: ..., label: ..., mask: ...}}"
    )


def _label_names(features: Mapping, column: str) -> tuple[str, ...] | None:
    feature = features.get(column)
    return tuple(feature.names) if isinstance(feature, ClassLabel) else None


def _guess_mask_kind(splits: Mapping[str, Dataset]) -> str:
    """Masks whose values are 0 and 255, or that are soft (many values up to 255), are binary; others hold class ids."""
    values: set[int] = set()
    dataset = next(iter(splits.values()))
    for row in range(min(16, len(dataset))):
        values.update(value for _, value in dataset[row]["mask"].convert("L").getcolors(256))
    return "binary" if values <= {0, 255} or (max(values) == 255 and len(values) > 64) else "classes"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own progress bars."""
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
