"""Extractors against masks: known maps, rules by a second way, a ViT and a CNN end to end."""

import numpy as np
import pytest
import torch
from tiny_evaluation import With, context_of, object_source
from torch import nn

from baselines.moco import MoCo
from scd.data.recipes import centre_view
from scd.data.sources.shapes import Shapes
from scd.errors import UsageError
from scd.evaluation.emergence import EXTRACTORS, Emergence, best_head, extractor_metrics, floors, label_free, read
from scd.evaluation.localization import METRICS, Prediction, mass_set, overlaps, scores
from scd.evaluation.saliency import saliency_scores
from scd.maps.attention import rescaled
from scd.maps.tokencut import bipartition
from scd.method import whole_view
from scd.nn.backbone import build_backbone
from scd.nn.vit import tokens_of, vit
from scd.scd import SCD


def keys(*extractors):
    return {f"{extractor}_{number}" for extractor in extractors for number in METRICS}


def squares(n=6, size=24):
    """Masks with one rectangle each, of different places and sizes, on a grid of 4 pixels."""
    masks = torch.zeros(n, size, size, dtype=torch.uint8)
    for i in range(n):
        masks[i, 4 * (i % 3) : 4 * (i % 3) + 8, 4 : 8 + 4 * (i // 2)] = 1
    return masks


def tiny_vit():
    torch.manual_seed(0)
    return vit("vit_tiny_patch16_224", img_size=24, patch_size=4, embed_dim=48, depth=2, num_heads=3)


def plain_moco(backbone):
    return MoCo(backbone, dim=8, queue_size=16, bn_groups=1)


def shown():
    """A method whose map is what the red channel shows: 1 where the image is white."""
    return With(nn.AvgPool2d(4), lambda view: (view.images[:, 0] > 0).float())


@pytest.fixture(scope="module")
def shapes():
    return Shapes(size=48, train=10, test=20)


# ---------------------------------------------------------------- extractors


def test_best_head_is_chosen_by_the_mask_in_each_image():
    masks = squares()
    truth = nn.functional.max_pool2d(masks[:, None].float(), 4)[:, 0]
    heads = torch.rand(6, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 0.01
    for i in range(6):
        heads[i, i % 3] += truth[i]
    found = best_head(heads, masks)
    for i in range(6):
        assert torch.equal(found.hard[i], mass_set(heads[i])[i % 3])
        torch.testing.assert_close(found.soft[i], rescaled(heads[i, i % 3]))
    mean = Prediction(rescaled(heads.mean(dim=1)), mass_set(heads.mean(dim=1)))
    assert scores({"a": found}, masks)["a_jaccard"] >= scores({"a": mean}, masks)["a_jaccard"]


# ---------------------------------------------------------------- known maps


def test_predicting_the_mask_gives_1_everywhere_and_its_inverse_does_not():
    masks = squares()
    images = (masks[:, None] * 255).expand(-1, 3, -1, -1).contiguous()
    found = label_free(read(shown(), images, 24, tau=0.2))
    numbers = scores(found, masks)
    assert {name: numbers[name] for name in keys("learned")} == dict.fromkeys(keys("learned"), 1.0)
    assert numbers["inverted_jaccard"] == 0.0 and numbers["inverted_corloc"] < 1
    assert set(numbers) == keys("learned", "inverted", "tokencut")


def test_whole_images_floor_is_the_masks_share():
    masks = squares()
    numbers = scores(floors(torch.zeros(6, 6, 6)), masks)
    share = masks.float().mean(dim=(1, 2))
    whole = saliency_scores(torch.ones(6, 6, 6), masks)
    assert numbers["whole_jaccard"] == pytest.approx(share.mean().item())
    assert numbers["whole_maxf"] == pytest.approx(whole["saliency_maxf_whole"])
    assert numbers["whole_corloc"] == pytest.approx((share >= 0.5).float().mean().item())  # rectangles


def test_centre_floor_is_a_bump_in_the_middle():
    centre = floors(torch.zeros(2, 7, 7))["centre"]
    assert centre.soft[1, 3, 3] == 1 and centre.soft[1, 0, 0] == 0
    line = (torch.arange(7) + 0.5) / 7 - 0.5
    bump = torch.exp(-(line[:, None] ** 2 + line**2) / (2 * 0.3**2))
    torch.testing.assert_close(centre.soft[0], rescaled(bump[None])[0])
    inside = bump[centre.hard[0]]
    assert inside.sum() >= 0.6 * bump.sum() > inside.sum() - inside.min()


# ---------------------------------------------------------------- protocol


def test_a_vit_end_to_end_by_a_second_way(shapes):
    method = SCD(plain_moco(tiny_vit())).train()
    context = context_of(method, shapes, 24, canvas=48)
    numbers = Emergence(images=12, batch=5)(context)
    assert set(numbers) == keys(*EXTRACTORS) == set(Emergence().metrics)
    assert all(0 <= value <= 1 for value in numbers.values())
    assert method.training and method.backbone.training

    test = context.data.test.subset(range(12))
    method.eval()
    with torch.no_grad():
        view = whole_view(centre_view(test.images, 24))
        maps, _ = method.backbone(view.images)
        tokens = tokens_of(maps)
        cut = bipartition(tokens.keys)
        learned = method.saliency(view)
    attention = mass_set(tokens.attention.mean(dim=1))
    for name, hard in [("attention", attention), ("tokencut", cut.component), ("learned", learned >= 0.5)]:
        enlarged = hard.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2).numpy()
        truth = test.masks.numpy() > 0
        expected = [(a & b).sum() / (a | b).sum() for a, b in zip(enlarged, truth, strict=True)]
        assert numbers[f"{name}_jaccard"] == pytest.approx(np.mean(expected))
    assert numbers["best_head_jaccard"] >= max(
        overlaps(mass_set(head), test.masks).mean().item() for head in tokens.attention.unbind(1)
    )
    assert numbers["whole_jaccard"] == pytest.approx(test.masks.float().mean().item())


def test_a_cnn_without_map_has_a_cut_of_its_feature_maps_and_the_floors(shapes):
    context = context_of(plain_moco(build_backbone("resnet_tiny")), shapes, 24, canvas=48)
    numbers = Emergence(images=6)(context)
    assert set(numbers) == keys("tokencut", "whole", "centre")
    assert numbers == pytest.approx(Emergence(images=6, batch=4)(context))


def test_no_masks_no_numbers():
    assert Emergence()(context_of(shown(), object_source(leave_out=("mask",)), 16)) == {}


def test_impossible_numbers_are_refused():
    with pytest.raises(UsageError, match="emergence: images is 0, it must be at least 1"):
        Emergence(images=0)
    with pytest.raises(UsageError, match="emergence: batch is -2, it must be at least 1"):
        Emergence(batch=-2)


def test_every_number_has_a_definition_and_no_label_comes_twice():
    metrics = extractor_metrics(*EXTRACTORS)
    assert len({metric.label for metric in metrics.values()}) == len(metrics) == 21
    assert "oracle" in metrics["best_head_corloc"].definition
    assert metrics["whole_jaccard"].better is None and metrics["attention_jaccard"].better == "higher"
