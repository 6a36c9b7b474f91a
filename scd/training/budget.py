"""The length of a training: in epochs, steps, training FLOPs or seconds."""

import math
from dataclasses import dataclass

from scd.errors import UsageError, unknown

UNITS = ("epochs", "flops", "seconds", "steps")


@dataclass(frozen=True)
class Budget:
    """The length of a run. Arms that differ in cost are compared at equal epochs and at equal FLOPs or seconds.

    Args:
        unit: "epochs" (passes over the training images), "steps", "flops" (forward and backward pass of all steps,
            2 per multiply-add) or "seconds" (time spent on views and steps, not on checkpoints).
        value: number of them, above 0; epochs may be a fraction.

    Raises:
        UsageError: an unknown unit, or a value that is not a finite number above 0.
    """

    unit: str
    value: float

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise unknown("budget unit (training.budget.unit)", self.unit, UNITS)
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not math.isfinite(self.value):
            raise UsageError(f"training.budget.value is a finite number of {self.unit}, not {self.value!r}")
        if self.value <= 0:
            raise UsageError(f"training.budget.value is above 0 {self.unit}, not {self.value:g}")

    @property
    def seconds(self) -> float | None:
        """The time to train for, or None when the budget is not one of time."""
        return float(self.value) if self.unit == "seconds" else None

    def steps(self, steps_per_epoch: int, flops_per_step: float | None = None) -> int | None:
        """The number of optimiser steps, at least 1; None for a budget of seconds.

        Epochs round to the nearest step. FLOPs round down, so that no arm spends more than its budget.

        Args:
            steps_per_epoch: whole batches in one pass over the training images.
            flops_per_step: FLOPs of one training step, needed for a budget of FLOPs only.

        Raises:
            UsageError: fewer images than one batch, or fewer FLOPs than one step needs.
        """
        if steps_per_epoch < 1:
            raise UsageError("the training set is smaller than one batch: lower training.batch_size")
        if self.unit == "seconds":
            return None
        if self.unit == "flops":
            if flops_per_step is None or not flops_per_step > 0:
                raise ValueError("a budget of FLOPs needs the FLOPs of one step")
            steps = math.floor(self.value / flops_per_step * (1 + 1e-12))  # n * flops must give n steps, not n - 1
            if steps < 1:
                raise UsageError(
                    f"a budget of {self.value:.3g} FLOPs is less than one step needs, {flops_per_step:.3g} FLOPs"
                )
            return steps
        return max(1, round(self.value * (steps_per_epoch if self.unit == "epochs" else 1)))
