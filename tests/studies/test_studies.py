"""What every study has: a plan, and a page from its records alone whose answer follows from them."""

import json
import re
import subprocess
import sys

import pytest
from synthetic_results import settings_of, study_results

from studies.suite.analysis.results import load
from studies.suite.analysis.verdict import family
from studies.suite.pages.index import write_index
from studies.suite.pages.markdown import OPEN_LINES, open_lines
from studies.suite.pages.publish import publish
from studies.suite.planning.assembly import check_arguments
from studies.suite.planning.command_line import load_study, study_names
from studies.suite.planning.resolve import with_classes
from studies.suite.planning.study import TRAINING

AXES = {
    "significance": {"main_seeds": 4, "chance": ["init", "probe"], "levels": 3},
    "multicrop": {"rho": [0.8], "budgets": ["epochs", "flops"]},
    "reconstruction": {"specifications": 4},
}
TREATED = ("scd", "scd_symmetric", "scd_byol", "scd_global", "scd_local")
OF_ALL_QUESTIONS = ("calibration",)
STUDIES = [name for name in study_names() if load_study(name).contrasts]
OF_ONE_CLAIM = [name for name in STUDIES if not load_study(name).claims]
WITH_CLAIMS = [name for name in STUDIES if load_study(name).claims and name not in OF_ALL_QUESTIONS]


@pytest.mark.parametrize("name", study_names())
def test_every_arm_takes_the_arguments_that_it_is_given(name):
    for spec in load_study(name).plan(settings_of(name, seeds=1, words=("arms=all",))):
        if spec.kind == TRAINING:
            parts = {key: part for key, part in spec.config.items() if key != "evaluation"}
            check_arguments({**parts, "method": with_classes(parts["method"], 2, "any")})


def results_of(name, tmp_path, gain, control=0.1, spread=0.002):
    """Results in which SCD's arms gain so much, and so does the treatment of the positive control."""
    study, gains = load_study(name), dict.fromkeys(TREATED, gain)
    for contrast in study.control:
        known = {"random": 0.2}.get(contrast.control, 0.0)  # random weights are that far below all other arms
        gains[contrast.treatment] = gains.get(contrast.treatment, 0.0)
        gains[contrast.control] = known - control
    settings = settings_of(name, tmp_path, load_study(name).looks[0], AXES.get(name))
    return study_results(study, {arm: value for arm, value in gains.items() if value}, settings, spread=spread)


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_is_written_when_the_first_run_has_ended(name, tmp_path, no_figures):
    settings = settings_of(name, tmp_path, load_study(name).looks[0], AXES.get(name))
    results = study_results(load_study(name), {}, settings, finished=1)
    assert "runs have finished" in publish(load_study(name), results, tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", OF_ONE_CLAIM)
@pytest.mark.parametrize(
    ("gain", "control", "spread", "outcome"),
    [
        (0.03, 0.1, 0.002, "supported"),
        (-0.004, 0.2, 0.02, "not resolved"),  # the noise of these records adds 1.3 points
        (-0.03, 0.0, 0.002, "contradicted"),
        (0.0, 0.0, 0.002, "uninformative"),
    ],
)
def test_each_answer_follows_from_records(name, gain, control, spread, outcome, tmp_path, no_figures):
    results = results_of(name, tmp_path, gain, control, spread)
    text = publish(load_study(name), results, tmp_path).read_text(encoding="utf-8")
    assert text.split("\n\n")[2].startswith(f"**{outcome.capitalize()}")
    assert json.loads((tmp_path / "records" / f"{name}.json").read_text(encoding="utf-8"))["outcome"] == outcome
    assert f"| {outcome} " in write_index(tmp_path).read_text(encoding="utf-8")
    assert open_lines(text) <= OPEN_LINES and text.split("<details>")[0].count("\n![") == 1


KNOWN_BELOW = {"mim": ("mae_25",)}  # arms that are below others in a positive control


def claim_results(name, tmp_path, gain, oracle=0.05):
    """Results at the reading of a study in which SCD's arms gain so much, and the true mask or its like so much."""
    gains = dict.fromkeys(TREATED, gain)
    gains |= dict.fromkeys(("oracle", "oracle_global", "oracle_symmetric", "oracle_byol"), oracle)
    gains |= dict.fromkeys(KNOWN_BELOW.get(name, ()), -oracle)
    gains["supervised"] = 0.0 if oracle else -0.2  # as random weights: the control of the study of detection fails
    settings = settings_of(name, tmp_path, load_study(name).looks[0], AXES.get(name))
    return study_results(load_study(name), {arm: value for arm, value in gains.items() if value}, settings)


@pytest.mark.parametrize("name", WITH_CLAIMS)
@pytest.mark.parametrize(
    ("gain", "oracle", "outcome"),
    [(0.03, 0.1, "supported"), (-0.03, 0.0, "contradicted"), (0.0, 0.0, "uninformative")],
)
def test_each_claim_about_scd_follows_from_records(name, gain, oracle, outcome, tmp_path, no_figures):
    study, results = load_study(name), claim_results(name, tmp_path, gain, oracle)
    text = publish(study, results, tmp_path).read_text(encoding="utf-8")
    lines = [line for line in text.split("<details>")[0].splitlines() if line.startswith("- *")]
    assert len(lines) == len(study.claims)
    asked = [
        line for claim, line in zip(study.claims, lines, strict=True)
        if not claim.some and claim.contrasts[0].treatment in TREATED and claim.contrasts[0].control not in TREATED
        and results.has(claim.contrasts[0].metric)
    ]  # fmt: skip
    assert asked and all(f"**{outcome.capitalize()}:**" in line for line in asked)
    for line in lines:
        assert ("It becomes informative where" in line) == ("**Uninformative:**" in line)
        assert "**Uninformative:**" not in line or "try " in line
    assert open_lines(text) <= OPEN_LINES and text.split("<details>")[0].count("\n![") == 1


@pytest.mark.parametrize("name", WITH_CLAIMS)
def test_a_claim_is_read_at_few_numbers_of_seeds_and_has_a_control_of_its_own(name):
    study = load_study(name)
    assert study.looks == ((5, 20) if name == "multicrop" else (5,))
    for claim in study.claims:
        controls = study.control if claim.controls is None else claim.controls
        assert claim.question and controls and all(each.remedy for each in controls)
        assert claim.some or len(claim.contrasts) == 1
    needed = {arm for claim in study.claims for c in claim.contrasts for arm in (c.treatment, c.control)}
    defaults = {arm.name for arm in study.arms if arm.default}
    assert {arm.name for arm in study.arms} & needed <= defaults


@pytest.mark.parametrize("name", STUDIES)
def test_the_records_beside_a_page_write_it_again(name, tmp_path, request):
    path = publish(load_study(name), results_of(name, tmp_path, 0.01), tmp_path)
    first = path.read_text(encoding="utf-8")
    figures = re.findall(r"\]\((figures/[^)]+)\)", first)
    assert figures and all((tmp_path / figure).stat().st_size > 5_000 for figure in figures)
    request.getfixturevalue("no_figures")
    publish(load_study(name), load(tmp_path, name), tmp_path)
    assert path.read_text(encoding="utf-8") == first


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_declares_arms_a_claim_and_a_positive_control(name):
    study = load_study(name)
    names = [arm.name for arm in study.arms]
    assert len(set(names)) == len(names) and len({each.name for each in study.contrasts}) == len(study.contrasts)
    for contrast in (*study.contrasts, *study.control):
        assert {contrast.treatment, contrast.control} <= set(names) and contrast.sesoi > 0
    primary = {each.name: each for each in study.contrasts}[study.primary]
    assert family(study.contrasts, primary.claim) and study.control
    assert study.name == name and study.question.endswith(("?", "."))
    assert study.question_ids or name in OF_ALL_QUESTIONS


def test_studies_can_be_listed_without_torch():
    code = "\n".join(
        ["import sys", *(f"import studies.{name}" for name in study_names()), "assert 'torch' not in sys.modules"]
    )
    subprocess.run([sys.executable, "-c", code], check=True)
