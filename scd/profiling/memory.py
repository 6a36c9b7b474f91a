"""Peak memory of a piece of work: the allocator's on CUDA, the resident set of a fresh process on the CPU."""

import ctypes
import multiprocessing
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from scd.allocator import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD

OWN_PAGES = 32 * 2**10  # bytes of an allocation that has its own pages and leaves no trace when it is freed
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, from a new process that ends afterwards: no memory of earlier work is in it.

    Where the system can, the process is forked from one that has only imported the function's module and done nothing,
    which saves the seconds that importing torch takes; elsewhere it is a new interpreter.

    Args:
        function: a function of a module, so that the new process can import it.

    Raises:
        RuntimeError: the process ended without a result.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload([function.__module__])  # of the first call; later modules are imported anew
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def return_freed_memory() -> bool:
    """Have glibc give freed tensors back to the system at once, so that the resident set follows what is alive.

    Otherwise a tensor can lie in pages that something freed before, and a process seems to need nothing for it.

    Returns:
        Whether the allocator was told so; elsewhere than under glibc nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_TRIM_THRESHOLD, 0) and libc.mallopt(M_MMAP_THRESHOLD, OWN_PAGES))


def resident() -> int | None:
    """Bytes of this process that are in memory; None where the system does not tell (it is not Linux)."""
    return _status("VmRSS")


def reset_peak(device: torch.device) -> bool:
    """Peaks are counted from here on; False where that cannot be done."""
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
