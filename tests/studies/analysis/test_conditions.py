"""Conditions as values and in words."""

from dataclasses import replace

import pandas

from studies.suite.analysis.conditions import (
    conditions,
    cross_conditions,
    fall_back_to_metric,
    fit_conditions,
    planned_claims,
    title,
    words,
)
from studies.suite.analysis.results import Results
from studies.suite.planning.study import Claim, Contrast

CONTRAST = Contrast("a-b", "a", "b", "top1", 0.01, "A beats B")
RUNS = pandas.DataFrame({"budget": ["epochs", "flops"] * 2, "rho": [0.0, 0.0, 0.8, 0.8], "other": [None] * 4})


def test_conditions_and_their_words():
    found = conditions(Results({}, RUNS), ("rho", "budget", "other", "absent"))
    assert found == [{"rho": rho, "budget": budget} for rho in (0.0, 0.8) for budget in ("epochs", "flops")]
    assert words(found[3]) == "equal training FLOPs, ρ = 0.8" and title(found[0]) == "Equal epochs, ρ = 0"
    assert title({"rho": 0.5}) == "ρ = 0.5" and words({}) == ""


def test_contrasts_are_crossed_with_conditions():
    found = conditions(Results({}, RUNS), ("rho", "budget"))
    crossed = cross_conditions([CONTRAST], found)
    assert len({each.name for each in crossed}) == 4 and {each.claim for each in crossed} == {"A beats B"}
    assert [each.conditions for each in crossed] == found
    assert cross_conditions([CONTRAST], [{}]) == [CONTRAST]


def test_conditions_on_labels_that_no_run_has_are_left_out():
    declared = replace(CONTRAST, conditions={"rho": 0.8, "other": 1, "absent": 2})
    (fitted,) = fit_conditions([declared], Results({}, RUNS))
    assert fitted.conditions == {"rho": 0.8} and fitted.name == declared.name


def test_contrasts_fall_back_to_a_metric_that_was_measured():
    runs = pandas.DataFrame({"status": ["done"], "run": [""], "iou": [0.5], "top1": [None]})
    assert fall_back_to_metric([CONTRAST], Results({}, runs), "iou")[0].metric == "iou"
    assert fall_back_to_metric([CONTRAST], Results({}, runs), "absent") == [CONTRAST]
    assert fall_back_to_metric([CONTRAST], Results({}, runs.assign(top1=0.4)), "iou") == [CONTRAST]


def test_claims_about_arms_that_are_not_planned_are_left_out():
    other = replace(CONTRAST, name="c-b", treatment="c")
    claims = [Claim("A beats B", (CONTRAST,)), Claim("C beats B", (other,)), Claim("both", (CONTRAST, other))]
    assert planned_claims(claims, Results({"arms": {"a": "A", "b": "B"}}, RUNS), "abcd") == claims[:1]
    assert planned_claims(claims, Results({"arms": {"a": "A", "b": "B", "c": "C"}}, RUNS), "abcd") == claims
    assert planned_claims(claims, Results({"arms": {"d": "D"}}, RUNS), "abcd") == claims
    derived = [Claim("the gain of A", (replace(CONTRAST, treatment="a, gain", control="b, gain"),))]
    assert planned_claims(derived, Results({"arms": {"a": "A", "b": "B"}}, RUNS), "abcd") == derived
