"""Results: what is gathered from a plan, and their way to the disk and back."""

import json
from dataclasses import replace

import pandas
import pytest
from synthetic_results import results

from scd.errors import DataError
from scd.evaluation.metric import SHARE, Metric
from studies import multicrop
from studies.suite.analysis.results import assemble, difference, gather, load, save
from studies.suite.pages import sections
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.resolve import Planned
from studies.suite.planning.study import MEASUREMENT, Arm, Contrast, Progress, RunSpec, Study

TOP1 = Metric("top-1", SHARE, "higher", "accuracy")
FOUND = Metric("found", SHARE, "higher", "derived by the study")
KNN, LINEAR = {"name": "knn", "_target_": "scd.evaluation.knn.KNN"}, {"name": "linear", "_target_": "x.Linear"}


class Settings:
    """What ``assemble`` takes from the settings of a command line."""

    page, tier, meaningful, data, seeds, axes, command = "", "cpu", True, "shapes", (0, 1), {"rho": [0.0]}, "a command"
    departures = {"scale": "everything is small"}

    def configure(self, arm, seed):
        return {"training": {"budget": {"unit": "epochs", "value": 4}}}


class Spec(RunSpec):
    """A spec whose identity is its labels."""

    @property
    def id(self):
        return f"{self.labels['arm']}{self.labels['seed']}"


def spec(arm, seed, steps=10, protocols=(KNN,), **config):
    whole = {
        "seed": seed, "seed_of": {}, "training": {"budget": {"unit": "steps", "value": steps}, "batch_size": 8},
        "evaluation": {"protocols": list(protocols)}, "method": {"_target_": "m.M", "dim": 4}, "wrapper": None,
    }  # fmt: skip
    return Spec({**whole, **config}, {"arm": arm, "seed": seed})


ARMS = tuple(Arm(name, name.upper(), {}, "", "") for name in ("random", "moco", "scd"))
CONTRAST = Contrast("scd-moco", "scd", "moco", "top1", 0.01, "a claim")
STUDY = Study(
    "toy", ("R0-a",), "?", "A toy", ARMS, (CONTRAST,), (), CONTRAST.name, list, list, metrics={"found": FOUND}
)
PLAN = [
    spec("random", 0, 0), spec("moco", 0), spec("scd", 0, protocols=(KNN, LINEAR), wrapper={"_target_": "scd.SCD"}),
    spec("moco", 1), spec("scd", 1, method={"_target_": "m.M", "dim": 8}),
]  # fmt: skip


def assembled(progress=Progress(5, 2, {"scd0": "out of memory"}), plan=PLAN):  # noqa: B008 - frozen
    numbers = {"moco0": {"top1": 0.5, "steps": 10}, "moco1": {"top1": 0.6, "arm": "not a label"}}
    return assemble(STUDY, Settings(), plan, numbers, {"top1": TOP1}, {"name": "shapes"}, progress)


def test_every_planned_run_has_a_row_with_its_status():
    found = assembled()
    assert found.runs["status"].tolist() == ["missing", "done", "failed", "done", "missing"]
    assert found.runs["arm"].tolist() == ["random", "moco", "scd", "moco", "scd"]
    assert found.runs["reason"].tolist() == ["", "", "out of memory", "", ""]
    assert found.finished["top1"].tolist() == [0.5, 0.6] and found.labels == ["arm", "seed"]
    assert found.levels("seed") == [0, 1] and len(found.where(seed=1).runs) == 2 and len(found.of("moco")) == 2
    assert found.page == "toy" and found.about["planned"] == 5 and "failed" not in found.about


def test_deviations_are_those_of_every_run_and_those_of_the_trained_methods():
    """A sentence that two methods declare stands once, with both names; what is not trained departs from nothing."""
    declared = {"A": {"norm": "own norm", "views": "own views"}}
    plan = [replace(PLAN[0], deviations={"Z": {"norm": "never trained"}}), replace(PLAN[1], deviations=declared)]
    plan.append(replace(PLAN[2], deviations={"B": {"norm": "own norm"}, **declared}))
    found = assembled(plan=plan)
    assert found.about["deviations"] == {"everything is small": [], "own norm": ["A", "B"], "own views": ["A"]}
    lines = sections.deviations(replace(STUDY, deviations=("of the study",)), found)
    assert lines == ["of the study", "everything is small", "A, B: own norm", "A: own views"]


def test_definitions_come_from_the_protocols_and_from_the_study():
    found = assembled()
    assert found.metrics == {"top1": TOP1, "found": FOUND} and found.metric("top1") == TOP1
    assert found.metric("other").label == "other" and found.has("top1") and not found.has("found")
    more = found.with_runs(found.runs, {"third": TOP1})
    assert set(more.metrics) == {"top1", "found", "third"}


def test_settings_are_those_of_the_first_trained_arm_and_what_others_change():
    about = assembled().about
    assert about["base"]["training"] == {"budget": {"unit": "epochs", "value": 4}, "batch_size": 8}
    assert about["overrides"] == {
        "random": {"training": {"budget": {"value": 0}}},
        "scd": {"evaluation": {"protocols": [KNN, LINEAR]}, "wrapper": {"_target_": "scd.SCD"}},
    }
    assert about["protocols"] == [KNN, LINEAR]
    assert difference({"a": {"_target_": "x", "b": 1}}, {"a": {"_target_": "y", "c": 2}}) == {
        "a": {"_target_": "y", "c": 2}
    }


def test_a_study_of_measurements_has_no_training_settings():
    measured = Spec({"measurement": "m.m"}, {"arm": "moco", "seed": 0}, kind=MEASUREMENT)
    about = assembled(Progress(1, 0), [measured]).about
    assert (about["base"], about["overrides"], about["protocols"]) == ({}, {}, [])


def test_readings_and_pools_of_the_study_are_kept():
    about = assembled().about
    assert about["looks"] == list(STUDY.looks) and about["pools"] == dict.fromkeys(("random", "moco", "scd"), "arms")


def test_results_come_back_from_disk(tmp_path):
    before = results((0.6, 0.61), "failed", 'why, "quoted" | really')
    save(before, tmp_path)
    after = load(tmp_path, "toy")
    assert after.about == before.about and after.metrics == before.metrics
    pandas.testing.assert_frame_equal(after.runs, before.runs, check_dtype=False)
    assert json.loads((tmp_path / "records" / "toy.json").read_text(encoding="utf-8"))["metrics"]["linear_top1"]
    (tmp_path / "records" / "toy.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="toy.json' cannot be read"):
        load(tmp_path, "toy")
    with pytest.raises(DataError, match="other.json' cannot be read"):
        load(tmp_path, "other")


# ---------------------------------------------------------------- from the store


class Records:
    """A store with the records of some runs: their training, and the evaluations of some protocols."""

    def __init__(self, folder, evaluated, failures=()):
        self.folder_of = folder
        self.evaluated = evaluated
        self.failures = dict(failures)
        self.evaluations = self

    def folder(self, evaluation):
        return self.folder_of / evaluation

    def record(self, spec, further=()):
        if spec.labels["arm"] not in self.evaluated:
            return None
        found = {**dict.fromkeys(further), **spec.with_protocols(spec.config["evaluation"]["protocols"]).evaluations}
        scored = set(self.evaluated[spec.labels["arm"]])
        usual = resolve_settings("multicrop", ["tier=smoke"]).protocol("linear")
        known = {**spec.with_protocols([usual]).evaluations, **spec.evaluations}
        names = {known[name]["name"] for name in found if name in known}
        return {"steps": 10, **{f"{name}_top1": 0.5 for name in names & scored}}

    def status(self, spec):
        return "done" if "knn" in self.evaluated.get(spec.labels["arm"], ()) else "interrupted"

    def failure(self, spec):
        return self.failures.get(spec.labels["arm"])

    def numerics(self, spec, further=()):
        return "aaaa"

    def environment(self, spec):
        return {"cpu": "a CPU"} if spec.labels["arm"] in self.evaluated else None

    def seconds(self, spec):
        return 1.5


def test_numbers_of_usual_protocols_stay_beside_those_asked_for(tmp_path):
    words = ["tier=smoke", "seeds=1", "arms=moco,scd,local_crops,random", "axes.rho=[0.0]", "axes.budgets=[epochs]"]
    settings = resolve_settings("multicrop", [*words, "evaluation.protocols=[knn]"])
    planned = [Planned(spec, 10) for spec in multicrop.plan(settings)]
    evaluated = {"moco": ["knn", "linear"], "scd": ["knn"], "local_crops": []}
    store = Records(tmp_path, evaluated, {"local_crops": "knn: out of memory"})
    results = gather(multicrop.STUDY, settings, planned, store)
    rows = {row["arm"]: row for row in results.runs.to_dict("records")}
    assert (rows["moco"]["knn_top1"], rows["moco"]["linear_top1"]) == (0.5, 0.5)
    assert rows["scd"]["knn_top1"] == 0.5 and pandas.isna(rows["scd"]["linear_top1"])
    assert (rows["local_crops"]["status"], rows["local_crops"]["reason"]) == ("done", "knn: out of memory")
    assert rows["random"]["status"] == "missing"
    assert (results.about["planned"], results.about["done"], results.about["seconds"]) == (4, 2, 6.0)
    assert results.about["environments"] == [{"cpu": "a CPU"}] and "scd.scd" in results.about["roots"]
    assert {"knn_top1", "linear_top1", "saliency_iou"} <= set(results.metrics)
    assert results.about["source"]["name"] == "shapes" and len(results.folders[rows["moco"]["run"]]) >= 2
