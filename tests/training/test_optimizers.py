"""Optimisers: parameter groups and exclusions, SGD and LARS against their formulas, and the errors."""

import pytest
import torch
from torch import nn

from scd.errors import UsageError
from scd.method import Method, ParameterGroup
from scd.training.optimizers import build_optimizer, clip_each, set_learning_rate, set_weight_decay


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


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_form_is_fused_on_the_cpu_alone(name):
    on_cpu = build_optimizer(network(), name, lr=0.1, weight_decay=0.3)
    elsewhere = build_optimizer(network().to("meta"), name, lr=0.1, weight_decay=0.3)
    assert (on_cpu.defaults["fused"], on_cpu.defaults["foreach"]) == (True, None)
    assert (elsewhere.defaults["fused"], elsewhere.defaults["foreach"]) == (None, True)


def test_exclusion_puts_biases_and_norms_in_a_group_without_decay():
    module = network()
    groups = build_optimizer(module, "sgd", lr=0.1, weight_decay=0.3, exclude_bias_norm=True).param_groups
    decayed = {id(p) for p in groups[0]["params"]}
    assert decayed == {id(module["net"][0].weight), id(module["net"][3].weight)}
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert sum(len(group["params"]) for group in groups) == 6
    assert len(build_optimizer(module, "sgd", lr=0.1, weight_decay=0.3).param_groups) == 1


class Predicting(Method):
    """A method whose predictor has settings of its own, as SimSiam's."""

    def __init__(self):
        super().__init__()
        self.backbone, self.predictor = nn.Linear(3, 2), nn.Linear(2, 2)
        self.groups = [
            ParameterGroup(list(self.backbone.parameters())),
            ParameterGroup(list(self.predictor.parameters()), 10.0, 0.5, constant_lr=True),
        ]

    def forward(self, batch):
        raise NotImplementedError

    def parameter_groups(self):
        return self.groups


def test_a_methods_groups_keep_their_multipliers_under_every_schedule():
    method = Predicting()
    optimizer = build_optimizer(method, lr=0.1, weight_decay=0.2)
    rates = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert rates == [(0.1, 0.2), (1.0, 0.1)]
    assert set_learning_rate(optimizer, 0.25) == 0.025
    set_weight_decay(optimizer, 0.4)
    rates = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert rates == [(0.025, 0.4), (1.0, 0.2)]
    again = build_optimizer(Predicting(), lr=0.1, weight_decay=0.2)
    again.load_state_dict(optimizer.state_dict())
    assert set_learning_rate(again, 0.5) == 0.05 and [group["lr"] for group in again.param_groups] == [0.05, 1.0]


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_exclusion_splits_each_group_of_a_method(name):
    method = Predicting()
    optimizer = build_optimizer(method, name, lr=0.1, weight_decay=0.2, exclude_bias_norm=True)
    found = {id(group["params"][0]): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert found == {
        id(method.backbone.weight): (0.1, 0.2),
        id(method.backbone.bias): (0.1, 0.0),
        id(method.predictor.weight): (1.0, 0.1),
        id(method.predictor.bias): (1.0, 0.0),
    }


def test_groups_of_equal_settings_are_one_group_in_their_order():
    layer = nn.Linear(3, 2)
    groups = [ParameterGroup([layer.weight]), ParameterGroup([layer.bias])]
    optimizer = build_optimizer(groups, lr=0.1, weight_decay=0.0)
    (group,) = optimizer.param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(layer.weight), id(layer.bias)]


def test_a_method_that_forgets_or_repeats_a_parameter_is_refused():
    method = Predicting()
    text = "Predicting.parameter_groups.. must hold each trainable parameter exactly once"
    both = method.groups
    for groups in (both[:1], [*both, both[0]]):
        method.groups = groups
        with pytest.raises(ValueError, match=text):
            build_optimizer(method, lr=0.1, weight_decay=0.0)


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


def test_each_gradient_is_clipped_to_the_norm_by_itself():
    layer = torch.nn.Linear(3, 2)
    layer.weight.grad, layer.bias.grad = torch.full((2, 3), 4.0), torch.full((2,), 0.1)
    clip_each(layer, 3.0)
    assert layer.weight.grad.norm().item() == pytest.approx(3.0, rel=1e-5)
    assert torch.equal(layer.bias.grad, torch.full((2,), 0.1))  # by the joint norm it would be smaller
