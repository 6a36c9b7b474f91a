"""Saliency scores against a slow loop over images, thresholds and pixels, and by hand at the corner cases."""

import pytest
import torch
import torch.nn.functional as F
from golden_numbers import golden
from numpy import float32
from tiny_evaluation import ChannelMethod, With, context_of, object_source

from scd.data.masks import UNKNOWN
from scd.evaluation.saliency import (
    METRICS,
    THRESHOLDS,
    Saliency,
    f_curve,
    iou,
    max_f,
    saliency_scores,
    threshold_counts,
)
from scd.maps.controls import CentrePrior, OracleMask


def slow_iou(m, truth):
    both = either = 0
    for value, inside in zip(m, truth, strict=True):
        predicted = value >= 0.5
        both += predicted and inside
        either += predicted or inside
    return both / either if either else 1.0


def slow_f(m, truth, i):
    hits = predicted = size = 0
    for value, inside in zip(m, truth, strict=True):
        marked = value > float32(i / 255)
        hits += marked and inside
        predicted += marked
        size += inside
    precision = hits / predicted if predicted else 1.0
    recall = hits / size if size else 1.0
    return 1.3 * precision * recall / (0.3 * precision + recall) if precision + recall else 0.0


def slow_scores(maps, masks):
    """The definitions, read line by line; maps and masks have the same size."""
    images = [(m.flatten().tolist(), t.flatten().tolist()) for m, t in zip(maps, masks > 0, strict=True)]
    curve = [sum(slow_f(m, t, i) for m, t in images) / len(images) for i in range(255)]
    return [slow_iou(m, t) for m, t in images], max(curve)


def example(n=6, size=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masks = (torch.rand(n, size, size, generator=generator) > 0.6).to(torch.uint8)
    maps = (0.5 * masks + 0.7 * torch.rand(n, size, size, generator=generator)).clamp(0, 1)
    maps[0] = (maps[0] * 255).round() / 255  # on the thresholds themselves
    masks[1] = 0
    maps[2] = 0
    maps[3] = 1
    return maps, masks


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_a_slow_loop_in_both_polarities(seed):
    maps, masks = example(seed=seed)
    found = saliency_scores(maps, masks)
    ious, max_f = slow_scores(maps, masks)
    inverted_ious, inverted_max_f = slow_scores(1 - maps, masks)
    assert found["saliency_iou"] == pytest.approx(sum(ious) / len(ious), abs=1e-12)
    assert found["saliency_maxf"] == pytest.approx(max_f, abs=1e-12)
    assert found["saliency_iou_inverted"] == pytest.approx(sum(inverted_ious) / len(ious), abs=1e-12)
    assert found["saliency_maxf_inverted"] == pytest.approx(inverted_max_f, abs=1e-12)
    better = sum(b > a for a, b in zip(ious, inverted_ious, strict=True))
    assert found["saliency_inverted_share"] == pytest.approx(better / len(ious))


def test_max_f_of_the_official_code():
    """Its float32 numbers, of maps on the thresholds, a binary map, maps with zeros and an empty mask.

    The file's metadata name the official commit. Its rule for a binary map differs most from map >= t.
    """
    numbers = golden("saliency")
    maps, masks = numbers["maps"].float(), numbers["masks"].to(torch.uint8)
    assert saliency_scores(maps, masks)["saliency_maxf"] == pytest.approx(numbers["maxf"].item(), abs=1e-6)
    binary = saliency_scores(maps[1:2], masks[1:2])["saliency_maxf"]
    assert binary == pytest.approx(numbers["maxf_binary"].item(), abs=1e-6)


def test_maps_of_a_lower_resolution_are_resized_bilinearly():
    masks = example()[1]
    coarse = torch.rand(6, 4, 4, generator=torch.Generator().manual_seed(2))
    resized = F.interpolate(coarse[:, None], (9, 9), mode="bilinear", align_corners=False)[:, 0]
    of_the_resolution = {"saliency_iou_possible", "saliency_iou_trivial"}
    by_scores, by_resized = (saliency_scores(maps, masks) for maps in (coarse, resized))
    for name in by_scores.keys() - of_the_resolution:
        assert by_scores[name] == by_resized[name], name


def test_the_true_mask_is_perfect_and_its_inverse_is_worst():
    masks = (torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).to(torch.uint8)
    found = saliency_scores(masks.float(), masks)
    assert (found["saliency_iou"], found["saliency_maxf"], found["saliency_inverted_share"]) == (1, 1, 0)
    swapped = saliency_scores(1 - masks.float(), masks)
    assert (swapped["saliency_iou"], swapped["saliency_iou_inverted"], swapped["saliency_inverted_share"]) == (0, 1, 1)
    assert swapped["saliency_maxf"] == 0  # no threshold marks the whole image of a binary map


def test_the_whole_image_by_hand():
    masks = torch.zeros(1, 4, 4, dtype=torch.uint8)
    masks[0, :2, :2] = 255
    found = saliency_scores(torch.rand(1, 4, 4), masks)
    assert found["saliency_iou_whole"] == pytest.approx(0.25)
    assert found["saliency_maxf_whole"] == pytest.approx(1.3 * 0.25 / (0.3 * 0.25 + 1))


def test_empty_mask_and_empty_prediction():
    empty, some = torch.zeros(1, 4, 4, dtype=torch.bool), torch.ones(1, 4, 4, dtype=torch.bool)
    nothing = torch.zeros(1, 4, 4)
    assert iou(nothing >= 0.5, empty).tolist() == [1.0]
    assert f_curve(nothing, empty)[0].tolist() == [1.0] * 255  # P := R := 1
    assert iou(nothing >= 0.5, some).tolist() == [0.0]
    assert f_curve(nothing, some)[0].tolist() == [0.0] * 255  # P := 1 but R = 0
    assert iou(some, empty).tolist() == [0.0]
    assert f_curve(some.float(), empty)[0].tolist() == [0.0] * 255


def test_unknown_pixels_count_for_nothing():
    """F6: void and trimap borders counted as the object. The scores are those of the images without their border."""
    maps, masks = example(n=4, size=8)
    bordered = torch.full((4, 10, 10), UNKNOWN, dtype=torch.uint8)
    bordered[:, 1:9, 1:9] = masks
    padded = F.pad(maps, (1, 1, 1, 1), value=0.9)
    assert saliency_scores(padded, bordered) == pytest.approx(saliency_scores(maps, masks), abs=1e-12)
    nothing_known = saliency_scores(maps, torch.full((4, 8, 8), UNKNOWN, dtype=torch.uint8))
    assert nothing_known["saliency_iou"] == 1 and nothing_known["saliency_iou_whole"] == 0


def test_the_curve_is_averaged_before_the_maximum():
    """Two images whose best thresholds differ: the mean of their maxima is above the maximum of their mean."""
    truth = torch.tensor([[[1, 0, 0, 0]], [[1, 1, 0, 0]]], dtype=torch.bool)
    maps = torch.tensor([[[0.9, 0.8, 0.8, 0.8]], [[0.3, 0.3, 0.1, 0.1]]])
    curves = f_curve(maps, truth)
    assert curves.max(dim=1).values.tolist() == [1.0, 1.0]
    assert max_f(curves) < 0.9
    assert saliency_scores(maps, truth)["saliency_maxf"] == max_f(curves)


def test_counts_at_exact_thresholds():
    hits, area = threshold_counts(THRESHOLDS.view(1, 1, 255), torch.ones(1, 1, 255, dtype=torch.bool))
    assert area[0].tolist() == [254 - i for i in range(255)]  # those strictly above
    assert torch.equal(hits, area)


def test_chunks_do_not_change_the_scores(monkeypatch):
    maps, masks = example(n=7)
    expected = saliency_scores(maps, masks)
    monkeypatch.setattr("scd.evaluation.saliency.CHUNK_PIXELS", 200)
    assert saliency_scores(maps, masks) == pytest.approx(expected, abs=1e-12)


# ---------------------------------------------------------------- protocol


def test_a_map_that_is_the_mask_is_perfect():
    numbers = Saliency()(context_of(ChannelMethod(0), object_source(), 16))
    assert set(numbers) == {*METRICS, "n_test"} and numbers["n_test"] == 80
    assert numbers["saliency_iou"] == 1 and numbers["saliency_inverted_share"] == 0
    assert numbers["saliency_iou_whole"] == 0.25


def test_a_source_sees_the_geometry_of_the_view():
    centre = CentrePrior(sigma=0.25)
    method = With(torch.nn.AvgPool2d(2), lambda view: centre(view.images, view))
    assert Saliency()(context_of(method, object_source(), 16))["saliency_iou"] > 0.7  # the object is in the middle


def test_no_masks_no_map_and_a_map_that_is_the_mask_itself_give_no_numbers():
    assert Saliency()(context_of(ChannelMethod(0), object_source(leave_out=("mask",)), 16)) == {}
    assert Saliency()(context_of(ChannelMethod(0, maps=False), object_source(), 16)) == {}
    oracle = OracleMask()
    method = With(torch.nn.AvgPool2d(2), lambda view: oracle.eval()(view.images, view))
    assert Saliency()(context_of(method, object_source(), 16)) == {}


def test_the_best_trivial_map_is_found_among_whole_inner_and_discs():
    size = 12
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    far = ((rows + 0.5) / size - 0.5).square() + ((columns + 0.5) / size - 0.5).square()
    disc = (far <= 0.3**2).to(torch.uint8)
    flat = torch.full((1, 4, 4), 0.5)
    assert saliency_scores(flat, disc[None])["saliency_iou_trivial"] == 1
    resized_inside = F.interpolate(F.pad(torch.ones(1, 1, 2, 2), (1, 1, 1, 1)), (size, size), mode="bilinear")[0, 0]
    inner = (resized_inside >= 0.5).to(torch.uint8)
    assert saliency_scores(flat, inner[None])["saliency_iou_trivial"] == 1
    whole = torch.ones(1, size, size, dtype=torch.uint8)
    assert saliency_scores(flat, whole)["saliency_iou_trivial"] == 1
    corner = torch.zeros(1, size, size, dtype=torch.uint8)
    corner[:, :3, :3] = 1
    assert saliency_scores(flat, corner)["saliency_iou_trivial"] == pytest.approx(9 / 144)  # the whole image


def test_one_trivial_map_serves_all_images():
    size = 12
    corners = torch.zeros(2, size, size, dtype=torch.uint8)
    corners[0, :6], corners[1, 6:] = 1, 1  # upper and lower half: the best map for both is the whole image
    scores = saliency_scores(torch.rand(2, 4, 4), corners)
    assert scores["saliency_iou_trivial"] == pytest.approx(0.5)


def test_the_best_possible_map_is_the_mask_at_the_resolution_of_the_map():
    masks = torch.zeros(1, 8, 8, dtype=torch.uint8)
    masks[0, :4, :4] = 1
    assert saliency_scores(torch.rand(1, 8, 8), masks)["saliency_iou_possible"] == 1
    pooled = F.avg_pool2d(masks[:, None].float(), 4)  # a map of 2 x 2
    blurred = F.interpolate(pooled, (8, 8), mode="bilinear", align_corners=False)[:, 0] >= 0.5
    expected = float(iou(blurred, masks.bool()))
    coarse = saliency_scores(torch.rand(1, 2, 2), masks)["saliency_iou_possible"]
    assert coarse == pytest.approx(expected) and coarse < 1


def test_unknown_pixels_count_for_nothing_in_the_references():
    masks = torch.full((1, 8, 8), UNKNOWN, dtype=torch.uint8)
    masks[0, :4] = 1
    masks[0, 4:6] = 0
    scores = saliency_scores(torch.rand(1, 8, 8), masks)
    assert scores["saliency_iou_possible"] == 1
    assert scores["saliency_iou_trivial"] >= 4 / 6 - 1e-9  # of the whole image, over the known pixels
