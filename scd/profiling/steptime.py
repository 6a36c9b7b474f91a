"""Seconds of real training steps, as a whole and by phase; the same calls in the same order as the training loop's.

A whole step is timed without any hook. The phases are timed in steps of their own, with hooks at the parts' borders,
and the price of that is measured, too: :attr:`Stepper.block` is called with and without a clock in turn.
"""

from time import perf_counter

import torch
from torch import Tensor, nn

from scd.data.views import ViewMaker
from scd.profiling.parts import PARTS, PartStack
from scd.training.optimizers import build_optimizer, clip_each

VIEWS, BACKWARD, OPTIMISER, STATE = "views", "backward", "optimiser", "EMA and queue"
PHASES = (VIEWS, *PARTS, BACKWARD, OPTIMISER, STATE)


class PhaseTimes:
    """Seconds by phase; on CUDA every border waits for the device."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.mark = 0.0

    def start(self) -> None:
        """What passes from here on belongs to the phase that ends next."""
        synchronise(self.device)
        self.mark = perf_counter()

    def end(self, phase: str) -> None:
        """A phase ends here, and the next one begins."""
        synchronise(self.device)
        now = perf_counter()
        self.seconds[phase] += now - self.mark
        self.mark = now


class Stepper:
    """Trains a method in blocks of a few steps, without log, checkpoint and progress bar.

    Args:
        method: on its device, in training mode.
        view_maker: on the same device; a block has as many steps as it makes views for at once.
        images: (N, 3, S, S) uint8 on that device; each step takes the next ``batch_size`` of them.
        batch_size: source images per step.
        optimizer: options of :func:`scd.training.optimizers.build_optimizer`, and ``clip`` as the training loop knows it.
        steps: steps of a block; the view maker's ``steps_at_once`` when None.
    """

    def __init__(
        self,
        method: nn.Module,
        view_maker: ViewMaker,
        images: Tensor,
        batch_size: int,
        optimizer: dict,
        steps: int | None = None,
    ):
        self.method = method.train()
        self.view_maker = view_maker
        self.images = images
        self.batch_size = batch_size
        self.clip = optimizer.get("clip")
        self.optimizer = build_optimizer(method, **{key: value for key, value in optimizer.items() if key != "clip"})
        self.steps = view_maker.steps_at_once if steps is None else steps
        self.done = 0

    @property
    def images_per_block(self) -> int:
        """Source images of one block."""
        return self.steps * self.batch_size

    def block(self, times: PhaseTimes | None = None) -> float:
        """Seconds of one block; with ``times``, its phases are added to them and hooks are at work."""
        synchronise(self.images.device)
        began = perf_counter()
        if times is None:
            self._train(lambda: None, lambda phase: None)
        else:
            stack = PartStack(self.method, lambda before, after: times.end(before))
            times.start()
            with stack.watching():
                self._train(times.start, times.end, stack.root)
        synchronise(self.images.device)
        return perf_counter() - began

    def _train(self, start, end, root: str = "") -> None:
        at_once = self.view_maker.steps_at_once
        for first in range(0, self.steps, at_once):
            numbers = range(self.done, self.done + min(at_once, self.steps - first))
            made = self.view_maker.several([self._batch(step) for step in numbers], numbers, [None] * len(numbers))
            end(VIEWS)
            for views in made:
                loss = self.method(views)["loss"]
                end(root)
                loss.backward()
                end(BACKWARD)
                if self.clip is not None:
                    clip_each(self.method, self.clip)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                end(OPTIMISER)
                with torch.no_grad():
                    self.method.after_step(0.5)
                end(STATE)
            self.done += len(numbers)
            start()

    def _batch(self, step: int) -> Tensor:
        first = step * self.batch_size % (len(self.images) - self.batch_size + 1)
        return self.images[first : first + self.batch_size]


def synchronise(device: torch.device) -> None:
    """Wait for a GPU; the CPU has nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
