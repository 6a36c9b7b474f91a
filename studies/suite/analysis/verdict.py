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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas

from studies.suite.analysis.statistics import PairedResult, paired, seeds_until
from studies.suite.planning.study import Contrast

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
ALPHA = 0.025  # one-sided, each way


@dataclass(frozen=True)
class Part:
    """One contrast of a claim: its paired result, its upper bound at error 0.025 / k, and what the rule says of it.

    ``outcome`` is "holds", "fails" or "open". If mean and spread stay as they are, it ``holds_at`` and ``fails_at`` so
    many seeds; None: never, or there is no spread to tell from.
    """

    contrast: Contrast
    result: PairedResult
    upper: float | None
    outcome: str
    holds_at: int | None
    fails_at: int | None


@dataclass(frozen=True)
class Verdict:
    """What the rule says of a claim, from its parts."""

    claim: str
    parts: tuple[Part, ...]

    @property
    def outcome(self) -> str:
        """ "supported", "contradicted" or "undecided"."""
        outcomes = {part.outcome for part in self.parts}
        if "fails" in outcomes:
            return CONTRADICTED
        return SUPPORTED if outcomes == {"holds"} else UNDECIDED

    @property
    def seeds(self) -> int | None:
        """With how many seeds the claim would be decided, if means and spreads stay as they are.

        The number at which the first contrast fails, or at which all hold. None: it is decided, or a contrast has no
        spread yet.
        """
        if self.outcome != UNDECIDED or any(not part.result.sd for part in self.parts):
            return None
        failing = [part.fails_at for part in self.parts if part.fails_at is not None]
        holding = [part.holds_at for part in self.parts]
        routes = failing + ([max(holding)] if None not in holding else [])
        return min(routes, default=None)

    def having(self, outcome: str) -> tuple[Part, ...]:
        """The contrasts that hold, fail or are open."""
        return tuple(part for part in self.parts if part.outcome == outcome)

    def within(self, conditions: Mapping[str, object]) -> "Verdict":
        """The verdict on the part of the claim in these conditions, by the same bounds, corrected by all k."""
        return Verdict(self.claim, tuple(part for part in self.parts if part.contrast.conditions == conditions))


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
    return Verdict(claims.pop(), tuple(_part(records, contrast, ALPHA / len(contrasts)) for contrast in contrasts))


def _part(records: pandas.DataFrame, contrast: Contrast, alpha_high: float) -> Part:
    sesoi = contrast.sesoi
    result = paired(records, contrast.treatment, contrast.control, contrast.metric, **contrast.conditions)
    upper = result.bound("upper", alpha_high)
    outcome = "open"
    if upper is not None and upper < sesoi:
        outcome = "fails"
    elif result.ci_low is not None and result.ci_low > 0:
        outcome = "holds"
    if outcome != "open":
        reached = {"holds": (result.n, None), "fails": (None, result.n)}[outcome]
        return Part(contrast, result, upper, outcome, *reached)
    alphas = (ALPHA, alpha_high)
    holds_at = seeds_until(lambda low, high: low > 0, result.mean, result.sd, alphas)
    fails_at = seeds_until(lambda low, high: high < sesoi, result.mean, result.sd, alphas)
    return Part(contrast, result, upper, outcome, holds_at, fails_at)


def rule(k: int, sesoi: str) -> str:
    """The rule as the page prints it, for k contrasts and a SESOI written with its unit."""
    guess = "if means and spreads stay as observed; they are an extrapolation from few seeds."
    if k == 1:
        return (
            "The claim is one contrast, a paired difference over seeds (treatment minus control), and says that it is "
            "above 0. It is **supported** when its two-sided 95 % Student-t interval lies above 0, **contradicted** "
            f"when its upper one-sided bound at error 0.025 lies below {sesoi}, the smallest difference of interest "
            "declared before the runs, **undecided** otherwise. The seeds that would decide are the pairs at which it "
            f"is the one or the other, {guess}"
        )
    return (
        f"The claim is made of {k} contrasts, each a paired difference over seeds (treatment minus control), and says "
        "that every one of them is above 0. A contrast **holds** when its two-sided 95 % Student-t interval lies above "
        f"0. It **fails** when its upper one-sided bound at error 0.025 / {k} lies below {sesoi}, the smallest "
        "difference of interest declared before the runs. The claim is **contradicted** when at least one contrast "
        "fails, **supported** when all hold and none fails, **undecided** otherwise. That all hold needs no correction "
        f"for multiple tests (intersection-union); that at least one fails is corrected by the {k}. The seeds that "
        f"would decide are the pairs at which the first contrast fails, or all hold, {guess}"
    )


def sentence(verdict: Verdict, amount: Callable[[PairedResult], str], name: Callable[[Contrast], str]) -> str:
    """The answer in one sentence, from the numbers alone.

    Args:
        amount: writes a difference with its interval and n ("+1.20 points [+0.40, +2.00], n = 5 pairs").
        name: writes what a contrast compares and where ("SCD vs. MoCo at equal epochs, ρ = 0.8").
    """
    parts, k = verdict.parts, len(verdict.parts)
    if verdict.outcome == CONTRADICTED:
        worst = min(verdict.having("fails"), key=lambda part: part.upper - part.contrast.sesoi)
        more = f" ({len(verdict.having('fails'))} of {k} contrasts fail)" if k > 1 else ""
        return (
            f"**Contradicted:** it does not hold that {verdict.claim}; {name(worst.contrast)}: "
            f"{amount(worst.result)}, which excludes the smallest difference of interest{more}."
        )
    if verdict.outcome == SUPPORTED:
        closest = min(parts, key=lambda part: part.result.ci_low)
        every = f"all {k} contrasts are above 0, the closest being " if k > 1 else ""
        return f"**Supported:** {verdict.claim}; {every}{name(closest.contrast)}: {amount(closest.result)}."
    seen = [part for part in verdict.having("open") if part.result.n]
    if not seen:
        return f"**Undecided** whether {verdict.claim}: no contrast has a pair of seeds yet."
    lowest = min(seen, key=lambda part: part.result.mean)
    decide = "no number of seeds can be given before every contrast has two pairs that differ"
    if verdict.seeds is not None:
        decide = f"about {verdict.seeds} paired seeds would decide, if means and spreads stay as they are"
    counted = ""
    if k > 1:
        absent = sum(part.result.n == 0 for part in parts)
        counted = f"{len(verdict.having('holds'))} of {k} contrasts are above 0, none fails"
        counted += f", {absent} have no pair of seeds" if absent else ""
        counted += "; the lowest open one is "
    found = f"{counted}{name(lowest.contrast)}: {amount(lowest.result)}"
    return f"**Undecided** whether {verdict.claim}: {found}; {decide}."
