"""Live curves: the training records of the runs, followed while they grow and handed to a logger of Fabric.

A run writes ``progress.jsonl`` in any case (scd/training/log.py), wherever it is executed. A tracker reads these files
in the launcher's process and knows nothing else of the runs; so it cannot change their numbers, it is no part of their
ids, and it works with every launcher. ``tracker=csv`` writes ``metrics.csv``, ``tracker=tensorboard`` event files, each
into ``STORE/tracker/KIND/PAGE/ARM-seedN-ID``.

The curve of a run is written afresh by every command, from its first line on, also where the run is finished; so a step
is in it once, however often the training was resumed.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from scd.errors import UsageError, unknown
from studies.suite.execution.store import Store
from studies.suite.planning.study import TRAINING, RunSpec

log = logging.getLogger(__name__)
TRACKERS = ("csv", "tensorboard")
FOLDER = "tracker"  # in the store; no kind of runs
SECONDS = 2.0  # between two looks at the files
OLD = ("metrics.csv", "events.out.tfevents.*")  # what an earlier command has written for a run


def check_tracker(kind: str | None) -> None:
    """Raise the one-line error for a tracker that there is not, or whose package is not installed."""
    if kind is None:
        return
    if kind not in TRACKERS:
        raise unknown("tracker", kind, TRACKERS)
    from lightning_fabric.loggers import tensorboard

    if kind == "tensorboard" and not tensorboard._TENSORBOARD_AVAILABLE and not tensorboard._TENSORBOARDX_AVAILABLE:
        raise UsageError(
            f"tracker=tensorboard needs the package tensorboard: {sys.executable} -m pip install tensorboard; "
            "tracker=csv needs none"
        )


class Curve:
    """One run's training record, and the logger that gets its lines.

    Args:
        record: its progress.jsonl, which need not be there yet.
        kind: of the tracker; folder: what the logger writes to.
    """

    def __init__(self, record: Path, kind: str, folder: Path):
        self.record, self.kind, self.folder = record, kind, folder
        self.logger: Any = None
        self.seen: tuple[int, int] = (0, 0)  # of the record: time of its last change, and size
        self.last = -1  # step of the last line that the logger has

    def follow(self) -> int:
        """Hand the logger the lines of further steps; how many they were."""
        try:
            stat = self.record.stat()
        except FileNotFoundError:
            return 0
        if (stat.st_mtime_ns, stat.st_size) == self.seen:
            return 0
        lines = [line for line in lines_of(self.record) if line["step"] > self.last]
        for line in lines:
            if self.logger is None:
                self.logger = new_logger(self.kind, self.folder)
            self.logger.log_metrics(numbers_of(line), line["step"])
            self.last = line["step"]
        if lines:
            self.logger.save()
        self.seen = (stat.st_mtime_ns, stat.st_size)
        return len(lines)

    def close(self) -> None:
        """End the logger."""
        if self.logger is not None:
            self.logger.finalize("success")


class Tracker:
    """Follows several runs in a thread of its own; to be used in a ``with`` block.

    A tracker that fails, for want of space for example, says so once and stops; the runs go on.
    """

    def __init__(self, curves: list[Curve], seconds: float = SECONDS):
        self.curves, self.seconds = curves, seconds
        self.ended, self.failed = threading.Event(), False
        self.thread = threading.Thread(target=self._watch, name="tracker", daemon=True)

    def __enter__(self) -> "Tracker":
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self.thread.join()
        self._guarded(lambda curve: curve.follow())  # what came after the thread's last look
        self._guarded(lambda curve: curve.close())

    def _watch(self) -> None:
        while not self.failed:
            self._guarded(lambda curve: curve.follow())
            if self.ended.wait(self.seconds):
                return

    def _guarded(self, do: Any) -> None:
        try:
            for curve in self.curves if not self.failed else ():
                do(curve)
        except Exception as error:  # of a library that runs beside the training; it must not end the study
            self.failed = True
            log.warning("the tracker has stopped (%s: %s); the runs go on", type(error).__name__, error)


@contextmanager
def tracked(
    kind: str | None, runs: Mapping[str, RunSpec], store: Store, page: str, seconds: float = SECONDS
) -> Iterator[Path | None]:
    """Follow the runs of a study inside the block; the folder of their curves, None without a tracker.

    Args:
        kind: of TRACKERS; None: off.
        runs: those that are executed, by any key; measurements have no curve.
        page: name of the study's page, which the folder is called after.

    Raises:
        UsageError: as of :func:`check_tracker`.
    """
    check_tracker(kind)
    if kind is None:
        yield None
        return
    folder = store.root / FOLDER / kind / page
    curves = [
        Curve(store.folder(spec) / "progress.jsonl", kind, folder / title_of(spec))
        for spec in runs.values()
        if spec.kind == TRAINING
    ]
    with Tracker(curves, seconds):
        yield folder


def title_of(spec: RunSpec) -> str:
    """What a run's curve is called: its arm, its seed and its id."""
    arm = re.sub(r"[^\w.-]+", "_", str(spec.labels.get("arm", "run")))
    return f"{arm}-seed{spec.labels.get('seed', spec.config['seed'])}-{spec.id}"


def new_logger(kind: str, folder: Path) -> Any:
    """A logger of Fabric that writes to a folder, without what an earlier one has left there."""
    for pattern in OLD:
        for path in folder.glob(pattern):
            path.unlink()
    if kind == "csv":
        from lightning_fabric.loggers import CSVLogger

        return CSVLogger(folder.parent, name="", version=folder.name)
    from lightning_fabric.loggers import TensorBoardLogger

    # purge_step: a TensorBoard that is looking on forgets what the removed files said
    return TensorBoardLogger(folder.parent, name="", version=folder.name, purge_step=0)


def lines_of(record: Path) -> list[dict[str, Any]]:
    """The complete lines of a training record; the last one may be in the making."""
    found = []
    for text in record.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not text.endswith("\n"):
            break
        found.append(line)
    return found


def numbers_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line, but for its step."""
    return {
        name: value
        for name, value in line.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }
