"""Marks of VOC's annotations and objects that change what is read, and what a reader must know of them.

VOC's own mark is ``difficult``. LabelMe keeps objects that were deleted, with the mark ``deleted``, and CVAT writes the
angle of a box into its attributes. ``pose``, ``truncated`` and ``occluded`` change nothing: VOC scores such objects.
"""

from collections import Counter
from xml.etree import ElementTree

from scd.data.sources.turned_boxes import TURNED_BOXES, is_turned_by
from scd.errors import DataError

REPEATED = "Objects that are annotated twice and count once"
RENAMED = "Annotations whose <filename> names another file"
EXCHANGED = "those of them whose file is there"
DIFFICULT = "Objects that are marked as difficult and count like others (data.options.difficult=false leaves them out)"
DELETED = "Objects that are marked as deleted, as LabelMe keeps them, which are left out"
YES = ("1", "true", "yes")


def is_marked(entry: ElementTree.Element, mark: str) -> bool:
    """Whether an object has a mark, such as ``difficult``: as an element or among its attributes, as of CVAT."""
    given = [entry.findtext(mark)]
    given += [one.findtext("value") for one in entry.iter("attribute") if (one.findtext("name") or "").strip() == mark]
    return any((value or "").strip().lower() in YES for value in given)


def is_turned(entry: ElementTree.Element) -> bool:
    """Whether the attributes of an object turn its box by an angle."""
    return any(
        (one.findtext("name") or "").strip().lower() == "rotation"
        and is_turned_by((one.findtext("value") or "").strip())
        for one in entry.iter("attribute")
    )


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
        f"{what}: {counted[what]:,}." for what in (REPEATED, DIFFICULT, DELETED, TURNED_BOXES) if counted[what]
    ]
