"""Schedules of the learning rate and weight decay: pure functions of the step, or of the share of a time budget."""

import math
from dataclasses import dataclass

from scd.errors import UsageError, unknown

SHAPES = ("constant", "cosine")
GRANULARITIES = ("step", "epoch")


def cosine(progress: float, start: float = 1.0, end: float = 0.0) -> float:
    """Half a cosine from ``start`` at progress 0 to ``end`` at progress 1 (SGDR, Loshchilov & Hutter 2017, eq. 5)."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def linear_warmup(step: int, warmup_steps: int) -> float:
    """The share of the base rate at a step: 0 at the first, 1 from step ``warmup_steps`` on (BYOL)."""
    return min(1.0, step / warmup_steps) if warmup_steps > 0 else 1.0


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run, as a factor of the optimiser's base rate, and the weight decay.

    Args:
        name: "cosine" (to ``final``) or "constant".
        warmup_epochs: length of the linear warm-up in epochs, may be a fraction. The warm-up changes the rate at every
            step, whatever ``per`` says (BYOL, LEWEL).
        per: "step" lowers the rate at every step (BYOL, SwAV, DINO), "epoch" at every epoch (MoCo, LEWEL).
        final: factor at the end of the run.
        final_weight_decay: weight decay at the end of the run; it follows half a cosine from the optimiser's, step by
            step (DINO: 0.04 to 0.4). None keeps the optimiser's.

    Raises:
        UsageError: an unknown name or granularity, a negative warm-up or weight decay, a ``final`` outside [0, 1].
    """

    name: str = "cosine"
    warmup_epochs: float = 0.0
    per: str = "step"
    final: float = 0.0
    final_weight_decay: float | None = None

    def __post_init__(self) -> None:
        if self.name not in SHAPES:
            raise unknown("schedule", self.name, SHAPES)
        if self.per not in GRANULARITIES:
            raise unknown("schedule granularity (schedule.per)", self.per, GRANULARITIES)
        if not self.warmup_epochs >= 0:
            raise UsageError(f"schedule.warmup_epochs is 0 or more epochs, not {self.warmup_epochs}")
        if not 0 <= self.final <= 1:
            raise UsageError(f"schedule.final is a share of the base rate in [0, 1], not {self.final}")
        if self.final_weight_decay is not None and not self.final_weight_decay >= 0:
            raise UsageError(f"schedule.final_weight_decay is 0 or more, not {self.final_weight_decay}")

    def warmup_steps(self, steps_per_epoch: int) -> int:
        """Length of the warm-up in steps."""
        return round(self.warmup_epochs * steps_per_epoch)

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The factor at a step 0 <= ``step`` < ``steps``: warm-up to 1, then the decay over the steps that are left.

        Per epoch, the decay is that of the first step of the current epoch, or of the end of the warm-up where that is
        later. Without warm-up and over whole epochs this is MoCo's rule, 0.5 (1 + cos(pi epoch / epochs)).

        Raises:
            UsageError: a decaying schedule whose warm-up is not shorter than the run.
        """
        warmup = self.warmup_steps(steps_per_epoch)
        if step < warmup and (self.name == "constant" or warmup < steps):
            return linear_warmup(step, warmup)
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
            UsageError: a decay per epoch, which a budget of seconds does not have.
        """
        if self.name == "cosine" and self.per == "epoch":
            raise UsageError("a budget in seconds has no fixed number of epochs: use schedule.per=step")
        warmup = linear_warmup(step, self.warmup_steps(steps_per_epoch))
        return warmup * (cosine(share, end=self.final) if self.name == "cosine" else 1.0)
