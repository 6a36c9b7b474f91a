"""Readings: which seeds a contrast is judged by, and with which error."""

import pytest

from studies.suite.analysis.readings import (
    level,
    looks_in_words,
    next_look,
    over_readings,
    reading_at,
    settled_seeds,
)

LOOKS = (3, 5, 10)


def runs(count, failed=()):
    return {seed: "failed" if seed in failed else "done" for seed in range(count)}


@pytest.mark.parametrize(
    ("count", "judged"), [(1, None), (2, None), (3, 3), (4, 3), (5, 5), (9, 5), (10, 10), (25, 10)]
)
def test_the_last_reading_that_is_reached_counts(count, judged):
    reading = reading_at(LOOKS, runs(count), runs(25))
    assert reading.is_read == (judged is not None)
    assert reading.seeds == (tuple(range(judged)) if judged else None)
    assert reading.alpha == pytest.approx(0.025 / 3)


def test_one_reading_has_the_whole_error_and_no_design_reads_what_there_is():
    assert reading_at((5,), runs(5), runs(5)).alpha == level((5,)) == 0.025
    free = reading_at((), runs(2), runs(1))
    assert (free.seeds, free.alpha, free.is_read) == (None, 0.025, True)


def test_seeds_settle_in_order_and_a_failure_is_settled():
    states = {**runs(5, failed=(1,)), 2: "missing"}
    assert settled_seeds(states, runs(5)) == settled_seeds(runs(5), states) == (0, 1)  # 3 and 4 wait for 2
    assert settled_seeds(runs(5, failed=(1, 4)), runs(4)) == (0, 1, 2, 3)
    assert settled_seeds({7: "done", 3: "done"}, {3: "done", 7: "done"}) == (3, 7)


def test_the_next_reading():
    assert [next_look(LOOKS, count) for count in (0, 3, 4, 5, 10, 20)] == [3, 5, 5, 10, None, None]
    assert next_look((), 5) is None


def test_readings_in_words():
    assert looks_in_words(LOOKS) == "3, 5 and 10 seeds" and looks_in_words((5,)) == "5 seeds"
    assert over_readings(LOOKS) == " over all readings" and over_readings((5,)) == over_readings(()) == ""
