"""Budgets become steps; the FLOP budget is never exceeded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scd.errors import UsageError
from scd.training.budget import Budget


def test_each_unit_gives_its_steps():
    assert Budget("epochs", 8).steps(31) == 248
    assert Budget("epochs", 0.5).steps(31) == 16
    assert Budget("epochs", 0.001).steps(31) == 1
    assert Budget("steps", 70).steps(31) == 70
    assert Budget("flops", 1e12).steps(31, flops_per_step=3e11) == 3
    assert Budget("seconds", 12).steps(31) is None


def test_only_a_budget_of_seconds_has_seconds():
    assert Budget("seconds", 12).seconds == 12.0
    assert Budget("epochs", 12).seconds is None


@given(st.integers(1, 10**7), st.floats(1e3, 1e18))
def test_flops_of_n_steps_give_n_steps(n, flops):
    assert Budget("flops", n * flops).steps(1, flops) == n


@given(st.floats(1.0, 1e6), st.floats(1e3, 1e18))
def test_flop_budget_is_not_exceeded(ratio, flops):
    budget = Budget("flops", ratio * flops)
    steps = budget.steps(1, flops)
    assert steps * flops <= budget.value * (1 + 1e-9) < (steps + 1) * flops * (1 + 1e-8)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("epoch", 1, "unknown budget unit .*; did you mean 'epochs'"),
        ("epochs", 0, "above 0 epochs, not 0"),
        ("steps", -3, "above 0 steps, not -3"),
        ("flops", float("nan"), "a finite number of flops, not nan"),
        ("seconds", "12", "a finite number of seconds, not '12'"),
        ("epochs", True, "a finite number of epochs, not True"),
    ],
)
def test_wrong_budgets_say_what_is_right(unit, value, text):
    with pytest.raises(UsageError, match=text):
        Budget(unit, value)


def test_budgets_below_one_step_are_errors():
    with pytest.raises(UsageError, match="is less than one step needs, 2e[+]09 FLOPs"):
        Budget("flops", 1e9).steps(10, 2e9)
    with pytest.raises(UsageError, match="smaller than one batch"):
        Budget("epochs", 1).steps(0)
    with pytest.raises(ValueError, match="needs the FLOPs of one step"):
        Budget("flops", 1e9).steps(10)
