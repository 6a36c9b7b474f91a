"""What a reader must know of scenes and images without labels whose names say that both splits show one video."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from scd.data.images import chosen_rows
from scd.data.sources.folder_names import is_part, is_split_like, words_of
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.name_notes import DRAWN, MOST, paths_of, series_of

VIDEO = {"video", "videos", "vid", "frame", "frames", "clip", "seq", "sequence", "cam", "camera"}
NO_NUMBER = re.compile(r"(19|20)\d\d(?!\d)|n\d{8}")  # years of sets, such as VOC2007, and classes of WordNet
FEWEST_NAMED = 3  # series that are named by letters and numbers alone, as parts of data sets are, too
SHORTEST = 3  # images of a series, in both splits together

Series = tuple[tuple[str, ...], str]  # folders inside of the split, and the name of a series


def notes_on_shared_videos(images: EvaluationData) -> list[str]:
    """A note on images without labels of which most of the scored ones belong to a series of the training images.

    Of labelled images, and of those that are split by a hash, series are noted by :mod:`name_notes`.
    """
    if images.source.embedded or images.has("label") or DRAWN in images.source.description:
        return []
    used = []
    for split, limit in (("train", images.train_limit), (images.split, images.test_limit)):
        paths = paths_of(images, split, "image")
        used.append([paths[row] for row in chosen_rows(images.source.split(split), limit).tolist()])
    depth = depth_of_root([path for paths in used for path in paths if path])
    train, test = (by_series(paths, depth) for paths in used)
    shared = sorted(key for key in train.keys() & test.keys() if len(train[key]) + len(test[key]) >= SHORTEST)
    if len(shared) < FEWEST_NAMED:
        shared = [key for key in shared if key[0] or VIDEO & set(words_of(key[1]))]
    count = sum(len(test[key]) for key in shared)
    if count <= MOST * len(used[1]):
        return []
    one, other = test[shared[0]][0], train[shared[0]][0]
    return [
        f"By their names, {count:,} of the {len(used[1]):,} scored images belong to videos or series of training images "
        f"(such as '{one}' and '{other}'): if images of a series show one scene, scores are too high. Give each video "
        "to one split."
    ]


def depth_of_root(paths: Sequence[str]) -> int:
    """How many folders all paths have in common."""
    folders = [PurePosixPath(path).parts[:-1] for path in paths]
    first, last = min(folders, default=()), max(folders, default=())
    return next((k for k, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))


def by_series(paths: Sequence[str | None], depth: int) -> dict[Series, list[str]]:
    """The names of images by the series to which these say that they belong, with folders below a common ``depth``."""
    found: dict[Series, list[str]] = defaultdict(list)
    for path in map(PurePosixPath, filter(None, paths)):
        folders = tuple(name for name in path.parts[depth:-1] if not is_split_like(name))
        is_of_video = path.stem.isdecimal() and any(is_numbered(name) and not is_part(name) for name in folders)
        name = series_of(path.name) or ""
        if not name and path.stem[-1:].isdecimal() and VIDEO & set(words_of(path.stem)):
            name = path.stem.rstrip("0123456789")  # "frame_000012"
        if is_of_video:
            found[folders, ""].append("/".join((*folders, path.name)))
        elif VIDEO & set(words_of(name)) or (is_numbered(name) and words_of(name)):
            found[(), name].append(path.name)
    return found


def is_numbered(name: str) -> bool:
    """Whether a name holds a number that is no year and no class of WordNet."""
    return re.search(r"\d", NO_NUMBER.sub("", name)) is not None
