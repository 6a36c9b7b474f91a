"""Run what is missing: in processes beside each other on this machine, in this process, or (slurm.py) as Slurm jobs.

A worker process imports torch once and then executes run after run. It talks to the launcher through a pipe of its own,
so that one that is killed takes nothing with it: its run is recorded as failed, and the rest go on.
"""

import logging
import multiprocessing
import os
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

from scd.errors import UsageError
from studies.suite.execution import machine as environment
from studies.suite.execution.progress import Bar, Launched, runtime_of
from studies.suite.execution.store import Status, Store, StoreFull
from studies.suite.execution.worker import Ending, Outcome, perform
from studies.suite.planning.study import RunSpec

log = logging.getLogger(__name__)
WORKER_MEMORY_GB = 1.5  # torch, the images and a small network; bounds how many run at once by default
POLL_SECONDS = 2.0  # how often a run that another process holds is looked at


@dataclass(frozen=True)
class Crew:
    """How many runs at once, and the threads of each; ``workers`` 0 is this process."""

    workers: int
    threads: int


def crew(launcher: Mapping[str, Any], accelerator: str, pending: int) -> Crew:
    """Workers and threads; "auto" is one single-threaded run a core, or one run a GPU.

    NOTE: small networks leave a second thread waiting part of the time. A bare forward and backward pass of a tiny
    ResNet (width 32, 32 px, batch 128) made 452 images/s on one thread and 797 on two.
    """
    cores = environment.cores()
    if accelerator == "cuda":
        import torch

        most = max(1, torch.cuda.device_count())
    else:
        most = max(1, min(cores, int(environment.free_memory_gb() / WORKER_MEMORY_GB)))
    workers = min(most, max(1, pending)) if launcher["workers"] == "auto" else _whole("workers", launcher["workers"], 0)
    if launcher["threads"] != "auto":
        return Crew(workers, _whole("threads", launcher["threads"], 1))
    one_a_core = accelerator == "cpu" and launcher["workers"] == "auto"
    return Crew(workers, 1 if one_a_core else max(1, cores // max(1, workers)))


def _whole(option: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or value < least:
        raise UsageError(f"launcher.{option}={value}: give 'auto' or a whole number, {least} or more")
    return value


def launch(
    runs: Mapping[str, RunSpec],
    work: Mapping[str, float],
    store: Store,
    launcher: Mapping[str, Any],
    on_end: Callable[[], None] = lambda: None,
) -> Launched:
    """Execute the runs that the store does not have yet.

    Args:
        runs: by id, in the order in which they are started.
        work: how much each counts in the progress bar.
        launcher: configuration of conf/launcher.
        on_end: called after each run that ends, e.g. to rewrite a page.

    Raises:
        StoreFull: no space is left; finished runs stay finished.
        KeyboardInterrupt: Ctrl-C; workers are stopped, their runs resume from their checkpoints next time.
    """
    missing = {run: spec for run, spec in runs.items() if store.status(run) is not Status.DONE}
    accelerators = {spec.config["training"]["accelerator"] for spec in missing.values()}
    if launcher["name"] == "slurm" and missing:
        from studies.suite.execution.slurm import submit  # submitit is an extra

        with Bar(work, [run for run in runs if run not in missing], len(runs)) as bar:
            return submit(missing, store, launcher, bar, on_end)
    chosen = crew(launcher, "cuda" if "cuda" in accelerators else "cpu", len(missing))
    with Bar(work, [run for run in runs if run not in missing], len(runs)) as bar:
        if not missing:
            return Launched()
        if chosen.workers == 0:
            return in_process(missing, store, launcher, bar, on_end)
        return Pool(missing, store, launcher, chosen, bar, on_end).run()


def in_process(
    missing: Mapping[str, RunSpec],
    store: Store,
    launcher: Mapping[str, Any],
    bar: Bar,
    on_end: Callable[[], None],
) -> Launched:
    """One run after the other in this process; for debuggers, and for machines that cannot start processes."""
    result, waiting = Launched(), deque(missing)
    while waiting:
        run = waiting.popleft()
        runtime = runtime_of(launcher, lambda step, steps, loss, run=run: bar.at(run, step, steps))
        outcome = perform(run, missing[run], store, runtime, keep_checkpoints=launcher["keep_checkpoints"])
        if outcome.ending is Ending.FULL:
            raise StoreFull(outcome.reason)
        if outcome.ending is Ending.BUSY and store.status(run) is not Status.DONE:
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


@dataclass
class Worker:
    """A process, its pipe, and the run that it is at."""

    process: multiprocessing.Process
    pipe: Connection
    run: str | None = None


class LauncherGone(BaseException):
    """The launcher's process has ended: the worker stops where it is."""


def serve(pipe: Connection, root: str, launcher: dict[str, Any], threads: int, device: int) -> None:
    """A worker: receive (id, spec), execute, answer, until the pipe closes."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    import torch

    torch.set_num_threads(threads)
    device = device % max(1, torch.cuda.device_count())
    store = Store(root)

    def report(step: int, steps: int, loss: float) -> None:
        try:
            pipe.send(("step", step, steps))
        except OSError as error:
            raise LauncherGone from error

    try:
        while True:
            run, spec = pipe.recv()
            runtime = runtime_of(launcher, report, device)
            pipe.send(("end", perform(run, spec, store, runtime, threads, launcher["keep_checkpoints"])))
    except (EOFError, OSError, LauncherGone):
        return


@contextmanager
def inherited(**variables: str) -> Iterator[None]:
    """What a process that is started here begins with: environment variables, and deafness to Ctrl-C.

    BLAS and OpenMP read their number of threads from the environment, once. Ctrl-C reaches all processes of a terminal;
    the launcher answers it, and stops its workers.
    """
    before = {name: os.environ.get(name) for name in variables}
    listens = threading.current_thread() is threading.main_thread()  # Python changes handlers in the main thread only
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if listens else None
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        if listens:
            signal.signal(signal.SIGINT, handler)


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
    ):
        self.specs = missing
        self.store = store
        self.launcher = dict(launcher)
        self.crew = crew
        self.bar = bar
        self.on_end = on_end
        self.waiting = deque(missing)
        self.elsewhere: list[str] = []  # held by another process on the same store
        self.workers: list[Worker] = []
        self.result = Launched()
        self.context = multiprocessing.get_context("spawn")

    def run(self) -> Launched:
        """Until every run has ended, here or elsewhere."""
        with remembered_interrupts() as interrupted:
            try:
                while self.waiting or self.elsewhere or self._busy():
                    self._assign()
                    self._listen()
                    self._look_elsewhere()
                    if interrupted.is_set():
                        raise KeyboardInterrupt
            finally:
                self._stop()
        return self.result

    def _busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.run is not None]

    def _assign(self) -> None:
        idle = [worker for worker in self.workers if worker.run is None]
        while self.waiting and (idle or len(self.workers) < self.crew.workers):
            worker = idle.pop() if idle else self._start()
            worker.run = self.waiting.popleft()
            try:
                worker.pipe.send((worker.run, self.specs[worker.run]))
            except OSError:  # it died while it was idle; listening will find that out
                return

    def _start(self) -> Worker:
        """A new process."""
        ours, theirs = self.context.Pipe()
        taken = {worker.process.name for worker in self.workers}
        index = next(i for i in range(self.crew.workers) if f"worker-{i}" not in taken)
        arguments = (theirs, str(self.store.root), self.launcher, self.crew.threads, index)
        process = self.context.Process(target=serve, args=arguments, name=f"worker-{index}")
        with inherited(OMP_NUM_THREADS=str(self.crew.threads), MKL_NUM_THREADS=str(self.crew.threads)):
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
                self._bury(worker)
                continue
            if message[0] == "step":
                self.bar.at(worker.run, *message[1:])
            else:
                run, worker.run = worker.run, None
                self._ended(run, message[1])

    def _ended(self, run: str, outcome: Outcome) -> None:
        if outcome.ending is Ending.FULL:
            raise StoreFull(outcome.reason)
        if outcome.ending is Ending.BUSY:
            self.elsewhere.append(run)
            return
        if outcome.ending is Ending.FAILED:
            self.result.failed[run] = outcome.reason
        else:
            self.result.done += 1
        self.bar.end(run, outcome.reason)
        self.on_end()

    def _bury(self, worker: Worker) -> None:
        """A worker died: its run failed, and a new worker takes its place when there is more to do."""
        worker.process.join(timeout=5)
        self.workers.remove(worker)
        worker.pipe.close()
        if worker.run is None:
            return
        code = worker.process.exitcode
        how = f"signal {-code} ({signal.Signals(-code).name})" if code and code < 0 else f"exit code {code}"
        hint = "; killed from outside, perhaps for want of memory" if code == -signal.SIGKILL else ""
        reason = f"its process ended by {how}{hint}; the next study resumes it"
        with self.store.claim(worker.run) as folder:
            if folder is not None:
                self.store.fail(worker.run, reason)
        self._ended(worker.run, Outcome(Ending.FAILED, reason))

    def _look_elsewhere(self) -> None:
        """Runs that another process has held: finished by now, failed, or left behind and ours to take."""
        for run in list(self.elsewhere):
            status = self.store.status(run)
            if status is Status.RUNNING:
                continue
            self.elsewhere.remove(run)
            if status is Status.DONE:
                self.bar.end(run)
                self.on_end()
            elif status is Status.FAILED:
                self._ended(run, Outcome(Ending.FAILED, self.store.failure(run) or "failed in another process"))
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
