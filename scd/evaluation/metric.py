"""The definition of a number, for protocols that measure it and pages that print it; it needs no torch."""

from typing import Literal, NamedTuple

SHARE = "share in [0, 1]"
SHARE_DIFFERENCE = "difference of shares"


class Metric(NamedTuple):
    """A short label, the unit, the better direction (None: neither) and the definition in one sentence."""

    label: str
    unit: str
    better: Literal["higher", "lower"] | None
    definition: str
