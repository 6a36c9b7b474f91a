"""The store: statuses, locks between real processes, corruption, full disks."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from full_disk import FullDisk

from scd import atomic
from scd.atomic import DiskFull
from studies.suite.execution import store as store_module
from studies.suite.execution.store import Records, Status, Store

RUN = "0123456789abcdef"
PREAMBLE = "import sys, time, os; sys.path.insert(0, {root!r}); from studies.suite.execution.store import Records\n"
ROOT = Path(store_module.__file__).resolve().parents[3]


def finish(store, run=RUN, **numbers):
    with store.claim(run) as folder:
        assert folder is not None
        store.begin(run, {"seed": 0})
        store.finish(run, {"linear_top1": 0.5, **numbers}, {"python": "3"})


def script(tmp_path, body):
    """A real process that runs ``body`` with ``store`` at hand."""
    text = PREAMBLE.format(root=str(ROOT)) + f"store = Records({str(tmp_path)!r})\n" + body
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)


def test_a_run_goes_from_missing_to_done(tmp_path):
    store = Records(tmp_path / "deep" / "runs")
    assert store.status(RUN) is Status.MISSING
    with store.claim(RUN) as folder:
        store.begin(RUN, {"seed": 3})
        assert store.status(RUN) is Status.RUNNING
        assert json.loads((folder / "config.json").read_text()) == {"seed": 3}
    assert store.status(RUN) is Status.INTERRUPTED
    assert store.record(RUN) is None
    finish(store, total_flops=1.5)
    assert store.status(RUN) is Status.DONE
    assert store.record(RUN) == {"linear_top1": 0.5, "total_flops": 1.5}
    assert store.environment(RUN) == {"python": "3"}
    assert list(store.finished()) == [store.record(RUN)]


def test_a_record_is_never_empty(tmp_path, caplog):
    """One of an older version counts as corrupt, and its run is done again."""
    store = Records(tmp_path)
    with store.claim(RUN):
        store.begin(RUN, {})
        with pytest.raises(ValueError, match=f"the record of run {RUN} is empty"):
            store.finish(RUN, {}, {})
    assert store.status(RUN) is Status.INTERRUPTED
    (store.folder(RUN) / "record.json").write_text("{}")
    (store.folder(RUN) / "done").write_text(hashlib.sha256(b"{}").hexdigest())
    assert store.status(RUN) is Status.CORRUPT and store.record(RUN) is None and not list(store.finished())
    finish(store)
    assert store.status(RUN) is Status.DONE and "set aside" in caplog.text


def test_a_finished_run_cannot_be_claimed_again(tmp_path):
    store = Records(tmp_path)
    finish(store)
    with store.claim(RUN) as folder:
        assert folder is None


def test_a_failed_run_tells_why_and_is_tried_again(tmp_path):
    store = Records(tmp_path)
    with store.claim(RUN):
        try:
            raise ValueError("the loss is nan")
        except ValueError as error:
            store.fail(RUN, "ValueError: the loss is nan", error)
    assert store.status(RUN) is Status.FAILED
    assert store.failure(RUN) == "ValueError: the loss is nan"
    assert "test_store.py" in json.loads((tmp_path / RUN / "failure.json").read_text())["traceback"]
    finish(store)
    assert store.status(RUN) is Status.DONE
    assert store.failure(RUN) is None


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "empty-done"])
def test_a_corrupt_record_is_set_aside_said_so_and_run_again(tmp_path, caplog, damage):
    store = Records(tmp_path)
    finish(store)
    record, done = tmp_path / RUN / "record.json", tmp_path / RUN / "done"
    if damage == "truncate":
        record.write_text(record.read_text()[:-4])
    elif damage == "flip":
        record.write_text(record.read_text().replace("0.5", "0.9"))
    elif damage == "remove":
        record.unlink()
    else:
        done.write_text("")
    assert store.status(RUN) is Status.CORRUPT
    assert store.record(RUN) is None
    assert not list(store.finished())
    with caplog.at_level(logging.WARNING):
        finish(store, linear_top1=0.7)
    assert RUN in caplog.text and "does not match its checksum; set aside" in caplog.text
    assert (tmp_path / RUN / "done.corrupt-1").exists()
    assert (tmp_path / RUN / "record.json.corrupt-1").exists() is (damage != "remove")
    assert store.record(RUN)["linear_top1"] == 0.7


def test_two_processes_never_do_the_same_run(tmp_path):
    body = """
runs = [f"{i:016x}" for i in range(40)]
for run in runs:
    with store.claim(run) as folder:
        if folder is not None:
            store.begin(run, {"seed": 0})
            with open(folder / "executions", "a") as file:
                file.write(f"{os.getpid()}\\n")
            time.sleep(0.005)
            store.finish(run, {"value": run}, {})
            print(run)
"""
    processes = [script(tmp_path, body) for _ in range(3)]
    done = [process.communicate(timeout=60)[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert sorted(sum(done, [])) == [f"{i:016x}" for i in range(40)]
    for i in range(40):
        assert len((tmp_path / f"{i:016x}" / "executions").read_text().split()) == 1
        assert Records(tmp_path).record(f"{i:016x}") == {"value": f"{i:016x}"}


def test_a_killed_process_leaves_an_interrupted_run_that_can_be_claimed(tmp_path):
    body = f"""
with store.claim({RUN!r}) as folder:
    store.begin({RUN!r}, {{"seed": 0}})
    (folder / ".writing-abc").write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""
    store, process = Records(tmp_path), script(tmp_path, body)
    assert process.stdout.readline() == "held\n"
    assert store.status(RUN) is Status.RUNNING
    with store.claim(RUN) as folder:
        assert folder is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert store.status(RUN) is Status.INTERRUPTED
    finish(store)
    assert store.status(RUN) is Status.DONE
    assert not list((tmp_path / RUN).glob(".writing-*"))


def test_a_status_query_never_makes_a_claim_fail(tmp_path):
    store, deadline = Records(tmp_path), time.monotonic() + 1.0
    process = script(tmp_path, f"print('go', flush=True)\nfor _ in range(200000): store.status({RUN!r})\n")
    process.stdout.readline()
    try:
        while time.monotonic() < deadline:
            with store.claim(RUN) as folder:
                assert folder is not None
    finally:
        process.kill()
        process.wait()


def test_a_full_disk_leaves_finished_runs_finished_and_no_partial_file(tmp_path, monkeypatch):
    store = Records(tmp_path)
    finish(store)
    with store.claim("1" * 16) as folder:
        monkeypatch.setattr(atomic.os, "fsync", FullDisk(after=2))
        store.begin("1" * 16, {})
        with pytest.raises(DiskFull, match="no space is left in .*finished runs are kept; make room"):
            store.finish("1" * 16, {"value": 1}, {})
        assert not list(folder.glob(".writing-*"))
    assert store.status("1" * 16) is Status.INTERRUPTED
    assert store.status(RUN) is Status.DONE and store.record(RUN) == {"linear_top1": 0.5}


def test_a_failure_that_cannot_be_recorded_is_logged(tmp_path, monkeypatch, caplog):
    store = Records(tmp_path)
    monkeypatch.setattr(atomic.os, "fsync", FullDisk(after=0))
    with store.claim(RUN), caplog.at_level(logging.WARNING):
        store.fail(RUN, "the loss is nan")
    assert "the loss is nan" in caplog.text and "could not be recorded" in caplog.text
    assert store.status(RUN) is Status.INTERRUPTED


def test_a_store_that_cannot_be_made_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(store_module.UsageError, match="the store '.*file/runs' cannot be made: Not a directory"):
        Records(tmp_path / "file" / "runs")


# ---------------------------------------------------------------- the whole store


class Spec:
    """A spec with given identities; the store asks for nothing else."""

    kind = "training"

    def __init__(self, own, inputs=(), **evaluations):
        self.id = own
        self.inputs = {spec.id: spec for spec in inputs}
        self.evaluations = {evaluation: {"name": name} for name, evaluation in evaluations.items()}


def finish_in(records, run, config=None, machine="here", **numbers):
    with records.claim(run):
        records.begin(run, config or {})
        records.finish(run, numbers, {"python": "3", "numerics": {"class": machine}})


def test_a_run_is_done_when_its_pretraining_and_all_evaluations_are(tmp_path):
    store, spec = Store(tmp_path), Spec("a" * 16, knn="b" * 16, linear="c" * 16)
    assert store.status(spec) is Status.MISSING and store.record(spec) is None
    finish_in(store.pretraining, spec.id, steps=3, seconds_pretrain=2.0)
    assert store.status(spec) is Status.INTERRUPTED
    finish_in(store.evaluations, "b" * 16, numbers={"knn_top1": 0.5}, seconds=1.0)
    assert store.record(spec) == {"steps": 3, "seconds_pretrain": 2.0, "knn_top1": 0.5}
    assert store.status(spec) is Status.INTERRUPTED
    with store.evaluations.claim("c" * 16):
        store.evaluations.fail("c" * 16, "features are not finite")
    assert store.status(spec) is Status.FAILED and store.failure(spec) == "linear: features are not finite"
    finish_in(store.evaluations, "c" * 16, numbers={"linear_top1": 0.4}, seconds=1.5)
    assert store.status(spec) is Status.DONE and store.failure(spec) is None
    assert store.record(spec)["linear_top1"] == 0.4 and store.seconds(spec) == 4.5


def test_finished_evaluations_are_added_where_they_are_asked_for(tmp_path):
    store, spec = Store(tmp_path), Spec("a" * 16, knn="b" * 16)
    finish_in(store.pretraining, spec.id, steps=3)
    finish_in(store.evaluations, "b" * 16, numbers={"knn_top1": 0.5})
    finish_in(store.evaluations, "c" * 16, numbers={"linear_top1": 0.4})
    assert "linear_top1" not in store.record(spec)
    assert store.record(spec, further=["c" * 16, "d" * 16])["linear_top1"] == 0.4


def test_a_store_of_an_older_version_is_recognised_and_left_alone(tmp_path):
    old = tmp_path / "0123456789abcdef"
    old.mkdir()
    (old / "config.json").write_text("{}")
    store = Store(tmp_path)
    assert store.old_runs() == 1
    finish_in(store.pretraining, "a" * 16, steps=3)
    assert Store(tmp_path).old_runs() == 1 and (old / "config.json").read_text() == "{}"


def test_a_foreign_run_goes_with_its_evaluations_and_with_the_runs_that_use_it(tmp_path):
    store, stage_one = Store(tmp_path), Spec("a" * 16, knn="b" * 16)
    stage_two, other = Spec("c" * 16, [stage_one], knn="d" * 16), Spec("e" * 16, knn="f" * 16)
    finish_in(store.pretraining, "a" * 16, machine="there", steps=3)
    for run in ("c" * 16, "e" * 16):
        finish_in(store.pretraining, run, steps=3)
    pairs = {"b" * 16: "a" * 16, "d" * 16: "c" * 16, "f" * 16: "e" * 16, "9" * 16: "a" * 16}  # the last: another study
    for evaluation, pretraining in pairs.items():
        finish_in(store.evaluations, evaluation, {"pretraining": pretraining}, numbers={"knn_top1": 0.5})
    runs = {spec.id: spec for spec in (stage_one, stage_two, other)}
    assert store.forget_foreign(runs, "here") == 2
    assert [store.status(spec) for spec in runs.values()] == [Status.MISSING, Status.MISSING, Status.DONE]
    assert not (tmp_path / "evaluations" / ("9" * 16)).exists()
    assert (tmp_path / "pretraining" / ".foreign" / f"{'a' * 16}-1" / "record.json").exists()
    assert len(list(store.pretraining.finished())) == 1 and Store(tmp_path).old_runs() == 0
    assert store.forget_foreign(runs, "here") == 0


def test_a_foreign_evaluation_goes_alone_and_a_run_in_use_is_refused(tmp_path):
    store, spec = Store(tmp_path), Spec("a" * 16, knn="b" * 16)
    finish_in(store.pretraining, spec.id, steps=3)
    finish_in(store.evaluations, "b" * 16, {"pretraining": spec.id}, machine="there", numbers={"knn_top1": 0.5})
    with (
        store_module.FileLock(tmp_path / "evaluations" / ".locks" / ("b" * 16)),
        pytest.raises(store_module.UsageError, match="is in use by another process; wait until it has ended"),
    ):
        store.forget_foreign({"one": spec}, "here")
    assert store.forget_foreign({"one": spec}, "here") == 1
    assert store.pretraining.status(spec.id) is Status.DONE and store.status(spec) is Status.INTERRUPTED
