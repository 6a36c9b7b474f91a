"""Marks of COCO's annotations that are not read: those that other tools take out of the scores, and low scores.

COCO's own mark is ``iscrowd``. CrowdHuman and VisDrone write ``ignore``, VOC's conversions ``difficult``, Open Images
``is_group_of``, ``is_depiction`` (a drawing or a sculpture) and ``is_inside`` (a picture from inside of the object);
label tools put them into ``attributes``, and CVAT's tracks mark objects that cannot be seen as ``outside``. Pseudo
labels keep the ``score`` of their detector. WIDER FACE writes ``invalid``, MOT the ``visibility`` of an object, and
COCO-Text the ``legibility`` of a text. LVIS lists the categories of which an image may hold objects that nobody
has annotated. Tools have further fields of their own, which are named.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from scd.data.sources.folder_scan import printable

CROWD = "iscrowd"  # the one mark that is read, of an annotation itself
MARKS = {
    "crowd", "depiction", "difficult", "fake", "groupof", "ignore", "ignored", "inside", "invalid", "logo", "outside",
    "uncertain", "unsure",
}  # fmt: skip
UNREADABLE = {"legibility": "illegible", "transcription": "###", "utf8_string": "###"}  # texts that nobody can read
SET = (1, "1", "true", "True", "yes")  # True equals 1
SCORES = ("score", "confidence")
LOW = 0.5
LOW_SCORES = f"with a score below {LOW}"
VISIBILITY = "visibility"  # of MOT: the share of the object that can be seen
UNSEEN = "with visibility=0, of which nothing can be seen"
MOST_NAMED = 3
READ = {"id", "image_id", "category_id", "bbox", "area", "segmentation", CROWD, "attributes"}
UNSET = (0, "0", "false", "False", "no", None, "")  # False equals 0
ROTATION = "rotation"  # of CVAT, noted with the boxes
MOST_FIELDS = 8  # that are named
OPEN = "neg_category_ids"  # of LVIS: categories of which an image is known to hold no object
PARTLY = "not_exhaustive_category_ids"  # of LVIS: categories of which an image holds objects without an annotation


def notes_on_marks(annotations: Sequence[dict]) -> list[str]:
    """Notes on the marks of some annotations, and on their low scores: these count as objects like others."""
    marked: Counter[str] = Counter()
    low = unseen = unread = 0
    for entry in annotations:
        attributes = entry.get("attributes")
        given = {**attributes, **entry} if isinstance(attributes, dict) else entry
        marked.update(name for name, value in given.items() if name != CROWD and is_mark(name) and value in SET)
        low += any(is_low(given.get(name)) for name in SCORES)
        unseen += is_unseen(given.get(VISIBILITY))
        unread += any(str(given.get(name)).strip().casefold() == value for name, value in UNREADABLE.items())
    notes = [
        f"Annotations with {name}=1, which count as objects like others: {count:,} of {len(annotations):,}. Those with "
        "iscrowd=1 are not scored."
        for name, count in sorted(marked.items())
    ]
    for what, count in ((LOW_SCORES, low), (UNSEEN, unseen), ("that mark a text as illegible", unread)):
        if count:
            notes.append(f"Annotations {what}, which count as objects like others: {count:,} of {len(annotations):,}.")
    return notes


def notes_on_fields(annotations: Sequence[dict]) -> list[str]:
    """A note that names further fields of annotations, none of which is read, and says how often a flag is set.

    Fields of which :func:`notes_on_marks` tells what there is to tell, and flags that are never set, are not named.
    """
    found: dict[str, int | None] = {}  # field -> how often it is set; None for one that is no flag
    for entry in annotations:
        attributes = entry.get("attributes")
        given = {name: entry[name] for name in entry.keys() - READ}
        if isinstance(attributes, dict):
            given |= {f"attributes.{name}": value for name, value in attributes.items()}
        for name, value in given.items():
            count, is_flag = found.get(name, 0), isinstance(value, Hashable) and value in (*SET, *UNSET)
            found[name] = count + (value in SET) if count is not None and is_flag else None
    named = [
        printable(name) + (f" (set in {count:,})" if count else "")
        for name, count in sorted(found.items())
        if count != 0 and not is_known(name.removeprefix("attributes."))
    ]
    if not named:
        return []
    more = f" and {len(named) - MOST_FIELDS} more" if len(named) > MOST_FIELDS else ""
    return [f"Fields of annotations that are not read ({len(named)}): {', '.join(named[:MOST_FIELDS])}{more}."]


def is_known(name: str) -> bool:
    """Whether a field is one of which other notes tell."""
    return is_mark(name) or name in (*SCORES, VISIBILITY, *UNREADABLE, ROTATION)


def is_low(score: object) -> bool:
    """Whether a value is a score of a detector that says that its object is probably none."""
    return isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score < LOW


def is_unseen(visibility: object) -> bool:
    """Whether a value is a visibility of 0, as a number: nothing of the object can be seen."""
    return isinstance(visibility, int | float) and not isinstance(visibility, bool) and visibility == 0


def is_mark(name: str) -> bool:
    """Whether a field is called as one of the marks, in any writing: "IsGroupOf", "is_group_of"."""
    return name.casefold().replace("_", "").removeprefix("is") in MARKS


def notes_on_stuff(categories: Sequence[dict], annotations: Sequence[dict]) -> list[str]:
    """A note on annotations of categories that are no things by their mark ``isthing``, as panoptic sets have them."""
    stuff = {str(one["id"]): one.get("name") for one in categories if one.get("isthing", 1) in (0, "0", "false")}
    counts = Counter(str(entry["category_id"]) for entry in annotations if str(entry["category_id"]) in stuff)
    if not counts:
        return []
    names = ", ".join(f"'{printable(str(stuff[key]))}'" for key, _ in counts.most_common(MOST_NAMED))
    return [
        f"Annotations of categories with isthing=0 (such as {names}), which count as objects like others: "
        f"{counts.total():,} of {len(annotations):,}. Leave them out if they are regions and no objects."
    ]


def notes_on_open_categories(images: Sequence[dict], annotations: Sequence[dict], categories: int) -> list[str]:
    """A note on images of which not all categories are annotated, as LVIS says by lists that are not read.

    Args:
        images, annotations: entries of a file; categories: the number of its categories.
    """
    shown: dict[str, set[str]] = defaultdict(set)
    for entry in annotations:
        shown[str(entry["image_id"])].add(str(entry["category_id"]))
    count = 0
    for image in images:
        known, partly = ({str(one) for one in image.get(key) or ()} for key in (OPEN, PARTLY))
        count += bool(partly) or (OPEN in image and len(known | shown[str(image["id"])]) < categories)
    if not count:
        return []
    return [
        f"Images of which not all categories are annotated ({OPEN}, {PARTLY}), which is not read: {count:,} of "
        f"{len(images):,}. What is found of the others counts as false, where LVIS does not score it, so precision is "
        "too low."
    ]
