"""The rule's error rates and power by simulation, with the functions that a page uses, over all declared readings.

A true difference of 0 must rarely be called better, and one of the smallest effect of interest rarely equivalent: in
5 % of studies at most, over all readings together, for differences that are normal, have heavy tails, or come from an
arm that varies two or three times as much as the others. Spreads are in units of one arm's residual: a paired
difference has sqrt(2).
"""

import numpy as np
import pandas
import pytest
from simulated_arms import LIMIT, NOISE, STUDIES, TOLERANCE, draw

from studies.suite.analysis.comparison import compare
from studies.suite.analysis.readings import level
from studies.suite.analysis.results import Results
from studies.suite.analysis.spread import spread_of_difference
from studies.suite.analysis.statistics import quantile

LOOKS = ((5,), (5, 10), (3, 5, 10))


def intervals(values, looks):
    """The mean difference of the first two arms and the half width of its interval, reading by reading."""
    for look in looks:
        table = values[..., :look]
        differences = table[:, 0] - table[:, 1]
        if table.shape[1] < 3:
            spread, df = differences.std(axis=1, ddof=1), np.full(len(table), look - 1)
        else:
            spread, df = spread_of_difference(table, 0, 1)
        factors = {each: quantile(level(looks), each) for each in set(df.tolist())}
        yield differences.mean(axis=1), np.vectorize(factors.get)(df) * spread / look**0.5


@pytest.mark.parametrize("looks", LOOKS)
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("arms", [2, 4, 14])
def test_a_false_outcome_is_rare_over_all_readings(arms, noise, looks):
    values = draw(noise, arms, max(looks))
    better, equivalent = np.zeros(STUDIES, dtype=bool), np.zeros(STUDIES, dtype=bool)
    for mean, half in intervals(values, looks):
        better |= mean - half > 0
        for sesoi in (1.0, 2.0, 4.0):  # the true difference is now sesoi: it must not lie within ± sesoi
            equivalent |= (mean + sesoi + half < sesoi) & (mean + sesoi - half > -sesoi)
    assert better.mean() < LIMIT + TOLERANCE  # and so at each reading
    assert equivalent.mean() < LIMIT + TOLERANCE
    if noise == "normal":
        assert better.mean() < 0.025 + 3 * (0.025 * 0.975 / STUDIES) ** 0.5  # what the page states


def test_readings_that_do_not_share_the_error_err_more():
    values, better = draw("normal", 2, 10), np.zeros(STUDIES, dtype=bool)
    for look in (3, 5, 10):
        for mean, half in intervals(values[..., :look], (look,)):
            better |= mean - half > 0
    assert better.mean() > 0.05  # 2.5 % is stated


def test_pooling_without_the_guard_errs_more():
    """The guard is what keeps an arm that varies three times as much within the limits."""
    values = draw(3.0, 7, 5)
    difference = values[:, 0] - values[:, 1]
    residual = values - values.mean(axis=2, keepdims=True)
    residual -= residual.mean(axis=1, keepdims=True)
    pooled = np.sqrt(2 * (residual**2).sum(axis=(1, 2)) / 24)
    unguarded = np.mean(difference.mean(axis=1) > quantile(0.025, 24) * pooled / 5**0.5)
    ((mean, half),) = intervals(values, (5,))
    assert unguarded > 0.08 and np.mean(mean > half) < LIMIT + TOLERANCE


@pytest.mark.parametrize(
    ("arms", "looks", "points"),
    [
        (2, (5,), 3.4),  # the spread of one contrast alone
        (7, (5,), 2.9),  # pooled over seven arms
        (7, (5, 10), 3.2),
        (7, (3, 5, 10), 3.4),
    ],
)
def test_the_difference_that_five_seeds_find_in_80_percent_of_studies(arms, looks, points):
    """Paired differences with a standard deviation of 2 points, read at 5 seeds."""
    values = 2**0.5 * draw("normal", arms, 10)
    found = dict(zip(looks, intervals(values, looks), strict=True))
    mean, half = found[5]
    assert np.mean(mean + points > half) == pytest.approx(0.8, abs=0.03)


def test_the_simulated_rule_is_that_of_a_page():
    values, names = draw(3.0, 4, 10, studies=40), "abcd"
    about = {"looks": [3, 5], "pools": dict.fromkeys(names, "arms"), "metrics": {}}
    at_five, pooled = list(intervals(values, (3, 5)))[1], 0
    for study, table in enumerate(values):
        rows = [
            {"arm": arm, "seed": seed, "run": "", "status": "done", "reason": "", "top1": value}
            for arm, own in zip(names, table, strict=True)
            for seed, value in enumerate(own)
        ]
        result = compare(Results(about, pandas.DataFrame(rows)), "a", "b", "top1")
        mean, half = at_five[0][study], at_five[1][study]
        assert result.n == 5 and (result.ci_low, result.ci_high) == pytest.approx((mean - half, mean + half))
        pooled += result.is_pooled
    assert 0 < pooled < 40  # the guard is met on both sides
