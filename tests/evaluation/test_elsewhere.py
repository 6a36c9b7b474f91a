"""Protocols on other images than those of training, and scenes that are decoded once in a process."""

import pytest
import torch
from torch import nn

from scd.data.images import load_images
from scd.data.scene_set import load_scenes, scenes_once
from scd.data.sources.scenes import scenes
from scd.errors import DataError
from scd.evaluation.protocol import EvaluationData, evaluate
from scd.evaluation.transfer import Elsewhere
from scd.nn.backbone import build_backbone

CONFIG = {"seed": 4, "seed_of": {"probe": None}, "data": {"size": 24}, "evaluation": {"size": 16}}


class Method(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = build_backbone("resnet_tiny", widths=(8, 16), strides=(1, 2))

    def saliency(self, images):
        return None


@pytest.fixture(scope="module")
def centric():
    return scenes(classes=3, size=24, train=60, test=30, objects=(1, 1), scale=(0.3, 0.6), regions=(1, 1))


def test_numbers_are_those_of_the_protocols_on_the_other_images(centric):
    method = Method().train()
    found = Elsewhere(centric, "centric_", train_limit=50)(method, None, CONFIG, "cpu")
    data = EvaluationData(load_images(centric, "train", 24, 50), load_images(centric, "test", 24))
    expected = evaluate(method, data, size=16, seed=4, protocols=("knn", "linear"))
    assert found == {f"centric_{name}": value for name, value in expected.items()}
    assert {"centric_knn_top1", "centric_linear_top1"} <= set(found) and method.backbone.training


def test_the_probes_own_seed_is_taken_where_there_is_one(centric):
    own = {**CONFIG, "seed_of": {"probe": 9}}
    other = Elsewhere(centric, "c_")(Method(), None, own, "cpu")
    assert other == Elsewhere(centric, "c_")(Method(), None, {**CONFIG, "seed": 9}, "cpu")


def test_images_without_a_split_to_score_are_refused(centric):
    alone = type(centric)(**{**vars(centric), "splits": {"train": centric.splits["train"]}})
    with pytest.raises(DataError, match="data 'scenes' has no split to evaluate on; it has train"):
        Elsewhere(alone, "c_")(Method(), None, CONFIG, "cpu")


def test_scenes_are_decoded_once(centric):
    first = scenes_once(centric, "test", 24, 10)
    assert scenes_once(centric, "test", 24, 10) is first and scenes_once(centric, "test", 24, 11) is not first
    again = load_scenes(centric, "test", 24, 10)
    assert torch.equal(first.images, again.images) and torch.equal(first.semantic, again.semantic)
