"""The written rule that turns paired differences into an outcome per contrast and an answer per claim.

For a contrast, d is the paired difference over seeds, counted so that d > 0 is an advantage of the treatment, and SESOI
the smallest effect of interest that the study declares before its runs. With the two-sided 95 % Student-t interval of d
a contrast is

- *better* when the interval lies above 0, *worse* when it lies below 0;
- *equivalent* when the interval contains 0 and lies within ± SESOI;
- *not resolved* otherwise. The page then states the smallest true difference that a t test with as many seeds and the
  same spread finds in 80 % of cases.

A claim is a family of k contrasts (those that share their ``claim``) and says that the treatment is better in all of
them. A contrast *excludes* an effect of interest when it is not better and the upper one-sided t bound of d at error
0.025 / k lies below SESOI: it is worse, equivalent, or too small to be of interest. The positive control of a contrast
is a known effect, measured in the same conditions, that must come out *better* for the page to be able to see effects
at all. The claim is

- *supported* when all k contrasts are better;
- *contradicted* when at least one contrast whose positive control is better excludes an effect of interest;
- *uninformative* when it is neither and the positive control of a contrast that is not better is not better itself;
- *not resolved* otherwise.

"All are better" is an intersection-union test (Berger 1982, Technometrics 24, 295-300): if d <= 0 in any contrast, the
claim is supported with probability 0.025 at most, without a correction. "At least one excludes" picks the best of k
tests and divides by k: if d >= SESOI in all contrasts, the claim is contradicted with probability 0.025 at most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import PairedResult, least_margin, paired
from studies.suite.planning.study import Contrast

BETTER, WORSE, EQUIVALENT, NOT_RESOLVED = "better", "worse", "equivalent", "not resolved"
SUPPORTED, CONTRADICTED, UNINFORMATIVE = "supported", "contradicted", "uninformative"
OUTCOMES = (BETTER, WORSE, EQUIVALENT, NOT_RESOLVED)
ALPHA = 0.025  # one-sided, each way


@dataclass(frozen=True)
class Finding:
    """What the runs say of one contrast.

    Attributes:
        contrast: with its conditions.
        gain: the paired result, positive where the treatment has the advantage.
        outcome: one of ``OUTCOMES``.
        detectable: the true difference that a test with these seeds and this spread finds with 80 % power, in the
            metric's unit; None where the spread is unknown.
    """

    contrast: Contrast
    gain: PairedResult
    outcome: str
    detectable: float | None

    def excludes_interest(self, k: int) -> bool:
        """Whether, as one of ``k`` contrasts, it excludes an effect of interest."""
        upper = self.gain.bound("upper", ALPHA / k)
        return self.outcome != BETTER and upper is not None and upper < self.contrast.sesoi


@dataclass(frozen=True)
class Verdict:
    """A claim with its findings and its positive controls.

    Attributes:
        claim: in words.
        findings: of the contrasts, or of some of them, see :meth:`within`.
        controls: findings of the positive controls, in the same conditions; empty where the study declares none.
        k: the number of contrasts that the claim is made of.
    """

    claim: str
    findings: tuple[Finding, ...]
    controls: tuple[Finding, ...]
    k: int

    @property
    def outcome(self) -> str:
        """ "supported", "contradicted", "uninformative" or "not resolved"."""
        open_ones = [finding for finding in self.findings if finding.outcome != BETTER]
        if not open_ones:
            return SUPPORTED
        if any(finding.excludes_interest(self.k) and self.is_informative(finding) for finding in open_ones):
            return CONTRADICTED
        measured = any(finding.gain.n for finding in self.findings)
        blind = any(not self.is_informative(finding) for finding in open_ones)
        return UNINFORMATIVE if measured and blind else NOT_RESOLVED

    def is_informative(self, finding: Finding) -> bool:
        """Whether every positive control in the conditions of a finding is better."""
        return all(
            control.outcome == BETTER
            for control in self.controls
            if control.contrast.conditions == finding.contrast.conditions
        )

    def having(self, outcome: str) -> tuple[Finding, ...]:
        """The findings of one outcome."""
        return tuple(finding for finding in self.findings if finding.outcome == outcome)

    def within(self, conditions: Mapping[str, object]) -> "Verdict":
        """The verdict on the part of the claim in these conditions, corrected for all k contrasts."""
        findings, controls = (
            tuple(finding for finding in group if finding.contrast.conditions == conditions)
            for group in (self.findings, self.controls)
        )
        return Verdict(self.claim, findings, controls, self.k)


def measure(results: Results, contrast: Contrast) -> PairedResult:
    """The paired difference of one contrast in its conditions, treatment minus control."""
    return paired(results.finished, contrast.treatment, contrast.control, contrast.metric, **contrast.conditions)


def find(results: Results, contrast: Contrast) -> Finding:
    """The outcome of one contrast."""
    result = measure(results, contrast)
    gain = result.negated() if results.metric(contrast.metric).better == "lower" else result
    detectable = least_margin(gain.n, gain.sd) if gain.sd else None
    return Finding(contrast, gain, outcome_of(gain, contrast.sesoi), detectable)


def outcome_of(gain: PairedResult, sesoi: float) -> str:
    """One of ``OUTCOMES``, from the 95 % interval of a difference and the smallest effect of interest."""
    if gain.ci_low is None:
        return NOT_RESOLVED
    if gain.ci_low > 0:
        return BETTER
    if gain.ci_high < 0:
        return WORSE
    return EQUIVALENT if -sesoi < gain.ci_low and gain.ci_high < sesoi else NOT_RESOLVED


def family(contrasts: Sequence[Contrast], claim: str) -> tuple[Contrast, ...]:
    """The contrasts that share a claim, which are judged together."""
    return tuple(contrast for contrast in contrasts if contrast.claim == claim)


def judge(results: Results, contrasts: Sequence[Contrast], controls: Sequence[Finding]) -> Verdict:
    """Apply the rule to one claim.

    Args:
        contrasts: the k contrasts of the claim, with their conditions.
        controls: findings of its positive controls; conditions as in the contrasts.

    Raises:
        ValueError: no contrast, or contrasts of different claims.
    """
    claims = {contrast.claim for contrast in contrasts}
    if len(claims) != 1:
        raise ValueError(f"one claim is judged at a time, got {len(claims)}")
    findings = tuple(find(results, contrast) for contrast in contrasts)
    return Verdict(claims.pop(), findings, tuple(controls), len(findings))


def rule(k: int, sesoi: str, has_control: bool = True) -> tuple[str, ...]:
    """The rule as the page prints it, in paragraphs.

    Args:
        k: the number of contrasts in the claim.
        sesoi: the smallest effect of interest with its unit.
        has_control: whether the study declares a positive control.
    """
    each = (
        "A contrast is a paired difference over seeds, treatment minus control. With its two-sided 95 % Student-t "
        "interval it is **better** (the interval lies above 0), **worse** (below 0), **equivalent** (it contains 0 and "
        f"lies within ± {sesoi}, the smallest effect of interest that the study declares), or **not resolved**. The "
        "detectable difference is the true difference that a t test with as many seeds and this spread finds in 80 % "
        "of cases."
    )
    whole = "it is" if k == 1 else f"all of its {k} contrasts are"
    claim = [
        f"The claim is **supported** when {whole} better. It is **contradicted** when "
        f"{'it' if k == 1 else 'one of them'} is not better and has an upper one-sided bound, at error "
        f"0.025{'' if k == 1 else f' / {k}'}, below the smallest effect of "
        f"interest{', while its positive control is better' if has_control else ''}."
    ]
    if k > 1:
        claim.append(
            "Support needs no correction, because every contrast must be better (intersection-union test); the error "
            f"of a contradiction is divided by {k}, because one contrast is enough for it."
        )
    if has_control:
        claim.append(
            "It is **uninformative** when neither is the case and the positive control of a contrast that is not "
            "better is not better itself: the page could not have seen the effect."
        )
    claim.append("Otherwise it is **not resolved**.")
    return each, " ".join(claim)
