"""The written rule that turns paired differences into an outcome per contrast and an answer per claim.

For a contrast, d is the paired difference over seeds, counted so that d > 0 is an advantage of the treatment, and SESOI
the smallest effect of interest that the study declares before its runs. The interval of d is a two-sided Student-t
interval; its spread is pooled over the arms of the page (spread.py) and its error shared among the declared readings
(readings.py). A contrast is

- *better* when the interval lies above 0, *worse* when it lies below 0; where the whole interval also lies within
  ± SESOI, it is better or worse *by less than the smallest effect of interest*;
- *equivalent* when the interval contains 0 and lies within ± SESOI;
- *not resolved* otherwise, and before the first reading. The page then states the smallest true difference that a t
  test with as many seeds, the same spread and the same error finds in 80 % of cases.

A claim is a family of k contrasts (those of a :class:`Claim`, or those that share their ``claim``) and says that the
treatment is better in all of them, or, where it is declared so, in some of them.
A contrast *excludes* an effect of interest when it is not better and the upper
one-sided t bound of d lies below SESOI, at the error of its interval's upper end divided by k: it is worse, equivalent,
or too small to be of interest. The positive control of a contrast is a known effect, measured in the same conditions,
that must come out *better* for the page to be able to see effects at all. The claim is

- *supported* when all k contrasts are better, by however little: a small advantage is no evidence against one;
- *contradicted* when at least one contrast excludes an effect of interest, and its positive control is better or the
  bound itself lies below 0: a page that resolves a disadvantage has seen a difference, whatever its control shows;
- *uninformative* when it is neither and the positive control of a contrast that is not better is measured and not
  better itself;
- *not resolved* otherwise.

"All are better" is an intersection-union test (Berger 1982, Technometrics 24, 295-300): if d <= 0 in any contrast, the
claim is supported with probability 0.025 at most over all readings, without a further correction. "At least one
excludes" picks the best of k tests and divides by k: if d >= SESOI in all contrasts, the claim is contradicted with
probability 0.025 at most over all readings.

"Some are better" is a union of k contrasts. It is *supported* when one lower one-sided bound of d, at the error of one
end divided by k (Bonferroni), lies above 0; it is *contradicted* when all k contrasts exclude an effect of interest,
each at the whole error of one end (intersection-union test) and with its positive control better or its bound below 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from studies.suite.analysis.comparison import compare
from studies.suite.analysis.conditions import Condition, cross_conditions, fall_back_to_metric, fit_conditions
from studies.suite.analysis.readings import level, looks_in_words
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import PairedResult, least_margin
from studies.suite.planning.study import Claim, Contrast, Study

BETTER, WORSE, EQUIVALENT, NOT_RESOLVED = "better", "worse", "equivalent", "not resolved"
SUPPORTED, CONTRADICTED, UNINFORMATIVE = "supported", "contradicted", "uninformative"
OUTCOMES = (BETTER, WORSE, EQUIVALENT, NOT_RESOLVED)


@dataclass(frozen=True)
class Finding:
    """What the runs say of one contrast.

    Attributes:
        contrast: with its conditions.
        gain: the paired result, positive where the treatment has the advantage.
        outcome: one of ``OUTCOMES``.
        detectable: the true difference that a test with these seeds, this spread and this error finds with 80 % power,
            in the metric's unit; None where the spread is unknown.
    """

    contrast: Contrast
    gain: PairedResult
    outcome: str
    detectable: float | None

    @property
    def is_small(self) -> bool:
        """Whether a difference that is not 0 is smaller than the smallest effect of interest, by its whole interval."""
        inside = self.gain.ci_low is not None and max(abs(self.gain.ci_low), abs(self.gain.ci_high))
        return self.outcome in (BETTER, WORSE) and inside < self.contrast.sesoi

    def excludes_interest(self, k: int) -> bool:
        """Whether, as one of ``k`` contrasts, it excludes an effect of interest."""
        return self._is_below(self.contrast.sesoi, k)

    def is_worse_of(self, k: int) -> bool:
        """Whether it is worse after correction for a choice among ``k`` contrasts."""
        return self._is_below(0.0, k)

    def _is_below(self, value: float, k: int) -> bool:
        if self.outcome == BETTER or not self.gain.is_read:
            return False
        upper = self.gain.bound("upper", self.gain.alpha / k)
        return upper is not None and upper < value

    def is_better_of(self, k: int) -> bool:
        """Whether it is better after correction for a choice among ``k`` contrasts."""
        lower = self.gain.bound("lower", self.gain.alpha / k) if self.gain.is_read else None
        return lower is not None and lower > 0


@dataclass(frozen=True)
class Verdict:
    """A claim with its findings and its positive controls.

    Attributes:
        claim: in words.
        findings: of the contrasts, or of some of them, see :meth:`within`.
        controls: findings of the positive controls, in the same conditions; empty where the study declares none.
        k: the number of contrasts that the claim is made of.
        some: whether the claim says that some contrasts are better, and not all.
    """

    claim: str
    findings: tuple[Finding, ...]
    controls: tuple[Finding, ...]
    k: int
    some: bool = False

    @property
    def outcome(self) -> str:
        """ "supported", "contradicted", "uninformative" or "not resolved"."""
        if self.supporting if self.some else not self.open_ones:
            return SUPPORTED
        if all(map(self.contradicts, self.findings)) if self.some else any(map(self.contradicts, self.findings)):
            return CONTRADICTED
        return UNINFORMATIVE if any(map(_is_measured, self.findings)) and self.failed_controls else NOT_RESOLVED

    def contradicts(self, finding: Finding) -> bool:
        """Whether a finding speaks against the claim: no advantage of interest where one could be seen, or worse."""
        k = 1 if self.some else self.k
        return finding.excludes_interest(k) and (self.is_informative(finding) or finding.is_worse_of(k))

    @property
    def open_ones(self) -> tuple[Finding, ...]:
        """The findings that are not better."""
        return tuple(finding for finding in self.findings if finding.outcome != BETTER)

    @property
    def supporting(self) -> tuple[Finding, ...]:
        """The findings that are better, corrected where one of them is enough."""
        if self.some:
            return tuple(finding for finding in self.findings if finding.is_better_of(self.k))
        return self.having(BETTER)

    @property
    def failed_controls(self) -> tuple[Finding, ...]:
        """The measured positive controls of findings that are not better, which are not better themselves."""
        of_open = {control.contrast.name: control for each in self.open_ones for control in self.controls_of(each)}
        return tuple(each for each in of_open.values() if _is_measured(each) and each.outcome != BETTER)

    def controls_of(self, finding: Finding) -> tuple[Finding, ...]:
        """The positive controls in the conditions of a finding."""
        return tuple(each for each in self.controls if each.contrast.conditions == finding.contrast.conditions)

    def is_informative(self, finding: Finding) -> bool:
        """Whether every positive control in the conditions of a finding is better; one without runs is not."""
        return all(control.outcome == BETTER for control in self.controls_of(finding))

    @property
    def is_small(self) -> bool:
        """Whether the claim is supported, and every advantage is smaller than the smallest effect of interest."""
        return self.outcome == SUPPORTED and all(finding.is_small for finding in self.supporting)

    def having(self, outcome: str) -> tuple[Finding, ...]:
        """The findings of one outcome."""
        return tuple(finding for finding in self.findings if finding.outcome == outcome)

    def within(self, conditions: Mapping[str, object]) -> "Verdict":
        """The verdict on the part of the claim in these conditions, corrected for all k contrasts."""
        findings, controls = (
            tuple(finding for finding in group if finding.contrast.conditions == conditions)
            for group in (self.findings, self.controls)
        )
        return Verdict(self.claim, findings, controls, self.k, self.some)


def _is_measured(finding: Finding) -> bool:
    """Whether a contrast has two pairs of seeds at least, and may be read."""
    return finding.gain.n > 1 and finding.gain.is_read


def measure(results: Results, contrast: Contrast) -> PairedResult:
    """The paired difference of one contrast in its conditions, treatment minus control."""
    return compare(
        results, contrast.treatment, contrast.control, contrast.metric, contrast.looks, **contrast.conditions
    )


def find(results: Results, contrast: Contrast) -> Finding:
    """The outcome of one contrast."""
    result = measure(results, contrast)
    gain = result.negated() if results.metric(contrast.metric).better == "lower" else result
    detectable = least_margin(gain.n, gain.spread, alpha=2 * gain.alpha, df=gain.df) if gain.spread else None
    return Finding(contrast, gain, outcome_of(gain, contrast.sesoi), detectable)


def outcome_of(gain: PairedResult, sesoi: float) -> str:
    """One of ``OUTCOMES``, from the interval of a difference and the smallest effect of interest."""
    if gain.ci_low is None or not gain.is_read:
        return NOT_RESOLVED
    if gain.ci_low > 0:
        return BETTER
    if gain.ci_high < 0:
        return WORSE
    return EQUIVALENT if -sesoi < gain.ci_low and gain.ci_high < sesoi else NOT_RESOLVED


def family(contrasts: Sequence[Contrast], claim: str) -> tuple[Contrast, ...]:
    """The contrasts that share a claim, which are judged together."""
    return tuple(contrast for contrast in contrasts if contrast.claim == claim)


def judge(results: Results, contrasts: Sequence[Contrast], controls: Sequence[Finding], some: bool = False) -> Verdict:
    """Apply the rule to one claim.

    Args:
        contrasts: the k contrasts of the claim, with their conditions.
        controls: findings of its positive controls; conditions as in the contrasts.
        some: whether one better contrast is enough.

    Raises:
        ValueError: no contrast, or contrasts of different claims.
    """
    claims = {contrast.claim for contrast in contrasts}
    if len(claims) != 1:
        raise ValueError(f"one claim is judged at a time, got {len(claims)}")
    findings = tuple(find(results, contrast) for contrast in contrasts)
    return Verdict(claims.pop(), findings, tuple(controls), len(findings), some)


def judge_claims(study: Study, results: Results, claims: Sequence[Claim] | None = None) -> tuple[Verdict, ...]:
    """The verdicts of a study's claims, in their order.

    Args:
        claims: those that are judged; all where None.
    """
    verdicts = []
    for claim in study.claims if claims is None else claims:
        fitting = fall_back_to_metric(fit_conditions(claim.contrasts, results), results, study.fallback)
        contrasts = [replace(each, claim=claim.text) for each in fitting]
        declared = study.control if claim.controls is None else claim.controls
        controls = measure_controls(results, contrasts, fall_back_to_metric(declared, results, study.fallback))
        verdicts.append(judge(results, contrasts, controls, claim.some))
    return tuple(verdicts)


def measure_controls(
    results: Results, judged: Sequence[Contrast], controls: Sequence[Contrast] | Sequence[Finding]
) -> list[Finding]:
    """The findings of the positive controls in every condition of the judged contrasts."""
    found: list[Condition] = []
    for contrast in judged:
        if contrast.conditions not in found:
            found.append(contrast.conditions)
    declared = [control for control in controls if isinstance(control, Contrast)]
    measured = [control for control in controls if isinstance(control, Finding)]
    return measured + [find(results, control) for control in cross_conditions(declared, found)]


def joined(verdicts: Sequence[Verdict]) -> Verdict:
    """All findings and controls of several verdicts, each once, for what a page could have seen."""
    if len(verdicts) == 1:
        return verdicts[0]
    findings, controls = (
        tuple({each.contrast.name: each for verdict in verdicts for each in getattr(verdict, group)}.values())
        for group in ("findings", "controls")
    )
    return Verdict("", findings, controls, len(findings))


def rule(k: int, sesoi: str, has_control: bool = True, looks: Sequence[int] = (), some: int = 0) -> tuple[str, ...]:
    """The rule as the page prints it, in paragraphs.

    Args:
        k: the number of contrasts in the claim; the largest where several claims are judged by it.
        sesoi: the smallest effect of interest with its unit.
        has_control: whether the study declares a positive control.
        looks: the numbers of seeds at which the study reads its page; empty for a page that is read once.
        some: the number of contrasts of a claim that one better contrast supports; 0 where there is none.
    """
    each = (
        "A contrast is a paired difference over seeds, treatment minus control. With its two-sided Student-t interval "
        f"it is **better** (the interval lies above 0), **worse** (below 0), **equivalent** (it contains 0 and lies "
        f"within ± {sesoi}, the smallest effect of interest that the study declares), or **not resolved**. A contrast "
        "that is better or worse while its whole interval lies within the smallest effect of interest is so *by less "
        "than the smallest effect of interest*. The detectable difference is the true difference that a t test with as "
        "many seeds, this spread and this error finds in 80 % of cases."
    )
    pooled = (
        "The spread of a difference is estimated from all arms of its setting together, as arm + seed + residual: a "
        "difference has twice the residual variance. An arm that varies more than the others (one-sided F test at "
        "7 %), an arm that is declared to vary otherwise (random weights, training with labels), and a setting with "
        "fewer than three arms are not pooled: the contrast then has its own spread over seeds."
    )
    shared = "The interval has an error of 2.5 % at each end."
    if len(looks) > 1:
        shared = (
            f"The study may be read at {looks_in_words(looks)}. These readings share the error: each end of an "
            f"interval has {100 * level(looks):.2g} %, so that over all readings together each kind of false outcome "
            "has a probability of 2.5 % at most. A contrast is judged by the seeds of the last reading that it has "
            "reached."
        )
    elif looks:
        shared = f"The study is read once, at {looks_in_words(looks)}; the interval has an error of 2.5 % at each end."
    shared += (
        " These errors are those of differences that vary normally; by simulation they stay below 5 % with heavy tails "
        "(t with 3 degrees of freedom) and where one arm varies up to three times as much as the others."
    )
    seen = "its positive control is better or this bound lies below 0"
    whole = "it is" if k == 1 else f"all of its {k} contrasts are"
    claim = [
        f"The claim is **supported** when {whole} better. It is **contradicted** when "
        f"{'it' if k == 1 else 'one of them'} is not better and has an upper one-sided bound, at the error of one end"
        f"{'' if k == 1 else f' divided by {k}'}, below the smallest effect of "
        f"interest{f', while {seen}' if has_control else ''}."
    ]
    if some:
        claim.append(
            f"A claim about *at least one* of {some} contrasts is **supported** when one of them has a lower one-sided "
            f"bound, at the error of one end divided by {some}, above 0. It is **contradicted** when each of them is "
            "not better and has an upper one-sided bound, at the error of one end, below the smallest effect of "
            f"interest{f', while {seen}' if has_control else ''}."
        )
    if k > 1:
        claim.append(
            "Support needs no correction, because every contrast must be better (intersection-union test); the error "
            f"of a contradiction is divided by {k}, because one contrast is enough for it."
        )
    if has_control:
        claim.append(
            "It is **uninformative** when neither is the case and the positive control of a contrast that is not "
            "better is measured and not better itself: the page could not have seen the effect."
        )
    claim.append("Otherwise it is **not resolved**.")
    return each, f"{pooled} {shared}", " ".join(claim)
