"""The launcher with real worker processes: death, interruption, sharing a store, full disks, choice of workers."""

import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from scd.atomic import DiskFull
from scd.errors import UsageError
from studies.suite.execution import machine
from studies.suite.execution import store as store_module
from studies.suite.execution.clock import Clock
from studies.suite.execution.forecast import work
from studies.suite.execution.launcher import launch
from studies.suite.execution.local import Bar, Crew, Pool, crew, remembered_interrupts
from studies.suite.execution.store import Status, Store
from studies.suite.planning.command_line import load_study, resolve_settings
from studies.suite.planning.resolve import resolve, unique
from studies.suite.planning.study import Arm

ROOT = Path(store_module.__file__).resolve().parents[3]
WORDS = ["tier=smoke", "sizes.generated_train=80", "sizes.generated_test=40"]
MOCO = Arm("moco", "MoCo", {}, "", "")
LOCAL = {"name": "local", "workers": 0, "threads": 1, "loader_workers": 0, "checkpoint_seconds": 60.0,
         "keep_checkpoints": False}  # fmt: skip


@pytest.fixture(scope="module")
def runs():
    """A run of 40 epochs (first), and two of 0 steps."""
    settings = resolve_settings("multicrop", [*WORDS, "evaluation.protocols=[knn]"])
    long = settings.spec(MOCO, 0, overrides={"training": {"budget": {"value": 40}}})
    planned = resolve([long, settings.spec(MOCO, 1, "none"), settings.spec(MOCO, 2, "none")], check=False)
    return unique(planned)


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
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "free_memory_gb", lambda: 64.0)
    assert crew(options, "cpu", pending) == expected


@pytest.mark.parametrize(
    ("options", "devices", "expected"),
    [
        ({"workers": "auto", "threads": "auto"}, 2, Crew(2, 1)),
        ({"workers": "auto", "threads": "auto"}, 8, Crew(1, 1)),
        ({"workers": 1, "threads": "auto"}, 2, Crew(1, 2)),
    ],
)
def test_runs_on_several_devices_share_the_cores(monkeypatch, options, devices, expected):
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "free_memory_gb", lambda: 64.0)
    assert crew(options, "cpu", 10, devices) == expected


def test_threads_do_not_depend_on_how_many_runs_are_missing(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    options = {"workers": "auto", "threads": "auto"}
    assert [crew(options, "cuda", pending) for pending in (1, 9)] == [Crew(1, 4), Crew(4, 4)]
    assert crew({**options, "workers": 0}, "cuda", 9) == Crew(0, 16)


def test_little_memory_means_fewer_workers(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 64)
    monkeypatch.setattr(machine, "free_memory_gb", lambda: 8.0)
    assert crew({"workers": "auto", "threads": "auto"}, "cpu", 100) == Crew(5, 1)


@pytest.mark.parametrize("option", [{"workers": "two", "threads": "auto"}, {"workers": 2, "threads": 0}])
def test_a_wrong_number_of_workers_is_one_line(option):
    with pytest.raises(UsageError, match=r"launcher\.(workers=two|threads=0): give 'auto' or a whole number"):
        crew(option, "cpu", 3)


# ---------------------------------------------------------------- in this process


def test_what_is_finished_is_not_done_again_and_pages_are_told(runs, tmp_path):
    store, told = Store(tmp_path), []
    wanted = specs(runs, 1, 2)
    result = launch(wanted, work(runs), store, LOCAL, lambda: told.append(1))
    assert (result.done, result.failed, len(told)) == (2, {}, 2)
    before = {run: (store.folder(spec) / "done").stat().st_mtime_ns for run, spec in wanted.items()}
    assert launch(wanted, work(runs), store, LOCAL).done == 0
    assert {run: (store.folder(spec) / "done").stat().st_mtime_ns for run, spec in wanted.items()} == before


def test_a_corrupt_record_is_run_again(runs, tmp_path, caplog):
    store, wanted = Store(tmp_path), specs(runs, 1)
    (run,) = wanted.values()
    launch(wanted, work(runs), store, LOCAL)
    expected = store.record(run)
    (store.folder(run) / "record.json").write_text("{}")
    assert launch(wanted, work(runs), store, LOCAL).done == 1
    assert "set aside" in caplog.text
    assert store.record(run) == expected


def test_a_full_disk_stops_the_study_and_keeps_what_is_finished(runs, tmp_path, monkeypatch):
    store = Store(tmp_path)
    first, second = specs(runs, 1, 2).values()
    launch(specs(runs, 1), work(runs), store, LOCAL)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(DiskFull, match="no space is left"):
        launch(specs(runs, 1, 2), work(runs), store, LOCAL)
    assert store.status(first) is Status.DONE and store.status(second) is Status.INTERRUPTED


def test_a_run_that_another_process_holds_is_waited_for(runs, tmp_path):
    store, wanted = Store(tmp_path), specs(runs, 1)
    (run,) = wanted.values()
    held, release = threading.Event(), threading.Event()

    def hold():
        records = store.pretraining
        with records.claim(run.id) as folder:
            assert folder is not None
            held.set()
            release.wait(30)
            records.finish(run.id, {"total_flops": 0, "other_process": 1}, {})
            for evaluation in run.evaluations:
                with store.evaluations.claim(evaluation):
                    store.evaluations.finish(evaluation, {"numbers": {"knn_top1": 1}}, {})

    other = threading.Thread(target=hold)
    other.start()
    held.wait(30)
    threading.Timer(1.5, release.set).start()
    result = launch(wanted, work(runs), store, LOCAL)
    other.join()
    assert result.done == 0 and store.record(run)["other_process"] == 1


# ---------------------------------------------------------------- runs that depend on each other, or are alone


@pytest.mark.parametrize("workers", [0, 2])
def test_an_input_is_run_before_the_run_that_uses_it(tmp_path, workers):
    settings = resolve_settings("multicrop", [*WORDS, "evaluation.protocols=[knn]"])
    first = settings.spec(MOCO, 5, "none")
    later = settings.spec(MOCO, 0, "none", inputs={"teacher": first})
    planned = unique(resolve([later], check=False))
    wanted = {name: item.spec for name, item in planned.items()}
    store = Store(tmp_path)
    result = launch(wanted, work(planned), store, {**LOCAL, "workers": workers})
    assert (result.done, result.failed) == (2, {})
    used, using = wanted.values()
    assert used.id == using.inputs["teacher"].id and not used.evaluations
    times = [(store.folder(spec) / "done").stat().st_mtime_ns for spec in (used, using)]
    assert times[0] < times[1]


def test_a_run_whose_input_is_not_finished_says_so(tmp_path):
    settings = resolve_settings("multicrop", [*WORDS, "evaluation.protocols=[knn]"])
    later = settings.spec(MOCO, 0, "none", inputs={"teacher": settings.spec(MOCO, 5, "none")})
    planned = unique(resolve([later], check=False))
    name = list(planned)[1]
    result = launch({name: planned[name].spec}, work(planned), Store(tmp_path), LOCAL)
    assert "its input 'teacher' (run " in result.failed[name] and "it has not been run" in result.failed[name]


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
    with Assassin(work(runs), [], 3) as bar:
        bar.pool = Pool(specs(runs), store, {**LOCAL, "checkpoint_seconds": 0.0}, Crew(1, 1), bar, lambda: None)
        result = bar.pool.run()
    assert bar.killed and result.done == 2
    assert result.failed.keys() == {victim} and "ended by signal 9 (SIGKILL)" in result.failed[victim]
    wanted = specs(runs)
    assert store.status(wanted[victim]) is Status.FAILED and "SIGKILL" in store.failure(wanted[victim])
    assert all(store.status(wanted[run]) is Status.DONE for run in others)
    assert not any(psutil.pid_exists(worker.process.pid) for worker in bar.pool.workers)

    assert launch(specs(runs), work(runs), store, LOCAL).done == 1
    assert store.record(wanted[victim])["steps"] == 200
    assert "resumed" in (store.folder(wanted[victim]) / "training.log").read_text()


COMMAND = [*WORDS, "axes.rho=[0.0]", "axes.budgets=[epochs]", "evaluation.protocols=[linear]"]


def command(store, out, *words):
    arguments = [sys.executable, "-m", "studies", "multicrop", *COMMAND]
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


def launch_command(root, words):
    """What the command executes, without its page; a failure ends the process with an exit code."""
    settings = resolve_settings("multicrop", words)
    planned = unique(resolve(load_study("multicrop").plan(settings), check=False))
    result = launch({run: item.spec for run, item in planned.items()}, work(planned), Store(root), LOCAL)
    assert not result.failed, result.failed


def test_ctrl_c_stops_workers_and_the_same_runs_go_on_beside_another_process(tmp_path):
    root, words = tmp_path / "runs", ["seeds=1", "arms=moco", "training.budget.value=30"]
    process = command(root, tmp_path / "out", *words, "launcher.workers=1", "launcher.checkpoint_seconds=0.3")
    deadline = time.monotonic() + 300
    while not list(root.glob("pretraining/*/checkpoints/step-*")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped; finished runs are kept" in error and "Traceback" not in error
    assert children and not psutil.wait_procs(children, timeout=30)[1]
    records = Store(root).pretraining
    (run,) = [path.name for path in records.root.iterdir() if path.name != ".locks"]
    assert records.status(run) is Status.INTERRUPTED

    other = multiprocessing.get_context("fork").Process(target=launch_command, args=(root, [*COMMAND, *words]))
    other.start()
    launch_command(root, [*COMMAND, *words])
    other.join(timeout=120)
    assert other.exitcode == 0
    assert [path.name for path in records.root.iterdir() if path.name != ".locks"] == [run]
    assert records.status(run) is Status.DONE
    assert (records.folder(run) / "training.log").read_text().count("resumed") == 1


# ---------------------------------------------------------------- the end of a time budget


def test_no_worker_starts_a_run_after_the_end_of_the_time(runs, tmp_path):
    moments = iter([0.0, *[61.0] * 10])
    chosen = specs(runs, 1, 2)
    with Bar(work({run: runs[run] for run in chosen}), [], 2) as bar:
        clock = Clock(1, now=lambda: next(moments))
        result = Pool(chosen, Store(tmp_path), LOCAL, Crew(1, 1), bar, lambda: None, clock).run()
    assert result.done == 0 and not result.failed
    assert all(Store(tmp_path).status(spec) is Status.MISSING for spec in chosen.values())
