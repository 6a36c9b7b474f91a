"""The one entry: which keys appear for which data, and numbers of networks whose behaviour is known."""

import pytest
import torch
from torch import nn

from scd.data.images import ImageSet, load_images
from scd.data.sources.source import open_source
from scd.errors import DataError, UsageError
from scd.evaluation.metrics import METRICS
from scd.evaluation.protocol import PROTOCOLS, EvaluationData, check_data, evaluate

COUNTS = {"n_train", "n_test"}
KNN = {"knn_top1"}
LINEAR = {"linear_top1", "linear_balanced", "linear_l2"}
MIXED = {"mixed_same_top1", "mixed_rand_top1", "bg_gap", "n_mixed"}
COLLAPSE = {"feature_std", "effective_rank"}
MAPS = {"map_entropy", "map_saturation", "map_area", "map_std"}
TRACED = {"view_agreement"}  # measured during training only, see test_eval_trace.py
SALIENCY = {key for key in METRICS if key.startswith("saliency_")}


def scenes(n, seed, correlated, size=16, classes=4):
    """Grey-level objects (level = class) on a background whose blue is its own class; a square object in the middle."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    backgrounds = labels.clone() if correlated else torch.randint(0, classes, (n,), generator=generator)
    masks = torch.zeros(n, size, size, dtype=torch.uint8)
    masks[:, 4:12, 4:12] = 1
    images = torch.zeros(n, 3, size, size)
    images[:, 2] = (40 + 60 * backgrounds)[:, None, None]
    inside = masks.bool()[:, None] & torch.tensor([True, False, False]).view(3, 1, 1)
    images = torch.where(inside, (40 + 60 * labels).view(-1, 1, 1, 1).float(), images * (1 - masks[:, None]))
    images += 4 * torch.rand(images.shape, generator=generator)
    names = tuple(f"class{c}" for c in range(classes))
    return ImageSet(
        images.round().to(torch.uint8), labels=labels, masks=masks, backgrounds=backgrounds, class_names=names
    )


class Channels(nn.Module):
    """A 'backbone' that passes chosen colour channels through: 0 sees the object only, 2 the background only."""

    def __init__(self, *channels):
        super().__init__()
        self.channels = list(channels)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.scale * images[:, self.channels]


class Method(nn.Module):
    def __init__(self, *channels, maps=True):
        super().__init__()
        self.backbone = Channels(*channels)
        self.maps = maps

    def saliency(self, images):
        return (images[:, 0] > images[:, 0].amin(dim=(1, 2), keepdim=True) + 0.3).float() if self.maps else None


def data_of(correlated=True):
    return EvaluationData(scenes(200, 0, correlated), scenes(80, 1, correlated))


def without(images, **changes):
    columns = {name: getattr(images, name) for name in ("labels", "masks", "backgrounds", "class_names")}
    return ImageSet(images.images, **(columns | changes))


def test_every_key_is_there_explained_and_a_number():
    numbers = evaluate(Method(0, 1, 2), data_of(), size=16, seed=0)
    assert set(numbers) == set(METRICS) - TRACED
    for key, metric in METRICS.items():
        assert key in TRACED or (isinstance(numbers[key], (int, float)) and numbers[key] == numbers[key]), key
        assert metric.label and metric.unit and metric.definition and metric.better in ("higher", "lower", None)
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)


@pytest.mark.parametrize(
    ("protocol", "keys"),
    [
        ("knn", KNN),
        ("linear", LINEAR),
        ("saliency", SALIENCY),
        ("background", MIXED | {"background_top1"}),
        ("collapse", COLLAPSE | MAPS),
    ],
)
def test_each_protocol_alone(protocol, keys):
    data = data_of()
    alone = evaluate(Method(0, 1, 2), data, size=16, seed=0, protocols=(protocol,))
    assert set(alone) == COUNTS | keys
    everything = evaluate(Method(0, 1, 2), data, size=16, seed=0)
    assert alone == {key: everything[key] for key in alone}


@pytest.mark.parametrize(
    ("missing", "maps", "keys"),
    [
        ({"labels"}, True, {"background_top1"} | SALIENCY | COLLAPSE | MAPS),
        ({"masks"}, True, KNN | LINEAR | {"background_top1"} | COLLAPSE | MAPS),
        ({"backgrounds"}, True, KNN | LINEAR | MIXED | SALIENCY | COLLAPSE | MAPS),
        ({"backgrounds"}, False, KNN | LINEAR | MIXED | COLLAPSE),
        ({"labels", "masks", "backgrounds"}, False, COLLAPSE),
    ],
)
def test_what_is_absent_leaves_its_keys_out(missing, maps, keys):
    data = data_of()
    changes = dict.fromkeys(missing)
    data = EvaluationData(without(data.train, **changes), without(data.test, **changes))
    assert set(evaluate(Method(0, 1, 2, maps=maps), data, size=16, seed=0)) == COUNTS | keys


def test_a_network_that_ignores_the_background_has_no_gap():
    numbers = evaluate(Method(0), data_of(), size=16, seed=0)
    assert numbers["linear_top1"] == numbers["mixed_same_top1"] == numbers["mixed_rand_top1"] == 1
    assert numbers["bg_gap"] == 0
    assert numbers["saliency_iou"] == 1 and numbers["saliency_inverted_share"] == 0


def test_a_network_that_sees_the_background_only_falls_to_nothing_on_other_backgrounds():
    numbers = evaluate(Method(2), data_of(correlated=True), size=16, seed=0)
    assert numbers["linear_top1"] == numbers["background_top1"] == numbers["mixed_same_top1"] == 1
    assert numbers["mixed_rand_top1"] == 0  # another class' background, always
    assert numbers["bg_gap"] == 1


def test_class_and_background_are_told_apart_when_they_are_independent():
    sees_object = evaluate(Method(0), data_of(correlated=False), size=16, seed=0)
    sees_background = evaluate(Method(2), data_of(correlated=False), size=16, seed=0)
    assert sees_object["linear_top1"] == 1 and sees_object["background_top1"] < 0.6
    assert sees_background["background_top1"] == 1 and sees_background["linear_top1"] < 0.6


def test_repeats_exactly_and_leaves_the_method_alone():
    data, method = data_of(correlated=False), Method(0, 1, 2).train()
    first = evaluate(method, data, size=12, seed=0)
    assert evaluate(method, data, size=12, seed=0) == first
    assert method.training and method.backbone.training and method.backbone.scale.grad is None


def test_wrong_protocols_and_classes_are_found_before_training():
    data = data_of()
    with pytest.raises(UsageError, match=r"unknown protocol 'saliencyy'; did you mean 'saliency'\?.*collapse"):
        check_data(data, ("saliencyy",))
    data.train.labels[data.train.labels == 3] = 2
    with pytest.raises(DataError, match="class 'class3' has 0 training images and 20 test images"):
        check_data(data)
    check_data(data, ("knn", "saliency", "collapse"))
    data = data_of()
    data.train.backgrounds[data.train.backgrounds == 1] = 0
    data.train.backgrounds[:4] = 1
    with pytest.raises(DataError, match="background class 1 has 4 training images and 20 test images"):
        check_data(data)


def test_real_photographs_with_masks_and_a_class_without_images(real_data):
    source = open_source(str(real_data / "flowers17_seg"))
    data = EvaluationData(load_images(source, "train", 32), load_images(source, "test", 32))
    numbers = evaluate(Method(0, 1, 2), data, size=32, seed=0, protocols=PROTOCOLS)
    assert (numbers["n_train"], numbers["n_test"]) == (633, 166)
    assert set(numbers) == set(METRICS) - {"background_top1"} - TRACED
    assert numbers["linear_top1"] > 2 / 16  # mean colour alone is far above chance
    assert 0.15 < numbers["saliency_iou_whole"] < 0.4  # the flowers cover about 27 %
