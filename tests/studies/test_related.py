"""The comparison with related systems: its plan, its claims, and the tables of mechanisms, inputs and quotations."""

from dataclasses import replace

import pytest
from synthetic_results import settings_of, study_results

from scd.errors import UsageError
from studies import related
from studies.related import ARMS, CLAIMS, STUDY, SYSTEMS
from studies.suite.pages import figures
from studies.suite.pages.publish import Report, publish
from studies.suite.planning.command_line import load_study
from studies.systems.page import outside, quoted

DEFAULT = [system for system in SYSTEMS if system.default]


def page_of(results, tmp_path):
    return publish(STUDY, results, tmp_path).read_text(encoding="utf-8")


def table_after(text, heading):
    """The rows of the first table of a section, without its heading and rule."""
    section = text.split(f"<b>{heading}</b>")[1].split("</details>")[0]
    block = next(part for part in section.split("\n\n") if part.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]


# -------------------------------------------------------------------- plan


def test_every_default_arm_at_equal_epochs_seed_by_seed():
    specs = related.plan(settings_of("related", seeds=2))
    names = [arm.name for arm in ARMS if arm.default]
    assert [(s.labels["seed"], s.labels["arm"]) for s in specs] == [(seed, name) for seed in (0, 1) for name in names]
    assert {s.labels["budget"] for s in specs} == {"epochs"}
    assert {s.config["data"]["options"]["rho_train"] for s in specs} == {0.8}
    assert {s.labels["arm"] for s in specs if s.config["training"]["budget"]["value"] == 0} == {"random"}


def test_systems_alone_train_at_their_hosts_flops():
    settings = settings_of("related", seeds=1, axes={"budgets": ["flops", "epochs"]}, words=("arms=all",))
    specs = {(s.labels["budget"], s.labels["arm"]): s.config for s in related.plan(settings)}
    assert list(specs)[0] == ("epochs", "random") and len(specs) == 2 * len(ARMS)
    for arm in ARMS:
        config = specs["flops", arm.name]
        if arm.name in related.HOST_OF:
            budget = config["training"]["budget"]
            assert budget["unit"] == "flops" and budget["reference"]["wrapper"] is None
            method = settings.presets["method"][related.HOST_OF[arm.name].host]["_target_"]
            assert budget["reference"]["method"]["_target_"] == method
        else:
            assert config == specs["epochs", arm.name]  # one run in both budgets


def test_arms_differ_from_their_host_in_what_they_declare():
    specs = {s.labels["arm"]: s.config for s in related.plan(settings_of("related", seeds=1, words=("arms=all",)))}
    for system in SYSTEMS:
        changed = {key for key in specs[system.name] if specs[system.name][key] != specs[system.host.host][key]}
        expected = {"wrapper"} if "wrapper" in system.overrides else {"method"}
        assert changed == expected | ({"annotations"} if system.given else set()) | set(system.changes)


def test_arms_are_those_of_other_studies_so_that_runs_are_shared():
    own = {s.labels["arm"]: s.config for s in related.plan(settings_of("related", seeds=1))}
    for other in ("significance", "lewel"):
        settings = settings_of(other, seeds=1, axes={"chance": [], "scenarios": "none"}, words=("arms=all",))
        theirs = {s.labels["arm"]: s.config for s in load_study(other).plan(settings)}
        for name in ("moco", "scd", "oracle", "byol", "scd_byol"):
            parts = [{k: v for k, v in config.items() if k != "evaluation"} for config in (own[name], theirs[name])]
            assert parts[0] == parts[1]


def test_the_first_stage_of_a_system_is_its_hosts_run(tmp_path):
    settings = settings_of("related", tmp_path, 1, axes={"budgets": ["epochs", "flops"]}, words=("arms=all",))
    specs = {(s.labels["budget"], s.labels["arm"]): s for s in related.plan(settings)}
    staged = {arm for (_, arm), spec in specs.items() if spec.inputs}
    assert {"contracam_crop", "contracam_mixup"} <= staged and "oracle_contracam_crop" not in staged
    for arm in staged:
        host = related.HOST_OF[arm].host
        (stage,) = specs["epochs", arm].inputs.values()
        assert stage.id == specs["epochs", host].id  # it is trained once
        (half,), whole = specs["flops", arm].inputs.values(), specs["epochs", host].config["training"]["budget"]
        assert half.config["training"]["budget"] == {**whole, "value": whole["value"] / 2}
        assert specs["flops", arm].config["training"]["budget"]["of"]["value"] == whole["value"] / 2


def test_images_without_masks_have_no_arm_that_is_told_them(monkeypatch):
    monkeypatch.setattr("studies.references.has_masks", lambda settings: False)
    names = {s.labels["arm"] for s in related.plan(settings_of("related", seeds=1))}
    assert {"soco", "detcon"} <= names and not any(name.startswith("oracle") for name in names)


def test_an_unknown_budget_is_refused():
    settings = settings_of("related", seeds=1, axes={"budgets": ["flop"]})
    with pytest.raises(UsageError, match=r"unknown budget \(axes.budgets\) 'flop'; did you mean 'flops'"):
        related.plan(settings)


# -------------------------------------------------------------------- claims


def test_one_claim_for_each_default_system_with_the_controls_of_its_host():
    assert [claim.contrasts[0].control for claim in CLAIMS] == [system.name for system in DEFAULT]
    for claim, system in zip(CLAIMS, DEFAULT, strict=True):
        assert claim.contrasts[0].treatment == system.host.scd and claim.contrasts[0].sesoi == 0.01
        assert [(each.treatment, each.control) for each in claim.controls] == [
            (system.host.oracle, system.host.host), (system.host.host, "random"),
        ]  # fmt: skip
        assert claim.text == f"SCD-{system.host.label} is better than {system.label}"


def test_claims_follow_from_records_system_by_system(tmp_path, no_figures):
    gains = {"oracle": 0.1, "oracle_byol": 0.0, "vader": 0.05, "densecl": -0.05}
    text = page_of(study_results(STUDY, gains, settings_of("related", tmp_path, 5)), tmp_path)
    lines = {line.split("*")[1]: line for line in text.splitlines() if line.startswith("- *R")}
    assert "**Supported:** SCD-MoCo is better than DenseCL" in lines["R4-b: DenseCL?"]
    assert "**Contradicted:** it does not hold that SCD-MoCo is better than VADeR" in lines["R1-a, R3-c: VADeR?"]
    assert "equivalent" in lines["R1-b: PointCL?"]
    assert "**Uninformative:**" in lines["R1-b, R1-d: SoCo?"]  # the true mask does not help on BYOL
    assert len(lines) == len(CLAIMS) and all("5 paired seeds" in line for line in lines.values())


def test_a_claim_is_about_equal_epochs_where_both_budgets_are_on_the_page(tmp_path, no_figures):
    words = ("arms=[random,moco,scd,oracle,vader]",)
    settings = settings_of("related", tmp_path, 5, axes={"budgets": ["epochs", "flops"]}, words=words)
    results = study_results(STUDY, {"oracle": 0.1, "vader": 0.05}, settings)
    text = page_of(results, tmp_path)
    assert "arm − host, equal training FLOPs" in text and "SCD − arm, equal epochs" in text
    assert "a system takes as many steps as cost the forward and backward FLOPs of its host's training" in text
    assert "(5 paired seeds)" in text and "10 paired seeds" not in text


# -------------------------------------------------------------------- page


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of all arms, with the scores of what two of them are given; without figures, see ``no_figures``."""
    out = tmp_path_factory.mktemp("related")
    settings = settings_of("related", out, 5, words=("arms=all",))
    results = study_results(STUDY, {"oracle": 0.1, "oracle_byol": 0.1, "soco": 0.03, "oracle_soco": 0.06}, settings)
    scores = {
        "soco": {"proposals": 7.25, "best_overlap": 0.625, "mean_overlap": 0.125},
        "detcon": {"proposals": 5.0, "cover": 0.875},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", lambda figure, path: figures.plt.close(figure))
        return page_of(replace(results, about={**results.about, "given": scores}), out)


def test_the_mechanisms_have_a_row_for_each_system(page):
    rows = table_after(page, "The mechanisms, one by one")
    assert [row[0] for row in rows] == [system.label for system in SYSTEMS]
    for row, system in zip(rows, SYSTEMS, strict=True):
        assert row[1:5] == [system.asked, system.compares, system.shares, system.differs]
        assert row[5].endswith((": better", ": worse", ": equivalent", ": not resolved"))
    assert rows[4][5].endswith("worse") and rows[4][6].endswith("better")  # SoCo


def test_what_arms_are_given_is_read_from_their_methods_and_annotators(page):
    rows = {row[0]: row[1:] for row in table_after(page, "What they are given")}
    assert rows["SoCo"] == ["boxes", "SelectiveSearch", "none", "7.2", "62.5 %", "12.5 %", "–", "–", "–"]
    assert rows["DetCon"] == ["segments", "Felzenszwalb", "none", "5.0", "–", "–", "87.5 %", "–", "–"]
    assert rows["SoCo with the true boxes"][:2] == ["boxes", "OracleAnnotator"]
    assert rows["SCD-MoCo with the true mask"][:2] == ["masks", "OracleAnnotator"]
    assert {name for name, row in rows.items() if row[0] == "nothing"} >= {"SCD-MoCo", "SCD-BYOL", "VADeR", "SlotCon"}
    assert rows["ContraCAM's object-aware crop"][-1] == "MoCo, of the same seed"
    told = page.split("The method apart from its teacher")[1].split("</details>")[0]
    assert "| SoCo (boxes)" in told and "| DetCon (segments)" in told and told.count("better") >= 2


def test_published_numbers_are_quoted_with_their_source(page):
    rows = table_after(page, "Published numbers, quoted")
    assert {row[0] for row in rows} == {system.label for system in SYSTEMS}
    assert all(quote and source for _, quote, source in rows)
    assert ["PointCL", SYSTEMS[2].published[0].text, "README of facebookresearch/PLRC"] in rows
    assert "None of these numbers was measured here." in page


def test_what_is_not_known_is_said(tmp_path):
    systems = (replace(SYSTEMS[0], published=()), *SYSTEMS[1:])
    report = Report(STUDY, study_results(STUDY, {}, settings_of("related", tmp_path)), tmp_path)
    numbers, given = report.section("Numbers"), report.section("Given")
    quoted(systems, numbers)
    outside(systems, given, report, related.METRIC)
    assert table_after(numbers.markdown, "Numbers")[0] == ["DenseCL", "no number in the facts", "–"]
    assert "How well boxes, segments and masks fit the objects was not measured" in given.markdown


def test_scores_of_true_boxes_and_segments_are_perfect(tmp_path, monkeypatch):
    monkeypatch.setenv("SCD_CACHE", str(tmp_path))
    settings = settings_of("related", tmp_path, words=("sizes.generated_train=24",))
    arms = {arm.name: arm for arm in ARMS}
    told = {name: related.scores_of(settings.spec(arms[name], 0), settings) for name in ("oracle_soco", "detcon")}
    assert told["oracle_soco"]["best_overlap"] == told["oracle_soco"]["mean_overlap"] == pytest.approx(1)
    assert 0 <= told["detcon"]["cover"] <= 1 and told["detcon"]["proposals"] >= 1
