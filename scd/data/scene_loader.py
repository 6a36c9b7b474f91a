"""Scenes in batches: of a set in memory, or decoded when they are needed."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from scd.data.images import check_request, chosen_rows
from scd.data.scene_set import SceneSet, decode_scenes
from scd.data.sources.source import Source

THREADS = 4  # that decode streamed scenes
AHEAD = 8  # batches that are decoded in advance


class HeldScenes:
    """Batches of a set in memory.

    Args:
        scenes: all scenes.
    """

    def __init__(self, scenes: SceneSet):
        self.scenes = scenes
        self.size = scenes.images.shape[-1]
        self.class_names = scenes.class_names

    def __len__(self) -> int:
        return len(self.scenes)

    def part(self, rows: Sequence[int]) -> SceneSet:
        """The scenes of these rows, in this order."""
        index, scenes = torch.as_tensor(rows, dtype=torch.long), self.scenes
        lists = {
            name: [getattr(scenes, name)[row] for row in index.tolist()] for name in ("instances", "boxes", "classes")
        }
        return replace(scenes, images=scenes.images[index], semantic=scenes.semantic[index], **lists)

    def parts(self, batches: Iterable[Sequence[int]]) -> Iterator[SceneSet]:
        """The scenes of each batch of rows."""
        return map(self.part, batches)


class StreamedScenes:
    """Batches of a split that is decoded again in every pass, in advance by threads: for sets larger than the memory.

    Args:
        source, split, size, limit: see :func:`scd.data.scene_set.load_scenes`, whose scenes and errors these are.
    """

    def __init__(self, source: Source, split: str, size: int, limit: int | None = None):
        check_request(split, size, limit)
        self.source = source
        self.split = split
        self.size = size
        self.rows = chosen_rows(source.split(split), limit)
        self.class_names = self.part([0]).class_names

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, rows: Sequence[int]) -> SceneSet:
        """The scenes of these rows, in this order."""
        return decode_scenes(self.source, self.split, self.size, self.rows[np.asarray(rows)])

    def parts(self, batches: Iterable[Sequence[int]]) -> Iterator[SceneSet]:
        """The scenes of each batch of rows."""
        waiting: deque[Future[SceneSet]] = deque()
        with ThreadPoolExecutor(THREADS) as pool:
            try:
                for rows in batches:
                    waiting.append(pool.submit(self.part, rows))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for unused in waiting:
                    unused.cancel()


Scenes = HeldScenes | StreamedScenes
