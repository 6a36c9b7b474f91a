"""Statistics against scipy, a hand-worked Holm example, published noise levels, and their own coverage."""

import numpy as np
import pandas
import pytest
from scipy import stats

from studies.suite.analysis.statistics import (
    by_seed,
    difference_of,
    equivalence,
    estimate,
    holm,
    least_margin,
    paired,
    seeds_interval,
    seeds_needed,
    spread_interval,
    t_power,
)

RECORDS = pandas.DataFrame(
    [
        {"arm": arm, "seed": seed, "budget": budget, "top1": value}
        for budget, arm, values in (
            ("epochs", "a", (0.61, 0.64, 0.60, 0.66)),
            ("epochs", "b", (0.60, 0.61, 0.61, 0.62)),
            ("flops", "a", (0.50, 0.51, 0.52, 0.55)),
        )
        for seed, value in enumerate(values)
    ]
)


def test_estimate_has_scipys_interval():
    values = [0.61, 0.64, 0.60, 0.66]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = estimate(values)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert found.sd == pytest.approx(np.std(values, ddof=1)) and found.n == 4


def test_estimate_of_one_or_no_value_has_no_interval():
    assert (estimate([0.5]).mean, estimate([0.5]).half, estimate([0.5]).sd) == (0.5, None, None)
    assert estimate([None, float("nan")]).mean is None


def test_paired_agrees_with_scipys_paired_t_test():
    result = paired(RECORDS, "a", "b", "top1", budget="epochs")
    a, b = ([0.61, 0.64, 0.60, 0.66], [0.60, 0.61, 0.61, 0.62])
    reference = stats.ttest_rel(a, b)
    interval = reference.confidence_interval(0.95)
    assert result.p == pytest.approx(reference.pvalue)
    assert (result.ci_low, result.ci_high) == pytest.approx((interval.low, interval.high))
    assert result.dz == pytest.approx(reference.statistic / np.sqrt(4))
    assert result.seeds == (0, 1, 2, 3) and result.differences == pytest.approx(np.subtract(a, b))
    greater = stats.ttest_rel(a, b, alternative="greater").confidence_interval(0.99)
    assert result.bound("lower", 0.01) == pytest.approx(greater.low)


def test_only_common_seeds_are_paired():
    short = RECORDS[~((RECORDS["arm"] == "b") & (RECORDS["seed"] == 1))]
    result = paired(short, "a", "b", "top1", budget="epochs")
    assert result.seeds == (0, 2, 3) and result.n == 3
    lacking = RECORDS.assign(top1=RECORDS["top1"].where(RECORDS["seed"] != 3))
    assert paired(lacking, "a", "b", "top1", budget="epochs").seeds == (0, 1, 2)


def test_one_pair_and_equal_differences_have_no_interval():
    one = paired(RECORDS[RECORDS["seed"] == 2], "a", "b", "top1", budget="epochs")
    assert one.n == 1 and one.mean == pytest.approx(-0.01)
    assert (one.sd, one.ci_low, one.ci_high, one.p, one.dz, one.bound("upper", 0.05)) == (None,) * 6
    equal = difference_of([0, 1, 2], [0.02, 0.02, 0.02])
    assert equal.mean == pytest.approx(0.02) and equal.sd == 0.0
    assert (equal.ci_low, equal.p, equal.dz, equal.bound("lower", 0.05)) == (None,) * 4
    none = paired(RECORDS, "a", "b", "top1", budget="flops")
    assert none.n == 0 and none.mean is None and none.p is None


def test_ambiguous_or_unknown_conditions_are_errors():
    with pytest.raises(ValueError, match="more than one record of top1 for seed 0"):
        paired(RECORDS, "a", "b", "top1")
    with pytest.raises(KeyError, match="the records have no label 'rho'"):
        paired(RECORDS, "a", "b", "top1", rho=0.0)
    assert by_seed(RECORDS, "missing") == {}


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_paired_interval_covers_what_it_says(n):
    random = np.random.default_rng(n)
    draws = 2000
    seeds = random.normal(0.6, 0.02, (draws, n))  # what both arms of a seed share
    treatment, control = (seeds + random.normal(shift, 0.005, (draws, n)) for shift in (0.004, 0.0))
    results = [difference_of(range(n), row) for row in treatment - control]
    covered = np.mean([result.ci_low <= 0.004 <= result.ci_high for result in results])
    assert covered == pytest.approx(0.95, abs=0.015)  # 3 standard errors of 2000 draws


def test_holm_against_a_hand_worked_example():
    # 4 tests; sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, then made non-decreasing: .02 .03 .06 .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    # an unknown p value stays unknown and still costs its share: 3 tests, .01 * 3
    assert holm([0.01, None, 0.02]) == [pytest.approx(0.03), None, pytest.approx(0.04)]
    assert holm([]) == []


@pytest.mark.parametrize("gap, seeds", [(0.2, 12), (0.3, 6), (0.4, 4)])
def test_seeds_needed_at_the_noise_of_the_public_moco_trials(gap, seeds):
    trials = estimate([67.7, 67.6, 67.4, 67.6, 67.3])  # five pretrainings of MoCo v2, its README
    assert trials.sd == pytest.approx(0.164, abs=5e-4) and trials.half == pytest.approx(0.20, abs=5e-3)
    assert seeds_needed(trials.sd, gap, paired=False) == seeds


def test_power_agrees_with_simulation():
    random = np.random.default_rng(0)
    rejected = stats.ttest_1samp(random.normal(1.0, 1.3, (20000, 8)), 0, axis=1).pvalue < 0.05
    assert t_power(8, sd=1.3, effect=1.0) == pytest.approx(rejected.mean(), abs=0.01)
    assert t_power(seeds_needed(1.3, 1.0), 1.3, 1.0) >= 0.8 > t_power(seeds_needed(1.3, 1.0) - 1, 1.3, 1.0)


def test_seeds_that_cannot_be_known_are_none():
    assert seeds_needed(None, 1.0) is seeds_needed(0.0, 1.0) is seeds_needed(1.0, 0.0) is None
    assert seeds_needed(1.0, 1e-4) is None  # more than 100,000


def test_the_interval_of_a_number_of_seeds_covers_what_it_says():
    """The number from five seeds alone is far off; its interval contains the true one in 95 % of studies."""
    draw = np.random.default_rng(4)
    true = seeds_needed(2.0, 1.0)
    spreads = draw.normal(0, 2.0, (300, 5)).std(axis=1, ddof=1)
    inside = [low <= true <= high for low, high in (seeds_interval(sd, 4, 1.0) for sd in spreads)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.038)  # three standard errors
    near = np.mean([0.8 * true <= seeds_needed(sd, 1.0) <= 1.25 * true for sd in spreads[:100]])
    assert near < 0.4
    assert seeds_interval(None, 4, 1.0) is seeds_interval(0.0, 4, 1.0) is seeds_interval(1.0, 4, 0.0) is None
    assert seeds_interval(1.0, 4, 1e-4) is None  # more than 100,000


@pytest.mark.parametrize("df", [1, 2, 4, 24])
@pytest.mark.parametrize("ncp", [0.1, 1.0, 3.0, 8.0, 20.0, 60.0, 300.0])
def test_power_is_a_number_for_every_effect(df, ncp):
    """Against an average over the distribution of the spread: scipy's noncentral t is NaN in some tails."""
    quantiles = np.sqrt(stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, df) / df)
    for alpha in (0.05, 0.0167, 0.001):
        critical = stats.t.isf(alpha / 2, df)
        expected = np.mean(stats.norm.sf(critical * quantiles - ncp) + stats.norm.cdf(-critical * quantiles - ncp))
        assert t_power(df + 1, 1.0, ncp / (df + 1) ** 0.5, alpha) == pytest.approx(expected, abs=2e-3)
        assert t_power(9, 1.0, ncp / 3, alpha, df=df) == pytest.approx(expected, abs=2e-3)


def test_power_for_an_effect_that_is_large_beside_the_spread():
    for n in (2, 3, 5, 100):  # scipy's lower tail is NaN there
        assert t_power(n, sd=1.0, effect=60.0) == pytest.approx(1.0, abs=0.01)
    assert seeds_needed(1.0, 60.0) == 2


def test_negated_turns_treatment_and_control_around():
    there, back = paired(RECORDS, "a", "b", "top1", budget="epochs"), paired(RECORDS, "b", "a", "top1", budget="epochs")
    assert there.negated() == back


def test_equivalence_is_the_larger_of_two_one_sided_t_tests():
    values = [0.004, -0.002, 0.001, 0.003, 0.0]
    result = difference_of(range(5), values)
    lower = stats.ttest_1samp(values, -0.01, alternative="greater").pvalue
    upper = stats.ttest_1samp(values, 0.01, alternative="less").pvalue
    assert equivalence(result, 0.01) == pytest.approx(max(lower, upper))
    assert equivalence(result, 0.01) < 0.05 < equivalence(result, 0.002)
    assert equivalence(difference_of([0], [0.1]), 0.01) is None


def test_spread_interval_covers_what_it_says():
    draw = np.random.default_rng(0)
    samples = draw.normal(0, 2.0, (4000, 5)).std(axis=1, ddof=1)
    inside = [low <= 2.0 <= high for low, high in (spread_interval(sd, 4) for sd in samples)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("paired_design", [True, False])
def test_least_margin_is_what_the_power_says(paired_design):
    margin = least_margin(8, 0.3, paired=paired_design)
    assert t_power(8, 0.3, margin, paired=paired_design) == pytest.approx(0.8, abs=1e-6)
    assert seeds_needed(0.3, margin * 1.0001, paired=paired_design) == 8
