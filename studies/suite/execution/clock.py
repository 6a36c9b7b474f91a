"""The time that a command may begin runs in (``minutes=20``)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Counts down from its creation. A run that has begun is finished; none begins after the end.

    Args:
        minutes: above 0.
        now: the time in seconds, from any origin.
    """

    minutes: float
    now: Callable[[], float] = time.monotonic
    began: float = field(init=False)

    def __post_init__(self):
        self.began = self.now()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self.now() - self.began

    @property
    def left(self) -> float:
        """Seconds until the end; 0 after it."""
        return max(0.0, 60 * self.minutes - self.seconds)

    @property
    def is_over(self) -> bool:
        """Whether no run may begin any more."""
        return self.left == 0.0


def in_words(seconds: float) -> str:
    """A duration for people: 40 s, 12 min, 3.5 h, 2.1 days."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (unit == "min" and seconds >= length):
            return f"{seconds / length:.1f} {unit}" if unit != "min" else f"{seconds / length:.0f} min"
    return f"{seconds:.0f} s"
