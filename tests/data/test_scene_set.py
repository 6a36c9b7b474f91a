"""Scenes in memory: those of the generator, subsets, limits and real sets."""

import numpy as np
import pytest
import torch

from scd.data import images as images_module
from scd.data.scene_set import decode_scenes, load_scenes, scenes_once
from scd.data.sources.path import PathSource
from scd.data.sources.scenes import Scenes
from scd.errors import UsageError


def test_scenes_of_the_generator_are_what_was_drawn():
    source = Scenes(size=32, train=20, test=5)
    loaded = load_scenes(source, "train", 32, limit=15)
    assert len(loaded) == 15 and loaded.images.shape == (15, 3, 32, 32) and loaded.dropped == {}
    assert loaded.class_names == source.class_names
    assert loaded.segment_names == source.class_names + source.background_names
    for i, record in enumerate(source.split("train").select(range(15))):
        instances = np.asarray(record["instances"])
        np.testing.assert_array_equal(loaded.images[i].permute(1, 2, 0).numpy(), np.asarray(record["image"]))
        np.testing.assert_array_equal(loaded.semantic[i].numpy(), np.asarray(record["semantic"]))
        np.testing.assert_array_equal(loaded.instances[i].any(dim=0).numpy(), instances > 0)
        for k, (mask, box, kind) in enumerate(
            zip(loaded.instances[i], loaded.boxes[i], loaded.classes[i], strict=True)
        ):
            np.testing.assert_array_equal(mask.numpy(), instances == k + 1)
            y, x = mask.nonzero().unbind(dim=1)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert (loaded.semantic[i][mask] == kind).all()
        assert set(loaded.present[i].nonzero()[:, 0].tolist()) == set(record["objects"]["category"])


def test_some_rows_in_any_order():
    source = Scenes(size=32, train=20, test=5)
    loaded, some = load_scenes(source, "train", 32), decode_scenes(source, "train", 32, [7, 3])
    assert torch.equal(some.images, loaded.images[[7, 3]]) and torch.equal(some.boxes[1], loaded.boxes[3])


def test_a_process_decodes_a_set_once():
    source = Scenes(size=32, train=20, test=5)
    first = scenes_once(source, "test", 24, 3)
    assert scenes_once(Scenes(size=32, train=20, test=5), "test", 24, 3) is first
    assert scenes_once(source, "test", 24, 4) is not first and len(first) == 3


def test_wrong_requests_say_so():
    source = Scenes(size=32, train=20, test=5)
    with pytest.raises(UsageError, match="size is 0, it must be at least 1 pixel"):
        load_scenes(source, "train", 0)
    with pytest.raises(UsageError, match="limit of 'train' is 0, it must be at least 1"):
        load_scenes(source, "train", 20, limit=0)
    with pytest.raises(UsageError, match="unknown split of 'scenes' 'validation'.*valid: test, train"):
        load_scenes(source, "validation", 20)


def test_scenes_that_do_not_fit_in_memory_say_so(monkeypatch):
    """Image and segments of a scene are 4 bytes a pixel, each object's mask 1."""
    source = Scenes(size=32, train=20, test=5)
    objects = sum(len(masks) for masks in load_scenes(source, "train", 24).instances)
    needed = (20 * 4 + objects) * 24 * 24
    monkeypatch.setattr(images_module, "largest_bytes", lambda: needed)
    assert len(load_scenes(source, "train", 24)) == 20
    for affordable in (needed - 1, 20 * 4 * 24 * 24 - 1):
        monkeypatch.setattr(images_module, "largest_bytes", lambda affordable=affordable: affordable)
        with pytest.raises(UsageError, match="'scenes' train at 24 px needs 0.0 GiB, more than half of this machine's"):
            load_scenes(source, "train", 24)


# ---------------------------------------------------------------- real sets


def test_coco_mini(real_data):
    """Photographs: masks lie in their boxes, and only crowds and objects outside the canvas are dropped."""
    if not (real_data / "coco_mini").is_dir():
        pytest.skip("coco_mini is not in SCD_REAL_DATA")
    source = PathSource(real_data / "coco_mini")
    loaded = load_scenes(source, "train", 64, limit=240)
    assert len(loaded.class_names) == 80 and len(loaded.segment_names) == 81
    assert 5 < np.mean([len(boxes) for boxes in loaded.boxes]) < 9 and loaded.present.any(dim=0).sum() > 70
    assert loaded.dropped["crowd"] > 10 and not {"hidden", "empty box", "clipped box"} & set(loaded.dropped)
    for masks, boxes, semantic, classes in zip(
        loaded.instances, loaded.boxes, loaded.semantic, loaded.classes, strict=True
    ):
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all() and (boxes <= 64).all()
        for mask, box, kind in zip(masks, boxes, classes, strict=True):
            y, x = mask.nonzero().unbind(dim=1)
            extent = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
            assert (box[:2] - extent[:2]).max() < 2 and (extent[2:] - box[2:]).max() < 2
            assert (semantic[mask] == kind + 1).all()
    assert (loaded.semantic == 255).float().mean() < 0.05


def test_camvid(real_data):
    if not (real_data / "camvid").is_dir():
        pytest.skip("camvid is not in SCD_REAL_DATA")
    loaded = load_scenes(PathSource(real_data / "camvid"), "test", 64, limit=40, ignore=(11,))
    assert len(loaded.segment_names) == 11 and 0 < (loaded.semantic == 255).float().mean() < 0.2
    assert loaded.semantic[loaded.semantic != 255].max() == 10 and loaded.class_names == ()
