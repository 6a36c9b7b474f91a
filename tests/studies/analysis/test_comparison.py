"""The difference of two arms of a page: its seeds, its spread, its reading."""

import numpy as np
import pandas
import pytest

from studies.suite.analysis.comparison import compare
from studies.suite.analysis.results import Results
from studies.suite.analysis.spread import spread_of_difference
from studies.suite.analysis.statistics import paired, quantile

ARMS = ("a", "b", "c", "d", "random")
POOLS = dict.fromkeys("abcd", "arms")
TABLE = np.random.default_rng(1).normal(0.5, 0.02, (5, 12)) + np.linspace(0, 0.1, 12)


def results(looks=(5,), pools=POOLS, seeds=5, without=(), status="missing"):
    """Results of five arms; the runs ``without`` (arm, seed) have another status and no number."""
    rows = []
    for arm, values in zip(ARMS, TABLE, strict=True):
        for seed in range(seeds):
            known = (arm, seed) not in without
            row = {"arm": arm, "seed": seed, "rho": 0.0, "run": "", "status": "done" if known else status, "reason": ""}
            rows.append({**row, "top1": values[seed] if known else None})
    return Results({"looks": list(looks), "pools": pools, "metrics": {}}, pandas.DataFrame(rows))


def test_the_spread_is_pooled_over_the_arms_of_a_pool():
    found = compare(results(), "a", "b", "top1", rho=0.0)
    spread, df = spread_of_difference(TABLE[:4, :5], 0, 1)
    assert found.is_pooled and (found.spread, found.df) == (pytest.approx(spread), 12)
    half = quantile(0.025, 12) * spread / 5**0.5
    assert (found.ci_low, found.ci_high) == pytest.approx((found.mean - half, found.mean + half))
    assert found.sd == pytest.approx((TABLE[0, :5] - TABLE[1, :5]).std(ddof=1))  # its own stays known


@pytest.mark.parametrize("pools", [{}, {"a": "arms", "b": "arms"}, {**POOLS, "a": "other"}])
def test_arms_of_no_pool_of_another_or_of_a_small_one_keep_their_own_spread(pools):
    found, own = results(pools=pools), results(pools={})
    assert compare(found, "a", "b", "top1") == compare(own, "a", "b", "top1")
    plain = paired(own.finished, "a", "b", "top1")
    assert compare(own, "a", "b", "top1") == plain and not plain.is_pooled and plain.df == 4


def test_references_are_never_pooled():
    found = compare(results(), "a", "random", "top1")
    assert not found.is_pooled and found.spread == found.sd and found.df == 4


def test_arms_that_lack_a_seed_do_not_take_part():
    partly = results(without=[("d", 1)])
    spread, df = spread_of_difference(TABLE[:3, :5], 0, 1)
    assert compare(partly, "a", "b", "top1").spread == pytest.approx(spread) and df == 8


def test_seeds_beyond_a_reading_do_not_count_before_the_next():
    assert compare(results((3, 5), seeds=4), "a", "b", "top1") == compare(results((3, 5), seeds=3), "a", "b", "top1")
    assert compare(results((5,), seeds=12), "a", "b", "top1").seeds == (0, 1, 2, 3, 4)
    early = compare(results((5,), seeds=4), "a", "b", "top1")
    assert early.n == 4 and not early.is_read and early.ci_low is not None  # shown, without an outcome


def test_a_contrast_may_have_readings_of_its_own():
    found = compare(results((5, 10), seeds=12), "a", "b", "top1", looks=(3,), rho=0.0)
    assert found == compare(results((3,), seeds=12), "a", "b", "top1", rho=0.0)
    assert (
        found.seeds == (0, 1, 2) and found.is_read and found.alpha == pytest.approx(0.025)
    )  # one reading has the whole error
    assert not compare(results((3,), seeds=4), "a", "b", "top1", looks=(5,)).is_read


def test_a_failed_run_is_read_as_a_pair_less_and_a_missing_one_is_waited_for():
    failed = compare(results((3, 5), without=[("a", 3)], status="failed"), "a", "b", "top1")
    assert failed.is_read and failed.seeds == (0, 1, 2, 4)
    missing = compare(results((3, 5), without=[("a", 3)]), "a", "b", "top1")
    assert missing.is_read and missing.seeds == (0, 1, 2)
    assert failed.alpha == missing.alpha == pytest.approx(0.0125)


def test_conditions_must_single_out_a_run_and_be_labels():
    twice = results()
    twice = twice.with_runs(pandas.concat([twice.runs, twice.runs.assign(rho=0.8)]))
    with pytest.raises(ValueError, match="more than one record of top1"):
        compare(twice, "a", "b", "top1")
    assert compare(twice, "a", "b", "top1", rho=0.8).n == 5
    with pytest.raises(KeyError, match="no label 'budget'"):
        compare(twice, "a", "b", "top1", budget="epochs")
