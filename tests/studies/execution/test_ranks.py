"""Runs on several devices, with real processes over gloo: started by the local launcher, and by torchrun."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from scd.training.state import Stopped
from studies.suite.execution import store as store_module
from studies.suite.execution.pretraining import Runtime
from studies.suite.execution.ranks import how_ended
from studies.suite.execution.run import Ending, Execution
from studies.suite.execution.store import Status, Store
from studies.suite.planning.command_line import load_study, resolve_settings
from studies.suite.planning.resolve import resolve

ROOT = Path(store_module.__file__).resolve().parents[3]
WORDS = ["tier=smoke", "sizes.generated_train=80", "sizes.generated_test=40", "evaluation.protocols=[knn]", "seeds=1",
         "axes.rho=[0.0]", "axes.budgets=[epochs]"]  # fmt: skip


def run_on(devices, bn_groups=1, steps=None):
    """A MoCo run of five steps, or so many, as the command plans it."""
    words = [f"training.devices={devices}", f"sizes.bn_groups={bn_groups}", "arms=moco"]
    words += [] if steps is None else ["training.budget.unit=steps", f"training.budget.value={steps}"]
    settings = resolve_settings("multicrop", [*WORDS, *words])
    return resolve(load_study("multicrop").plan(settings), check=False)[0].spec


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A finished run on two devices, whose second process this one started: (store, spec)."""
    store, spec = Store(tmp_path_factory.mktemp("pair")), run_on(2)
    outcome = Execution(spec, store, Runtime(), threads=1).perform()
    assert outcome.ending is Ending.DONE, outcome.reason
    return store, spec


# ---------------------------------------------------------------- the local launcher


def test_two_devices_equal_one_with_two_batch_norm_groups(pair, tmp_path, one_thread):
    """In float32; tests/baselines/test_moco.py compares in float64."""
    store, spec = pair
    alone, single = Store(tmp_path), run_on(1, bn_groups=2)
    assert Execution(single, alone, Runtime(), threads=1).perform().ending is Ending.DONE
    ours, theirs = (
        load_file(store.folder(spec) / "method.safetensors"),
        load_file(alone.folder(single) / "method.safetensors"),
    )
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5, msg=name)
    record, expected = store.record(spec), alone.record(single)
    assert record["loss_last"] == pytest.approx(expected["loss_last"], rel=1e-4)
    for name in ("steps", "images_seen", "batch_norm_groups"):
        assert record[name] == expected[name]
    assert (record["devices"], expected["devices"], record["batch_norm_groups"]) == (2, 1, 2)


def test_the_record_is_whole_and_no_process_is_left(pair):
    store, spec = pair
    assert store.status(spec) is Status.DONE
    assert {"knn_top1", "loss_first", "loss_last", "steps"} <= set(store.record(spec))
    assert store.environment(spec)["threads"] == 1
    assert not multiprocessing.active_children()


def test_a_run_that_is_told_to_stop_resumes_on_both_processes(tmp_path):
    """All processes stop after the same step, the first at which they look at it; two processes look every 10 steps."""
    store, spec, asked = Store(tmp_path), run_on(2, steps=15), []
    with pytest.raises(Stopped):
        Execution(spec, store, Runtime(stop=lambda: not asked.append(1)), threads=1).perform()
    assert store.status(spec) is Status.INTERRUPTED and len(asked) == 1
    assert Execution(spec, store, Runtime(), threads=1).perform().ending is Ending.DONE
    assert "resumed from step 10" in (store.folder(spec) / "training.log").read_text()
    assert store.record(spec)["steps"] == 15


def test_a_killed_process_fails_its_run_with_the_reason(tmp_path):
    store, spec = Store(tmp_path), run_on(2, steps=2000)

    def kill(step, steps, loss):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    outcome = Execution(spec, store, Runtime(progress=kill), threads=1).perform()
    assert outcome.ending is Ending.FAILED and "process 1 of 2 ended by signal 9 (SIGKILL)" in outcome.reason
    assert store.status(spec) is Status.FAILED and "SIGKILL" in store.failure(spec)


ALONE = """
import sys; sys.path.insert(0, {root!r})
from studies.suite.execution.pretraining import Runtime
from studies.suite.execution.run import Execution
from studies.suite.execution.store import Store
import pickle
if __name__ == "__main__":
    Execution(pickle.load(sys.stdin.buffer), Store({store!r}), Runtime(), threads=1).perform()
"""


def test_all_processes_end_with_the_first_one(tmp_path):
    """However it ends: here it is killed."""
    spec, script = run_on(2, steps=100_000), tmp_path / "alone.py"
    script.write_text(ALONE.format(root=str(ROOT), store=str(tmp_path / "runs")))
    first = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE)
    first.stdin.write(pickle.dumps(spec))
    first.stdin.close()
    progress, deadline = Store(tmp_path / "runs").folder(spec) / "progress.jsonl", time.monotonic() + 120
    while not (progress.exists() and progress.stat().st_size) and time.monotonic() < deadline:
        assert first.poll() is None
        time.sleep(0.05)
    others = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    assert others and not psutil.wait_procs(others, timeout=30)[1]


def test_an_error_of_all_processes_is_that_of_the_run(tmp_path):
    store, spec = Store(tmp_path), run_on(2)
    spec.config["method"]["queue_size"] = 72  # 16 keys a step do not divide it
    outcome = Execution(spec, store, Runtime(), threads=1).perform()
    assert outcome.ending is Ending.FAILED and "set queue_size to a multiple of 16" in outcome.reason


# ---------------------------------------------------------------- torchrun


TWICE = """
import os, sys
from studies.__main__ import main
print(f"rank {{os.environ['RANK']}}: {{main({first!r})}}", flush=True)
os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"  # so that torchrun's store has keys of their own for the second command
sys.exit(main({second!r}))
"""


@pytest.fixture(scope="module")
def torchrun(tmp_path_factory):
    """One torchrun of two processes: a command for two devices, then one for one device; (how it ended, the folder)."""
    folder = tmp_path_factory.mktemp("torchrun")
    words = ["multicrop", *WORDS, "--store", str(folder / "runs"), "--out", str(folder / "out")]
    first = [*words, "training.devices=2", "arms=moco,scd", "sizes.bn_groups=1"]
    (folder / "twice.py").write_text(TWICE.format(first=first, second=[*words, "arms=moco"]))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*launcher, str(folder / "twice.py")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    return done, folder


def test_all_processes_of_torchrun_train_the_runs_that_the_first_one_names(pair, torchrun):
    """Two planned runs, of which neither ends up on one process each; the numbers are those of the local launcher."""
    done, folder = torchrun
    assert {"rank 0: 0", "rank 1: 0"} <= set(done.stdout.splitlines()), done.stderr
    store = Store(folder / "runs")
    records = list(store.pretraining.finished())
    assert len(records) == 2 and all(record["devices"] == 2 for record in records)
    assert len(list((folder / "out").glob("multicrop-smoke-*.md"))) == 1
    local, spec = pair
    assert store.record(spec)["loss_last"] == pytest.approx(local.record(spec)["loss_last"], rel=1e-5)


def test_torchrun_for_one_device_is_refused_in_one_line(torchrun):
    done, folder = torchrun
    assert done.returncode != 0
    line = "error: torchrun started 2 processes, but training.devices=1: give training.devices=2, or leave torchrun out"
    assert done.stderr.count(line) == 1
    assert len(list((folder / "runs" / "pretraining").glob("*/record.json"))) == 2  # those of the first command


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "signal 9 (SIGKILL)"), (137, "signal 9 (SIGKILL)"), (1, "exit code 1"), (255, "exit code 255")],
)
def test_an_exit_code_in_words(code, words):
    assert how_ended(code) == words
