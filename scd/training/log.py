"""The log of a training run: windowed means of its scalars as JSON lines, and notes for the reader."""

import json
import logging
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import torch
from lightning_fabric import Fabric
from torch import Tensor

REPORT_SECONDS = 0.25  # the progress callback is called at most this often

Report = Callable[[int, int, float], None]


class ScalarWindow:
    """The scalars of the steps since the last log line; values stay on the device until :meth:`settle`.

    Args:
        fabric: reduces values over processes.
        values: settled values by name, to continue from (a checkpoint inside a window).
    """

    def __init__(self, fabric: Fabric, values: dict[str, list[float]] | None = None):
        self.fabric = fabric
        self.values = {name: list(numbers) for name, numbers in (values or {}).items()}
        self.pending: list[tuple[int, float, dict[str, Tensor]]] = []
        self.latest: dict[str, float] = {}

    def add(self, step: int, lr: float, outputs: dict[str, Tensor]) -> None:
        """Keep the scalars of the step that had ``step`` steps before it, without waiting for the device."""
        self.pending.append((step, lr, {name: value.detach() for name, value in outputs.items()}))

    def settle(self) -> tuple[int, float] | None:
        """Fetch the pending values, averaged over processes, in one transfer.

        Returns:
            Step and learning rate of the first loss that is NaN or infinite (``latest`` then holds that step's
            scalars), or None.
        """
        if not self.pending:
            return None
        flat = torch.stack([value.float().reshape(()) for *_, outputs in self.pending for value in outputs.values()])
        if self.fabric.world_size > 1:
            flat = self.fabric.all_reduce(flat, reduce_op="mean")
        numbers = iter(flat.tolist())
        broken = None
        for step, lr, outputs in self.pending:
            scalars = {name: next(numbers) for name in outputs}
            for name, number in scalars.items():
                self.values.setdefault(name, []).append(number)
            if broken is None:
                self.latest = scalars
                broken = None if math.isfinite(scalars["loss"]) else (step, lr)
        self.pending.clear()
        return broken

    def means(self) -> dict[str, float]:
        """The mean of every settled scalar; the sum is exact, so a resumed run gives the same mean."""
        return {name: math.fsum(numbers) / len(numbers) for name, numbers in self.values.items()}

    def clear(self) -> None:
        """Begin a new window."""
        self.values.clear()


class RunLog:
    """``progress.jsonl`` and ``training.log`` in a run's folder.

    Args:
        folder: the run's folder, or None to write no files.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.file = None

    def open(self, step: int) -> None:
        """Open ``progress.jsonl`` to continue after ``step`` steps: later lines and an unfinished last one are cut."""
        if self.folder is None:
            return
        path = self.folder / "progress.jsonl"
        if path.exists():
            os.truncate(path, bytes_until(path, step))
        self.file = path.open("a", encoding="utf-8")

    def write(self, record: dict) -> None:
        """Append one JSON object on a line of its own."""
        if self.file is not None:
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()

    def note(self, text: str, level: int = logging.INFO) -> None:
        """Write one line to the ``scd.training`` logger, and to ``training.log`` with the time (UTC)."""
        logging.getLogger("scd.training").log(level, text)
        if self.folder is not None:
            with (self.folder / "training.log").open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}\n")

    def warn(self, text: str) -> None:
        """A note with the level WARNING, which a terminal shows."""
        self.note(text, logging.WARNING)

    def sync(self) -> None:
        """Write the lines so far to the disk, so that a checkpoint never knows more steps than the log."""
        if self.file is not None:
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the files."""
        if self.file is not None:
            self.file.close()


class Reporter:
    """Calls the progress callback at most every ``REPORT_SECONDS``, and at the end of the run.

    Args:
        callback: ``callback(step, steps, loss)``, or None.
    """

    def __init__(self, callback: Report | None):
        self.callback = callback
        self.last = -math.inf

    def __call__(self, done: int, steps: int, loss: float | None, ended: bool) -> None:
        """Report ``done`` of ``steps`` steps, unless the last report was a moment ago; the end is always reported."""
        now = perf_counter()
        if self.callback is None or loss is None or (now - self.last < REPORT_SECONDS and not ended):
            return
        self.last = now
        self.callback(done, steps, loss)


def bytes_until(path: Path, step: int) -> int:
    """How many bytes of a progress file are whole lines of at most ``step`` steps, counted from its start."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or record["step"] > step:
                break
            end += len(line)
    return end
