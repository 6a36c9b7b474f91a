"""The protocol on the embedded scenes and on sources that allow some of its parts only."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scd.data.scene_set import load_scenes
from scd.data.sources.scenes import scenes
from scd.data.sources.source import open_source
from scd.errors import DataError, UsageError
from scd.evaluation.discovery import discovery
from scd.evaluation.features import extract
from scd.evaluation.multilabel import multilabel_map
from scd.evaluation.scene_metrics import SCENE_METRICS
from scd.evaluation.scenes import SceneEvaluation
from scd.evaluation.segmentation import dense_features, knn_miou, linear_miou

CONFIG = {
    "data": {"size": 24, "train_limit": None, "test_limit": None},
    "evaluation": {"size": 24},
    "seed": 3,
    "seed_of": {"probe": None},
}
SHARED = {"classes": 3, "size": 24, "train": 60, "test": 30, "scale": [0.25, 0.5]}


class Colours(nn.Module):
    """A 'backbone': mean and spread of colours in 4 x 4 blocks."""

    def forward(self, images):
        return torch.cat([F.avg_pool2d(images, 4), F.avg_pool2d(images**2, 4)], dim=1)


class Method(nn.Module):
    def __init__(self, maps=True):
        super().__init__()
        self.backbone = Colours()
        self.maps = maps

    def saliency(self, images):
        return torch.sigmoid(F.avg_pool2d(images, 4).mean(dim=1)) if self.maps else None


@pytest.fixture(scope="module")
def source():
    return scenes(**SHARED, objects=[1, 6])


@pytest.fixture(scope="module")
def numbers(source):
    return SceneEvaluation(source)(Method(), None, CONFIG, "cpu")


def test_every_key_is_there_explained_and_a_number(numbers):
    assert set(numbers) == set(SCENE_METRICS)
    for key, metric in SCENE_METRICS.items():
        assert isinstance(numbers[key], (int, float)) and numbers[key] == numbers[key], key
        assert metric.label and metric.unit and metric.definition and metric.better in ("higher", "lower", None)
    assert len({metric.label for metric in SCENE_METRICS.values()}) == len(SCENE_METRICS)
    assert (numbers["scene_n_train"], numbers["scene_n_test"]) == (60, 30)


def test_the_numbers_are_those_of_the_parts(source, numbers):
    train, test = load_scenes(source, "train", 24), load_scenes(source, "test", 24)
    backbone = Colours()
    pooled = [extract(backbone, part.images, 24) for part in (train, test)]
    assert numbers["scene_map"] == multilabel_map(pooled[0], train.present, pooled[1], test.present, seed=3)
    train_maps, test_maps = (dense_features(backbone, part.images, 24) for part in (train, test))
    given = (train_maps, train.semantic, test_maps, test.semantic, len(train.segment_names))
    assert numbers["scene_miou_linear"] == linear_miou(*given, seed=3)
    assert numbers["scene_miou_knn"] == knn_miou(*given, seed=3)
    for key, value in discovery(Method(), test, 24).items():
        assert numbers[f"scene_{key}"] == value


def test_the_runs_own_source_is_the_default_and_its_limits_hold(source, numbers):
    assert SceneEvaluation()(Method(), source, CONFIG, "cpu") == numbers
    limited = CONFIG | {"data": {"size": 24, "train_limit": 40, "test_limit": 20}}
    protocol = SceneEvaluation(train_limit=50, test_limit=10, parts=["dense_knn"], prefix="x_")
    found = protocol(Method(), source, limited, "cpu")
    assert (found["x_n_train"], found["x_n_test"]) == (40, 10) and set(found) == {"x_n_train", "x_n_test", "x_miou_knn"}
    other = SceneEvaluation(source, train_limit=50, test_limit=10, parts=["dense_knn"], prefix="x_")
    assert other(Method(), None, limited, "cpu")["x_n_train"] == 50  # limits of the run's own images only


def test_the_probe_has_a_seed_of_its_own(source, numbers):
    own = SceneEvaluation(source, parts=["segmentation"])
    first = own(Method(), None, CONFIG | {"seed": 8, "seed_of": {"probe": 3}}, "cpu")
    assert first["scene_miou_linear"] == numbers["scene_miou_linear"]


def test_a_method_without_maps_has_no_discovery(source, numbers):
    found = SceneEvaluation(source)(Method(maps=False), None, CONFIG, "cpu")
    assert set(found) == {f"scene_{key}" for key in ("map", "miou_linear", "miou_knn", "n_train", "n_test")}
    assert found.items() <= numbers.items()


def test_discovery_alone_needs_no_training_scenes(source):
    splits = {"validation": source.splits["test"]}
    found = SceneEvaluation(replace(source, splits=splits), parts=["discovery"])(Method(), None, CONFIG, "cpu")
    assert "scene_objects_covered" in found and "scene_n_train" not in found
    with pytest.raises(DataError, match="no split to evaluate on; it has train"):
        SceneEvaluation(replace(source, splits={"train": source.splits["train"]}))(Method(), None, CONFIG, "cpu")


def test_masks_of_class_ids_allow_segmentation_only(source):
    columns = {"semantic": "mask"}
    splits = {
        name: part.remove_columns(["objects", "instances", "mask"]).rename_columns(columns)
        for name, part in source.splits.items()
    }
    found = SceneEvaluation()(Method(), replace(source, splits=splits, mask_kind="classes"), CONFIG, "cpu")
    assert set(found) == {"scene_n_train", "scene_n_test", "scene_miou_linear", "scene_miou_knn"}


def test_a_source_without_scenes_gives_nothing_as_the_runs_own_and_an_error_when_asked_for():
    plain = open_source("shapes", classes=2, size=16, train=4, test=4)
    assert SceneEvaluation()(Method(), plain, CONFIG, "cpu") == {}
    with pytest.raises(UsageError, match="neither objects with an instance map nor a mask of class ids"):
        SceneEvaluation(plain)(Method(), None, CONFIG, "cpu")


def test_an_unknown_part_is_named():
    with pytest.raises(UsageError, match="unknown part of the scene evaluation 'discover'; did you mean 'discovery'"):
        SceneEvaluation(parts=["discover"])
