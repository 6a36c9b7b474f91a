"""Images that come in pairs by their names: an image and its mask, its depth map, or a copy of it.

Names say which files belong together, and a few images of them are opened to see what the pairs are. Numbered files
prove little, since many sets number the images of each class from 0. What is looked for:

- in one folder, files whose names differ in one text (``X.jpg`` and ``X_matte.png``, ``X_rgb.png`` and
  ``X_depth.png``, ``X.jpg`` and ``seg_X.png``) or in their ending alone (``X.jpg`` and ``X.png``);
- class folders that hold files of the same names (``rgb/X.jpg`` and ``alpha/X.png``): two to four, or some of any
  number that share their names with no other one, or more than four of which most hold masks or maps of one.

Files are masks or maps if they have the shape of their partners, and either few colours where the partners have many,
or no colour where the partners are in colour.
"""

import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from scd.data.sources.folder_scan import printable
from scd.errors import DataError

SEPARATORS = "_-. "
FEW_COLOURS = 32  # an image with more is no mask
SAMPLED = 8  # pairs whose images are opened
FEWEST = 3  # pairs that are looked at
MOST_TEXTS = 8  # texts by which names differ, the most frequent ones
MOST_WORDS = 3  # of such a text
MOST_FOLDERS = 4  # class folders of which each two are compared: images, masks, edges, depth
MOST_COMPARED = 32  # of more folders of the same names, those whose images are opened
COMMON = 0.9  # share of names that two folders have in common
ALIKE = 0.5  # correlation of the brightness of two versions of one picture
THUMBNAIL = 8

Pairs = Sequence[tuple[Path, Path]]


@dataclass
class Look:
    """What an image looks like.

    Attributes:
        colours: their number, at most FEW_COLOURS + 1.
        grey: whether no pixel has a colour.
        shape: width / height.
        thumbnail: (THUMBNAIL ** 2) brightness.
    """

    colours: int
    grey: bool
    shape: float
    thumbnail: np.ndarray


def look(path: Path) -> Look | None:
    """What an image looks like; None for one that cannot be decoded, which is named where the images are read."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            colours = len(image.getcolors(FEW_COLOURS) or range(FEW_COLOURS + 1))
            small = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.NEAREST), dtype=int)
            thumbnail = image.convert("L").convert("F").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
            one_channel = len(image.getbands()) == 1 and image.mode != "P"
            grey = one_channel or int(np.ptp(small, axis=2).max()) <= 2
            return Look(colours, grey, image.width / image.height, np.asarray(thumbnail, dtype=float).ravel())
    except Exception:  # Pillow raises errors of many kinds for broken files
        return None


def looks(pairs: Pairs) -> list[tuple[Look, Look]]:
    """Looks of some of the pairs, evenly spread."""
    step = max(1, len(pairs) // SAMPLED)
    found = [(look(first), look(second)) for first, second in pairs[::step][:SAMPLED]]
    return [(first, second) for first, second in found if first is not None and second is not None]


def are_maps(maps: Sequence[Look], images: Sequence[Look]) -> bool:
    """Whether images with few colours, or without colour, stand beside images that have them."""
    rich = [image for image in images if image.colours > FEW_COLOURS]
    if not maps or 2 * len(rich) < len(images):
        return False
    few = all(image.colours <= FEW_COLOURS for image in maps) and any(image.colours > 1 for image in maps)
    grey = all(image.grey for image in maps) and 2 * sum(not image.grey for image in rich) >= len(images)
    return few or grey


def maps_of(seen: Sequence[tuple[Look, Look]]) -> int | None:
    """Which side of the pairs, 0 or 1, holds masks or maps of the other one; None if neither does."""
    sides = [pair[0] for pair in seen], [pair[1] for pair in seen]
    return next((side for side in (1, 0) if are_maps(sides[side], sides[1 - side])), None)


def have_same_shape(seen: Sequence[tuple[Look, Look]]) -> bool:
    """Whether both images of every pair have the same shape, up to rounding."""
    return all(abs(first.shape / second.shape - 1) < 0.03 for first, second in seen)


def show_the_same(seen: Sequence[tuple[Look, Look]]) -> bool:
    """Whether each image is like its partner, and more so than like the partner of any other one."""
    sides = [np.stack([pair[side].thumbnail for pair in seen]) for side in (0, 1)] if seen else []
    if len(seen) < 4 or min(side.std(1).min() for side in sides) < 0.1:
        return False
    likeness = np.corrcoef(*sides)[: len(seen), len(seen) :]
    return bool((likeness.argmax(1) == np.arange(len(seen))).all() and likeness.diagonal().min() > ALIKE)


def check_pairs_in_folders(files: Sequence[Path]) -> list[str]:
    """Look for images beside which masks, maps or copies lie in the same folder.

    Returns:
        Notes on files that lie beside images of the same name and are images themselves, such as mirrored copies.

    Raises:
        DataError: masks or maps beside their images; the text names one.
    """
    folders: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        folders[file.parent].append(file)
    found: dict[tuple[str, str], list[tuple[Path, Path]]] = defaultdict(list)
    for inside in folders.values():
        for texts, pairs in pairs_in_folder(inside).items():
            found[texts] += pairs
    notes = []
    for texts, pairs in found.items():
        within = sum(len(folders[folder]) for folder in {first.parent for first, _ in pairs})
        if len(pairs) < FEWEST or 6 * len(pairs) < within:  # an image may have up to five maps
            continue
        seen = looks(pairs)
        side = maps_of(seen)
        if side is not None and have_same_shape(seen):
            image, map_ = pairs[0][1 - side], pairs[0][side]
            raise DataError(
                f"imagefolder: '{map_}' looks like a mask or map of '{image.name}' beside it ({len(pairs)} such "
                "files); take them out, or give images and masks as parquet files with the columns image and mask"
            )
        if "" in texts and 3 * len(pairs) >= within:
            first, second = (printable(file.name) for file in pairs[0])
            notes.append(
                f"Images beside others of the same name, which count as images of their own ({len(pairs)}): "
                f"'{second}' beside '{first}'."
            )
    return notes


def pairs_in_folder(files: Sequence[Path]) -> dict[tuple[str, str], list[tuple[Path, Path]]]:
    """Files of one folder by the two texts in which their names differ; the first text may be empty.

    Texts that are numbers make no pairs: ``1.png`` and ``1_2.png``, or ``a.png`` and ``a (2).png``.
    """
    stems = {file: file.stem for file in files}
    counts = Counter(text for stem in stems.values() for text, _ in texts_of(stem))
    named = [text for text, count in counts.items() if count >= FEWEST and re.search(r"[^\W\d_]", text)]
    frequent = sorted(named, key=lambda text: (-counts[text], text))[:MOST_TEXTS]
    by_text: dict[str, dict[str, Path]] = {text: {} for text in ("", *frequent)}  # text -> the common part -> file
    by_ending: dict[str, dict[str, Path]] = defaultdict(dict)
    for file, stem in stems.items():
        by_ending[file.suffix][stem] = by_text[""][stem] = file
        for text, part in texts_of(stem) if frequent else ():
            if text in by_text:
                by_text[text][part] = file
    found: dict[tuple[str, str], list[tuple[Path, Path]]] = {}
    for groups, texts in ((by_text, list(by_text)), (by_ending, sorted(by_ending))):
        for first, second in combinations(texts, 2):
            if common := sorted(groups[first].keys() & groups[second].keys()):
                key = (first, second) if groups is by_text else ("", f"{first} {second}")
                found[key] = [(groups[first][part], groups[second][part]) for part in common]
    return found


def texts_of(stem: str) -> list[tuple[str, str]]:
    """Texts at the end and the beginning of a name, written with * for the rest, and that rest."""
    places = [place for place, letter in enumerate(stem) if letter in SEPARATORS and 0 < place < len(stem) - 1]
    ends = [(f"*{stem[place:]}", stem[:place]) for place in places[-MOST_WORDS:]]
    return ends + [(f"{stem[: place + 1]}*", stem[place + 1 :]) for place in places[:MOST_WORDS]]


def check_pairs_of_folders(files: Sequence[Path]) -> list[str]:
    """Look for class folders that hold the parts of one set under the same names.

    Returns:
        Notes on folders whose files have the same names and that may be classes.

    Raises:
        DataError: the images of one folder are masks or maps of another one's; the text names both.
    """
    classes: dict[Path, dict[Path, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        classes[file.parent.parent][file.parent].append(file)
    notes: list[str] = []
    for folders in classes.values():
        parts = {folder: parts_of(files) for folder, files in sorted(folders.items())}
        if len(parts) <= MOST_FOLDERS:
            for first, second in combinations(parts, 2):
                notes += _check_two_folders(first, second, parts[first], parts[second])
            continue
        used = Counter(name for found in parts.values() for name in found)
        for group in folders_of_equal_names(parts):
            common = sorted(set.intersection(*(set(parts[folder]) for folder in group)))
            if len(group) <= MOST_FOLDERS:
                alone = sum(used[name] <= len(group) for name in common) >= COMMON * len(common)
                if alone or not are_numbered(common):
                    for first, second in combinations(group, 2):
                        notes += _check_two_folders(first, second, parts[first], parts[second])
            else:
                _check_many_folders(group, parts, common)
    return notes


def folders_of_equal_names(parts: Mapping[Path, Mapping[str, Path]]) -> list[list[Path]]:
    """Groups of two folders or more whose files have the same names, up to a tenth of them.

    A folder joins the group with whose first folder it has most names in common; the work grows with the number of
    files, not with that of pairs.
    """
    groups: list[list[Path]] = []
    places: dict[str, list[int]] = defaultdict(list)  # name of a file -> groups whose first folder has it
    for folder, found in parts.items():
        if len(found) < FEWEST:
            continue
        shared = Counter(place for name in found for place in places.get(name, ()))
        for place, count in shared.most_common():
            if count >= COMMON * max(len(found), len(parts[groups[place][0]])):
                groups[place].append(folder)
                break
        else:
            for name in found:
                places[name].append(len(groups))
            groups.append([folder])
    return [group for group in groups if len(group) > 1]


def _check_many_folders(folders: Sequence[Path], parts: Mapping[Path, Mapping[str, Path]], names: list[str]) -> None:
    """Raise DataError for more than four folders of the same names of which most hold masks or maps of one.

    Of folders whose files are numbered, all but that one do; some sets number the images of each class from 0.
    """
    if len(names) < FEWEST or len(folders) > MOST_COMPARED:
        return
    chosen = names[:: max(1, len(names) // SAMPLED)][:SAMPLED]
    found = {folder: [look(parts[folder][name]) for name in chosen] for folder in folders}
    needed = len(folders) - 1 if are_numbered(names) else (len(folders) + 1) // 2
    for base in folders:
        maps = [folder for folder in folders if folder != base and _is_map_of(found[folder], found[base])]
        if len(maps) >= needed:
            named = ", ".join(f"'{printable(folder.name)}'" for folder in maps)
            raise DataError(_no_classes(f"{named} and '{printable(base.name)}'", base.parent, len(names)))


def _is_map_of(maps: Sequence[Look | None], images: Sequence[Look | None]) -> bool:
    seen = [pair for pair in zip(images, maps, strict=True) if None not in pair]
    return are_maps([pair[1] for pair in seen], [pair[0] for pair in seen]) and have_same_shape(seen)


def _no_classes(names: str, folder: Path, common: int) -> str:
    return (
        f"imagefolder: {names} in '{folder}' are no classes, but images and their masks or maps, by their content and "
        f"{common} equal names of files; images with masks are given as parquet files with the columns image and mask; "
        "if they are classes, give their files different names"
    )


def _check_two_folders(one: Path, two: Path, first: Mapping[str, Path], second: Mapping[str, Path]) -> list[str]:
    common = sorted(first.keys() & second.keys())
    if len(common) < FEWEST or len(common) < COMMON * max(len(first), len(second)):
        return []
    pairs = [(first[part], second[part]) for part in common]
    seen = looks(pairs)
    side = maps_of(seen)
    names = f"'{printable(one.name)}' and '{printable(two.name)}'"
    if side is not None and have_same_shape(seen):
        raise DataError(_no_classes(names, one.parent, len(common)))
    if show_the_same(seen):
        return [
            f"Folders {names} of '{printable(one.parent.name)}' hold the same pictures under the same names "
            f"({len(common)}); they count as classes."
        ]
    if side is not None or not are_numbered(common):
        return [
            f"Folders {names} of '{printable(one.parent.name)}' hold files of the same names ({len(common)}), as parts "
            "of one set do; they count as classes."
        ]
    return []


def parts_of(files: Sequence[Path]) -> dict[str, Path]:
    """Names without ending, and without the text that all of the folder begin or end with -> the files.

    Of ``aachen_0_gtFine.png`` and ``bochum_1_gtFine.png`` these are ``aachen_0`` and ``bochum_1``.
    """
    stems = [file.stem for file in files]
    start = os.path.commonprefix(stems) if len(stems) > 1 else ""
    end = os.path.commonprefix([stem[::-1] for stem in stems])[::-1] if len(stems) > 1 else ""
    begin = max((place + 1 for place, letter in enumerate(start) if letter in SEPARATORS), default=0)
    cut = max((len(end) - place for place, letter in enumerate(end) if letter in SEPARATORS), default=0)
    return {stem[begin : len(stem) - cut] or stem: file for stem, file in zip(stems, files, strict=True)}


def are_numbered(names: Sequence[str]) -> bool:
    """Whether names differ mostly in their numbers: without these, a pattern belongs to two names or more."""
    patterns = {re.sub(r"\d+", "0", name) for name in names}
    return 2 * len(patterns) <= len(names)
