"""Seconds of real training steps, as a whole and by phase; the steps are those of the training loop.

A whole step is timed without any hook. The phases are timed in steps of their own, with hooks where parts begin.
:meth:`Stepper.block` with and without a timer in turn shows what the hooks cost.
"""

from time import perf_counter

import torch

from scd.data.views import ViewMaker
from scd.profiling.parts import PartTracker, part_names
from scd.profiling.workload import Workload
from scd.training.loop import stream
from scd.training.optimizers import build_optimizer
from scd.training.phase_timer import PhaseTimer
from scd.training.step import take_step

AFTER_FORWARD = ("backward", "optimizer", "after_step")


class Stepper:
    """Trains a method in blocks of a few steps, without log, checkpoint and progress report.

    Args:
        workload: the method and how it is trained.
        steps: steps of a block.
        steps_at_once: steps whose views are made together; those of a block when None.
    """

    def __init__(self, workload: Workload, steps: int, steps_at_once: int | None = None):
        self.method = workload.method.to(workload.device).train()
        self.device = workload.device
        self.clip = workload.optimizer.get("clip")
        options = {key: value for key, value in workload.optimizer.items() if key != "clip"}
        self.optimizer = build_optimizer(self.method, **options)
        self.steps = steps
        at_once = steps if steps_at_once is None else steps_at_once
        maker = ViewMaker(workload.recipe, 0, self.device, needs=self.method.needs, steps_at_once=at_once)
        self.batches = stream(maker, workload.batches())
        self.images_per_block = steps * workload.batch_size

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases of a step, in their order; the forward pass is split into the method's parts."""
        return ("views", *part_names(self.method), *AFTER_FORWARD)

    def block(self, timer: PhaseTimer | None = None) -> float:
        """Seconds of one block; with ``timer``, which receives the phases, hooks are active."""
        synchronise(self.device)
        began = perf_counter()
        if timer is None:
            self._train(None)
        else:
            tracker = PartTracker(self.method, lambda part, _: timer.lap(part))
            timer.start()
            with tracker.watching():
                self._train(timer)
            timer.settle()
            timer.seconds[tracker.current] += timer.seconds.pop("forward", 0.0)  # after the last module's end
        synchronise(self.device)
        return perf_counter() - began

    def _train(self, timer: PhaseTimer | None) -> None:
        for _ in range(self.steps):
            _, batch = next(self.batches)
            if timer is not None:
                timer.lap("views")
            take_step(self.method, self.method, batch, self.optimizer, 0.5, clip=self.clip, timer=timer)


def synchronise(device: torch.device) -> None:
    """Wait for a GPU; the CPU has nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
