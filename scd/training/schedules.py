"""Schedules of the learning rate and weight decay: pure functions of the step, or of the share of a time budget."""

import math
from dataclasses import dataclass

from scd.errors import UsageError, unknown

SHAPES = ("constant", "cosine")
GRANULARITIES = ("step", "epoch")
RAMPS = ("t/W", "(t+1)/W", "t/(W-1)")  # of a warm-up of W steps, at step t = 0, 1, ...


def cosine(progress: float, start: float = 1.0, end: float = 0.0) -> float:
    """Half a cosine from ``start`` at progress 0 to ``end`` at progress 1 (SGDR, Loshchilov & Hutter 2017, eq. 5)."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def linear_warmup(step: int, warmup_steps: int, ramp: str = "t/W", start: float = 0.0) -> float:
    """The share of the base rate at a step t of a linear warm-up of W steps; 1 after it.

    Args:
        step: t, 0 at the first step.
        warmup_steps: W.
        ramp: "t/W" begins at ``start`` and reaches 1 at step W (BYOL, MAE, Barlow Twins); "(t+1)/W" reaches 1 at step
            W - 1, the last of the warm-up, and begins one W-th above ``start`` (LEWEL); "t/(W-1)" begins at ``start``
            and reaches 1 at step W - 1 (DINO).
        start: share of the base rate that the warm-up begins from; SlotCon: 0.01.
    """
    if step >= warmup_steps:
        return 1.0
    if ramp == "t/(W-1)":
        share = step / (warmup_steps - 1) if warmup_steps > 1 else 1.0
    else:
        share = (step + (ramp == "(t+1)/W")) / warmup_steps
    return start + (1.0 - start) * share


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run, as a factor of the optimiser's base rate, and the weight decay.

    Args:
        name: "cosine" (to ``final``) or "constant".
        warmup_epochs: length of the linear warm-up in epochs, may be a fraction. The warm-up changes the rate at every
            step, whatever ``per`` says (BYOL, LEWEL).
        warmup_ramp, warmup_start: of the warm-up, see :func:`linear_warmup`.
        per: "step" lowers the rate at every step (BYOL, SwAV, DINO), "epoch" at every epoch (MoCo, LEWEL).
        final: factor at the end of the run; Barlow Twins 0.001, DINO 1e-6 over its base rate.
        final_weight_decay: weight decay at the end of the run; it follows half a cosine from the optimiser's, step by
            step (DINO: 0.04 to 0.4). None keeps the optimiser's.
        total_epochs: length of the training that the schedule is made for; a run that is shorter takes the first part
            of it, and is the same step for step as the beginning of the longer one. None: the run's own length.

    Raises:
        UsageError: an unknown name, ramp or granularity, a negative warm-up or weight decay, a ``final`` or
            ``warmup_start`` outside [0, 1], or ``total_epochs`` that are not above 0.
    """

    name: str = "cosine"
    warmup_epochs: float = 0.0
    warmup_ramp: str = "t/W"
    warmup_start: float = 0.0
    per: str = "step"
    final: float = 0.0
    final_weight_decay: float | None = None
    total_epochs: float | None = None

    def __post_init__(self) -> None:
        if self.name not in SHAPES:
            raise unknown("schedule", self.name, SHAPES)
        if self.per not in GRANULARITIES:
            raise unknown("schedule granularity (schedule.per)", self.per, GRANULARITIES)
        if self.warmup_ramp not in RAMPS:
            raise unknown("ramp of the warm-up (schedule.warmup_ramp)", self.warmup_ramp, RAMPS)
        if not self.warmup_epochs >= 0:
            raise UsageError(f"schedule.warmup_epochs is 0 or more epochs, not {self.warmup_epochs}")
        for option in ("final", "warmup_start"):
            value = getattr(self, option)
            if not 0 <= value <= 1:
                raise UsageError(f"schedule.{option} is a share of the base rate in [0, 1], not {value}")
        if self.final_weight_decay is not None and not self.final_weight_decay >= 0:
            raise UsageError(f"schedule.final_weight_decay is 0 or more, not {self.final_weight_decay}")
        if self.total_epochs is not None and not self.total_epochs > 0:
            raise UsageError(f"schedule.total_epochs is above 0 epochs, or null, not {self.total_epochs}")

    def total_steps(self, steps: int, steps_per_epoch: int) -> int:
        """Length in steps of the training that the schedule is made for, of which a run takes the first ``steps``.

        Raises:
            UsageError: a run that is longer.
        """
        if self.total_epochs is None:
            return steps
        total = round(self.total_epochs * steps_per_epoch)
        if steps > total:
            raise UsageError(
                f"schedule.total_epochs={self.total_epochs:g} ({total} steps) is less than the run of {steps} steps; "
                "raise it or lower training.budget.value"
            )
        return total

    def warmup_steps(self, steps_per_epoch: int) -> int:
        """Length of the warm-up in steps."""
        return round(self.warmup_epochs * steps_per_epoch)

    def warmup(self, step: int, steps_per_epoch: int) -> float:
        """The factor of the warm-up at a step; 1 after it."""
        return linear_warmup(step, self.warmup_steps(steps_per_epoch), self.warmup_ramp, self.warmup_start)

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The factor at a step 0 <= ``step`` < ``steps``: warm-up to 1, then the decay over the steps that are left.

        Per epoch, the decay is that of the first step of the current epoch, or of the end of the warm-up where that is
        later. Without warm-up and over whole epochs this is MoCo's rule, 0.5 (1 + cos(pi epoch / epochs)).

        Raises:
            UsageError: a decaying schedule whose warm-up is not shorter than the run, or a run that is longer than
                ``total_epochs``.
        """
        steps = self.total_steps(steps, steps_per_epoch)
        warmup = self.warmup_steps(steps_per_epoch)
        if step < warmup and (self.name == "constant" or warmup < steps):
            return self.warmup(step, steps_per_epoch)
        if self.name == "constant":
            return 1.0
        if warmup >= steps:
            raise UsageError(
                f"the warm-up of {self.warmup_epochs:g} epochs ({warmup} steps) is not shorter than a run of {steps} "
                f"steps; lower schedule.warmup_epochs or raise training.budget.value"
            )
        place = step - step % steps_per_epoch if self.per == "epoch" else step
        return cosine((max(place, warmup) - warmup) / (steps - warmup), end=self.final)

    def weight_decay(self, base: float, progress: float) -> float:
        """The weight decay at a point of the run, progress in [0, 1], that starts at ``base``."""
        if self.final_weight_decay is None:
            return base
        return cosine(progress, start=base, end=self.final_weight_decay)

    def factor_by_time(self, share: float, step: int, steps_per_epoch: int) -> float:
        """The factor after a share in [0, 1] of a budget of seconds: warm-up in steps, decay in time.

        NOTE: the number of steps in the time is not known beforehand, so the decay begins at the start of the run, and
        the warm-up multiplies it.

        Raises:
            UsageError: a decay per epoch, or a length in epochs, which a budget of seconds does not have.
        """
        if self.total_epochs is not None:
            raise UsageError("a budget in seconds has no fixed number of epochs: use schedule.total_epochs=null")
        if self.name == "cosine" and self.per == "epoch":
            raise UsageError("a budget in seconds has no fixed number of epochs: use schedule.per=step")
        return self.warmup(step, steps_per_epoch) * (cosine(share, end=self.final) if self.name == "cosine" else 1.0)
