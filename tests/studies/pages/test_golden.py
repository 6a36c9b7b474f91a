"""Stored records -> the exact page, and the numbers that a reader sees first, computed again by other means.

The records (golden/records) are those of a small study with one failed run and two that are missing. Where a page is
meant to change, ``SCD_WRITE_GOLDEN=1 pytest tests/studies/pages/test_golden.py`` writes the expected page again; read
the difference before you keep it.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
from scipy import stats

from studies import multicrop
from studies.suite.analysis.results import load
from studies.suite.pages.index import write_index
from studies.suite.pages.markdown import OPEN_LINES, open_lines
from studies.suite.pages.publish import publish


def without_readings(contrasts):
    """The contrasts, read where the study is."""
    return tuple(replace(each, looks=()) for each in contrasts)


STUDY = replace(
    multicrop.STUDY,
    looks=(3, 5, 10),  # the records have 3 seeds
    contrasts=without_readings(multicrop.STUDY.contrasts),
    control=without_readings(multicrop.STUDY.control),
    claims=tuple(
        replace(each, contrasts=without_readings(each.contrasts), controls=without_readings(each.controls))
        for each in multicrop.STUDY.claims
    ),
)
GOLDEN = Path(__file__).parent / "golden"
EXPECTED = GOLDEN / "golden.md"
READINGS = 3  # at 3, 5 and 10 seeds; each end of an interval has error 0.025 / 3
FIGURES = ("golden-seeds.png", "golden-cost.png", "golden-differences.png")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder with the page that the stored records give."""
    folder = tmp_path_factory.mktemp("reports")
    publish(STUDY, load(GOLDEN, "golden"), folder)
    return folder


@pytest.fixture(scope="module")
def page(out):
    """The page's text."""
    return (out / "golden.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def records():
    """The stored records, read without any of the suite."""
    return pandas.read_csv(GOLDEN / "records" / "golden.csv")


def of(records, arm, budget, rho, metric="linear_top1"):
    rows = records[(records.arm == arm) & (records.budget == budget) & (records.rho == rho)]
    return rows.set_index("seed")[metric].dropna()


def cells(line):
    """The cells of a table row, the minus sign as a computer writes it."""
    return [cell.strip().replace("−", "-") for cell in line.strip("|").split("|")]


def row(page, *first, after=""):
    """Cells of the first table row, after some text, that begins with these cells."""
    lines = page[page.index(after) :].splitlines()
    found = (cells(line) for line in lines if line.startswith("| "))
    return next(line[len(first) :] for line in found if tuple(line[: len(first)]) == first)


def test_page_is_the_golden_one(page):
    if os.environ.get("SCD_WRITE_GOLDEN"):
        EXPECTED.write_text(page, encoding="utf-8")
    assert page == EXPECTED.read_text(encoding="utf-8")


def test_records_beside_the_page_write_the_same_page_again(out, page, tmp_path):
    publish(STUDY, load(out, "golden"), tmp_path)
    assert (tmp_path / "golden.md").read_text(encoding="utf-8") == page
    for name in FIGURES:
        assert (tmp_path / "figures" / name).read_bytes() == (out / "figures" / name).read_bytes()
    assert (tmp_path / "records" / "golden.json").read_bytes() == (out / "records" / "golden.json").read_bytes()
    csv = pandas.read_csv(out / "records" / "golden.csv")
    assert len(csv) == 60 and csv["status"].value_counts().to_dict() == {"done": 57, "missing": 2, "failed": 1}


def test_first_screen_has_one_table_one_figure_and_what_could_be_seen(page):
    first = page.split("<details>")[0]
    assert first.startswith("# Is it the separation, or only additional crops?\n\n> **Question R5-b.**")
    order = [
        "**Not resolved** whether SCD",
        "**Partial page:**",
        "|:----",
        "![",
        "**What this page could have seen.**",
    ]
    places = [first.index(part) for part in order]
    assert places == sorted(places) and first.count("|:----") == first.count("![") == 1
    assert open_lines(page) <= OPEN_LINES and len(first.splitlines()) < 40
    assert "\n## " not in page  # every section is collapsed


def test_means_are_those_of_another_calculation(page, records):
    values = of(records, "moco", "epochs", 0.0)
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    seeds, top1, *_ = row(page, "MoCo", after="### Equal epochs, ρ = 0")
    assert (seeds, top1) == ("3", f"{100 * values.mean():.1f} ± {100 * half:.1f}")


def written(p):
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def test_contrasts_with_a_reference_are_those_of_scipy(page, records):
    moco, random = (of(records, arm, "epochs", 0.8, "linear_top1") for arm in ("moco", "random"))
    test = stats.ttest_rel(moco, random)
    interval = test.confidence_interval(1 - 0.05 / READINGS)
    pairs, mean, shown, p, *_ = row(page, "MoCo vs. random weights", "equal epochs, ρ = 0.8")
    assert (pairs, mean) == ("3", f"{100 * (moco - random).mean():+.2f}")
    assert shown == f"[{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"
    assert p == written(test.pvalue)


def test_contrasts_of_arms_have_the_spread_of_an_additive_model(page, records):
    """Of the three arms that have all seeds in this setting, fitted by least squares on one column per arm and seed."""
    values = np.array([of(records, arm, "epochs", 0.8) for arm in ("scd", "moco", "same_rectangle")])
    design = np.zeros((9, 6))
    for place, (arm, seed) in enumerate(np.ndindex(3, 3)):
        design[place, [arm, 3 + seed]] = 1
    residual = values.ravel() - design @ np.linalg.lstsq(design, values.ravel(), rcond=None)[0]
    error, df = np.sqrt(2 * (residual @ residual / 4) / 3), 4
    mean = (values[0] - values[1]).mean()
    half = stats.t.isf(0.025 / READINGS, df) * error
    pairs, shown_mean, shown, p, *_ = row(page, "SCD vs. MoCo", "equal epochs, ρ = 0.8")
    assert (pairs, shown_mean) == ("3", f"{100 * mean:+.2f}")
    assert shown == f"[{100 * (mean - half):+.2f}, {100 * (mean + half):+.2f}]"
    assert p == written(2 * stats.t.sf(mean / error, df))


def test_the_answer_says_what_the_table_says(page, records):
    gain = of(records, "scd", "flops", 0.8) - of(records, "moco", "flops", 0.8)
    lines = page.split("**Partial page:**")[0].splitlines()
    (answer,) = (line for line in lines if line.startswith("- *Does SCD help at all?*"))
    assert f" {100 * gain.mean():.1f} points [" in answer
    assert row(page, "SCD vs. MoCo", "equal training FLOPs, ρ = 0.8")[1] == f"{100 * gain.mean():+.2f}"


def test_a_failed_run_is_named_with_its_reason_and_only_common_seeds_are_paired(page):
    seeds, top1, *_ = row(page, "SCD", after="### Equal training FLOPs, ρ = 0")
    assert seeds == "2 of 3, 1 **failed**<sup>a</sup>" and "±" in top1
    assert "<sup>a</sup> failed: the loss is not finite at step 31 (lr 0.06) | try a smaller lr." in page
    assert row(page, "SCD vs. MoCo", "equal training FLOPs, ρ = 0")[0] == "2"
    assert "(1 failed, 2 not run yet)" in page and "**Partial page:** 2 of 3 seeds are complete" in page


def test_what_is_missing_is_a_dash_with_its_reason_and_never_a_number(page):
    assert row(page, "MoCo", after="<b>Collapse</b>")[-1].startswith("–<sup>")
    shown = [cell for line in page.splitlines() if line.startswith("| ") for cell in cells(line)]
    assert not {"nan", "None", "", "inf"} & set(shown)


def test_every_section_and_figure_is_there(page, out):
    for heading in (
        "Arms", "Accuracy and cost", "Background reliance", "Saliency maps against true masks", "Collapse",
        "Contrasts", "Further protocols", "How it was measured", "Deviations from the papers", "Cost", "Provenance",
    ):  # fmt: skip
        assert f"<summary><b>{heading}</b></summary>" in page
    figures = [part.split(")")[0] for part in page.split("](")[1:] if part.startswith("figures/")]
    assert len(figures) == len(FIGURES)
    for figure in figures:
        assert 10_000 < (out / figure).stat().st_size < 150_000


def test_a_protocol_that_was_asked_for_adds_columns_and_is_described(page):
    further = page[page.index("<b>Further protocols</b>") :]
    assert "fine-tuned top-1 (%)" in further.split("</details>")[0]
    assert "- **Protocol finetune:** `scd.evaluation.finetune.FineTune` (labels 1)" in page


def test_index_lists_the_page_as_stale(out):
    text = write_index(out).read_text(encoding="utf-8")
    assert "[golden](golden.md)" in text and "**stale**" in text and "(partial)" in text
    about = json.loads((out / "records" / "golden.json").read_text(encoding="utf-8"))
    assert about["answer"] in text and about["outcome"] in text
