"""The regression on shares against scikit-learn and against its own gradient by autograd."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from scd.errors import DataError, UsageError
from scd.evaluation.linear import solve
from scd.evaluation.logistic import choose_and_fit, held_out_part, learnable, solve_soft


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
    found = solve_soft(x, t, l2, link, tolerance=1e-6)
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
    found = solve_soft(x, t, l2, "softmax", tolerance=1e-6)
    expected = reference.predict_proba(x.numpy())
    assert np.abs((x @ found.weight + found.bias).softmax(dim=1).numpy() - expected).max() < 1e-5


def test_sigmoid_is_one_sklearn_regression_per_class():
    x, t = problem()
    present, l2 = t > 1 / 3, 0.1
    found = solve_soft(x, present.double(), l2, "sigmoid", tolerance=1e-6)
    for c in range(t.shape[1]):
        reference = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-10, max_iter=5000).fit(x.numpy(), present[:, c])
        assert np.allclose(found.weight[:, c], reference.coef_[0], atol=1e-5)
        assert float(found.bias[c]) == pytest.approx(float(reference.intercept_[0]), abs=1e-5)


def test_one_class_per_row_is_the_linear_probe():
    x, t = problem()
    y = t.argmax(dim=1)
    hard = solve(x, y, 3, 0.01, tolerance=1e-6)
    soft = solve_soft(x, F.one_hot(y, 3).double(), 0.01, "softmax", tolerance=1e-6)
    assert torch.allclose(hard.weight, soft.weight, atol=1e-5)


def test_a_start_changes_the_steps_and_not_the_solution():
    x, t = problem()
    cold = solve_soft(x, t, 1e-3, "softmax", tolerance=1e-6)
    warm = solve_soft(x, t, 1e-3, "softmax", start=cold, tolerance=1e-6)
    assert torch.allclose(cold.weight, warm.weight, atol=1e-5)
    assert warm.steps <= 1 < cold.steps


def test_columns_that_cannot_be_learned_are_left_out():
    t = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert learnable(t, "sigmoid").tolist() == [2]
    assert learnable(t, "softmax").tolist() == [0, 2]
    with pytest.raises(DataError, match="no class can be learned"):
        learnable(torch.ones(4, 2), "sigmoid")
    with pytest.raises(UsageError, match="unknown link 'sigmod'; did you mean 'sigmoid'"):
        learnable(t, "sigmod")


def test_the_penalty_with_the_highest_score_wins_and_of_equals_the_strongest():
    x, t = problem()
    held = held_out_part(len(x), seed=0)
    wanted = choose_and_fit(x, t, held, "softmax", lambda fit: -abs(fit.l2 - 0.1), grid=(0.01, 0.1, 1.0))
    assert wanted.l2 == 0.1 and set(wanted.held_out) == {0.01, 0.1, 1.0}
    assert choose_and_fit(x, t, held, "softmax", lambda fit: 0.5, grid=(0.01, 0.1, 1.0)).l2 == 1.0
    on_all = solve_soft(x, t, 0.1, "softmax", tolerance=1e-6)
    assert torch.allclose(wanted.solution.weight, on_all.weight, atol=1e-2 * float(on_all.weight.norm()))


def test_first_fits_do_not_see_the_held_out_rows():
    x, t = problem()
    held = held_out_part(len(x), seed=0)
    seen = []
    changed = t.clone()
    changed[held] = changed[held].flip(1)
    for targets in (t, changed):
        choose_and_fit(x, targets, held, "softmax", lambda fit: seen.append(fit.solution.weight) or 0.0, grid=(0.1,))
    assert torch.equal(*seen)


def test_held_out_part_is_a_fifth_and_follows_the_seed():
    part = held_out_part(50, seed=1)
    assert part.sum() == 10
    assert torch.equal(part, held_out_part(50, seed=1)) and not torch.equal(part, held_out_part(50, seed=2))
    assert held_out_part(2, seed=0).sum() == 1
    with pytest.raises(DataError, match="at least 2 training images, there are 1"):
        held_out_part(1, seed=0)
