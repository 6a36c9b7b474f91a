"""Folders that hold the frames of one video each, and images of one video in both splits."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePath

from scd.data.sources.folder_names import is_part, is_split_like

FRAME = re.compile(r"(frame|img|image)?[ _.-]*\d+", re.IGNORECASE)
NO_NUMBER = re.compile(r"(19|20)\d\d(?!\d)|n\d{8}")  # years of sets, such as VOC2007, and classes of WordNet
SHORTEST = 3  # images of a video, in both splits together
MOST = 0.5  # share of the scored images that is not noted


def video_of(path: PurePath) -> tuple[str, ...]:
    """The folders of the video of which a file is a frame, by a path inside of its set: "MOT17-02", "img1"; or ()."""
    folders = tuple(name for name in path.parts[:-1] if not is_split_like(name))
    numbered = any(is_numbered(name) and not is_part(name) for name in folders)
    return folders if numbered and FRAME.fullmatch(path.stem) else ()


def is_numbered(name: str) -> bool:
    """Whether a name holds a number that is no year and no class of WordNet."""
    return re.search(r"\d", NO_NUMBER.sub("", name)) is not None


def in_both(train: Sequence[PurePath], test: Sequence[PurePath]) -> list[str]:
    """A note where most of the scored images are frames of videos of the training images, by paths inside of a set."""
    groups: list[dict[tuple[str, ...], list[PurePath]]] = [defaultdict(list), defaultdict(list)]
    for paths, group in zip((train, test), groups, strict=True):
        for path in paths:
            if video := video_of(path):
                group[video].append(path)
    ours, theirs = groups
    shared = sorted(video for video in ours.keys() & theirs.keys() if len(ours[video]) + len(theirs[video]) >= SHORTEST)
    count = sum(len(theirs[video]) for video in shared)
    if count <= MOST * len(test):
        return []
    return [shared_note(count, len(test), theirs[shared[0]][0].as_posix(), ours[shared[0]][0].as_posix())]


def shared_note(count: int, total: int, one: str, other: str) -> str:
    """The note on scored images, such as ``one``, that belong to videos of training images, such as ``other``."""
    return (
        f"By their names, {count:,} of the {total:,} scored images belong to videos or series of training images (such "
        f"as '{one}' and '{other}'): if images of a series show one scene, scores are too high. Give each video to one "
        "split."
    )
