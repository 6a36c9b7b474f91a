"""What the names of classes say: of images without a known class, of numbers for "no label", and of groups.

The rules hold for the labels of all formats (folders, text and numbers of parquet files) and, where images have none,
the first one for the categories of their objects. Nothing is decoded.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import pyarrow.compute as pc

from scd.data.images import undecoded
from scd.data.sources.columns import category_names
from scd.data.sources.folder_names import words_of
from scd.data.sources.folder_scan import printable
from scd.data.sources.labels import DOUBTFUL
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.object_notes import values_of

MOST_NAMED = 20  # names in a note
SAID = ("Objects of the category", "Folders that count as classes, although their names may mean splits")  # of sources
SAID_OF_NUMBERS = "Folders whose names differ in a number alone"
NO_CLASS = re.compile(  # the words of a whole name, written together, where no class is known
    r"unk|unkn|others?|misc|miscellaneous|various|pred|predict(ed|ions?)?|backgrounds?|bg|backgroundgoogle|clutter|maybe|"
    r"tbd|todo|ignored?|void|skip(ped)?|discard(ed)?|pending|(to)?review|ambiguous|ambiguity|indeterminate|doubtful|"
    r"dontcare|dontknow|na|nan|none|null"
)
UNDECIDED = re.compile(  # words at the start or the end of a name that say so whatever stands beside them
    r"un(labell?ed|knowns?|sure|certain|clear|classified|assigned|annotated|tagged|sorted|categori[sz]ed|defined|"
    r"determined|identified|identifiable|specified|decided|verified|checked|reviewed)|ambiguous|indeterminate|"
    r"void|invalid|ignored?|"
    r"(no|not|non|without|missing|to|tobe|needs?)"
    r"(labels?|labell?ed|class|classes|classified|annotations?|annotated?|sort(ed)?|check(ed)?|review(ed)?|"
    r"tags?|tagged|category|categori[sz]ed|known|sure|clear|identified|determined|defined|decided|specified)"
)
NO_OBJECT = re.compile(  # the words of a category, written together, whose "objects" are images without one
    r"empty|nothing|blank|good|ok|okay|(no|without)(objects?|findings?|animals?|person|people|defects?)|normal|negatives?"
)
MOST_WORDS = 3  # of such a text: "to be checked"
NUMBER = re.compile(r"\s*([+-]?\d+)(\.0+)?\s*")
USUAL = re.compile(r"-?9{2,}|-?(100|127|128|254|255|256|32767|32768|65535|2147483647|2147483648|4294967295)")
MOST_APART = 2  # numbers that stand apart from the others
FAR = 10  # distance from the other numbers at least
DENSE = 0.5  # share of the numbers up to the largest one that are labels
GROUPS = (  # of images that belong together; a word that classes have as well (person, object, sign) is none
    "part", "batch", "set", "chunk", "shard", "fold", "group", "image", "img", "pic", "photo", "patient", "pat", "pt",
    "subject", "subj", "sub", "case", "study", "participant", "volunteer", "donor", "user", "session", "sess", "ses",
    "visit", "video", "vid", "clip", "sequence", "seq", "scene", "frame", "frames", "camera", "cam", "scan", "series",
    "volume", "vol", "slide", "wsi", "tile", "patch", "run", "trial", "take", "day", "week", "month", "date", "folder",
    "dir", "site", "hospital", "center", "centre", "plot", "location", "loc", "roll", "album", "flight", "track",
    "dcim",
)  # fmt: skip
CAMERA = re.compile(r"[1-9]\d\d([A-Z_]{5})")  # a folder of a camera's card (DCF): 100CANON, 101MSDCF
DAY = re.compile(r"((19|20)\d\d[-_.]?)(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])([-_T. ].*)?")
MOST = 0.5


def notes_on_class_names(images: EvaluationData) -> list[str]:
    """Notes on classes that are none by their names; embedded images have none."""
    source = images.source
    if source.embedded:
        return []
    if labels := counts_of(source, "label"):
        said = any(note.startswith(SAID_OF_NUMBERS) for note in source.notes)
        return [*notes_on_unknown(labels, "images", source.notes), *notes_on_far_numbers(labels),
                *([] if said else notes_on_groups(labels))]  # fmt: skip
    return notes_on_unknown(counts_of(source, "objects"), "objects", source.notes)


def counts_of(source: Source, column: str) -> Counter[str]:
    """Class -> its images, or its objects, in all splits that have the column; in the order of the classes."""
    numbers: Counter[int] = Counter()
    names = source.class_names or ()
    for dataset in source.splits.values():
        if column not in dataset.column_names:
            continue
        cells = undecoded(dataset.select_columns([column])).with_format("arrow")[:][column]
        if column == "objects":
            numbers.update(values_of(cells.combine_chunks(), "category"))
            names = names or category_names(dataset.features[column]) or ()
            continue
        for pair in pc.value_counts(cells).to_pylist():
            numbers[pair["values"]] += pair["counts"]
    return Counter({names[number]: numbers[number] for number in sorted(set(numbers) & set(range(len(names))))})


# ---------------------------------------------------------------- images without a known class


def may_be_unknown(name: str) -> bool:
    """Whether a class is called as images without a known class are: "no_label", "Unknown species", "cat?"."""
    words = [word for part in re.split(r"['\N{RIGHT SINGLE QUOTATION MARK}]", name) for word in words_of(part)]
    ends = {"".join(found) for count in range(1, MOST_WORDS + 1) for found in (words[:count], words[-count:])}
    return (
        name.rstrip().endswith("?")
        or NO_CLASS.fullmatch("".join(words)) is not None
        or any(UNDECIDED.fullmatch(end) for end in ends)
    )


def notes_on_unknown(counts: Mapping[str, int], what: str, notes: Sequence[str]) -> list[str]:
    """A note on classes whose names may mean that no class is known.

    Args:
        what: "images" or "objects".
        notes: those of the source, which has its own rule for some names.
    """
    said = " ".join(note for note in notes if note.startswith(SAID))
    found = [
        name
        for name in counts
        if (may_be_unknown(name) or (what == "objects" and NO_OBJECT.fullmatch("".join(words_of(name)))))
        and not DOUBTFUL.fullmatch(name)
        and f"'{printable(name)}'" not in said
    ]
    if not found:
        return []
    listed = ", ".join(f"'{printable(name)}' ({counts[name]:,} {what})" for name in found[:MOST_NAMED])
    more = ", ..." if len(found) > MOST_NAMED else ""
    advice = "leave out their folders (data.locations.left_out=[FOLDER]) or rows" if what == "images" else "remove them"
    meant = "the class of their images is not known" if what == "images" else "there is no object of a known class"
    return [
        f"Classes whose names may mean that {meant}, and that count as classes: "
        f"{listed}{more}. If these are no classes, {advice}."
    ]


# ---------------------------------------------------------------- numbers for "no label"


def notes_on_far_numbers(counts: Mapping[str, int]) -> list[str]:
    """A note on labels such as 255 beside 0 to 9: numbers that often stand for "no label"."""
    number = {name: int(found[1]) for name in counts if (found := NUMBER.fullmatch(name))}
    others = [name for name in counts if name not in number]
    if others:  # one number among names
        apart = [name for name in number if USUAL.fullmatch(str(number[name]))]
        apart = apart if len(number) == len(apart) <= MOST_APART < len(counts) else []
        rest = "the other labels, which are names"
    else:
        apart = far_numbers(number)
        near = sorted(number[name] for name in number if name not in apart)
        rest = f"the other labels, {near[0]} to {near[-1]}" if near else ""
    if not apart:
        return []
    listed = ", ".join(f"{name.strip()} ({counts[name]:,} images)" for name in apart)
    return [
        f"Labels that stand apart from {rest}, and count as classes: {listed}. Such numbers often mean 'no label'; if "
        "these do, leave out their images."
    ]


def far_numbers(number: Mapping[str, int]) -> list[str]:
    """Those of the names, at most two, whose numbers lie far from all others, which are dense.

    A usual number for "no label" (99, 255, 9999) is far if it is not the next one; another number, if its distance from
    the others is larger than their range and than ``FAR``.
    """
    order = sorted(number, key=number.__getitem__)
    for count in range(MOST_APART, 0, -1):
        for first in range(count + 1):  # numbers below the others, and above them
            last = len(order) - count + first
            low, near, high = order[:first], order[first:last], order[last:]
            if len(near) < 2 or not is_dense([number[name] for name in near]):
                continue
            least, largest = number[near[0]], number[near[-1]]
            steps = [least - number[name] for name in low] + [number[name] - largest for name in high]
            usual = [USUAL.fullmatch(str(number[name])) is not None for name in (*low, *high)]
            enough = [2 if known else max(FAR, largest - least) + 1 for known in usual]
            if all(step >= limit for step, limit in zip(steps, enough, strict=True)):
                return [*low, *high]
    return []


def is_dense(numbers: Sequence[int]) -> bool:
    """Whether sorted numbers are those of classes: from about 0 on, with few gaps."""
    return abs(numbers[0]) <= 1 and len(numbers) >= DENSE * (numbers[-1] - numbers[0] + 1)


# ---------------------------------------------------------------- groups


def group_word(name: str) -> str | None:
    """The word of a name that is one of a group of images and a number: "patient" of "patient_003"; None for others."""
    if found := CAMERA.fullmatch(name):
        return found[1]
    if DAY.fullmatch(name):
        return "day"
    words = words_of(name)
    if not words or not re.search(r"\d", name):
        return None
    are_groups = [word in GROUPS or word.removesuffix("s") in GROUPS for word in words]
    ends_with_it = are_groups[-1] and re.search(r"[^\W\d_][ _.#-]*\d+\s*$", name)
    return words[-1] if all(are_groups) or ends_with_it else None


def notes_on_groups(counts: Mapping[str, int]) -> list[str]:
    """A note on classes most of which are called by one word of a group and a number."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in counts:
        if word := group_word(name):
            found[word].append(name)
    named = max(found.values(), key=len, default=[])
    if len(named) < 2 or len(named) <= MOST * len(counts):
        return []
    shown = ", ".join(f"'{printable(name)}'" for name in named[:3]) + (", ..." if len(named) > 3 else "")
    return [
        f"Classes that are called like groups of images, by one word and a number ({len(named):,} of {len(counts):,}): "
        f"{shown}. If they are groups (patients, videos, cameras, parts of one set), scores say how well a group is "
        "recognised, not a class; label the images by their classes."
    ]
