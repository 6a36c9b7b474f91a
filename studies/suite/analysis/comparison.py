"""The paired difference of two arms of a page, with the spread and the reading that the study declares."""

from collections.abc import Mapping
from typing import Any

import numpy
import pandas

from studies.suite.analysis.readings import reading_at, status_by_seed
from studies.suite.analysis.results import DONE, Results
from studies.suite.analysis.spread import spread_of_difference
from studies.suite.analysis.statistics import PairedResult, by_seed, difference_of, select


def compare(results: Results, treatment: str, control: str, metric: str, **conditions: Any) -> PairedResult:
    """Treatment minus control over the seeds of the last reading; every difference of a page comes from here.

    The spread is pooled over the arms of the same pool in the same conditions (see spread.py), where treatment and
    control are in one pool and no guard is against it; over the arms that have all of the contrast's seeds. The pools
    (``Arm.pool``) and the readings (``Study.looks``) are those in ``results.about``.

    Args:
        conditions: the labels of the runs that are compared, for example budget and rho.

    Raises:
        KeyError: a condition that is no label of the runs.
        ValueError: conditions that do not single out one run of an arm and a seed.
    """
    runs = select(results.runs, **conditions)
    states = {arm: status_by_seed(select(runs, arm=arm)) for arm in (treatment, control)}
    reading = reading_at(results.about.get("looks", ()), states[treatment], states[control])
    done = runs[runs["status"] == DONE]
    values = {arm: by_seed(select(done, arm=arm), metric) for arm in (treatment, control)}
    common = sorted(set(values[treatment]) & set(values[control]))
    if reading.seeds is not None:
        common = [seed for seed in common if seed in reading.seeds]
    differences = [values[treatment][seed] - values[control][seed] for seed in common]
    pooled = _pooled(results.about.get("pools", {}), done, treatment, control, metric, common)
    return difference_of(common, differences, 1 - 2 * reading.alpha, pooled, reading.is_read)


def _pooled(
    pools: Mapping[str, str], done: pandas.DataFrame, treatment: str, control: str, metric: str, seeds: list[int]
) -> tuple[float, int] | None:
    """The pooled spread and its degrees of freedom, or None where the contrast keeps its own."""
    pool = pools.get(treatment)
    if not pool or pools.get(control) != pool or len(seeds) < 2:
        return None
    members = [arm for arm in dict.fromkeys(done["arm"]) if pools.get(arm) == pool]
    values = {arm: by_seed(select(done, arm=arm), metric) for arm in members}
    table = {arm: [found[seed] for seed in seeds] for arm, found in values.items() if set(seeds) <= set(found)}
    if len(table) < 3:
        return None
    places = [list(table).index(arm) for arm in (treatment, control)]
    spread, df = spread_of_difference(numpy.array(list(table.values())), *places)
    return (float(spread), int(df)) if df > len(seeds) - 1 and spread > 0 else None
