"""Readings: at which numbers of seeds a contrast is judged, and which error each of these readings may have.

Whoever looks at a page after 3, 5 and 10 seeds and stops at the first clear outcome errs more often than the interval
of one look says (6 % instead of 2.5 % on each side, by simulation). A study therefore declares its readings
(``Study.looks``), and K readings share the error: each end of each interval has error 0.025 / K. By Bonferroni's
inequality the chance that any reading states a false "better" is then 0.025 at most, and so is that of a false
"worse" or "equivalent", whatever the dependence between readings (Jennison and Turnbull, Group Sequential Methods,
2000, chapter 9: repeated confidence intervals; theirs solve for the joint distribution and are narrower by 6 % at three
readings). A study that declares a single reading has plain 95 % intervals.

A contrast is judged by the seeds of the last reading that it has reached; seeds after it count at the next one. A seed
counts once its runs have finished or failed in both arms, in the order of the seeds, so that neither a page that is
half finished nor the speed of a run decides when one looks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas

from studies.suite.analysis.statistics import ALPHA

SETTLED = ("done", "failed")


@dataclass(frozen=True)
class Reading:
    """What a contrast may be judged by.

    Attributes:
        seeds: of the last reading that is reached; None for all that there are.
        alpha: error of each end of its interval.
        is_read: False before the first reading; the differences may then be shown, and have no outcome.
    """

    seeds: tuple[int, ...] | None
    alpha: float
    is_read: bool = True


def reading_at(looks: Sequence[int], treatment: Mapping[int, str], control: Mapping[int, str]) -> Reading:
    """The reading of a contrast whose runs are in these states.

    Args:
        looks: the declared numbers of seeds, ascending; empty for one reading of whatever there is.
        treatment, control: seed -> status of the arm's run.
    """
    if not looks:
        return Reading(None, ALPHA)
    settled = settled_seeds(treatment, control)
    reached = [look for look in looks if look <= len(settled)]
    alpha = level(looks)
    return Reading(settled[: reached[-1]], alpha) if reached else Reading(None, alpha, is_read=False)


def level(looks: Sequence[int]) -> float:
    """The error of each end of an interval at each of these readings."""
    return ALPHA / max(1, len(looks))


def settled_seeds(treatment: Mapping[int, str], control: Mapping[int, str]) -> tuple[int, ...]:
    """The seeds in order, up to the first whose run is still missing in either arm."""
    found: list[int] = []
    for seed in sorted({*treatment, *control}):
        if treatment.get(seed) not in SETTLED or control.get(seed) not in SETTLED:
            break
        found.append(seed)
    return tuple(found)


def status_by_seed(runs: pandas.DataFrame) -> dict[int, str]:
    """Seed -> status, for the runs of one arm in one condition."""
    return dict(zip(runs["seed"].tolist(), runs["status"].tolist(), strict=True))


def next_look(looks: Sequence[int], settled: int) -> int | None:
    """The first reading after this number of seeds; None where there is none."""
    return next((look for look in looks if look > settled), None)


def looks_in_words(looks: Sequence[int]) -> str:
    """ "3, 5 and 10 seeds"."""
    numbers = [str(look) for look in looks]
    text = numbers[0] if len(numbers) == 1 else f"{', '.join(numbers[:-1])} and {numbers[-1]}"
    return f"{text} seeds"


def over_readings(looks: Sequence[int]) -> str:
    """ " over all readings": what an interval holds for, where several are declared."""
    return " over all readings" if len(looks) > 1 else ""
