"""Optimisers: who decays, LARS against its formula, and the errors."""

import pytest
import torch
from torch import nn

from scd.errors import UsageError
from scd.training.optimizers import build_optimizer, clip_each


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    frozen = nn.Linear(2, 2).requires_grad_(False)
    return nn.ModuleDict({"net": net, "frozen": frozen})


def backward(module):
    module["net"](torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))).square().sum().backward()


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_frozen_parameters_stay_and_all_others_move(name):
    module = network()
    before = {key: value.clone() for key, value in module.named_parameters()}
    optimizer = build_optimizer(module, name, lr=0.1, weight_decay=1e-4)
    for _ in range(2):
        optimizer.zero_grad()
        backward(module)
        optimizer.step()
    moved = {key for key, value in module.named_parameters() if not value.equal(before[key])}
    assert moved == {key for key in before if key.startswith("net")}


def test_exclusion_puts_biases_and_norms_in_a_group_without_decay():
    module = network()
    groups = build_optimizer(module, "sgd", lr=0.1, weight_decay=0.3, exclude_bias_norm=True).param_groups
    decayed = {id(p) for p in groups[0]["params"]}
    assert decayed == {id(module["net"][0].weight), id(module["net"][3].weight)}
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert sum(len(group["params"]) for group in groups) == 6
    assert len(build_optimizer(module, "sgd", lr=0.1, weight_decay=0.3).param_groups) == 1


def test_sgd_is_momentum_sgd_with_decay_on_everything():
    module = network()
    optimizer = build_optimizer(module, "sgd", lr=0.1, momentum=0.5, weight_decay=0.2)
    weight = module["net"][1].weight
    w, velocity = weight.detach().clone(), 0.0
    for _ in range(3):
        optimizer.zero_grad()
        backward(module)
        velocity = 0.5 * velocity + weight.grad + 0.2 * w
        optimizer.step()
        w = w - 0.1 * velocity
        torch.testing.assert_close(weight.detach(), w)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_lars_scales_weights_by_the_trust_ratio_and_excluded_biases_not(weight_decay):
    module = network()
    options = {"lr": 2.0, "momentum": 0.0, "weight_decay": weight_decay, "trust": 0.01, "exclude_bias_norm": True}
    optimizer = build_optimizer(module, "lars", **options)
    backward(module)
    weight, bias = module["net"][0].weight, module["net"][0].bias
    w, g, b = weight.detach().clone(), weight.grad.clone(), bias.detach() - 2.0 * bias.grad
    optimizer.step()
    ratio = 0.01 * w.norm() / (g.norm() + weight_decay * w.norm())
    torch.testing.assert_close(weight.detach(), w - 2.0 * ratio * (g + weight_decay * w))
    torch.testing.assert_close(bias.detach(), b)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "adamW2"}, "unknown optimizer 'adamW2'; did you mean 'adamw'"),
        ({"name": "adamw", "momentum": 0.9}, "adamw has no momentum: set optimizer.momentum=null"),
        ({"name": "adamw", "nesterov": True}, "adamw has no nesterov"),
        ({"name": "sgd", "trust": 0.1}, "sgd has no trust"),
        ({"name": "lars", "betas": (0.9, 0.99)}, "lars has no betas"),
        ({"lr": 0.0}, "optimizer.lr is a number above 0, not 0.0"),
        ({"lr": float("nan")}, "optimizer.lr is a number above 0, not nan"),
        ({"lr": float("inf")}, "optimizer.lr is a number above 0, not inf"),
        ({"weight_decay": -1e-4}, "optimizer.weight_decay is a number 0 or more"),
        ({"momentum": 1.0}, r"optimizer.momentum is a number in \[0, 1\)"),
    ],
)
def test_wrong_options_say_what_is_right(options, text):
    with pytest.raises(UsageError, match=text):
        build_optimizer(network(), **({"lr": 0.1, "weight_decay": 0.0} | options))


def test_nothing_to_train_is_an_error():
    with pytest.raises(UsageError, match="Linear has no parameter to train"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), lr=0.1, weight_decay=0.0)


def test_each_gradient_is_cut_to_the_norm_by_itself():
    layer = torch.nn.Linear(3, 2)
    layer.weight.grad, layer.bias.grad = torch.full((2, 3), 4.0), torch.full((2,), 0.1)
    clip_each(layer, 3.0)
    assert layer.weight.grad.norm().item() == pytest.approx(3.0, rel=1e-5)
    assert torch.equal(layer.bias.grad, torch.full((2,), 0.1))  # the joint norm would have cut it, too
