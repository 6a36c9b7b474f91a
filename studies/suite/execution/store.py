"""The store: finished runs are never repeated, and a partly written record is never used.

``ROOT/pretraining/ID/`` holds config.json, progress.jsonl, checkpoints while the run trains, the weights, then
record.json, environment.json and, written last, ``done`` with the checksum of the record. ``ROOT/evaluations/ID/`` and
``ROOT/measurements/ID/`` hold the same without the training's files. A run that failed has failure.json instead. The
lock files lie beside the folders, in ``.locks``; the operating system frees a lock when its process ends, however it
ends.
"""

import hashlib
import json
import logging
import os
import shutil
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scd.atomic import DiskFull, write_text
from scd.errors import UsageError
from studies.suite.execution.numerics import recorded_class
from studies.suite.planning.study import TRAINING, RunSpec

log = logging.getLogger(__name__)
CLAIM_SECONDS = 1.0  # reading a run's status holds its lock for a moment, executing it for long


class Status(StrEnum):
    """The state of a run, from its folder."""

    MISSING = "missing"  # never started
    RUNNING = "running"  # some process holds its lock
    INTERRUPTED = "interrupted"  # started, not finished, not locked; will resume
    FAILED = "failed"  # ended with an error, which is recorded: tried again by the next study
    DONE = "done"
    CORRUPT = "corrupt"  # marked as done, but its record does not match the checksum: set aside and run again


class Records:
    """Runs of one kind under ``root``; any number of processes may use it at once."""

    def __init__(self, root: Path | str):
        self.root = Path(root)
        try:
            (self.root / ".locks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the store '{self.root}' cannot be made: {error.strerror or error}") from error

    def folder(self, run: str) -> Path:
        """The run's folder, whether it exists or not."""
        return self.root / run

    # ---------------------------------------------------------------- reading

    def status(self, run: str) -> Status:
        """Status of a run, without changing anything."""
        folder = self.folder(run)
        if (folder / "done").exists():
            return Status.DONE if is_intact(folder) else Status.CORRUPT
        if self._locked(run):
            return Status.RUNNING
        if not folder.exists():
            return Status.MISSING
        return Status.FAILED if (folder / "failure.json").exists() else Status.INTERRUPTED

    def record(self, run: str) -> dict[str, Any] | None:
        """The finished run's numbers, or None where it is not finished or does not match its checksum."""
        folder = self.folder(run)
        if not is_intact(folder):
            return None
        return json.loads((folder / "record.json").read_text(encoding="utf-8"))

    def environment(self, run: str) -> dict[str, Any] | None:
        """The machine and libraries that made the record."""
        return read_json(self.folder(run) / "environment.json")

    def is_foreign(self, run: str, here: str) -> bool:
        """Whether the run is finished and its record is of another numerics class than ``here``, or of none."""
        return self.status(run) is Status.DONE and recorded_class(self.environment(run)) != here

    def failure(self, run: str) -> str | None:
        """Why the run failed, in one line."""
        found = read_json(self.folder(run) / "failure.json")
        return found["reason"] if found else None

    def finished(self) -> Iterator[dict[str, Any]]:
        """The records of all finished runs of the store, of whatever study."""
        for done in sorted(self.root.glob("*/done")):
            record = self.record(done.parent.name)
            if record is not None:
                yield record

    # ---------------------------------------------------------------- writing

    @contextmanager
    def claim(self, run: str) -> Iterator[Path | None]:
        """Hold the run: its folder, ready to be (re)started, or None if it is finished or another process holds it."""
        lock = FileLock(self._lock_path(run))
        try:
            lock.acquire(timeout=CLAIM_SECONDS, poll_interval=0.01)
        except Timeout:
            yield None
            return
        try:
            folder = self.folder(run)
            if (folder / "done").exists():
                if is_intact(folder):
                    yield None
                    return
                self._set_aside(folder)
            folder.mkdir(exist_ok=True)
            for leftover in folder.glob(".writing-*"):
                leftover.unlink()
            yield folder
        finally:
            lock.release()

    def begin(self, run: str, config: Mapping[str, Any]) -> None:
        """Write the configuration of a claimed run; an earlier failure is forgotten."""
        folder = self.folder(run)
        write_json(folder / "config.json", config)
        (folder / "failure.json").unlink(missing_ok=True)

    def finish(self, run: str, record: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Write the record of a claimed run, then its environment, then ``done``.

        Raises:
            ValueError: the record is empty.
        """
        if not record:
            raise ValueError(f"the record of run {run} is empty")
        folder = self.folder(run)
        write_json(folder / "environment.json", environment)
        text = json.dumps(record, indent=1)
        write_text(folder / "record.json", text)
        write_text(folder / "done", _checksum(text.encode()))

    def fail(self, run: str, reason: str, error: BaseException | None = None) -> None:
        """Record why a claimed run failed; if even that cannot be written, the log says so."""
        details = "".join(traceback.format_exception(error)) if error else ""
        try:
            self.folder(run).mkdir(exist_ok=True)
            write_json(self.folder(run) / "failure.json", {"reason": reason, "traceback": details})
        except (OSError, DiskFull) as problem:
            log.warning("run %s failed (%s) and its failure could not be recorded: %s", run, reason, problem)

    def move_away(self, run: str) -> None:
        """Keep a run under ``.foreign``, where it is no run of the store any more.

        Raises:
            UsageError: another process works on it.
        """
        try:
            with FileLock(self._lock_path(run), timeout=CLAIM_SECONDS):
                folder, number = self.root / ".foreign", 1
                folder.mkdir(exist_ok=True)
                while (folder / f"{run}-{number}").exists():
                    number += 1
                os.replace(self.folder(run), folder / f"{run}-{number}")
        except Timeout as error:
            raise UsageError(f"run {run} is in use by another process; wait until it has ended") from error

    # ---------------------------------------------------------------- inside

    def _set_aside(self, folder: Path) -> None:
        """Keep a record that does not match its checksum under another name, and log it."""
        number = 1 + len(list(folder.glob("done.corrupt-*")))
        record = folder / "record.json"
        if record.exists():
            os.replace(record, folder / f"record.json.corrupt-{number}")
        os.replace(folder / "done", folder / f"done.corrupt-{number}")
        log.warning("run %s: its record does not match its checksum; set aside as record.json.corrupt-%d, run again",
                    folder.name, number)  # fmt: skip

    def _lock_path(self, run: str) -> Path:
        return self.root / ".locks" / run

    def _locked(self, run: str) -> bool:
        if not self._lock_path(run).exists():
            return False
        lock = FileLock(self._lock_path(run), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return True
        lock.release()
        return False


class Store:
    """All runs of the suite: pretrainings, their evaluations, and measurements of cost."""

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self.pretraining = Records(self.root / "pretraining")
        self.evaluations = Records(self.root / "evaluations")
        self.measurements = Records(self.root / "measurements")

    def old_runs(self) -> int:
        """How many runs of an older version of the suite lie in the store; they are left as they are."""
        known = ("pretraining", "evaluations", "measurements")
        return sum(path.parent.name not in known for path in self.root.glob("*/config.json"))

    def records_of(self, spec: RunSpec) -> Records:
        """Where the spec's own record is kept."""
        return self.pretraining if spec.kind == TRAINING else self.measurements

    def folder(self, spec: RunSpec) -> Path:
        """The folder of the pretraining or measurement, whether it exists or not."""
        return self.records_of(spec).folder(spec.id)

    def status(self, spec: RunSpec) -> Status:
        """The status of a run with all of its evaluations: done only if every part is done."""
        own = self.records_of(spec).status(spec.id)
        if own is not Status.DONE:
            return own
        parts = {self.evaluations.status(evaluation) for evaluation in spec.evaluations}
        for status in (Status.RUNNING, Status.FAILED, Status.CORRUPT, Status.INTERRUPTED):
            if status in parts:
                return status
        return Status.INTERRUPTED if Status.MISSING in parts else Status.DONE

    def record(self, spec: RunSpec, further: Iterable[str] = ()) -> dict[str, Any] | None:
        """The numbers of a run: of its training, and of every finished evaluation.

        Args:
            further: ids of evaluations that are added where they are finished.

        Returns:
            None where the pretraining (or measurement) is not finished.
        """
        numbers = self.records_of(spec).record(spec.id)
        if numbers is None:
            return None
        for evaluation in (*further, *spec.evaluations):
            numbers = {**numbers, **(self.evaluations.record(evaluation) or {}).get("numbers", {})}
        return numbers

    def failure(self, spec: RunSpec) -> str | None:
        """Why the run, or one of its evaluations, failed; in one line."""
        own = self.records_of(spec).failure(spec.id)
        if own or self.records_of(spec).status(spec.id) is not Status.DONE:
            return own
        for evaluation, protocol in spec.evaluations.items():
            if reason := self.evaluations.failure(evaluation):
                return f"{protocol['name']}: {reason}"
        return None

    def seconds(self, spec: RunSpec) -> float:
        """Time spent in the finished parts of a run."""
        parts = [self.records_of(spec).record(spec.id) or {}]
        parts += [self.evaluations.record(evaluation) or {} for evaluation in spec.evaluations]
        return sum(part.get("seconds", 0.0) + part.get("seconds_pretrain", 0.0) for part in parts)

    def environment(self, spec: RunSpec) -> dict[str, Any] | None:
        """The machine and libraries that made the run's own record."""
        return self.records_of(spec).environment(spec.id)

    def numerics(self, spec: RunSpec, further: Iterable[str] = ()) -> str:
        """The numerics class of a run's numbers: of training and finished evaluations, "a+b" where they differ.

        Args:
            further: as for :meth:`record`.
        """
        found = [recorded_class(self.environment(spec))]
        for evaluation in dict.fromkeys((*further, *spec.evaluations)):
            if self.evaluations.status(evaluation) is Status.DONE:
                found.append(recorded_class(self.evaluations.environment(evaluation)))
        return "+".join(sorted(set(found))) if any(found) else ""

    def forget_foreign(self, runs: Mapping[str, RunSpec], here: str) -> int:
        """Put aside what was finished in another numerics class, so that it is computed again; returns how many runs.

        A pretraining goes with all of its evaluations, also those of other studies, and with the runs that use it as
        an input; they are kept in ``.foreign`` beside the others.

        Args:
            runs: by key, inputs before the runs that use them.
            here: the class to keep.

        Raises:
            UsageError: another process works on one of them.
        """
        pretrainings, touched = set(), 0
        for spec in runs.values():
            own = self.records_of(spec)
            uses_forgotten = any(earlier.id in pretrainings for earlier in spec.inputs.values())
            if own.status(spec.id) is Status.DONE and (uses_forgotten or own.is_foreign(spec.id, here)):
                pretrainings.add(spec.id)
                evaluations = self._evaluations_of(spec.id)
                own.move_away(spec.id)
            else:
                evaluations = [each for each in spec.evaluations if self.evaluations.is_foreign(each, here)]
            for evaluation in evaluations:
                self.evaluations.move_away(evaluation)
            touched += spec.id in pretrainings or bool(evaluations)
        return touched

    def _evaluations_of(self, pretraining: str) -> list[str]:
        """All evaluations of a pretraining that were ever begun, of whatever study."""
        configs = sorted(self.evaluations.root.glob("*/config.json"))
        return [path.parent.name for path in configs if (read_json(path) or {}).get("pretraining") == pretraining]


def is_intact(folder: Path) -> bool:
    """Whether the record in a run's folder is the one that was marked as done."""
    try:
        expected = (folder / "done").read_text(encoding="utf-8").strip()
        record = (folder / "record.json").read_bytes()
        return record.strip() != b"{}" and _checksum(record) == expected
    except (OSError, UnicodeDecodeError):
        return False


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON so that the file is either the old or the new one, never half of it."""
    write_text(path, json.dumps(value, indent=1))


def remove(path: Path) -> None:
    """Remove a folder or file that may not exist."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file; None where it cannot be read or holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
