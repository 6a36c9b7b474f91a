"""The numerics class of a process and of its records."""

import torch

from studies.suite.execution import machine
from studies.suite.execution.numerics import class_of, numerics, recorded_class


def test_a_class_is_the_hash_of_its_parts(monkeypatch):
    found = numerics(1)
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability() and found["device"] == "cpu"
    assert found == numerics(1) and found["class"] == class_of(found) and len(found["class"]) == 8
    assert numerics(2)["class"] != found["class"]
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert numerics(1)["class"] != found["class"]


def test_records_name_their_class_or_its_parts_or_nothing():
    assert recorded_class(machine.describe(threads=3)) == numerics(3)["class"]
    assert recorded_class({"numerics": {"threads": 1}}) == class_of({"threads": 1})
    assert recorded_class({}) == recorded_class(None) == ""
