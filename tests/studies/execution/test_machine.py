"""What a record says of the machine."""

from types import SimpleNamespace

from studies.suite.execution import machine


def test_free_memory_is_what_can_be_used_at_once(monkeypatch):
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=3 * 2**30))
    assert machine.free_memory_gb() == 3


def test_a_description_names_libraries_threads_and_processor():
    found = machine.describe(threads=3)
    assert found["threads"] == 3 and found["cores"] >= 1 and found["memory_gb"] > 0
    assert found["libraries"]["torch"] and found["cpu"] and "git" in found
