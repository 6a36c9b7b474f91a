"""Two numerics classes on one page: no pair mixes them, and the page says so."""

import pandas
import pytest
from synthetic_results import results

from studies.suite.analysis.comparison import compare
from studies.suite.analysis.results import load, save
from studies.suite.analysis.statistics import paired
from studies.suite.pages.sections import machines


def of_classes(classes, **about):
    """Three seeds of arms a and b; ``classes`` of arm a, and arm b is of class "one"."""
    found = results(**about)
    names = [*(["one"] * 3), *classes]
    return found.with_runs(found.runs.assign(numerics=names))


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


def test_the_page_names_the_classes_the_seeds_and_the_command(tmp_path):
    found = of_classes(["two", "one", "one"], command="python -m studies toy")
    text = machines(found, {"A vs. B": compare(found, "a", "b", "linear_top1")})
    assert "**Runs of 2 numerics classes:** 5 of `one`, 1 of `two`." in text
    assert "A vs. B without 1 seed (0)." in text and "`python -m studies toy --recompute-foreign`" in text
    assert machines(of_classes(["one"] * 3), {}) == "" == machines(results(), {})
    save(found, tmp_path)
    assert load(tmp_path, "toy").runs["numerics"].tolist() == ["one"] * 3 + ["two", "one", "one"]
