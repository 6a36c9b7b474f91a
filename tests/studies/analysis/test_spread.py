"""The pooled spread against a least-squares fit, and its guard against scipy's F distribution."""

import numpy as np
import pytest
from scipy import stats

from studies.suite.analysis.spread import spread_of_difference


def fitted(table):
    """The residual mean square of an additive model, fitted with one column per arm and seed, and its rank."""
    arms, n = table.shape
    design = np.zeros((arms * n, arms + n))
    for row, (arm, seed) in enumerate(np.ndindex(arms, n)):
        design[row, arm] = design[row, arms + seed] = 1
    _, rest, rank, _ = np.linalg.lstsq(design, table.ravel(), rcond=None)
    residual = table.ravel() - design @ np.linalg.pinv(design) @ table.ravel()
    return residual @ residual / (arms * n - rank), arms * n - rank


def test_the_spread_is_that_of_an_additive_model():
    table = np.random.default_rng(3).normal(0.5, 0.02, (5, 4)) + np.arange(4) / 10 + np.arange(5)[:, None] / 7
    spread, df = spread_of_difference(table, 1, 3)
    square, rest = fitted(table)
    assert df == rest == 12 and spread == pytest.approx(np.sqrt(2 * square))
    both, of_each = spread_of_difference(np.stack([table, 2 * table]), 1, 3)
    assert both == pytest.approx(np.array([1, 2]) * spread) and of_each.tolist() == [12, 12]


def test_what_seeds_and_arms_have_in_common_is_no_spread():
    table = np.arange(4)[:, None] + np.array([0.0, 0.3, 0.1, 0.7, 0.2])
    assert spread_of_difference(table, 0, 1)[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("first, second", [(0, 1), (1, 0)])
def test_an_arm_that_varies_more_keeps_its_own_spread(first, second):
    random = np.random.default_rng(0)
    table = random.normal(0, 1, (6, 5))
    table[0] *= 8
    spread, df = spread_of_difference(table, first, second)
    assert df == 4 and spread == pytest.approx((table[0] - table[1]).std(ddof=1))
    others, rest = spread_of_difference(table, 2, 3)  # stays pooled, and too wide
    assert rest == 20 and others > (table[2] - table[3]).std(ddof=1)


def test_the_guard_is_an_f_test_at_7_percent():
    """For normal values of one variance an arm is found wider in 7 % of tables, the same as by scipy's F."""
    tables, arms = np.random.default_rng(5).normal(0, 1, (4000, 4, 5)), 4
    residual = tables - tables.mean(2, keepdims=True) - tables.mean(1, keepdims=True)
    residual += tables.mean((1, 2), keepdims=True)
    of_arm = (residual**2).sum(2)[:, 0] * arms / (arms - 1)
    rest = (residual**2).sum((1, 2)) - of_arm
    first = stats.f.sf((of_arm / 4) / (rest / 8), 4, 8) < 0.07
    assert first.mean() == pytest.approx(0.07, abs=0.0121)  # three standard errors
    own = spread_of_difference(tables, 0, 1)[1] == 4
    assert own[first].all() and first.mean() < own.mean() < 0.16  # either of two arms


@pytest.mark.parametrize("shape", [(2, 5), (4, 1)])
def test_too_little_to_pool_is_an_error(shape):
    with pytest.raises(ValueError, match="pooling takes three arms and two seeds at least"):
        spread_of_difference(np.zeros(shape), 0, 1)
