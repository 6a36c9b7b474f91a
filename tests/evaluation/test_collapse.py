"""Collapse indicators at their ends: a collapsed set, a healthy one, and maps whose numbers are known."""

import math

import numpy as np
import pytest
import torch
from tiny_evaluation import ChannelMethod, context_of, object_source

from scd.evaluation.collapse import (
    FEATURE_METRICS,
    MAP_METRICS,
    Collapse,
    effective_rank,
    feature_std,
    map_indicators,
    place_share,
)


def gaussian(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def test_healthy_features():
    x = gaussian(4000, 32)
    assert feature_std(x) == pytest.approx(1, abs=0.02)
    assert effective_rank(x) == pytest.approx(32, abs=0.2)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_collapsed_features(noise):
    x = gaussian(1, 32) + noise * gaussian(500, 32, seed=1)
    assert feature_std(x) < 1e-5
    assert effective_rank(x) == pytest.approx(1, abs=1e-3)


def test_zero_features_are_collapsed_too():
    assert feature_std(torch.zeros(10, 4)) == 0
    assert effective_rank(torch.zeros(10, 4)) == 1


def test_dimensional_collapse_shows_in_the_rank():
    x = gaussian(500, 3) @ gaussian(3, 32, seed=1)
    assert 2 < effective_rank(x) <= 3 + 1e-6
    assert feature_std(x) > 0.5


def test_effective_rank_by_hand():
    singular = [4.0, 2.0, 2.0]
    x = torch.zeros(5, 3)
    x[:3] = torch.diag(torch.tensor(singular))
    p = [s / 8 for s in singular]
    assert effective_rank(x) == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)))
    assert effective_rank(100 * x.T) == pytest.approx(effective_rank(x))


def test_undecided_map():
    found = map_indicators(torch.full((3, 4, 4), 0.5))
    assert found == pytest.approx({"map_entropy": 1, "map_saturation": 0, "map_area": 0.5, "map_std": 0})


def test_maps_of_zeros_and_ones():
    halves = torch.zeros(2, 4, 4)
    halves[:, :, 2:] = 1
    expected = {"map_entropy": 0, "map_saturation": 1, "map_area": 0.5, "map_std": 0.5, "map_place_share": 1}
    assert map_indicators(halves) == pytest.approx(expected)
    empty = {"map_entropy": 0, "map_saturation": 1, "map_area": 0, "map_std": 0}
    assert map_indicators(torch.zeros(2, 4, 4)) == pytest.approx(empty)


def test_contrast_is_measured_inside_images():
    """Maps that differ between images only separate nothing inside any of them."""
    maps = torch.tensor([0.2, 0.8])[:, None, None].expand(2, 4, 4)
    found = map_indicators(maps)
    assert found["map_std"] == pytest.approx(0)
    assert found["map_entropy"] == pytest.approx(-0.2 * math.log2(0.2) - 0.8 * math.log2(0.8))


# ---------------------------------------------------------------- maps and positions


def test_one_map_for_all_images_is_explained_by_position():
    one = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    assert place_share(one.expand(5, 4, 4)) == pytest.approx(1)


def test_maps_of_noise_are_not_explained_by_position():
    noise = torch.rand(400, 6, 6, generator=torch.Generator().manual_seed(0))
    assert place_share(noise) == pytest.approx(0, abs=0.02)


def test_the_share_is_the_adjusted_r_squared_by_hand():
    maps = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    x = maps.numpy().reshape(3, 4)
    within = ((x - x.mean(axis=0)) ** 2).sum() / (12 - 4)
    total = ((x - x.mean()) ** 2).sum() / (12 - 1)
    assert place_share(maps) == pytest.approx(1 - within / total)
    assert place_share(maps) == pytest.approx(float(1 - np.var(x, axis=0, ddof=1).mean() / np.var(x, ddof=1)))


def test_a_single_image_and_constant_maps_have_no_share():
    assert place_share(torch.rand(1, 4, 4)) is None and place_share(torch.full((5, 4, 4), 0.3)) is None
    assert "map_place_share" not in map_indicators(torch.rand(1, 4, 4))


# ---------------------------------------------------------------- protocol


def test_numbers_of_features_and_of_maps_where_there_are_any():
    bare = object_source(leave_out=("label", "mask", "background"))
    found = Collapse()(context_of(ChannelMethod(0, 1, 2), bare, 16))
    assert set(found) == {*FEATURE_METRICS, *MAP_METRICS, "n_test"} and found["n_test"] == 80
    assert found["map_area"] == pytest.approx(0.25) and found["map_place_share"] == pytest.approx(1)
    without = Collapse()(context_of(ChannelMethod(0, 1, 2, maps=False), bare, 16))
    assert without == {name: found[name] for name in (*FEATURE_METRICS, "n_test")}
