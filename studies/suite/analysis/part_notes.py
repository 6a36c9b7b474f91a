"""What a reader must know of names of files that show a shared patient, slide or video, wherever it stands in the name.

Series that stand at the start of a name are noted by :mod:`name_notes` and :mod:`series_notes`. Here names are split
into parts, of which one that tells nearly all images apart (a hash, a random id) may stand before or behind the part
that images share. Names that are times are noted where scored images were taken between training images.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np

from scd.data.sources.folder_names import is_part, is_split_like
from scd.data.sources.video_folders import is_numbered as is_numbered_folder
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.group_columns import begin_anew
from studies.suite.analysis.name_notes import original_of, used_files, used_paths

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
DAY = r"(?:19|20)\d\d[-_. ]?(?:0[1-9]|1[0-2])[-_. ]?(?:0[1-9]|[12]\d|3[01])"
DAY_FIRST = r"\d\d[-_.]\d\d[-_.](?:19|20)\d\d"
OF_DAY = r"[-_. T]*(?:[01]\d|2[0-3])[-_.:h]?[0-5]\d[-_.:m]?[0-5]\d(?:[-_.s]?\d{1,9})?Z?"
TIME = rf"(?:{DAY}|{DAY_FIRST})(?:{OF_DAY})?"
PART = re.compile(rf"{UUID}|(?<![^\W_]){TIME}(?![^\W_])|[^\W_]+", re.IGNORECASE)
IS_TIME = re.compile(rf"{TIME}|(?:19|20)\d\d|{UUID}", re.IGNORECASE)  # or a random id
NUMBER, NUMBERED = re.compile(r"\d+"), re.compile(r"([^\W\d_]+)\d+")
WORD = re.compile(r"[^\W\d_]+|(?!\d+$)[^\W_]{1,3}")  # or a short code, as of a hospital: "G4"
MEASURE = re.compile(r"\d{1,4}[^\W\d_]{1,4}|\d+x\d+", re.IGNORECASE)  # "512px", "100X", "640x480"
NO_GROUP = set(  # words whose number counts images, or measures something, and names no group of them
    "a age amz angle aug az azimuth at b batch c camera ch channel ckpt class cls col column conf copy cr crop d day "
    "deg degree depth dji dsc dscf dscn e el elevation epoch f face fold fps fr frame gopr h height hour hue i id idx "
    "image images img index iou iso iter j jpg k l label layer level loss m mag min month mvi n no num number obj "
    "object page part patch photo pic picture pitch png px pxl q quality r rank res roll rot rotation row rx ry s "
    "sample scale score screenshot sec seed size slice sl split ss step sx sy t temp tile time train test training ul "
    "uy ux v val valid ver version view w wa week width x y yaw year z zoom".split()
)
GROUPS = set("animal case clip drive patient person scan scene sequence slide study subject user vid video".split())
LONG_CODE, LONG_NUMBER = 6, 6  # characters of an id that needs no word before it
FEWEST_CODES, FEWEST_NUMBERS = 3, 6  # different values of a part that groups images: of codes, and of numbers
TOLD_APART = 0.8  # share of the images that a part without repetition tells apart
ALIKE = 0.8  # share of the images whose names are alike in form
MOST = 0.5  # share of the scored images that is not noted, and of all images that one value may have

EPOCH = r"(?:\d{19}|\d{16}|\d{13}|\d{10}(?:\.\d{1,9})?)"  # in nanoseconds, microseconds, milliseconds or seconds
TIMED = re.compile(  # a time, and words around it: "center_2016_12_01_13_30_48_287"
    rf"(?:[^\W\d_]+[ _.-]+)*(?:(?P<day>{DAY})(?P<hour>{OF_DAY})|(?P<epoch>{EPOCH}))(?:[ _.-]+[^\W\d_]+)*"
)
SECOND = 10**9  # nanoseconds
FIRST_TIME, LAST_TIME = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * SECOND for year in (1990, 2040))
FEW_STEPS, LONGEST_STEP = 3, 5 * SECOND  # between a scored and the nearest training image, and between two images
FEWEST_TIMED = 4  # scored images


def notes_on_parts(images: EvaluationData) -> list[str]:
    """A note on a part of the names of scored images that training images share, or on times between theirs."""
    if images.source.embedded:
        return []
    used = used_paths(images)
    return (
        notes_on_shared_parts(*used, images.has("label"))
        or notes_on_times(*used)
        or notes_on_shared_folders(*used_files(images), len(images.source.class_names or ()))
    )


# ---------------------------------------------------------------- parts of names


@dataclass
class Named:
    """An image by the path of its file, its folder where that is a class, and its name."""

    path: PurePosixPath
    folder: str
    stem: str

    @cached_property
    def parts(self) -> list[re.Match[str]]:
        return list(PART.finditer(self.stem))

    def values(self) -> list[str]:
        return [found[0] for found in self.parts]

    def between(self, first: int, last: int) -> str:
        """The name from one part to another one, with what stands between them."""
        return self.stem[self.parts[first].start() : self.parts[last].end()]


def notes_on_shared_parts(train: Sequence[str | None], test: Sequence[str | None], by_class: bool) -> list[str]:
    """A note on a part of names that groups images, where most scored images have one that training images have."""
    splits = [
        [
            Named(path, path.parent.name if by_class else "", original_of(path.stem)[0])
            for path in map(PurePosixPath, filter(None, paths))
        ]
        for paths in (train, test)
    ]
    widths = Counter(len(image.parts) for images in splits for image in images)
    if not widths:
        return []
    width = widths.most_common(1)[0][0]
    ours, theirs = ([image for image in images if len(image.parts) == width] for images in splits)
    if len(ours) < ALIKE * len(train) or len(theirs) < ALIKE * len(test):
        return []
    columns = list(zip(*(image.values() for image in (*ours, *theirs)), strict=True))
    classes = len({image.folder for image in ours})
    best: tuple[int, int, Named, Named, str] | None = None
    for first, last, fewest in group_parts(columns):
        keys = [image.between(first, last) for image in ours], [image.between(first, last) for image in theirs]
        sizes = Counter((*keys[0], *keys[1]))
        if not max(fewest, classes + 1) <= len(sizes) <= MOST * sum(sizes.values()):
            continue
        if sizes.most_common(1)[0][1] > MOST * sum(sizes.values()):
            continue
        own = Counter((key, image.folder) for key, image in zip(keys[0], ours, strict=True))
        known = {key for (key, _), count in own.items() if count > 1}  # numbers that begin anew in each split are not
        shared = [(key, image) for key, image in zip(keys[1], theirs, strict=True) if key in known]
        if len(shared) > MOST * len(test) and (best is None or (len(shared), len(sizes)) > best[:2]):
            key, image = min(shared, key=lambda found: str(found[1].path))
            other = next(other for found, other in zip(keys[0], ours, strict=True) if found == key)
            best = len(shared), len(sizes), image, other, key
    if best is None:
        return []
    count, _, image, other, key = best
    return [
        f"By their names, {count:,} of the {len(test):,} scored images have a part of the name in common with several "
        f"training images (such as '{key}' in '{image.path.name}' and '{other.path.name}'): if it names a patient, a "
        "slide, a scene or a video, scores are too high. Give all images of one to one split, in folders train and "
        "test."
    ]


def group_parts(columns: Sequence[tuple[str, ...]]) -> list[tuple[int, int, int]]:
    """The first and last place of parts that may name groups of images, and how many groups that takes.

    Such a part is an id of letters and digits, a long number, or a number with the words before it ("CRC-Prim-HE-07").
    A part elsewhere must tell nearly all images apart, unless a word says what the group is ("patient_12").

    Args:
        columns: for each place, the part of each image.
    """
    apart = [place for place, values in enumerate(columns) if len(set(values)) >= TOLD_APART * len(values)]
    found = []
    for place, values in enumerate(columns):
        word = ""
        if mostly(values, lambda value: len(value) >= LONG_CODE) and mostly(values, is_code, MOST):
            first, fewest = place, FEWEST_CODES
        elif mostly(values, is_numbered):
            first, fewest = first_word(columns, apart, place), FEWEST_NUMBERS
            word = NUMBERED.fullmatch(usual(values))[1]
        elif mostly(values, is_number):
            first, fewest = first_word(columns, apart, place), FEWEST_NUMBERS
            word = usual(columns[place - 1]).casefold() if first < place else ""
            if word in NO_GROUP or (not word and not mostly(values, lambda value: len(value) >= LONG_NUMBER)):
                continue
        else:
            continue
        if word.casefold() in GROUPS or any(not first <= other <= place for other in apart):
            found.append((first, place, fewest))
    return found


def first_word(columns: Sequence[tuple[str, ...]], apart: Collection[int], place: int) -> int:
    """The place of the first of the words right before a part, or its own place without a word.

    Args:
        apart: places of parts that tell images apart, which are random letters and no words.
    """
    while place and place - 1 not in apart and mostly(columns[place - 1], is_word):
        place -= 1
    return place


def is_word(part: str) -> bool:
    return WORD.fullmatch(part) is not None


def mostly(values: Sequence[str], holds: Callable[[str], bool], share: float = ALIKE) -> bool:
    return sum(map(holds, values)) >= share * len(values)


def usual(values: Sequence[str]) -> str:
    return Counter(values).most_common(1)[0][0]


def is_code(part: str) -> bool:
    """Whether a part is an id of letters and digits, and not a word with a number, a measure, a time or a UUID."""
    mixed = re.search(r"\d", part) and re.search(r"[^\W\d_]", part)
    other = any(form.fullmatch(part) for form in (NUMBERED, MEASURE, IS_TIME))
    return len(part) >= LONG_CODE and mixed is not None and not other


def is_numbered(part: str) -> bool:
    """Whether a part is a word with a number that may name a group: "g01", "patient12"."""
    found = NUMBERED.fullmatch(part)
    return found is not None and found[1].casefold() not in NO_GROUP


def is_number(part: str) -> bool:
    return NUMBER.fullmatch(part) is not None and not IS_TIME.fullmatch(part) and time_of(part) is None


# ---------------------------------------------------------------- folders of a table


def notes_on_shared_folders(train: Sequence[str | None], test: Sequence[str | None], classes: int) -> list[str]:
    """A note on numbered folders of paths that a table keeps, as "patient12/study1/view2.png", that both splits have.

    Folders whose images the source has read itself are compared by :mod:`scd.data.sources.video_folders`.

    Args:
        classes: their number; folders that are no more than twice as many may be of these.
    """
    ours, theirs = ([group_folder(path or "") for path in paths] for paths in (train, test))
    known, scored = ({folder for folder in folders if folder} for folders in (ours, theirs))
    shared = [place for place, folder in enumerate(theirs) if folder in known]
    if len(known | scored) < max(FEWEST_NUMBERS, 2 * classes + 1) or len(shared) <= MOST * len(test):
        return []
    if begin_anew(known, scored):
        return []
    one = shared[0]
    other = train[ours.index(theirs[one])]
    return [
        f"By their names, {len(shared):,} of the {len(test):,} scored images are in folders of training images (such "
        f"as '{test[one]}' and '{other}'): if a folder is of one patient, scene or video, scores are too high. Give "
        "all images of a folder to one split."
    ]


def group_folder(path: str) -> str:
    """The first folder of a path that is called with a number; "" without one, and of a path on this machine."""
    file = PurePosixPath(path)
    if file.is_absolute():
        return ""
    named = [name for name in file.parts[:-1] if not is_split_like(name) and not is_part(name)]
    return next(filter(is_numbered_folder, named), "")


# ---------------------------------------------------------------- names that are times


def notes_on_times(train: Sequence[str | None], test: Sequence[str | None]) -> list[str]:
    """A note on names that are times, where most scored images were taken a few short steps from a training image."""
    timed = [
        [(time, path.name) for path in map(PurePosixPath, filter(None, paths)) if (time := time_of(path.stem))]
        for paths in (train, test)
    ]
    ours, theirs = map(sorted, timed)
    if len(theirs) < FEWEST_TIMED or len(ours) < ALIKE * len(train) or len(theirs) < ALIKE * len(test):
        return []
    known, asked = (np.array([time for time, _ in found]) for found in (ours, theirs))
    steps = np.diff(np.unique(np.concatenate([known, asked])))
    limit = FEW_STEPS * float(np.median(steps)) if len(steps) else 0.0
    after = np.searchsorted(known, asked)
    around = np.stack([np.maximum(after - 1, 0), np.minimum(after, len(known) - 1)])
    distances = np.abs(known[around] - asked)
    near = distances.min(axis=0) <= limit
    if not 0 < limit <= FEW_STEPS * LONGEST_STEP or near.sum() <= MOST * len(test):
        return []
    row = int(near.argmax())
    other = ours[around[distances[:, row].argmin(), row]][1]
    return [
        f"By their names, which are times, {near.sum():,} of the {len(test):,} scored images were taken at most "
        f"{limit / SECOND:.2g} s from a training image (such as '{theirs[row][1]}' and '{other}'): if these are frames "
        "of one drive or video, scores are too high. Give each drive or video to one split."
    ]


def time_of(stem: str) -> int | None:
    """The time that a name is, in nanoseconds since 1970; None where it is no time of the years 1990 to 2040."""
    found = TIMED.fullmatch(stem)
    if not found:
        return None
    if found["epoch"]:
        whole, _, rest = found["epoch"].partition(".")
        time = int(whole) * 10 ** (19 - len(whole)) + int(f"{rest:0<9}")
    else:
        digits = re.sub(r"\D", "", found["day"] + found["hour"])
        try:
            second = datetime.strptime(digits[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        except ValueError:  # February 30
            return None
        time = int(second.timestamp()) * SECOND + int(f"{digits[14:]:0<9}")
    return time if FIRST_TIME <= time < LAST_TIME else None
