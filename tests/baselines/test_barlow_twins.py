"""Barlow Twins against Pearson correlations; both branches, groups, two processes."""

import multiprocessing
import os

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from baselines.barlow_twins import BarlowTwins, CrossCorrelation, cross_correlation
from scd.method import Batch, whole_view
from scd.nn.backbone import build_backbone


def barlow_twins(**options) -> BarlowTwins:
    torch.manual_seed(0)
    return BarlowTwins(build_backbone("resnet_tiny", widths=(4, 6, 8)), **{"width": 10, **options}).train()


def batch(rows: int = 8) -> Batch:
    draw = torch.Generator().manual_seed(0)
    return Batch({name: whole_view(torch.randn(rows, 3, 16, 16, generator=draw), name) for name in ("v1", "v2")})


def embeddings(rows: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two sets (B, 5) of correlated embeddings with different means and scales."""
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, 5, generator=draw)
    return base * 2 + 1, base + torch.randn(rows, 5, generator=draw) - 3


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlations between the columns of ``a`` and those of ``b``."""
    return torch.corrcoef(torch.cat([a, b], dim=1).T)[: a.shape[1], a.shape[1] :]


def distance_from_identity(correlation: Tensor, weight: float) -> Tensor:
    """The loss of a correlation matrix."""
    eye = torch.eye(len(correlation))
    return ((correlation - eye).square() * (eye + weight * (1 - eye))).sum()


def test_the_matrix_holds_pearson_correlations():
    a, b = embeddings()
    torch.testing.assert_close(cross_correlation(a, b), pearson(a, b), rtol=1e-4, atol=1e-4)  # 1e-5 beside variances


@pytest.mark.parametrize("weight", [0.0051, 0.5])
def test_the_loss_is_the_weighted_squared_distance_from_the_identity(weight):
    a, b = embeddings()
    expected = distance_from_identity(pearson(a, b), weight)
    torch.testing.assert_close(CrossCorrelation(weight)(a, b), expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_flows_through_both_views_and_their_order_does_not_matter():
    a, b = (z.requires_grad_() for z in embeddings())
    loss = CrossCorrelation(0.1)
    loss(a, b).backward()
    assert a.grad.abs().sum() > 0 and b.grad.abs().sum() > 0
    torch.testing.assert_close(loss(b, a), loss(a, b))


def test_shift_and_scale_of_a_dimension_do_not_matter():
    a, b = embeddings()
    loss = CrossCorrelation(0.1)
    changed = a * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]) + torch.arange(5)
    torch.testing.assert_close(loss(changed, b), loss(a, b), rtol=1e-4, atol=1e-4)


def test_equal_embeddings_with_uncorrelated_dimensions_reach_0_and_a_mirrored_one_costs_4():
    columns = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    loss = CrossCorrelation(0.0051)
    assert loss(columns, columns).item() == pytest.approx(0, abs=1e-6)
    assert loss(columns, columns * torch.tensor([1.0, 1.0, -1.0])).item() == pytest.approx(4, rel=1e-3)


def test_the_loss_is_computed_in_float32_under_autocast():
    a, b = embeddings()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = CrossCorrelation(0.1)(a, b)
    assert inside.dtype == torch.float32 and torch.equal(inside, CrossCorrelation(0.1)(a, b))


def test_the_two_views_are_compared_once():
    method, data = barlow_twins(), batch()
    assert method.pairs(data.views) == [("v1", "v2")]
    z1, z2 = (method.projector(method.backbone(view.images).mean(dim=(2, 3))) for view in data.views.values())
    torch.testing.assert_close(method(data)["loss"], CrossCorrelation(0.0051)(z1, z2))


def test_the_projector_is_the_official_one():
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    layers = barlow_twins().projector.layers
    assert [type(layer) for layer in layers] == [*hidden, *hidden, nn.Linear]
    assert not any(layer.bias is not None for layer in layers if isinstance(layer, nn.Linear))
    assert barlow_twins(width=None).projector.dim == 32  # 4 C


def test_biases_and_norms_have_a_learning_rate_of_their_own():
    method = barlow_twins(bias_lr=0.25)
    weights, vectors = method.parameter_groups()
    assert (weights.lr_multiplier, vectors.lr_multiplier) == (1.0, 0.25)
    assert all(p.ndim > 1 for p in weights.parameters) and all(p.ndim == 1 for p in vectors.parameters)
    assert len(weights.parameters) + len(vectors.parameters) == len(list(method.parameters()))


def test_a_second_matcher_has_the_same_weight():
    assert barlow_twins(off_diagonal=0.3).new_matcher().off_diagonal == 0.3


def loss_as_one_of_two(rank: int, store: str, results: multiprocessing.Queue) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    factor = torch.ones(5, requires_grad=True)  # a parameter that both processes share
    a, b = embeddings(seed=rank)
    loss = CrossCorrelation(0.1)(a + factor * a.square(), b)
    loss.backward()
    results.put((loss.item(), factor.grad.tolist()))
    dist.destroy_process_group()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="two processes without a second import of torch need fork")
def test_two_processes_share_one_matrix_and_their_mean_gradient_is_that_of_the_shared_loss(tmp_path):
    factor = torch.ones(5, requires_grad=True)
    both = [embeddings(seed=rank) for rank in range(2)]
    mean = sum(cross_correlation(a + factor * a.square(), b) for a, b in both) / 2
    expected = distance_from_identity(mean, 0.1)
    expected.backward()

    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = [(rank, str(tmp_path / "store"), results) for rank in range(2)]
    processes = [context.Process(target=loss_as_one_of_two, args=args, daemon=True) for args in arguments]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert [loss for loss, _ in found] == pytest.approx([expected.item()] * 2, rel=1e-5)
    gradient = torch.tensor([grad for _, grad in found]).mean(dim=0)  # as DDP averages it
    torch.testing.assert_close(gradient, factor.grad, rtol=1e-4, atol=1e-5)
