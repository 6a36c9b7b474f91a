"""What the names of folders say: that they hold a split, or the images or masks of one set, and are no classes."""

import re
from collections import defaultdict
from collections.abc import Sequence

from scd.data.sources.source import split_of

PARTS = (  # of one set, by the last word of a name
    "image", "img", "jpeg", "jpg", "input", "mask", "annotation", "segmentation", "label", "gt", "groundtruth", "truth",
)  # fmt: skip
SPLIT_WORDS = ("train", "training", "test", "testing", "val", "valid", "validation", "dev")
SURE = ("test", "testing", "val", "validation", "training")  # of these, names that hardly any class has
BESIDE_A_SPLIT = ("labeled", "labelled", "unlabeled", "unlabelled", "heldout", "holdout", "query", "gallery", "probe")
OF_RETRIEVAL = ("query", "gallery", "probe")  # two of them are splits without any other one


def words_of(name: str) -> list[str]:
    """The words of a name in small letters: "JPEGImages" is jpeg and images, "train2017" is train."""
    return [word.casefold() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def is_part(name: str) -> bool:
    """Whether a folder's name says that it holds images, masks or annotations of a set."""
    words = words_of(name)
    if words[:1] in (["with"], ["without"], ["no"]):  # classes, as of faces with and without a mask
        return False
    return words[:1] == ["segmentation"] or any(word.removesuffix("s") in PARTS for word in words[-1:])


def is_split_like(name: str) -> bool:
    """Whether a folder's name is that of a split with something before or after it: "train2017", "cars_test"."""
    words = [word for word in words_of(name) if word not in ("set", "split", "images")]
    return any(word in SPLIT_WORDS for word in (*words[:1], *words[-1:]))


def splits_among(names: Sequence[str]) -> list[str]:
    """Those of the names that are splits rather than classes, whatever the others are; [] where none is.

    They are names that differ in the word of a split alone ("cars_train" and "cars_test"), a split beside the usual
    names of further images ("train" and "unlabeled"), two names of retrieval ("query" and "gallery"), and names that
    mean a split and hardly a class ("test").
    """
    found: set[str] = set()
    by_rest: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)  # the words without the split's -> split -> name
    for name in names:
        words = words_of(name)
        for place, word in enumerate(words):
            if word in ("train", *SURE) and (split := split_of(word)) is not None:
                by_rest[*words[:place], "", *words[place + 1 :]][split] = name
    for by_split in by_rest.values():
        if len(by_split) > 1:
            found.update(by_split.values())
    plain = {name: "".join(words_of(name)) for name in names}
    further = [name for name in names if plain[name] in BESIDE_A_SPLIT]
    splits = [name for name in names if split_of(name) is not None]
    if further and (splits or found):
        found.update(further, splits)
    retrieval = [name for name in names if plain[name] in OF_RETRIEVAL]
    if len(retrieval) > 1:
        found.update(retrieval)
    found.update(name for name in splits if name.casefold() in SURE)
    return sorted(found)


def may_be_splits(names: Sequence[str]) -> list[str]:
    """Those of the names that are usual for splits, and that classes may have as well: "train", "valid", "labeled"."""
    further = set(BESIDE_A_SPLIT) - set(OF_RETRIEVAL)
    return [name for name in names if split_of(name) is not None or "".join(words_of(name)) in further]
