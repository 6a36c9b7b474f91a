"""What a reader must know of the names of image files, which say more than the pixels at a canvas of a few pixels.

Changed versions of training images among the scored ones, series that a split has torn apart, masks that are named
after other images, and labels that contradict the folders of their images.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import pyarrow.compute as pc

from scd.data.images import undecoded
from scd.data.sources.folder_names import is_part, is_split_like
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.column_values import file_names
from studies.suite.analysis.list_notes import notes_on_lists
from studies.suite.analysis.used_rows import used_rows

Name = tuple[str, str]  # folder and name without ending of a file

DRAWN = "chosen by a hash of their names"  # of the description of a source that has no splits of its own
TOOLS = (  # names that programs give to changed versions of an image; the group is its name
    re.compile(
        r"(.+?)(?:[_-](?:jpe?g|png|bmp|gif|tiff?|webp|heic|avif))?\.rf\.[0-9A-Za-z]{8,}", re.IGNORECASE
    ),  # Roboflow
    re.compile(r".*_original_(.+)_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]+"),  # Augmentor
)
CHANGE = r"aug(ment(ed|ation)?)?|[hv]?flip(ped)?|(horizontal|vertical)(ly)?[ _-]?flip(ped)?|mirror(ed)?|"
CHANGE += r"rot(at(ed?|ion))?|bright(er|ness|ened)?|dark(er|ened)?|nois[ey]|blur(red|ry)?|zoom(ed)?|shear(ed)?|"
CHANGE += r"shift(ed)?|contrast|jitter(ed)?|gamma|sharp(en(ed)?)?|copy([ _-]of)?|crop(ped)?|hue|saturat(ed|ion)|affine|"
CHANGE += r"perspective|elastic|gr[ae]y(scale)?|invert(ed)?|solari[sz]ed?|equali[sz]ed?|clahe|posteri[sz]ed?|scaled?|"
CHANGE += r"resized?|translat(ed?|ion)|transposed?|distort(ed|ion)|warp(ed)?|cutout|erased?|gauss(ian)?|colou?r(ed)?|"
CHANGE += r"compress(ed)?|mixup|rand(om)?(crop|erase)"
CHANGED = re.compile(
    rf"[ _.-]+(new)?(\d{{1,3}}deg)?({CHANGE})?[ _-]?(lr|tb|h|v|ud|horizontal|vertical)?[ _-]?\(?\d{{0,3}}\)?$",
    re.IGNORECASE,
)
CHANGED_FIRST = re.compile(rf"(\d{{1,3}}deg|({CHANGE})\d{{0,3}})[ _.-]+(?=.)", re.IGNORECASE)
COUNTED = re.compile(r"\d{1,3}[ _.-]+(?=.)")  # "aug_3_" before the name of the image
SAYS_SO = re.compile(rf"{CHANGE}|\d{{1,3}}deg", re.IGNORECASE)
EDITED = re.compile(r"(IMG_)E(\d{4})", re.IGNORECASE)  # of a phone: "IMG_E1234" beside "IMG_1234"
MOST_VERSIONS = 40  # of one image; a word that more names have in common is no change of an image
FEW_VERSIONS = 8  # of one image, however few images there are in its folder
NUMBER_AT_END = re.compile(r"(.*?)[ _.-]*(frame|img|image|slice|page|tile|patch)?[ _.-]*\d+", re.IGNORECASE)
PART, NUMBER_THEN_WORD = re.compile(r"[^\W_]+"), re.compile(r"(?<=\d)(?=[^\W\d_])")  # of a name, between separators
FEWEST_SERIES, SHORTEST = 3, 3  # series, and images of one
MOST_PARTS = 4  # at the end of a name, that are left out to find its series
MOST_SIDES = 8  # different ends of names where a series may have two images: left and right, before and after
IN_SERIES = 0.8  # share of the images that belong to one
FEWEST_NAMED = 4  # rows whose names are compared
MOST = 0.5


def notes_on_names(images: EvaluationData) -> list[str]:
    """Notes on the names of the training and scored images; embedded ones have none."""
    if images.source.embedded:
        return []
    paths = {split: paths_of(images, split, "image") for split in ("train", images.split)}
    train, test = used_paths(images)
    by_class = images.has("label")
    notes = notes_on_versions(train, test, by_class)
    if DRAWN in images.source.description:
        whole = [Path(path) for found in paths.values() for path in found if path]
        notes += [*notes_on_series(whole, by_class), *notes_on_lists(whole, DRAWN)]
    elif by_class:
        notes += notes_on_shared_series(train, test)
    for split in paths:
        if "mask" in images.columns(split):
            notes += notes_on_mask_names(split, paths[split], paths_of(images, split, "mask"))
    return notes + notes_on_folders(images, paths)


def used_paths(images: EvaluationData) -> list[list[str | None]]:
    """The path or name of each training image that is used, and of each scored image, in the order of the rows.

    Of labelled images whose folder is no class, as in parquet files, the number of the label is the last folder.
    """
    return [
        [paths[row] for row in used_rows(images, split).tolist()]
        for split in ("train", images.split)
        for paths in [in_classes(images, split, paths_of(images, split, "image"))]
    ]


def used_files(images: EvaluationData) -> list[list[str | None]]:
    """The same paths without labels, as they are kept."""
    return [
        [paths[row] for row in used_rows(images, split).tolist()]
        for split in ("train", images.split)
        for paths in [paths_of(images, split, "image")]
    ]


def in_classes(images: EvaluationData, split: str, paths: list[str | None]) -> list[str | None]:
    """Paths with the number of the label as the last folder, where there is none, or one of a split or of images."""
    if not images.has("label"):
        return paths
    labels, found = images.source.split(split)["label"][:], []
    for path, label in zip(paths, labels, strict=True):
        file = PurePosixPath(path or "")
        folder = file.parent.name
        is_class = not path or (folder and not is_split_like(folder) and not is_part(folder))
        found.append(path if is_class else str(file.parent / str(label) / file.name))
    return found


def paths_of(images: EvaluationData, split: str, column: str) -> list[str | None]:
    """The path or name of each file of a column of images, as far as the set keeps it.

    Where most images have no name, or a bare number, a column of text that names image files says it.
    """
    dataset, paths = images.source.split(split), stored_paths(images, split, column)
    bare = sum(
        not path or PurePosixPath(path).stem.isdecimal() and not PurePosixPath(path).parent.name for path in paths
    )
    return (file_names(dataset) if column == "image" and bare > MOST * len(paths) else []) or paths


def stored_paths(images: EvaluationData, split: str, column: str) -> list[str | None]:
    """The path or name that is stored with each file of a column of images."""
    cells = undecoded(images.source.split(split).select_columns([column])).with_format("arrow")[:][column]
    return pc.struct_field(cells, "path").to_pylist()


# ---------------------------------------------------------------- versions of one image


def original_of(stem: str, plain: Collection[str] = ()) -> tuple[str, bool]:
    """The name of the image of which a file is a changed version, and whether its name says that it is one.

    Args:
        plain: names of all files: behind a word at the start of a name, a number is the name of an image if it is the
            name of a file ("rot90_12" of "12").
    """
    for pattern in TOOLS:
        if found := pattern.fullmatch(stem):
            return found[1], True
    if (found := EDITED.fullmatch(stem)) and "".join(found.groups()) in plain:
        return "".join(found.groups()), True
    name, changed = stem, False
    while True:
        found = CHANGED.search(name)
        at_end = found is not None and SAYS_SO.search(found[0]) is not None
        shorter = name[: found.start()] if at_end else without_change_first(name, plain)
        if not shorter:
            return name, changed
        name, changed = shorter, True


def without_change_first(name: str, plain: Collection[str]) -> str:
    """A name without a word of a change at its start, and without the number of the version; "" without such a word."""
    if not (found := CHANGED_FIRST.match(name)):
        return ""
    rests = [name[found.end() :]]
    if counted := COUNTED.match(rests[0]):
        rests.insert(0, rests[0][counted.end() :])
    known = [rest for rest in reversed(rests) if rest in plain]
    named = [rest for rest in rests if re.search(r"[^\W\d_]", rest)]
    return next(iter([*known, *named]), "")


def versions_of(
    paths: Iterable[str | None], plain: Collection[str], by_class: bool
) -> dict[Name, list[tuple[str, bool]]]:
    """Folder and name of each original -> the names of its files, and whether each says that it is a changed version.

    Args:
        plain: names of all files, see :func:`original_of`.
    """
    found: dict[Name, list[tuple[str, bool]]] = defaultdict(list)
    for file in map(PurePosixPath, filter(None, paths)):
        name, is_changed = original_of(file.stem, plain)
        found[file.parent.name if by_class else "", name].append((file.name, is_changed))
    return found


def notes_on_versions(train: Sequence[str | None], test: Sequence[str | None], by_class: bool) -> list[str]:
    """A note where scored images are, by their names, changed versions of training images: "a_flip.jpg" of "a.jpg"."""
    plain = {PurePosixPath(path).stem for path in (*train, *test) if path}
    groups = [versions_of(paths, plain, by_class) for paths in (train, test)]
    sizes: Counter[str] = Counter()  # images of a folder
    for group in groups:
        for (folder, _), found in group.items():
            sizes[folder] += len(found)
    pairs, count = [], 0
    for key in groups[0].keys() & groups[1].keys():
        ours, theirs = groups[0][key], groups[1][key]
        have_original = [any(not changed for _, changed in found) for found in (ours, theirs)]
        if all(have_original) or set(ours) == set(theirs):  # two images of one name: each split has its own numbers
            continue
        size = len(ours) + len(theirs)
        if size > MOST_VERSIONS or size > max(FEW_VERSIONS, MOST * sizes[key[0]]):
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


def series_of(name: str, parts: int = 0) -> tuple[str, str] | None:
    """The series to which an image belongs by its name, and the rest of the name; None without.

    Args:
        parts: at the end of the name, that are no name of a series: "10" of "10_left" with one of them, "8900_idx5" of
            "8900_idx5_x51_y1001_class0" with three. 0: a number, and the word of it: "video3" of "video3_frame012".
    """
    if not parts:
        found = NUMBER_AT_END.fullmatch(name)
        return (found[1], name[found.end(1) :]) if found and found[1] else None
    ends = ends_of_parts(name)
    return (name[: ends[-parts]], name[ends[-parts] :].casefold()) if len(ends) >= parts else None


def ends_of_parts(name: str) -> list[int]:
    """The places behind the parts of a name, the last one left out: those behind "patient12" and "3" of "patient12_3L".

    A part is a word, a number, or a word with a number; a code of letters and digits, as a hash is, is one part.
    """
    ends: list[int] = []
    for found in PART.finditer(name):
        inner = [found.start() + place.start() for place in NUMBER_THEN_WORD.finditer(found[0])]
        ends += [*(inner if len(inner) == 1 else []), found.end()]
    return ends[:-1]


def by_original(paths: Iterable[str | None], by_class: bool) -> dict[Name, list[str]]:
    """Folder and name of each image -> the names of its files: versions of an image are one image of a series."""
    found: dict[Name, list[str]] = defaultdict(list)
    for file in map(PurePosixPath, filter(None, paths)):
        found[file.parent.name if by_class else "", original_of(file.stem)[0]].append(file.name)
    return found


def all_series(images: Iterable[Name], parts: int) -> tuple[dict[Name, list[Name]], int]:
    """Folder and series -> its images, and the least images of a series.

    A text without a number is the name of a series only where there are few rests behind all names.
    """
    series: dict[Name, list[Name]] = defaultdict(list)
    rests = set()
    for folder, name in images:
        if found := series_of(name, parts):
            series[folder, found[0]].append((folder, name))
            rests.add(found[1])
    if parts and len(rests) <= MOST_SIDES and not any(map(is_split_like, rests)):
        return series, 2
    if parts:
        series = {key: members for key, members in series.items() if re.search(r"\d", key[1])}
    return series, SHORTEST


def notes_on_series(paths: Sequence[Path], by_class: bool) -> list[str]:
    """A note on images that are named in series, as frames of videos or slices of scans are, and are split by hash.

    Where there are no labels, the names may as well be those of the classes: "cat.0.jpg".
    """
    images = by_original(map(str, paths), by_class)
    folders = {folder for folder, _ in images}
    for parts in range(MOST_PARTS + 1):
        series, shortest = all_series(images, parts)
        long = {key: len(members) for key, members in series.items() if len(members) >= shortest}
        fewest = max(FEWEST_SERIES, 2 * len(folders)) if by_class or parts else 2
        if len(long) >= fewest and sum(long.values()) >= IN_SERIES * len(images):
            break
    else:
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
    ours, theirs = (by_original(paths, by_class=True) for paths in (train, test))
    folders = {folder for folder, _ in theirs}
    for parts in range(MOST_PARTS + 1):
        series, shortest = all_series(ours | theirs, parts)
        first = {key: [image for image in images if image in ours] for key, images in series.items()}
        second = {key: [image for image in images if image in theirs] for key, images in series.items()}
        shared = [key for key in series if first[key] and second[key]]
        shared = [key for key in shared if len(first[key]) + len(second[key]) >= shortest]
        if parts:  # names that both splits have: each split has numbers of its own
            shared = [key for key in shared if not set(second[key]) <= set(first[key])]
        count = sum(len(theirs[image]) for key in shared for image in second[key])
        if len(shared) >= max(FEWEST_SERIES, 2 * len(folders)) and count > MOST * len(test):
            break
    else:
        return []
    one, other = theirs[second[min(shared)][0]][0], ours[first[min(shared)][0]][0]
    return [
        f"By their names, {count:,} of the {len(test):,} scored images belong to series of training images (such as "
        f"'{one}' and '{other}'): if images of a series show one scene or one person, scores are too high."
    ]


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
