"""The numerics class of a process: everything that gives one seed other last bits, and so other numbers.

Kernels sum in an order that depends on the vector instructions, the cache sizes, the number of threads and the version
of the library. A machine's name does not tell them: two machines that both call themselves "AMD EPYC" differ.
"""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "scipy")
VECTOR_FLAGS = ("avx", "amx", "fma", "f16c", "sse4", "asimd", "sve", "sme", "bf16", "i8mm")  # x86 and ARM
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR",
          "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG")  # fmt: skip
CACHES = ("l1d_cache_size", "l2_cache_size")
DIGITS = 8


def numerics(threads: int | None, accelerator: str = "cpu") -> dict[str, Any]:
    """The class of this process: its parts, and as ``class`` their hash.

    Args:
        threads: of this process.
        accelerator: "cpu" or "cuda", where the numbers are computed.

    NOTE: the class is finer than necessary: two processors of one class give equal bits, two of different classes may.
    """
    parts = {**_processor(), "threads": threads, **_kernels(), **_device(accelerator)}
    return {"class": class_of(parts), **parts}


def class_of(parts: Mapping[str, Any]) -> str:
    """A short printable identity of the parts."""
    text = json.dumps({name: value for name, value in parts.items() if name != "class"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def recorded_class(environment: Mapping[str, Any] | None) -> str:
    """The class that a record names; of records with parts alone their hash; empty where it is not recorded."""
    parts = (environment or {}).get("numerics")
    return (parts.get("class") or class_of(parts)) if parts else ""


@lru_cache(maxsize=1)
def _processor() -> dict[str, Any]:
    """Vendor, family and model, by which libraries choose kernels, and the vector instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        text = ""
    lines = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
    names = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
    model = [lines[name] for name in names if name in lines]
    flags = (lines.get("flags") or lines.get("Features") or "").split()
    return {
        "processor": " ".join(model) or platform.processor() or platform.machine(),
        "vector_flags": " ".join(sorted(flag for flag in flags if any(part in flag for part in VECTOR_FLAGS))),
    }


def _kernels() -> dict[str, Any]:
    """What torch makes of the processor, the libraries that compute, and the variables that limit their kernels."""
    found: dict[str, Any] = {"limits": {name: os.environ[name] for name in LIMITS if os.environ.get(name)}}
    found["libraries"] = {name: _version(name) for name in LIBRARIES}
    if torch := sys.modules.get("torch"):
        known = torch.cpu.get_capabilities()
        found |= {
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "caches": [known.get(name) for name in CACHES],
            "build": torch.__version__,
            "mkl": torch.backends.mkl.is_available(),
            "onednn": torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled),
        }
    return found


def _device(accelerator: str) -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if accelerator != "cuda" or torch is None or not torch.cuda.is_available():
        return {"device": "cpu"}
    versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {"device": "cuda", "gpu": torch.cuda.get_device_name(0), **versions}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
