"""What a run keeps between two steps, and its way to the disk and back."""

import math
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from scd.errors import UsageError
from scd.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from scd.training.log import RunLog, ScalarWindow
from scd.training.phase_timer import PhaseClock


class NonFiniteLoss(UsageError):
    """Training broke down: the loss, or the state after a step, is NaN or infinite; the text says what to try.

    Attributes:
        step: steps done before the one that broke.
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


class RunState:
    """All that a run has between two steps: weights, optimiser, counters, the open log window, the time used.

    Args:
        method: the unwrapped method.
        optimizer: its optimiser.
        fabric: launched.
        folder: the run's folder, or None to keep nothing.
        log: where notes go.
        identity: what a checkpoint must agree on with a run that goes on from it (seed, steps, processes).
    """

    def __init__(
        self,
        method: nn.Module,
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
        self.clock = PhaseClock(fabric.device)
        self.saved: int | None = None

    # ---------------------------------------------------------------- finite or not

    def settle(self) -> None:
        """Fetches pending scalars and times.

        Raises:
            NonFiniteLoss: one of the losses is NaN or infinite.
        """
        broken = self.window.settle()
        self.clock.settle()
        if broken is not None:
            self.fail(f"the loss is {self.window.latest['loss']:g}", *broken)

    def check(self) -> None:
        """Looks at every weight, buffer and optimiser state; all processes look and agree.

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
        """Raises the one line that says what broke, where, and what to try."""
        numbers = [f"lr {lr:.4g}"] + [f"{name} {value:.4g}" for name, value in self.window.latest.items()]
        tries = "a lower optimizer.lr or a longer schedule.warmup_epochs"
        if "bf16" in str(self.fabric.strategy.precision.precision):
            tries += ", or training.precision=32-true"
        kept = "" if self.saved is None else f"; the checkpoint of step {self.saved} is finite"
        text = f"{what} at step {step} ({', '.join(numbers)}): try {tries}{kept}"
        raise NonFiniteLoss(text, step, lr, dict(self.window.latest))

    # ---------------------------------------------------------------- to the disk and back

    def save(self) -> None:
        """Writes a checkpoint, if the state is finite; the first process writes, all wait for it."""
        self.check()
        if self.folder is None:
            return
        if self.fabric.is_global_zero:
            state = {
                "format": 1,
                "identity": self.identity,
                "step": self.step,
                "images": self.images,
                "losses": self.losses,
                "window": self.window.values,
                "latest": self.window.latest,
                "seconds": self.clock.seconds,
                "total_seconds": self.clock.total,
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
            self.log.sync()
            save_checkpoint(self.folder / "checkpoints", self.step, state)
        self.fabric.barrier()
        self.saved = self.step

    def resume(self) -> int | None:
        """Goes on from the newest whole checkpoint and cuts the log to it; returns its step, None for a fresh start.

        Raises:
            UsageError: the checkpoint belongs to another run.
        """
        path = None
        if self.folder is not None and self.fabric.is_global_zero:
            path = newest_checkpoint(self.folder / "checkpoints", self.log.warn)
        path = self.fabric.broadcast(path)
        if path is not None:
            self.restore(path, load_checkpoint(path))
            self.saved = self.step
            self.log.note(f"resumed from step {self.step} ({path.name})")
        elif self.log.notes:
            self.log.warn("no whole checkpoint is left: starting again from step 0")
        self.log.open(self.step)
        return self.saved

    def restore(self, path: Path, state: dict) -> None:
        """Takes over the state of a checkpoint.

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
        self.clock.seconds.update(state["seconds"])
        self.clock.total = state["total_seconds"]
