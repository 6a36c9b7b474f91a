"""The comparison with LEWEL: its sweep over scenarios, and what is said of it."""

from dataclasses import replace
from itertools import product

import pytest
from synthetic_results import settings_of, study_results

from studies import lewel
from studies.lewel import STUDY
from studies.suite.pages.publish import publish


def without_options(settings, *names):
    """Settings whose images lack some options."""
    options = {key: value for key, value in settings.base["data"]["options"].items() if key not in names}
    return replace(settings, base={**settings.base, "data": {**settings.base["data"], "options": options}})


def test_scenarios_change_one_thing_at_a_time():
    settings = settings_of("lewel", seeds=2, axes={"scenarios": "all"}, words=("arms=all",))
    specs = {(s.labels["scenario"], s.labels["arm"], s.labels["seed"]): s for s in lewel.plan(settings)}
    names = [scenario.name for scenario in lewel.SCENARIOS]
    assert len(specs) == 2 * (len(lewel.ARMS) + len(lewel.SWEEP) * (len(names) - 1)) and len(set(names)) == len(names)
    base = specs["the main comparison", "scd", 0].config
    for name, arm in product(names[1:], ("scd", "lewel")):
        changed, main = specs[name, arm, 0].config, specs["the main comparison", arm, 0].config
        assert {key for key in base if changed[key] != main[key]} < {"data", "views"}
    assert specs["4 objects", "scd", 0].config["data"]["options"]["objects"] == 4
    assert specs["crops from 0.5 of the area", "scd", 0].config["views"]["scale"] == [0.5, 1.0]
    assert specs["the main comparison", "byol", 0].config["views"]["recipe"] == "byol"  # a host has its own views


def test_images_without_an_option_skip_its_scenarios():
    real = without_options(settings_of("lewel", seeds=1), "rho_train", "scale", "clutter", "objects")
    assert {s.labels["scenario"] for s in lewel.plan(real)} == {
        "the main comparison", "crops from 0.08 of the area",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gain", "spread", "outcome"),
    [(0.03, 0.002, "better"), (-0.03, 0.002, "worse"), (0.0, 0.001, "equivalent"), (0.002, 0.03, "not resolved")],
)
def test_where_scd_is_better_equivalent_or_worse(gain, spread, outcome):
    results = study_results(STUDY, {"scd": gain}, settings_of("lewel", seeds=5), spread=spread)
    sweep = lewel.swept(results, lewel.METRIC)
    outcomes = [lewel.outcome_of(result, lewel.SESOI) for result in sweep.values()]
    assert len(outcomes) == 6 and outcomes.count(outcome) >= 4


def test_scenarios_are_listed_by_outcome(tmp_path, no_figures):
    results = study_results(STUDY, {"scd": 0.03}, settings_of("lewel", tmp_path, 5))
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert (
        "**SCD-MoCo against LEWEL-MoCo in 6 scenarios** (not corrected): better in the main comparison, no background "
        "correlation"
    ) in text.split("<details>")[0]
    assert "worse in none; equivalent in none; not resolved in none." in text


def test_one_scenario_is_enough_and_its_choice_is_paid_for(tmp_path, no_figures):
    results = study_results(STUDY, {"oracle": 0.1}, settings_of("lewel", tmp_path, 5))
    best = (results.runs["scenario"] == "4 objects") & (results.runs["arm"] == "scd")
    for gain, outcome in ((0.03, "Supported"), (-0.03, "Contradicted")):
        shifted = results.runs["knn_top1"] + gain * best
        text = publish(STUDY, results.with_runs(results.runs.assign(knn_top1=shifted)), tmp_path).read_text("utf-8")
        line = next(line for line in text.splitlines() if "clearly beats" in line and line.startswith("- *"))
        assert f"**{outcome}:**" in line and "4 objects" in line
    assert "divided by 5, above 0" in text


def test_unlabelled_images_are_judged_by_their_maps(tmp_path, no_figures):
    maps = {"saliency_maxf": 0.6}
    results = study_results(
        STUDY, {}, settings_of("lewel", tmp_path), lambda arm, seed: {"saliency_maxf": 0.6 + 0.001 * seed * len(arm)}
    )
    results = results.with_runs(results.runs.drop(columns=["linear_top1", "knn_top1"]))
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert maps and "Paired differences in saliency maxf, in points" in text


def test_the_mechanisms_are_read_from_the_configuration(tmp_path, no_figures):
    settings = settings_of("lewel", tmp_path)
    text = publish(STUDY, study_results(STUDY, {}, settings), tmp_path).read_text(encoding="utf-8")
    heads, dim = settings.presets["wrapper"]["lewel"]["heads"], settings.presets["method"]["moco"]["dim"]
    assert f"| number of maps          | {dim}, in {heads} heads" in text and "an MLP, 2 layers" in text
