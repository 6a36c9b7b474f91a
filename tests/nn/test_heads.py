"""MLP heads: layer order, biases, tokens."""

import copy

import pytest
import torch
from torch import nn

from scd.errors import UsageError
from scd.nn.heads import MLP


def kinds(mlp: MLP) -> list[str]:
    return [type(layer).__name__ for layer in mlp.layers]


def test_layers_come_in_the_papers_order():
    moco, byol = MLP((8, 6, 4)), MLP((8, 6, 4), norm="batch", last_bias=False)
    assert kinds(moco) == ["Linear", "ReLU", "Linear"]
    assert kinds(byol) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert byol.layers[0].bias is not None and byol.layers[3].bias is None
    assert kinds(MLP((8, 4))) == ["Linear"]
    assert kinds(MLP((8, 6, 5, 4), activation="gelu", norm="layer", last_norm="batch")) == (
        ["Linear", "LayerNorm", "GELU"] * 2 + ["Linear", "BatchNorm1d"]
    )
    assert MLP((8, 6, 4), bias=False).layers[0].bias is None


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_tokens_are_rows(norm):
    mlp = MLP((8, 6, 4), norm=norm).train()
    tokens = torch.randn(5, 3, 8)
    expected = torch.stack([mlp(tokens.reshape(15, 8))[i] for i in range(15)]).reshape(5, 3, 4)
    out = mlp(tokens)
    assert out.shape == (5, 3, 4)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(mlp(tokens.reshape(5, 3, 1, 8)), expected.reshape(5, 3, 1, 4))


def test_batch_norm_of_tokens_counts_all_rows():
    mlp = MLP((4, 3, 2), norm="batch").train()
    seen = []
    mlp.layers[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    mlp(torch.randn(6, 5, 4))
    assert seen[0].shape == (30, 3)
    torch.testing.assert_close(seen[0].mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)


def test_batch_norm_takes_its_statistics_from_the_counted_rows():
    mlp = MLP((4, 6, 5, 3), norm="batch", last_norm="batch").train()
    alone = copy.deepcopy(mlp)
    tokens, counted = torch.randn(6, 5, 4), torch.rand(6, 5) > 0.4
    out = mlp(tokens, counted)
    torch.testing.assert_close(out[counted], alone(tokens[counted]))
    assert out.shape == (6, 5, 3) and torch.isfinite(out).all()


def test_dim_is_the_output_width():
    assert MLP((8, 6, 4)).dim == 4
    assert isinstance(MLP((8, 4)).layers[0], nn.Linear)


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="unknown norm 'bach'; did you mean 'batch'\\? valid: batch, layer, none"):
        MLP((8, 6, 4), norm="bach")
    with pytest.raises(UsageError, match="unknown activation 'rel'; did you mean 'relu'\\?"):
        MLP((8, 6, 4), activation="rel")
    with pytest.raises(ValueError, match=r"needs an input and an output width, not dims=\(8,\)"):
        MLP((8,))
