"""sbatch's options, and what a batch of jobs keeps on the disk."""

import subprocess

import pytest

from scd.errors import UsageError
from studies.suite.execution.run import Ending, Outcome
from studies.suite.execution.slurm_batch import Batch, array_options, minutes, options, warning_seconds
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.study import RunSpec

SPEC = RunSpec({"measurement": {}}, {}, kind="measurement")


@pytest.fixture(scope="module")
def launcher():
    return resolve_settings("multicrop", ["launcher=slurm", "launcher.partition=gpu"]).launcher


def test_the_options_of_a_run_on_eight_gpus(launcher):
    words = options(launcher, devices=8)
    for word in ("--nodes=1", "--ntasks-per-node=8", "--gpus-per-node=8", "--cpus-per-task=10", "--partition=gpu"):
        assert word in words
    assert "--time=2880" in words and f"--mem={8 * 64 * 1024}M" in words
    assert not any(word.startswith("--account") for word in words)
    assert "--ntasks-per-node=4" in options({**launcher, "nodes": 2}, devices=8)
    assert not any("gpus" in word for word in options({**launcher, "gpus": False}, devices=1))


def test_further_options_of_sbatch(launcher):
    words = options({**launcher, "extra": {"constraint": "h100", "gpu_bind": "closest", "contiguous": True}}, 1)
    assert words[-3:] == ["--constraint=h100", "--gpu-bind=closest", "--contiguous"]


@pytest.mark.parametrize(
    ("hours", "expected", "warning"), [(0.01, 1, 10), (0.05, 3, 18), (1, 60, 60), (1.0001, 61, 60), (48, 2880, 60)]
)
def test_a_time_limit_is_rounded_up_to_a_minute(launcher, hours, expected, warning):
    """0 minutes would mean no limit. Jobs are told to stop 10 to 60 seconds before."""
    assert minutes({"hours": hours}) == expected
    assert warning_seconds({"hours": hours}) == warning
    assert f"--time={expected}" in options({**launcher, "hours": hours}, 1)
    assert f"--signal=USR2@{warning}" in options({**launcher, "hours": hours}, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("hours", 0), ("hours", -1), ("hours", "x"), ("hours", True), ("cpus", 0), ("nodes", 1.5), ("at_once", 0),
     ("runs_per_job", 0), ("memory_gb", 0), ("memory_gb", "64G"), ("setup", "module load cuda"), ("setup", [1])],
)  # fmt: skip
def test_a_wrong_option_is_one_line(launcher, name, value):
    with pytest.raises(UsageError, match=rf"launcher\.{name}="):
        options({**launcher, name: value}, 1)


def test_a_batch_is_found_again_by_the_name_of_its_jobs(launcher, tmp_path):
    batch = Batch.write(tmp_path, launcher, [{"a": SPEC}, {"b": SPEC, "c": SPEC}])
    assert Batch.named(tmp_path, batch.name) == batch
    assert Batch.named(tmp_path, "scd-elsewhere") is None and Batch.named(tmp_path, "other") is None
    (batch.folder / "jobs.pkl").write_bytes(b"")
    assert Batch.named(tmp_path, batch.name) is None
    words = array_options(batch, ["7", "8_1"])
    assert f"--job-name={batch.name}" in words and "--array=0-1%16" in words and "--dependency=afterany:7:8_1" in words
    assert not any("dependency" in word for word in array_options(batch, []))


def test_how_runs_and_jobs_ended(launcher, tmp_path):
    batch = Batch.write(tmp_path, launcher, [{"a": SPEC, "b": SPEC}])
    assert batch.outcome("a") is None and batch.exit_code(0) is None and batch.tail(0) == []
    batch.report("a", Outcome(Ending.FAILED, "why"))
    assert batch.outcome("a") == Outcome(Ending.FAILED, "why") and batch.outcome("b") is None
    (batch.folder / "0.exit").write_text("137\n")
    batch.log(0).write_text("one\n\ntwo\nthree\nfour\n")
    assert batch.exit_code(0) == 137 and batch.tail(0) == ["two", "three", "four"]


def test_the_script_is_one_that_bash_can_read(launcher, tmp_path):
    batch = Batch.write(
        tmp_path / "with space", {**launcher, "setup": ["module load cuda", "export A=1"]}, [{"a": SPEC}]
    )
    script = batch.folder / "job.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/bash" and "module load cuda" in lines and "export A=1" in lines
    assert "export OMP_NUM_THREADS=10 MKL_NUM_THREADS=10" in lines
