"""What a reader must know of files that list the images of splits, and that are not read.

Such a file is known by its name ("train1.txt", "Training_01.txt"), by its folder ("splits/0.csv") or by a column of it
("split", "fold"). It lies in the folder of the images, in a folder of lists in it, or beside it.
"""

import json
import re
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

from scd.data.sources.folder_names import SPLIT_WORDS, is_part, words_of
from scd.data.sources.folder_scan import printable

DIVISIONS = ("split", "splits", "fold", "folds", "kfold", "partition", "partitions", "subset")
LIST_WORDS = {*DIVISIONS, *SPLIT_WORDS, "trainval", "trainlist", "testlist", "vallist", "setid", "crossval", "holdout"}
LIST_WORDS -= {"dev"}  # of requirements
OF_RUNS = ("log", "logs", "loss", "result", "results", "metrics", "history", "config", "predictions", "scores")
LIST_FOLDERS = (
    "meta", "metadata", "list", "lists", "label", "labels", "annotation", "annotations", "anno", "annos", "imagesets",
    "protocol", "protocols", "evaluation", "main", "segmentation",
)  # fmt: skip
LIST_ENDINGS = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".lst", ".mat")
TABLES = (".csv", ".tsv", ".jsonl")  # of which the first line names the columns
COLUMN = re.compile(r"(is)?(train|training|test|testing|val|valid|validation)(img|image|set)?|set|phase|usage")
HEAD = 4096  # characters of a file that are looked at
MOST_ENTRIES = 2000  # of a folder in which lists are looked for


def notes_on_lists(paths: Sequence[Path], drawn: str) -> list[str]:
    """A note on files that list the images of a split, where the test images are chosen otherwise.

    Args:
        paths: of all images.
        drawn: how the test images are chosen, in words.
    """
    if not paths:
        return []
    folders = {path.parent for path in paths}
    one = next(iter(folders)).resolve()
    root = one if len(folders) == 1 else one.parent
    beside = lists_around(root.parent)
    if not is_part(root.name):  # one of many folders, of which a list may be of another
        beside = [path for path in beside if is_of(path, root.name)]
    found = [*lists_around(root), *(path for path in beside if not path.is_relative_to(root))]
    if not found:
        return []
    named = ", ".join(f"'{printable(path.name)}'" for path in found[:3]) + (", ..." if len(found) > 3 else "")
    return [
        f"Files that may list the images of splits are not read ({len(found)}): {named}. The test images are {drawn}; "
        "for another split, give folders train and test."
    ]


def lists_around(folder: Path) -> list[Path]:
    """The lists of splits in a folder, in its folders of lists, and in those of these ("ImageSets/Main")."""
    inner = [path for place in folders_of_lists(folder) for path in lists_in(place, set(words_of(place.name)))]
    return [*lists_in(folder), *inner]


def folders_of_lists(folder: Path, depth: int = 2) -> list[Path]:
    inner = [path for path in entries(folder) if is_list_folder(path.name) and path.is_dir()] if depth else []
    return [found for path in sorted(inner) for found in (path, *folders_of_lists(path, depth - 1))]


def is_list_folder(name: str) -> bool:
    return name.casefold() in LIST_FOLDERS or bool(set(words_of(name)) & LIST_WORDS)


def entries(folder: Path) -> list[Path]:
    """The first entries of a folder that are not hidden; none of one that is not there or may not be read."""
    try:
        return [path for path in islice(folder.iterdir(), MOST_ENTRIES) if not path.name.startswith(".")]
    except OSError:
        return []


def lists_in(folder: Path, words: Collection[str] = ()) -> list[Path]:
    """The files of a folder that are lists of splits by their names, by a column, or by the words of the folder."""
    files = [path for path in entries(folder) if path.suffix.lower() in LIST_ENDINGS]
    all_are = not set(DIVISIONS).isdisjoint(words)
    return sorted(path for path in files if (all_are or is_list(path)) and path.is_file())


def is_list(path: Path) -> bool:
    words = set(words_of(path.stem))
    if words & set(OF_RUNS):
        return False
    return bool(words & LIST_WORDS) or (path.suffix.lower() in TABLES and any(map(is_division, columns_of(path))))


def columns_of(path: Path) -> list[str]:
    """The names in the first line of a table."""
    line = head_of(path).partition("\n")[0].strip("\ufeff\r ")
    if path.suffix.lower() == ".jsonl":
        try:
            found = json.loads(line)
        except ValueError:
            return []
        return list(found) if isinstance(found, dict) else []
    return [name.strip(" \"'") for name in re.split(r"[,;\t]", line)]


def is_division(column: str) -> bool:
    """Whether a column says to which split or fold a row belongs: "split", "cv_fold", "is_training_img"."""
    words = words_of(column)
    return bool(set(words[-1:]) & set(DIVISIONS)) or COLUMN.fullmatch("".join(words)) is not None


def is_of(path: Path, folder: str) -> bool:
    """Whether a list is of the images of a folder, by its own name or by the paths in it."""
    words = words_of(folder)
    named = bool(words) and set(words) <= set(words_of(path.stem))
    return named or re.search(rf"(^|[\s,;\t\"'/]){re.escape(folder)}/", head_of(path)) is not None


def head_of(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(HEAD)
    except OSError:
        return ""
