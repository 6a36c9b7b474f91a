"""Readings of a method against masks: known maps, rules by a second way, a ViT and a CNN end to end."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from baselines.moco import MoCo
from scd.data.images import ImageSet, load_images
from scd.data.recipes import centre_view
from scd.data.sources.source import Source, open_source
from scd.errors import DataError, UsageError
from scd.evaluation.emergence import Emergence, EmergenceTrace, best_head, floors, label_free, read
from scd.evaluation.further import EXTRACTORS, FOUND, FURTHER
from scd.evaluation.localization import Found, extents, located, mass_set, overlaps, scores, true_boxes
from scd.evaluation.saliency import saliency_scores
from scd.maps.attention import stretched
from scd.maps.tokencut import bipartition
from scd.nn.backbone import build_backbone
from scd.nn.vit import tokens_of, vit
from scd.scd import SCD

CONFIG = {"data": {"size": 48, "test_limit": None}, "evaluation": {"size": 24, "test_limit": 14}}


def keys(*extractors):
    return {f"{extractor}_{number}" for extractor in extractors for number in FOUND}


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


class Shown(nn.Module):
    """A method whose map is what the red channel shows: 1 where the image is white."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.AvgPool2d(4)

    def saliency(self, images):
        return (images[:, 0] > 0).float()


@pytest.fixture(scope="module")
def shapes():
    return open_source("shapes", size=48, train=10, test=20)


@pytest.fixture(scope="module")
def test_set(shapes):
    return load_images(shapes, "test", 48, 14)


# ---------------------------------------------------------------- rules


def test_mass_set_is_the_smallest_by_a_loop():
    maps = torch.rand(20, 3, 4, generator=torch.Generator().manual_seed(0)) ** 3
    for one, found in zip(maps.flatten(1).double().numpy(), mass_set(maps).flatten(1).numpy(), strict=True):
        taken, mass = [], 0.0
        for position in sorted(range(12), key=lambda i: -one[i]):
            if mass >= 0.6 * one.sum():
                break
            taken.append(position)
            mass += one[position]
        assert sorted(taken) == np.flatnonzero(found).tolist()


def test_mass_set_as_dinos_ascending_sum_has_it():
    maps = torch.rand(20, 5, 5, generator=torch.Generator().manual_seed(1))
    values, order = (maps / maps.sum(dim=(1, 2), keepdim=True)).flatten(1).sort(dim=1)
    expected = torch.zeros(20, 25, dtype=torch.bool).scatter(1, order, values.cumsum(dim=1) > 1 - 0.6)
    assert torch.equal(mass_set(maps).flatten(1), expected)
    assert mass_set(torch.ones(1, 1, 5)).tolist() == [[[True, True, True, False, False]]]  # exactly 60 %


def test_extents_and_true_boxes_by_hand():
    mask = torch.zeros(2, 8, 8, dtype=torch.uint8)
    mask[0, 2:4, 1:7] = 1
    mask[0, 4, 7] = 1  # touches by a corner only: a box of its own
    boxes = true_boxes(mask)
    assert boxes[0].tolist() == [[1 / 8, 2 / 8, 7 / 8, 4 / 8], [7 / 8, 4 / 8, 1, 5 / 8]]
    assert boxes[1].shape == (0, 4)
    assert extents(mask > 0).tolist() == [[1 / 8, 2 / 8, 1, 5 / 8], [0, 0, 0, 0]]


def test_corloc_takes_the_component_of_the_maximum_and_any_object_will_do():
    mask = torch.zeros(1, 8, 8)
    mask[0, :2, :4], mask[0, 5:, 5:] = 1, 1
    hard = torch.zeros(1, 8, 8, dtype=torch.bool)
    hard[0, :2, :2] = True  # half of the first object: IoU 0.5, which counts
    hard[0, 4, 0] = True
    soft = torch.zeros(1, 8, 8)
    soft[0, 1, 1] = 1.0
    assert located(Found(soft, hard), true_boxes(mask)) == [True]
    assert located(Found(torch.roll(soft, (3, -1), (1, 2)), hard), true_boxes(mask)) == [False]  # the single position
    assert located(Found(torch.roll(soft, 5, 2), hard), true_boxes(mask)) == [False]  # a maximum that was not found
    hard[0, 1, 1] = False
    hard[0, :2, 1] = False
    assert located(Found(torch.roll(soft, -1, 2), hard), true_boxes(mask)) == [False]  # a quarter


def test_images_without_an_object_do_not_count_for_corloc():
    masks = squares(2)
    masks[1] = 0
    everything = {"all": Found(torch.ones(2, 6, 6), torch.ones(2, 6, 6, dtype=torch.bool))}
    masks[0] = 1
    assert scores(everything, masks)["all_corloc"] == 1.0
    masks[0] = 0
    assert set(scores(everything, masks)) == {"all_jaccard", "all_maxf"}


def test_best_head_is_chosen_by_the_mask_in_each_image():
    masks = squares()
    truth = nn.functional.max_pool2d(masks[:, None].float(), 4)[:, 0]
    heads = torch.rand(6, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 0.01
    for i in range(6):
        heads[i, i % 3] += truth[i]
    found = best_head(heads, masks)
    for i in range(6):
        assert torch.equal(found.hard[i], mass_set(heads[i])[i % 3])
        torch.testing.assert_close(found.soft[i], stretched(heads[i, i % 3]))
    mean = Found(stretched(heads.mean(dim=1)), mass_set(heads.mean(dim=1)))
    assert scores({"a": found}, masks)["a_jaccard"] >= scores({"a": mean}, masks)["a_jaccard"]


# ---------------------------------------------------------------- known maps


def test_predicting_the_mask_gives_1_everywhere_and_its_inverse_does_not():
    masks = squares()
    images = (masks[:, None] * 255).expand(-1, 3, -1, -1).contiguous()
    found = label_free(read(Shown(), images, 24, tau=0.2))
    numbers = scores(found, masks)
    assert {name: numbers[name] for name in keys("learned")} == dict.fromkeys(keys("learned"), 1.0)
    assert numbers["inverted_jaccard"] == 0.0 and numbers["inverted_corloc"] < 1
    assert set(numbers) == keys("learned", "inverted", "tokencut")


def test_a_perfect_map_on_a_coarser_grid_is_still_perfect_where_the_grid_allows_it():
    masks = squares()
    coarse = nn.functional.avg_pool2d(masks[:, None].float(), 4)[:, 0]
    numbers = scores({"perfect": Found(coarse, coarse > 0.5)}, masks)
    assert numbers["perfect_jaccard"] == 1.0 and numbers["perfect_corloc"] == 1.0
    assert numbers["perfect_maxf"] == 1.0  # resized: corners are 0.39 inside, edges 0.375 outside


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
    torch.testing.assert_close(centre.soft[0], stretched(bump[None])[0])
    inside = bump[centre.hard[0]]
    assert inside.sum() >= 0.6 * bump.sum() > inside.sum() - inside.min()


# ---------------------------------------------------------------- end to end


def test_a_vit_end_to_end_by_a_second_way(shapes, test_set):
    method = SCD(plain_moco(tiny_vit())).train()
    numbers = Emergence(images=12, batch=5)(method, shapes, CONFIG, "cpu")
    assert set(numbers) == keys(*EXTRACTORS) == {key for key in FURTHER if key in numbers}
    assert all(0 <= value <= 1 for value in numbers.values())
    assert method.training and method.backbone.training

    images, masks = test_set.images[:12], test_set.masks[:12]
    method.eval()
    with torch.no_grad():
        maps, _ = method.backbone(centre_view(images, 24))
        tokens = tokens_of(maps)
        cut = bipartition(tokens.keys)
        learned = method.saliency(centre_view(images, 24))
    attention = mass_set(tokens.attention.mean(dim=1))
    for name, hard in [("attention", attention), ("tokencut", cut.component), ("learned", learned >= 0.5)]:
        enlarged = hard.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2).numpy()
        truth = masks.numpy() > 0
        expected = [(a & b).sum() / (a | b).sum() for a, b in zip(enlarged, truth, strict=True)]
        assert numbers[f"{name}_jaccard"] == pytest.approx(np.mean(expected))
    assert numbers["best_head_jaccard"] >= max(
        overlaps(mass_set(head), masks).mean().item() for head in tokens.attention.unbind(1)
    )
    assert numbers["whole_jaccard"] == pytest.approx(masks.float().mean().item())


def test_a_cnn_without_map_has_a_cut_of_its_feature_maps_and_the_floors(shapes):
    method = plain_moco(build_backbone("resnet_tiny"))
    numbers = Emergence(images=6)(method, shapes, CONFIG, "cpu")
    assert set(numbers) == keys("tokencut", "whole", "centre")
    assert numbers == Emergence(images=6, batch=4)(method, shapes, CONFIG, "cpu")


def test_no_masks_no_numbers_and_the_split_is_test_or_else_validation(shapes):
    def source(**splits):
        return Source("x", "1", splits, "emergence-test", None, None, "binary", "")

    bare = shapes.split("test").remove_columns("mask")
    assert Emergence(images=4)(Shown(), source(validation=bare), CONFIG, "cpu") == {}
    with pytest.raises(DataError, match="data 'x' has no split to evaluate on; it has train"):
        Emergence()(Shown(), source(train=bare), CONFIG, "cpu")


def test_impossible_numbers_are_refused():
    with pytest.raises(UsageError, match="Emergence's images is 1 or more, not 0"):
        Emergence(images=0)
    with pytest.raises(UsageError, match="Emergence's batch is 1 or more, not -2"):
        Emergence(batch=-2)


def test_every_number_has_a_meaning_and_no_label_comes_twice():
    assert keys(*EXTRACTORS) <= set(FURTHER)
    labels = [FURTHER[key].label for key in sorted(keys(*EXTRACTORS))]
    assert len(set(labels)) == len(labels) == 21
    assert "oracle" in FURTHER["best_head_corloc"].definition
    assert FURTHER["whole_jaccard"].better is None and FURTHER["attention_jaccard"].better == "higher"


# ---------------------------------------------------------------- while it learns


def run_trace(trace, method, steps=8):
    observer = trace.observer(method, steps)
    for step in observer.steps:
        observer.look(step)
    return trace.numbers()


def test_the_trace_looks_at_a_vit_without_a_map_of_its_own(test_set, tmp_path):
    method = plain_moco(tiny_vit())
    numbers = run_trace(EmergenceTrace(test_set, 24, "cpu", tmp_path, points=2, images=10, kept=3), method)
    assert set(numbers) == {f"{key}@{at}" for key in keys("attention", "tokencut") for at in ("0.00", "0.50", "1.00")}
    kept = load_file(tmp_path / "00000004.safetensors")
    readings = read(method, test_set.images[:3], 24, tau=0.2)
    assert set(kept) == {"attention", "tokencut"}
    torch.testing.assert_close(kept["attention"], stretched(readings.heads.mean(dim=1)))
    assert torch.equal(kept["tokencut"], readings.object.float())
    stored = json.loads((tmp_path / "00000004.json").read_text())
    assert numbers["attention_jaccard@0.50"] == stored["attention_jaccard"]


def test_the_trace_of_a_learned_map_and_of_images_without_masks(test_set, tmp_path):
    method = SCD(plain_moco(tiny_vit())).train()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    numbers = run_trace(EmergenceTrace(test_set, 24, "cpu", tmp_path / "a", points=1, images=6, tau=0.3), method)
    expected = keys("learned", "inverted", "attention", "tokencut") | {"map_entropy", "map_area"}
    assert {name.split("@")[0] for name in numbers} == expected
    kept = load_file(tmp_path / "a" / "00000008.safetensors")
    assert {name: maps.shape for name, maps in kept.items()} == dict.fromkeys(
        ("learned", "attention", "tokencut"), (6, 6, 6)
    )
    assert method.training and all(torch.equal(before[name], value) for name, value in method.state_dict().items())
    bare = ImageSet(test_set.images)
    numbers = run_trace(EmergenceTrace(bare, 24, "cpu", tmp_path / "b", points=1, images=6), method)
    assert {name.split("@")[0] for name in numbers} == {"map_entropy", "map_area"}


@pytest.mark.parametrize(("points", "steps"), [(0, 10), (4, None)])
def test_nothing_to_look_at(test_set, tmp_path, points, steps):
    assert EmergenceTrace(test_set, 24, "cpu", tmp_path, points=points).observer(Shown(), steps) is None


def test_final_numbers_and_the_last_look_agree(shapes, test_set, tmp_path):
    method = SCD(plain_moco(tiny_vit()))
    last = run_trace(EmergenceTrace(test_set, 24, "cpu", tmp_path, points=1, images=10), method)
    final = Emergence(images=10)(method, shapes, CONFIG, "cpu")
    for key in keys("learned", "inverted", "attention", "tokencut"):
        assert last[f"{key}@1.00"] == pytest.approx(final[key], abs=1e-6)
