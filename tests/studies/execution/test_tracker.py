"""Live curves: each step once whatever happens to the record, no influence on ids, and one line for what is missing."""

import csv
import json
import logging
import time
from dataclasses import replace

import pytest
import trained_runs
from stored_runs import planned

from scd.errors import UsageError
from scd.training.state import Stopped
from studies.__main__ import command_of, main, parse
from studies.program import EXIT_USAGE
from studies.suite.execution.pretraining import Runtime
from studies.suite.execution.run import Ending, Execution
from studies.suite.execution.store import Store
from studies.suite.execution.tracker import TRACKERS, Curve, Tracker, check_tracker, lines_of, title_of, tracked
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.identity import EVALUATION, MEASUREMENT, PRETRAINING, reachable
from studies.suite.planning.resolve import resolve
from studies.suite.planning.study import MEASUREMENT as MEASUREMENT_KIND


def line(step, **numbers):
    return json.dumps({"step": step, "epoch": step / 10, "lr": 0.1, "loss": 1 / step, **numbers}) + "\n"


@pytest.fixture
def record(tmp_path):
    return tmp_path / "progress.jsonl"


def rows(folder):
    """The rows of metrics.csv: step -> its numbers."""
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert len({row["step"] for row in found}) == len(found)  # each step once
    return {
        int(row["step"]): {name: float(value) for name, value in row.items() if name != "step" and value}
        for row in found
    }


# ---------------------------------------------------------------- one curve


def test_lines_are_followed_as_they_come(record, tmp_path):
    curve = Curve(record, "csv", tmp_path / "curve")
    assert curve.follow() == 0 and not (tmp_path / "curve").exists()
    record.write_text(line(10))
    assert curve.follow() == 1 and rows(tmp_path / "curve") == {10: {"epoch": 1.0, "lr": 0.1, "loss": 0.1}}
    with record.open("a") as file:
        file.write(line(20) + line(30, map_area=0.5) + '{"step": 40, "lo')
    assert curve.follow() == 2
    assert rows(tmp_path / "curve")[30] == {"epoch": 3.0, "lr": 0.1, "loss": 1 / 30, "map_area": 0.5}
    record.write_text(line(10) + line(20) + line(30) + line(40)[:-1])  # complete, but for its end
    assert curve.follow() == 0
    record.write_text(line(10) + line(20) + line(30) + line(40))
    assert curve.follow() == 1 and list(rows(tmp_path / "curve")) == [10, 20, 30, 40]
    curve.close()


def test_a_resumed_run_has_each_step_once(record, tmp_path):
    record.write_text(line(10) + line(20) + line(30))
    curve = Curve(record, "csv", tmp_path / "curve")
    curve.follow()
    record.write_text(line(10))  # it goes on from the checkpoint of step 10
    assert curve.follow() == 0
    record.write_text(line(10) + line(20))
    assert curve.follow() == 0
    record.write_text(line(10) + line(20) + line(30) + line(40))
    assert curve.follow() == 1
    curve.close()
    assert list(rows(tmp_path / "curve")) == [10, 20, 30, 40]


def test_a_further_command_writes_the_curve_afresh(record, tmp_path, recwarn):
    for steps in ((10, 20), (10, 20, 30)):
        record.write_text("".join(map(line, steps)))
        curve = Curve(record, "csv", tmp_path / "curve")
        curve.follow()
        curve.close()
        assert tuple(rows(tmp_path / "curve")) == steps
    assert not [each for each in recwarn if "will be deleted" in str(each.message)]


def test_only_numbers_are_handed_on(record, tmp_path):
    record.write_text(line(10, text="a", nothing=None, yes=True, infinite=float("inf")))
    curve = Curve(record, "csv", tmp_path / "curve")
    curve.follow()
    assert set(rows(tmp_path / "curve")[10]) == {"epoch", "lr", "loss", "infinite"}


def test_a_record_without_a_whole_line_has_none(record):
    record.write_text("")
    assert lines_of(record) == []
    record.write_text("{")
    assert lines_of(record) == []


# ---------------------------------------------------------------- while runs train


@pytest.fixture
def spec():
    """A run of a plan, which need not be trained."""
    return planned()[0]


def test_runs_are_followed_until_the_end_of_the_block(spec, tmp_path):
    store, other = Store(tmp_path), replace(spec, kind=MEASUREMENT_KIND)
    store.folder(spec).mkdir(parents=True)
    record = store.folder(spec) / "progress.jsonl"
    with tracked("csv", {"a": spec, "b": other}, store, "multicrop-smoke", seconds=0.01) as folder:
        assert folder == tmp_path / "tracker" / "csv" / "multicrop-smoke"
        record.write_text(line(10))
        deadline = time.monotonic() + 30
        while not (folder / title_of(spec) / "metrics.csv").exists():  # live, not at the end
            assert time.monotonic() < deadline
            time.sleep(0.01)
        record.write_text(line(10) + line(20))
    assert [path.name for path in folder.iterdir()] == [title_of(spec)]
    assert list(rows(folder / title_of(spec))) == [10, 20]


def test_what_came_after_the_last_look_is_not_lost(tmp_path, record):
    with Tracker([Curve(record, "csv", tmp_path / "curve")], seconds=3600):
        time.sleep(0.05)
        record.write_text(line(10))
    assert list(rows(tmp_path / "curve")) == [10]


def test_an_interrupted_block_keeps_its_curve(tmp_path, record):
    record.write_text(line(10))
    with pytest.raises(KeyboardInterrupt), Tracker([Curve(record, "csv", tmp_path / "curve")], seconds=3600):
        raise KeyboardInterrupt
    assert list(rows(tmp_path / "curve")) == [10]


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_a_tracker_that_fails_says_so_once_and_the_runs_go_on(tmp_path, record, caplog):
    record.write_text(line(10))
    (tmp_path / "curve").write_text("a file in the place of the folder")
    with caplog.at_level(logging.WARNING), Tracker([Curve(record, "csv", tmp_path / "curve")], seconds=0.001):
        time.sleep(0.05)
    (said,) = [each.getMessage() for each in caplog.records if "tracker" in each.getMessage()]
    assert said.startswith("the tracker has stopped (") and said.endswith("; the runs go on")


def test_without_a_tracker_nothing_is_written(spec, tmp_path):
    with tracked(None, {"a": spec}, Store(tmp_path), "page") as folder:
        assert folder is None
    assert not (tmp_path / "tracker").exists()


def test_a_run_that_was_stopped_and_resumed_has_each_step_once(tmp_path):
    settings = resolve_settings("multicrop", [*trained_runs.WORDS, "training.log_every=1"])
    whole = resolve([settings.spec(trained_runs.SCD, seed=0).with_protocols([])], check=False)[0].spec
    store = Store(tmp_path)
    with pytest.raises(Stopped), tracked("csv", {"a": whole}, store, "page"):
        Execution(whole, store, Runtime(stop=lambda: True)).perform()
    assert list(rows(tmp_path / "tracker" / "csv" / "page" / title_of(whole))) == [1]
    with tracked("csv", {"a": whole}, store, "page") as folder:
        assert Execution(whole, store, Runtime()).perform().ending is Ending.DONE
    found = rows(folder / title_of(whole))
    assert list(found) == [1, 2, 3, 4, 5]
    expected = {each["step"]: each["loss"] for each in lines_of(store.folder(whole) / "progress.jsonl")}
    assert {step: numbers["loss"] for step, numbers in found.items()} == expected


def test_a_curve_is_called_after_its_arm_its_seed_and_its_id(spec):
    assert title_of(spec) == f"moco-seed0-{spec.id}"
    assert title_of(replace(spec, labels={"arm": "SCD, a/b", "seed": 2})) == f"SCD_a_b-seed2-{spec.id}"


# ---------------------------------------------------------------- ids, words, and the packages


def test_a_tracker_is_no_part_of_a_runs_identity():
    for entries in (PRETRAINING, EVALUATION, MEASUREMENT):
        assert not [module for module in reachable(entries) if "tracker" in module or module == "studies.__main__"]
    options = parse(["multicrop", "tier=smoke", "tracker=csv"])
    assert options.tracker == "csv" and options.words == ["tier=smoke"]
    assert command_of(options) == "python -m studies multicrop tier=smoke"
    assert parse(["multicrop", "tier=smoke"]).tracker is None and parse(["multicrop", "tracker=null"]).tracker is None


def test_an_unknown_tracker_is_one_line(tmp_path, capsys):
    words = ["multicrop", "tier=smoke", "tracker=wandb", "--store", str(tmp_path / "runs"), "--out", str(tmp_path)]
    assert main(words) == EXIT_USAGE
    said = capsys.readouterr().err
    assert said == "error: unknown tracker 'wandb'; valid: csv, tensorboard\n"
    assert not (tmp_path / "runs").exists()


def test_a_missing_package_is_one_line(monkeypatch):
    from lightning_fabric.loggers import tensorboard

    monkeypatch.setattr(tensorboard, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(tensorboard, "_TENSORBOARDX_AVAILABLE", False)
    with pytest.raises(UsageError, match=r"^tracker=tensorboard needs the package tensorboard: .* -m pip install tens"):
        check_tracker("tensorboard")
    for kind in (None, "csv"):
        check_tracker(kind)
    assert TRACKERS == ("csv", "tensorboard")


def test_tensorboard_shows_each_step_once(record, tmp_path):
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in ((10, 20), (10, 20, 30)):
        record.write_text("".join(map(line, steps)))
        curve = Curve(record, "tensorboard", tmp_path / "curve")
        assert curve.follow() == len(steps) and curve.follow() == 0
        curve.close()
        (_,) = (tmp_path / "curve").glob("events.out.tfevents.*")
        shown = EventAccumulator(str(tmp_path / "curve")).Reload()
        assert set(shown.Tags()["scalars"]) == {"epoch", "lr", "loss"}
        found = {each.step: each.value for each in shown.Scalars("loss")}
        assert list(found) == list(steps) and len(shown.Scalars("loss")) == len(steps)
        assert found[20] == pytest.approx(0.05)


def test_a_study_with_a_tracker_has_the_curves_of_its_runs(tmp_path, capsys, no_figures):
    words = ["multicrop", "tier=smoke", "arms=moco", "seeds=1", "axes.budgets=[epochs]", "axes.rho=[0.8]",
             "evaluation.protocols=[knn]", "sizes.generated_train=80", "sizes.generated_test=40", 
             "training.log_every=2", "launcher.workers=0",
             "--store", str(tmp_path / "runs"), "--out", str(tmp_path / "pages")]  # fmt: skip
    assert main([*words, "tracker=csv"]) == 0
    (folder,) = (tmp_path / "runs" / "tracker" / "csv").iterdir()
    assert f"curves of the training: {folder}" in capsys.readouterr().err
    (run,) = [path for path in (tmp_path / "runs" / "pretraining").iterdir() if not path.name.startswith(".")]
    (curve,) = folder.iterdir()
    assert curve.name == f"moco-seed0-{run.name}"
    expected = {each["step"]: each for each in lines_of(run / "progress.jsonl")}
    assert rows(curve) == {step: {key: pytest.approx(value) for key, value in each.items() if key != "step"}
                           for step, each in expected.items()}  # fmt: skip
    assert len(expected) >= 2
    page = next((tmp_path / "pages").glob("multicrop*.md")).read_text(encoding="utf-8")
    assert "tracker" not in page
