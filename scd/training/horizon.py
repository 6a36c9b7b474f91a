"""How far a run has come, by steps or by the clock, and what follows from it: rate, progress, end."""

from dataclasses import dataclass

from lightning_fabric import Fabric

from scd.training.phase_timer import PhaseClock
from scd.training.schedules import Schedule


@dataclass
class Course:
    """The length of a run and its schedule.

    Args:
        steps: steps of the whole run, or None for a run that lasts ``max_seconds``.
        max_seconds: time in views and steps; the whole run's when ``steps`` is None, otherwise a cap, or None.
        steps_per_epoch: whole batches in an epoch.
        base_lr: the optimiser's rate, which the schedule multiplies.
        schedule: the learning rate's way.
        fabric: brings all processes to one opinion about the time.
        clock: measures the time.
    """

    steps: int | None
    max_seconds: float | None
    steps_per_epoch: int
    base_lr: float
    schedule: Schedule
    fabric: Fabric
    clock: PhaseClock

    def seconds(self) -> float:
        """The first process's time so far, on all processes."""
        if self.fabric.world_size == 1:
            return self.clock.total
        return self.fabric.broadcast(self.clock.total)

    def progress(self, done: int) -> float:
        """The share in [0, 1] of the run that lies behind after ``done`` steps."""
        if self.steps is None:
            return min(1.0, self.seconds() / self.max_seconds)
        return done / self.steps

    def learning_rate(self, step: int, progress: float) -> float:
        """The rate at a step, by its number or by the share of the time that was used up before it."""
        if self.steps is None:
            return self.base_lr * self.schedule.factor_by_time(progress, step, self.steps_per_epoch)
        return self.base_lr * self.schedule.factor(step, self.steps, self.steps_per_epoch)

    def weight_decay(self, base: float, progress: float) -> float:
        """The weight decay of a parameter group after a share of the run."""
        return self.schedule.weight_decay(base, progress)

    def ended(self, done: int, progress: float) -> str:
        """Why the run is over after ``done`` steps: "steps", "seconds", or "" when it goes on."""
        if self.steps is None:
            return "seconds" if progress >= 1 else ""
        if done >= self.steps:
            return "steps"
        if self.max_seconds is not None and self.seconds() >= self.max_seconds:
            return "seconds"
        return ""

    def expected_steps(self, done: int, progress: float) -> int:
        """The steps of the whole run; by the clock an estimate from the pace so far."""
        return self.steps if self.steps is not None else max(done, round(done / max(progress, 1e-9)))
