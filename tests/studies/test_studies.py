"""What every study has: a plan, and a page from its records alone whose answer follows from them."""

import json
import re
import subprocess
import sys

import pytest
from synthetic_results import settings_of, study_results

from studies.suite.analysis.results import load
from studies.suite.analysis.verdict import family
from studies.suite.pages.markdown import OPEN_LINES, open_lines
from studies.suite.pages.publish import publish
from studies.suite.planning.command_line import load_study, study_names

AXES = {
    "significance": {"main_seeds": 4, "chance": ["init", "probe"], "levels": 3},
    "multicrop": {"rho": [0.8], "budgets": ["epochs", "flops"]},
    "reconstruction": {"specifications": 4},
}
SEEDS = {"reconstruction": 5, "calibration": 5}  # those of its first reading
TREATED = ("scd", "scd_symmetric", "scd_byol", "scd_global", "scd_local")
QUESTIONS = {"dino_vit": "R5-c: ", "scene_coco": "R5-d: "}  # of two answers
OF_ALL_QUESTIONS = ("calibration",)
STUDIES = [name for name in study_names() if load_study(name).contrasts]
OF_ONE_CLAIM = [name for name in STUDIES if not load_study(name).claims]  # test_multicrop.py has several


def results_of(name, tmp_path, gain, control=0.1, spread=0.002):
    """Results in which SCD's arms gain so much, and so does the treatment of the positive control."""
    study, gains = load_study(name), dict.fromkeys(TREATED, gain)
    for contrast in study.control:
        known = {"random": 0.2}.get(contrast.control, 0.0)  # random weights are that far below all other arms
        gains[contrast.treatment] = gains.get(contrast.treatment, 0.0)
        gains[contrast.control] = known - control
    settings = settings_of(name, tmp_path, SEEDS.get(name, 3), AXES.get(name))
    return study_results(study, {arm: value for arm, value in gains.items() if value}, settings, spread=spread)


@pytest.mark.parametrize("name", OF_ONE_CLAIM)
@pytest.mark.parametrize(
    ("gain", "control", "spread", "outcome"),
    [
        (0.03, 0.1, 0.002, "supported"),
        (-0.03, 0.1, 0.002, "contradicted"),
        (0.004, 0.2, 0.02, "not resolved"),
        (-0.03, 0.0, 0.002, "uninformative"),
    ],
)
def test_each_answer_follows_from_records(name, gain, control, spread, outcome, tmp_path, no_figures):
    results = results_of(name, tmp_path, gain, control, spread)
    text = publish(load_study(name), results, tmp_path).read_text(encoding="utf-8")
    assert text.split("\n\n")[2].startswith(f"{QUESTIONS.get(name, '')}**{outcome.capitalize()}")
    assert json.loads((tmp_path / "records" / f"{name}.json").read_text(encoding="utf-8"))["outcome"] == outcome
    assert f"| {outcome} " in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert open_lines(text) <= OPEN_LINES and text.split("<details>")[0].count("\n![") == 1


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
