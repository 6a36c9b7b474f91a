"""Statistics over seeds: means and paired differences with Student-t intervals, Holm's correction, power.

The unit of repetition is the seed. Arms of one seed share data order, crops and initial weights, so differences are
taken within seeds. With three to ten seeds a percentile bootstrap covers far less than its nominal level (73 % instead
of 95 % at n = 3), and Student's t interval covers what it states; only t is used here. Every spread has ddof = 1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import isfinite, sqrt

import numpy
import pandas
from scipy import optimize, special, stats

MOST_SEEDS = 100_000
ALPHA = 0.025  # of each end of a two-sided 95 % interval


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds. ``sd`` and ``half`` (half width of the t interval) are None where n < 2: unknown, not 0."""

    n: int
    mean: float | None
    sd: float | None
    half: float | None


@dataclass(frozen=True)
class PairedResult:
    """The difference treatment - control over the seeds that both arms have.

    Attributes:
        n: number of pairs; mean, sd: of the differences, in the metric's unit.
        ci_low, ci_high: two-sided t interval at the confidence asked for.
        p: two-sided t test of "no difference"; dz: mean / sd (Cohen's d_z).
        seeds, differences: the common seeds and their differences, in the same order.
        spread: the standard deviation of a difference that interval and p use: ``sd``, or one that is pooled over the
            arms of a page (see spread.py); df: its degrees of freedom.
        alpha: the error of each end of the interval.
        is_pooled: whether the spread is pooled.
        is_read: whether the declared readings allow an outcome at this number of seeds (see readings.py).
        mixed: seeds that are no pair, because the two runs come from different numerics classes (see numerics.py).

    What n pairs do not determine is None: all spreads for n < 2, and interval, p and dz where all differences are
    equal (a spread of exactly 0 results from few, coarse values and is no evidence of certainty).
    """

    n: int
    mean: float | None
    sd: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    dz: float | None
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    spread: float | None = None
    df: int | None = None
    alpha: float = ALPHA
    is_pooled: bool = False
    is_read: bool = True
    mixed: tuple[int, ...] = ()

    def bound(self, side: str, alpha: float) -> float | None:
        """One-sided t bound of the mean, "lower" or "upper", with error ``alpha``; None where the spread is unknown."""
        if not self.spread:
            return None
        half = quantile(alpha, self.df) * self.spread / sqrt(self.n)
        return self.mean - half if side == "lower" else self.mean + half

    def negated(self) -> "PairedResult":
        """The difference control - treatment."""
        if self.ci_low is None:
            return replace(self, mean=_minus(self.mean), differences=tuple(-value for value in self.differences))
        return replace(
            self,
            mean=-self.mean,
            ci_low=-self.ci_high,
            ci_high=-self.ci_low,
            dz=-self.dz,
            differences=tuple(-value for value in self.differences),
        )


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def quantile(alpha: float, df: int) -> float:
    """The value that Student's t with ``df`` degrees of freedom exceeds with probability ``alpha``."""
    return -float(special.stdtrit(df, alpha))


def estimate(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean over seeds with the half width of its t interval; missing values (None, NaN) do not count."""
    kept = numpy.array([value for value in values if not pandas.isna(value)], dtype=float)
    n = len(kept)
    if n < 2:
        return Estimate(n, float(kept[0]) if n else None, None, None)
    sd = float(kept.std(ddof=1))
    return Estimate(n, float(kept.mean()), sd, float(quantile((1 - confidence) / 2, n - 1) * sd / sqrt(n)))


def select(records: pandas.DataFrame, **conditions: object) -> pandas.DataFrame:
    """The records whose labels have these values.

    Raises:
        KeyError: a condition names a label that the records do not have.
    """
    chosen = numpy.ones(len(records), dtype=bool)
    for name, value in conditions.items():
        if name not in records.columns:
            raise KeyError(f"the records have no label '{name}'; columns: {', '.join(map(str, records.columns))}")
        chosen &= (records[name] == value).to_numpy(dtype=bool)
    return records[chosen]


def by_seed(records: pandas.DataFrame, metric: str) -> dict[int, float]:
    """The metric by seed, for the records of one arm in one condition; seeds without it are left out.

    Raises:
        ValueError: two records of one seed: the conditions do not single out one arm in one condition.
    """
    found: dict[int, float] = {}
    if metric not in records.columns:
        return found
    for seed, value in zip(records["seed"].tolist(), records[metric].tolist(), strict=True):
        if pandas.isna(value):
            continue
        if seed in found:
            raise ValueError(f"more than one record of {metric} for seed {seed}: name the conditions that differ")
        found[seed] = float(value)
    return found


def class_by_seed(records: pandas.DataFrame) -> dict[int, str]:
    """The numerics class by seed, for the records of one arm in one condition; empty where it is not recorded."""
    if "numerics" not in records:
        return dict.fromkeys(records["seed"].tolist(), "")
    return dict(zip(records["seed"].tolist(), records["numerics"].fillna("").tolist(), strict=True))


def paired(
    records: pandas.DataFrame,
    treatment: str,
    control: str,
    metric: str,
    confidence: float = 0.95,
    **conditions: object,
) -> PairedResult:
    """Paired difference of two arms over their common seeds, by the spread of these differences alone.

    A page compares its arms by :func:`studies.suite.analysis.comparison.compare`, which pools spreads and keeps to the
    declared readings.

    Args:
        records: one row per run, with columns arm, seed, the labels in ``conditions`` and the metric.
    """
    needed = [name for name in ("arm", "seed", "numerics", metric, *conditions) if name in records.columns]
    chosen = select(records[needed], **conditions)
    parts = [select(chosen, arm=name) for name in (treatment, control)]
    first, second = (by_seed(part, metric) for part in parts)
    common, mixed = pairs_of(first, second, *map(class_by_seed, parts))
    result = difference_of(common, [first[seed] - second[seed] for seed in common], confidence)
    return replace(result, mixed=mixed)


def pairs_of(
    first: Mapping[int, float], second: Mapping[int, float], classes: Mapping[int, str], others: Mapping[int, str]
) -> tuple[list[int], tuple[int, ...]]:
    """The seeds that are pairs, and those that are not because the two runs are of different numerics classes."""
    common = sorted(set(first) & set(second))
    mixed = tuple(seed for seed in common if classes[seed] != others[seed])
    return [seed for seed in common if seed not in mixed], mixed


def difference_of(
    seeds: Sequence[int],
    differences: Sequence[float],
    confidence: float = 0.95,
    pooled: tuple[float, int] | None = None,
    is_read: bool = True,
) -> PairedResult:
    """The paired result of given differences, one per seed.

    Args:
        pooled: standard deviation of a difference and its degrees of freedom, in the place of the differences' own.
        is_read: whether an outcome may be stated, see :class:`PairedResult`.
    """
    seeds, values = tuple(int(seed) for seed in seeds), tuple(float(value) for value in differences)
    summary, alpha = estimate(values, confidence), (1 - confidence) / 2
    if not summary.sd or summary.sd < 1e-12:
        sd = None if summary.sd is None else 0.0
        nothing = (None,) * 4
        return PairedResult(summary.n, summary.mean, sd, *nothing, seeds, values, alpha=alpha, is_read=is_read)
    spread, df = pooled or (summary.sd, summary.n - 1)
    error = spread / sqrt(summary.n)
    half = quantile(alpha, df) * error
    return PairedResult(
        n=summary.n,
        mean=summary.mean,
        sd=summary.sd,
        ci_low=summary.mean - half,
        ci_high=summary.mean + half,
        p=float(2 * special.stdtr(df, -abs(summary.mean / error))),
        dz=summary.mean / summary.sd,
        seeds=seeds,
        differences=values,
        spread=spread,
        df=df,
        alpha=alpha,
        is_pooled=pooled is not None,
        is_read=is_read,
    )


def equivalence(result: PairedResult, margin: float) -> float | None:
    """p of the two one-sided t tests (Schuirmann 1987): below 0.05, the mean lies within ± ``margin`` at 95 %.

    None where the spread is unknown.
    """
    if not result.spread:
        return None
    error = result.spread / sqrt(result.n)
    gaps = ((result.mean + margin) / error, (margin - result.mean) / error)
    return float(max(special.stdtr(result.df, -gap) for gap in gaps))


def spread_interval(sd: float, df: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a standard deviation that was estimated with ``df`` degrees of freedom (chi-squared)."""
    tail = (1 - confidence) / 2
    low, high = (sd * sqrt(df / float(stats.chi2.ppf(at, df))) for at in (1 - tail, tail))
    return low, high


@cache
def least_margin(
    n: int, sd: float, power: float = 0.8, alpha: float = 0.05, paired: bool = True, df: int | None = None
) -> float:
    """The true difference that a two-sided t test with ``n`` seeds (per arm) finds with the given power.

    Args:
        df: degrees of freedom of ``sd``, see :func:`t_power`.
    """
    high = sd / 8
    while t_power(n, sd, high, alpha, paired, df) < power:
        high *= 2
    return float(optimize.brentq(lambda effect: t_power(n, sd, effect, alpha, paired, df) - power, 0.0, high))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p values, in the order given (Holm 1979, Scand. J. Statist. 6, 65-70).

    An unknown p (None) stays None and still counts as a test: declaring a contrast costs its share, run or not.
    """
    known = sorted((p, position) for position, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, position) in enumerate(known):
        largest = max(largest, min(1.0, (len(ps) - rank) * p))
        adjusted[position] = largest
    return adjusted


def t_power(n: int, sd: float, effect: float, alpha: float = 0.05, paired: bool = True, df: int | None = None) -> float:
    """Probability that a two-sided t test with ``n`` seeds (per arm) finds a true difference of ``effect``.

    Args:
        sd: of the paired differences, or, with ``paired=False``, of each arm over its seeds.
        df: degrees of freedom of ``sd``; those of the n seeds where None.
    """
    own, scale = (n - 1, sqrt(n)) if paired else (2 * n - 2, sqrt(n / 2))
    df = own if df is None else df
    critical, ncp = quantile(alpha / 2, df), abs(effect) / sd * scale
    # scipy returns NaN where a tail is beyond what it can compute: 1 above, 0 below for an effect that large
    above = numpy.nan_to_num(stats.nct.sf(critical, df, ncp), nan=1.0)
    return float(above + numpy.nan_to_num(stats.nct.cdf(-critical, df, ncp), nan=0.0))


def seeds_needed(
    sd: float | None, effect: float, power: float = 0.8, alpha: float = 0.05, paired: bool = True
) -> int | None:
    """The fewest seeds (per arm) with which a two-sided t test finds ``effect`` with the given power.

    None where no number can be given: unknown or zero spread, no effect, or more than 100,000 seeds.
    """
    if not sd or not isfinite(sd) or not effect:
        return None
    return _fewest(lambda n: t_power(n, sd, effect, alpha, paired) >= power)


def seeds_interval(
    sd: float | None, df: int | None, effect: float, power: float = 0.8, alpha: float = 0.05, paired: bool = True
) -> tuple[int, int] | None:
    """The 95 % interval of :func:`seeds_needed`: the numbers of seeds at the ends of the interval of the spread.

    A number of seeds that is computed from the spread of few seeds is itself uncertain: with 4 degrees of freedom its
    interval reaches from 0.36 to 8.3 times the number.

    Args:
        df: degrees of freedom of ``sd``.

    Returns:
        None where no number can be given, see :func:`seeds_needed`.
    """
    if not sd or not df:
        return None
    low, high = (seeds_needed(each, effect, power, alpha, paired) for each in spread_interval(sd, df))
    return None if low is None or high is None else (low, high)


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """The smallest n >= 2 with ``enough(n)``, for a condition that is monotone in n; by doubling, then bisection."""
    low, high = 1, 2
    while not enough(high):
        low, high = high, high * 2
        if high > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
