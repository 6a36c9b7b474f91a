"""The linear probe chooses on held-out training images only, reaches its optimum, and scores both accuracies."""

from functools import partial

import pytest
import torch
from tiny_evaluation import ChannelMethod, context_of, object_source, objects, source_of

from scd.errors import DataError, UsageError
from scd.evaluation.labels import accuracy, balanced_accuracy
from scd.evaluation.linear import Linear, class_probe, fit_linear_probe
from scd.evaluation.logistic import L2_GRID, solve, standardisation, standardise


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


# ---------------------------------------------------------------- the probe


def test_more_dimensions_than_images_and_dead_dimensions():
    x, y = features_of(60, 100, 3, 0.5)
    x[:, :40] = 0
    x[:, 40] = 3.0
    probe = fit_linear_probe(x, y, seed=0)
    assert probe.fit.converged
    assert accuracy(probe.predict(x), y) > 0.9
    assert probe.fit.solution.weight[:41].abs().max() == 0


def test_collapsed_features_give_the_largest_class():
    y = torch.tensor([0] * 30 + [1] * 50 + [2] * 20)
    collapsed = torch.full((100, 16), 0.7) + 1e-8 * torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
    predicted = fit_linear_probe(collapsed, y, seed=0).predict(collapsed)
    assert accuracy(predicted, y) == 0.5
    assert balanced_accuracy(predicted, y) == pytest.approx(1 / 3)


def test_the_choice_is_the_best_held_out_accuracy():
    x, y = features_of(900, 32, 5, 0.25)
    test_x, test_y = features_of(300, 32, 5, 0.25, seed=1)
    probe = fit_linear_probe(x, y, seed=3)
    best = max(probe.fit.held_out.values())
    assert probe.fit.l2 == max(l2 for l2, score in probe.fit.held_out.items() if score == best)
    assert set(probe.fit.held_out) == set(L2_GRID) and probe.fit.converged
    assert accuracy(probe.predict(test_x), test_y) > 0.35
    again = fit_linear_probe(x, y, seed=4)
    assert again.fit.held_out != probe.fit.held_out  # other images are held out


def test_the_final_solution_is_the_optimum_of_the_whole_training_set():
    x, y = features_of(700, 32, 5, 0.3)
    fit = fit_linear_probe(x, y, seed=0).fit
    z = standardise(x, *standardisation(x))
    weight, bias = fit.solution.weight.clone().requires_grad_(), fit.solution.bias.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(z @ weight + bias, y) + fit.l2 / 2 * weight.square().sum()
    size = float(torch.cat([g.flatten() for g in torch.autograd.grad(loss, [weight, bias])]).norm())
    assert size <= 1e-3 * fit.l2 * float(fit.solution.weight.norm()) * 1.001


def test_any_label_values_are_predicted():
    x, y = features_of(300, 16, 3, 0.5)
    probe = fit_linear_probe(x, 7 * y + 2, seed=0)
    assert probe.classes.tolist() == [2, 9, 16]
    assert accuracy(probe.predict(x), 7 * y + 2) == accuracy(fit_linear_probe(x, y, seed=0).predict(x), y) > 0.5


# ---------------------------------------------------------------- protocol


def test_an_object_that_is_seen_is_classified():
    numbers = Linear()(context_of(ChannelMethod(0), object_source(), 16))
    assert numbers["linear_top1"] == numbers["linear_balanced"] == numbers["linear_converged"] == 1
    assert numbers["linear_l2"] in L2_GRID and (numbers["n_train"], numbers["n_test"]) == (200, 80)
    background = Linear()(context_of(ChannelMethod(2), object_source(correlated=False), 16))
    assert background["linear_top1"] < 0.6


def test_unbalanced_classes_are_scored_both_ways():
    train, test = objects(200, 0, False), objects(80, 1, False)
    kept = torch.arange(80)[(test.labels == 0) | (torch.arange(80) % 5 == 0)]
    context = context_of(ChannelMethod(0, 2), source_of(train=train, test=test.subset(kept)), 16)
    numbers, labels = Linear()(context), context.data.test.labels
    predicted = class_probe(context, L2_GRID, "probe").predict(context.features("test"))
    recalls = [float((predicted[labels == c] == c).double().mean()) for c in range(4)]
    assert numbers["linear_top1"] == pytest.approx(float((predicted == labels).double().mean()))
    assert numbers["linear_balanced"] == pytest.approx(sum(recalls) / 4)


def test_the_test_labels_do_not_change_the_probe():
    train, test = objects(200, 0, False), objects(80, 1, False)
    wrong = type(test)(test.images, labels=(test.labels + 1) % 4, masks=test.masks, class_names=test.class_names)
    method = ChannelMethod(0, 2)
    right, other = (Linear()(context_of(method, source_of(train=train, test=t), 16)) for t in (test, wrong))
    assert right["linear_l2"] == other["linear_l2"] and right["linear_top1"] > 0.5 > other["linear_top1"]


def test_a_fit_that_does_not_converge_is_recorded(monkeypatch):
    monkeypatch.setattr("scd.evaluation.logistic.solve", partial(solve, max_steps=1))
    numbers = Linear()(context_of(ChannelMethod(0, 1, 2), object_source(), 16))
    assert numbers["linear_converged"] == 0


def test_penalties_are_an_option():
    protocol = Linear(l2=[0.5])
    assert protocol(context_of(ChannelMethod(0), object_source(), 16))["linear_l2"] == 0.5
    assert protocol.metrics["linear_l2"].definition == "the linear probe's penalty, fixed"
    assert "l2 = 0.5, fixed" in protocol.metrics["linear_top1"].definition
    for wrong in ([], [0.1, 0.0]):
        with pytest.raises(UsageError, match="one penalty or more, all above 0"):
            Linear(l2=wrong)


def test_classes_are_checked_before_training():
    train = objects(200, 0, True)
    train.labels[train.labels == 3] = 2
    data = context_of(ChannelMethod(0), source_of(train=train, test=objects(80, 1, True)), 16).data
    with pytest.raises(DataError, match="class 'class3' has 0 training images and 20 test images"):
        Linear().check(data)
    assert not Linear().applies(context_of(ChannelMethod(0), object_source(leave_out=("label",)), 16).data)
