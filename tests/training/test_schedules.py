"""Learning-rate schedules at their ends, against the papers' formulas, and their errors."""

import math

import numpy as np
import pytest

from scd.errors import UsageError
from scd.training.schedules import Schedule, cosine, linear_warmup


def test_cosine_at_its_ends_and_in_the_middle():
    assert cosine(0.0) == 1.0
    assert cosine(1.0) == 0.0
    assert cosine(0.5) == pytest.approx(0.5)
    assert cosine(0.0, start=0.2, end=0.8) == pytest.approx(0.2)
    assert cosine(1.0, start=0.2, end=0.8) == pytest.approx(0.8)
    assert cosine(-1) == 1.0 and cosine(2) == 0.0


def test_linear_warmup_starts_at_zero_and_ends_at_one():
    assert [linear_warmup(step, 4) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert linear_warmup(0, 0) == 1.0


def test_per_epoch_is_mocos_rule():
    """MoCo: lr * 0.5 * (1 + cos(pi * epoch / epochs)), constant within an epoch."""
    schedule = Schedule(per="epoch")
    factors = [schedule.factor(step, 30, 10) for step in range(30)]
    expected = [0.5 * (1 + math.cos(math.pi * epoch / 3)) for epoch in (0, 1, 2) for _ in range(10)]
    assert factors == pytest.approx(expected)


def test_per_step_falls_at_every_step_and_ends_near_final():
    factors = [Schedule(final=0.1).factor(step, 100, 10) for step in range(100)]
    assert factors[0] == 1.0
    assert all(a > b for a, b in zip(factors, factors[1:], strict=False))
    assert 0.1 < factors[-1] < 0.1 + 0.9 * 3e-4  # the step after the last one would be at 0.1
    assert factors[50] == pytest.approx(0.55)


def test_byol_warmup_then_cosine_over_the_rest():
    """BYOL: linear for ten epochs, then cosine over the steps that are left, both per step."""
    schedule = Schedule(warmup_epochs=10)
    assert schedule.factor(0, 1000, 5) == 0.0
    assert schedule.factor(25, 1000, 5) == 0.5
    assert schedule.factor(50, 1000, 5) == 1.0
    assert schedule.factor(525, 1000, 5) == pytest.approx(0.5)


def test_warmup_is_per_step_where_the_decay_is_per_epoch():
    schedule = Schedule(warmup_epochs=1, per="epoch")
    factors = [schedule.factor(step, 12, 4) for step in range(12)]
    assert factors[:4] == [0.0, 0.25, 0.5, 0.75]
    assert factors[4:8] == [1.0] * 4
    assert factors[8:] == pytest.approx([0.5] * 4)


def test_warmup_that_ends_inside_an_epoch_never_exceeds_the_base_rate():
    factors = [Schedule(warmup_epochs=1.5, per="epoch").factor(step, 16, 4) for step in range(16)]
    assert max(factors) == 1.0 and factors[6:8] == [1.0, 1.0]
    assert factors[8:12] == pytest.approx([cosine(2 / 10)] * 4)


def test_constant_keeps_the_base_rate_after_warmup():
    schedule = Schedule("constant", warmup_epochs=2)
    assert [schedule.factor(step, 3, 2) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]


def test_by_time_follows_the_share_and_warms_up_in_steps():
    schedule = Schedule(warmup_epochs=1)
    assert schedule.factor_by_time(0.0, 0, 4) == 0.0
    assert schedule.factor_by_time(0.5, 2, 4) == pytest.approx(0.25)
    assert schedule.factor_by_time(0.5, 400, 4) == pytest.approx(0.5)
    assert schedule.factor_by_time(1.0, 400, 4) == 0.0
    assert Schedule("constant").factor_by_time(0.9, 4, 4) == 1.0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"per": "epochs"}, "did you mean 'epoch'"),
        ({"warmup_epochs": -1}, "0 or more epochs, not -1"),
        ({"warmup_epochs": math.nan}, "0 or more epochs, not nan"),
        ({"final": 1.5}, r"schedule.final is a share of the base rate in \[0, 1\], not 1.5"),
        ({"warmup_start": -0.1}, r"schedule.warmup_start is a share of the base rate in \[0, 1\], not -0.1"),
        ({"warmup_ramp": "t/w"}, r"unknown ramp of the warm-up \(schedule.warmup_ramp\) 't/w'; did you mean 't/W'"),
    ],
)
def test_wrong_options_say_what_is_right(options, text):
    with pytest.raises(UsageError, match=text):
        Schedule(**options)


def test_warmup_as_long_as_the_run_is_an_error_at_the_first_step():
    with pytest.raises(UsageError, match=r"warm-up of 10 epochs \(40 steps\) is not shorter than a run of 40 steps"):
        Schedule(warmup_epochs=10).factor(0, 40, 4)


def test_per_epoch_decay_has_no_meaning_by_time():
    with pytest.raises(UsageError, match="use schedule.per=step"):
        Schedule(per="epoch").factor_by_time(0.1, 3, 4)


def test_weight_decay_follows_a_cosine_from_the_optimisers_to_the_final_one():
    schedule = Schedule(final_weight_decay=0.4)
    assert schedule.weight_decay(0.04, 0.0) == pytest.approx(0.04)
    assert schedule.weight_decay(0.04, 0.5) == pytest.approx(0.22)
    assert schedule.weight_decay(0.04, 1.0) == pytest.approx(0.4)
    assert Schedule().weight_decay(0.04, 0.7) == 0.04
    with pytest.raises(UsageError, match="schedule.final_weight_decay is 0 or more, not -1"):
        Schedule(final_weight_decay=-1)


# ---------------------------------------------------------------- warm-up conventions of the papers' code


def test_warmup_ramps_of_byol_lewel_and_dino():
    """W = 4 steps: BYOL t/W, LEWEL (t+1)/W, DINO numpy.linspace(0, 1, W)."""
    steps = range(5)
    assert [linear_warmup(t, 4, "t/W") for t in steps] == [0, 0.25, 0.5, 0.75, 1]
    assert [linear_warmup(t, 4, "(t+1)/W") for t in steps] == [0.25, 0.5, 0.75, 1, 1]
    assert [linear_warmup(t, 4, "t/(W-1)") for t in steps] == pytest.approx([*np.linspace(0, 1, 4), 1])
    assert linear_warmup(0, 1, "t/(W-1)") == 1.0  # a single step has no ramp


def test_dinos_schedule_is_its_warmup_and_half_a_cosine_to_1e_6():
    """As main_dino.py builds it for 3 epochs of 5 steps, 1 of warm-up, base rate 2e-3, end 1e-6."""
    base, end, warmup, steps = 2e-3, 1e-6, 5, 15
    decay = [end + 0.5 * (base - end) * (1 + math.cos(math.pi * i / (steps - warmup))) for i in range(steps - warmup)]
    schedule = Schedule(warmup_epochs=1, warmup_ramp="t/(W-1)", final=end / base)
    ours = [base * schedule.factor(step, steps, 5) for step in range(steps)]
    assert ours == pytest.approx([*np.linspace(0, base, warmup), *decay])


def test_slotcons_warmup_begins_at_a_hundredth():
    schedule = Schedule(warmup_epochs=2, warmup_start=0.01)
    assert [schedule.factor(step, 100, 2) for step in range(5)] == pytest.approx([0.01, 0.2575, 0.505, 0.7525, 1.0])


@pytest.mark.parametrize("per", ["step", "epoch"])
def test_a_shorter_run_takes_the_first_part_of_the_schedule(per):
    whole, part = Schedule(per=per, warmup_epochs=1), Schedule(per=per, warmup_epochs=1, total_epochs=20)
    assert [part.factor(step, 30, 10) for step in range(30)] == [whole.factor(step, 200, 10) for step in range(30)]
    assert part.factor(29, 30, 10) != whole.factor(29, 30, 10)


def test_impossible_lengths_of_a_schedule_are_refused():
    with pytest.raises(UsageError, match="schedule.total_epochs is above 0 epochs, or null, not 0"):
        Schedule(total_epochs=0)
    with pytest.raises(UsageError, match=r"total_epochs=2 \(20 steps\) is less than the run of 30 steps"):
        Schedule(total_epochs=2).factor(0, 30, 10)
    with pytest.raises(UsageError, match="use schedule.total_epochs=null"):
        Schedule(total_epochs=2).factor_by_time(0.5, 3, 10)
