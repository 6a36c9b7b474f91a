"""The sections that every page has."""

from dataclasses import replace

import pandas
import pytest
from synthetic_results import LABELS, results

from studies.multicrop import crops
from studies.suite.analysis.results import Results, difference
from studies.suite.pages import sections
from studies.suite.pages.markdown import Page
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.study import Arm, Study

ARMS = (Arm("a", "A", {}, "all of B", "more"), Arm("b", "B", {}, "nothing", "the base"), Arm("c", "C", {}, "", ""))
STUDY = Study(
    "toy", ("R0-a",), "?", "A toy", ARMS, (), (), "", list, list, notes=lambda found: {"Note": "of the study"}
)
BASE = {
    "data": {"title": "shapes", "size": 48, "options": {"_target_": "x.Shapes", "classes": 10, "seed": None}},
    "backbone": {"_target_": "x.resnet", "name": "resnet_tiny", "widths": [16, 32]},
    "views": {"recipe": "mocov2", "size": 24, "scale": [0.2, 1.0], "extra": {"kind": "none", "count": 0}},
    "method": {"_target_": "baselines.moco.MoCo", "dim": 64, "symmetric": False},
    "optimizer": {"name": "sgd", "lr": 0.06, "clip": None},
    "schedule": {"name": "cosine", "per": "step"},
    "training": {"batch_size": 32, "budget": {"unit": "epochs", "value": 4}},
    "evaluation": {"size": 24},
}


def rendered(fill, *arguments):
    page = Page("Title")
    fill(page, *arguments)
    return page.markdown


def test_settings_and_machines_in_words():
    options = {"queue_size": 64, "scale": [0.2, 1.0], "on": True, "no": None, "map": {"_target_": "a.B", "depth": 2}}
    assert sections.words(options) == "queue size 64, scale 0.2 / 1, on yes, map `a.B` (depth 2)"
    line = sections.environment_line({"cpu": "CPU", "cores": 2, "git": {"commit": "0123456789abcdef", "dirty": True}})
    assert line == "CPU; 2 cores; commit `0123456789ab` with uncommitted changes"
    assert sections.environment_line({}) == "no git checkout"


def test_arms_have_their_supervision_and_what_they_see_beyond_pixels():
    found = results(overrides={"a": {"annotations": {"masks": {"_target_": "x.Oracle"}}, "backbone": {"width": 8}}})
    found = found.with_runs(found.runs.assign(supervision=["none"] * 3 + ["oracle"] * 3))
    text = rendered(sections.arms, STUDY, found)
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert rows["A"].split("|")[-2].strip() == "oracle" and rows["B"].split("|")[-2].strip() == "none"
    assert "- **A, annotations:** masks `x.Oracle`" in text and "- **A, backbone:** width 8" in text
    assert text.strip().endswith("Not part of this page: C.")


def test_how_measured_prints_every_protocol_and_setting():
    protocols = [
        {"name": "knn", "_target_": "x.KNN", "k": 20},
        {"name": "finetune_10", "_target_": "x.F", "labels": 0.1},
    ]
    found = results(
        base=BASE, protocols=protocols, source={"version": "1", "description": "images.", "fingerprint": "ab"}
    )
    found = found.with_runs(found.runs.assign(n_train=100, n_test=50, parameters_backbone=105000))
    text = rendered(sections.how_measured, STUDY, found, ["linear_top1"])
    for line in (
        "- **Backbone:** `resnet_tiny` (widths 16 / 32), 105 k parameters",
        "- **Data:** `shapes`, version 1: images; kept as squares of 48 px; 100 training and 50 test images; options: "
        "classes 10; content fingerprint `ab`",
        "- **Views:** recipe mocov2, size 24, scale 0.2 / 1, extra (kind none, count 0); arms of one seed see",
        "- **Method:** `baselines.moco.MoCo` (dim 64, symmetric no)",
        "- **Schedule:** 4 epochs, batch size 32; sgd, lr 0.06; cosine learning rate, per step",
        "- **Protocol knn:** `x.KNN` (k 20)",
        "- **Protocol finetune_10:** `x.F` (labels 0.1)",
        "- **Note:** of the study",
    ):
        assert line in text
    assert "| linear top-1 | `linear_top1` | higher   | accuracy of a linear probe |" in text


def test_numbers_that_no_section_shows_are_listed():
    found = results()
    found = found.with_runs(found.runs.assign(knn_top1=0.5, **{"saliency_iou": None}))
    page = Page("Title")
    assert sections.further(page, found, LABELS, {"linear_top1"})
    assert "kNN top-1 (%)" in page.markdown and "linear" not in page.markdown and "IoU" not in page.markdown
    assert not sections.further(Page("Title"), found, LABELS, {"linear_top1", "knn_top1"})


def test_indicators_that_nothing_measured_are_named_so():
    text = rendered(sections.indicators, results(), LABELS, ["saliency_iou"], "What they say.")
    assert "Not measured: no finished run has these numbers." in text and "What they say." not in text


def test_costs_of_an_untrained_arm_are_its_parameters():
    found = results()
    steps = [0] * 3 + [10] * 3
    found = found.with_runs(found.runs.assign(steps=steps, parameters_trained=1000, images_per_second=5.0))
    rows = [line.split("|") for line in rendered(sections.cost, found, LABELS).splitlines() if line.startswith("| ")]
    cells = {row[1].strip(): [cell.strip() for cell in row[2:-1]] for row in rows}
    assert cells["B"][0] == cells["A"][0] == "1 k"
    assert cells["B"][3] == "–<sup>b</sup>" and cells["A"][3] == "5"


def test_provenance_names_command_code_machines_and_runs():
    about = {"command": "python -m studies toy", "base": BASE, "overrides": {"a": {"wrapper": None}}}
    found = results((0.6, 0.61), "failed", "out of memory", environments=[{"cpu": "one"}, {"cpu": "two"}], **about)
    text = rendered(sections.provenance, found)
    assert "- **Command:** `python -m studies toy`" in text and "- **Machine 2:** two; no git checkout" in text
    assert "`a0` `a1` `a2` (failed: out of memory)" in text and "records/toy.csv" in text
    assert "Arm overrides" in text and "a:\n  wrapper: null" in text
    empty = found.with_runs(pandas.DataFrame(found.runs.assign(status="missing")))
    assert "– – –" in rendered(sections.provenance, empty)


# ---------------------------------------------------------------- blur


@pytest.mark.parametrize(
    ("tier", "text"),
    [
        ("smoke", "views that are blurred at all: 0 % of v1, 0 % of v2. The papers' standard deviation"),
        ("cpu", "views that are blurred at all: 0 % of v1, 0 % of v2. The papers' standard deviation"),
        # sigma is 0.0143 to 0.286 px at 32 px: 13 % of its range is 0.25 px or more
        ("gpu", "views that are blurred at all: 7 % of v1, 7 % of v2 (MoCo); 13 % of v1, 1 % of v2, 0 % of the extra"),
    ],
)
def test_how_many_views_are_blurred_at_all(tier, text):
    """At 24 px no view is: pages named MoCo v2's photometrics, which blur every second view."""
    arms = (Arm("random", "random weights", {}, "", ""), Arm("moco", "MoCo", {}, "", ""))
    local = Arm("byol", "BYOL", {"method": "byol", **crops("local", 2)}, "", "")
    study = replace(STUDY, arms=(*arms, *([local] if tier == "gpu" else [])))
    settings = resolve_settings("multicrop", [f"tier={tier}"])
    own, changed = (settings.configure(arm, 0) for arm in (arms[1], local))
    overrides = {"random": {"training": {"budget": {"value": 0}}}, "byol": difference(own, changed)}
    about = {"arms": [arm.name for arm in study.arms], "overrides": overrides, "base": own}
    assert sections.blur_line(study, Results(about, pandas.DataFrame())).startswith(text)
