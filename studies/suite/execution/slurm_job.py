"""What a process of a Slurm job executes: ``python -m studies.suite.execution.slurm_job FOLDER INDEX``.

Slurm sends SIGUSR2 shortly before the job's time is over, and SIGTERM where it cancels or pre-empts the job. Training
then stops after its current step with a checkpoint; anything else is given up after a while. A job whose time is over
goes back into the queue if it has made progress since it was started.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from scd.atomic import write_text
from scd.errors import UsageError
from studies.suite.execution.local import missing_input
from studies.suite.execution.progress import runtime_of
from studies.suite.execution.ranks import MEETING, Team, follow
from studies.suite.execution.run import Ending, Execution, Outcome
from studies.suite.execution.slurm_batch import Batch, minutes, warning_seconds
from studies.suite.execution.store import Status, Store
from studies.suite.planning.study import RunSpec

STOPPED = 75  # exit code of a job that was stopped and can go on (EX_TEMPFAIL)
TERMINATED_SECONDS = 20  # from SIGTERM until what cannot stop is given up; Slurm kills after 30 s by default


class Job:
    """The first process of a job: it executes the job's runs one after the other."""

    def __init__(self, batch: Batch, index: int):
        self.batch = batch
        self.index = index
        self.runs = batch.jobs[index]
        self.store = Store(batch.root)
        self.asked = threading.Event()
        self.requeues = False
        self.current = next(run for run in self.runs)
        self.before = self.position()

    def listen(self) -> None:
        """Heed Slurm's two signals from here on."""
        signal.signal(signal.SIGUSR2, self._hear)
        signal.signal(signal.SIGTERM, self._hear)

    def execute(self, team: Team | None) -> int:
        """All runs of the job that have not ended yet; returns the exit code."""
        from scd.training.state import Stopped

        threads = self.batch.launcher["cpus"]
        runtime = runtime_of(self.batch.launcher, stop=self.asked.is_set)
        keep = self.batch.launcher["keep_checkpoints"]
        for run, spec in self.runs.items():
            if self.batch.outcome(run) is not None:
                continue
            self.current = run
            if reason := missing_input(spec, self.store):
                outcome = Outcome(Ending.BUSY if self._input_runs(spec) else Ending.FAILED, reason)
            else:
                try:
                    outcome = Execution(spec, self.store, runtime, threads, keep, team).perform()
                except Stopped:
                    return self.stopped()
            self.batch.report(run, outcome)
        return 0

    def stopped(self) -> int:
        """The job was told to stop: decide whether it goes back into the queue; returns the exit code."""
        if not self.requeues:
            return STOPPED
        if self.position() != self.before:
            self.batch.ask_to_requeue(self.index)
            return STOPPED
        spec = self.runs[self.current]
        limit = f"its time limit of {minutes(self.batch.launcher)} min"
        reason = f"{limit} was over before anything was saved: give it more with launcher.hours"
        self.store.records_of(spec).fail(spec.id, reason)
        self.batch.report(self.current, Outcome(Ending.FAILED, reason))
        return 1

    def position(self) -> list[object]:
        """What is saved of the job's runs: checkpoints and finished parts."""
        found: list[object] = []
        for spec in self.runs.values():
            records = self.store.records_of(spec)
            found.append(sorted(path.name for path in records.folder(spec.id).glob("checkpoints/step-*")))
            found.append(records.status(spec.id) is Status.DONE)
            found += [self.store.evaluations.status(evaluation) is Status.DONE for evaluation in spec.evaluations]
        return found

    def _input_runs(self, spec: RunSpec) -> bool:
        states = [self.store.pretraining.status(earlier.id) for earlier in spec.inputs.values()]
        return Status.RUNNING in states

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """Ask for a stop; what does not stop by itself is given up by a thread."""
        if self.asked.is_set():
            return
        self.requeues = number == signal.SIGUSR2
        self.asked.set()
        patience = warning_seconds(self.batch.launcher) / 2 if self.requeues else TERMINATED_SECONDS
        threading.Thread(target=self._give_up, args=(patience,), daemon=True).start()

    def _give_up(self, patience: float) -> None:
        time.sleep(patience)
        os._exit(self.stopped())


# ---------------------------------------------------------------- several processes


@contextmanager
def team_of_job(batch: Batch, index: int):
    """The team of the job's processes, which meet through a file in the batch's folder; None for a single process."""
    world, rank = int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_PROCID"])
    if world == 1:
        yield None
        return
    import torch.distributed as dist

    nodes, turn = int(os.environ["SLURM_NNODES"]), os.environ.get("SLURM_RESTART_COUNT", "0")
    path = batch.folder / f"{index}-{os.environ['SLURM_JOB_ID']}-{turn}.address"
    if rank == 0:
        store = dist.TCPStore("localhost", 0, None, is_master=True, wait_for_workers=False, timeout=MEETING)
        host = "localhost" if nodes == 1 else socket.gethostname()
        write_text(path, f"{host} {store.port}")
    else:
        deadline = time.monotonic() + MEETING.total_seconds()
        while not path.exists():
            if time.monotonic() > deadline:
                raise UsageError(f"the first process of the job did not start within {MEETING}")
            time.sleep(0.2)
        host, port = path.read_text().split()
        store = dist.TCPStore(host, int(port), None, is_master=False, timeout=MEETING)
    team = Team(store, rank, world, int(os.environ["SLURM_LOCALID"]), nodes)
    try:
        yield team
    finally:
        if rank == 0:
            team.dismiss()
            path.unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> int:
    """One process of a job; returns its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    first = int(os.environ["SLURM_PROCID"]) == 0
    if not first:  # they stop where the first process stops
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    batch, index = Batch.read(Path(arguments[0])), int(arguments[1])
    if batch is None:
        print(
            f"the jobs in '{arguments[0]}' are of another version of the code: give the command again", file=sys.stderr
        )
        return 1
    job = Job(batch, index) if first else None
    if job is not None:
        job.listen()
    import torch

    torch.set_num_threads(batch.launcher["cpus"])
    with team_of_job(batch, index) as team:
        if job is None:
            follow(team)
            return 0
        return job.execute(team)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
