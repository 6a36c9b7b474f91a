"""The launcher with real worker processes: death, interruption, sharing a store, full disks, choice of workers."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from scd.errors import UsageError
from studies.suite.execution import machine as environment
from studies.suite.execution import slurm
from studies.suite.execution import store as store_module
from studies.suite.execution.local import Bar, Crew, Pool, crew, launch, remembered_interrupts
from studies.suite.execution.store import Status, Store, StoreFull
from studies.suite.planning import resolve as plan
from studies.suite.planning.settings import resolve_settings
from studies.suite.planning.study import Arm

ROOT = Path(store_module.__file__).resolve().parents[2]
WORDS = ["tier=smoke", "sizes.generated_train=80", "sizes.generated_test=40"]
MOCO = Arm("moco", "MoCo", {}, "", "")
LOCAL = {"name": "local", "workers": 0, "threads": 1, "loader_workers": 0, "checkpoint_seconds": 60.0,
         "keep_checkpoints": False}  # fmt: skip


@pytest.fixture(scope="module")
def runs():
    """A run of 100 epochs (id first), and two of 0 steps."""
    settings = resolve_settings("multicrop", WORDS)
    long = settings.spec(MOCO, 0, overrides={"training": {"budget": {"value": 100}}})
    planned = plan.resolve([long, settings.spec(MOCO, 1, "none"), settings.spec(MOCO, 2, "none")], check=False)
    return plan.unique(planned)


def specs(runs, *chosen):
    return {name: item.spec for index, (name, item) in enumerate(runs.items()) if index in (chosen or (0, 1, 2))}


# ---------------------------------------------------------------- choosing


@pytest.mark.parametrize(
    ("options", "pending", "expected"),
    [
        ({"workers": "auto", "threads": "auto"}, 10, Crew(4, 1)),
        ({"workers": "auto", "threads": "auto"}, 3, Crew(3, 1)),
        ({"workers": 1, "threads": "auto"}, 10, Crew(1, 4)),
        ({"workers": 2, "threads": "auto"}, 10, Crew(2, 2)),
        ({"workers": 1, "threads": 2}, 10, Crew(1, 2)),
        ({"workers": 0, "threads": "auto"}, 10, Crew(0, 4)),
    ],
)
def test_one_single_threaded_run_a_core_by_default(monkeypatch, options, pending, expected):
    monkeypatch.setattr(environment, "cores", lambda: 4)
    monkeypatch.setattr(environment, "free_memory_gb", lambda: 64.0)
    assert crew(options, "cpu", pending) == expected


def test_little_memory_means_fewer_workers(monkeypatch):
    monkeypatch.setattr(environment, "cores", lambda: 64)
    monkeypatch.setattr(environment, "free_memory_gb", lambda: 8.0)
    assert crew({"workers": "auto", "threads": "auto"}, "cpu", 100) == Crew(5, 1)


@pytest.mark.parametrize("option", [{"workers": "two", "threads": "auto"}, {"workers": 2, "threads": 0}])
def test_a_wrong_number_of_workers_is_one_line(option):
    with pytest.raises(UsageError, match=r"launcher\.(workers=two|threads=0): give 'auto' or a whole number"):
        crew(option, "cpu", 3)


# ---------------------------------------------------------------- in this process


def test_what_is_finished_is_not_done_again_and_pages_are_told(runs, tmp_path):
    store, told = Store(tmp_path), []
    wanted = specs(runs, 1, 2)
    result = launch(wanted, plan.work(runs), store, LOCAL, lambda: told.append(1))
    assert (result.done, result.failed, len(told)) == (2, {}, 2)
    before = {run: (store.folder(run) / "done").stat().st_mtime_ns for run in wanted}
    assert launch(wanted, plan.work(runs), store, LOCAL).done == 0
    assert {run: (store.folder(run) / "done").stat().st_mtime_ns for run in wanted} == before


def test_a_corrupt_record_is_run_again(runs, tmp_path, caplog):
    store, wanted = Store(tmp_path), specs(runs, 1)
    (run,) = wanted
    launch(wanted, plan.work(runs), store, LOCAL)
    expected = store.record(run)
    (store.folder(run) / "record.json").write_text("{}")
    assert launch(wanted, plan.work(runs), store, LOCAL).done == 1
    assert "set aside" in caplog.text
    assert {**store.record(run), "seconds_eval": 0} == {**expected, "seconds_eval": 0}


def test_a_full_disk_stops_the_study_and_keeps_what_is_finished(runs, tmp_path, monkeypatch):
    store = Store(tmp_path)
    first, second = specs(runs, 1, 2)
    launch(specs(runs, 1), plan.work(runs), store, LOCAL)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(StoreFull, match="no space is left"):
        launch(specs(runs, 1, 2), plan.work(runs), store, LOCAL)
    assert store.status(first) is Status.DONE and store.status(second) is Status.INTERRUPTED


def test_a_run_that_another_process_holds_is_waited_for(runs, tmp_path):
    store, wanted = Store(tmp_path), specs(runs, 1)
    (run,) = wanted
    held, release = threading.Event(), threading.Event()

    def hold():
        with store.claim(run) as folder:
            assert folder is not None
            held.set()
            release.wait(30)
            store.finish(run, {"total_flops": 0, "elsewhere": 1}, {})

    other = threading.Thread(target=hold)
    other.start()
    held.wait(30)
    threading.Timer(1.5, release.set).start()
    result = launch(wanted, plan.work(runs), store, LOCAL)
    other.join()
    assert result.done == 0 and store.record(run)["elsewhere"] == 1


# ---------------------------------------------------------------- workers


class Assassin(Bar):
    """A bar that kills the worker at the first step it hears of."""

    pool: Pool
    killed = 0

    def at(self, run, step, steps):
        super().at(run, step, steps)
        if not self.killed and step > 2:
            worker = next(worker for worker in self.pool.workers if worker.run == run)
            self.killed = worker.process.pid
            os.kill(worker.process.pid, signal.SIGKILL)


def test_a_killed_worker_costs_its_run_only_and_the_run_resumes(runs, tmp_path):
    store = Store(tmp_path)
    victim, *others = runs
    with Assassin(plan.work(runs), [], 3) as bar:
        bar.pool = Pool(specs(runs), store, {**LOCAL, "checkpoint_seconds": 0.0}, Crew(1, 1), bar, lambda: None)
        result = bar.pool.run()
    assert bar.killed and result.done == 2
    assert result.failed.keys() == {victim} and "ended by signal 9 (SIGKILL)" in result.failed[victim]
    assert store.status(victim) is Status.FAILED and "SIGKILL" in store.failure(victim)
    assert all(store.status(run) is Status.DONE for run in others)
    assert not any(psutil.pid_exists(worker.process.pid) for worker in bar.pool.workers)

    assert launch(specs(runs), plan.work(runs), store, LOCAL).done == 1
    assert store.record(victim)["steps"] == 500
    assert "resumed" in (store.folder(victim) / "training.log").read_text()


def command(store, out, *words):
    arguments = [sys.executable, "-m", "studies", "multicrop", *WORDS, "axes.rho=[0.0]", "axes.budgets=[epochs]"]
    arguments += [*words, "--store", str(store), "--out", str(out)]
    return subprocess.Popen(
        arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_ctrl_c
    )


def heed_ctrl_c():
    """As in a terminal: what starts in a shell's background, as tests may, inherits that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def heeded():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_remembered_where_its_exception_gets_lost(heeded):
    before = signal.getsignal(signal.SIGINT)
    with remembered_interrupts() as interrupted:
        assert not interrupted.is_set()
        with contextlib.suppress(KeyboardInterrupt):  # as a library's callback does
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        assert interrupted.is_set()
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_stops_workers_and_the_same_command_goes_on_beside_another(tmp_path):
    words = ["seeds=1", "arms=random,moco", "training.budget.value=100"]
    process = command(
        tmp_path / "runs", tmp_path / "out", *words, "launcher.workers=1", "launcher.checkpoint_seconds=0.3"
    )
    deadline = time.monotonic() + 300
    while not list((tmp_path / "runs").glob("*/checkpoints/step-*")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped; what was finished stays finished" in error and "Traceback" not in error
    assert children and not psutil.wait_procs(children, timeout=30)[1]
    store = Store(tmp_path / "runs")
    states = {folder.name: store.status(folder.name) for folder in store.root.iterdir() if folder.name != ".locks"}
    assert Status.INTERRUPTED in states.values() and Status.FAILED not in states.values()

    both = [command(tmp_path / "runs", tmp_path / f"out{i}", *words, "launcher.workers=0") for i in range(2)]
    for i, other in enumerate(both):
        _, error = other.communicate(timeout=300)
        assert other.returncode == 0, error
        assert (tmp_path / f"out{i}" / "multicrop-smoke.md").exists()
    done = [folder.name for folder in store.root.iterdir() if folder.name != ".locks"]
    assert len(done) == 2 and all(store.status(run) is Status.DONE for run in done)
    assert any("resumed" in log.read_text() for log in store.root.glob("*/training.log"))


# ---------------------------------------------------------------- Slurm


def test_slurm_options():
    launcher = resolve_settings("multicrop", ["launcher=slurm", "launcher.partition=gpu"]).launcher
    options = slurm.options(launcher, devices=8, cluster="slurm")
    assert (options["nodes"], options["tasks_per_node"], options["gpus_per_node"]) == (1, 8, 8)
    assert options["slurm_partition"] == "gpu" and "slurm_account" not in options
    assert slurm.options({**launcher, "nodes": 2}, 8, "slurm")["tasks_per_node"] == 4
    assert not [key for key in slurm.options(launcher, 1, "local") if key.startswith("slurm")]


def test_jobs_go_through_submitit(runs, tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed: pip install -e '.[slurm]'")
    launcher = {**resolve_settings("multicrop", ["launcher=slurm"]).launcher, "cluster": "debug", "gpus": False}
    store, wanted = Store(tmp_path), specs(runs, 1)
    result = launch(wanted, plan.work(runs), store, launcher)
    assert (result.done, result.failed) == (1, {})
    assert all(store.status(run) is Status.DONE for run in wanted)
