"""The cost profile: which arms it has, one counted row, and the page from hand-made evidence."""

import json
from types import SimpleNamespace

import pandas
import pytest

from scd.profiling.parts import ADDED, HEADS, LOSS, ONLINE, PARTS, TARGET
from scd.profiling.steptime import PHASES
from studies.cost_profile import __main__ as command
from studies.cost_profile import joined, page
from studies.cost_profile.arms import WITH_A_SECOND_LOSS, arms, settings_of
from studies.cost_profile.counted import count_arm
from studies.suite.analysis.results import Evidence, save
from studies.suite.planning.settings import choices

ARMS = {arm.name: arm for arm in arms()}


def test_every_method_alone_and_wrapped():
    for method in choices("method"):
        assert {method, f"scd_{method}"} <= set(ARMS)
        assert ARMS[f"scd_{method}"].host == method
    assert {f"lewel_{method}" for method in WITH_A_SECOND_LOSS} | {"densecl_moco", "dino_local"} <= set(ARMS)
    assert "lewel_dino" not in ARMS  # DINO's loss is one over prototypes, not one that a second vector could have
    assert {"moco_same_rectangle", "moco_random", "moco_local", "scd_constant_moco"} <= set(ARMS)


@pytest.mark.parametrize("name", ["byol", "scd_moco", "moco_local"])
def test_a_counted_row(name):
    row = count_arm(ARMS[name], ("tier=smoke",))
    assert row["training"] == pytest.approx(sum(row[f"part: {part}"] for part in PARTS))
    assert row["training"] > row["forward"] > 0 and row["activations"] > 0
    assert row["online"] == {"byol": 2, "scd_moco": 1, "moco_local": 5}[name]
    settings = settings_of(ARMS[name], ("tier=smoke",))
    assert settings.base["views"]["recipe"] == ("byol" if name == "byol" else "mocov2")


def test_a_method_that_cannot_be_built_has_a_row_that_says_why():
    row = count_arm(ARMS["moco"], ("tier=smoke", "backbone.name=timm/resnet_of_nobody"))
    assert "unknown timm backbone 'resnet_of_nobody'" in row["error"] and "training" not in row


def counted(arm, label, host, training, added=0.0, **more):
    parts = {ONLINE: training - added, TARGET: 0, HEADS: 0, LOSS: 0, ADDED: added}
    return {
        "arm": arm, "label": label, "host": host, "forward": training / 2, "training": training, "online": 1,
        "target": 1, "full_size": 2, "activations": 5e6, "parameters_trained": 23e6, "parameters_momentum": 23e6,
        "parameters_inference": 22e6, **{f"part: {part}": value for part, value in parts.items()}, **more,
    }  # fmt: skip


def measured(arm, label, ratios, **more):
    return {
        "kind": "arm", "arm": arm, "label": label, "host": "moco", "to_moco": ratios, "to_host": ratios,
        "seconds": [0.04], "images_per_second": 800.0, "phases": dict.fromkeys(PHASES, 0.004), "overhead": -0.01,
        "memory": 50_000_000, "memory_what": "resident set", "joules": None, "joules_why": "no GPU", "side": 24,
        "batch_size": 32, "backbone": {"name": "resnet_tiny"}, "machine": {"threads": 1}, **more,
    }  # fmt: skip


@pytest.fixture
def evidence():
    rows = [
        counted("moco", "MoCo", "moco", 32e9),
        counted("scd_moco", "SCD on MoCo", "moco", 33e9, 0.9e9),
        {"arm": "lewel_moco", "label": "LEWEL on MoCo", "host": "moco", "error": "no map here."},
    ]
    measures = [
        measured("moco", "MoCo", [1.0, 1.0, 1.0]),
        measured("scd_moco", "SCD on MoCo", [1.06, 1.10, 1.08], memory=None),
        {"kind": "variant", "variant": "memory layout: NCHW", "ratios": [1.2, 1.3, 1.4]},
        {"kind": "variant", "variant": "compiled", "error": "no compiler was found."},
        {"kind": "variant", "variant": "compiled, too", "ratios": [0.5], "compile_seconds": 30, "pays_after": 1500.0},
        {"kind": "curve", "curve": "image side (px)", "points": [{"x": 16, "ratios": [1.2, 1.2, 1.3]}]},
    ]
    about = {
        "page": "cost-profile", "tier": "cpu", "command": "python -m studies.cost_profile", "not_measured": "",
        "answer": page.answer({"resnet50": rows}, measures), "fingerprint": "f" * 16, "roots": ["scd.scd"],
        "environments": [{"cores": 2}],
    }  # fmt: skip
    curves = [{"curve": "image side (px), ResNet-50", "x": 64, "added": 0.015},
              {"curve": "image side (px), ResNet-50", "x": 128, "error": "too large"}]  # fmt: skip
    return {**about, "counted": {"resnet50": rows, "vit_small": rows}, "curves": curves, "measured": measures}


def test_the_answer_has_both_numbers_and_the_reason(evidence):
    answer = evidence["answer"]
    assert "SCD adds 3.1 % to the training FLOPs of MoCo at ResNet-50 and 224 px (33 against 32 GFLOP" in answer
    assert "8.0 % [7.0, 9.0] to its step time as measured on this machine (24 px, batch 32;" in answer
    assert "no image goes through a backbone once more" in answer and "2.7 % of SCD's own FLOPs" in answer
    assert "is not measured" in page.answer(evidence["counted"], [])
    broken = {"resnet50": [{"arm": "scd_moco", "error": "out of meta"}]}
    assert page.answer(broken, []) == "**Not counted:** out of meta."


def test_the_page_says_why_a_number_is_missing_and_never_writes_0_for_it(evidence, tmp_path):
    text = page.compose(evidence, tmp_path).markdown
    assert text.startswith("# What does SCD cost, and why?\n\n> **Question R4-d.**")
    assert "cannot be built: no map here." in text
    assert "the system does not tell the peak of a process." in text
    assert "not measured<sup>" in text and "no GPU." in text
    assert "tried, does not run here: no compiler was found." in text
    assert "compiling took 30 s, which is paid back after 1,500 steps; not used by default." in text
    assert "1.031×" in text and "1.30 [1.25, 1.35]" in text and "−1.0 %" in text
    assert "No study has records yet" in text
    assert (tmp_path / "figures" / "cost-profile-counted.png").is_file()
    assert (tmp_path / "figures" / "cost-profile-measured.png").is_file()


def test_without_measuring_the_page_says_so(evidence, tmp_path):
    evidence["measured"], evidence["not_measured"] = [], "--count-only was given"
    text = page.compose(evidence, tmp_path).markdown
    assert "Not measured: --count-only was given." in text and "What makes it fast" not in text


def runs(**values):
    rows = []
    for arm, budget, numbers, flops in values["rows"]:
        rows += [
            {"arm": arm, "budget": budget, "seed": seed, "linear_top1": number, "total_flops": flops, "status": "done"}
            for seed, number in enumerate(numbers)
        ]
    return SimpleNamespace(about={"study": "multicrop", "data": "shapes"}, finished=pandas.DataFrame(rows))


def test_accuracy_against_cost_is_read_off_both_budgets():
    evidence = runs(rows=[
        ("moco", "epochs", (0.40, 0.42), 100.0), ("moco", "flops", (0.40, 0.42), 100.0),
        ("scd", "epochs", (0.44, 0.45), 110.0), ("scd", "flops", (0.43, 0.44), 100.0),
        ("local_crops", "epochs", (0.42, 0.43), 180.0), ("local_crops", "flops", (0.30, 0.31), 99.0),
        ("random_crops", "epochs", (0.20, 0.21), 200.0), ("random_crops", "flops", (0.2, 0.2), 100.0),
    ])  # fmt: skip
    table = joined.joined_table(evidence, {}).frame.set_index("arm")
    reach = table["FLOPs to reach MoCo's mean / MoCo's"]
    assert reach["MoCo"] == "1.00×" and reach["SCD"] == "≤ 1.00×"
    assert reach["MoCo + local crops"] == "≤ 1.80×" and reach["MoCo + random crops"] == "> 2.00×"
    assert table["FLOPs at equal epochs / MoCo's"]["SCD"] == "1.10×"
    assert table["gain per 10 % more FLOPs"]["SCD"].startswith("+3.50 [")  # 3.5 points for 10 % more


def test_a_study_with_further_axes_is_joined_at_the_first_setting_of_each(tmp_path):
    rows = [
        {"arm": arm, "budget": "epochs", "seed": seed, "data": "shapes", "scenario": scenario, "rho": rho, "run": "r",
         "linear_top1": base + 0.01 * seed, "total_flops": 100.0, "status": "done", "reason": ""}
        for scenario, base in (("as above", 0.4), ("no clutter", 0.6))
        for rho in (0.0, 0.8)
        for arm in ("moco", "lewel")
        for seed in (0, 1)
    ]  # fmt: skip
    about = {"study": "lewel", "page": "lewel", "meaningful": True, "data": "shapes", "seeds": [0, 1]}
    save(Evidence(about, pandas.DataFrame(rows)), tmp_path)
    found = joined.pages_with_costs(tmp_path)
    settings = joined.settings_found(found[0])
    assert [axis for _, axis in settings] == [{"scenario": "as above", "rho": rho} for rho in (0.0, 0.8)]
    table = joined.joined_table(found[0], settings[1][1]).frame.set_index("arm")
    assert table.iloc[0]["linear top-1 (%), at equal epochs"].startswith("40.5 ±") and len(table) == 2
    assert [heading for heading in table if "at equal" in heading] == [
        "linear top-1 (%), at equal epochs", "FLOPs at equal epochs / MoCo's",
    ]  # fmt: skip
    assert joined.cost_points(found).empty  # one budget alone is no comparison at equal cost
    both = Evidence(about, pandas.concat([found[0].runs, found[0].runs.assign(budget="flops")]))
    points = joined.cost_points([both])
    assert len(points) == 8 and points["value"].max() == pytest.approx(41.0)


def test_wrong_words_are_one_line(capsys):
    assert command.main(["tier=cpuu"]) == 2
    assert "error: unknown tier 'cpuu'; did you mean 'cpu'?" in capsys.readouterr().err


def test_page_only_needs_its_records(tmp_path, capsys):
    assert command.main(["--page-only", "--out", str(tmp_path)]) == 2
    assert "cost-profile.json' cannot be read" in capsys.readouterr().err


def test_a_kept_benchmark_names_no_machine(tmp_path, monkeypatch):
    """The real subprocess is replaced by one that writes a report as pytest-benchmark does."""
    report = {"machine_info": {"node": "somebodys-laptop", "machine": "x86_64"}, "commit_info": {}, "version": "5",
              "datetime": "now", "extra": 1,
              "benchmarks": [{"stats": {"data": [1], "median": 1}, "extra_info": {"kind": "arm"}}]}  # fmt: skip
    script = tmp_path / "writes.py"
    script.write_text(
        "import json, sys\n"
        "path = next(a.partition('=')[2] for a in sys.argv if a.startswith('--benchmark-json'))\n"
        f"open(path, 'w').write({json.dumps(json.dumps(report))})\n"
    )
    real = command.subprocess.Popen
    monkeypatch.setattr(
        command.subprocess, "Popen",
        lambda arguments, **kw: real([arguments[0], str(script), *arguments[3:]], **kw),
    )  # fmt: skip
    rows, why = command.measure((), tmp_path / "benchmarks" / "cost.json")
    kept = json.loads((tmp_path / "benchmarks" / "cost.json").read_text())
    assert rows == [{"kind": "arm"}] and why == ""
    assert kept["machine_info"] == {"machine": "x86_64"} and "data" not in kept["benchmarks"][0]["stats"]
