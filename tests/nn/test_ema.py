"""The momentum branch: the formula, its ends, and what it does not change."""

import math

import pytest
import torch
from torch import nn

from scd.nn.ema import copy_without_grad, cosine_momentum, ema_update


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("m", [0.0, 0.3, 0.99, 1.0])
def test_update_is_m_times_target_plus_the_rest_times_online(m):
    target, online = copy_without_grad(net()), net()
    before = [parameter.clone() for parameter in target.parameters()]
    ema_update(target, online, m)
    for new, old, theta in zip(target.parameters(), before, online.parameters(), strict=True):
        torch.testing.assert_close(new, m * old + (1 - m) * theta.detach())


def test_update_leaves_the_targets_running_statistics_alone():
    target, online = copy_without_grad(net()), net()
    online(torch.randn(8, 3, 5, 5))
    before = {name: buffer.clone() for name, buffer in target.named_buffers()}
    ema_update(target, online, 0.5)
    assert all(torch.equal(buffer, before[name]) for name, buffer in target.named_buffers())
    assert not torch.equal(online[1].running_mean, target[1].running_mean)


def test_update_follows_parameters_that_were_replaced():
    target, online = copy_without_grad(nn.Linear(2, 2)), nn.Linear(2, 2)
    ema_update(target, online, 0.5)
    online.weight = nn.Parameter(torch.full((2, 2), 7.0))
    ema_update(target, online, 0.0)
    assert torch.equal(target.weight, online.weight)


def test_update_of_a_module_without_parameters_does_nothing():
    ema_update(nn.Identity(), nn.Identity(), 0.5)


def test_update_refuses_another_structure():
    with pytest.raises(ValueError, match="the target has 2 parameters, the online module 6"):
        ema_update(nn.Linear(2, 2), net(), 0.5)


def test_copy_has_equal_weights_of_its_own_and_no_gradient():
    online = net()
    target = copy_without_grad(online)
    for mine, theirs in zip(target.parameters(), online.parameters(), strict=True):
        assert torch.equal(mine, theirs) and mine.data_ptr() != theirs.data_ptr()
        assert not mine.requires_grad and theirs.requires_grad


def test_cosine_momentum_starts_at_base_and_ends_at_one():
    assert cosine_momentum(0.99, 0.0) == pytest.approx(0.99)
    assert cosine_momentum(0.99, 1.0) == 1.0
    assert cosine_momentum(0.9, 0.5) == pytest.approx(0.95)
    steps = [cosine_momentum(0.9, t / 50) for t in range(51)]
    assert steps == sorted(steps)
    for t, m in enumerate(steps):  # the half-angle form of the same curve
        assert m == pytest.approx(1 - 0.1 * math.cos(math.pi * t / 100) ** 2)
