"""Seconds of a training run by phase (views, forward, backward, ...), cheap enough to be always on."""

from collections import defaultdict
from collections.abc import Mapping
from time import perf_counter

import torch


class PhaseTimer:
    """Adds up the time of each phase of training.

    On the CPU a lap costs one reading of the system clock. On CUDA, where a call returns before its work is done, a lap
    records an event, and :meth:`settle` reads all of them with one synchronisation.

    Args:
        device: where the work runs.

    Attributes:
        seconds: time by phase; on CUDA that of the settled laps.
        total: time of all phases, by the host's clock.

    NOTE: on CUDA a phase lasts from the moment the GPU has finished the phase before to the moment it has finished this
    one: time in which the GPU waits for images from the host counts as "views".
    """

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.total = 0.0
        self.pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self.start()

    def start(self) -> None:
        """Begin a phase here; the time since the last lap (a checkpoint, a log line) is not attributed."""
        self.mark = perf_counter()
        self.event = self.record() if self.cuda else None

    def lap(self, phase: str) -> None:
        """End a phase and begin the next one. ``total`` grows by the host's time on both kinds of device."""
        now = perf_counter()
        self.total += now - self.mark
        if self.cuda:
            event = self.record()
            self.pending.append((phase, self.event, event))
            self.event = event
        else:
            self.seconds[phase] += now - self.mark
        self.mark = now

    def settle(self) -> None:
        """Wait for the GPU and add up the recorded events; on the CPU there is nothing to wait for."""
        if not self.pending:
            return
        torch.cuda.synchronize(self.device)
        now = perf_counter()
        self.total += now - self.mark
        self.mark = now
        for phase, begin, end in self.pending:
            self.seconds[phase] += begin.elapsed_time(end) / 1000  # milliseconds
        self.pending.clear()

    def restore(self, seconds: Mapping[str, float], total: float) -> None:
        """Continue from the times of an earlier process of the same run."""
        self.seconds = defaultdict(float, seconds)
        self.total = total

    def record(self) -> torch.cuda.Event:
        """An event at this point of the device's current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event
