"""Marks of VOC's annotations and objects that change what is read, and what a reader must know of them.

VOC's own mark is ``difficult``. LabelMe keeps objects that were deleted, with the mark ``deleted``, and CVAT writes the
angle of a box into its attributes. ``pose``, ``truncated`` and ``occluded`` change nothing: VOC scores such objects.
"""

from collections import Counter
from xml.etree import ElementTree

from scd.data.sources.coco_marks import LOW_SCORES, SCORES, is_low, is_mark
from scd.data.sources.turned_boxes import TURNED_BOXES, is_turned_by
from scd.errors import DataError

REPEATED = "Objects that are annotated twice and count once"
RENAMED = "Annotations whose <filename> names another file"
EXCHANGED = "those of them whose file is there"
DIFFICULT = "Objects that are marked as difficult and count like others (data.options.difficult=false leaves them out)"
MARKED = "Objects that have another mark of this kind (ignore, outside, group_of) and count like others"
LOW_SCORE = f"Objects {LOW_SCORES}, as those of a detector, which count like others"
POLYGONS = "Objects with a <polygon>, which is not read: their box is drawn filled"
DELETED = "Objects that are marked as deleted, as LabelMe keeps them, which are left out"
YES = ("1", "true", "yes")


def attributes_of(entry: ElementTree.Element) -> list[tuple[str, str]]:
    """Name and value of the attributes of an object, as CVAT writes them."""
    return [
        ((one.findtext("name") or "").strip(), (one.findtext("value") or "").strip()) for one in entry.iter("attribute")
    ]


def is_yes(value: str) -> bool:
    return value.strip().lower() in YES


def is_marked(entry: ElementTree.Element, mark: str) -> bool:
    """Whether an object has a mark, such as ``difficult``: as an element or among its attributes, as of CVAT."""
    given = [entry.findtext(mark) or "", *(value for name, value in attributes_of(entry) if name == mark)]
    return any(is_yes(value) for value in given)


def has_other_mark(entry: ElementTree.Element) -> bool:
    """Whether an object has a mark, but for ``difficult``, by which other tools take objects out of the scores."""
    given = [*((one.tag, one.text or "") for one in entry), *attributes_of(entry)]
    return any(name != "difficult" and is_mark(name) and is_yes(value) for name, value in given)


def is_turned(entry: ElementTree.Element) -> bool:
    """Whether the attributes of an object turn its box by an angle."""
    return any(name.lower() == "rotation" and is_turned_by(value) for name, value in attributes_of(entry))


def not_read(entry: ElementTree.Element) -> list[str]:
    """What an object has that is not read, as the notes call it: a rotation, another mark, a polygon."""
    has = {
        TURNED_BOXES: is_turned(entry),
        MARKED: has_other_mark(entry),
        POLYGONS: entry.find("polygon") is not None,
        LOW_SCORE: any(is_low(number_in(entry.findtext(name))) for name in SCORES),
    }
    return [what for what, is_there in has.items() if is_there]


def number_in(text: str | None) -> float | None:
    """The number that a text is; None for another text."""
    try:
        return float(text or "")
    except ValueError:
        return None


def annotation_notes(counted: Counter[str], total: int, what: str) -> list[str]:
    """Notes on objects that are left out, or read as others than they are, and on annotations that name another image.

    Args:
        counted: by the reader of annotations; total: their number.
        what: names the split.

    Raises:
        DataError: most of the annotations name another image that is there, so they were mixed up.
    """
    if counted[EXCHANGED] > total / 2:
        raise DataError(
            f"{what}: the <filename> of {counted[EXCHANGED]:,} of {total:,} annotations is that of another image in "
            "JPEGImages, so the annotations belong to other images; give each file of annotations the name of its image"
        )
    notes = [f"{RENAMED}: {counted[RENAMED]:,} of {total:,}."] if counted[RENAMED] else []
    return notes + [
        f"{what}: {counted[what]:,}."
        for what in (REPEATED, DIFFICULT, MARKED, DELETED, TURNED_BOXES, POLYGONS, LOW_SCORE)
        if counted[what]
    ]
