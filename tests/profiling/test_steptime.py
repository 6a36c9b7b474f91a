"""Blocks of real steps: they train, phases add up to the block, and no hook stays."""

import pytest
import torch

from baselines.byol import BYOL
from scd.data.recipes import build_recipe
from scd.method import Method
from scd.nn.backbone import build_backbone
from scd.profiling import steptime
from scd.profiling.steptime import Stepper
from scd.profiling.workload import Workload
from scd.scd import SCD
from scd.training import phase_timer
from scd.training.phase_timer import PhaseTimer

CPU = torch.device("cpu")


def workload(method=None, **optimizer):
    method = BYOL(build_backbone("resnet_tiny"), dim=16, hidden=32) if method is None else method
    return Workload(method, build_recipe("mocov2", 16), 16, 32, {"lr": 0.01, "weight_decay": 1e-4, **optimizer})


def test_phases_add_up_to_the_block_and_no_hook_stays(monkeypatch):
    """By a clock that advances by one second whenever it is read, so that no phase depends on the machine's speed."""
    now = [0.0]

    def tick():
        now[0] += 1
        return now[0]

    monkeypatch.setattr(steptime, "perf_counter", tick)
    monkeypatch.setattr(phase_timer, "perf_counter", tick)
    stepper = Stepper(workload(SCD(workload().method)), steps=2)
    timer = PhaseTimer(CPU)
    seconds = stepper.block(timer)
    assert stepper.phases == (
        "views", "backbone, online", "backbone, target", "heads", "loss", SCD.addition,
        "backward", "optimizer", "after_step",
    )  # fmt: skip
    assert set(timer.seconds) == set(stepper.phases) and min(timer.seconds.values()) > 0
    assert timer.total == sum(timer.seconds.values()) and 0 < seconds - timer.total <= 3
    assert timer.seconds["backward"] == timer.seconds["after_step"] == timer.seconds["views"] == 2
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in stepper.method.modules())


def test_blocks_train():
    stepper = Stepper(workload(name="sgd", clip=3.0), steps=4)
    state = {name: value.clone() for name, value in stepper.method.state_dict().items()}
    stepper.block()
    moved = {name for name, value in stepper.method.state_dict().items() if not value.equal(state[name])}
    assert any(name.startswith("backbone") for name in moved)
    assert any(name.startswith("target_backbone") for name in moved)
    assert stepper.images_per_block == 64


@pytest.mark.parametrize("at_once", [1, 3, None])
def test_views_made_together_change_no_block(at_once):
    methods = []
    for steps_at_once in (2, at_once):
        torch.manual_seed(0)
        stepper = Stepper(workload(), steps=2, steps_at_once=steps_at_once)
        stepper.block()
        stepper.block()
        methods.append(stepper.method.state_dict())
    assert all(value.equal(methods[1][name]) for name, value in methods[0].items())


class Needing(Method):
    """A method that looks at everything that a batch can carry."""

    needs = frozenset({"masks", "segments", "boxes", "labels"})

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(3, 2)
        self.seen = []

    def forward(self, batch):
        view = batch.views["v1"]
        self.seen.append((view.masks.shape, view.segments.unique().tolist(), len(view.boxes), batch.labels.tolist()))
        scores = self.backbone(view.images.mean(dim=(2, 3)))
        return {"loss": torch.nn.functional.cross_entropy(scores, batch.labels)}


def test_a_method_gets_all_that_it_needs():
    stepper = Stepper(workload(Needing()), steps=1)
    stepper.block()
    masks, segments, boxes, labels = stepper.method.seen[0]
    assert masks == (16, 16, 16) and boxes == 16 and set(segments) <= {-1, 0, 1, 2, 3} and set(labels) == {0, 1}
