"""Plain data of a study: merging of configurations, what claims and readings may be."""

import pytest

from studies.references import RANDOM
from studies.suite.planning.study import Arm, Claim, Study, contrast_factory, merge

contrast = contrast_factory("top1", 0.01, "A is better")


def test_merging_goes_deep_and_changes_nothing():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": None}
    assert merge(base, {"a": {"y": [3]}, "b": {"z": 1}}) == {"a": {"x": 1, "y": [3]}, "b": {"z": 1}}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": None}


def test_another_target_or_name_replaces_the_whole():
    base = {"method": {"_target_": "a.A", "dim": 1}, "backbone": {"name": "resnet_tiny", "widths": [1]}}
    merged = merge(base, {"method": {"_target_": "b.B"}, "backbone": {"name": "resnet50"}})
    assert merged == {"method": {"_target_": "b.B"}, "backbone": {"name": "resnet50"}}
    assert merge(base, {"method": {"_target_": "a.A", "t": 2}})["method"] == {"_target_": "a.A", "dim": 1, "t": 2}


def test_a_claim_has_one_to_three_contrasts():
    assert Claim("A is better", (contrast("a", "b"),)).controls is None
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"'A is better' has {count}: declare several"):
            Claim("A is better", (contrast("a", "b"),) * count)


def test_contrasts_of_one_pair_have_names_by_their_conditions():
    plain, at = contrast("a", "b"), contrast("a", "b", conditions={"budget": "flops", "rho": 0.8})
    assert (plain.name, plain.conditions) == ("a-b", {})
    assert (at.name, at.conditions) == ("a-b, budget=flops, rho=0.8", {"budget": "flops", "rho": 0.8})


def test_the_design_of_a_study_names_its_readings_and_pools():
    arms = RANDOM, Arm("a", "A", {}, "", ""), Arm("b", "B", {}, "", "", pool="large")
    study = Study("toy", (), "?", "", arms, (), (), "", list, list, looks=(4, 8))
    assert study.design == {"looks": [4, 8], "pools": {"a": "arms", "b": "large"}}
    for looks in ((), (5, 3), (1, 5), (5, 5)):
        with pytest.raises(ValueError, match="looks are ascending numbers of at least two seeds"):
            Study("toy", (), "?", "", arms, (), (), "", list, list, looks=looks)
