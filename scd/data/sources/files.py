"""Files of a source: parquet by path or glob with a cached content hash, and folders of images with their splits."""

import glob
import hashlib
import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from scd.data.cache import cache_dir
from scd.errors import DataError

VALIDATION = ("validation", "val", "valid")
SPLIT_FOLDERS = {"train": "train", "test": "test", **dict.fromkeys(VALIDATION, "validation")}


def parquet_files(split: str, value: str | os.PathLike | list) -> list[Path]:
    """The existing files that a path, a glob or a list of them names, in sorted order.

    Raises:
        DataError: nothing is there.
    """
    found: list[Path] = []
    for pattern in value if isinstance(value, list | tuple) else [value]:
        pattern = os.path.expanduser(os.fspath(pattern))
        matches = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern))
        if not matches:
            raise DataError(f"{split}={pattern}: no such file")
        found.extend(Path(match) for match in matches)
    return found


def sha256_of(path: Path) -> str:
    """Content hash of a file, kept in the cache under its path, size and time of change."""
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:24]
    note = cache_dir() / "hashes" / f"{key}.json"
    if note.is_file():
        return json.loads(note.read_text())["sha256"]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    note.parent.mkdir(parents=True, exist_ok=True)
    unfinished = note.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(json.dumps({"path": str(path), "sha256": digest}))
    unfinished.replace(note)
    return digest


@dataclass
class FoundImages:
    """Image files by split, and the class names when every file lies in a class folder."""

    splits: dict[str, list[Path]]
    class_names: tuple[str, ...] | None


def find_images(root: Path, test_fraction: float) -> FoundImages:
    """Images of a folder: train/ and test/ (or val/, validation/) inside it, or one folder split here.

    Each split, or the one folder, holds images directly (no labels) or in one folder per class. One folder is split by
    the hash of the relative name, class by class: the last ``test_fraction`` are the test images, on every machine.

    Raises:
        DataError: no such folder, or no images in it.
    """
    if not root.is_dir():
        raise DataError(f"imagefolder: no such folder: '{root}'")
    splits: dict[str, list[Path]] = {}
    bases: dict[str, Path] = {}
    for name, split in SPLIT_FOLDERS.items():
        if (root / name).is_dir() and split not in splits:
            splits[split], bases[split] = _images_below(root / name), root / name
            if not splits[split]:
                raise DataError(f"imagefolder: no images in '{root / name}'")
    if not splits:
        files = _images_below(root)
        if not files:
            raise DataError(f"no images and no train.parquet in '{root}'")
        names = _class_names(root, files)
        splits = _split_by_hash(root, files, test_fraction, names is not None)
        return FoundImages(splits, names)
    names = {split: _class_names(bases[split], files) for split, files in splits.items()}
    if None in names.values():
        return FoundImages(splits, None)
    return FoundImages(splits, tuple(sorted(set().union(*names.values()))))


def folder_columns(files: list[Path], class_names: tuple[str, ...] | None) -> dict[str, list]:
    """Columns of a data set: the paths and, where there are class folders, the number of each file's class."""
    columns: dict[str, list] = {"image": [str(file) for file in files]}
    if class_names:
        number = {name: i for i, name in enumerate(class_names)}
        columns["label"] = [number[file.parent.name] for file in files]
    return columns


def _images_below(folder: Path) -> list[Path]:
    endings = Image.registered_extensions()
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())


def _class_names(base: Path, files: list[Path]) -> tuple[str, ...] | None:
    """Names of the class folders, or None unless every image lies in exactly one folder below ``base``."""
    if any(file.parent.parent != base for file in files):
        return None
    return tuple(sorted({file.parent.name for file in files}))


def _split_by_hash(root: Path, files: list[Path], fraction: float, by_class: bool) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        groups[file.parent.name if by_class else ""].append(file)
    train: list[Path] = []
    test: list[Path] = []
    for group in groups.values():
        group.sort(key=lambda file: hashlib.md5(file.relative_to(root).as_posix().encode()).hexdigest())
        kept = max(1, len(group) - round(len(group) * fraction))
        train += group[:kept]
        test += group[kept:]
    if not test:
        raise DataError(f"'{root}' has too few images ({len(files)}) for a test split of {fraction:g}")
    return {"train": sorted(train), "test": sorted(test)}
