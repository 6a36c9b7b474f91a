"""What the name of a column says: that it names patients, videos or originals, of which several images show one."""

import re
from collections.abc import Collection

from scd.data.sources.folder_names import words_of

OF_ONE = {  # names of what several images show
    "patient", "subject", "participant", "donor", "person", "individual", "case", "lesion", "slide", "wsi",
    "video", "clip", "sequence", "seq", "original", "parent", "ptid", "rid", "eid", "mrn", "pid", "accession", "doc",
    "document", "recording", "episode", "movie", "drive", "flight", "deployment", "vehicle", "writer", "signer",
    "speaker", "listing", "serial", "household", "vessel", "asin", "vin", "geohash", "quadkey",
}  # fmt: skip
OF_THINGS = {  # the same with a word of ids, as in "product_id"; alone, they may hold kinds of images
    "study", "series", "exam", "examination", "observation", "product", "sku", "animal", "mouse", "rat", "plant",
    "specimen", "book", "building", "scan", "volume", "station",
}  # fmt: skip
OF_SOME = {  # the same, or a kind of images, as camera and location are
    "source", "group", "scene", "session", "track", "event", "burst", "location", "site", "camera", "cam", "plate",
    "well", "field", *OF_THINGS,
}  # fmt: skip
OF_PEOPLE = {"owner", "author", "photographer", "uploader"}  # who made several images; names without digits
OF_PLACES = ("experiment", "plate", "well")  # a well is one of a plate, and a plate one of an experiment
OF_FILES = {"image", "images", "img", "photo", "picture", "file", "filename", "path", "stem"}
IDS = {"id", "ids", "identifier", "uid", "uuid", "hash", "key", "no", "nr", "num", "number"}
OF_IDS = IDS | {"code", "name", "index", "idx", "url", "instance", "of", "the"}
OF_IMAGES = OF_FILES | {"id", "ids", "identifier", "uid", "uuid", "hash", "url"}
HOLDERS = {"metadata", "meta", "info", "extra", "data"}  # names of columns that have columns of their own
GROUPS = OF_ONE | OF_SOME | OF_PEOPLE

DENSE = 0.1  # share of the numbers of a range that are there, where they count something
LAST_NUMBER = re.compile(r"(.*?)(\d{1,18})(\D*)", re.DOTALL)


def is_group(column: str) -> bool:
    """Whether a column names groups of images: by a word of these, and other words of names alone.

    "patient_id", "patientid", "source_image" and "clinical.patient_id" do; "patient_age", "image_id" and "scene_type"
    do not.
    """
    return group_words(column) is not None


def is_sure(column: str) -> bool:
    """Whether a column that names groups hardly names a kind of images: "source_image" and not "source"."""
    words = group_words(column) or set()
    return bool(words & OF_ONE or (words & OF_THINGS and words & IDS) or ("source" in words and words & OF_FILES))


def is_of_people(column: str) -> bool:
    return bool((group_words(column) or set()) & OF_PEOPLE)


def is_of_images(column: str) -> bool:
    """Whether a column is called like the ids or the files of images, and like nothing else: "image_id", "url"."""
    words = short_words(column) - HOLDERS
    return bool(words & OF_IMAGES) and words <= OF_FILES | OF_IDS


def is_place(column: str) -> bool:
    """Whether a column is called like the experiment, plate or well of an image."""
    return place_of(column) is not None


def place_of(column: str) -> str | None:
    words = short_words(column)
    named = [place for place in OF_PLACES if place in words]
    return named[0] if len(named) == 1 and words <= {*OF_PLACES, *OF_IDS} else None


def group_words(column: str) -> set[str] | None:
    """The words of the name of a column of groups, or of its last part; None of another column."""
    for name in (column, column.rpartition(".")[2]):
        words = short_words(name)
        if words & GROUPS and words <= GROUPS | OF_FILES | OF_IDS:
            return words
    return None


def short_words(column: str) -> set[str]:
    """The words of a column's name; "patientid" is patient and id."""
    found: set[str] = set()
    for word in words_of(column):
        short = word.removesuffix("id")
        found |= {short, "id"} if short != word and short in GROUPS | OF_FILES else {word}
    return found


def are_counted(values: Collection[str]) -> bool:
    """Whether values are names with a number that counts them, as numbers of rows are: "case_1", "case_2" ..."""
    found = [LAST_NUMBER.fullmatch(value) for value in values]
    if not all(found) or len({(match[1], match[3]) for match in found if match}) != 1:
        return False
    numbers = {int(match[2]) for match in found if match}
    return len(numbers) >= DENSE * (max(numbers) - min(numbers) + 1)


def begin_anew(train: Collection[str], test: Collection[str]) -> bool:
    """Whether both splits may count their values for themselves: from the same start, and not equally far."""
    if set(train) == set(test) or not are_counted(train) or not are_counted(test):
        return False
    ours, theirs = ([int(LAST_NUMBER.fullmatch(value)[2]) for value in values] for values in (train, test))
    return abs(min(ours) - min(theirs)) <= DENSE * (max(ours) - min(ours) + 1)
