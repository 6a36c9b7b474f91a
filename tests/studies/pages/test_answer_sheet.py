"""The answer sheet: every question once, from claims that are judged again, and from nothing else."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from answer_pages import save_page

from studies.suite.pages import answer_sheet, reread
from studies.suite.pages.index import write_index
from studies.suite.pages.questions import ID, QUESTIONS, REVIEWERS, Source
from studies.suite.planning.command_line import load_study, study_names

ROOT = Path(__file__).resolve().parents[3]
GAINS = {"scd": 0.05, "lewel": 0.0, "oracle": 0.08}
LETTERS = {"R1": "abcde", "R2": "abc", "R3": "abc", "R4": "abcde", "R5": "abcde"}
ORDER = [f"{reviewer}-{letter}" for reviewer, letters in LETTERS.items() for letter in letters]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the page of the study lewel, in which SCD is better, and its claims."""
    folder = tmp_path_factory.mktemp("reports")
    return folder, {part.title: part for part in save_page(folder, "lewel", GAINS)}


@pytest.fixture
def out(saved, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(saved[0], tmp_path / "reports")


def sheet(out):
    """The text of the sheet, and its parts by question."""
    text = write_index(out).read_text(encoding="utf-8")
    pieces = re.split(r"^### (R\d-[a-z])$", text.split("## The systems")[0], flags=re.MULTILINE)
    return text, dict(zip(pieces[1::2], pieces[2::2], strict=True))


def edit(out, page, **changes):
    """Change the JSON file of a page."""
    path = out / "records" / f"{page}.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


# -------------------------------------------------------------------- the questions


def test_questions_are_the_reviewers_in_their_order():
    assert [each.id for each in QUESTIONS] == ORDER
    assert all(ID.fullmatch(each.id) and each.id.split("-")[0] in REVIEWERS for each in QUESTIONS)


def test_named_claims_exist_and_every_claim_belongs_to_a_question():
    for name in study_names():
        study = load_study(name)
        titles = [claim.question for claim in study.claims]
        asked = [(each, source) for each in QUESTIONS for source in each.sources if source.study == name]
        for question, source in asked:
            assert set(source.titles or ()) <= set(titles), f"{question.id} names claims that {name} does not have"
        ids = set(study.question_ids) & {each.id for each in QUESTIONS}
        assert ids <= {question.id for question, _ in asked}
        used = [any(source.chosen(each.id, titles)[place] for each, source in asked) for place in range(len(titles))]
        assert all(used) or not ids, f"{name}: {dict(zip(titles, used, strict=True))}"


def test_ids_in_a_title_decide_which_question_a_claim_belongs_to():
    titles = ["R1-a, R3-c: VADeR?", "R1-b (for Odin, whose loss it is): DetCon?", "Whose maps?"]
    assert Source("related").chosen("R1-a", titles) == [True, False, True]
    assert Source("related", ()).chosen("R1-b", titles) == [False, True, False]
    assert Source("lewel", ("Whose maps?",)).chosen("R3-c", titles) == [True, False, True]


# -------------------------------------------------------------------- questions and their pages


def test_every_question_stands_once_and_in_order_and_says_where_there_is_no_page(tmp_path):
    text, parts = sheet(tmp_path)
    assert re.findall(r"^### (\S+)$", text, re.MULTILINE) == ORDER == list(parts)
    assert re.findall(r"^\| (R\d-[a-z]) ", text, re.MULTILINE)[: len(ORDER)] == ORDER
    assert all(
        "**Answer.** No page yet: study `" in part and "**Outcome:** no page yet" in part for part in parts.values()
    )
    assert "study `mim` is not built" in parts["R4-a"] or "mim" in study_names()
    assert "study `cost_profile` has not been run (`nox -s cost-profile`)" in parts["R4-d"]
    assert "study `dino_vit` has not been run (`nox -s study-dino-vit`)" in parts["R5-c"]


def test_a_question_has_the_claims_that_belong_to_it_and_no_others(tmp_path):
    told = {part.title: part for part in save_page(tmp_path, "lewel", GAINS)}
    _, parts = sheet(tmp_path)
    assert told["Is SCD better than LEWEL?"].outcome == "supported"
    assert (
        "**Supported:** it holds that SCD-MoCo is better than LEWEL-MoCo, and that there is a scenario" in parts["R2-c"]
    )
    assert f"- *Is SCD better than LEWEL?* {told['Is SCD better than LEWEL?'].text}" in parts["R2-c"]
    assert "*Whose maps?*" in parts["R2-a"] and "*Whose maps?*" not in parts["R2-c"]
    assert "[lewel](lewel.md), shapes, tier smoke" in parts["R2-c"] and "stale" not in parts["R2-c"]
    assert re.search(r"\*\*Could have detected:\*\* [\d.]+ (to [\d.]+ )?points? in knn top1", parts["R2-c"])
    assert "**Tier `gpu` would add:** More seeds" in parts["R2-c"]
    assert "**Tier `paper` would add:** " in parts["R2-c"]


def test_answers_are_judged_again_and_not_copied(tmp_path):
    """Numbers in the records decide: with other records, and the page's answer with them, the outcome is another."""
    save_page(tmp_path, "lewel", {**GAINS, "scd": 0.0})
    entry = next(each for each in answer_sheet.entries(reread.read_pages(tmp_path)) if each.question.id == "R2-c")
    assert (
        "supported" not in entry.outcome and "it does not hold that SCD-MoCo is better than LEWEL-MoCo" in entry.answer
    )


def test_an_uninformative_answer_says_what_to_try(tmp_path):
    save_page(tmp_path, "lewel", {"scd": 0.0, "oracle": 0.0})
    _, parts = sheet(tmp_path)
    assert "**Answer.** **Uninformative,** because a positive control fails: whether" in parts["R2-a"]
    assert "It becomes informative where this control is better" in parts["R2-a"]
    assert ": try " in parts["R2-a"]
    assert "Positive control" in parts["R2-a"].split("**What they could have seen.**")[1]


def test_a_stale_page_is_marked_wherever_it_answers(out):
    edit(out, "lewel", fingerprint="0" * 16)
    text, parts = sheet(out)
    assert "**Page:** [lewel](lewel.md) (**stale**), shapes, tier smoke" in parts["R2-a"]
    assert re.search(r"^\| R2-a .*\[lewel\]\(lewel.md\) \(\*\*stale\*\*\)", text, re.MULTILINE)


def test_the_default_page_answers_and_other_images_follow(out):
    save_page(out, "lewel", {**GAINS, "scd": 0.0}, page="lewel-a", data="photographs")
    for ending in ("json", "csv"):
        shutil.copy(out / "records" / f"lewel.{ending}", out / "records" / f"lewel-smoke.{ending}")
    edit(out, "lewel-smoke", meaningful=False)
    _, parts = sheet(out)
    assert "**Page:** [lewel](lewel.md)," in parts["R2-c"] and "lewel-smoke" not in parts["R2-c"]
    other = re.search(r"\*\*Other pages:\*\* (.*)", parts["R2-c"])[1]
    assert other.startswith("[lewel-a](lewel-a.md), photographs, tier smoke: ") and "contradicted" in other


def test_studies_without_a_page_are_named_beside_those_with_one(tmp_path):
    save_page(tmp_path, "mechanism", {**GAINS, "settled": 0.05})
    _, parts = sheet(tmp_path)
    assert "**Not answered yet:** no page yet: study `reconstruction` has not been run" in parts["R5-a"]
    assert "*Is it more than a centre?*" in parts["R5-a"] and "*Is it more than a centre?*" not in parts["R4-e"]


def test_a_page_without_a_claim_about_the_question_says_so(tmp_path):
    save_page(tmp_path, "scene_coco", {"scd": 0.02, "oracle": 0.05})
    _, parts = sheet(tmp_path)
    assert "no claim of [scene-coco](scene-coco.md) is about this question: its section *Transfer*" in parts["R1-d"]
    assert "**Outcome:** no claim" in parts["R1-d"] and "<details>" not in parts["R1-d"]


# -------------------------------------------------------------------- pages that cannot be judged again


def test_an_answer_that_the_declarations_no_longer_give_stands_as_written(out):
    old = "*Whose maps?* **Supported:** of old. *Is SCD better than LEWEL?* **Contradicted:** as it was."
    edit(out, "lewel", answer=old, outcome="1 supported, 1 contradicted")
    _, parts = sheet(out)
    assert "**Answer.** **Contradicted:** as it was." in parts["R2-c"]
    assert "The answer is given as the page has it: the study's declarations have changed" in parts["R2-c"]
    assert "*Whose maps?* **Supported:** of old." in parts["R2-a"] and "as it was" not in parts["R2-a"]


@pytest.mark.parametrize("question, other", [("R1-c", "R5-d"), ("R5-d", "R1-c")])
def test_an_old_answer_with_ids_is_divided_by_them(tmp_path, question, other):
    answer = "R5-d: **Undecided** of the R5-d kind: more. R1-c: **Undecided** of the R1-c kind: still more."
    records = tmp_path / "records"
    records.mkdir()
    about = {"study": "scene_coco", "questions": ["R1-c", "R1-d", "R5-d"], "data": "coco", "tier": "cpu"}
    (records / "scene-coco-coco.json").write_text(json.dumps({**about, "answer": answer, "outcome": "undecided"}))
    _, parts = sheet(tmp_path)
    assert f"**Undecided** of the {question} kind: " in parts[question] and f"the {other} kind" not in parts[question]
    assert "no claim of [scene-coco-coco]" in parts["R1-d"]
    assert "an older version of the suite wrote the page" in parts[question]


def test_records_that_do_not_fit_leave_the_answer_of_the_page(out):
    (out / "records" / "lewel.csv").write_text("arm,budget\nscd,epochs\n", encoding="utf-8")
    _, parts = sheet(out)
    assert "its records do not fit the study as it is now (" in parts["R2-c"]
    assert "**Supported:** SCD-MoCo is better than LEWEL-MoCo" in parts["R2-c"]


def test_the_first_sentence_of_an_answer_without_claims_is_the_answer(tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    about = {"study": "cost_profile", "questions": ["R4-d"], "data": "shapes", "tier": "cpu", "outcome": "measured"}
    answer = "SCD adds 1.5 % (33.0 against 32.5 GFLOP), and 11.3 % [9.7, 12.4]. No image passes once more."
    (records / "cost-profile.json").write_text(json.dumps({**about, "answer": answer}))
    _, parts = sheet(tmp_path)
    assert "**Answer.** SCD adds 1.5 % (33.0 against 32.5 GFLOP), and 11.3 % [9.7, 12.4].\n" in parts["R4-d"]
    assert "No image passes once more." in parts["R4-d"]


def test_a_page_is_judged_once_for_each_state_of_its_files(out, monkeypatch):
    write_index(out)
    monkeypatch.setattr(reread, "load_study", lambda name: pytest.fail("judged again"))
    write_index(out)


def test_the_sheet_needs_no_torch(out):
    code = "import sys; from studies import answers; answers.main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--out", out], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines() == [str(out / "README.md"), str(out / "answers.html"), "False"]
