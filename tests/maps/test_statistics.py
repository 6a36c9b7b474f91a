"""Statistics of maps, on maps for which they are known."""

import math

import pytest
import torch

from scd.maps.statistics import map_statistics


def numbers(*maps: torch.Tensor) -> dict[str, float]:
    return {name: value.item() for name, value in map_statistics(*maps).items()}


def test_a_flat_map():
    expected = {"map_area": 0.5, "map_std": 0.0, "map_saturation": 0.0, "map_entropy": 1.0}
    assert numbers(torch.full((2, 3, 3), 0.5)) == pytest.approx(expected)


def test_a_hard_map():
    expected = {"map_area": 0.75, "map_std": math.sqrt(3) / 4, "map_saturation": 1.0, "map_entropy": 0.0}
    assert numbers(torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])) == pytest.approx(expected)


def test_values_close_to_the_ends_are_saturated():
    values = [0.25, 0.04, 0.96, 0.06]
    found = numbers(torch.tensor(values).view(1, 2, 2))
    entropy = sum(-p * math.log2(p) - (1 - p) * math.log2(1 - p) for p in values) / 4
    assert found["map_saturation"] == 0.5
    assert found["map_entropy"] == pytest.approx(entropy, rel=1e-6)


def test_the_standard_deviation_is_that_inside_an_image():
    different = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])  # flat maps of different height
    assert numbers(different)["map_std"] == 0.0


def test_views_of_different_sizes_have_the_same_weight():
    one, two = torch.rand(2, 3, 3), torch.rand(2, 5, 5)
    together, alone = numbers(one, two), (numbers(one), numbers(two))
    for name, value in together.items():
        assert value == pytest.approx((alone[0][name] + alone[1][name]) / 2)


def test_several_maps_of_each_image_and_no_gradient():
    maps = torch.rand(2, 4, 3, 3, requires_grad=True)
    found = map_statistics(maps)
    assert not any(value.requires_grad for value in found.values())
    assert numbers(maps) == pytest.approx(numbers(maps.detach().flatten(0, 1)))


def test_shapes_on_meta():
    assert all(
        value.is_meta and value.shape == () for value in map_statistics(torch.empty(2, 3, 3, device="meta")).values()
    )
