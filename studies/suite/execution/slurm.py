"""Runs as Slurm jobs: submitted as arrays, followed until they have ended, and found again by a later command."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from filelock import FileLock

from scd.atomic import DiskFull
from studies.suite.execution import slurm_queue
from studies.suite.execution.local import remembered_interrupts
from studies.suite.execution.progress import Bar, Launched
from studies.suite.execution.ranks import devices_of
from studies.suite.execution.run import Ending
from studies.suite.execution.slurm_batch import FOLDER, Batch, array_options, minutes, options
from studies.suite.execution.slurm_queue import SlurmError, Task
from studies.suite.execution.store import Status, Store
from studies.suite.planning.study import RunSpec

GONE_AFTER = (
    2  # looks at the queue without a job until it counts as ended: one that is queued again may be missing once
)


@dataclass
class Followed:
    """A run that is waited for.

    Attributes:
        batch, task: its job; None where another process executes the run.
        unseen: looks at the queue in a row that did not show the job.
    """

    batch: Batch | None = None
    task: Task | None = None
    unseen: int = 0


@dataclass(frozen=True)
class Array:
    """A job array to be submitted.

    Args:
        jobs: the runs of each job, by key.
        devices: of each run; alone: each job has its machine to itself.
        after: runs whose jobs must have ended before.
        continues: the array is the next part of one that Slurm would not take as a whole.
    """

    jobs: tuple[tuple[str, ...], ...]
    devices: int
    alone: bool
    after: frozenset[str] = frozenset()
    continues: bool = False


class SlurmLauncher:
    """Submits the runs that are not in the queue yet, and waits for all.

    Raises:
        UsageError: options that Slurm could not use.
    """

    def __init__(self, missing: Mapping[str, RunSpec], store: Store, launcher: Mapping[str, Any]):
        self.specs = missing
        self.store = store
        self.launcher = dict(launcher)
        self.open: dict[str, Followed] = {}
        self.result = Launched()
        for devices, alone in {(devices_of(spec), spec.alone) for spec in missing.values()}:
            options(launcher, devices, alone)

    def run(self, bar: Bar, on_end: Callable[[], None]) -> Launched:
        """Until every run has ended; Ctrl-C leaves the jobs in the queue, and says so.

        Raises:
            DiskFull: a job found no space.
            KeyboardInterrupt: Ctrl-C.
            SlurmError: Slurm does not take the jobs.
        """
        with remembered_interrupts() as interrupted:
            try:
                self.submit(self.specs)
                while self.open:
                    self.look(bar, on_end)
                    self.resubmit()
                    wait_until = time.monotonic() + self.launcher["poll_seconds"]
                    while self.open and time.monotonic() < wait_until and not interrupted.is_set():
                        time.sleep(min(0.2, self.launcher["poll_seconds"]))
                    if interrupted.is_set():
                        raise KeyboardInterrupt
            except KeyboardInterrupt:
                self.say_what_goes_on()
                raise
        return self.result

    # ---------------------------------------------------------------- submission

    def submit(self, runs: Iterable[str]) -> None:
        """Follow those of the runs that a job in the queue already has; submit the others."""
        folder = self.store.root / FOLDER
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "lock"):  # two commands at once must not both submit
            active = self._active()
            others: dict[str, set[str]] = {}
            rest = []
            for run in runs:
                spec = self.specs[run]
                found = [item for item in active if item[2].id == spec.id and item[2].key == spec.key]
                whole = [item for item in found if set(spec.evaluations) <= set(item[2].evaluations)]
                if whole:
                    self.open[run] = Followed(*whole[0][:2])
                else:
                    rest.append(run)
                    others[run] = {item[1].id for item in active if item[2].id == spec.id}
            previous: list[str] = []
            for array in arrays(rest, self.specs, self.launcher["runs_per_job"], slurm_queue.largest_array()):
                waits_for = {self.open[run].task.id for run in array.after if run in self.open and self.open[run].task}
                for run in (run for job in array.jobs for run in job):
                    waits_for |= others[run]
                if array.continues:
                    waits_for |= set(previous)
                batch = Batch.write(self.store.root, self.launcher, [{r: self.specs[r] for r in j} for j in array.jobs])
                words = options(self.launcher, array.devices, array.alone)
                words += array_options(batch, sorted(waits_for))
                job = slurm_queue.submit(words, str(batch.folder / "job.sh"))
                previous = [job]
                for index, names in enumerate(array.jobs):
                    for run in names:
                        self.open[run] = Followed(batch, Task(batch.name, job, index))

    def _active(self) -> list[tuple[Batch, Task, RunSpec]]:
        """What the jobs in the queue that belong to this store have not finished yet."""
        batches: dict[str, Batch | None] = {}
        found = []
        for task in slurm_queue.queue():
            if task.name not in batches:
                batches[task.name] = Batch.named(self.store.root, task.name)
            batch = batches[task.name]
            if batch is None:
                continue
            found += [(batch, task, spec) for run, spec in batch.jobs[task.index].items() if batch.outcome(run) is None]
        return found

    def resubmit(self) -> None:
        """Submit the runs that another process held and has left unfinished."""
        free = [run for run, followed in self.open.items() if followed.task is None and self._free(run)]
        if free:
            self.submit(free)

    def _free(self, run: str) -> bool:
        spec = self.specs[run]
        inputs = [self.store.pretraining.status(earlier.id) for earlier in spec.inputs.values()]
        return Status.RUNNING not in (self.store.status(spec), *inputs)

    # ---------------------------------------------------------------- waiting

    def look(self, bar: Bar, on_end: Callable[[], None]) -> None:
        """Look once at the queue and at the store: end the runs that have ended, move the bar of the others."""
        try:
            queued = {(task.job, task.index): task for task in slurm_queue.queue()}
        except SlurmError:
            queued = None  # the controller is away; jobs go on without it
        states = []
        for run, followed in list(self.open.items()):
            spec, task = self.specs[run], followed.task
            status = self.store.status(spec)
            outcome = followed.batch.outcome(run) if followed.batch else None
            if outcome is not None and outcome.ending is Ending.FULL:
                raise DiskFull(outcome.reason)
            if status is Status.DONE:
                self._end(run, "", bar, on_end)
            elif outcome is not None and outcome.ending is Ending.FAILED:
                self._end(run, outcome.reason, bar, on_end)
            elif task is None and status is Status.FAILED:
                self._end(run, self.store.failure(spec) or "failed in another process", bar, on_end)
            elif task is None:
                states.append("RUNNING")
            elif outcome is not None:  # another process held it, or had just finished it
                self.open[run] = Followed()
            elif queued is None:
                continue
            elif (task.job, task.index) in queued:
                followed.unseen = 0
                states.append(queued[task.job, task.index].state)
                self._move(run, bar)
            else:
                followed.unseen += 1
                if followed.unseen >= GONE_AFTER:
                    self._end(run, self._why(run, followed), bar, on_end)
        pending = states.count("PENDING")
        counted = {"running": len(states) - pending, "pending": pending}
        bar.describe(", ".join(f"{number} {name}" for name, number in counted.items() if number))

    def _end(self, run: str, reason: str, bar: Bar, on_end: Callable[[], None]) -> None:
        del self.open[run]
        if reason:
            self.result.failed[run] = reason
        else:
            self.result.done += 1
        bar.end(run, reason)
        on_end()

    def _why(self, run: str, followed: Followed) -> str:
        """Why a run's job is gone and its run not done; recorded, unless another process has the run."""
        batch, task = followed.batch, followed.task
        code, tail = batch.exit_code(task.index), batch.tail(task.index)
        how = slurm_queue.why(slurm_queue.end_state(task), code, tail, minutes(batch.launcher))
        reason = f"its Slurm job {task.id} {how} (log: {batch.log(task.index)})"
        spec = self.specs[run]
        records = self.store.records_of(spec)
        if records.status(spec.id) is not Status.DONE:
            with records.claim(spec.id) as folder:
                if folder is not None:
                    records.fail(spec.id, reason)
        return reason

    def _move(self, run: str, bar: Bar) -> None:
        """Move the bar to the last logged step of a run."""
        spec = self.specs[run]
        budget = spec.config.get("training", {}).get("budget", {})
        step = last_step(self.store.folder(spec) / "progress.jsonl")
        if step and budget.get("unit") == "steps":
            bar.at(run, step, budget["value"])

    def say_what_goes_on(self) -> None:
        """Tell which jobs go on after Ctrl-C, and how to cancel them."""
        jobs = sorted({followed.task.job for followed in self.open.values() if followed.task})
        if jobs:
            print(
                f"\nthe Slurm jobs of {len(self.open)} runs go on, and the same command follows them again; to cancel "
                f"them: scancel {' '.join(jobs)}",
                file=sys.stderr,
            )


def last_step(path) -> int:
    """The step of the last whole line of a progress file; 0 where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 4000))
            lines = file.read().split(b"\n")[:-1]
        return json.loads(lines[-1])["step"] if lines else 0
    except (OSError, ValueError):
        return 0


# ---------------------------------------------------------------- arrays


def arrays(runs: Iterable[str], specs: Mapping[str, RunSpec], runs_per_job: int, largest: int) -> list[Array]:
    """The runs as job arrays, inputs before the runs that use them.

    Args:
        runs: by key, inputs first.
        specs: by key.
        runs_per_job: how many runs share a job.
        largest: how many jobs an array may have.
    """
    by_id = {specs[run].id: run for run in specs}
    groups: dict[tuple[int, int, bool, frozenset[str]], list[str]] = {}
    depth: dict[str, int] = {}
    for run in runs:
        spec = specs[run]
        after = frozenset(by_id[earlier.id] for earlier in spec.inputs.values() if earlier.id in by_id)
        depth[run] = 1 + max((depth.get(earlier, 0) for earlier in after), default=-1)
        groups.setdefault((depth[run], devices_of(spec), spec.alone, after), []).append(run)
    found = []
    for (_, devices, alone, after), names in sorted(groups.items(), key=lambda item: item[0][0]):
        jobs = [tuple(names[start : start + runs_per_job]) for start in range(0, len(names), runs_per_job)]
        parts = [tuple(jobs[start : start + largest]) for start in range(0, len(jobs), largest)]
        first = Array(parts[0], devices, alone, after)
        found += [first, *(replace(first, jobs=part, continues=True) for part in parts[1:])]
    return found


def described(missing: Mapping[str, RunSpec], launcher: Mapping[str, Any]) -> list[str]:
    """The arrays that would be submitted, one line each: jobs, resources and time.

    Raises:
        UsageError: options that Slurm could not use.
    """
    lines = []
    for array in arrays(missing, missing, launcher["runs_per_job"], slurm_queue.largest_array()):
        resources = " ".join(options(launcher, array.devices, array.alone))
        runs = sum(map(len, array.jobs))
        shared = "" if launcher["runs_per_job"] == 1 else f" for {runs} runs"
        later = ", after the runs that they use" if array.after else ""
        jobs = f"Slurm array of {len(array.jobs)} jobs{shared}"
        lines.append(f"{jobs}, at most {launcher['at_once']} at a time{later}: {resources}")
    return lines
