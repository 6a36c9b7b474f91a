"""One step: the order of its parts, the hooks of a method, and modules that have none."""

import pytest
import torch
from torch import nn

from scd.method import Method
from scd.training.optimizers import build_optimizer, clip_each
from scd.training.phase_timer import PhaseTimer
from scd.training.step import take_step


class Recording(Method):
    """A linear layer that notes what happens to it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(3, 2)
        self.events = []

    def forward(self, batch):
        self.events.append("forward")
        return {"loss": self.backbone(batch).square().sum(), "extra": torch.tensor(1.0)}

    def after_backward(self):
        self.events.append(("after_backward", self.backbone.weight.grad is not None))

    def after_step(self, progress):
        self.events.append(("after_step", progress, self.backbone.weight.grad is None, torch.is_grad_enabled()))


def batch():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(1))


def test_a_step_calls_the_hooks_in_order():
    method = Recording()
    outputs = take_step(method, method, batch(), build_optimizer(method, lr=0.1, weight_decay=0.0), 0.25)
    assert method.events == ["forward", ("after_backward", True), ("after_step", 0.25, True, False)]
    assert set(outputs) == {"loss", "extra"} and torch.is_grad_enabled()


@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_step_equals_one_written_by_hand(clip):
    method, by_hand = Recording(), Recording()
    ours = build_optimizer(method, lr=0.1, weight_decay=0.01)
    theirs = torch.optim.SGD(by_hand.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, fused=True)
    for step in range(3):
        take_step(method, method, batch() + step, ours, 1.0, clip=clip)
        theirs.zero_grad()
        by_hand(batch() + step)["loss"].backward()
        if clip is not None:
            clip_each(by_hand, clip)
        theirs.step()
    assert method.backbone.weight.equal(by_hand.backbone.weight)
    assert method.backbone.bias.equal(by_hand.backbone.bias)


def test_gradients_that_a_method_drops_move_nothing():
    class Frozen(Recording):
        def after_backward(self):
            self.backbone.bias.grad = None

    method = Frozen()
    before = method.backbone.bias.detach().clone()
    take_step(method, method, batch(), build_optimizer(method, lr=0.1, weight_decay=0.1), 1.0)
    assert method.backbone.bias.equal(before)


def test_a_module_without_hooks_is_trained_through_a_function():
    layer = nn.Linear(3, 2)
    before, called = layer.weight.detach().clone(), []

    def backward(loss):
        called.append(loss.detach())
        loss.backward()

    outputs = take_step(
        lambda images: {"loss": layer(images).square().mean()}, layer, batch(),
        build_optimizer(layer, lr=0.1, weight_decay=0.0), 1.0, backward=backward,
    )  # fmt: skip
    assert called == [outputs["loss"]]
    assert not layer.weight.equal(before) and layer.weight.grad is None


def test_a_timer_receives_the_phases_of_the_step():
    method, timer = Recording(), PhaseTimer(torch.device("cpu"))
    take_step(method, method, batch(), build_optimizer(method, lr=0.1, weight_decay=0.0), 1.0, timer=timer)
    assert list(timer.seconds) == ["forward", "backward", "optimizer", "after_step"]
