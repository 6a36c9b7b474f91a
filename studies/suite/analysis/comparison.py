"""The paired difference of two arms of a page, with the spread and the reading that the study declares."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy

from studies.suite.analysis.readings import reading_at, status_by_seed
from studies.suite.analysis.results import DONE, Results
from studies.suite.analysis.spread import spread_of_difference
from studies.suite.analysis.statistics import PairedResult, by_seed, class_by_seed, difference_of, pairs_of, select


class OfSeeds(NamedTuple):
    """What the runs of an arm in one condition are, by seed: a metric of the finished ones, their class, and status."""

    values: Mapping[int, float]
    classes: Mapping[int, str]
    status: Mapping[int, str]


def compare(
    results: Results, treatment: str, control: str, metric: str, looks: Sequence[int] = (), **conditions: Any
) -> PairedResult:
    """Treatment minus control over the seeds of the last reading; every difference of a page comes from here.

    It is kept with the results, as tables, figures and verdicts of a page compare the same arms again.

    The spread is pooled over the arms of the same pool in the same conditions (see spread.py), where treatment and
    control are in one pool and no guard is against it; over the arms that have all of the contrast's seeds. Two runs of
    different numerics classes are no pair, and an arm of another class at a seed takes no part in the spread. The pools
    (``Arm.pool``) and the readings (``Study.looks``) are those in ``results.about``.

    Args:
        looks: readings in the place of the study's; empty: the study's.
        conditions: the labels of the runs that are compared, for example budget and rho.

    Raises:
        KeyError: a condition that is no label of the runs.
        ValueError: conditions that do not single out one run of an arm and a seed.
    """
    pool, looks = _pool(results.about.get("pools", {}), treatment, control), looks or results.about.get("looks", ())
    key = ("difference", treatment, control, metric, tuple(looks), tuple(pool), *sorted(conditions.items()))
    if key not in results.kept:
        results.kept[key] = _compared(results, treatment, control, metric, looks, pool, conditions)
    return results.kept[key]


def _compared(
    results: Results,
    treatment: str,
    control: str,
    metric: str,
    looks: Sequence[int],
    pool: Sequence[str],
    conditions: Mapping[str, Any],
) -> PairedResult:
    first, second = (of_seeds(results, arm, metric, conditions) for arm in (treatment, control))
    reading = reading_at(looks, first.status, second.status)
    pairs, mixed = pairs_of(first.values, second.values, first.classes, second.classes)
    seeds, mixed = (
        [seed for seed in part if reading.seeds is None or seed in reading.seeds] for part in (pairs, mixed)
    )
    differences = [first.values[seed] - second.values[seed] for seed in seeds]
    others = {arm: of_seeds(results, arm, metric, conditions) for arm in pool}
    members = {
        arm: [each.values[seed] for seed in seeds]
        for arm, each in others.items()
        if all(seed in each.values and each.classes[seed] == first.classes[seed] for seed in seeds)
    }
    pooled = _pooled(members, treatment, control)
    result = difference_of(seeds, differences, 1 - 2 * reading.alpha, pooled, reading.is_read)
    return replace(result, mixed=tuple(mixed))


def of_seeds(results: Results, arm: str, metric: str, conditions: Mapping[str, Any]) -> OfSeeds:
    """The runs of an arm in one condition; kept, as a page compares each arm with many others.

    Raises:
        KeyError, ValueError: see :func:`compare`.
    """
    key = (arm, metric, *sorted(conditions.items()))
    if key not in results.kept:
        wanted = dict.fromkeys(("seed", "status", "numerics", metric, *conditions))
        runs = results.runs.loc[results.runs["arm"] == arm, [name for name in wanted if name in results.runs]]
        part = select(runs, **conditions)
        results.kept[key] = OfSeeds(
            by_seed(part[part["status"] == DONE], metric), class_by_seed(part), status_by_seed(part)
        )
    return results.kept[key]


def _pool(pools: Mapping[str, str], treatment: str, control: str) -> list[str]:
    """The arms over which the spread of a contrast may be pooled; none where its arms are not in one pool."""
    pool = pools.get(treatment)
    return [arm for arm in pools if pools[arm] == pool] if pool and pools.get(control) == pool else []


def _pooled(values: Mapping[str, Sequence[float]], treatment: str, control: str) -> tuple[float, int] | None:
    """The pooled spread and its degrees of freedom, or None where the contrast keeps its own.

    Args:
        values: arm -> its values at the seeds of the contrast, in their order.
    """
    seeds = len(values.get(treatment, ()))
    if len(values) < 3 or seeds < 2:
        return None
    places = [list(values).index(arm) for arm in (treatment, control)]
    spread, df = spread_of_difference(numpy.array(list(values.values())), *places)
    return (float(spread), int(df)) if df > seeds - 1 and spread > 0 else None
