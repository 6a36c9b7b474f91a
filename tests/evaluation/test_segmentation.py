"""Segmentation of frozen feature maps against loops over pixels and positions, and of maps whose worth is known."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scd.data.scene_set import SceneSet
from scd.errors import DataError, UsageError
from scd.evaluation.features import extract_maps
from scd.evaluation.segmentation import (
    class_shares,
    knn_miou,
    labelled_positions,
    linear_miou,
    mean_iou,
)

CLASSES = 3


def masks(n, seed=0, size=12, cell=3):
    """Class maps (n, size, size) whose cells of 3 x 3 pixels have one class each."""
    drawn = torch.randint(0, CLASSES, (n, size // cell, size // cell), generator=torch.Generator().manual_seed(seed))
    return drawn.repeat_interleave(cell, 1).repeat_interleave(cell, 2).to(torch.uint8)


def feature_maps(semantic, noise=0.0, seed=0, size=4, dim=5):
    """Features (n, dim, 4, 4) that hold the class of their cell."""
    codes = 3 * torch.randn(CLASSES, dim, generator=torch.Generator().manual_seed(7))
    maps = class_shares(semantic, CLASSES, (size, size)) @ codes
    return (maps + noise * torch.randn(maps.shape, generator=torch.Generator().manual_seed(seed))).permute(0, 3, 1, 2)


def slow_miou(predicted, truth, classes):
    inter, union = [0] * classes, [0] * classes
    for p, t in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True):
        for c in range(classes):
            if t != 255:
                inter[c] += p == c and t == c
                union[c] += p == c or t == c
    return sum(i / u for i, u in zip(inter, union, strict=True) if u) / sum(u > 0 for u in union)


# ---------------------------------------------------------------- mean IoU


def test_mean_iou_equals_a_loop_over_pixels():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5, 4, 3, 3, generator=generator)
    scores[:, 3] = -10  # predicted nowhere, and in no mask: left out
    truth = torch.randint(0, 3, (5, 7, 7), generator=generator).to(torch.uint8)
    truth[:, :2] = 255
    truth[4] = 255
    predicted = F.interpolate(scores, (7, 7), mode="bilinear", align_corners=False).argmax(dim=1)
    assert mean_iou(scores, truth, 4) == pytest.approx(slow_miou(predicted, truth, 4), abs=1e-6)


def test_mean_iou_is_over_the_set_and_not_per_image(monkeypatch):
    scores, truth = torch.zeros(2, 2, 1, 1), torch.zeros(2, 2, 2, dtype=torch.uint8)
    truth[1, 0] = 1
    scores[:, 0] = 1  # class 0 everywhere: 6 of 8 pixels right
    assert mean_iou(scores, truth, 2) == pytest.approx((6 / 8 + 0) / 2)
    monkeypatch.setattr("scd.evaluation.segmentation.CHUNK_VALUES", 1)
    assert mean_iou(scores, truth, 2) == pytest.approx(3 / 8)


def test_names_tell_the_class_of_each_score():
    scores = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    truth = torch.full((1, 2, 2), 4, dtype=torch.uint8)
    assert mean_iou(scores, truth, 5, names=torch.tensor([1, 4])) == 1.0
    assert mean_iou(scores, truth, 5, names=torch.tensor([4, 1])) == 0.0


def test_masks_without_a_labelled_pixel_are_an_error():
    with pytest.raises(DataError, match="no image has a labelled pixel"):
        mean_iou(torch.zeros(1, 2, 1, 1), torch.full((1, 2, 2), 255, dtype=torch.uint8), 2)


# ---------------------------------------------------------------- positions


def test_shares_equal_counting_the_pixels_of_each_cell():
    semantic = torch.randint(0, CLASSES, (3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    semantic[0, :3] = 255
    semantic[1, 4:, 4:] = 255  # a whole cell
    shares = class_shares(semantic, CLASSES, (2, 2))
    for i in range(3):
        for y in range(2):
            for x in range(2):
                pixels = [p for p in semantic[i, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].flatten().tolist() if p != 255]
                expected = [pixels.count(c) / len(pixels) if pixels else 0.0 for c in range(CLASSES)]
                assert shares[i, y, x].tolist() == pytest.approx(expected)


def test_rows_are_in_the_order_of_the_map_and_unlabelled_positions_are_left_out():
    maps = torch.arange(8.0).view(2, 1, 2, 2)
    semantic = torch.zeros(2, 4, 4, dtype=torch.uint8)
    semantic[0, :2, 2:] = 255
    semantic[1, 2:, :2] = 1
    image, features, targets = labelled_positions(maps, semantic, 2, 100, seed=0)
    assert features[:, 0].tolist() == [0, 2, 3, 4, 5, 6, 7]
    assert image.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert targets[:, 1].tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_positions_are_drawn_from_the_seed():
    semantic = masks(10)
    maps = feature_maps(semantic, noise=1.0)
    drawn = [labelled_positions(maps, semantic, CLASSES, 20, seed=seed)[1] for seed in (0, 0, 1)]
    assert len(drawn[0]) == 20
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_a_value_that_is_no_class_is_named():
    with pytest.raises(DataError, match="the masks hold the value 7, but there are 3 segment classes"):
        class_shares(torch.full((1, 2, 2), 7, dtype=torch.uint8), 3, (1, 1))


# ---------------------------------------------------------------- retrieval


def slow_knn(train_maps, train_semantic, test_maps, k, temperature):
    """Retrieved shares (M, K, h, w), position by position."""
    unit = lambda v: [a / math.sqrt(sum(b * b for b in v)) for a in v]  # noqa: E731
    shares = class_shares(train_semantic, CLASSES, tuple(train_maps.shape[2:]))
    memory = [
        (unit(train_maps[i, :, y, x].tolist()), shares[i, y, x])
        for i in range(len(train_maps))
        for y in range(train_maps.shape[2])
        for x in range(train_maps.shape[3])
    ]
    out = torch.zeros(len(test_maps), CLASSES, *test_maps.shape[2:])
    for i in range(len(test_maps)):
        for y in range(test_maps.shape[2]):
            for x in range(test_maps.shape[3]):
                query = unit(test_maps[i, :, y, x].tolist())
                cosine = [(sum(a * b for a, b in zip(query, key, strict=True)), label) for key, label in memory]
                nearest = sorted(cosine, key=lambda pair: -pair[0])[:k]
                weights = [math.exp(c / temperature) for c, _ in nearest]
                for w, (_, label) in zip(weights, nearest, strict=True):
                    out[i, :, y, x] += w / sum(weights) * label
    return out


def test_retrieval_equals_a_loop_over_positions(monkeypatch):
    train, test = masks(6), masks(4, seed=1)
    train_maps, test_maps = feature_maps(train, 3.0), feature_maps(test, 3.0, seed=1)
    shares = slow_knn(train_maps, train, test_maps, k=5, temperature=0.1)
    full = F.interpolate(shares, (12, 12), mode="bilinear", align_corners=False)
    expected = slow_miou(full.argmax(dim=1), test, CLASSES)
    assert 0.3 < expected < 0.9
    found = knn_miou(train_maps, train, test_maps, test, CLASSES, seed=0, k=5, temperature=0.1)
    assert found == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr("scd.evaluation.segmentation.CHUNK_QUERIES", 3)
    assert knn_miou(train_maps, train, test_maps, test, CLASSES, seed=0, k=5, temperature=0.1) == found


def test_retrieval_needs_k_and_a_temperature():
    semantic = masks(2)
    maps = feature_maps(semantic)
    with pytest.raises(UsageError, match="k=0, T=0.02"):
        knn_miou(maps, semantic, maps, semantic, CLASSES, seed=0, k=0)


# ---------------------------------------------------------------- worth that is known


class Blocks(nn.Module):
    """A 'backbone': the mean colour of each 3 x 3 block."""

    def forward(self, images):
        return F.avg_pool2d(images, 3)


def scene_set(semantic):
    """Scenes whose colours are their classes."""
    colours = torch.tensor([[250, 10, 10], [10, 250, 10], [10, 10, 250]], dtype=torch.uint8)
    images = colours[semantic.long()].permute(0, 3, 1, 2).contiguous()
    nothing = [torch.zeros(0, 12, 12, dtype=torch.bool)] * len(semantic)
    boxes = [torch.zeros(0, 4)] * len(semantic)
    classes = [torch.zeros(0, dtype=torch.int64)] * len(semantic)
    return SceneSet(images, semantic, nothing, boxes, classes, (), ("a", "b", "c"), {})


def blocky(n, seed):
    """Masks whose class boundaries bilinear resizing keeps: left half one class, right half another."""
    pairs = torch.stack([torch.randperm(3, generator=torch.Generator().manual_seed(seed + i))[:2] for i in range(n)])
    return pairs.repeat_interleave(6, dim=1)[:, None].expand(-1, 12, -1).to(torch.uint8).contiguous()


def of_colours(score, train, test, learned=None):
    """A score of the scenes of two sets of masks, learned from the masks of training or from others."""
    maps = [extract_maps(Blocks(), scene_set(semantic).images, 12) for semantic in (train, test)]
    return score(maps[0], train if learned is None else learned, maps[1], test, CLASSES, seed=0)


@pytest.mark.parametrize("score", [linear_miou, knn_miou])
def test_a_backbone_that_sees_the_class_is_perfect(score):
    assert of_colours(score, blocky(40, 0), blocky(20, 100)) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("score", [linear_miou, knn_miou])
def test_shuffled_features_are_no_better_than_chance(score):
    """Three equal classes: the mean IoU of guessing is 1/5, that of one class everywhere 1/9."""
    train, test = masks(60), masks(40, seed=1)
    train_maps, test_maps = feature_maps(train, 0.3), feature_maps(test, 0.3, seed=1)
    informed = score(train_maps, train, test_maps, test, CLASSES, seed=0)
    assert informed > 0.6
    generator = torch.Generator().manual_seed(5)
    train_maps, test_maps = (maps[torch.randperm(len(maps), generator=generator)] for maps in (train_maps, test_maps))
    assert 1 / 9 - 0.01 < score(train_maps, train, test_maps, test, CLASSES, seed=0) < 0.22


def test_ignored_pixels_of_the_training_masks_are_not_learned():
    """What is ignored in training may be anything; the score stays that of the labelled rest."""
    train, test = blocky(40, 0), blocky(20, 100)
    partly = train.clone()
    partly[:, :6] = 255
    expected = of_colours(linear_miou, train, test)
    assert of_colours(linear_miou, train, test, learned=partly) == pytest.approx(expected, abs=0.02)


def test_a_class_that_training_does_not_show_is_never_predicted():
    train, test = masks(40), masks(20, seed=1)
    train_maps, test_maps = feature_maps(train), feature_maps(test)
    train[train == 2] = 255
    found = linear_miou(train_maps, train, test_maps, test, CLASSES, seed=0)
    assert 0.2 < found < 2 / 3


@pytest.mark.parametrize("score", [linear_miou, knn_miou])
def test_the_same_call_gives_the_same_number(score):
    train, test = masks(30), masks(20, seed=1)
    given = (feature_maps(train, 2.0), train, feature_maps(test, 2.0, seed=1), test, CLASSES)
    assert score(*given, 0, 100) == score(*given, 0, 100)
