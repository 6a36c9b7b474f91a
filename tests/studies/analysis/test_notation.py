"""How numbers are written."""

from scd.evaluation.metric import SHARE, Metric
from studies.suite.analysis import notation
from studies.suite.analysis.statistics import difference_of

TOP1 = Metric("linear top-1", SHARE, "higher", "accuracy")
GAP = Metric("background gap", "difference of shares", "lower", "a gap")
RANK = Metric("effective rank", "", None, "a rank")


def test_numbers_are_percent_points_or_raw():
    assert notation.number(TOP1, 0.61234) == "61.2"
    assert notation.number(TOP1, -0.0123, signed=True) == "−1.23"
    assert notation.number(TOP1, 0.0004, signed=True) == "+0.04"
    assert notation.number(TOP1, -0.00001, signed=True) == "0.00"
    assert notation.number(RANK, 12.345) == "12.35" and notation.number(RANK, 1234.5) == "1,234"
    assert notation.number(RANK, 80.0) == "80" and notation.mean_cell(RANK, [80.0, 80.0], 2) == "80"
    assert notation.heading(TOP1) == "linear top-1 (%)" and notation.heading(GAP) == "background gap (points)"
    assert notation.heading(RANK) == "effective rank"
    assert [notation.quantity(value) for value in (24.3e9, 105e3, 12.0)] == ["24.3 G", "105 k", "12"]
    assert [notation.p_value(p) for p in (0.00004, 0.0123, 0.456)] == ["<0.001", "0.012", "0.46"]


def test_a_cell_states_how_many_seeds_it_has():
    assert notation.mean_cell(TOP1, [0.60, 0.62, 0.64], 3) == "62.0 ± 5.0"
    assert notation.mean_cell(TOP1, [0.60, 0.62], 3) == "61.0 ± 12.7 (n=2)"
    assert notation.mean_cell(TOP1, [0.60], 1) == "60.0 (n=1, no interval)"


def test_a_difference_in_a_sentence():
    assert notation.amount(TOP1, difference_of([0, 1], [0.01, 0.02])) == "1.5 points [−4.9, 7.9]"
    assert notation.amount(TOP1, difference_of([0, 1, 2], [-0.001, -0.0012, -0.0011])) == "−0.11 points [−0.13, −0.09]"
    assert notation.amount(TOP1, difference_of([0], [0.01])) == "1.0 points (no interval)"
    assert notation.amount(RANK, difference_of([0, 1], [1.0, 3.0])) == "2.00 [−10.71, 14.71]"


def test_sizes_have_their_unit():
    assert [notation.size(TOP1, value) for value in (0.01, 0.042, 0.142, 0.0049)] == [
        "1 point", "4.2 points", "14 points", "0.49 points",
    ]  # fmt: skip
    assert notation.size(RANK, 0.5) == "0.5"
