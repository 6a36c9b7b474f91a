"""The learned map against its formula."""

import math

import pytest
import torch

from scd.errors import UsageError
from scd.maps.learned import SaliencyMLP


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
    source(maps, None).sum().backward()
    assert maps.grad.abs().sum() > 0
    torch.testing.assert_close(source(maps.contiguous(memory_format=torch.channels_last), None), source(maps, None))


def test_mlp_needs_a_layer():
    with pytest.raises(UsageError, match="at least one layer, not depth=0"):
        SaliencyMLP(6, depth=0)
