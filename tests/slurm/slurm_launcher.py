"""The Slurm launcher on a real Slurm: `nox -s slurm`. The name keeps pytest from collecting this file by itself.

Four processes of pytest-xdist take two tests each, in the order of this file: short tests stand beside long ones.
"""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch
from cluster import wait_for
from safetensors.torch import load_file

from scd.errors import UsageError
from studies.suite.execution import store as store_module
from studies.suite.execution.pretraining import Runtime
from studies.suite.execution.progress import Bar
from studies.suite.execution.run import Ending, Execution
from studies.suite.execution.slurm import SlurmLauncher
from studies.suite.execution.slurm_queue import queue
from studies.suite.execution.store import Status, Store
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.resolve import resolve, unique
from studies.suite.planning.study import Arm

ROOT = Path(store_module.__file__).resolve().parents[3]
WORDS = ["tier=smoke", "sizes.generated_train=80", "sizes.generated_test=40", "evaluation.protocols=[knn]"]
SLURM = ["launcher=slurm", "launcher.gpus=false", "launcher.cpus=1", "launcher.memory_gb=1", "launcher.hours=1",
         "launcher.loader_workers=0", "launcher.poll_seconds=1"]  # fmt: skip
MOCO = Arm("moco", "MoCo", {}, "", "")
LONG = 1500  # steps; some seconds on any machine

pytestmark = pytest.mark.usefixtures("cluster")


class Said(Bar):
    """A bar that keeps what it said."""

    def __init__(self, *arguments):
        self.texts, self.steps = [], []
        super().__init__(*arguments)

    def describe(self, queue=""):
        self.texts.append(queue)
        super().describe(queue)

    def at(self, run, step, steps):
        self.steps.append(step)
        super().at(run, step, steps)


def runs_of(*changes, **inputs):
    """Runs by key: one MoCo run for each mapping of changes, seed by seed; None is a run of 0 steps."""
    settings, specs = resolve_settings("multicrop", WORDS), []
    for seed, change in enumerate(changes):
        budget = "none" if change is None else "epochs"
        specs.append(settings.spec(MOCO, seed, budget, overrides=change or {}, inputs=inputs if change is None else {}))
    return {run: item.spec for run, item in unique(resolve(specs, check=False)).items()}


def steps(count, **training):
    return {"training": {"budget": {"unit": "steps", "value": count}, **training}}


def launcher_of(*words):
    return resolve_settings("multicrop", [*WORDS, *SLURM, *words]).launcher


def launch(specs, store, *words):
    """The launcher's result, and its bar."""
    with Said(dict.fromkeys(specs, 1.0), [], len(specs)) as bar:
        return SlurmLauncher(specs, store, launcher_of(*words)).run(bar, lambda: None), bar


def batches(store):
    """Folders of the batches that were submitted."""
    return [path for path in (store.root / ".slurm").iterdir() if path.is_dir()]


def processes_of(store):
    """The jobs' Python processes."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "studies.suite.execution.slurm_job" in words and any(str(store.root) in word for word in words):
            if Path(words[0]).name.startswith("python"):
                found.append(process)
    return found


def checkpoints(store, spec):
    return list(store.folder(spec).glob("checkpoints/step-*"))


# ---------------------------------------------------------------- time limits, pre-emption, order


def test_a_job_whose_time_is_over_is_queued_again_until_its_run_is_done(tmp_path):
    """115 s of training in jobs of two minutes, which are told to stop after 80 to 110 s: a slow machine has begun."""
    store = Store(tmp_path)
    specs = runs_of({"training": {"budget": {"unit": "seconds", "value": 115}}})
    (spec,) = specs.values()
    result, _ = launch(specs, store, "launcher.hours=0.03")
    assert (result.done, result.failed) == (1, {})
    assert "resumed from step" in (store.folder(spec) / "training.log").read_text()
    assert 115 <= store.record(spec)["seconds_pretrain"] < 125
    assert len(batches(store)) == 1


def test_what_slurm_refuses_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="Slurm refused 'sbatch': sbatch: error: .*Invalid partition"):
        launch(runs_of(None), Store(tmp_path), "launcher.partition=nowhere")


def test_an_interrupted_run_has_the_numbers_of_an_undisturbed_one(tmp_path, cluster):
    """Told to stop as at the end of its time, then pre-empted by a job of another partition."""
    specs = runs_of(steps(LONG))
    (spec,) = specs.values()
    store, calm = Store(tmp_path / "disturbed"), Store(tmp_path / "calm")
    with ThreadPoolExecutor() as pool:
        words = ["launcher.partition=low", "launcher.checkpoint_seconds=0.5"]
        launched = pool.submit(launch, specs, store, *words)
        wait_for(lambda: checkpoints(store, spec), 120, "checkpoint")
        (task,) = queue()
        cluster.call("scancel", "--signal=USR2", task.id)
        log = store.folder(spec) / "training.log"
        wait_for(lambda: log.exists() and log.read_text().count("resumed") == 1, 120, "second turn")
        cluster.call("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
        wait_for(lambda: log.read_text().count("resumed") == 2, 180, "third turn")
        assert Execution(spec, calm, Runtime(), threads=1).perform().ending is Ending.DONE
        result, _ = launched.result()
    assert (result.done, result.failed) == (1, {})
    ours, theirs = (load_file(each.folder(spec) / "method.safetensors") for each in (store, calm))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    times = ("seconds_pretrain", "seconds_views", "images_per_second")
    ours, theirs = (
        {name: number for name, number in each.record(spec).items() if name not in times} for each in (store, calm)
    )
    assert ours == theirs


def test_a_run_waits_for_the_run_that_it_uses(tmp_path):
    settings = resolve_settings("multicrop", WORDS)
    later = settings.spec(MOCO, 0, "none", inputs={"teacher": settings.spec(MOCO, 5, "none")})
    specs = {run: item.spec for run, item in unique(resolve([later], check=False)).items()}
    store = Store(tmp_path)
    result, _ = launch(specs, store)
    assert (result.done, result.failed) == (2, {})
    used, using = (store.folder(spec) / "done" for spec in specs.values())
    assert used.stat().st_mtime_ns < using.stat().st_mtime_ns
    assert len(batches(store)) == 2


# ---------------------------------------------------------------- progress, failures


def test_runs_share_jobs_and_arrays_are_split(tmp_path):
    """Five runs, two a job: three jobs, where Slurm takes two in an array."""
    store, specs = Store(tmp_path), runs_of(steps(300), None, None, None, steps(5))
    words = ["launcher.runs_per_job=2", 'launcher.setup=["echo ready $((40 + 2))"]']
    result, bar = launch(specs, store, *words)
    assert (result.done, result.failed) == (5, {})
    assert sorted(len(list(batch.glob("*.log"))) for batch in batches(store)) == [1, 2]
    assert all("ready 42" in log.read_text() for batch in batches(store) for log in batch.glob("*.log"))
    assert any("running" in text for text in bar.texts) and any("pending" in text for text in bar.texts)
    assert bar.steps and 0 < max(bar.steps) <= 300
    assert all(store.environment(spec)["threads"] == 1 for spec in specs.values())


def test_killed_and_cancelled_jobs_say_so_and_others_go_on(tmp_path, cluster):
    store, specs = Store(tmp_path), runs_of(steps(100 * LONG), steps(100 * LONG))
    killed, cancelled = specs
    with ThreadPoolExecutor() as pool:
        launched = pool.submit(launch, specs, store)
        wait_for(lambda: all((store.folder(spec) / "progress.jsonl").exists() for spec in specs.values()), 120, "steps")
        (victim,) = [process for process in processes_of(store) if process.cmdline()[-1] == "0"]
        victim.send_signal(signal.SIGKILL)
        (other,) = [task for task in queue() if task.index == 1]
        cluster.call("scancel", other.id)
        result, _ = launched.result()
    assert result.done == 0 and result.failed.keys() == {killed, cancelled}
    (batch,) = batches(store)
    assert "ended by signal 9 (SIGKILL), perhaps for want of memory" in result.failed[killed]
    assert "Killed" in result.failed[killed] and f"(log: {batch}/0.log)" in result.failed[killed]
    assert "was cancelled" in result.failed[cancelled] and f"(log: {batch}/1.log)" in result.failed[cancelled]
    for run, spec in specs.items():
        assert store.status(spec) is Status.FAILED and store.failure(spec) == result.failed[run]


# ---------------------------------------------------------------- the same command again, several devices


def command(folder, name):
    """The command line; what it says goes to a file."""
    words = [sys.executable, "-m", "studies", "multicrop", *WORDS, *SLURM, "seeds=2", "arms=moco", "axes.rho=[0.0]"]
    words += ["axes.budgets=[epochs]", "--store", str(folder / "runs"), "--out", str(folder / name)]
    said = folder / f"{name}.txt"
    with open(said, "w") as output:
        process = subprocess.Popen(
            words, cwd=ROOT, stderr=output, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    return process, said


def test_ctrl_c_leaves_the_jobs_and_the_same_command_follows_them(tmp_path, cluster):
    """The second time in two shells at once; the jobs have to wait meanwhile."""
    cluster.call("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
    try:
        first, said = command(tmp_path, "first")
        wait_for(lambda: "2 pending" in said.read_text(), 120, "jobs")
        os.killpg(first.pid, signal.SIGINT)
        assert first.wait(timeout=60) == 130
        (job,) = {task.job for task in queue()}
        words = "the Slurm jobs of 2 runs go on, and the same command follows them again; to cancel them: scancel"
        assert f"{words} {job}" in said.read_text()
        assert "stopped; finished runs are kept" in said.read_text() and "Traceback" not in said.read_text()

        again = [command(tmp_path, name) for name in ("second", "third")]
        for _, said in again:
            wait_for(lambda said=said: "2 pending" in said.read_text(), 120, "jobs")
        assert len(queue()) == 2
    finally:
        cluster.call("scontrol", "update", "nodename=n1", "state=resume")
    for process, said in again:
        assert process.wait(timeout=120) == 0, said.read_text()
    store = Store(tmp_path / "runs")
    assert len(batches(store)) == 1 and len(list(store.pretraining.finished())) == 2
    for name in ("second", "third"):
        assert len(list((tmp_path / name).glob("multicrop-smoke-*.md"))) == 1


def test_a_run_on_two_devices_is_one_job_with_two_processes(tmp_path, one_thread):
    store, local = Store(tmp_path / "slurm"), Store(tmp_path / "local")
    specs = runs_of({"training": {"devices": 2}, "method": {"bn_groups": 1}})
    (spec,) = specs.values()
    result, _ = launch(specs, store)
    assert (result.done, result.failed) == (1, {})
    assert Execution(spec, local, Runtime(), threads=1).perform().ending is Ending.DONE
    record, expected = store.record(spec), local.record(spec)
    assert (record["devices"], record["batch_norm_groups"]) == (2, 2)
    assert record["loss_last"] == pytest.approx(expected["loss_last"], rel=1e-6)
