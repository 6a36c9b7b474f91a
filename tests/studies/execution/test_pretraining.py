"""Fabric for one device and for several, without Lightning's warnings."""

import warnings

import pytest

from scd.errors import UsageError
from studies.suite.execution.pretraining import Runtime, build_fabric

CPU = {"devices": 1, "accelerator": "cpu", "precision": "32-true"}


def test_a_machine_with_slurm_gives_no_warning(tmp_path, monkeypatch):
    """Lightning warns of a srun that is on the PATH and not used, in the middle of the progress bar."""
    srun = tmp_path / "srun"
    srun.touch()
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build_fabric(CPU, Runtime()).world_size == 1


def test_a_process_of_a_slurm_job_takes_one_device(monkeypatch):
    """Several single runs of one allocation are no group, whatever Slurm's variables say."""
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert build_fabric(CPU, Runtime()).is_global_zero


def test_several_devices_without_their_processes_are_refused():
    with pytest.raises(UsageError, match="training.devices=2, but there is no group of 2 processes"):
        build_fabric({**CPU, "devices": 2}, Runtime())
