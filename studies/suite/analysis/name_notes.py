"""What a reader must know of the names of image files, which say more than the pixels at a canvas of a few pixels.

Changed versions of training images among the scored ones, series that a split by hash has torn apart, lists of splits
that are not read, masks that are named after other images, and labels that contradict the folders of their images.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

import pyarrow.compute as pc

from scd.data.images import chosen_rows, undecoded
from scd.data.sources.folder_names import is_part, words_of
from scd.evaluation.protocol import EvaluationData

Name = tuple[str, str]  # folder and name without ending of a file

DRAWN = "chosen by a hash of their names"  # of the description of a source that has no splits of its own
TOOLS = (  # names that programs give to changed versions of an image; the group is its name
    re.compile(r"(.+)\.rf\.[0-9A-Za-z]{8,}"),  # Roboflow
    re.compile(r".*_original_(.+)_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]+"),  # Augmentor
)
CHANGE = r"aug(ment(ed|ation)?)?|[hv]?flip(ped)?|mirror(ed)?|rot(at(ed?|ion))?|bright(er|ness)?|dark(er|ened)?|"
CHANGE += r"nois[ey]|blur(red|ry)?|zoom(ed)?|shear(ed)?|shift(ed)?|contrast|jitter|gamma|sharp(en(ed)?)?|copy"
CHANGED = re.compile(
    rf"[ _.-]+(new)?(\d{{1,3}}deg)?({CHANGE})?[ _-]?(lr|tb|h|v|ud)?[ _-]?\(?\d{{0,3}}\)?", re.IGNORECASE
)
SAYS_SO = re.compile(rf"{CHANGE}|\d{{1,3}}deg", re.IGNORECASE)
MOST_VERSIONS = 40  # of one image; a word that more names have in common is no change of an image
NUMBER_AT_END = re.compile(r"(.*?)[ _.-]*(frame|img|image|slice|page|tile|patch)?[ _.-]*\d+", re.IGNORECASE)
FEWEST_SERIES, SHORTEST = 3, 3  # series, and images of one
IN_SERIES = 0.8  # share of the images that belong to one
LIST_WORDS = ("train", "test", "split", "splits", "trainval", "partition", "trainlist", "testlist", "setid")
LIST_FOLDERS = ("meta", "splits", "split", "lists", "annotations", "ImageSets", "ImageSets/Main")
LIST_ENDINGS = (".txt", ".csv", ".tsv", ".json", ".mat")
MOST_ENTRIES = 2000  # of a folder in which lists of splits are looked for
FEWEST_NAMED = 4  # rows whose names are compared
MOST = 0.5


def notes_on_names(images: EvaluationData) -> list[str]:
    """Notes on the names of the training and scored images; embedded ones have none."""
    if images.source.embedded:
        return []
    limits = {"train": images.train_limit, images.split: images.test_limit}
    rows = {split: chosen_rows(images.source.split(split), limit).tolist() for split, limit in limits.items()}
    paths = {split: paths_of(images, split, "image") for split in rows}
    used = {split: [paths[split][row] for row in chosen] for split, chosen in rows.items()}
    by_class = images.has("label")
    notes = notes_on_versions(used["train"], used[images.split], by_class)
    if DRAWN in images.source.description:
        whole = [Path(path) for found in paths.values() for path in found if path]
        notes += [*notes_on_series(whole, by_class), *notes_on_lists(whole)]
    elif by_class:
        notes += notes_on_shared_series(used["train"], used[images.split])
    for split in rows:
        if "mask" in images.columns(split):
            notes += notes_on_mask_names(split, paths[split], paths_of(images, split, "mask"))
    return notes + notes_on_folders(images, paths)


def paths_of(images: EvaluationData, split: str, column: str) -> list[str | None]:
    """The path or name of each file of a column of images, as far as the set keeps it."""
    cells = undecoded(images.source.split(split).select_columns([column])).with_format("arrow")[:][column]
    return pc.struct_field(cells, "path").to_pylist()


# ---------------------------------------------------------------- versions of one image


def original_of(stem: str) -> tuple[str, bool]:
    """The name of the image of which a file is a changed version, and whether its name says that it is one."""
    for pattern in TOOLS:
        if found := pattern.fullmatch(stem):
            return found[1], True
    name, changed = stem, False
    while True:
        ends = [found for found in CHANGED.finditer(name) if found.end() == len(name) and SAYS_SO.search(found[0])]
        if not ends or not (shorter := name[: ends[0].start()]):
            return name, changed
        name, changed = shorter, True


def notes_on_versions(train: Sequence[str | None], test: Sequence[str | None], by_class: bool) -> list[str]:
    """A note where scored images are, by their names, changed versions of training images: "a_flip.jpg" of "a.jpg"."""
    groups = [defaultdict(list), defaultdict(list)]  # original -> (name, whether it is changed)
    for paths, group in zip((train, test), groups, strict=True):
        for path in filter(None, paths):
            file = PurePosixPath(path)
            name, changed = original_of(file.stem)
            group[file.parent.name if by_class else "", name].append((file.name, changed))
    pairs, count = [], 0
    for key in groups[0].keys() & groups[1].keys():
        ours, theirs = groups[0][key], groups[1][key]
        have_original = [any(not changed for _, changed in found) for found in (ours, theirs)]
        if all(have_original) or len(ours) + len(theirs) > MOST_VERSIONS:  # of two images that have one name
            continue
        pairs.append((theirs[0][0], ours[0][0]))
        count += len(theirs)
    if not count:
        return []
    one, other = min(pairs)
    return [
        f"By their names, {count:,} of the {len(test):,} scored images are changed versions of a training image (such "
        f"as '{one}' and '{other}'): scores are too high. Give all versions of an image to one split."
    ]


def series_of(path: str) -> str | None:
    """The name of the series to which a file belongs by its name: "video3" of "video3_frame012.png"; None without."""
    found = NUMBER_AT_END.fullmatch(original_of(PurePosixPath(path).stem)[0])
    return found[1] or None if found else None


def notes_on_series(paths: Sequence[Path], by_class: bool) -> list[str]:
    """A note on images that are named in series, as frames of videos or slices of scans are, and are split by hash.

    Where there are no labels, the names may as well be those of the classes: "cat.0.jpg".
    """
    series = Counter((path.parent.name if by_class else "", series_of(str(path))) for path in paths)
    long = {key: count for key, count in series.items() if key[1] and count >= SHORTEST}
    fewest = max(FEWEST_SERIES, 2 * len({folder for folder, _ in series})) if by_class else 2
    if len(long) < fewest or sum(long.values()) < IN_SERIES * len(paths):
        return []
    first = min(long)
    named = f"The images are named in {len(long):,} series (such as '{first[1]}...', {long[first]} images)"
    if not by_class:
        return [
            f"{named}. If these are classes, put the images of each into a folder of its own: labels are the names of "
            "folders. If a series shows one scene or one person, give folders train and test: the split by a hash "
            "tears it apart, and scores are too high."
        ]
    return [
        f"{named}, which the split by a hash tears apart: if images of a series show one scene or one person, scores "
        "are too high. Give folders train and test."
    ]


def notes_on_shared_series(train: Sequence[str | None], test: Sequence[str | None]) -> list[str]:
    """A note on series of which both splits have images, in folders of one class, where a class has several series."""
    groups = [defaultdict(list), defaultdict(list)]  # folder and series -> names
    for paths, group in zip((train, test), groups, strict=True):
        for path in filter(None, paths):
            if name := series_of(path):
                group[PurePosixPath(path).parent.name, name].append(PurePosixPath(path).name)
    shared = sorted(key for key in groups[0].keys() & groups[1].keys() if len(groups[0][key]) + len(groups[1][key]) > 2)
    folders = {PurePosixPath(path).parent.name for path in filter(None, test)}
    count = sum(len(groups[1][key]) for key in shared)
    if len(shared) < max(FEWEST_SERIES, 2 * len(folders)) or count <= MOST * len(test):
        return []
    one, other = groups[1][shared[0]][0], groups[0][shared[0]][0]
    return [
        f"By their names, {count:,} of the {len(test):,} scored images belong to series of training images (such as "
        f"'{one}' and '{other}'): if images of a series show one scene or one person, scores are too high."
    ]


# ---------------------------------------------------------------- lists of splits


def notes_on_lists(paths: Sequence[Path]) -> list[str]:
    """A note on files that list the images of a split, where the test images are chosen by a hash."""
    if not paths:
        return []
    folders = {path.parent for path in paths}
    root = next(iter(folders)) if len(folders) == 1 else next(iter(folders)).parent
    places = [root, *(root / name for name in LIST_FOLDERS)]
    if is_part(root.name):
        places += [root.parent, *(root.parent / name for name in LIST_FOLDERS)]
    found = [path for place in places for path in lists_in(place)]
    if not found:
        return []
    named = ", ".join(f"'{path.name}'" for path in found[:3]) + (", ..." if len(found) > 3 else "")
    return [
        f"Files that may list the images of splits are not read ({len(found)}): {named}. The test images are {DRAWN}; "
        "for another split, give folders train and test."
    ]


def lists_in(folder: Path) -> list[Path]:
    """Text files of a folder that are called like a list of a split, of the first files of a folder of very many."""
    try:
        entries = list(islice(folder.iterdir(), MOST_ENTRIES))
    except OSError:  # no such folder, or one that may not be read
        return []
    named = [path for path in entries if path.suffix.lower() in LIST_ENDINGS and not path.name.startswith(".")]
    return sorted(path for path in named if set(words_of(path.stem)) & set(LIST_WORDS) and path.is_file())


# ---------------------------------------------------------------- names that contradict the columns


def notes_on_mask_names(split: str, images: Sequence[str | None], masks: Sequence[str | None]) -> list[str]:
    """A note on masks that are named after another image of the split, as where two lists were sorted differently."""
    pairs = [(key_of(image), key_of(mask)) for image, mask in zip(images, masks, strict=True) if image and mask]
    known = {image for image, _ in pairs}
    if len(pairs) < FEWEST_NAMED or len(known) < len(pairs) or None in known:
        return []
    wrong = [(image, mask) for image, mask in pairs if mask != image and mask in known]
    if len(wrong) <= MOST * sum(mask in known for _, mask in pairs):
        return []
    image, mask = next(
        (image, mask)
        for image, mask in zip(images, masks, strict=True)
        if image and mask and (key_of(image), key_of(mask)) in wrong
    )
    words = "training" if split == "train" else split
    return [
        f"By their names, {len(wrong):,} of {len(pairs):,} {words} masks belong to another image, such as "
        f"'{PurePosixPath(mask).name}' in the row of '{PurePosixPath(image).name}': check that images and masks are "
        "listed in one order."
    ]


def key_of(path: str) -> tuple[int, ...] | None:
    """The numbers of a file's name, which its mask has as well; None without one."""
    return tuple(map(int, re.findall(r"\d+", PurePosixPath(path).stem))) or None


def notes_on_folders(images: EvaluationData, paths: Mapping[str, Sequence[str | None]]) -> list[str]:
    """Notes on labels that the folders of the images contradict.

    A folder whose images all have one label is a class. If another split gives a folder of the same name another
    label, or if a label is called like another folder, the labels were numbered anew.
    """
    source, notes = images.source, []
    if not images.has("label") or not source.class_names:
        return []
    labels_of: dict[str, dict[str, str]] = {}  # split -> folder -> the label of all of its images
    for split, found in paths.items():
        together: dict[str, Counter[str]] = defaultdict(Counter)
        for path, label in zip(found, source.split(split)["label"][:], strict=True):
            if path and (folder := PurePosixPath(path).parent.name):
                together[folder][source.class_names[label]] += 1
        pure = {folder: next(iter(counts)) for folder, counts in together.items() if len(counts) == 1}
        if len(pure) == len(together) > 1 and len(set(pure.values())) == len(pure):
            labels_of[split] = pure
    for split, found in labels_of.items():
        names = set(found.values())
        crossed = sorted(folder for folder, label in found.items() if folder in names and folder != label)
        if crossed:
            words = "training" if split == "train" else split
            notes.append(
                f"The {words} images in the folder '{crossed[0]}' have the label '{found[crossed[0]]}', although there "
                f"is a label '{crossed[0]}' ({len(crossed)} such folders): check the labels."
            )
    if not notes and len(labels_of) > 1:
        first, other = (labels_of[split] for split in ("train", images.split))
        moved = sorted(folder for folder in first.keys() & other.keys() if first[folder] != other[folder])
        if moved:
            folder = moved[0]
            notes.append(
                f"The images in folders called '{folder}' have the label '{first[folder]}' in the training split and "
                f"'{other[folder]}' in the {images.split} split ({len(moved)} such folders), as if each split had "
                "numbered its classes for itself: check the labels."
            )
    return notes
