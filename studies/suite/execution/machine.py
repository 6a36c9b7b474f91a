"""The machine and the libraries that made a record; numbers without them cannot be traced."""

import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from studies.suite.execution.numerics import numerics

ROOT = Path(__file__).resolve().parents[3]
LIBRARIES = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "scipy", "scikit-learn", "datasets")


def describe(threads: int | None = None, accelerator: str = "cpu") -> dict[str, Any]:
    """Platform, processor, memory, threads, numerics class, library versions, git state, and the GPU torch sees.

    Args:
        threads: of this process; None asks torch.
        accelerator: "cpu" or "cuda", where the numbers are computed.
    """
    threads = _threads() if threads is None else threads
    return {**_machine(), "threads": threads, "numerics": numerics(threads, accelerator), "git": git_state(), **_gpu()}


def _threads() -> int | None:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


@lru_cache(maxsize=1)
def _machine() -> dict[str, Any]:
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory_gb() -> float:
    """Memory that is free or can be freed at once, in GiB."""
    return psutil.virtual_memory().available / 2**30


def cpu_name() -> str:
    """Name of the processor as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_state() -> dict[str, Any]:
    """Commit of the code and whether it had uncommitted changes; both None outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", "scd", "baselines", "studies") if commit else None
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _gpu() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {"gpu": None}
    return {"gpu": torch.cuda.get_device_name(0), "cuda": torch.version.cuda}
