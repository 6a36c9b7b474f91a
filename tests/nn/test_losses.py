"""Each loss against a second formula, written out with loops and plain floats."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from scd.errors import UsageError
from scd.nn.losses import byol_regression, info_nce, triplet


def unit(rows: int, dim: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def distance(a: list[float], b: list[float], kind: str) -> float:
    if kind == "cosine":
        return 1 - dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))
    squared = math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    return squared if kind == "squared_euclidean" else math.sqrt(squared)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 6),
    dim=st.integers(1, 9),
    negatives=st.integers(1, 12),
    temperature=st.sampled_from([0.01, 0.07, 0.2, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_info_nce_is_the_cross_entropy_of_the_positive(batch, dim, negatives, temperature, seed):
    q, k, queue = unit(batch, dim, seed), unit(batch, dim, seed + 1), unit(negatives, dim, seed + 2)
    losses = []
    for query, key in zip(q.tolist(), k.tolist(), strict=True):
        logits = [dot(query, key) / temperature, *(dot(query, n) / temperature for n in queue.tolist())]
        top = max(logits)
        losses.append(top + math.log(math.fsum(math.exp(x - top) for x in logits)) - logits[0])
    assert info_nce(q, k, queue, temperature).item() == pytest.approx(sum(losses) / batch, rel=1e-3, abs=1e-4)


def test_info_nce_gradient_is_that_of_cross_entropy():
    k, queue = unit(4, 8, 1), unit(16, 8, 2)
    one, two = unit(4, 8, 0).requires_grad_(), unit(4, 8, 0).requires_grad_()
    info_nce(one, k, queue, 0.2).backward()
    logits = torch.cat([(two * k).sum(1, keepdim=True), two @ queue.T], dim=1) / 0.2
    F.cross_entropy(logits, torch.zeros(4, dtype=torch.long)).backward()
    torch.testing.assert_close(one.grad, two.grad)


def test_info_nce_of_equal_similarities_is_chance():
    same = unit(1, 8, 0).expand(4, 8)
    assert info_nce(same, same, same[:1].expand(63, 8), 0.2).item() == pytest.approx(math.log(64), rel=1e-5)


@pytest.mark.parametrize(("batch", "dim"), [(1, 1), (3, 4), (8, 16)])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_byol_regression_is_the_squared_distance_of_unit_vectors(batch, dim, scale):
    p, z = scale * unit(batch, dim, 0), 2 * unit(batch, dim, 1)
    expected = 0.0
    for a, b in zip(p.tolist(), z.tolist(), strict=True):
        length_a, length_b = math.sqrt(dot(a, a)), math.sqrt(dot(b, b))
        expected += math.fsum((x / length_a - y / length_b) ** 2 for x, y in zip(a, b, strict=True)) / batch
    assert byol_regression(p, z).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_byol_regression_has_its_ends_and_stops_the_targets_gradient():
    p, z = unit(4, 8, 0).requires_grad_(), unit(4, 8, 1).requires_grad_()
    assert byol_regression(p, p).item() == pytest.approx(0.0, abs=1e-6)
    assert byol_regression(p, -p).item() == pytest.approx(4.0)
    byol_regression(p, z).backward()
    assert p.grad is not None and z.grad is None


@pytest.mark.parametrize("kind", ["squared_euclidean", "euclidean", "cosine"])
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_triplet_is_the_mean_hinge_over_batch_and_negatives(kind, margin, count):
    anchor, positive = 1.5 * unit(6, 4, 0), unit(6, 4, 1)
    negatives = [unit(6, 4, 2 + i) for i in range(count)]
    terms = [
        max(0.0, margin + distance(a, p, kind) - distance(a, n, kind))
        for negative in negatives
        for a, p, n in zip(anchor.tolist(), positive.tolist(), negative.tolist(), strict=True)
    ]
    assert triplet(anchor, positive, negatives, margin, kind).item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_triplet_is_zero_beyond_the_margin_and_the_margin_when_all_are_equal():
    a = unit(5, 4, 0)
    assert triplet(a, a, [-a], 0.5).item() == 0.0
    assert triplet(a, a, [a, a], 0.5).item() == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["squared_euclidean", "euclidean", "cosine"])
def test_triplet_gradient_is_finite_where_anchor_and_negative_coincide(kind):
    a = unit(5, 4, 0).requires_grad_()
    triplet(a, unit(5, 4, 1), [a], 0.5, kind).backward()
    assert torch.isfinite(a.grad).all()


def test_the_halves_of_the_triplet_by_hand():
    """Consistency is the mean distance to the positive, discrimination the mean hinge on the negatives alone."""
    anchor, positive, negatives = unit(6, 4, 0), unit(6, 4, 1), [unit(6, 4, 2), unit(6, 4, 3)]
    pull = sum(float((a - p).norm()) for a, p in zip(anchor, positive, strict=True)) / 6
    push = [max(0.0, 1.2 - float((a - n).norm())) for other in negatives for a, n in zip(anchor, other, strict=True)]
    arguments = (anchor, positive, negatives, 1.2, "euclidean")
    assert triplet(*arguments, terms="consistency").item() == pytest.approx(pull, rel=1e-4)
    assert triplet(*arguments, terms="discrimination").item() == pytest.approx(sum(push) / 12, rel=1e-4)
    with pytest.raises(UsageError, match="unknown terms 'bot'; did you mean 'both'"):
        triplet(*arguments, terms="bot")


def test_triplet_refuses_an_unknown_distance():
    a = unit(2, 4, 0)
    with pytest.raises(UsageError, match="unknown distance 'cosin'; did you mean 'cosine'\\?"):
        triplet(a, a, [a], 0.5, "cosin")


def test_losses_are_float32_under_autocast():
    q, k, queue = (unit(4, 8, i).to(torch.bfloat16) for i in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = [info_nce(q, k, queue, 0.2), byol_regression(q, k), triplet(q, k, [queue], 0.5)]
    assert all(loss.dtype == torch.float32 for loss in losses)
    exact = info_nce(q.float(), k.float(), queue.float(), 0.2)
    assert torch.equal(losses[0], exact)
