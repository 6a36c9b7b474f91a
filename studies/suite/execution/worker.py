"""A worker process of the local launcher: it executes the runs that it receives through a pipe."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from studies.suite.execution.progress import runtime_of
from studies.suite.execution.run import Execution
from studies.suite.execution.store import Store


class LauncherGone(BaseException):
    """The launcher's process has ended: the worker stops where it is."""


def serve(pipe: Connection, root: str, launcher: dict[str, Any], threads: int, device: int) -> None:
    """A worker: receive (id, spec), execute, answer, until the pipe closes."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the launcher handles it
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
            _, spec = pipe.recv()
            runtime = runtime_of(launcher, report, device)
            execution = Execution(spec, store, runtime, threads, launcher["keep_checkpoints"])
            pipe.send(("end", execution.perform()))
    except (EOFError, OSError, LauncherGone):
        return


@contextmanager
def worker_environment(**variables: str) -> Iterator[None]:
    """Environment variables for processes that are started inside, and SIGINT ignored from their first moment.

    BLAS and OpenMP read their number of threads from the environment, once.
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
