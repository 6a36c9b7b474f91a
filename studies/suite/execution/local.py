"""Execute runs on this machine: in parallel worker processes, or one after the other in this process.

A worker process executes run after run. It talks to the launcher through a pipe of its own,
so that one that is killed affects no other: its run is recorded as failed, and the rest go on.
"""

import logging
import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

from scd.atomic import DiskFull
from scd.errors import UsageError
from studies.suite.execution import machine
from studies.suite.execution.clock import Clock
from studies.suite.execution.progress import Bar, Launched, runtime_of
from studies.suite.execution.ranks import Team, devices_of, how_ended, process_context
from studies.suite.execution.run import Ending, Execution, Outcome
from studies.suite.execution.store import Status, Store
from studies.suite.execution.worker import serve, worker_environment
from studies.suite.planning.study import RunSpec

log = logging.getLogger(__name__)
WORKER_MEMORY_GB = 1.5  # torch, the images and a small network; bounds how many run at once by default
POLL_SECONDS = 2.0  # how often a run that another process holds is looked at


@dataclass(frozen=True)
class Crew:
    """How many runs at once, and the threads of each; ``workers`` 0 is this process."""

    workers: int
    threads: int


def crew(launcher: Mapping[str, Any], accelerator: str, pending: int, devices: int = 1) -> Crew:
    """Workers and threads; "auto" is one single-threaded process a core, or one a GPU.

    Args:
        launcher: configuration of conf/launcher.
        accelerator: "cpu" or "cuda".
        pending: how many runs there are.
        devices: processes of a run; all of its processes have so many threads.

    NOTE: small networks leave a second thread waiting part of the time. A bare forward and backward pass of a tiny
    ResNet (width 32, 32 px, batch 128) made 452 images/s on one thread and 797 on two.
    """
    cores = machine.cores()
    if accelerator == "cuda":
        import torch

        most = max(1, torch.cuda.device_count())
    else:
        most = max(1, min(cores, int(machine.free_memory_gb() / WORKER_MEMORY_GB)))
    most = max(1, most // devices)
    workers = min(most, max(1, pending)) if launcher["workers"] == "auto" else _whole("workers", launcher["workers"], 0)
    if launcher["threads"] != "auto":
        return Crew(workers, _whole("threads", launcher["threads"], 1))
    if launcher["workers"] != "auto":
        most = max(1, workers)
    elif accelerator == "cpu":
        return Crew(workers, 1)
    return Crew(workers, max(1, cores // (most * devices)))  # the same for few runs as for many: it changes last bits


def _whole(option: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or value < least:
        raise UsageError(f"launcher.{option}={value}: give 'auto' or a whole number, {least} or more")
    return value


def in_process(
    missing: Mapping[str, RunSpec],
    store: Store,
    launcher: Mapping[str, Any],
    bar: Bar,
    on_end: Callable[[], None],
    team: Team | None = None,
    clock: Clock | None = None,
) -> Launched:
    """One run after the other in this process; for debuggers, for machines that cannot start processes, for torchrun.

    Args:
        team: the processes that torchrun started, of which this one is the first.
        clock: no run begins after its end.
    """
    import torch

    result, waiting, threads = Launched(), deque(missing), torch.get_num_threads()
    while waiting and not (clock and clock.is_over):
        run = waiting.popleft()
        if reason := missing_input(missing[run], store):
            result.failed[run] = reason
            bar.end(run, reason)
            continue
        runtime = runtime_of(launcher, lambda step, steps, loss, run=run: bar.at(run, step, steps))
        keep = launcher["keep_checkpoints"]
        outcome = Execution(missing[run], store, runtime, threads, keep, team).perform()
        if outcome.ending is Ending.FULL:
            raise DiskFull(outcome.reason)
        if outcome.ending is Ending.BUSY and store.status(missing[run]) is not Status.DONE:
            waiting.append(run)
            time.sleep(POLL_SECONDS)
            continue
        if outcome.ending is Ending.FAILED:
            result.failed[run] = outcome.reason
        elif outcome.ending is Ending.DONE:
            result.done += 1
        bar.end(run, outcome.reason)
        on_end()
    return result


# ---------------------------------------------------------------- workers


def missing_input(spec: RunSpec, store: Store) -> str:
    """Why a run cannot start: an earlier run that it uses is not finished; empty where it can."""
    for name, earlier in spec.inputs.items():
        if store.pretraining.status(earlier.id) is not Status.DONE:
            reason = store.pretraining.failure(earlier.id) or "it has not been run"
            return f"its input '{name}' (run {earlier.id}) is not finished: {reason}"
    return ""


@dataclass
class Worker:
    """A process, its pipe, and the run that it executes."""

    process: multiprocessing.Process
    pipe: Connection
    run: str | None = None


@contextmanager
def remembered_interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets beside raising its exception, which is lost where it meets a library's callback."""
    interrupted = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield interrupted
        return

    def remember(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        before(number, frame)

    signal.signal(signal.SIGINT, remember)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


class Pool:
    """The launcher's side of the workers."""

    def __init__(
        self,
        missing: Mapping[str, RunSpec],
        store: Store,
        launcher: Mapping[str, Any],
        crew: Crew,
        bar: Bar,
        on_end: Callable[[], None],
        clock: Clock | None = None,
    ):
        self.specs = missing
        self.store = store
        self.launcher = dict(launcher)
        self.crew = crew
        self.bar = bar
        self.on_end = on_end
        self.clock = clock
        self.waiting = deque(missing)
        self.held: list[str] = []  # by another process on the same store
        self.workers: list[Worker] = []
        self.result = Launched()
        self.context = process_context()

    def run(self) -> Launched:
        """Until every run has ended, in these workers or in another process; or those that began before the clock's
        end."""
        with remembered_interrupts() as interrupted:
            try:
                while self.waiting or self.held or self._busy():
                    self._leave_late_ones()
                    self._assign()
                    self._listen()
                    self._check_held()
                    if interrupted.is_set():
                        raise KeyboardInterrupt
            finally:
                self._stop()
        return self.result

    def _busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.run is not None]

    def _leave_late_ones(self) -> None:
        """After the end of the time nothing begins, and no run of another process is waited for."""
        if self.clock is not None and self.clock.is_over:
            self.waiting.clear()
            self.held.clear()

    def _assign(self) -> None:
        idle = [worker for worker in self.workers if worker.run is None]
        while self.waiting and (idle or len(self.workers) < self.crew.workers):
            run = self._next()
            if run is None:
                return
            worker = idle.pop() if idle else self._start()
            worker.run = run
            try:
                worker.pipe.send((worker.run, self.specs[worker.run]))
            except OSError:  # it died while it was idle; listening will find that out
                return

    def _next(self) -> str | None:
        """The first waiting run that can start now; one whose inputs have failed ends here."""
        busy = [self.specs[worker.run] for worker in self._busy()]
        if any(spec.alone for spec in busy):
            return None
        for run in list(self.waiting):
            spec = self.specs[run]
            if spec.alone and busy:
                continue
            if self._inputs_open(spec):
                continue
            self.waiting.remove(run)
            if reason := missing_input(spec, self.store):
                self._ended(run, Outcome(Ending.FAILED, reason))
                continue
            return run
        return None

    def _inputs_open(self, spec: RunSpec) -> bool:
        """Whether an input of the run has not ended yet."""
        if not spec.inputs:
            return False
        needed = {earlier.id for earlier in spec.inputs.values()}
        open_runs = [*self.waiting, *self.held, *(worker.run for worker in self._busy())]
        return any(self.specs[run].id in needed for run in open_runs)

    def _start(self) -> Worker:
        """A new process."""
        ours, theirs = self.context.Pipe()
        taken = {worker.process.name for worker in self.workers}
        index = next(i for i in range(self.crew.workers) if f"worker-{i}" not in taken)
        devices = max(devices_of(spec) for spec in self.specs.values())
        arguments = (theirs, str(self.store.root), self.launcher, self.crew.threads, index * devices)
        process = self.context.Process(target=serve, args=arguments, name=f"worker-{index}")
        with worker_environment(OMP_NUM_THREADS=str(self.crew.threads), MKL_NUM_THREADS=str(self.crew.threads)):
            process.start()
        theirs.close()
        worker = Worker(process, ours)
        self.workers.append(worker)
        return worker

    def _listen(self) -> None:
        by_pipe = {worker.pipe: worker for worker in self.workers}
        for pipe in wait(list(by_pipe), timeout=POLL_SECONDS):
            worker = by_pipe[pipe]
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                self._remove_dead(worker)
                continue
            if message[0] == "step":
                self.bar.at(worker.run, *message[1:])
            else:
                run, worker.run = worker.run, None
                self._ended(run, message[1])

    def _ended(self, run: str, outcome: Outcome) -> None:
        if outcome.ending is Ending.FULL:
            raise DiskFull(outcome.reason)
        if outcome.ending is Ending.BUSY:
            self.held.append(run)
            return
        if outcome.ending is Ending.FAILED:
            self.result.failed[run] = outcome.reason
        else:
            self.result.done += 1
        self.bar.end(run, outcome.reason)
        self.on_end()

    def _remove_dead(self, worker: Worker) -> None:
        """A worker died: its run failed, and a new worker takes its place when there is more to do."""
        worker.process.join(timeout=5)
        self.workers.remove(worker)
        worker.pipe.close()
        if worker.run is None:
            return
        code = worker.process.exitcode
        hint = "; killed from outside, perhaps for want of memory" if code == -signal.SIGKILL else ""
        reason = f"its process ended by {how_ended(code)}{hint}; the next study resumes it"
        spec = self.specs[worker.run]
        records = self.store.records_of(spec)
        if records.status(spec.id) is not Status.DONE:
            with records.claim(spec.id) as folder:
                if folder is not None:
                    records.fail(spec.id, reason)
        self._ended(worker.run, Outcome(Ending.FAILED, reason))

    def _check_held(self) -> None:
        """Runs that another process held: finished by now, failed, or interrupted and free to be executed here."""
        for run in list(self.held):
            status = self.store.status(self.specs[run])
            if status is Status.RUNNING:
                continue
            self.held.remove(run)
            if status is Status.DONE:
                self.bar.end(run)
                self.on_end()
            elif status is Status.FAILED:
                reason = self.store.failure(self.specs[run]) or "failed in another process"
                self._ended(run, Outcome(Ending.FAILED, reason))
            else:
                self.waiting.append(run)

    def _stop(self) -> None:
        for worker in self.workers:
            if worker.run is not None:
                worker.process.terminate()
            worker.pipe.close()
        for worker in self.workers:
            worker.process.join(timeout=10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
