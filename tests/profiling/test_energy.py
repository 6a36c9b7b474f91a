"""Energy is measured or absent, never guessed."""

import torch

from scd.profiling.energy import energy


def test_a_cpu_has_no_energy_and_the_reason_is_given():
    joules, why = energy(lambda: None, torch.device("cpu"))
    assert joules is None and why == "no GPU, and a CPU's counters add up all that it does"
