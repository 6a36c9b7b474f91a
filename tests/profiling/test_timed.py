"""Timed steps by clocks that the tests set, so that no number depends on the machine's speed."""

import pytest
import small_workloads

from scd.profiling import steptime, timed
from scd.profiling.timed import StepTiming, interleaved, quartiles
from scd.training import phase_timer


class Blocks:
    """Blocks of given lengths; notes their order."""

    def __init__(self, name, seconds, order):
        self.name, self.seconds, self.order = name, iter(seconds), order

    def block(self):
        self.order.append(self.name)
        return next(self.seconds)


def test_every_round_takes_a_block_of_each_and_the_first_round_does_not_count():
    order = []
    arm, host = Blocks("arm", [9, 3, 5], order), Blocks("host", [7, 1, 2], order)
    assert interleaved(arm, {"host": host}, 2) == ([3, 5], {"host": [1, 2]})
    assert order == ["host", "arm"] * 3


def test_quartiles_have_three_names():
    assert quartiles("x", [1.0, 2.0, 3.0, 4.0, 5.0]) == {"x": 3.0, "x_low": 2.0, "x_high": 4.0}


@pytest.fixture
def ticks(monkeypatch):
    """A clock that advances by one second whenever it is read."""
    now = [0.0]

    def tick():
        now[0] += 1
        return now[0]

    monkeypatch.setattr(steptime, "perf_counter", tick)
    monkeypatch.setattr(phase_timer, "perf_counter", tick)


def test_an_arm_beside_its_host(ticks):
    numbers = StepTiming(rounds=2, steps=2, phase_rounds=1)({"arm": small_workloads.scd, "host": small_workloads.byol})
    assert numbers["step_seconds"] == 0.5 and numbers["images_per_second"] == 16
    assert numbers["time_to_host"] == numbers["time_to_host_low"] == numbers["time_to_host_high"] == 1
    phases = [name for name in numbers if name.startswith("phase: ")]
    assert phases[0] == "phase: views" and phases[-1] == "phase: after_step" and len(phases) == 9
    assert numbers["phase: backward"] == 1 and numbers["timer_overhead"] > 0
    assert "step_joules" not in numbers


def test_without_rounds_for_phases_there_are_none(ticks, monkeypatch):
    monkeypatch.setattr(timed, "energy", lambda work, device: (6.0, ""))
    numbers = StepTiming(rounds=1, steps=2, phase_rounds=0)({"arm": small_workloads.byol})
    assert not [name for name in numbers if name.startswith(("phase", "time_to"))]
    assert numbers["step_joules"] == 3.0
