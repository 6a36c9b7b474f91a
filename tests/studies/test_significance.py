"""The study on significance: its plan of seeds and of sources of chance, and what a margin means."""

from itertools import product

import numpy
from synthetic_results import settings_of, study_results

from studies import significance
from studies.significance import STUDY
from studies.suite.pages.publish import publish

AXES = {"main_seeds": 4, "chance": ["init", "probe"], "levels": 3}


def test_one_source_of_chance_varies_at_a_time():
    specs = significance.plan(settings_of("significance", axes=AXES))
    whole = [s for s in specs if s.labels["chance"] == "all"]
    seeds = {arm.name: {s.labels["seed"] for s in whole if s.labels["arm"] == arm.name} for arm in significance.ARMS}
    assert seeds["scd"] == seeds["moco"] == seeds["random"] == {0, 1, 2, 3} and seeds["scd_byol"] == {0, 1, 2}
    main = {s.labels["arm"]: s for s in whole if s.labels["seed"] == 0}
    assert main["random"].config["training"]["budget"]["value"] == 0
    for source, arm in product(("init", "probe"), significance.VARIED):
        levels = {s.labels["seed"]: s for s in specs if (s.labels["chance"], s.labels["arm"]) == (source, arm)}
        assert set(levels) == {0, 1, 2} and levels[0].config == main[arm].config
        for level in (1, 2):
            assert levels[level].config["seed_of"] == {**main[arm].config["seed_of"], source: level}
            assert {**levels[level].config, "seed_of": None} == {**main[arm].config, "seed_of": None}


def test_the_meaning_of_a_margin_is_computed_from_the_published_runs(tmp_path, no_figures):
    results = study_results(STUDY, {"scd": 0.003}, settings_of("significance", tmp_path, axes=AXES))
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    sd = numpy.std(significance.PUBLISHED, ddof=1)
    assert f"(standard deviation {sd:.2f} points)" in text
    assert f"differ by up to {2.776 * sd * 2**0.5:.2f} points" in text  # t with 4 degrees of freedom: 2.776
    assert "as differences of single runs, both margins are within chance" in text
    assert "Complete: " in text and "at least 3 seeds in every arm and setting" in text
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    counts = [rows[name].split("|")[2].strip() for name in ("initial weights", "all of them (the seeds)")]
    assert counts == ["3", "4"]
    assert "- **Seeds of the arms:** 4 in the asymmetric arms, 3 in the others" in text
