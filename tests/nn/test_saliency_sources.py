"""Map sources and the statistics that show a map's collapse."""

import math

import pytest
import torch

from scd.maps.source import ConstantMap, SaliencyMLP, map_statistics


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_mlp_map_is_the_same_function_of_every_position(depth):
    torch.manual_seed(0)
    source = SaliencyMLP(6, depth=depth, hidden=5)
    maps = torch.randn(2, 6, 3, 4)
    saliency = source(maps, None)
    assert saliency.shape == (2, 3, 4)
    linears = [layer for layer in source.mlp.layers if isinstance(layer, torch.nn.Linear)]
    assert len(linears) == depth
    for b, y, x in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
        vector = maps[b, :, y, x]
        for i, layer in enumerate(linears):
            vector = layer.weight @ vector + layer.bias
            vector = vector.clamp_min(0) if i < depth - 1 else vector
        assert saliency[b, y, x].item() == pytest.approx(1 / (1 + math.exp(-vector.item())), rel=1e-5)


def test_mlp_passes_the_gradient_on_and_reads_channels_last():
    source = SaliencyMLP(6)
    maps = torch.randn(2, 6, 3, 4, requires_grad=True)
    source(maps).sum().backward()
    assert maps.grad.abs().sum() > 0
    torch.testing.assert_close(source(maps.contiguous(memory_format=torch.channels_last)), source(maps))


def test_mlp_needs_a_layer():
    with pytest.raises(ValueError, match="at least one layer, not depth=0"):
        SaliencyMLP(6, depth=0)


def test_constant_map_is_constant_and_learns_nothing():
    source = ConstantMap(value=0.25)
    saliency = source(torch.randn(2, 6, 3, 4))
    assert saliency.shape == (2, 3, 4) and (saliency == 0.25).all()
    assert not list(source.parameters())
    with pytest.raises(ValueError, match="strictly between 0 and 1, not at 1.0"):
        ConstantMap(value=1.0)


def test_map_statistics_of_known_maps():
    half = map_statistics(torch.full((2, 3, 3), 0.5))
    assert {key: value.item() for key, value in half.items()} == pytest.approx(
        {"map_mean": 0.5, "map_saturation": 0.0, "map_entropy": 1.0}
    )
    hard = map_statistics(torch.tensor([[[0.0, 1.0], [1.0, 1.0]]]))
    assert hard["map_mean"].item() == 0.75 and hard["map_saturation"].item() == 1.0
    assert hard["map_entropy"].item() == pytest.approx(0.0, abs=1e-4)
    quarter = map_statistics(torch.tensor([0.25, 0.04, 0.96, 0.06]))
    assert quarter["map_saturation"].item() == 0.5
    expected = sum(-p * math.log2(p) - (1 - p) * math.log2(1 - p) for p in (0.25, 0.04, 0.96, 0.06)) / 4
    assert quarter["map_entropy"].item() == pytest.approx(expected, rel=1e-5)
