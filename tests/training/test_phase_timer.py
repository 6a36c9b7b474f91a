"""Phases add up to the total, what lies between a lap and a start is left out, and a resume continues."""

import pytest
import torch

from scd.training import phase_timer
from scd.training.phase_timer import PhaseTimer


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless a test moves it."""
    now = [100.0]
    monkeypatch.setattr(phase_timer, "perf_counter", lambda: now[0])
    return now


def test_laps_add_up_by_phase_and_pauses_are_left_out(clock):
    timer = PhaseTimer(torch.device("cpu"))
    for views, step, pause in ((1.0, 2.0, 50.0), (0.5, 0.25, 50.0)):
        clock[0] += views
        timer.lap("views")
        clock[0] += step
        timer.lap("step")
        clock[0] += pause
        timer.start()
    assert timer.seconds == {"views": 1.5, "step": 2.25} and timer.total == 3.75
    timer.settle()
    assert timer.total == 3.75


def test_a_resumed_timer_continues(clock):
    timer = PhaseTimer(torch.device("cpu"))
    timer.restore({"views": 2.0}, 7.0)
    clock[0] += 1
    timer.lap("views")
    assert timer.seconds == {"views": 3.0} and timer.total == 8.0 and timer.seconds["forward"] == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_phases_of_a_gpu_are_known_after_settling():
    timer = PhaseTimer(torch.device("cuda"))
    x = torch.randn(512, 512, device="cuda")
    timer.start()
    for _ in range(20):
        x = (x @ x).clamp(-1, 1)
    timer.lap("forward")
    assert not timer.seconds
    timer.settle()
    assert 0 < timer.seconds["forward"] <= timer.total * 1.5
