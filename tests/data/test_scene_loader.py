"""Scenes in batches: those in memory and those decoded on the fly are the same."""

import pytest
import torch

from scd.data.scene_loader import HeldScenes, StreamedScenes
from scd.data.scene_set import load_scenes
from scd.data.sources.scenes import Scenes
from scd.errors import UsageError


@pytest.fixture(scope="module")
def source() -> Scenes:
    return Scenes(size=24, train=30, test=4)


def same(first, second) -> bool:
    lists = all(
        torch.equal(a, b)
        for name in ("instances", "boxes", "classes")
        for a, b in zip(getattr(first, name), getattr(second, name), strict=True)
    )
    return lists and torch.equal(first.images, second.images) and torch.equal(first.semantic, second.semantic)


@pytest.mark.parametrize("limit", [None, 20])
def test_streamed_scenes_are_those_in_memory(source, limit):
    held, streamed = HeldScenes(load_scenes(source, "train", 24, limit)), StreamedScenes(source, "train", 24, limit)
    assert len(held) == len(streamed) == (limit or 30)
    assert (held.size, held.class_names) == (streamed.size, streamed.class_names) == (24, source.class_names)
    batches = [[3, 1], [0], *([k, 19 - k] for k in range(10)), [19, 19]]
    for first, second, rows in zip(held.parts(batches), streamed.parts(batches), batches, strict=True):
        assert same(first, second) and len(first) == len(rows)
        assert torch.equal(first.images, held.scenes.images[rows])


def test_a_pass_may_end_early(source):
    parts = StreamedScenes(source, "train", 24).parts([k] for k in range(30))
    assert len(next(parts)) == 1
    parts.close()


def test_impossible_limits_say_so(source):
    with pytest.raises(UsageError, match="limit of 'train' is 0, it must be at least 1"):
        StreamedScenes(source, "train", 24, limit=0)
