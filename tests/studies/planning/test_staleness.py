"""Whether today's code can make a stored run, from its config.json."""

import pytest
from stored_runs import TWO_STAGES, configuration, planned

from studies.suite.planning import staleness
from studies.suite.planning.identity import ROOT, measurement_id
from studies.suite.planning.staleness import (
    Judgement,
    Standing,
    input_names,
    judge_evaluation,
    judge_measurement,
    judge_pretraining,
    module_file,
    possible_inputs,
    with_standing_of,
)

OTHER = "0123456789abcdef"
CURRENT, STALE, UNKNOWN = Judgement(Standing.CURRENT), Judgement(Standing.STALE), Judgement(Standing.UNKNOWN)


def test_a_run_and_its_evaluations_are_current_where_the_code_gives_their_ids():
    (spec, _) = planned()
    found = judge_pretraining(spec.id, configuration(spec), {})
    assert found.standing is Standing.CURRENT and found.reason == ""
    assert {"studies.suite.execution.pretraining", "baselines.moco"} <= set(found.roots)
    ((evaluation, protocol),) = spec.evaluations.items()
    found = judge_evaluation(evaluation, configuration(spec, protocol))
    assert found.standing is Standing.CURRENT and "studies.suite.execution.evaluation" in found.roots


def test_every_evaluation_of_a_plan_is_current_whatever_its_options():
    words = ("tier=smoke", "seeds=1", "arms=scd", "seed_of.probe=3", "evaluation.test_limit=20", "data.test_limit=30")
    specs = planned("mechanism", words)
    found = [
        judge_evaluation(evaluation, configuration(spec, protocol)).standing
        for spec in specs
        for evaluation, protocol in spec.evaluations.items()
    ]
    assert len(found) > 3 and set(found) == {Standing.CURRENT}


def test_a_run_with_another_id_is_stale():
    (spec, _) = planned()
    assert judge_pretraining(OTHER, configuration(spec), {}).standing is Standing.STALE
    (protocol,) = spec.evaluations.values()
    found = judge_evaluation(OTHER, configuration(spec, protocol))
    assert found.standing is Standing.STALE and found.reason == "" and found.roots


def test_measurements_are_judged_by_their_configuration():
    config = {"measurement": {"_target_": "scd.profiling.cost.Cost"}, "arms": {}}
    config["measurement"]["_target_"] = "scd.profiling.parameters.count_parameters"
    assert judge_measurement(measurement_id(config), config).standing is Standing.CURRENT
    assert judge_measurement(OTHER, config).standing is Standing.STALE


def test_a_run_whose_module_was_removed_is_stale():
    (spec, _) = planned()
    config = configuration(spec)
    config["method"]["_target_"] = "baselines.forgotten.Method"
    found = judge_pretraining(spec.id, config, {})
    assert found.standing is Standing.STALE and found.reason == "baselines/forgotten.py is not there any more"


def test_what_this_version_cannot_read_is_unknown_and_not_stale():
    (spec, _) = planned()
    assert judge_pretraining(OTHER, {"seed": 0}, {}).standing is Standing.UNKNOWN
    assert judge_evaluation(OTHER, {"pretraining": spec.id}).standing is Standing.UNKNOWN
    (protocol,) = spec.evaluations.values()
    further = {**configuration(spec, protocol), "limit_of_another_version": 5}
    found = judge_evaluation(OTHER, further)
    assert found.standing is Standing.UNKNOWN and found.reason == "its config.json is not of this version"
    config = configuration(spec)
    config["data"]["options"]["_target_"] = "scd.data.sources.shapes.NoSuchClass"
    found = judge_pretraining(OTHER, config, {})
    assert found.standing is Standing.UNKNOWN and "cannot be imported" in found.reason


def test_a_first_stage_is_found_among_the_stored_runs_of_the_same_seed():
    """The id of a run with two stages covers that of the first, which config.json does not hold."""
    first, second = (spec for spec in planned("related", TWO_STAGES) if spec.inputs)
    ((name, earlier),) = first.inputs.items()
    others = {spec.inputs[name].id: configuration(spec.inputs[name]) for spec in (first, second)}
    assert len(others) == 2 and list(input_names(first.config)) == [name]
    found = judge_pretraining(first.id, configuration(first), others)
    assert found.standing is Standing.CURRENT and found.inputs == {name: earlier.id}
    other_seed = {second.inputs[name].id: configuration(second.inputs[name])}
    assert list(possible_inputs(first.id, configuration(first), other_seed)) == []
    found = judge_pretraining(first.id, configuration(first), other_seed)
    assert found.standing is Standing.UNKNOWN and f"input '{name}' is no stored run" in found.reason
    assert judge_pretraining(OTHER, configuration(first), others).standing is Standing.UNKNOWN


def test_too_many_combinations_of_inputs_are_not_tried(monkeypatch):
    (spec, *_) = (spec for spec in planned("related", TWO_STAGES) if spec.inputs)
    others = {str(number): {"seed": spec.config["seed"]} for number in range(3)}
    assert len(list(possible_inputs(spec.id, spec.config, others))) == 3
    monkeypatch.setattr(staleness, "MOST_TRIES", 2)
    assert list(possible_inputs(spec.id, spec.config, others)) == []


@pytest.mark.parametrize(
    ("own", "used", "expected"),
    [
        (CURRENT, {"a": CURRENT}, Standing.CURRENT),
        (CURRENT, {"a": CURRENT, "b": STALE}, Standing.STALE),
        (UNKNOWN, {"a": STALE}, Standing.STALE),
        (CURRENT, {"a": UNKNOWN}, Standing.UNKNOWN),
        (CURRENT, {"a": None}, Standing.UNKNOWN),
        (STALE, {"a": CURRENT}, Standing.STALE),
        (STALE, {"a": None}, Standing.STALE),
    ],
)
def test_a_run_is_as_stale_as_what_it_uses(own, used, expected):
    found = with_standing_of(own, used)
    assert found.standing is expected
    by = [run for run, its in used.items() if its is STALE]
    assert found.by == (by[0] if by else "")


def test_a_module_is_found_as_a_file_or_a_package():
    assert module_file("scd.method") == "scd/method.py"
    assert module_file("scd.nn", ROOT) == "scd/nn/__init__.py"
    assert module_file("scd.nothing") == ""
