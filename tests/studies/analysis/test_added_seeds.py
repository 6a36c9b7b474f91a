"""Error rates where seeds are added to the contrasts that are still open, one step at a time (``minutes=``).

Every simulated study has a base and three treatments, and adds seeds by the rule of next_step.py: all arms to the first
reading, then each time the open contrast that decides most per second. The simulation is an exact, vectorised form of
that rule; the last test takes single studies through ``next_step`` and ``judge`` themselves.
"""

from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from simulated_arms import LIMIT, NOISE, STUDIES, TOLERANCE, draw

from studies.suite.analysis.next_step import chance_to_decide, next_step
from studies.suite.analysis.readings import level
from studies.suite.analysis.results import Results
from studies.suite.analysis.spread import spread_of_difference
from studies.suite.analysis.statistics import quantile
from studies.suite.analysis.verdict import NOT_RESOLVED, judge
from studies.suite.planning.study import Contrast

LOOKS, ARMS, BASE = (3, 5, 10), 4, 0
ALPHA = level(LOOKS)
TREATMENTS = range(1, ARMS)
SESOI = 2.0  # in standard deviations of one arm's residual


def added(values, sesoi=SESOI):
    """Every study until nothing is open; yields treatment, studies, and the interval each time one is read.

    Args:
        values: (studies, ARMS, most seeds), treatment minus base is better where it is above 0.

    Yields:
        (treatment, indices of studies, seeds, mean, half width) of the contrasts that are read, after each step.
    """
    count = len(values)
    seeds = np.full((count, ARMS), LOOKS[0])
    is_open = np.ones((count, ARMS), dtype=bool)
    is_open[:, BASE] = False
    state = {name: np.zeros((count, ARMS)) for name in ("mean", "spread", "df")}
    active = np.arange(count)
    while len(active):
        for treatment in TREATMENTS:
            reached = np.minimum(seeds[active, treatment], seeds[active, BASE])
            for look in LOOKS:
                rows = active[reached == look]
                if not len(rows):
                    continue
                mean, spread, df = measured(values, seeds, rows, treatment, look)
                half = factors(df) * spread / look**0.5
                yield treatment, rows, look, mean, half
                outcome = (abs(mean) > half) | (mean + half < sesoi)  # or its claim is contradicted
                is_open[rows, treatment] = ~outcome & (look < LOOKS[-1])
                for name, value in (("mean", mean), ("spread", spread), ("df", df)):
                    state[name][rows, treatment] = value
        active = active[is_open[active].any(axis=1)]
        for study in active:
            chosen, target = choice(seeds[study], is_open[study], {k: v[study] for k, v in state.items()}, sesoi)
            for arm in (BASE, chosen):
                seeds[study, arm] = max(seeds[study, arm], target)


def measured(values, seeds, rows, treatment, look):
    """Mean difference, spread and degrees of freedom at a reading, pooled over the arms that have its seeds."""
    mean, spread, df = np.empty(len(rows)), np.empty(len(rows)), np.empty(len(rows), dtype=int)
    has = seeds[rows] >= look
    for pool in np.unique(has, axis=0):
        here = (has == pool).all(axis=1)
        arms = np.flatnonzero(pool).tolist()
        table = values[rows[here]][:, arms, :look]
        first, second = arms.index(treatment), arms.index(BASE)
        difference = table[:, first] - table[:, second]
        mean[here] = difference.mean(axis=1)
        if len(arms) < 3:
            spread[here], df[here] = difference.std(axis=1, ddof=1), look - 1
        else:
            spread[here], df[here] = spread_of_difference(table, first, second)
    return mean, spread, df


def factors(df):
    known = {each: quantile(ALPHA, each) for each in set(df.tolist())}
    return np.array([known[each] for each in df.tolist()])


def choice(seeds, is_open, state, sesoi):
    """The open contrast with the most chance per run that is missing, and the reading that it is taken to."""
    best = None
    for arm in np.flatnonzero(is_open):
        settled = min(seeds[arm], seeds[BASE])
        target = next(look for look in LOOKS if look > settled)
        gain = SimpleNamespace(
            n=int(settled), mean=state["mean"][arm], spread=state["spread"][arm], df=int(state["df"][arm])
        )
        missing = sum(max(0, target - seeds[each]) for each in (arm, BASE))
        value = chance_to_decide(gain, sesoi, target, ALPHA) / missing
        if best is None or value > best[0]:
            best = value, arm, target
    return best[1:]


def error_rates(values, truth):
    """The share of studies with a false outcome of a treatment at any reading, over the treatments."""
    better, equivalent = (np.zeros((len(values), ARMS), dtype=bool) for _ in range(2))
    shifted = values + truth * (np.arange(ARMS)[:, None] != BASE)
    for treatment, rows, _, mean, half in added(shifted):
        better[rows, treatment] |= mean - half > 0
        equivalent[rows, treatment] |= (mean + half < SESOI) & (mean - half > -SESOI) & (abs(mean) <= half)
    return better.mean(axis=0)[1:], equivalent.mean(axis=0)[1:]


def noisy(noise):
    """Unequal noise: the first treatment varies more than the other arms."""
    values = draw(noise, ARMS, LOOKS[-1])
    return values if isinstance(noise, str) else values[:, [1, 0, 2, 3]]


@pytest.mark.parametrize("noise", NOISE)
def test_no_treatment_is_called_better_by_chance_where_seeds_are_added(noise):
    better, _ = error_rates(noisy(noise), truth=0.0)
    assert (better < LIMIT + TOLERANCE).all()
    if noise == "normal":
        assert (better < 0.025 + 3 * (0.025 * 0.975 / STUDIES) ** 0.5).all()


@pytest.mark.parametrize("noise", NOISE)
def test_no_effect_of_interest_is_called_equivalent_by_chance_where_seeds_are_added(noise):
    _, equivalent = error_rates(noisy(noise), truth=SESOI)
    assert (equivalent < LIMIT + TOLERANCE).all()


def test_the_simulated_studies_differ_in_their_readings():
    """Nothing would be tested if every study read all contrasts at all readings."""
    reads = {look: 0 for look in LOOKS}
    for _, rows, look, _, _ in added(noisy("normal")[:500]):
        reads[look] += len(rows)
    assert all(reads.values()) and reads[10] < reads[3]


def test_the_simulated_rule_is_that_of_a_study():
    """Single studies through next_step and judge, one step at a time: the same intervals at the same readings."""
    values, names = noisy(3.0)[:6], ("base", "a", "b", "c")
    expected = [set() for _ in values]
    for treatment, rows, look, mean, half in added(values):
        for row, low, high in zip(rows, mean - half, mean + half, strict=True):
            expected[row].add((names[treatment], look, round(low, 9), round(high, 9)))
    for table, wanted in zip(values, expected, strict=True):
        seeds, found = dict.fromkeys(names, LOOKS[0]), set()
        while True:
            results = results_of(table, names, seeds)
            verdicts = [
                judge(results, [Contrast(name, name, "base", "top1", SESOI, f"{name} is better")], [])
                for name in names[1:]
            ]
            for verdict in verdicts:
                (finding,) = verdict.findings
                gain = finding.gain
                found.add((finding.contrast.name, gain.n, round(gain.ci_low, 9), round(gain.ci_high, 9)))
            step = next_step(results, verdicts)
            if not step.waiting:
                break
            assert all(finding.outcome == NOT_RESOLVED for finding in step.waiting)
            for arm, _, seed in step.steps[0].runs:
                seeds[arm] = max(seeds[arm], seed + 1)
        assert found == wanted


def results_of(table, names, seeds):
    rows = [
        {"arm": arm, "seed": seed, "run": f"{arm}{seed}", "status": "done", "reason": "", "top1": own[seed],
         "seconds_pretrain": 1.0}
        for arm, own in zip(names, table, strict=True)
        for seed in range(seeds[arm])
    ]  # fmt: skip
    about = {"looks": list(LOOKS), "pools": dict.fromkeys(names, "arms"), "metrics": {}}
    return Results(about, pandas.DataFrame(rows))
