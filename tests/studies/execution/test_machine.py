"""What a record says of the machine."""

from types import SimpleNamespace

import torch

from studies.suite.execution import machine


def test_free_memory_is_what_can_be_used_at_once(monkeypatch):
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=3 * 2**30))
    assert machine.free_memory_gb() == 3


def test_a_description_names_libraries_threads_and_processor():
    found = machine.describe(threads=3)
    assert found["threads"] == 3 and found["cores"] >= 1 and found["memory_gb"] > 0
    assert found["libraries"]["torch"] and found["cpu"] and "git" in found


def test_the_numerics_class_names_threads_kernels_and_torch():
    """One run gives other last bits with another number of threads, or on another type of processor."""
    found = machine.describe()
    assert found["threads"] == torch.get_num_threads()
    assert found["numerics"] == {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
    }
    assert machine.describe(threads=7)["numerics"]["threads"] == 7
