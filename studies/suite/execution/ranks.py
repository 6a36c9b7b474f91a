"""The processes of a run on several devices: rank 0 decides and records, the others train what it names.

torchrun, Slurm (``slurm_job.py``) or rank 0 itself (:func:`started`) start them. However they were started, they share
a TCP store of torch. Through it rank 0 names one run after the other; a process group exists for the time of one
pretraining only. A rank that fails therefore leaves no group behind that the next run would find out of step.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from scd.errors import UsageError
from studies.suite.execution.store import Store
from studies.suite.planning.study import TRAINING, RunSpec

if TYPE_CHECKING:
    from torch.distributed import Store as TorchStore

    from studies.suite.execution.pretraining import Runtime

FOR_EVER = timedelta(days=365)  # the others wait while rank 0 plans, evaluates and writes pages
MEETING = timedelta(minutes=5)  # of processes that are started together
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class RankFailed(RuntimeError):
    """Another rank of the run ended or failed; the text says which and why."""


def devices_of(spec: RunSpec) -> int:
    """Devices, and so processes, of a run."""
    return spec.config["training"]["devices"] if spec.kind == TRAINING else 1


@dataclass
class Team:
    """The processes of a run, seen from one of them.

    Args:
        store: shared by all.
        rank: of this process; 0 leads.
        world: number of processes.
        local_rank: index of this process, and of its GPU, on its machine.
        nodes: machines, with equally many processes on each.

    Attributes:
        turn: how many runs have been named.
    """

    store: "TorchStore"
    rank: int
    world: int
    local_rank: int
    nodes: int = 1
    turn: int = field(default=0, init=False)

    def lead(self, spec: RunSpec, root: Path, runtime: "Runtime") -> "Runtime":
        """Rank 0: name the run that all pretrain next, and how; returns the runtime of this process.

        Args:
            root: of the store.
            runtime: its callbacks stay in this process.
        """
        runtime = replace(runtime, nodes=self.nodes, local_rank=self.local_rank)
        self._command(pickle.dumps((spec, str(root.resolve()), replace(runtime, progress=None, stop=None))))
        return runtime

    def dismiss(self) -> None:
        """Rank 0: there is no further run."""
        self._command(b"")

    def next_run(self) -> tuple[RunSpec, str, "Runtime"] | None:
        """The other ranks: the run that rank 0 names, the store's root and the runtime; None after the last run."""
        self.turn += 1
        key = f"command-{self.turn}"
        self.store.wait([key], FOR_EVER)
        command = self.store.get(key)
        return pickle.loads(command) if command else None

    @contextmanager
    def group(self, accelerator: str) -> Iterator[None]:
        """The process group of one pretraining, on all ranks. Errors of one rank are told to rank 0.

        Raises:
            RankFailed: on rank 0, whose own error only says that a connection was lost.
        """
        import torch.distributed as dist

        try:
            dist.init_process_group(
                "nccl" if accelerator == "cuda" else "gloo",
                store=dist.PrefixStore(f"run-{self.turn}", self.store),
                rank=self.rank,
                world_size=self.world,
            )
            yield
        except Exception as error:
            if isinstance(error, UsageError):
                raise
            if self.rank == 0 and (told := self._told()):
                raise RankFailed(told) from error
            self.store.set(f"error-{self.turn}-{self.rank}", f"{type(error).__name__}: {error}")
            raise
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    def _told(self) -> str:
        for rank in range(1, self.world):
            key = f"error-{self.turn}-{rank}"
            if self.store.check([key]):
                return f"process {rank} of {self.world}: {self.store.get(key).decode()}"
        return ""

    def _command(self, content: bytes) -> None:
        self.turn += 1
        self.store.set(f"command-{self.turn}", content)


# ---------------------------------------------------------------- processes that torchrun started


@contextmanager
def team_of_torchrun() -> Iterator[Team | None]:
    """The team that torchrun's environment variables describe; None where it did not start several processes.

    At the end rank 0 dismisses the others, whatever happened.
    """
    if not all(name in os.environ for name in VARIABLES) or int(os.environ["WORLD_SIZE"]) < 2:
        yield None
        return
    from torch.distributed.rendezvous import rendezvous

    store, rank, world = next(rendezvous("env://", timeout=MEETING))
    nodes = world // int(os.environ.get("LOCAL_WORLD_SIZE", world))
    team = Team(store, rank, world, int(os.environ["LOCAL_RANK"]), nodes)
    try:
        yield team
    finally:
        if rank == 0:
            team.dismiss()


# ---------------------------------------------------------------- processes that rank 0 starts


@contextmanager
def started(spec: RunSpec, first_gpu: int = 0, threads: int | None = None) -> Iterator[Team]:
    """A team for one run on this machine: this process is rank 0 and starts the others, which end with the run.

    Args:
        first_gpu: index of the first of the run's GPUs, where it uses GPUs.
        threads: of each process; None leaves torch's default.

    Raises:
        UsageError: more GPUs than this machine has.
        RankFailed: another process ended on its own.
    """
    import torch
    import torch.distributed as dist

    world = devices_of(spec)
    if spec.config["training"]["accelerator"] == "cuda" and first_gpu + world > torch.cuda.device_count():
        raise UsageError(f"training.devices={world}, but torch sees {torch.cuda.device_count()} GPUs on this machine")
    store = dist.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False, timeout=MEETING)
    context = process_context()
    others = [
        context.Process(target=_follow_parent, args=(store.port, rank, world, threads)) for rank in range(1, world)
    ]
    team = Team(store, 0, world, 0)
    try:
        for process in others:
            process.start()
        yield team
    except Exception as error:
        if isinstance(error, UsageError | RankFailed):
            raise
        for rank, process in enumerate(others, start=1):
            process.join(timeout=1)  # the cause, if this process only lost its connection
            if process.exitcode:
                raise RankFailed(f"process {rank} of {world} ended by {how_ended(process.exitcode)}") from error
        raise
    finally:
        for process in others:
            if process.is_alive():
                process.kill()
            if process.pid is not None:
                process.join()


def process_context() -> multiprocessing.context.BaseContext:
    """How processes are started: forked from one that has loaded torch and never computed, where that is possible."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["studies.suite.execution.pretraining", "studies.suite.execution.evaluation"])
    return context


def _follow_parent(port: int, rank: int, world: int, threads: int | None) -> None:
    """A process that rank 0 started: it ends with its parent, however that ends."""
    import torch
    import torch.distributed as dist

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; rank 0 handles it
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    if threads is not None:
        torch.set_num_threads(threads)
    store = dist.TCPStore("127.0.0.1", port, None, is_master=False, timeout=MEETING)
    follow(Team(store, rank, world, rank))


# ---------------------------------------------------------------- what the other ranks do


def follow(team: Team) -> None:
    """Pretrain what rank 0 names, until it dismisses this process, stops, or ends."""
    from scd.training.state import Stopped
    from studies.suite.execution.pretraining import pretrain_run
    from studies.suite.execution.run import check_code, load_inputs

    while True:
        try:
            named = team.next_run()
        except Exception:  # rank 0 has ended, and with it the store
            return
        if named is None:
            return
        spec, root, runtime = named
        store = Store(root)
        try:
            check_code(spec)
            with team.group(spec.config["training"]["accelerator"]):
                own = replace(runtime, local_rank=team.local_rank)
                pretrain_run(spec.config, spec.locations, store.folder(spec), own, load_inputs(spec, store))
        except Stopped:
            return
        except UsageError:
            continue  # the same on rank 0, which records it
        except Exception:
            traceback.print_exc()


def how_ended(code: int) -> str:
    """An exit code in words; a negative one, or one above 128 as shells write it, is a signal."""
    number = -code if code < 0 else code - 128
    if code < 0 or code > 128:
        try:
            return f"signal {number} ({signal.Signals(number).name})"
        except ValueError:
            pass
    return f"exit code {code}"
