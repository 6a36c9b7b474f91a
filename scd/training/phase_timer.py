"""Where the seconds of a run go: making views, and stepping; cheap enough to be always on."""

from time import perf_counter

import torch

PHASES = ("views", "step")


class PhaseClock:
    """Adds up the time of each phase of training.

    On the CPU a lap costs one reading of the system clock. On CUDA, where a call returns before its work is done, a lap
    records an event, and :meth:`settle` reads all of them with one synchronisation.

    Args:
        device: where the work runs.
        seconds: time of each phase that earlier processes of the same run spent, to go on from.

    NOTE: on CUDA a phase lasts from the moment the GPU has finished the phase before to the moment it has finished this
    one: time in which the GPU waits for images from the host counts as "views".
    """

    def __init__(self, device: torch.device, seconds: dict[str, float] | None = None):
        self.cuda = device.type == "cuda"
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0) | (seconds or {})
        self.total = sum(self.seconds.values())
        self.pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self.start()

    def start(self) -> None:
        """Begins a phase here; what passed since the last lap (a checkpoint, a log line) is nobody's time."""
        self.mark = perf_counter()
        self.event = self.record() if self.cuda else None

    def lap(self, phase: str) -> None:
        """Ends a phase and begins the next. ``total`` grows by the host's time in both cases."""
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
        """Waits for the GPU and adds up the recorded events; on the CPU there is nothing to wait for."""
        if not self.pending:
            return
        torch.cuda.synchronize(self.device)
        now = perf_counter()
        self.total += now - self.mark
        self.mark = now
        for phase, begin, end in self.pending:
            self.seconds[phase] += begin.elapsed_time(end) / 1000  # milliseconds
        self.pending.clear()

    def record(self) -> torch.cuda.Event:
        """An event at this point of the device's current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event
