"""The written rule that turns paired differences into supported, contradicted or undecided. Nobody types a verdict.

A claim is a family of k declared contrasts (those that share their ``claim``) and says that in *every* one of them the
treatment is better than the control. For each contrast, d is the paired difference over seeds and SESOI the declared
smallest difference of interest:

- a contrast *holds* when the lower end of the two-sided 95 % t interval of d is above 0;
- a contrast *fails* when the upper one-sided t bound of d at error 0.025 / k is below SESOI: a difference worth having
  is excluded, be it that there is none, a smaller one or one of the other sign.

The claim is contradicted when at least one contrast fails; supported when every contrast holds and none fails;
undecided otherwise. "Every contrast holds" is an intersection-union test (Berger 1982, Technometrics 24, 295-300): its
error stays 0.025 without a correction. "At least one fails" picks the best of k tests and therefore divides by k.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas

from studies.suite.statistics import PairedResult, paired, seeds_needed, seeds_to_narrow
from studies.suite.study import Contrast

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
ALPHA = 0.025  # one-sided, each way


@dataclass(frozen=True)
class Part:
    """One contrast of a claim: its paired result, its upper bound at error 0.025 / k, and what the rule says of it.

    ``outcome`` is "holds", "fails" or "open"; ``narrow`` is the number of seeds that would close it whatever the mean,
    ``powered`` the number that finds a true difference of SESOI with 80 % power, both if the spread stays.
    """

    contrast: Contrast
    result: PairedResult
    upper: float | None
    outcome: str
    narrow: int | None
    powered: int | None


@dataclass(frozen=True)
class Verdict:
    """What the rule says of a claim. ``seeds``: how many would decide it (None: decided, or no spread is known yet)."""

    claim: str
    outcome: str
    parts: tuple[Part, ...]
    seeds: int | None

    def with_outcome(self, outcome: str) -> tuple[Part, ...]:
        """The contrasts that hold, fail or are open."""
        return tuple(part for part in self.parts if part.outcome == outcome)

    @property
    def n(self) -> tuple[int, int]:
        """Fewest and most pairs among the contrasts."""
        counts = [part.result.n for part in self.parts]
        return min(counts), max(counts)


def family(contrasts: Sequence[Contrast], primary: str) -> tuple[Contrast, ...]:
    """The contrasts that share the claim of the one named ``primary``: judged together, every one must hold.

    Raises:
        KeyError: no contrast of that name.
    """
    claims = {contrast.name: contrast.claim for contrast in contrasts}
    return tuple(contrast for contrast in contrasts if contrast.claim == claims[primary])


def judge(records: pandas.DataFrame, contrasts: Sequence[Contrast]) -> Verdict:
    """Apply the rule to one claim.

    Args:
        records: one row per run with its labels and metrics.
        contrasts: the k contrasts of the claim, with their conditions.

    Raises:
        ValueError: no contrast, or contrasts of different claims.
    """
    claims = {contrast.claim for contrast in contrasts}
    if len(claims) != 1:
        raise ValueError(f"one claim is judged at a time, got {len(claims)}")
    parts = tuple(_part(records, contrast, ALPHA / len(contrasts)) for contrast in contrasts)
    outcomes = {part.outcome for part in parts}
    if "fails" in outcomes:
        outcome = CONTRADICTED
    else:
        outcome = SUPPORTED if outcomes == {"holds"} else UNDECIDED
    return Verdict(claims.pop(), outcome, parts, _deciding(parts) if outcome == UNDECIDED else None)


def _part(records: pandas.DataFrame, contrast: Contrast, alpha_high: float) -> Part:
    conditions = contrast.conditions
    result = paired(records, contrast.treatment, contrast.control, contrast.metric, **conditions)
    upper = result.bound("upper", alpha_high)
    outcome = "open"
    if upper is not None and upper < contrast.sesoi:
        outcome = "fails"
    elif result.ci_low is not None and result.ci_low > 0:
        outcome = "holds"
    narrow = seeds_to_narrow(result.sd, contrast.sesoi, ALPHA, alpha_high)
    return Part(contrast, result, upper, outcome, narrow, seeds_needed(result.sd, contrast.sesoi))


def _deciding(parts: Sequence[Part]) -> int | None:
    """Seeds after which every open contrast is closed, if spreads stay; None while one of them has no spread."""
    needs = [part.narrow for part in parts if part.outcome == "open"]
    return None if None in needs else max(needs)


def rule(k: int, sesoi: str) -> str:
    """The rule as the page prints it, for k contrasts and a SESOI written with its unit."""
    return (
        f"The claim is made of {k} contrasts, each a paired difference over seeds (treatment - control), and says that "
        "every one of them is above 0. A contrast **holds** when its two-sided 95 % Student-t interval lies above 0. It "
        f"**fails** when its upper one-sided bound at error 0.025 / {k} lies below {sesoi}, the smallest difference of "
        "interest declared before the runs. The claim is **contradicted** when at least one contrast fails, "
        "**supported** when all hold and none fails, **undecided** otherwise. \"All hold\" needs no correction for "
        f"multiple tests (intersection-union); \"at least one fails\" is corrected by the {k}. \"Seeds that would "
        "decide\" is the number of pairs at which every open contrast must hold or fail whatever its mean, if its "
        "spread stays as observed."
    )


def sentence(verdict: Verdict, amount: Callable[[PairedResult], str], name: Callable[[Contrast], str]) -> str:
    """The answer in one sentence, from the numbers alone.

    Args:
        amount: writes a difference with its interval and n ("+1.2 points [0.4, 2.0], n = 5").
        name: writes what a contrast compares, with its conditions ("SCD - MoCo at equal epochs, ρ = 0.8").
    """
    parts, k = verdict.parts, len(verdict.parts)
    missing = [part for part in parts if part.result.n == 0]
    if verdict.outcome == CONTRADICTED:
        worst = min(verdict.with_outcome("fails"), key=lambda part: part.upper - part.contrast.sesoi)
        rest = len(verdict.with_outcome("fails")) - 1
        also = f"; so do {rest} more of the {k} contrasts" if rest else f"; {k - 1} other contrasts do not fail"
        also = also if k > 1 else ""
        return (
            f"**Contradicted.** {verdict.claim}: no, {name(worst.contrast)} is {amount(worst.result)}, which excludes "
            f"the smallest difference of interest{also}."
        )
    if verdict.outcome == SUPPORTED:
        closest = min(parts, key=lambda part: part.result.ci_low)
        every = f"all {k} contrasts are above 0; the closest, " if k > 1 else ""
        return f"**Supported.** {verdict.claim}: yes, {every}{name(closest.contrast)}, is {amount(closest.result)}."
    if len(missing) == k:
        return f"**Undecided.** {verdict.claim}: no pair of seeds has finished yet."
    seen = [part for part in parts if part.outcome == "open" and part.result.n]
    weakest = min(seen or parts, key=lambda part: part.result.mean)
    holds = len(verdict.with_outcome("holds"))
    count = f"{holds} of {k} contrasts are above 0, {k - holds} are open" if k > 1 else "the contrast is open"
    absent = f", {len(missing)} of them without a pair of seeds" if missing else ""
    if verdict.seeds is not None:
        decide = f"{verdict.seeds} paired seeds would decide"
    else:
        decide = "no number of seeds that would decide can be given before each contrast has two pairs that differ"
    return (
        f"**Undecided.** {verdict.claim}: {count}{absent}; the lowest open one, {name(weakest.contrast)}, is "
        f"{amount(weakest.result)}; {decide}."
    )
