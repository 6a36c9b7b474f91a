"""Peak memory of a piece of work: the allocator's on CUDA, the resident set of a fresh process on the CPU."""

import multiprocessing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scd.allocator import return_freed_memory
from scd.profiling.steptime import Stepper
from scd.profiling.workload import Build, example_images

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class PeakMemory:
    """The most memory that the training of the arm "arm" takes, above what the process took before.

    On the CPU: the resident set of a process of its own that returns freed tensors at once. On CUDA: the allocator's
    tensors.

    Args:
        blocks, steps: how many blocks of how many steps are trained.
    """

    blocks: int = 3
    steps: int = 4

    def __call__(self, arms: Mapping[str, Build]) -> dict[str, float]:
        """``peak_bytes``; nothing where the system does not tell it."""
        found = in_fresh_process(_peak_of, arms["arm"], self.steps, self.blocks, torch.get_num_threads())
        return {} if found is None else {"peak_bytes": found}


def _peak_of(build: Build, steps: int, blocks: int, threads: int) -> int | None:
    torch.set_num_threads(threads)
    return_freed_memory()
    with torch.device("meta"):
        device = build().device  # what building imports is not the method's memory
    example_images(16, 8).to(device)
    warm = nn.Conv2d(3, 8, 3).to(device)  # neither are the libraries' own buffers
    warm(torch.zeros(8, 3, 16, 16, device=device)).sum().backward()
    before = resident() if device.type == "cpu" else 0
    if before is None or not reset_peak(device):
        return None
    stepper = Stepper(build(), steps)
    for _ in range(blocks):
        stepper.block()
    highest = peak(device)
    return None if highest is None else highest - before


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, from a new process that ends afterwards: it contains no memory of earlier work.

    Where the system can, the process is forked from one that has only imported the function's module, which saves the
    seconds that importing torch takes; elsewhere it is a new interpreter.

    Args:
        function: a function of a module, so that the new process can import it.

    Raises:
        RuntimeError: the process ended without a result.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload([__name__, function.__module__])  # before its first process
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def resident() -> int | None:
    """Bytes of this process that are in memory; None on other systems than Linux."""
    return _status("VmRSS")


def reset_peak(device: torch.device) -> bool:
    """Count peaks from here on; False where that is not possible."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        CLEAR.write_text("5")  # proc(5): resets VmHWM to the present size
    except OSError:
        return False
    return True


def peak(device: torch.device) -> int | None:
    """Bytes at the highest moment since :func:`reset_peak`: tensors on CUDA, the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM")


def _status(name: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return None
