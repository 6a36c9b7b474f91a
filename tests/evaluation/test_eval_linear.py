"""The linear probe reaches its optimum, chooses on held-out training images only, and refuses what it cannot fit."""

import time

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from scd.errors import DataError
from scd.evaluation.linear import (
    L2_GRID,
    accuracy,
    balanced_accuracy,
    check_classes,
    fit_linear_probe,
    linear_probe,
    regularisation_path,
    solve,
    standardisation,
    standardise,
    stratified_part,
)


def features_of(n, dim, classes, separation, seed=0, weights=None):
    """Correlated non-negative features whose directions differ a thousandfold in variance, like pooled ReLU maps."""
    generator = torch.Generator().manual_seed(11)
    means = torch.randn(classes, dim, generator=generator)
    mixing = torch.randn(dim, dim, generator=generator) * torch.logspace(0, -3, dim)
    generator = torch.Generator().manual_seed(seed)
    shares = torch.ones(classes) if weights is None else torch.tensor(weights, dtype=torch.float)
    y = torch.multinomial(shares, n, replacement=True, generator=generator)
    x = (means[y] * separation + torch.randn(n, dim, generator=generator)) @ mixing
    return x.relu(), y


def gradient_of(x, y, weight, bias, l2):
    """The penalised loss' gradient by autograd, from the definition."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(x @ weight + bias, y) + l2 / 2 * weight.square().sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [weight, bias])])


@pytest.mark.parametrize("l2", L2_GRID)
def test_the_gradient_is_zero_at_the_solution(l2):
    x, y = features_of(800, 32, 5, 0.3)
    x = standardise(x, *standardisation(x))
    solution = solve(x, y, 5, l2)
    size = float(gradient_of(x, y, solution.weight, solution.bias, l2).norm())
    assert solution.converged
    assert size == pytest.approx(solution.gradient, rel=1e-4)
    assert size <= 1e-3 * l2 * float(solution.weight.norm()) * 1.001
    assert size < 1e-4 or l2 >= 0.1


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_equals_scikit_learn(l2):
    x, y = features_of(500, 12, 4, 0.3)
    x = standardise(x, *standardisation(x))
    solution = solve(x, y, 4, l2)
    reference = LogisticRegression(C=1 / (len(x) * l2), tol=1e-10, max_iter=10000).fit(x.numpy(), y.numpy())
    expected = torch.from_numpy(reference.coef_.T)
    assert (solution.weight - expected).norm() <= 2e-3 * expected.norm()


def test_the_warm_path_ends_where_a_cold_start_ends():
    x, y = features_of(600, 24, 4, 0.3)
    x = standardise(x, *standardisation(x))
    path = regularisation_path(x, y, 4, L2_GRID)
    assert all(solution.converged for solution in path.values())
    for l2, solution in path.items():
        cold = solve(x, y, 4, l2).weight
        assert (solution.weight - cold).norm() <= 0.02 * cold.norm()


def test_more_dimensions_than_images_and_dead_dimensions():
    x, y = features_of(60, 100, 3, 0.5)
    x[:, :40] = 0
    x[:, 40] = 3.0
    probe = fit_linear_probe(x, y, seed=0)
    assert probe.converged
    assert accuracy(probe.predict(x), y) > 0.9
    assert probe.solution.weight[:41].abs().max() == 0


def test_collapsed_features_give_the_largest_class():
    y = torch.tensor([0] * 30 + [1] * 50 + [2] * 20)
    collapsed = torch.full((100, 16), 0.7) + 1e-8 * torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
    result = linear_probe(collapsed, y, collapsed, y, seed=0)
    assert result["top1"] == 0.5
    assert result["balanced"] == pytest.approx(1 / 3)


def test_the_choice_is_the_best_held_out_accuracy_and_never_looks_at_the_test_set():
    x, y = features_of(900, 32, 5, 0.25)
    test_x, test_y = features_of(300, 32, 5, 0.25, seed=1)
    result = linear_probe(x, y, test_x, test_y, seed=3)
    best = max(result["held_out"].values())
    assert result["l2"] == max(l2 for l2, score in result["held_out"].items() if score == best)
    assert result["converged"]
    wrong = linear_probe(x, y, test_x, (test_y + 1) % 5, seed=3)
    assert wrong["held_out"] == result["held_out"] and wrong["l2"] == result["l2"]
    assert result["top1"] > 0.35 > wrong["top1"]


def test_the_final_solution_is_the_optimum_of_the_whole_training_set():
    x, y = features_of(700, 32, 5, 0.3)
    probe = fit_linear_probe(x, y, seed=0)
    solution, z = probe.solution, standardise(x, *standardisation(x))
    size = float(gradient_of(z, y, solution.weight, solution.bias, probe.l2).norm())
    assert size <= 1e-3 * probe.l2 * float(solution.weight.norm()) * 1.001


def test_the_seed_decides_the_held_out_part_and_repeats():
    labels = torch.arange(10).repeat_interleave(torch.tensor([5, 10, 15, 20, 100, 53, 7, 8, 9, 40]))
    part = stratified_part(labels, 0.2, seed=0)
    assert torch.equal(part, stratified_part(labels, 0.2, seed=0))
    assert not torch.equal(part, stratified_part(labels, 0.2, seed=1))
    assert torch.bincount(labels[part]).tolist() == [1, 2, 3, 4, 20, 11, 1, 2, 2, 8]


def test_unbalanced_classes_are_scored_both_ways():
    x, y = features_of(1500, 48, 6, 0.3, weights=[20, 10, 5, 3, 2, 1])
    test_x, test_y = features_of(600, 48, 6, 0.3, seed=1, weights=[20, 10, 5, 3, 2, 1])
    result = linear_probe(x, y, test_x, test_y, seed=0)
    predicted = fit_linear_probe(x, y, seed=0).predict(test_x)
    recalls = [float((predicted[test_y == c] == c).double().mean()) for c in range(6)]
    assert result["top1"] == pytest.approx(float((predicted == test_y).double().mean()))
    assert result["balanced"] == pytest.approx(sum(recalls) / 6)
    assert result["balanced"] < result["top1"]


def test_balanced_accuracy_by_hand():
    labels = torch.tensor([0, 0, 0, 0, 2, 2])
    predicted = torch.tensor([0, 0, 0, 1, 2, 0])
    assert accuracy(predicted, labels) == pytest.approx(4 / 6)
    assert balanced_accuracy(predicted, labels) == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_a_class_absent_from_both_sets_is_fine():
    x, y = features_of(300, 16, 4, 0.5)
    y = y + (y >= 2).long()  # class 2 has no image
    result = linear_probe(x, y, x, y, seed=0)
    assert result["top1"] > 0.5


def test_a_class_with_too_few_images_is_named_with_its_count():
    train, test = torch.tensor([0] * 9 + [1] * 3), torch.tensor([0, 1])
    with pytest.raises(DataError, match=r"class 'cat' has 3 training images and 1 test images.*at least 5"):
        check_classes(train, test, ["dog", "cat"])
    with pytest.raises(DataError, match="class 1 has 3 training images"):
        linear_probe(torch.rand(12, 4), train, torch.rand(2, 4), test, seed=0)


def test_a_test_class_without_training_images_is_named():
    with pytest.raises(DataError, match=r"class 'emu' has 0 training images and 1 test images"):
        check_classes(torch.tensor([0] * 5 + [1] * 5), torch.tensor([0, 2]), ["dog", "cat", "emu"])


def test_a_single_class_is_refused():
    with pytest.raises(DataError, match="needs two classes, the training set shows 1"):
        check_classes(torch.zeros(20, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))


def test_takes_seconds():
    """4000 x 64 features, 10 classes, the whole grid: well under a second on an idle core, so 5 s is generous."""
    x, y = features_of(4000, 64, 10, 0.6)
    start = time.perf_counter()
    probe = fit_linear_probe(x, y, seed=0)
    assert time.perf_counter() - start < 5
    assert probe.converged
