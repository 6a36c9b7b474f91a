"""The time of a training step on the machine at hand, beside the steps of other arms in the same rounds."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np

from scd.profiling.energy import energy
from scd.profiling.steptime import Stepper
from scd.profiling.workload import Build
from scd.training.phase_timer import PhaseTimer


class Timed(Protocol):
    """Anything whose work is measured in blocks."""

    def block(self) -> float:
        """Seconds of one block."""


@dataclass(frozen=True)
class StepTiming:
    """Times the steps of the arm "arm"; the other arms are what it is compared with.

    Args:
        rounds: in each of them every arm takes one block of steps in turn, so that other work on the machine affects
            all arms alike.
        steps: of a block; their views are made together.
        phase_rounds: further rounds with a timer at the borders of the phases; 0 measures no phases.
    """

    rounds: int = 6
    steps: int = 4
    phase_rounds: int = 3

    def __call__(self, arms: Mapping[str, Build]) -> dict[str, float]:
        """Seconds per step and ratios.

        ``step_seconds`` and, for every other arm, ``time_to_NAME`` (ratio of the two blocks of a round) are medians;
        ``..._low`` and ``..._high`` are the quartiles over rounds. Also ``images_per_second``, ``phase: NAME`` (seconds
        per step), ``timer_overhead`` (share of a step that the timer adds) and, where the hardware measures it,
        ``step_joules``.
        """
        steppers = {name: Stepper(build(), self.steps) for name, build in arms.items()}
        arm = steppers.pop("arm")
        own, others = interleaved(arm, steppers, self.rounds)
        numbers = quartiles("step_seconds", [seconds / self.steps for seconds in own])
        numbers["images_per_second"] = arm.images_per_block / median(own)
        for name, seconds in others.items():
            numbers |= quartiles(f"time_to_{name}", ratios(own, seconds))
        if self.phase_rounds:
            numbers |= self.phases(arm)
        joules, _ = energy(arm.block, arm.device)
        return numbers if joules is None else {**numbers, "step_joules": joules / self.steps}

    def phases(self, arm: Stepper) -> dict[str, float]:
        """Where the time of a step goes, and what the timer costs."""
        timer, with_timer, without = PhaseTimer(arm.device), [], []
        for _ in range(self.phase_rounds):
            with_timer.append(arm.block(timer))
            without.append(arm.block())
        count = self.phase_rounds * self.steps
        seconds = {f"phase: {phase}": timer.seconds[phase] / count for phase in arm.phases}
        return {**seconds, "timer_overhead": median(with_timer) / median(without) - 1}


def interleaved(timed: Timed, others: Mapping[str, Timed], rounds: int) -> tuple[list[float], dict[str, list[float]]]:
    """Seconds of a block of each, round by round: first the others, then ``timed``; an extra round warms up."""
    own: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in others}
    for _ in range(rounds + 1):
        for name, other in others.items():
            seconds[name].append(other.block())
        own.append(timed.block())
    return own[1:], {name: values[1:] for name, values in seconds.items()}


def ratios(own: list[float], others: list[float]) -> list[float]:
    """The ratio of every round."""
    return [mine / other for mine, other in zip(own, others, strict=True)]


def quartiles(name: str, values: list[float]) -> dict[str, float]:
    """The median under ``name``, the quartiles under ``name_low`` and ``name_high``."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {name: middle, f"{name}_low": low, f"{name}_high": high}
