"""What every launcher shares: the outcome of its runs, one progress bar over them, and the runtime of a run."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from studies.suite.execution.clock import Clock


@dataclass
class Launched:
    """The outcome of the runs that were asked for: how many were finished, and why some failed."""

    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)


class Bar:
    """One progress bar over the training steps of all runs, each weighted by its cost; its ETA counts new work only.

    Args:
        work: run -> its cost; finished: runs that need none; total: number of runs.
        ids: run -> its id, the name of its folder, for messages.
        clock: the time that is left is shown behind the ETA of these runs; None without a limit.
    """

    def __init__(
        self,
        work: Mapping[str, float],
        finished: list[str],
        total: int,
        ids: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ):
        self.work = work
        self.ids = ids or {}
        self.clock = clock
        self.total = total
        self.shares = dict.fromkeys(finished, 1.0)
        self.finished = set(finished)
        self.failed: set[str] = set()
        self.tqdm = tqdm(
            total=sum(work.values()) * (1 + 1e-9),  # sums of shares may exceed it by a rounding error
            initial=sum(work[run] for run in finished),
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            smoothing=0.02,
            dynamic_ncols=True,
            file=sys.stderr,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
        )
        self.describe()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self.tqdm.close()

    def at(self, run: str, step: int, steps: int) -> None:
        """A run has done ``step`` of ``steps``; evaluation is the last tenth of its bar at most."""
        self._move(run, 0.95 * step / max(1, steps))

    def end(self, run: str, failed: str = "") -> None:
        """A run has ended."""
        self._move(run, 1.0)
        (self.failed if failed else self.finished).add(run)
        self.describe()
        if failed:
            self.tqdm.write(f"run {self.ids.get(run, run)} failed: {failed}", file=sys.stderr)

    def describe(self, queue: str = "") -> None:
        """Write in front of the bar how many runs are finished and failed, and what else is known of the others."""
        failed = f"{len(self.failed)} failed" if self.failed else ""
        parts = [f"{len(self.finished)} of {self.total} runs", failed, queue]
        text = ", ".join(part for part in parts if part)
        if text != self.tqdm.desc:  # each call writes a line where the terminal is a file
            self.tqdm.set_description_str(text)

    def _move(self, run: str, share: float) -> None:
        if self.clock is not None:
            left = f"{self.clock.left / 60:.1f} of {self.clock.minutes:g} min left"
            self.tqdm.set_postfix_str(left, refresh=False)
        self.tqdm.update((share - self.shares.get(run, 0.0)) * self.work[run])
        self.shares[run] = share


def runtime_of(
    launcher: Mapping[str, Any],
    progress: Callable[[int, int, float], None] | None = None,
    device: int = 0,
    stop: Callable[[], bool] | None = None,
):
    """The launcher's options as the runtime of a run."""
    from studies.suite.execution.pretraining import Runtime

    return Runtime(
        device=device,
        loader_workers=launcher["loader_workers"],
        checkpoint_seconds=launcher["checkpoint_seconds"],
        progress=progress,
        stop=stop,
    )
