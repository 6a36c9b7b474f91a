"""Each change of a step changes its speed alone: the same weights follow, and its ratio is that of blocks."""

import pytest
import small_workloads
import torch

from scd.errors import UsageError
from scd.profiling import variants
from scd.profiling.steptime import Stepper
from scd.profiling.variants import CHANGES, ChangedStep, CompiledBackbone, DefaultAllocator


def build():
    torch.manual_seed(0)
    return small_workloads.byol()


@pytest.mark.parametrize("change", [name for name in CHANGES if name != "bare"])
def test_a_change_trains_to_the_same_weights(change):
    changed, usual = CHANGES[change](build, 2), Stepper(build(), 2)
    for stepper in (changed, usual):
        stepper.block()
    for name, value in usual.method.state_dict().items():
        torch.testing.assert_close(changed.method.state_dict()[name], value, msg=name)


def test_bare_blocks_move_no_weight():
    changed = CHANGES["bare"](build, 2)
    before = {name: value.clone() for name, value in changed.method.named_parameters()}
    changed.block()
    assert all(value.equal(before[name]) and value.grad is None for name, value in changed.method.named_parameters())


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_has_a_ratio_with_quartiles(change):
    numbers = ChangedStep(change, rounds=2, steps=1)({"arm": build})
    assert list(numbers) == ["time_to_usual", "time_to_usual_low", "time_to_usual_high"]
    assert 0 < numbers["time_to_usual_low"] <= numbers["time_to_usual"] <= numbers["time_to_usual_high"]


def test_an_unknown_change_is_refused():
    with pytest.raises(UsageError, match="unknown change of a step 'view_one_by_one'; did you mean"):
        ChangedStep("view_one_by_one")


def test_the_allocator_is_compared_in_fresh_processes(monkeypatch):
    """The processes are replaced; with kept memory a block takes half as long."""
    calls = []

    def fresh(function, build, keep, *rest):
        calls.append(keep)
        return 1.0 if keep else 2.0

    monkeypatch.setattr(variants, "in_fresh_process", fresh)
    assert DefaultAllocator(rounds=2)({"arm": build})["time_to_usual"] == 2.0
    assert calls == [False, True, False, True]


def test_a_compiler_that_fails_is_a_reason(monkeypatch):
    def broken(self):
        raise RuntimeError("\nno C++ compiler was found\nmore")

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    assert CompiledBackbone()({"arm": build}) == {"unavailable": "no C++ compiler was found"}


def test_compiling_pays_after_the_steps_that_it_saves(monkeypatch):
    """Blocks of known lengths: compiled steps take half as long as the usual ones."""
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: setattr(self, "was_compiled", True))
    seconds = {True: 1.0, False: 2.0}
    monkeypatch.setattr(Stepper, "block", lambda self: seconds[hasattr(self.method.backbone, "was_compiled")])
    numbers = CompiledBackbone(rounds=2, steps=4)({"arm": build})
    assert numbers["time_to_usual"] == 0.5
    assert numbers["pays_after_steps"] == pytest.approx(4 * numbers["compile_seconds"])
