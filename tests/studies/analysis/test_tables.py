"""The tables of a page: what a cell says, and why one is missing."""

import pandas
from synthetic_results import LABELS, results

from studies.suite.analysis import tables
from studies.suite.analysis.verdict import find, judge
from studies.suite.planning.study import Contrast

CONTRAST = Contrast("a-b", "a", "b", "linear_top1", 0.01, "A beats B", {"budget": "epochs"})


def cells(found, row=0):
    return found.frame.iloc[row].tolist()


def test_arm_table_with_all_seeds():
    found = tables.arm_table(results(), LABELS, ["linear_top1"], {"cost": "cost / B's"}, "b", budget="epochs")
    assert found.frame.columns.tolist() == ["arm", "seeds", "linear top-1 (%)", "cost / B's"]
    assert cells(found) == ["A", "3", "62.0 ± 5.0", "1.50×"] and found.notes == []
    assert found.metrics == ("linear_top1",)


def test_arm_table_with_failed_missing_and_unmeasured_runs():
    partly = tables.arm_table(results((0.6,), "failed", "out of memory"), LABELS, ["linear_top1", "saliency_iou"])
    assert cells(partly)[1:] == [
        "1 of 3, 2 **failed**<sup>a</sup>", "60.0 (n=1, no interval)", "–<sup>b</sup>",
    ]  # fmt: skip
    assert partly.notes == [
        "<sup>a</sup> failed: out of memory.",
        "<sup>b</sup> the arm or the images lack what this takes (labels, masks, a map).",
    ]
    none = tables.arm_table(results((), "missing"), LABELS, ["linear_top1"], {"cost": "cost"}, "b")
    assert cells(none) == ["A", "0 of 3", "–<sup>a</sup>", "–<sup>a</sup>"]
    assert none.notes == ["<sup>a</sup> no finished run."]


def test_a_failed_evaluation_of_a_finished_run_is_the_reason_of_its_dash():
    whole = results()
    failing = whole.with_runs(whole.runs.assign(reason="finetune: out of memory", finetune_top1=None))
    found = tables.arm_table(failing, LABELS, ["finetune_top1"])
    assert found.notes == ["<sup>a</sup> failed: finetune: out of memory."]


def test_contrast_table_pairs_common_seeds_and_leaves_unknown_things_out():
    name = {"a-b": "A vs. B"}
    whole = cells(tables.contrast_table(results(), [CONTRAST], name))
    assert whole[:5] == ["A vs. B", "equal epochs", "3", "+11.00", "[+6.70, +15.30]"]  # 11 ± 4.303 · 1.732 / √3
    assert whole[5] == whole[6]  # one test: Holm changes nothing
    assert whole[7:] == ["better", f"{100 * find(results(), CONTRAST).detectable:.1f}"]
    one = tables.contrast_table(results((0.6,), "missing"), [CONTRAST], name)
    assert cells(one)[2:4] == ["1", "+10.00"] and set(cells(one)[4:]) == {"–<sup>a</sup>"}
    assert one.notes == ["<sup>a</sup> one pair: no interval."]
    none = tables.contrast_table(results((), "missing"), [CONTRAST], name)
    assert cells(none)[2:4] == ["0", "–<sup>a</sup>"] and none.notes[0].endswith("no seed has finished in both arms.")


def test_contrasts_without_conditions_have_no_column_for_them():
    plain = Contrast("a-b", "a", "b", "linear_top1", 0.01, "A beats B")
    assert "setting" not in tables.contrast_table(results(), [plain], {"a-b": "A vs. B"}).frame


def test_gain_table_marks_fewer_pairs():
    found = tables.gain_table(
        results((0.6, 0.61), "missing"), LABELS, "linear_top1", "b", {"here": {"budget": "epochs"}}
    )
    assert cells(found) == ["A", "+9.50 [+3.15, +15.85] (n=2)"]


def test_tables_of_differences_say_what_their_intervals_are():
    plain = tables.gain_table(results(), LABELS, "linear_top1", "b", {"here": {"budget": "epochs"}})
    assert plain.notes == []  # one reading, no pool
    declared = results(looks=[3, 5], pools=dict.fromkeys("abc", "arms"))
    found = tables.gain_table(declared, LABELS, "linear_top1", "b", {"here": {"budget": "epochs"}})
    assert found.notes == [
        "Intervals hold with 95 % over all readings, at 3 and 5 seeds, and use a spread that is pooled over the arms "
        "of a setting, see *How the answer follows*."
    ]
    assert found.notes == tables.contrast_table(declared, [CONTRAST], {"a-b": "A vs. B"}).notes
    alone = results(looks=[3], pools={"a": "arms", "b": "arms"})  # two arms: nothing to pool
    assert tables.contrast_table(alone, [CONTRAST], {"a-b": "A vs. B"}).notes == []


def test_verdict_table_counts_outcomes():
    control = find(results(), CONTRAST)
    found = tables.verdict_table({"here": judge(results(), [CONTRAST], [control])})
    assert cells(found) == ["here", "supported", "1", "0", "0", "0", "better"]


def test_label_table_has_a_row_for_every_setting():
    whole = results()
    twice = pandas.concat([whole.runs.assign(rho=rho) for rho in (0.0, 0.8)])
    twice = twice[["arm", "budget", "rho", "seed", "run", "status", "reason", "linear_top1"]]
    found = tables.label_table(whole.with_runs(twice), LABELS, ["linear_top1"])
    assert [row[:2] for row in found.frame.values.tolist()] == [["B", "0"], ["A", "0"], ["B", "0.8"], ["A", "0.8"]]


def test_definitions_are_the_protocols_own():
    found = tables.definitions(results(), ["linear_top1", "of no protocol"])
    assert found.frame.values.tolist() == [["linear top-1", "`linear_top1`", "higher", "accuracy of a linear probe"]]
