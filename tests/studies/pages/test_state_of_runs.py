"""What the first screen says of the runs: how complete they are, and the machines they come from."""

from dataclasses import replace

from synthetic_results import of_classes, results

from studies.suite.analysis.comparison import compare
from studies.suite.analysis.results import load
from studies.suite.analysis.tables import arm_table
from studies.suite.pages.publish import publish
from studies.suite.pages.state_of_runs import completeness, machines
from studies.suite.planning.study import Arm, Study, contrast_factory

CONTRAST = contrast_factory("linear_top1", 0.01, "A is better than B")("a", "b")


def test_completeness_is_honest():
    assert completeness(results()) == "Complete: 6 of 6 runs have finished, 3 seeds in every arm and setting."
    fewer = results()
    fewer = fewer.with_runs(fewer.runs[(fewer.runs["arm"] == "b") | (fewer.runs["seed"] < 2)])
    assert completeness(fewer) == "Complete: 6 of 6 runs have finished, 2 to 3 seeds in an arm and setting."
    none = results(time_budget={"minutes": 1, "stopped": "the time was over"}, done=0)
    none = none.with_runs(none.runs.assign(status="missing"))
    assert "0 runs have finished (6 not run yet), 0 seeds in an arm and setting." in completeness(none)
    partial = completeness(results((0.6, 0.61), "failed", "x", done=5))
    assert partial == "**Partial page:** 2 of 3 seeds are complete; 5 of 6 runs have finished (1 failed)."
    waiting = completeness(results((0.6,), "missing", done=4))
    assert waiting == "**Partial page:** 1 of 3 seeds are complete; 4 of 6 runs have finished (2 not run yet)."
    assert completeness(results(seeds=[])) == "Complete: 6 of 6 runs have finished."


def test_the_page_names_the_classes_the_seeds_and_the_command():
    found = of_classes(["two", "one", "one"], command="python -m studies toy")
    text = machines(found, {"A vs. B": compare(found, "a", "b", "linear_top1")})
    assert "**Runs of 2 numerics classes:** 5 of `one`, 1 of `two`." in text
    assert "A vs. B without 1 seed (0)." in text and "`python -m studies toy --recompute-foreign`" in text
    assert machines(of_classes(["one"] * 3), {}) == "" == machines(results(), {})


def test_a_published_page_says_so_on_its_first_screen_and_leaves_the_seed_out(tmp_path):
    def sections(report):
        report.judge([CONTRAST])
        report.show(arm_table(report.results, report.labels, ["linear_top1"]), "The caption.", None)

    arms = tuple(Arm(name, name.upper(), {}, "shares", "differs", pool="") for name in "ab")
    study = Study("toy", ("R0-a",), "?", "A toy", arms, (CONTRAST,), (), CONTRAST.name, list, sections, looks=(3,))
    found = of_classes(["one", "two", "one"], command="python -m studies toy seeds=3")
    path = publish(study, found, tmp_path)
    text = path.read_text(encoding="utf-8")
    first = text.split("<details>")[0]
    assert "**Runs of 2 numerics classes:** 5 of `one`, 1 of `two`." in first
    assert "A vs. B without 1 seed (1)." in first and "`python -m studies toy seeds=3 --recompute-foreign`" in first
    assert "cannot be told apart from B: 11.5 points" in first and "2 paired seeds" in first  # of seeds 0 and 2
    publish(study, load(tmp_path, "toy"), tmp_path)
    assert path.read_text(encoding="utf-8") == text
    of_one = replace(found, runs=found.runs.assign(numerics="one"))
    assert "numerics class" not in publish(study, of_one, tmp_path).read_text(encoding="utf-8").split("<details>")[0]
