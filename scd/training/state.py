"""What a training run keeps between two steps, saved to a checkpoint and restored from it."""

import math
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from scd.errors import UsageError
from scd.method import Method
from scd.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from scd.training.log import RunLog, ScalarWindow
from scd.training.phase_timer import PhaseTimer


class NonFiniteLoss(UsageError):
    """The loss, or the state after a step, is NaN or infinite; the text says what to try.

    Attributes:
        step: steps done before the one that failed.
        lr: the learning rate at that step.
        scalars: what the method logged at that step.
    """

    def __init__(self, text: str, step: int, lr: float, scalars: dict[str, float]):
        super().__init__(text)
        self.step = step
        self.lr = lr
        self.scalars = scalars

    def __reduce__(self):
        return type(self), (self.args[0], self.step, self.lr, self.scalars)


class Stopped(BaseException):
    """The work was asked to stop, and what it needs to go on later is saved; no error, therefore no Exception."""


class TrainingState:
    """Weights, optimiser, counters, the open log window and the time used.

    Args:
        method: the unwrapped method.
        optimizer: its optimiser.
        fabric: launched.
        folder: the run's folder, or None to save nothing.
        log: receives notes.
        identity: what a checkpoint and a run that continues from it must have in common (seed, steps, processes).

    Attributes:
        step: optimiser steps done; images: source images seen, of all processes together.
        losses: means of the last complete log window.
        saved: step of the last checkpoint, or None.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        fabric: Fabric,
        folder: Path | None,
        log: RunLog,
        identity: dict,
    ):
        self.method = method
        self.optimizer = optimizer
        self.fabric = fabric
        self.folder = folder
        self.log = log
        self.identity = identity
        self.step = 0
        self.images = 0
        self.losses: dict[str, float] = {}
        self.window = ScalarWindow(fabric)
        self.timer = PhaseTimer(fabric.device)
        self.saved: int | None = None

    # ---------------------------------------------------------------- finite or not

    def settle(self) -> None:
        """Fetch pending scalars and times.

        Raises:
            NonFiniteLoss: one of the losses is NaN or infinite.
        """
        broken = self.window.settle()
        self.timer.settle()
        if broken is not None:
            self.fail(f"the loss is {self.window.latest['loss']:g}", *broken)

    def check(self) -> None:
        """Check that every weight, buffer and optimiser state is finite, on all processes.

        Raises:
            NonFiniteLoss: a value is NaN or infinite. A finite loss does not exclude it: its gradient may not be.
        """
        named = list(self.method.state_dict().items())
        for slot in self.optimizer.state_dict()["state"].values():
            named += [(f"the optimiser's {name}", value) for name, value in slot.items()]
        named = [(name, value) for name, value in named if isinstance(value, Tensor) and value.is_floating_point()]
        finite = torch.stack([value.isfinite().all().to(self.fabric.device) for _, value in named]).float()
        if self.fabric.world_size > 1:
            finite = self.fabric.all_reduce(finite, reduce_op="mean")
        broken = [name for (name, _), share in zip(named, finite.tolist(), strict=True) if share < 1]
        if broken:
            what = f"{broken[0]} is NaN or infinite ({len(broken)} of {len(named)} tensors are), the loss was not,"
            self.fail(what, self.step - 1, self.optimizer.param_groups[0]["lr"])

    def fail(self, what: str, step: int, lr: float) -> None:
        """Raise the one-line error that says what is not finite, at which step, and what to try."""
        numbers = [f"lr {lr:.4g}"] + [f"{name} {value:.4g}" for name, value in self.window.latest.items()]
        tries = "a lower optimizer.lr or a longer schedule.warmup_epochs"
        if "bf16" in str(self.fabric.strategy.precision.precision):
            tries += ", or training.precision=32-true"
        kept = "" if self.saved is None else f"; the checkpoint of step {self.saved} is finite"
        text = f"{what} at step {step} ({', '.join(numbers)}): try {tries}{kept}"
        raise NonFiniteLoss(text, step, lr, dict(self.window.latest))

    # ---------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Write a checkpoint if the state is finite; the first process writes, all wait for it."""
        self.check()
        if self.folder is None:
            return
        if self.fabric.is_global_zero:
            state = {
                "identity": self.identity,
                "step": self.step,
                "images": self.images,
                "losses": self.losses,
                "window": self.window.values,
                "latest": self.window.latest,
                "seconds": self.timer.seconds,
                "total_seconds": self.timer.total,
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
            self.log.sync()
            save_checkpoint(self.folder / "checkpoints", self.step, state)
        self.fabric.barrier()
        self.saved = self.step

    def resume(self) -> None:
        """Continue from the newest whole checkpoint, if there is one, and cut the log back to it.

        Raises:
            UsageError: the checkpoint belongs to another run.
        """
        path, set_aside = None, []
        if self.folder is not None and self.fabric.is_global_zero:
            path = newest_checkpoint(self.folder / "checkpoints", set_aside.append)
        for text in set_aside:
            self.log.warn(text)
        path = self.fabric.broadcast(path)
        if path is not None:
            self.restore(path, load_checkpoint(path))
            self.saved = self.step
            self.log.note(f"resumed from step {self.step} ({path.name})")
        elif set_aside:
            self.log.warn("no whole checkpoint is left: starting again from step 0")
        self.log.open(self.step)

    def restore(self, path: Path, state: dict) -> None:
        """Take over the state of a checkpoint.

        Raises:
            UsageError: it is of a run with another seed or length, or of another method or optimiser.
        """
        for name, value in self.identity.items():
            if (was := state["identity"].get(name, math.nan)) != value:
                raise UsageError(f"{path} is of a run with {name}={was}, not {value}: use another folder for this run")
        try:
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"{path} is of another method or optimiser: {reason}") from error
        self.step = state["step"]
        self.images = state["images"]
        self.losses = state["losses"]
        self.window = ScalarWindow(self.fabric, state["window"])
        self.window.latest = state["latest"]
        self.timer.restore(state["seconds"], state["total_seconds"])
