"""Runs of two numerics classes: no pair mixes them."""

import pandas
import pytest
from synthetic_results import of_classes, results

from studies.suite.analysis.comparison import compare
from studies.suite.analysis.statistics import paired


def test_a_seed_of_two_classes_is_no_pair():
    mixed, alike = of_classes(["two", "one", "one"]), of_classes(["one"] * 3)
    found = compare(mixed, "a", "b", "linear_top1")
    assert (found.seeds, found.mixed) == ((1, 2), (0,)) and found.differences == pytest.approx((0.10, 0.13))
    assert compare(alike, "a", "b", "linear_top1").mixed == ()
    assert paired(mixed.finished, "a", "b", "linear_top1").mixed == (0,)
    assert compare(of_classes([""] * 3), "a", "b", "linear_top1").n == 0  # unknown is not "one"
    assert compare(results(), "a", "b", "linear_top1").n == 3  # records before there were classes


def test_an_arm_of_another_class_takes_no_part_in_the_spread():
    third = results().runs[lambda runs: runs.arm == "a"].assign(arm="c", linear_top1=0.9)
    rows = pandas.concat([results().runs, third])
    pools = dict.fromkeys("abc", "arms")
    alike = results(pools=pools).with_runs(rows.assign(numerics="one"))
    other = results(pools=pools).with_runs(rows.assign(numerics=["one"] * 6 + ["two"] * 3))
    assert compare(alike, "a", "b", "linear_top1").is_pooled
    assert not compare(other, "a", "b", "linear_top1").is_pooled
