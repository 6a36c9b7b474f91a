"""Predicted foregrounds against masks: each rule by hand or by a second way."""

import numpy as np
import pytest
import torch
from torch import nn

from scd.data.masks import UNKNOWN
from scd.evaluation.localization import METRICS, Prediction, extents, located, mass_set, scores, true_boxes


def squares(n=6, size=24):
    """Masks with one rectangle each, of different places and sizes, on a grid of 4 pixels."""
    masks = torch.zeros(n, size, size, dtype=torch.uint8)
    for i in range(n):
        masks[i, 4 * (i % 3) : 4 * (i % 3) + 8, 4 : 8 + 4 * (i // 2)] = 1
    return masks


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


def test_unknown_pixels_count_for_nothing():
    """F6. The scores with an unknown border around the object are those where the prediction agrees there."""
    masks = squares()
    bordered = masks.clone()
    bordered[:, :, 3] = UNKNOWN
    soft = torch.rand(6, 24, 24, generator=torch.Generator().manual_seed(0))
    hard = soft > 0.5
    known = bordered != UNKNOWN
    found = scores({"x": Prediction(soft, hard)}, bordered)
    both, either = ((hard & (masks > 0) & known), ((hard | (masks > 0)) & known))
    jaccard = (both.flatten(1).sum(1) / either.flatten(1).sum(1)).mean()
    assert found["x_jaccard"] == pytest.approx(float(jaccard), abs=1e-6)
    whole = scores({"x": Prediction(soft[:, :, 4:], hard[:, :, 4:])}, masks[:, :, 4:])
    narrow = scores({"x": Prediction(soft[:, :, 3:], hard[:, :, 3:])}, bordered[:, :, 3:])
    assert narrow["x_maxf"] == pytest.approx(whole["x_maxf"], abs=1e-12)
    assert [boxes.tolist() for boxes in true_boxes(bordered)] == [boxes.tolist() for boxes in true_boxes(masks)]


def test_corloc_takes_the_component_of_the_maximum_and_any_object_will_do():
    mask = torch.zeros(1, 8, 8)
    mask[0, :2, :4], mask[0, 5:, 5:] = 1, 1
    hard = torch.zeros(1, 8, 8, dtype=torch.bool)
    hard[0, :2, :2] = True  # half of the first object: IoU 0.5, which counts
    hard[0, 4, 0] = True
    soft = torch.zeros(1, 8, 8)
    soft[0, 1, 1] = 1.0
    assert located(Prediction(soft, hard), true_boxes(mask)) == [True]
    single, outside = torch.roll(soft, (3, -1), (1, 2)), torch.roll(soft, 5, 2)
    assert located(Prediction(single, hard), true_boxes(mask)) == [False]  # the single position is too small
    assert located(Prediction(outside, hard), true_boxes(mask)) == [False]  # the maximum is not predicted
    hard[0, 1, 1] = False
    hard[0, :2, 1] = False
    assert located(Prediction(torch.roll(soft, -1, 2), hard), true_boxes(mask)) == [False]  # a quarter


def test_images_without_an_object_do_not_count_for_corloc():
    masks = squares(2)
    masks[1] = 0
    everything = {"all": Prediction(torch.ones(2, 6, 6), torch.ones(2, 6, 6, dtype=torch.bool))}
    masks[0] = 1
    assert scores(everything, masks)["all_corloc"] == 1.0
    masks[0] = 0
    assert set(scores(everything, masks)) == {"all_jaccard", "all_maxf"}


def test_a_perfect_map_on_a_coarser_grid_is_still_perfect_where_the_grid_allows_it():
    masks = squares()
    coarse = nn.functional.avg_pool2d(masks[:, None].float(), 4)[:, 0]
    numbers = scores({"perfect": Prediction(coarse, coarse > 0.5)}, masks)
    assert numbers["perfect_jaccard"] == 1.0 and numbers["perfect_corloc"] == 1.0
    assert numbers["perfect_maxf"] == 1.0  # resized: corners are 0.39 inside, edges 0.375 outside


def test_every_number_has_a_definition():
    masks = squares()
    found = scores({"any": Prediction(masks.float(), masks > 0)}, masks)
    assert set(found) == {f"any_{name}" for name in METRICS} and set(found.values()) == {1.0}
