"""Objects from the configuration of a run: what arms of a seed share, and one line for what cannot be built."""

import pytest
import torch
from torch import nn

from scd.errors import DataError, UsageError
from studies.suite.planning.assembly import build_method, instantiate, open_data, seed_of
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.study import Arm

MOCO = Arm("moco", "MoCo", {}, "", "")
SCD = Arm("scd", "SCD", {"wrapper": "scd"}, "", "")


@pytest.fixture(scope="module")
def settings():
    return resolve_settings("multicrop", ["tier=smoke", "sizes.generated_train=80", "sizes.generated_test=40"])


def test_arms_of_a_seed_share_the_backbones_initial_weights(settings):
    moco = build_method(settings.spec(MOCO, 0).config)
    scd = build_method(settings.spec(SCD, 0).config)
    other = build_method(settings.spec(MOCO, 1).config)
    ours, theirs = moco.backbone.state_dict(), scd.backbone.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(moco.matcher.queue.keys, scd.siamese.matcher.queue.keys)
    assert any(not torch.equal(ours[name], tensor) for name, tensor in other.backbone.state_dict().items())


def test_building_leaves_the_global_generator_alone(settings):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_method(settings.spec(SCD, 0).config)
    assert torch.equal(torch.rand(1), expected)


def test_one_source_of_chance_at_a_time(settings):
    """A seed of its own for the weights moves the weights alone; for the views it leaves them alone."""
    same, init, views = (
        settings.spec(MOCO, 0, overrides={"seed_of": own}).config for own in ({}, {"init": 7}, {"views": 7})
    )
    weights = [build_method(config).backbone.state_dict() for config in (same, init, views)]
    assert any(not torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[2].items())
    assert [seed_of(init, axis) for axis in ("init", "order", "views", "probe")] == [7, 0, 0, 0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": "scd.maps.controls.ConstantMap", "vaule": 1}, "argument of ConstantMap 'vaule'; did you mean"),
        ({"_target_": "scd.maps.controls.Nope"}, "_target_ 'scd.maps.controls.Nope' cannot be imported"),
        ({"_target_": "scd.nope.Nope"}, "_target_ 'scd.nope.Nope' cannot be imported"),
        ({"dim": 3}, "without _target_ cannot be built"),
    ],
)
def test_what_cannot_be_built_says_why(config, message):
    with pytest.raises(UsageError, match=message):
        instantiate(config)


def test_data_that_changed_after_the_plan_is_an_error(settings):
    data = settings.base["data"]
    source = open_data(data, {})
    open_data({**data, "fingerprints": source.fingerprints}, {})
    with pytest.raises(DataError, match="data 'shapes' changed after the study was planned"):
        open_data({**data, "fingerprints": {**source.fingerprints, "test": "another"}}, {})


def test_earlier_runs_take_the_place_of_their_names():
    teacher, config = nn.Linear(2, 2), {"_target_": "torch.nn.ModuleDict", "modules": {"a": {"_input_": "first"}}}
    built = instantiate(config, inputs={"first": teacher})
    assert torch.equal(built["a"].weight, teacher.weight)
    with pytest.raises(UsageError, match="unknown input of this run 'first'; .*valid: second"):
        instantiate(config, inputs={"second": teacher})


def test_a_value_that_a_class_refuses_keeps_its_own_line():
    with pytest.raises(UsageError, match="a constant map lies strictly between 0 and 1"):
        instantiate({"_target_": "scd.maps.controls.ConstantMap", "value": 2.0})
