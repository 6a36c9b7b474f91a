"""Reading a process's memory, and processes of their own. No test depends on how much memory something takes."""

import os

import pytest
import small_workloads
import torch

from scd.profiling import memory
from scd.profiling.memory import PeakMemory, in_fresh_process, peak, reset_peak, resident

CPU = torch.device("cpu")


@pytest.fixture
def process(tmp_path, monkeypatch):
    """The files in which Linux tells of a process, with known content."""
    status, clear = tmp_path / "status", tmp_path / "clear_refs"
    status.write_text("Name:\tpython\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n")
    clear.touch()
    monkeypatch.setattr(memory, "STATUS", status)
    monkeypatch.setattr(memory, "CLEAR", clear)
    return status, clear


def test_memory_is_read_in_bytes(process):
    assert resident() == 1024 * 1024 and peak(CPU) == 2048 * 1024


def test_the_peak_is_reset_as_the_kernel_expects_it(process):
    assert reset_peak(CPU)
    assert process[1].read_text() == "5"


def test_systems_that_do_not_tell_have_no_number(process):
    status, clear = process
    status.write_text("Name:\tpython\n")
    assert resident() is None and peak(CPU) is None
    status.unlink()
    clear.unlink()
    clear.mkdir()  # cannot be written to
    assert resident() is None and not reset_peak(CPU)


def identity(value):
    return os.getpid(), value


def test_a_fresh_process_is_another_one_each_time():
    (first, one), (second, two) = in_fresh_process(identity, 1), in_fresh_process(identity, "b")
    assert (one, two) == (1, "b") and len({first, second, os.getpid()}) == 3


def fail():
    raise ValueError("in there")


def test_an_error_of_a_fresh_process_is_raised_here():
    with pytest.raises(ValueError, match="in there"):
        in_fresh_process(fail)


@pytest.mark.skipif(resident() is None, reason="this system does not tell a process's memory")
def test_training_has_a_peak_in_a_process_of_its_own():
    numbers = PeakMemory(blocks=1, steps=1)({"arm": small_workloads.byol})
    assert set(numbers) == {"peak_bytes"} and numbers["peak_bytes"] > 0


def test_a_system_that_does_not_tell_has_no_peak(monkeypatch):
    monkeypatch.setattr(memory, "in_fresh_process", lambda *arguments: None)
    assert PeakMemory()({"arm": small_workloads.byol}) == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_peak_of_a_gpu_counts_tensors():
    device = torch.device("cuda")
    held = torch.ones(2**20, device=device)
    assert reset_peak(device)
    before = peak(device)
    more = torch.ones(2**22, device=device)
    assert peak(device) - before == 4 * 2**22 and held.sum() < more.sum()
