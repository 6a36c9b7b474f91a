"""The table of the systems that the reviewers name: each has a row, with numbers from pages alone."""

import json

import pandas
import pytest
from answer_pages import save_page

from studies.suite.pages import reread
from studies.systems import named
from studies.systems.named import NAMED, NOT_MEASURED, Costs, systems_of, systems_table
from studies.systems.table import SYSTEMS

NAMES = (
    "SCD-MoCo, asymmetric", "SCD-MoCo, symmetric", "SCD-BYOL", "SCD-DINO", "MoCo v2", "BYOL", "LEWEL", "multi-crop",
    "DINO", "DINOv2", "GroupViT", "CAST", "InsLoc", "MaskContrast", "ContraCAM", "VADeR", "Hierarchical Grouping",
    "ORL", "SoCo", "SlotCon", "Odin", "CrOC", "COMUS", "PointCL", "DenseSiam", "Asym-Siam", "DiLo",
    "Reverse Attention", "Object-aware cropping", "DenseCL", "MAE", "TokenCut", "SGCL", "Demystifying",
    "Divide and Contrast",
)  # fmt: skip


def rows(readings):
    return systems_table(readings).frame.set_index("system")


def test_every_named_system_has_a_row_and_every_built_one_too():
    found = rows({})
    assert tuple(each.name for each in NAMED) == NAMES
    for name in NAMES:
        assert any(row.casefold().startswith(name.casefold()) for row in found.index), name
    assert {f"`{each.name}`" for each in SYSTEMS} <= {arm.split(",")[0] for arm in found["arm"]}
    assert found.index.is_unique


def test_every_system_is_an_arm_or_has_its_role_and_what_is_not_trained_says_so():
    found = rows({})
    assert not (found["role"] == "not in the suite").any()
    row = found.loc["COMUS", ["arm", "difference", "FLOPs", "time"]]
    assert row.tolist() == ["–"] * 4 and "an evaluation" in found.loc["COMUS", "role"]
    assert "captions" in found.loc["GroupViT", "role"] and found.loc["Demystifying", "difference"] == "–"
    assert found.loc["DenseCL", ["difference", "FLOPs", "time"]].tolist() == [NOT_MEASURED] * 3


def test_a_system_that_stands_for_another_is_named_by_both():
    if [each.name for each in systems_of("Odin")] == ["detcon"]:
        assert rows({}).loc["Odin, as DetCon", "arm"] == "`detcon`"
    assert {each.name for each in systems_of("ContraCAM")} == {"contracam_crop", "contracam_mixup"}
    assert [each.name for each in systems_of("SoCo")] == ["soco"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Pages of the studies lewel and significance, the latter stale."""
    folder = tmp_path_factory.mktemp("reports")
    save_page(folder, "lewel", {"scd": 0.05, "lewel": -0.02, "oracle": 0.08})
    save_page(folder, "significance", {"scd": 0.01, "lewel": 0.06, "oracle": 0.08}, is_current=False)
    return folder


def test_a_difference_is_that_of_the_page(out):
    readings = reread.read_pages(out)
    finding, results = readings["lewel"].difference("lewel", "moco")
    values = results.where(**finding.contrast.conditions).runs.set_index(["arm", "seed"])["knn_top1"]
    assert finding.gain.mean == pytest.approx((values["lewel"] - values["moco"]).mean()) and finding.outcome == "worse"
    cell = rows(readings).loc["LEWEL-MoCo", "difference"]
    assert cell.startswith(f"−{abs(100 * finding.gain.mean):.2f} points [") and cell.endswith("[lewel](lewel.md))")
    assert "]: worse (knn top1, the main comparison: " in cell


def test_current_pages_come_before_stale_ones_and_stale_ones_are_marked(out):
    readings = reread.read_pages(out)
    both = (("significance", "lewel", "moco"), ("lewel", "lewel", "moco"))
    assert "(lewel.md)" in named.difference(both, readings)
    assert named.difference(both[:1], readings).endswith("[significance](significance.md), **stale**)")
    assert named.difference((("related", "lewel", "moco"),), readings) == NOT_MEASURED
    assert rows(readings).loc["SCD-MoCo, asymmetric", "difference"].endswith("**stale**)")


def test_arms_without_a_contrast_are_compared_in_the_place_of_the_first(out):
    reading = reread.read_pages(out)["lewel"]
    finding, results = reading.difference("lewel", "random")
    first = reading.contrasts[0][0]
    assert finding.contrast.metric == first.metric and finding.contrast.conditions == first.conditions
    values = results.where(**first.conditions).runs.set_index(["arm", "seed"])[first.metric]
    assert finding.gain.mean == pytest.approx((values["lewel"] - values["random"]).mean())
    assert reading.difference("lewel", "no_such_arm") is None


# -------------------------------------------------------------------- cost

COUNTS = {
    "ResNet-50": {"a": {"training_flops": 3.0}, "b": {"training_flops": 2.0}},
    "ViT": {"c": {"training_flops": 1.0}, "b": {"training_flops": 4.0}},
}
TIMES = {"a": {"time_to_moco": 1.5, "time_to_moco_low": 1.25, "time_to_moco_high": 2.0}}
TIMES["c"] = {f"time_to_host{end}": value for end, value in (("", 2.0), ("_low", 1.0), ("_high", 3.0))}


def test_costs_are_relative_to_what_a_system_is_compared_with():
    costs = Costs(COUNTS, TIMES, {"c": "b"})
    assert costs.of(("a", "b")) == ("1.500×", NOT_MEASURED)
    assert costs.of(("a", "moco")) == (NOT_MEASURED, "1.50× [1.25, 2.00]")
    assert costs.of(("c", "b")) == ("0.250× (ViT)", "2.00× [1.00, 3.00]")
    assert costs.of(("c", "a")) == (NOT_MEASURED, NOT_MEASURED)
    assert costs.of(("a", "a")) == ("1×", "1×") and costs.of(None) == (NOT_MEASURED, NOT_MEASURED)


def test_costs_come_from_the_records_of_the_cost_profile(tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    (records / "cost-profile.json").write_text(json.dumps({"study": "cost_profile", "page": "cost-profile"}))
    kinds = [("moco", "counted", "ResNet-50, 224 px"), ("densecl_moco", "counted", "ResNet-50, 224 px")]
    kinds += [("densecl_moco", "timed", "here")]
    frame = pandas.DataFrame(kinds, columns=["arm", "kind", "setting"]).assign(x=None, seed=0, run="r", status="done")
    frame = frame.assign(reason="", training_flops=[2.0, 3.0, None])
    frame = frame.assign(time_to_moco=[None, None, 2.0], time_to_moco_low=[None, None, 1.5], time_to_moco_high=2.5)
    frame.to_csv(records / "cost-profile.csv", index=False)
    found = rows(reread.read_pages(tmp_path))
    assert found.loc["DenseCL", ["FLOPs", "time"]].tolist() == ["1.500×", "2.00× [1.50, 2.50]"]
    assert found.loc["MoCo v2", ["FLOPs", "time"]].tolist() == ["1×", "1×"]
    (records / "cost-profile.csv").unlink()
    assert rows(reread.read_pages(tmp_path)).loc["DenseCL", "FLOPs"] == NOT_MEASURED
