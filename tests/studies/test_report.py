"""Tables, the page writer, evidence on disk, and the index."""

import json

import pandas
import pytest

from scd.errors import DataError
from studies.suite.analysis import tables
from studies.suite.analysis.conditions import conditions, everywhere, title, words
from studies.suite.analysis.results import Evidence, load, save
from studies.suite.analysis.statistics import difference_of
from studies.suite.analysis.tables import Table
from studies.suite.pages.index import is_stale, write_index
from studies.suite.pages.report import Page, environment_line, markdown, standing
from studies.suite.pages.report import words as option_words
from studies.suite.planning.identity import fresh_fingerprint
from studies.suite.planning.study import Contrast

LABELS = {"a": "A", "b": "B"}
ABOUT = {
    "study": "toy", "questions": ["R0-a"], "page": "toy", "tier": "cpu", "meaningful": True, "data": "shapes",
    "seeds": [0, 1, 2], "arms": ["a", "b"], "planned": 6, "done": 6, "fingerprint": "f" * 16, "roots": ["scd.seeds"],
}  # fmt: skip


def evidence(top1=(0.6, 0.62, 0.64), status="done", reason="", **about):
    """Arm b with 0.5, 0.52, 0.51, and arm a as asked for."""
    rows = [
        {"arm": "b", "budget": "epochs", "seed": seed, "run": f"b{seed}", "status": "done", "reason": "", "cost": 2.0}
        | {"linear_top1": value}
        for seed, value in enumerate((0.5, 0.52, 0.51))
    ]
    for seed in range(3):
        row = {"arm": "a", "budget": "epochs", "seed": seed, "run": f"a{seed}", "status": status, "reason": reason}
        if seed < len(top1):
            row |= {"status": "done", "reason": "", "linear_top1": top1[seed], "cost": 3.0}
        rows.append(row)
    return Evidence({**ABOUT, **about}, pandas.DataFrame(rows))


def cells(found, row=0):
    return found.frame.iloc[row].tolist()


def test_numbers_are_percent_points_or_raw():
    assert tables.number("linear_top1", 0.61234) == "61.2"
    assert tables.number("linear_top1", -0.0123, signed=True) == "−1.23"
    assert tables.number("linear_top1", 0.0004, signed=True) == "+0.04"
    assert tables.number("linear_top1", -0.00001, signed=True) == "0.00"
    assert tables.number("effective_rank", 12.345) == "12.35"
    assert tables.number("effective_rank", 1234.5) == "1,234"
    assert tables.heading("linear_top1") == "linear top-1 (%)"
    assert tables.heading("bg_gap") == "background gap (points)"
    assert [tables.quantity(value) for value in (24.3e9, 105e3, 12.0)] == ["24.3 G", "105 k", "12"]
    assert [tables.p_value(p) for p in (0.00004, 0.0123, 0.456)] == ["<0.001", "0.012", "0.46"]


def test_a_cell_says_how_many_seeds_it_rests_on():
    assert tables.mean_cell("linear_top1", [0.60, 0.62, 0.64], 3) == "62.0 ± 5.0"
    assert tables.mean_cell("linear_top1", [0.60, 0.62], 3) == "61.0 ± 12.7 (n=2)"
    assert tables.mean_cell("linear_top1", [0.60], 1) == "60.0 (n=1, no interval)"


def test_a_difference_in_a_sentence():
    assert (
        tables.amount("linear_top1", difference_of([0, 1], [0.01, 0.02])) == "+1.50 points [−4.85, +7.85], n = 2 pairs"
    )
    assert tables.amount("linear_top1", difference_of([0], [0.01])) == "+1.00 points (no interval), n = 1 pair"
    assert tables.amount("linear_top1", difference_of([], [])) == "not measured yet"


def test_arm_table_with_all_seeds():
    found = tables.arm_table(evidence(), LABELS, ["linear_top1"], {"cost": "cost / B's"}, "b", budget="epochs")
    assert found.frame.columns.tolist() == ["arm", "seeds", "linear top-1 (%)", "cost / B's"]
    assert cells(found) == ["A", "3", "62.0 ± 5.0", "1.50×"] and found.notes == []


def test_arm_table_with_failed_missing_and_unmeasured_runs():
    partly = tables.arm_table(evidence((0.6,), "failed", "out of memory"), LABELS, ["linear_top1", "saliency_iou"])
    assert cells(partly)[1:] == [
        "1 of 3, 2 **failed**<sup>a</sup>", "60.0 (n=1, no interval)", "–<sup>b</sup>",
    ]  # fmt: skip
    assert partly.notes == [
        "<sup>a</sup> failed: out of memory.",
        "<sup>b</sup> no saliency map in this arm, or no masks in the test images.",
    ]
    none = tables.arm_table(evidence((), "missing"), LABELS, ["linear_top1"], {"cost": "cost"}, "b")
    assert cells(none) == ["A", "0 of 3", "–<sup>a</sup>", "–<sup>a</sup>"]
    assert none.notes == ["<sup>a</sup> no finished run."]


def test_contrast_table_pairs_common_seeds_and_leaves_unknown_things_out():
    contrast = Contrast("a-b", "a", "b", "linear_top1", 0.01, "A beats B", {"budget": "epochs"})
    name, where = {"a-b": "A vs. B"}, {"a-b": "equal epochs"}
    whole = cells(tables.contrast_table(evidence(), [contrast], name, where))
    assert whole[:5] == ["A vs. B", "equal epochs", "3", "+11.00", "[+6.70, +15.30]"]  # 11 ± 4.303 · 1.732 / √3
    assert whole[5] == whole[6]  # one test: Holm changes nothing
    one = tables.contrast_table(evidence((0.6,), "missing"), [contrast], name, where)
    assert cells(one)[2:4] == ["1", "+10.00"] and set(cells(one)[4:]) == {"–<sup>a</sup>"}
    assert one.notes == ["<sup>a</sup> one pair: no interval."]
    none = tables.contrast_table(evidence((), "missing"), [contrast], name, where)
    assert cells(none)[2:4] == ["0", "–<sup>a</sup>"] and none.notes[0].endswith("no seed has finished in both arms.")


def test_gain_table_marks_fewer_pairs():
    found = tables.gain_table(
        evidence((0.6, 0.61), "missing"), LABELS, "linear_top1", "b", {"here": {"budget": "epochs"}}
    )
    assert cells(found) == ["A", "+9.50 [+3.15, +15.85] (n=2)"]


def test_conditions_and_their_words():
    runs = pandas.DataFrame({"budget": ["epochs", "flops"] * 2, "rho": [0.0, 0.0, 0.8, 0.8], "other": [None] * 4})
    found = conditions(Evidence(ABOUT, runs), ("rho", "budget", "other", "absent"))
    assert found == [{"rho": rho, "budget": budget} for rho in (0.0, 0.8) for budget in ("epochs", "flops")]
    assert words(found[3]) == "equal training FLOPs, ρ = 0.8" and title(found[0]) == "Equal epochs, ρ = 0"
    contrast = Contrast("a-b", "a", "b", "linear_top1", 0.01, "A beats B")
    assert len({each.name for each in everywhere([contrast], found)}) == 4


def test_markdown_survives_bars_and_line_ends():
    text = markdown(pandas.DataFrame({"arm": ["a | b\nc"], "value": ["−1.0"]}))
    assert text.splitlines()[-1].startswith("| a \\| b c |") and "-:|" in text.splitlines()[1]


def test_page_blocks(tmp_path):
    page = Page("Title")
    page.text("one", "")
    page.items({"Seeds": "3"})
    page.table(Table(pandas.DataFrame({"arm": ["a"]}), ["<sup>a</sup> why.", "<sup>b</sup> because."]))
    page.details("More", "inside", Table(pandas.DataFrame({"arm": ["b"]})))
    text = page.write(tmp_path / "deep" / "page.md").read_text(encoding="utf-8")
    assert text.startswith("# Title\n\none\n\n- **Seeds:** 3\n\n| arm") and text.endswith("</details>\n")
    assert "<sup>a</sup> why.<br>\n<sup>b</sup> because." in text
    assert "<details>\n<summary>More</summary>\n\ninside\n\n| arm" in text  # a table needs the empty line


def test_standing_is_honest():
    assert standing(evidence()) == "Complete: 6 of 6 runs have finished, 3 seeds in every arm and setting."
    partial = standing(evidence((0.6, 0.61), "failed", "x", done=5))
    assert partial == "**Partial page:** 2 of 3 seeds are complete; 5 of 6 runs have finished (1 failed)."


def test_words_of_options_and_machines():
    options = {"queue_size": 64, "scale": [0.2, 1.0], "on": True, "no": None, "map": {"_target_": "a.B", "depth": 2}}
    assert option_words(options) == "queue size 64, scale 0.2 / 1, on yes, map `a.B` (depth 2)"
    line = environment_line({"cpu": "CPU", "cores": 2, "git": {"commit": "0123456789abcdef", "dirty": True}})
    assert line == "CPU; 2 cores; commit `0123456789ab` with uncommitted changes"
    assert environment_line({}) == "no git checkout"


def test_evidence_comes_back_from_disk(tmp_path):
    before = evidence((0.6, 0.61), "failed", 'why, "quoted" | really')
    save(before, tmp_path)
    after = load(tmp_path, "toy")
    assert after.about == before.about
    pandas.testing.assert_frame_equal(after.runs, before.runs, check_dtype=False)
    (tmp_path / "records" / "toy.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="toy.json' cannot be read"):
        load(tmp_path, "toy")
    with pytest.raises(DataError, match="other.json' cannot be read"):
        load(tmp_path, "other")


def test_index_marks_older_code_and_keeps_smoke_pages_apart(tmp_path):
    current = fresh_fingerprint(["scd.seeds"])
    save(evidence(fingerprint=current).answered("supported", "**Supported:** yes."), tmp_path)
    save(evidence(page="old", done=4).answered("undecided", "**Undecided** whether."), tmp_path)
    save(evidence(page="wiring", meaningful=False, tier="smoke").answered("undecided", "nothing"), tmp_path)
    save(evidence(page="gone", roots=["scd.no_such_module"]), tmp_path)
    (tmp_path / "records" / "broken.json").write_text("{", encoding="utf-8")
    text = write_index(tmp_path).read_text(encoding="utf-8")
    lines = {line.split("]")[0].lstrip("| ["): line for line in text.splitlines() if line.startswith("| [")}
    assert "| supported |" in lines["toy"] and lines["toy"].rstrip("| ").endswith("current")
    assert "**stale**" in lines["old"] and "4 of 6 runs, 3 seeds (partial)" in lines["old"]
    assert "**stale**" in lines["gone"] and "none yet" in lines["gone"]
    assert text.index("## Wiring only") < text.index("[wiring]") and "nothing" not in text.split("## Wiring only")[0]
    assert "**broken.json is left out:**" in text
    assert not is_stale(json.loads((tmp_path / "records" / "toy.json").read_text(encoding="utf-8")))


def test_index_without_pages(tmp_path):
    assert "There is no page yet." in write_index(tmp_path / "reports").read_text(encoding="utf-8")
