"""Folders of image files: train/CLASS/*.png and test/CLASS/*.png, or one folder that is split here."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PillowImage

from scd.data.sources.columns import read_columns
from scd.data.sources.example import CLASSES, example_images
from scd.data.sources.folder_names import is_part, is_split_like, may_be_splits, splits_among
from scd.data.sources.folder_scan import first_names, printable, scan, with_several_pages
from scd.data.sources.paired_files import check_pairs_in_folders, check_pairs_of_folders
from scd.data.sources.source import Source, named_splits, split_of
from scd.errors import DataError, UsageError

TEST_FRACTION = 0.2  # of a folder without splits
MASK = re.compile(  # a mask's name but for its image's
    r"^(mask|seg|gt)[_.-]|[_. -](masks?|seg|segmentation|gt|matte|trimap|labelIds|annotation)(_\d+)?$", re.IGNORECASE
)
NUMBERED = re.compile(r".*(part|batch|set|chunk|shard|fold|group|images?|pics?)[ _-]?\d+", re.IGNORECASE)
OTHER_FORMS = {  # endings of files that may hold images -> what to do with them
    ".arrow": "files of save_to_disk are not read; write train.parquet and test.parquet with Dataset.to_parquet",
    ".parquet": "name the files: data=parquet data.locations.train=FILE data.locations.test=FILE",
    ".tar": "unpack the archives",
    ".zip": "unpack the archives",
}
MOST_LISTED = 20  # names of classes in a note
LAYOUT = "FOLDER/CLASS/IMAGE, or FOLDER/train/CLASS/IMAGE and FOLDER/test/CLASS/IMAGE"


class ImageFolder(Source):
    """Image files in folders.

    The folder holds splits (``train`` and ``test``, or their other usual names, see
    :data:`scd.data.sources.source.SPELLINGS`), or images that are split here: by the hash of the relative path, class
    by class, the last ``test_fraction`` are the test images, on every machine. Each split holds images directly (then
    it has no labels) or in one folder per class. :mod:`scd.data.sources.folder_scan` says what counts as an image.

    Args:
        path: the folder.
        test_fraction: share of the images of a folder without splits; None: 0.2.
        left_out: folders that are not read, for example where results are written; relative paths start at the folder,
            or else at the working directory.

    Raises:
        UsageError: an impossible fraction, one for a folder that has splits, or ``left_out`` names no folder in it.
        DataError: no such folder, no images in it, or images in other places than these.
    """

    def __init__(self, path: str | Path, test_fraction: float | None = None, left_out: Sequence[str | Path] = ()):
        root = Path(path).expanduser()
        fraction = None if test_fraction is None else float(test_fraction)
        if fraction is not None and not 0 < fraction < 1:
            raise UsageError(f"imagefolder: test_fraction is {fraction}, it must lie strictly between 0 and 1")
        found = find_images(root, fraction, left_out)
        name = root.resolve().name
        splits = {split: as_dataset(files, split in found.labelled) for split, files in found.splits.items()}
        read = read_columns(name, splits, listed(found.splits, root))
        read["notes"] = [*found.notes, *read["notes"]]
        classes = read["class_names"]
        by_name = f", {len(classes)} classes by the names of folders: {in_words(classes)}" if classes else ""
        drawn = "" if found.has_splits else ", whose test images are chosen by a hash of their names"
        super().__init__(**read, description=f"images of the folder {name}{drawn}{by_name}")

    @classmethod
    def example(cls, folder: Path) -> "ImageFolder":
        for split, count, first in (("train", 12, 0), ("test", 6, 12)):
            images, _, labels = example_images(count, first)
            for number, (image, label) in enumerate(zip(images, labels, strict=True)):
                path = folder / split / CLASSES[label] / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                PillowImage.fromarray(image).save(path)
        return cls(folder)


@dataclass
class FoundImages:
    """Image files by split, the splits in class folders, notes on what is not read, and whether folders are splits."""

    splits: dict[str, list[Path]]
    labelled: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    has_splits: bool = True


def find_images(root: Path, test_fraction: float | None, left_out: Sequence[str | Path] = ()) -> FoundImages:
    """The images of a folder, see :class:`ImageFolder`.

    Raises:
        UsageError: ``test_fraction`` for a folder that has splits.
        DataError: no such folder, no images in it, or images in other places than the class describes.
    """
    if not root.is_dir():
        raise DataError(f"imagefolder: no such folder: '{root}'")
    contents = scan(root, left_out)
    refuse_masks(contents.images)
    by_folder: dict[str, list[Path]] = defaultdict(list)  # "" for images that lie in no folder
    for file in contents.images:
        parts = file.relative_to(root).parts
        by_folder[parts[0] if len(parts) > 1 else ""].append(file)
    if not contents.images:
        refuse_other_files(root, contents.others)
    empty = [path.name for path in contents.empty if path.parent == root]
    names = find_splits(root, by_folder, empty)
    notes = contents.notes(root)
    if not names:
        if not contents.images:
            raise DataError(" ".join([f"no images and no train.parquet in '{root}'.", *notes]).rstrip("."))
        by_class = has_classes(root, contents.images, around=True)
        fraction = TEST_FRACTION if test_fraction is None else test_fraction
        splits = _split_by_hash(root, contents.images, fraction, by_class)
        found = FoundImages(splits, set(splits) if by_class else set(), notes, has_splits=False)
        return with_page_note(with_test_note(with_known_classes(root, found)))
    if test_fraction is not None:
        first, in_it = next(iter(names.values())), " and ".join(names.values())
        raise UsageError(
            f"imagefolder: test_fraction splits a folder without splits, but '{root}' has {in_it}; leave it out, or "
            f"give data={root / first} to split that folder alone"
        )
    beside = [file for name, files in by_folder.items() if name not in names.values() for file in files]
    if beside:
        where = " and ".join(names.values())
        notes.append(f"Images beside {where}, not read ({len(beside)}): {first_names(beside, root)}.")
    splits = {split: by_folder[name] for split, name in names.items()}
    labelled = {split for split, name in names.items() if has_classes(root / name, splits[split])}
    return with_page_note(with_known_classes(root, FoundImages(splits, labelled, notes)))


def refuse_other_files(root: Path, files: Sequence[Path]) -> None:
    """Raise DataError for a folder without images that holds files of a known form, which are not read as they are."""
    found = {file.suffix.lower(): file for file in reversed(files) if file.suffix.lower() in OTHER_FORMS}
    for ending, advice in OTHER_FORMS.items():
        if ending in found:
            where = found[ending].relative_to(root).as_posix()
            raise DataError(f"imagefolder: no images in '{root}', which holds '{printable(where)}': {advice}")


def with_test_note(found: FoundImages) -> FoundImages:
    """The same images, with a note on classes that are too small to give one of their images to the test split."""
    train, test = ({file.parent.name for file in files} for files in found.splits.values())
    if not found.labelled or not (untested := sorted(train - test)):
        return found
    note = f"Classes without a test image ({len(untested)}): {in_words(untested)}. Scores are of the others."
    return replace(found, notes=[*found.notes, note])


def with_page_note(found: FoundImages) -> FoundImages:
    """The same images, with a note on files of which only the first page or frame is read."""
    files = with_several_pages(sorted({file for split in found.splits.values() for file in split}))
    if not files:
        return found
    note = f"Files with several pages or frames, of which the first is read: {len(files)}."
    return replace(found, notes=[*found.notes, note])


def with_known_classes(root: Path, found: FoundImages) -> FoundImages:
    """The same images, without labels where all lie in folders of one name.

    Raises:
        DataError: folders that hold the parts of a data set (images and masks), or splits, and no classes; or images
            with masks or maps of them beside them.
    """
    files = sorted({file for split in found.splits.values() for file in split})
    found = replace(found, notes=[*found.notes, *check_pairs_in_folders(files)])
    names = sorted({file.parent.name for split in found.labelled for file in found.splits[split]})
    if not names:
        return found
    if len(names) == 1:
        note = f"All images lie in folders called '{printable(names[0])}', which is no label."
        return replace(found, labelled=set(), notes=[*found.notes, note])
    if all(is_part(name) for name in names):
        raise DataError(
            f"imagefolder: {in_words(names)} in '{root}' are no classes, but parts of one data set; images with masks "
            "are given as parquet files with the columns image and mask, or as data=coco or data=voc"
        )
    if all(is_split_like(name) for name in names):
        raise DataError(
            f"imagefolder: {in_words(names)} in '{root}' look like splits, not classes; name the folders train and "
            "test (or validation)"
        )
    found = with_split_note(root, found, names)
    inside = sorted(file for split in found.labelled for file in found.splits[split])
    found = replace(found, notes=[*found.notes, *check_pairs_of_folders(inside)])
    if all(NUMBERED.fullmatch(name) for name in names):
        note = f"Folders whose names differ in a number alone count as classes: {in_words(names)}."
        found = replace(found, notes=[*found.notes, note])
    if parts := [name for name in names if is_part(name)]:
        note = f"Folders that count as classes, although their names may mean masks or images: {in_words(parts)}."
        return replace(found, notes=[*found.notes, note])
    return found


def with_split_note(root: Path, found: FoundImages, names: Sequence[str]) -> FoundImages:
    """The same images, with a note on classes whose names may mean a split. Inside a split all names are classes.

    Raises:
        DataError: names that are splits rather than classes (:mod:`scd.data.sources.folder_names`).
    """
    if found.has_splits:
        return found
    if splits := splits_among(names):
        others = [name for name in names if name not in splits]
        beside = f" beside {in_words(others)}" if others else ""
        raise DataError(
            f"imagefolder: {in_words(splits)}{beside} in '{root}' would be classes, but are names of splits; name the "
            "folders that are used train and test (or validation) and leave out the others "
            "(data.locations.left_out=[NAME]); if they are classes, rename them"
        )
    if doubtful := may_be_splits(names):
        note = f"Folders that count as classes, although their names may mean splits: {in_words(doubtful)}."
        return replace(found, notes=[*found.notes, note])
    return found


def refuse_masks(files: Sequence[Path]) -> None:
    """Raise DataError for masks among the images by their names: ``NAME_mask`` or ``mask_NAME`` beside ``NAME``.

    :mod:`scd.data.sources.paired_files` finds those of other names, where there are several.
    """
    names = {(file.parent, file.stem) for file in files}
    masks = [file for file in files if MASK.search(file.stem) and (file.parent, MASK.sub("", file.stem)) in names]
    if masks:
        raise DataError(
            f"imagefolder: '{masks[0]}' is a mask beside its image ({len(masks)} such files); take them out, or give "
            "images and masks as parquet files with the columns image and mask"
        )


def in_words(names: Sequence[str]) -> str:
    """The first names of classes."""
    more = ", ..." if len(names) > MOST_LISTED else ""
    return ", ".join(f"'{printable(name)}'" for name in names[:MOST_LISTED]) + more


def find_splits(root: Path, by_folder: Mapping[str, Sequence[Path]], empty: Sequence[str]) -> dict[str, str]:
    """Split -> the folder in ``root`` that holds it; {} for a folder without splits.

    A folder called ``train`` is a class, not a split, where it holds images directly, other folders beside it hold
    images, and none of them is a test or validation split.

    Args:
        by_folder: name of the folder in ``root`` -> the images in it.
        empty: names of folders without images.

    Raises:
        DataError: a split without images, two folders of one split, or splits beside folders that may be classes.
    """
    names = named_splits({*by_folder, *empty} - {""}, str(root))
    others = [name for name in by_folder if name and name not in names.values()]
    without_classes = all(file.parent == root / name for name in names.values() for file in by_folder.get(name, ()))
    whole = "train" in names and len(names) > 1
    if names and others and without_classes:
        if not whole:
            return {}
        raise DataError(
            f"imagefolder: '{root / others[0]}' holds images beside the splits {' and '.join(names.values())}, which "
            "have no class folders; take it out, or give the splits class folders"
        )
    if names and others and not whole:
        raise DataError(
            f"imagefolder: '{root}' has {' and '.join(names.values())}, and '{others[0]}' is the name of no split; "
            "name the folders train and test (or validation)"
        )
    for name in names.values():
        if not by_folder.get(name):
            raise DataError(f"imagefolder: no images in '{root / name}'")
    return names


def has_classes(base: Path, files: Sequence[Path], around: bool = False) -> bool:
    """Whether the images lie in class folders of ``base``; False where all lie in ``base`` itself.

    Args:
        around: whether ``base`` is the user's folder, so that one below it may be meant.

    Raises:
        DataError: images in both places, or further below; the text names one.
    """
    direct = [file for file in files if file.parent == base]
    inside = [file for file in files if file.parent.parent == base]
    if len(direct) + len(inside) < len(files):
        deeper = next(file for file in files if base not in (file.parent, file.parent.parent))
        meant = find_meant(base, files) if around else None
        parts = [name for name in deeper.relative_to(meant or base).parts[:-1] if is_part(name)]
        hint = f"; give data={meant}" if meant else ""
        if parts:
            hint = (
                f"; '{parts[0]}' may mean masks or images: these are given as parquet files with the columns image and "
                "mask"
            )
        raise DataError(
            f"imagefolder: '{deeper}' lies too deep for a class folder of '{base}'; expected {LAYOUT}{hint}"
        )
    if inside and len(direct) > len(inside):
        raise DataError(
            f"imagefolder: the folder '{inside[0].parent}' lies beside the {len(direct)} images of '{base}'; take it "
            f"out, or put all images into class folders; expected {LAYOUT}"
        )
    if inside and direct:
        raise DataError(
            f"imagefolder: the image '{direct[0]}' lies beside the class folders of '{base}' ({len(direct)} such "
            f"images); put it into one of them, or take it out"
        )
    return bool(inside)


def find_meant(base: Path, files: Sequence[Path]) -> Path | None:
    """The folder below ``base`` that may be meant: the only one with splits of its own, or one with class folders that
    hold all images; None without such a folder."""
    below: dict[Path, list[Path]] = defaultdict(list)  # folder -> all images in it and below it
    for file in files:
        for folder in file.parents[: len(file.relative_to(base).parts) - 1]:
            below[folder].append(file)
    inner: dict[Path, set[str]] = defaultdict(set)  # folder -> the folders with images in it
    for folder in below:
        inner[folder.parent].add(folder.name)
    splits = {folder: {split_of(name) for name in inner[folder]} - {None} for folder in below}
    found = [folder for folder in below if "train" in splits[folder] and len(splits[folder]) > 1]
    if not found:
        found = [
            folder
            for folder, images in below.items()
            if len(images) == len(files) and all(file.parent.parent == folder for file in images)
            if len(inner[folder]) > 1 and not any(is_part(name) for name in inner[folder])
        ]
    return found[0] if len(found) == 1 else None


def as_dataset(files: Sequence[Path], by_class: bool) -> Dataset:
    """The files as a column of images and, where they lie in class folders, the number of each file's class."""
    columns: dict[str, list] = {"image": [str(file) for file in files]}
    features: dict = {"image": Image()}
    if by_class:
        names = sorted({file.parent.name for file in files})
        number = {name: i for i, name in enumerate(names)}
        columns["label"] = [number[file.parent.name] for file in files]
        features["label"] = ClassLabel(names=names)
    return Dataset.from_dict(columns, features=Features(features))


def listed(files: Mapping[str, Sequence[Path]], root: Path) -> dict[str, list]:
    """What identifies each split: relative path and size of every file."""
    return {
        split: [(str(file.relative_to(root)), file.stat().st_size) for file in found] for split, found in files.items()
    }


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
