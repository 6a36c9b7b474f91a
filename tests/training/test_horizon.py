"""Progress, rates and snapshots of runs in steps and in seconds."""

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from scd.training.horizon import Horizon
from scd.training.optimizers import build_optimizer
from scd.training.phase_timer import PhaseTimer
from scd.training.schedules import Schedule


def horizon(steps=None, max_seconds=None, **schedule):
    fabric = Fabric(accelerator="cpu", devices=1)
    return Horizon(steps, max_seconds, 4, Schedule(**schedule), fabric, PhaseTimer(fabric.device))


def test_progress_by_steps_ends_at_exactly_one():
    run = horizon(steps=7)
    assert [run.progress(done) for done in (0, 7)] == [0.0, 1.0]
    assert max(run.progress(done) for done in range(7)) < 1


def test_progress_by_seconds_follows_the_timer_and_ends_at_one():
    run = horizon(max_seconds=8.0)
    assert run.progress(3) == 0.0
    run.timer.total = 2.0
    assert run.progress(3) == 0.25
    run.timer.total = 9.0
    assert run.progress(3) == 1.0


def test_the_number_of_steps_in_a_time_is_an_estimate():
    assert horizon(steps=7).expected_steps(3, 0.1) == 7
    assert horizon(max_seconds=8.0).expected_steps(30, 0.25) == 120
    assert horizon(max_seconds=8.0).expected_steps(30, 1.0) == 30


@pytest.mark.parametrize("steps", [1, 3, 10, 24, 1001])
def test_every_share_belongs_to_one_step(steps):
    run, shares = horizon(steps=steps), [0.0, 0.25, 0.5, 1.0]
    reached = [(done, share) for done in range(steps + 1) for share in run.shares_reached(shares, done, 0, 0)]
    assert sorted(reached, key=lambda item: item[1]) == [(round(share * steps), share) for share in shares]


def test_by_seconds_a_share_belongs_to_the_first_step_that_reaches_it():
    run, shares = horizon(max_seconds=8.0), [0.0, 0.25, 0.5, 1.0]
    assert run.shares_reached(shares, 0, -1.0, 0.0) == [0.0]
    assert run.shares_reached(shares, 1, 0.0, 0.24) == []
    assert run.shares_reached(shares, 2, 0.24, 0.6) == [0.25, 0.5]
    assert run.shares_reached(shares, 3, 0.6, 1.0) == [1.0]


def test_rates_follow_schedule_and_multipliers():
    run = horizon(steps=10, final_weight_decay=0.4)
    optimizer = build_optimizer(nn.Linear(2, 2), lr=0.1, weight_decay=0.2, exclude_bias_norm=True)
    assert run.set_rates(optimizer, 5, 0.5) == pytest.approx(0.05)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.05])
    assert [group["weight_decay"] for group in optimizer.param_groups] == pytest.approx([0.3, 0.0])
    by_time = horizon(max_seconds=8.0)
    assert by_time.set_rates(optimizer, 400, 0.5) == pytest.approx(0.05)
    assert torch.tensor(by_time.set_rates(optimizer, 400, 1.0)) == 0


def test_a_run_that_is_a_first_part_follows_the_longer_training():
    run, whole = horizon(steps=8, total_epochs=5, final_weight_decay=0.4), horizon(steps=20, final_weight_decay=0.4)
    optimizers = [build_optimizer(nn.Linear(2, 2), lr=0.1, weight_decay=0.2) for _ in range(2)]
    for step in range(8):
        rates = run.set_rates(optimizers[0], step, step / 8), whole.set_rates(optimizers[1], step, step / 20)
        assert rates[0] == rates[1]
        decays = [optimizer.param_groups[0]["weight_decay"] for optimizer in optimizers]
        assert decays[0] == pytest.approx(decays[1], rel=1e-12)
    assert run.scheduled(1.0) == pytest.approx(0.4) and run.progress(8) == 1.0
    assert horizon(max_seconds=8.0).scheduled(0.3) == 0.3 and whole.scheduled(0.3) == 0.3
