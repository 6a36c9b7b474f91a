"""Energy of a piece of work, where the hardware measures it: NVML's counters, read by zeus."""

from collections.abc import Callable

import torch


def energy(work: Callable[[], object], device: torch.device) -> tuple[float | None, str]:
    """Run ``work``; returns (joules of the GPU, "") or (None, why it was not measured).

    Only the GPU is asked: a processor's counters, where there are any, add up everything else that it does.
    """
    if device.type != "cuda":
        return None, "no GPU, and a CPU's counters add up all that it does"
    try:
        from zeus.monitor import ZeusMonitor
    except ImportError:
        return None, "zeus is not installed: python -m pip install -e '.[energy]'"
    monitor = ZeusMonitor(gpu_indices=[device.index or 0])
    monitor.begin_window("work")
    work()
    return monitor.end_window("work").total_energy, ""
