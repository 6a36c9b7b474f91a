"""What a reader must know of scenes and images without labels whose names say that both splits show one video."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from scd.data.sources.folder_names import words_of
from scd.data.sources.video_folders import MOST, SHORTEST, in_both, is_numbered, shared_note
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.name_notes import DRAWN, original_of, series_of, used_paths

VIDEO = {"video", "videos", "vid", "frame", "frames", "clip", "seq", "sequence", "cam", "camera"}
VIDEO_FILE = re.compile(r"[^\W_][_.](mp4|mov|avi|mkv|webm|m4v|wmv)(?![^\W_])", re.IGNORECASE)  # in a name: "farm_mp4"
AT_TIME = re.compile(r"#t=[\d.]+$")  # of VoTT: seconds from the start of a video
TILE = re.compile(r"(.+?)(?:_+\d+){3,5}")  # a tile of a picture by its place: SAHI's "P1003_38_38_86_86", DOTA's
FEWEST = 3  # series that are named by letters and numbers alone, as parts of data sets are, too


def notes_on_shared_videos(images: EvaluationData) -> list[str]:
    """A note on images without labels of which most of the scored ones belong to a series of the training images.

    Of labelled images, and of those that are split by a hash, series are noted by :mod:`name_notes`. A source whose
    files lie in folders that these paths do not show, such as COCO's, has noted those itself.
    """
    if images.source.embedded or images.has("label") or DRAWN in images.source.description:
        return []
    used = [[PurePosixPath(path) for path in paths if path] for paths in used_paths(images)]
    depth = depth_of_root([path for paths in used for path in paths])
    train, test = ([PurePosixPath(*path.parts[depth:]) for path in paths] for paths in used)
    return in_both(train, test) or notes_on_series_names(train, test)


def depth_of_root(paths: Sequence[PurePosixPath]) -> int:
    """How many folders all paths have in common."""
    folders = [path.parts[:-1] for path in paths]
    first, last = min(folders, default=()), max(folders, default=())
    return next((k for k, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))


def notes_on_series_names(train: Sequence[PurePosixPath], test: Sequence[PurePosixPath]) -> list[str]:
    """A note on series of which both splits have images: one that is called a video, or several that are numbered."""
    ours, theirs = by_series(train), by_series(test)
    shared = sorted(name for name in ours.keys() & theirs.keys() if len(ours[name]) + len(theirs[name]) >= SHORTEST)
    if len(shared) < FEWEST:
        shared = [name for name in shared if is_called_video(name)]
    count = sum(len(theirs[name]) for name in shared)
    return [shared_note(count, len(test), theirs[shared[0]][0], ours[shared[0]][0])] if count > MOST * len(test) else []


def by_series(paths: Sequence[PurePosixPath]) -> dict[str, list[str]]:
    """The names of images by the series to which these say that they belong."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        stem = AT_TIME.sub("_0", original_of(path.stem)[0])
        tile, found_series = TILE.fullmatch(stem), series_of(stem)
        name = tile[1] if tile else found_series[0] if found_series else ""
        if not name and stem[-1:].isdecimal() and is_called_video(stem):
            name = stem.rstrip("0123456789")  # "frame_000012"
        if is_called_video(name) or (is_numbered(name) and words_of(name)):
            found[name].append(path.name)
    return found


def is_called_video(name: str) -> bool:
    return bool(VIDEO & set(words_of(name))) or VIDEO_FILE.search(name) is not None
