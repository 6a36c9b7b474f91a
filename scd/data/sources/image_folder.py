"""Folders of image files: train/CLASS/*.png and test/CLASS/*.png, or one folder that is split here."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PillowImage

from scd.data.sources.columns import class_order, read_columns
from scd.data.sources.example import CLASSES, example_images
from scd.data.sources.source import SPLIT_NAMES, Source
from scd.errors import DataError, UsageError

TEST_FRACTION = 0.2  # of a folder without splits


class ImageFolder(Source):
    """Image files in folders.

    The folder holds ``train`` and ``test`` (or ``val``, ``valid``, ``validation``), or images that are split here: by
    the hash of the relative path, class by class, the last ``test_fraction`` are the test images, on every machine.
    Each split holds images directly (then there are no labels) or in one folder per class.

    Args:
        path: the folder.
        test_fraction: share of the images of a folder without splits; None: 0.2.

    Raises:
        UsageError: an impossible fraction.
        DataError: no such folder, or no images in it.
    """

    def __init__(self, path: str | Path, test_fraction: float | None = None):
        root = Path(path).expanduser()
        fraction = TEST_FRACTION if test_fraction is None else float(test_fraction)
        if not 0 < fraction < 1:
            raise UsageError(f"imagefolder: test_fraction is {fraction}, it must lie strictly between 0 and 1")
        files, names = find_images(root, fraction)
        name = root.resolve().name
        super().__init__(
            **read_columns(
                name, {split: as_dataset(found, names) for split, found in files.items()}, listed(files, root)
            ),
            description=f"images of the folder {name}",
        )

    @classmethod
    def example(cls, folder: Path) -> "ImageFolder":
        for split, count, first in (("train", 12, 0), ("test", 6, 12)):
            images, _, labels = example_images(count, first)
            for number, (image, label) in enumerate(zip(images, labels, strict=True)):
                path = folder / split / CLASSES[label] / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                PillowImage.fromarray(image).save(path)
        return cls(folder)


def find_images(root: Path, test_fraction: float) -> tuple[dict[str, list[Path]], tuple[str, ...] | None]:
    """Image files by split, and the class names where every file lies in a class folder; see :class:`ImageFolder`.

    Raises:
        DataError: no such folder, or no images in it.
    """
    if not root.is_dir():
        raise DataError(f"imagefolder: no such folder: '{root}'")
    splits: dict[str, list[Path]] = {}
    bases: dict[str, Path] = {}
    for name, split in SPLIT_NAMES.items():
        if (root / name).is_dir() and split not in splits:
            splits[split], bases[split] = _images_below(root / name), root / name
            if not splits[split]:
                raise DataError(f"imagefolder: no images in '{root / name}'")
    if not splits:
        files = _images_below(root)
        if not files:
            raise DataError(f"no images and no train.parquet in '{root}'")
        names = _class_folders(root, files)
        return _split_by_hash(root, files, test_fraction, names is not None), names
    by_split = {split: _class_folders(bases[split], files) for split, files in splits.items()}
    return splits, None if None in by_split.values() else class_order(by_split)


def as_dataset(files: Sequence[Path], class_names: Sequence[str] | None) -> Dataset:
    """The files as a column of images and, where there are class folders, the number of each file's class."""
    columns: dict[str, list] = {"image": [str(file) for file in files]}
    features: dict = {"image": Image()}
    if class_names:
        number = {name: i for i, name in enumerate(class_names)}
        columns["label"] = [number[file.parent.name] for file in files]
        features["label"] = ClassLabel(names=list(class_names))
    return Dataset.from_dict(columns, features=Features(features))


def listed(files: Mapping[str, Sequence[Path]], root: Path) -> dict[str, list]:
    """What identifies each split: relative path and size of every file."""
    return {
        split: [(str(file.relative_to(root)), file.stat().st_size) for file in found] for split, found in files.items()
    }


def _images_below(folder: Path) -> list[Path]:
    endings = PillowImage.registered_extensions()
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())


def _class_folders(base: Path, files: Sequence[Path]) -> tuple[str, ...] | None:
    """Names of the class folders, or None unless every image lies in exactly one folder below ``base``."""
    if any(file.parent.parent != base for file in files):
        return None
    return tuple(sorted({file.parent.name for file in files}))


def _split_by_hash(root: Path, files: Sequence[Path], fraction: float, by_class: bool) -> dict[str, list[Path]]:
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
