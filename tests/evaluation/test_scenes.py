"""The protocol on the embedded scenes and on sources that allow some of its parts only."""

import pytest
import torch
import torch.nn.functional as F
from tiny_evaluation import With, context_of, object_source
from torch import nn

from scd.data.scene_set import load_scenes
from scd.data.sources.scenes import Scenes as SceneImages
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError
from scd.evaluation import discovery
from scd.evaluation.features import extract, extract_maps, extract_saliency
from scd.evaluation.multilabel import multilabel_map
from scd.evaluation.scenes import Scenes
from scd.evaluation.segmentation import knn_miou, linear_miou

SHARED = {"classes": 3, "size": 24, "train": 60, "test": 30, "scale": [0.25, 0.5]}


class Colours(nn.Module):
    """A 'backbone': mean and spread of colours in 4 x 4 blocks."""

    def forward(self, images):
        return torch.cat([F.avg_pool2d(images, 4), F.avg_pool2d(images**2, 4)], dim=1)


def method(maps=True):
    def saliency(view):
        return torch.sigmoid(F.avg_pool2d(view.images, 4).mean(dim=1)) if maps else None

    return With(Colours(), saliency)


def with_splits(source, splits, **changes):
    """The source with other splits."""
    names = ("class_names", "background_names", "mask_kind", "foreground")
    told = {name: getattr(source, name) for name in names}
    return Source(source.name, splits, {name: f"{name} {sorted(changes)}" for name in splits}, **{**told, **changes})


@pytest.fixture(scope="module")
def source():
    return SceneImages(**SHARED, objects=[1, 6])


@pytest.fixture(scope="module")
def numbers(source):
    return Scenes()(context_of(method(), source, 24, seed=3))


def test_every_number_is_there_and_defined(numbers):
    metrics = Scenes().metrics
    assert set(numbers) == set(metrics)
    assert len({metric.label for metric in metrics.values()}) == len(metrics)
    assert (numbers["scene_n_train"], numbers["scene_n_test"], numbers["scene_dropped"]) == (60, 30, 0)


def test_the_numbers_are_those_of_the_parts(source, numbers):
    train, test = load_scenes(source, "train", 24), load_scenes(source, "test", 24)
    backbone = Colours()
    pooled = [extract(backbone, part.images, 24) for part in (train, test)]
    assert numbers["scene_map"] == multilabel_map(pooled[0], train.present, pooled[1], test.present, seed=3)
    train_maps, test_maps = (extract_maps(backbone, part.images, 24) for part in (train, test))
    given = (train_maps, train.semantic, test_maps, test.semantic, len(train.segment_names))
    assert numbers["scene_miou_linear"] == linear_miou(*given, seed=3)
    assert numbers["scene_miou_knn"] == knn_miou(*given, seed=3)
    maps = extract_saliency(method(), test.images, 24)
    for key, value in discovery.discovery_scores(maps, test.instances, test.boxes).items():
        assert numbers[f"scene_{key}"] == value


def test_limits_parts_and_prefix(source):
    context = context_of(method(), source, 24, seed=3)
    protocol = Scenes(train_limit=40, test_limit=10, parts=["dense_knn"], prefix="x_")
    found = protocol(context)
    assert (found["x_n_train"], found["x_n_test"]) == (40, 10)
    assert set(found) == {"x_n_train", "x_n_test", "x_dropped", "x_miou_knn"} == set(protocol.metrics)
    few = Scenes(memory=50, neighbours=3, parts=["dense_knn"])
    assert few(context)["scene_miou_knn"] != Scenes(parts=["dense_knn"])(context)["scene_miou_knn"]
    assert "the 3 nearest by cosine of at most 50 training positions" in few.metrics["scene_miou_knn"].definition


def test_a_method_without_maps_has_no_discovery(source, numbers):
    found = Scenes()(context_of(method(maps=False), source, 24, seed=3))
    assert set(found) == {f"scene_{key}" for key in ("map", "miou_linear", "miou_knn", "n_train", "n_test", "dropped")}
    assert found.items() <= numbers.items()


def test_discovery_alone_needs_no_training_scenes(source):
    alone = with_splits(source, {"validation": source.splits["test"]})
    protocol = Scenes(parts=["discovery"])
    found = protocol(context_of(method(), alone, 24))
    assert "scene_objects_covered" in found and "scene_n_train" not in {*found, *protocol.metrics}


def test_masks_of_class_ids_allow_segmentation_only(source):
    splits = {
        name: part.remove_columns(["objects", "instances", "mask"]).rename_columns({"semantic": "mask"})
        for name, part in source.splits.items()
    }
    found = Scenes()(context_of(method(), with_splits(source, splits, mask_kind="classes"), 24))
    numbers = ("n_train", "n_test", "dropped", "miou_linear", "miou_knn")
    assert set(found) == {f"scene_{name}" for name in numbers}


def test_dropped_objects_are_counted(source, monkeypatch):
    crowded = [load_scenes(source, name, 24) for name in ("train", "test")]
    crowded[0].dropped.update({"crowd": 2, "clipped box": 5})
    crowded[1].dropped.update({"hidden": 1, "image without objects": 4})
    context = context_of(method(), source, 24)
    context.data.train_scenes, context.data.test_scenes = crowded
    protocol = Scenes(train_limit=None, test_limit=None)
    assert protocol(context)["scene_dropped"] == 3
    assert Scenes(train_limit=None, test_limit=None, parts=["discovery"])(context)["scene_dropped"] == 1


def test_a_source_without_scenes_gives_nothing_as_the_runs_own_and_an_error_when_asked_for(source):
    plain = object_source(train=20, test=10)
    assert Scenes()(context_of(method(), plain, 16)) == {}
    asked = Scenes(data=plain)
    data = asked.own_data(context_of(method(), source, 24).data)
    with pytest.raises(DataError, match="neither objects with an instance map nor a mask of class ids"):
        asked.check(data)
    Scenes().check(context_of(method(), source, 24).data)


def test_impossible_settings_are_refused():
    with pytest.raises(UsageError, match="unknown part of the scene evaluation 'discover'; did you mean 'discovery'"):
        Scenes(parts=["discover"])
    with pytest.raises(UsageError, match="needs one part or more"):
        Scenes(parts=[])
    with pytest.raises(UsageError, match="memory is 0, it must be above 0"):
        Scenes(memory=0)
