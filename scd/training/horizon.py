"""The length of a run, in steps or in seconds, and what follows from it: learning rate, weight decay, snapshots."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_fabric import Fabric
from torch.optim import Optimizer

from scd.training.optimizers import set_learning_rate, set_weight_decay
from scd.training.phase_timer import PhaseTimer
from scd.training.schedules import Schedule


@dataclass
class Horizon:
    """The length of a run and its schedule.

    Args:
        steps: steps of the whole run, or None for a run that lasts ``max_seconds``.
        max_seconds: time in views and steps of the whole run, where ``steps`` is None.
        steps_per_epoch: whole batches in an epoch.
        schedule: of the learning rate and the weight decay.
        fabric: broadcasts rank 0's clock.
        timer: measures the time.
    """

    steps: int | None
    max_seconds: float | None
    steps_per_epoch: int
    schedule: Schedule
    fabric: Fabric
    timer: PhaseTimer

    def progress(self, done: int) -> float:
        """Share in [0, 1] of the run that is over: after ``done`` steps, or at this moment for a run in seconds."""
        if self.steps is not None:
            return done / self.steps
        seconds = self.timer.total
        if self.fabric.world_size > 1:
            seconds = self.fabric.broadcast(seconds)
        return min(1.0, seconds / self.max_seconds)

    def scheduled(self, progress: float) -> float:
        """The share of the training that the schedule is made for, at a share of the run; equal but for a run that is
        its first part (``schedule.total_epochs``)."""
        if self.steps is None or self.schedule.total_epochs is None:
            return progress
        return progress * self.steps / self.schedule.total_steps(self.steps, self.steps_per_epoch)

    def set_rates(self, optimizer: Optimizer, step: int, progress: float) -> float:
        """Set learning rates and weight decays for a step; returns the learning rate of a group without multiplier.

        Args:
            optimizer: of :func:`scd.training.optimizers.build_optimizer`.
            step: steps before this one.
            progress: share of the run before this step.
        """
        if self.steps is None:
            factor = self.schedule.factor_by_time(progress, step, self.steps_per_epoch)
        else:
            factor = self.schedule.factor(step, self.steps, self.steps_per_epoch)
        set_weight_decay(
            optimizer, self.schedule.weight_decay(optimizer.defaults["weight_decay"], self.scheduled(progress))
        )
        return set_learning_rate(optimizer, factor)

    def shares_reached(self, shares: Sequence[float], done: int, before: float, after: float) -> list[float]:
        """Which shares of the training a step reaches.

        In a run of a fixed number of steps, the share s belongs to the step round(s * steps). In a run in seconds it
        belongs to the first step after which so much of the time is over.

        Args:
            shares: in [0, 1].
            done: steps done.
            before, after: progress before and after this step.
        """
        if self.steps is not None:
            return [share for share in shares if round(share * self.steps) == done]
        return [share for share in shares if before < share <= after]

    def expected_steps(self, done: int, progress: float) -> int:
        """Steps of the whole run; for a run in seconds an estimate from the pace so far."""
        return self.steps if self.steps is not None else max(done, round(done / max(progress, 1e-9)))
