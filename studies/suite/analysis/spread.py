"""The spread of a paired difference, pooled over the arms of a condition.

Five seeds determine the standard deviation of one difference badly (four degrees of freedom), and an interval pays for
it: t with 4 degrees of freedom is 35 % wider than with 24. Arms that differ in one part vary alike over seeds, so
their spread is estimated together.

Model: value of arm a at seed s = mean of the arm + effect of the seed + residual, residuals independent with one
variance (two-way layout without interaction, Scheffe 1959, The Analysis of Variance, chapter 4; the seed is the block).
With A arms and n seeds the residual mean square has (A - 1)(n - 1) degrees of freedom, and a difference of two arms has
twice its variance.

Guard: an arm whose residuals have a larger spread than those of the other arms, by a one-sided F test at 7 %, is not
pooled: each of its contrasts keeps its own spread with n - 1 degrees of freedom (pooling after a preliminary test,
Bancroft 1964, Biometrics 20, 427-442). The residuals of arm a, times A / (A - 1), are one of A - 1 orthogonal parts of
the residual sum of squares, so that the F test is exact for normal values:

    F = [S_a / (n - 1)] / [(S - S_a) / ((A - 2)(n - 1))],   S_a = A / (A - 1) * sum over s of r_as^2

An arm with a smaller spread stays pooled: its intervals are then too wide and not too narrow. The level of the test is
a choice by simulation (tests/studies/analysis/test_error_rates.py): without a guard a false "better" of seven arms, one
of which varies three times as much, has a probability of 10 % instead of 2.5 %; at 7 % it stays below 5 % for 2 to 14
arms, a treatment that varies up to three times as much, and readings at 3, 5 and 10 seeds together; at 5 % it reaches
5.4 %, and at 10 % power is lost where all arms vary alike.
"""

import numpy
from scipy import special

GUARD = 0.07  # level of the preliminary test


def spread_of_difference(table: numpy.ndarray, first: int, second: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The standard deviation of the difference of two arms, pooled or its own, and its degrees of freedom.

    Args:
        table: (..., A, n) values of A >= 3 arms at the same n >= 2 seeds.
        first, second: the places of the two arms.

    Returns:
        Both of shape (...); the degrees of freedom are n - 1 where the guard keeps the difference's own spread.

    Raises:
        ValueError: fewer than three arms or two seeds: there is nothing to pool.
    """
    arms, n = table.shape[-2:]
    if arms < 3 or n < 2:
        raise ValueError(f"pooling takes three arms and two seeds at least, got {arms} and {n}")
    residual = table - table.mean(axis=-1, keepdims=True) - table.mean(axis=-2, keepdims=True)
    residual = residual + table.mean(axis=(-2, -1), keepdims=True)
    squares = (residual**2).sum(axis=-1)  # (..., A)
    total, df = squares.sum(axis=-1), (arms - 1) * (n - 1)
    widest = numpy.maximum(squares[..., first], squares[..., second]) * arms / (arms - 1)
    critical = float(special.fdtri(n - 1, df - (n - 1), 1 - GUARD))
    is_wider = widest / (n - 1) * (df - (n - 1)) > critical * (total - widest)
    own = (table[..., first, :] - table[..., second, :]).std(axis=-1, ddof=1)
    return numpy.where(is_wider, own, numpy.sqrt(2 * total / df)), numpy.where(is_wider, n - 1, df)
