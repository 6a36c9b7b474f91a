"""Plain data of a study: merging of configurations, and the identities of a spec."""

from studies.suite.planning.study import merge


def test_merging_goes_deep_and_changes_nothing():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": None}
    assert merge(base, {"a": {"y": [3]}, "b": {"z": 1}}) == {"a": {"x": 1, "y": [3]}, "b": {"z": 1}}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": None}


def test_another_target_or_name_replaces_the_whole():
    base = {"method": {"_target_": "a.A", "dim": 1}, "backbone": {"name": "resnet_tiny", "widths": [1]}}
    merged = merge(base, {"method": {"_target_": "b.B"}, "backbone": {"name": "resnet50"}})
    assert merged == {"method": {"_target_": "b.B"}, "backbone": {"name": "resnet50"}}
    assert merge(base, {"method": {"_target_": "a.A", "t": 2}})["method"] == {"_target_": "a.A", "dim": 1, "t": 2}
