"""Regressions against scikit-learn and against their own gradient by autograd."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from scd.errors import DataError, UsageError
from scd.evaluation.labels import held_out_part
from scd.evaluation.logistic import (
    L2_GRID,
    OneClass,
    Shares,
    choose_and_fit,
    fit_path,
    solve,
    standardisation,
    standardise,
)


def problem(n=120, d=5, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    x[:, 1] += 3 * x[:, 0]  # correlated
    x = (x - x.mean(0)) / x.std(0, correction=0)
    shares = (x @ torch.randn(d, classes, generator=generator, dtype=torch.float64)).softmax(dim=1)
    return x, shares


def written_out(x, t, weight, bias, l2, link):
    s = x @ weight + bias
    if link == "softmax":
        loss = -(t * F.log_softmax(s, dim=1)).sum(dim=1).mean()
    else:
        loss = F.binary_cross_entropy_with_logits(s, t, reduction="none").sum(dim=1).mean()
    return loss + l2 / 2 * (weight**2).sum()


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("l2", [1.0, 1e-3])
def test_autograd_of_the_loss_written_out_is_zero_at_the_solution(link, l2):
    x, t = problem()
    found = solve(x, Shares(t, link), l2, tolerance=1e-6)
    weight, bias = found.weight.clone().requires_grad_(), found.bias.clone().requires_grad_()
    gradient = torch.autograd.grad(written_out(x, t, weight, bias, l2, link), [weight, bias])
    assert found.converged
    assert max(part.abs().max() for part in gradient) < 1e-6 * l2 * max(found.weight.norm(), 0.1) + 1e-12


def test_soft_targets_are_sklearns_weighted_rows():
    """A row with shares t is as many rows as classes, of weight t."""
    x, t = problem()
    l2, (n, classes) = 0.01, t.shape
    reference = LogisticRegression(C=1 / (l2 * n), tol=1e-10, max_iter=5000).fit(
        np.repeat(x.numpy(), classes, axis=0), np.tile(np.arange(classes), n), sample_weight=t.numpy().reshape(-1)
    )
    found = solve(x, Shares(t, "softmax"), l2, tolerance=1e-6)
    expected = reference.predict_proba(x.numpy())
    assert np.abs((x @ found.weight + found.bias).softmax(dim=1).numpy() - expected).max() < 1e-5


def test_sigmoid_is_one_sklearn_regression_per_class():
    x, t = problem()
    present, l2 = t > 1 / 3, 0.1
    found = solve(x, Shares(present.double(), "sigmoid"), l2, tolerance=1e-6)
    for c in range(t.shape[1]):
        reference = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-10, max_iter=5000).fit(x.numpy(), present[:, c])
        assert np.allclose(found.weight[:, c], reference.coef_[0], atol=1e-5)
        assert float(found.bias[c]) == pytest.approx(float(reference.intercept_[0]), abs=1e-5)


def test_one_class_per_row_is_shares_of_0_and_1():
    x, t = problem()
    y = t.argmax(dim=1)
    hard = solve(x, OneClass(y, 3), 0.01, tolerance=1e-6)
    soft = solve(x, Shares(F.one_hot(y, 3).double(), "softmax"), 0.01, tolerance=1e-6)
    assert torch.allclose(hard.weight, soft.weight, atol=1e-5)


def test_a_start_changes_the_steps_and_not_the_solution():
    x, t = problem()
    cold = solve(x, Shares(t, "softmax"), 1e-3, tolerance=1e-6)
    warm = solve(x, Shares(t, "softmax"), 1e-3, start=cold, tolerance=1e-6)
    assert torch.allclose(cold.weight, warm.weight, atol=1e-5)
    assert warm.steps <= 1 < cold.steps


def test_columns_that_cannot_be_learned_are_left_out():
    t = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert Shares(t, "sigmoid").learnable().tolist() == [2]
    assert Shares(t, "softmax").learnable().tolist() == [0, 2]
    with pytest.raises(DataError, match="no class can be learned"):
        Shares(torch.ones(4, 2), "sigmoid").learnable()
    with pytest.raises(UsageError, match="unknown link 'sigmod'; did you mean 'sigmoid'"):
        Shares(t, "sigmod")


def test_the_penalty_with_the_highest_score_wins_and_of_equals_the_strongest():
    x, t = problem()
    held = held_out_part(len(x), seed=0)
    targets = Shares(t, "softmax")
    wanted = choose_and_fit(x, targets, held, lambda fit: -abs(fit.l2 - 0.1), grid=(0.01, 0.1, 1.0))
    assert wanted.l2 == 0.1 and set(wanted.held_out) == {0.01, 0.1, 1.0}
    assert choose_and_fit(x, targets, held, lambda fit: 0.5, grid=(0.01, 0.1, 1.0)).l2 == 1.0
    assert wanted.converged
    on_all = solve(x, targets, 0.1, tolerance=1e-6)
    assert torch.allclose(wanted.solution.weight, on_all.weight, atol=1e-2 * float(on_all.weight.norm()))


def test_first_fits_do_not_see_the_held_out_rows():
    x, t = problem()
    held = held_out_part(len(x), seed=0)
    seen = []
    changed = t.clone()
    changed[held] = changed[held].flip(1)
    for shares in (t, changed):
        targets = Shares(shares, "softmax")
        choose_and_fit(x, targets, held, lambda fit: seen.append(fit.solution.weight) or 0.0, grid=(0.1, 0.01))
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])


def test_a_single_penalty_is_not_scored():
    x, t = problem()
    held = held_out_part(len(x), seed=0)
    fit = choose_and_fit(x, Shares(t, "softmax"), held, lambda fit: pytest.fail("scored"), grid=(0.1,))
    assert fit.l2 == 0.1 and fit.held_out == {} and fit.converged


# ---------------------------------------------------------------- one class per row


def features_of(n, dim, classes, separation, seed=0):
    """Correlated non-negative features whose directions differ a thousandfold in variance, like pooled ReLU maps."""
    generator = torch.Generator().manual_seed(11)
    means = torch.randn(classes, dim, generator=generator)
    mixing = torch.randn(dim, dim, generator=generator) * torch.logspace(0, -3, dim)
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (n,), generator=generator)
    x = ((means[y] * separation + torch.randn(n, dim, generator=generator)) @ mixing).relu()
    return standardise(x, *standardisation(x)), y


@pytest.mark.parametrize("l2", L2_GRID)
def test_the_gradient_is_zero_at_the_solution(l2):
    x, y = features_of(800, 32, 5, 0.3)
    solution = solve(x, OneClass(y, 5), l2)
    weight, bias = solution.weight.clone().requires_grad_(), solution.bias.clone().requires_grad_()
    loss = F.cross_entropy(x @ weight + bias, y) + l2 / 2 * weight.square().sum()
    size = float(torch.cat([g.flatten() for g in torch.autograd.grad(loss, [weight, bias])]).norm())
    assert solution.converged
    assert size == pytest.approx(solution.gradient, rel=1e-4)
    assert size <= 1e-3 * l2 * float(solution.weight.norm()) * 1.001
    assert size < 1e-4 or l2 >= 0.1


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_one_class_per_row_equals_scikit_learn(l2):
    x, y = features_of(500, 12, 4, 0.3)
    solution = solve(x, OneClass(y, 4), l2)
    reference = LogisticRegression(C=1 / (len(x) * l2), tol=1e-10, max_iter=10000).fit(x.numpy(), y.numpy())
    expected = torch.from_numpy(reference.coef_.T)
    assert (solution.weight - expected).norm() <= 2e-3 * expected.norm()


def test_the_warm_path_ends_where_a_cold_start_ends():
    x, y = features_of(600, 24, 4, 0.3)
    path = fit_path(x, OneClass(y, 4), L2_GRID)
    assert all(fit.converged for fit in path.values())
    for l2, fit in path.items():
        cold = solve(x, OneClass(y, 4), l2).weight
        assert (fit.solution.weight - cold).norm() <= 0.02 * cold.norm()


def test_a_fit_that_did_not_reach_its_optimum_says_so():
    x, y = features_of(200, 24, 4, 0.3)
    assert not solve(x, OneClass(y, 4), 1e-4, max_steps=1).converged
