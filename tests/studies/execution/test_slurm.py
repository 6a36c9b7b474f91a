"""Which jobs and arrays runs become; tests/slurm/ has the tests with a real Slurm."""

import json

import pytest

from scd.errors import UsageError
from studies.suite.execution import slurm_queue
from studies.suite.execution.slurm import SlurmLauncher, arrays, described, last_step
from studies.suite.execution.store import Store
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.study import Arm, RunSpec

MOCO = Arm("moco", "MoCo", {}, "", "")


@pytest.fixture(scope="module")
def settings():
    return resolve_settings("multicrop", ["tier=smoke", "launcher=slurm", "launcher.gpus=false"])


@pytest.fixture(scope="module")
def specs(settings):
    """Four runs of one device, one of two, a measurement that is alone, and a run that uses the first one."""
    runs = {f"run{seed}": settings.spec(MOCO, seed) for seed in range(4)}
    runs["pair"] = settings.spec(MOCO, 4, overrides={"training": {"devices": 2}})
    runs["alone"] = RunSpec({"measurement": {}}, {}, kind="measurement", alone=True)
    runs["later"] = settings.spec(MOCO, 5, inputs={"teacher": runs["run0"]})
    return runs


@pytest.fixture
def no_slurm(monkeypatch):
    monkeypatch.setenv("PATH", "")


def test_runs_of_one_shape_are_one_array_and_inputs_come_first(specs):
    found = arrays(specs, specs, runs_per_job=1, largest=10)
    assert [array.jobs for array in found] == [
        (("run0",), ("run1",), ("run2",), ("run3",)), (("pair",),), (("alone",),), (("later",),),
    ]  # fmt: skip
    assert [array.devices for array in found] == [1, 2, 1, 1]
    assert [array.alone for array in found] == [False, False, True, False]
    assert [set(array.after) for array in found] == [set(), set(), set(), {"run0"}]


def test_short_runs_share_a_job(specs):
    names = ["run0", "run1", "run2"]
    assert arrays(names, specs, runs_per_job=2, largest=10)[0].jobs == (("run0", "run1"), ("run2",))


def test_an_array_that_slurm_would_not_take_is_split(specs):
    first, second = arrays(["run0", "run1", "run2"], specs, runs_per_job=1, largest=2)
    assert (first.jobs, second.jobs) == ((("run0",), ("run1",)), (("run2",),))
    assert not first.continues and second.continues


def test_an_input_that_is_done_already_is_not_waited_for(specs):
    later = {"later": specs["later"]}
    assert [(array.jobs, set(array.after)) for array in arrays(later, later, 1, 10)] == [((("later",),), set())]


def test_the_plan_names_jobs_resources_and_time(settings, specs, no_slurm):
    """Also on a machine without Slurm."""
    launcher = {**settings.launcher, "hours": 1.5, "cpus": 4, "memory_gb": 8, "runs_per_job": 2, "partition": "gpu"}
    first, pair, alone, later = described(specs, launcher)
    assert first.startswith("Slurm array of 2 jobs for 4 runs, at most 16 at a time: --time=90 ")
    for words in ("--cpus-per-task=4", "--mem=8192M", "--partition=gpu", "--ntasks-per-node=1"):
        assert words in first
    assert "--ntasks-per-node=2" in pair and "--mem=16384M" in pair
    assert "--exclusive" in alone and ", after the runs that they use" in later


def test_without_slurm_the_launcher_says_so(settings, specs, tmp_path, no_slurm):
    launcher = SlurmLauncher(specs, Store(tmp_path), settings.launcher)
    with pytest.raises(UsageError, match="launcher=slurm needs Slurm's command 'squeue' on this machine"):
        launcher.submit(specs)


def test_wrong_options_are_refused_before_anything_is_submitted(settings, specs, tmp_path):
    with pytest.raises(UsageError, match=r"launcher\.runs_per_job=0: give a whole number"):
        SlurmLauncher(specs, Store(tmp_path), {**settings.launcher, "runs_per_job": 0})


def test_arrays_have_their_usual_size_where_slurm_does_not_answer(no_slurm):
    assert slurm_queue.largest_array() == 1001


def test_the_last_logged_step(tmp_path):
    path = tmp_path / "progress.jsonl"
    assert last_step(path) == 0
    path.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (10, 20)) + '{"step": 3')
    assert last_step(path) == 20
