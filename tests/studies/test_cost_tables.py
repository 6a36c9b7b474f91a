"""The page of the cost profile from hand-made records."""

import pandas
import pytest

from studies import cost_profile, cost_tables
from studies.cost_tables import RESNET50, VIT
from studies.suite.analysis.results import Results, load
from studies.suite.pages.publish import publish

ADDED = "flops: saliency, pooling, triplet"
PHASES = ("views", "backbone, online", "backbone, target", "heads", "loss", "backward", "optimizer", "after_step")


def row(arm, kind, setting="", x=None, status="done", reason="", **numbers):
    labels = {"arm": arm, "kind": kind, "setting": setting, "x": x, "seed": 0, "data": "shapes"}
    return {**labels, "run": f"{arm}{kind}{setting}{x}", "status": status, "reason": reason, **numbers}


def counted(arm, setting, training, added=0.0, **changes):
    numbers = {
        "forward_flops": training / 2, "training_flops": training, "passes_online": 1.0, "passes_target": 1.0,
        "activation_bytes": 5e6, "parameters_trained": 23e6, "parameters_momentum": 23e6, "parameters_backbone": 22e6,
        "flops: backbone, online": training - added, **({ADDED: added} if added else {}),
    }  # fmt: skip
    return row(arm, "counted", setting, **{**numbers, **changes})


def timed(arm, middle=1.0, **numbers):
    ratio = {f"time_to_moco{end}": middle + shift for end, shift in (("", 0), ("_low", -0.01), ("_high", 0.02))}
    phases = {f"phase: {phase}": 0.004 for phase in PHASES}
    own = {"step_seconds": 0.04, "images_per_second": 800.0, "timer_overhead": -0.01, **phases}
    return row(arm, "timed", "resnet_tiny, 24 px, batch 32", **({} if arm == "moco" else ratio), **own, **numbers)


def speed(change, **numbers):
    return row("moco", "speed", change, **numbers)


@pytest.fixture
def records():
    usual = {"time_to_usual": 1.3, "time_to_usual_low": 1.2, "time_to_usual_high": 1.4}
    curve = [("moco", 64, 2e9), ("scd_moco", 64, 2.03e9), ("moco", 128, 8e9), ("scd_moco", 128, 8.06e9)]
    return [
        counted("moco", RESNET50, 32e9),
        counted("scd_moco", RESNET50, 33e9, 0.9e9),
        row("lewel_moco", "counted", RESNET50, status="failed", reason="UsageError: no map here"),
        counted("moco", VIT, 36e9),
        counted("scd_moco", VIT, 36.3e9, 0.3e9),
        timed("moco"),
        timed("scd_moco", 1.08, **{"phase: saliency, pooling, triplet": 0.002}),
        timed("byol", 1.5),
        timed("scd_byol", 1.8, time_to_host=1.2, time_to_host_low=1.15, time_to_host_high=1.25),
        row("moco", "memory", "resnet_tiny, 24 px, batch 32", peak_bytes=50e6),
        row("scd_moco", "memory", "resnet_tiny, 24 px, batch 32", peak_bytes=55e6),
        row("scd_byol", "memory", "resnet_tiny, 24 px, batch 32"),
        *(row(arm, "counted_scaling", "image side (px)", x, training_flops=flops) for arm, x, flops in curve),
        row("scd_moco", "timed_scaling", "image side (px)", 16, time_to_moco=1.2, time_to_moco_low=1.1,
            time_to_moco_high=1.3),
        speed("memory layout: channels first", **usual),
        speed("backbones through torch.compile", **usual, compile_seconds=30.0, pays_after_steps=1500.0),
        speed("memory allocator: the system's default", unavailable="this is not glibc."),
    ]  # fmt: skip


def results_of(records, **about):
    labels = {"moco", "scd_moco", "lewel_moco", "byol", "scd_byol"}
    arms = [arm.name for arm in cost_profile.ARMS if arm.name in labels]
    metrics = {name: metric._asdict() for name, metric in cost_tables.METRICS.items()}
    common = {
        "study": "cost_profile", "questions": ["R4-d"], "page": "cost-profile", "tier": "cpu", "meaningful": True,
        "data": "shapes", "seeds": [0], "arms": arms, "axes": {}, "reference": None, "base": {}, "overrides": {},
        "protocols": [], "metrics": metrics, "source": {}, "command": "", "planned": len(records),
        "done": len(records), "fingerprint": "f" * 16, "roots": [], "environments": [{"cores": 2, "threads": 1}],
        "seconds": 60.0,
    }  # fmt: skip
    return Results({**common, **about}, pandas.DataFrame(records))


@pytest.fixture
def page(records, tmp_path, no_figures):
    return publish(cost_profile.STUDY, results_of(records), tmp_path).read_text(encoding="utf-8")


def test_the_first_screen_has_the_answer_the_additions_and_a_figure(page):
    first = page.split("<details>")[0]
    assert "**SCD adds 3.1 % to the training FLOPs of MoCo at ResNet-50 and 224 px** (33.0 against 32.0 GFLOP" in first
    assert "**and 8.0 % [7.0, 10.0] to its step time on this machine** (resnet_tiny, 24 px, batch 32;" in first
    assert "No image passes through a backbone once more; what is added (saliency, pooling, triplet) is 2.7 %" in first
    lines = {line.split("|")[1].strip(): line for line in first.splitlines() if line.startswith("| ")}
    assert set(lines) == {"arm", "SCD on MoCo", "LEWEL on MoCo", "SCD on BYOL"}
    assert "1.031×" in lines["SCD on MoCo"] and "1.008×" in lines["SCD on MoCo"] and "1.100×" in lines["SCD on MoCo"]
    assert "1.20 [1.15, 1.25]" in lines["SCD on BYOL"] and "–<sup>" in lines["SCD on BYOL"]
    assert first.count("\n![") == 1 and "figures/cost-profile-added.png" in first


def test_numbers_that_are_missing_have_a_reason_and_are_never_0(page):
    assert "failed: UsageError: no map here." in page
    assert "another backbone than MoCo's" not in page and "the reference itself." in page
    assert "not measured: no GPU whose counters can be read." in page
    assert "does not run here: this is not glibc." in page
    assert "compiling took 30 s, which is paid back after 1,500 steps; not used." in page
    assert "No study has records yet" in page
    assert "−1.0 %" in page and "1.30 [1.20, 1.40]" in page


def test_curves_are_in_percent_of_moco(records):
    results = results_of(records)
    counted_points = list(cost_tables.curve_points(results, "counted"))
    assert [(point["x"], round(point["value"], 6)) for point in counted_points] == [(64, 1.5), (128, 0.75)]
    (point,) = cost_tables.curve_points(results, "measured")
    assert [round(point[name], 6) for name in ("value", "low", "high")] == [20, 10, 30]
    assert cost_tables.point_text(point) == "20.00 [10.00, 30.00]"
    assert cost_tables.point_text({"value": -0.5, "low": -0.5, "high": -0.5}) == "−0.50"


def test_only_counted_numbers_make_a_page_that_says_so(records, tmp_path, no_figures):
    kept = [each for each in records if each["kind"].startswith("counted")]
    results = results_of(kept)
    text = publish(cost_profile.STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert "Its step time on this machine is not measured yet." in text and "No step was timed yet." in text
    assert load(tmp_path, "cost-profile").about["outcome"] == "counted"


def test_nothing_measured_yet_is_a_page_too(tmp_path, no_figures):
    records = [row("moco", "counted", RESNET50, status="missing"), row("scd_moco", "timed", status="missing")]
    text = publish(cost_profile.STUDY, results_of(records, done=0), tmp_path).read_text(encoding="utf-8")
    assert "**Not counted yet.**" in text and "0 of 2 runs have finished" in text


def test_more_full_size_images_are_counted_as_such(records):
    scd = counted("scd_moco", RESNET50, 49e9, 0.9e9, passes_online=2.0)
    results = results_of([records[0], scd])
    assert "1 more images of full size pass through a backbone; what is added" in cost_tables.answer(results)


def test_the_records_beside_a_page_write_it_again(records, tmp_path, no_figures):
    path = publish(cost_profile.STUDY, results_of(records), tmp_path)
    first = path.read_text(encoding="utf-8")
    publish(cost_profile.STUDY, load(tmp_path, "cost-profile"), tmp_path)
    assert path.read_text(encoding="utf-8") == first
