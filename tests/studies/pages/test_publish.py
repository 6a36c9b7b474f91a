"""The pipeline of a page: what a study contributes, its answer, the files, and the way back from them."""

import json
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from synthetic_results import LABELS, METRICS, results

from studies.suite.analysis import tables
from studies.suite.analysis.results import load
from studies.suite.analysis.verdict import find
from studies.suite.pages.index import write_index
from studies.suite.pages.publish import Report, publish, with_host
from studies.suite.planning.study import Arm, Claim, Study, contrast_factory

contrast = contrast_factory("linear_top1", 0.01, "A is better than B")
CONTRASTS = (contrast("a", "b"), contrast("a", "c", "A is better than C"))
CONTROL = (contrast("b", "c", "B has learned something"),)
ARMS = tuple(Arm(name, name.upper(), {}, "shares", "differs", pool="") for name in "abc")


def sections(report):
    report.judge(CONTRASTS)
    report.say("A further sentence.")
    report.show(tables.arm_table(report.results, report.labels, ["linear_top1"]), "The caption.", None)
    report.section("Own section").text("of the study")


STUDY = Study(
    "toy", ("R0-a",), "Is A better?", "A toy", ARMS, CONTRASTS, CONTROL, "a-b", list, sections, looks=(3,)
)  # fmt: skip


def with_control(found, top1=(0.2, 0.21, 0.22)):
    """The results with an arm c, which stands for no training."""
    rows = [
        {"arm": "c", "budget": "epochs", "seed": seed, "run": f"c{seed}", "status": "done", "reason": "",
         "linear_top1": value, "knn_top1": 0.1}
        for seed, value in enumerate(top1)
    ]  # fmt: skip
    return found.with_runs(pandas.concat([found.runs, pandas.DataFrame(rows)], ignore_index=True))


def test_a_page_answers_first_and_collapses_the_rest(tmp_path):
    path = publish(STUDY, with_control(results()), tmp_path)
    assert path == tmp_path / "toy.md"
    first, *details = path.read_text(encoding="utf-8").split("<details>")
    assert first.split("\n\n")[:4] == [
        "# A toy",
        "> **Question R0-a.** Is A better?",
        "**Supported:** A is better than B. A is better than B by 11.0 points [6.7, 15.3]. (Differences in linear "
        "top-1 with 95 % intervals, 3 paired seeds.)",
        "A further sentence.",
    ]
    assert "The caption." in first and "Positive control: B is better than C by 30.0 points" in first
    titles = [part.split("<b>")[1].split("</b>")[0] for part in details]
    assert titles == [
        "Arms", "Own section", "Contrasts", "Further protocols", "How it was measured", "Provenance", "Run ids",
    ]  # fmt: skip


def test_records_and_index_have_the_answer_and_write_the_page_again(tmp_path):
    path = publish(STUDY, with_control(results()), tmp_path)
    before = path.read_bytes()
    about = json.loads((tmp_path / "records" / "toy.json").read_text(encoding="utf-8"))
    assert about["outcome"] == "supported" and about["answer"].startswith("**Supported:** A is better than B.")
    assert "| supported " in write_index(tmp_path).read_text(encoding="utf-8")
    publish(STUDY, load(tmp_path, "toy"), tmp_path)
    assert path.read_bytes() == before


def test_a_failed_positive_control_makes_the_page_uninformative(tmp_path):
    found = with_control(results(top1=(0.51, 0.52, 0.50)), top1=(0.48, 0.55, 0.5))
    text = publish(STUDY, found, tmp_path).read_text(encoding="utf-8")
    assert (
        "**Uninformative:** this page does not reproduce its positive control, so it cannot say whether A is better "
        "than B." in text
    )
    assert "Positive control: B cannot be told apart from C" in text
    assert json.loads((tmp_path / "records" / "toy.json").read_text())["outcome"] == "uninformative"


def test_a_smoke_page_says_that_its_numbers_mean_nothing(tmp_path):
    text = publish(STUDY, results(meaningful=False, tier="smoke"), tmp_path).read_text(encoding="utf-8")
    assert "**This page only tests the wiring.** It comes from the `smoke` tier" in text


def test_a_study_without_contrasts_says_its_answer_itself(tmp_path):
    def costs(report):
        report.say("It costs 3 % more.", summary="It costs 3 % more.")
        report.outcome = "counted"

    study = replace(STUDY, contrasts=(), control=(), primary="", sections=costs)
    text = publish(study, results(), tmp_path).read_text(encoding="utf-8")
    assert "It costs 3 % more." in text and "Contrasts" not in text and "could have seen" not in text
    about = json.loads((tmp_path / "records" / "toy.json").read_text(encoding="utf-8"))
    assert (about["outcome"], about["answer"]) == ("counted", "It costs 3 % more.")


def test_two_claims_are_two_answers_with_their_questions(tmp_path):
    def two(report):
        report.judge(CONTRASTS, question="R0-a")
        controls = [find(report.results, CONTROL[0])]
        other = contrast("a", "b", "another claim")
        report.judge([other], claim=other.claim, controls=controls, names=LABELS | {"c": "C"}, question="R0-b")

    found = with_control(results())
    report = Report(replace(STUDY, sections=two), found, tmp_path)
    two(report)
    text = report.page().markdown
    assert "R0-a: **Supported:** A is better than B." in text and "R0-b: **Supported:** another claim." in text
    assert report.answered().about["answer"].count("**Supported:**") == 2
    assert "**What this page could have seen (R0-a).**" in text and "**What this page could have seen (R0-b).**" in text


def test_claims_are_one_sentence_each(tmp_path):
    claims = (
        Claim("A is better than B", (contrast("a", "b"),), "Is A better?"),
        Claim("C is better than B", (contrast("c", "b", conditions={"budget": "epochs", "absent": 1}),), "And C?"),
    )
    study = replace(STUDY, claims=claims, sections=lambda report: report.judge_claims(beside=CONTRASTS[1:]))
    text = publish(study, with_control(results()), tmp_path).read_text(encoding="utf-8")
    assert text.split("\n\n")[2].splitlines() == [
        "- *Is A better?* **Supported:** A is better than B: A is better than B by 11.0 points [6.7, 15.3] (3 paired "
        "seeds).",
        "- *And C?* **Contradicted:** it does not hold that C is better than B: C is worse than B by 30.0 points "
        "[27.5, 32.5] (3 paired seeds).",
    ]
    about = json.loads((tmp_path / "records" / "toy.json").read_text(encoding="utf-8"))
    assert about["outcome"] == "1 supported, 1 contradicted" and about["answer"].startswith("*Is A better?* **Supp")
    assert about["looks"] == [3] and about["pools"] == {}
    report = Report(study, with_control(results()), tmp_path)
    assert report.judge_claims() == report.verdicts and len(report.verdicts) == 2
    listed = text[text.index("<b>Contrasts</b>") :]
    assert listed.count("| A vs. ") == 2 and listed.count("| C vs. B") == 1
    assert "The claims, each by itself:" in listed and "| C is better than B | contradicted" in listed


def test_arms_are_named_by_the_host_of_the_command_line():
    arms = (
        Arm("moco", "MoCo", {}, "MoCo's loss", "nothing"),
        Arm("scd", "SCD", {"wrapper": "scd"}, "all of MoCo", "a map"),
    )
    claim = contrast("scd", "moco", "SCD is better than MoCo")
    study = replace(STUDY, arms=arms, contrasts=(claim,), control=(), primary=claim.name)
    base = {"method": {"_target_": "baselines.byol.BYOL"}}
    named = with_host(study, results(reference="moco", base=base))
    assert [arm.label for arm in named.arms] == ["BYOL", "SCD"] and named.arms[1].shares == "all of BYOL"
    assert named.contrasts[0].claim == "SCD is better than BYOL"
    report = Report(study, results(reference="moco", base=base), Path())
    assert report.judge(study.contrasts).claim == "SCD is better than MoCo"  # as the study's file has it
    assert report.judge(report.study.contrasts).claim == "SCD is better than BYOL"
    fixed = replace(study, arms=(replace(arms[0], overrides={"method": "moco"}), arms[1]))
    assert with_host(fixed, results(reference="moco", base=base)) is fixed
    assert with_host(study, results()) is study


@pytest.mark.parametrize("name", METRICS)
def test_every_definition_is_a_plain_value(name):
    assert results().metric(name) == METRICS[name]
