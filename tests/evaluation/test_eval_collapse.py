"""Collapse indicators at their ends: a collapsed set, a healthy one, and maps whose numbers are known."""

import math

import pytest
import torch

from scd.evaluation.collapse import effective_rank, feature_std, map_indicators


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
    expected = {"map_entropy": 0, "map_saturation": 1, "map_area": 0.5, "map_std": 0.5}
    assert map_indicators(halves) == pytest.approx(expected)
    empty = {"map_entropy": 0, "map_saturation": 1, "map_area": 0, "map_std": 0}
    assert map_indicators(torch.zeros(2, 4, 4)) == pytest.approx(empty)


def test_contrast_is_measured_inside_images():
    """Maps that differ between images only separate nothing inside any of them."""
    maps = torch.tensor([0.2, 0.8])[:, None, None].expand(2, 4, 4)
    found = map_indicators(maps)
    assert found["map_std"] == pytest.approx(0)
    assert found["map_entropy"] == pytest.approx(-0.2 * math.log2(0.2) - 0.8 * math.log2(0.8))
