"""The answer of a page in sentences that can be read without knowing the rule; every number comes from the findings."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from studies.suite.analysis import notation
from studies.suite.analysis.conditions import BUDGET_WORDS, Condition, axis_words, versus, words
from studies.suite.analysis.readings import looks_in_words, over_readings
from studies.suite.analysis.results import Results
from studies.suite.analysis.verdict import (
    BETTER,
    CONTRADICTED,
    EQUIVALENT,
    NOT_RESOLVED,
    OUTCOMES,
    SUPPORTED,
    UNINFORMATIVE,
    WORSE,
    Finding,
    Verdict,
)

OPENINGS = {
    SUPPORTED: "**Supported:** {claim}.",
    CONTRADICTED: "**Contradicted:** it does not hold that {claim}.",
    NOT_RESOLVED: "**Not resolved** whether {claim}.",
    UNINFORMATIVE: "**Uninformative:** this page does not reproduce its positive control, so it cannot say whether "
    "{claim}.",
}
SMALL = "by less than the smallest effect of interest"
Labels = Mapping[str, str]


def sentence(verdict: Verdict, results: Results, labels: Labels) -> str:
    """The answer to a claim in one sentence: its outcome, what was found, and by how many seeds."""
    measured = [finding for finding in verdict.findings if finding.gain.n]
    opening = _opening(verdict, verdict.claim).rstrip(".")
    if not measured:
        return f"{opening}: no contrast has a pair of seeds yet."
    parts = [
        f"{f'{where}: ' if where and len(conditions_of(verdict.findings)) > 1 else ''}{_clauses(part, results, labels)}"
        for where, part in _by_condition(measured)
    ]
    if verdict.some:
        parts = _grouped(verdict, measured)
    missing = verdict.k - len(measured)
    parts += [f"{missing} of {verdict.k} contrasts have no pair of seeds"] if missing else []
    return " ".join([f"{opening}: {'; '.join(parts)} ({_pairs(measured)}).", *remedies(verdict, results, labels)])


def remedies(verdict: Verdict, results: Results, labels: Labels) -> list[str]:
    """What failed controls mean for an answer.

    An uninformative answer names them and what is declared to try. One that is contradicted although they fail, because
    the treatment is worse, says for what it holds.
    """
    failed = verdict.failed_controls
    shown = "; ".join(dict.fromkeys(f"{versus(each.contrast, labels)}: {_amount(each, results)}" for each in failed))
    if verdict.outcome == UNINFORMATIVE:
        asked = dict.fromkeys(
            each.contrast.remedy or "more seeds, more test images or a longer training" for each in failed
        )
        several = "these controls are" if len(failed) > 1 else "this control is"
        return [f"It becomes informative where {several} better ({shown}): try {'; '.join(asked)}."]
    contradicting = [each for each in verdict.findings if verdict.contradicts(each)]
    if verdict.outcome != CONTRADICTED or not failed or any(map(verdict.is_informative, contradicting)):
        return []
    several = "positive controls fail" if len(failed) > 1 else "positive control fails"
    return [f"Its {several} here ({shown}), so this holds for these images and this training alone."]


def _grouped(verdict: Verdict, findings: Sequence[Finding]) -> list[str]:
    """The conditions of a claim about some contrasts, by outcome: "better in A; not resolved in B and C"."""
    groups: dict[str, list[str]] = {}
    for finding in findings:
        outcome = finding.outcome
        if outcome == BETTER and not finding.is_better_of(verdict.k):
            outcome = "better before correction"
        groups.setdefault(outcome, []).append(words(finding.contrast.conditions))
    return [f"{outcome} in {_listed(places)}" for outcome, places in groups.items()]


def answer(verdict: Verdict, results: Results, labels: Labels) -> list[str]:
    """The answer to a claim in paragraphs: its outcome, then what was found, condition by condition.

    Args:
        labels: arm -> its label.
    """
    found = conditions_of(verdict.findings)
    opening = _opening(verdict, verdict.claim + _everywhere(found))
    measured = [finding for finding in verdict.findings if finding.gain.n]
    if not measured:
        return [f"{opening} No contrast has a pair of seeds yet."]
    closing = []
    if missing := verdict.k - len(measured):
        closing.append(f"{missing} of {verdict.k} contrasts have no pair of seeds.")
    if verdict.outcome == NOT_RESOLVED and verdict.k > 1 and (verdict.having(WORSE) or verdict.having(EQUIVALENT)):
        closing.append(f"After correction for {verdict.k} contrasts, none of them rules out an effect of interest.")
    metrics = " and ".join(dict.fromkeys(results.metric(finding.contrast.metric).label for finding in measured))
    scale = f"Differences in {metrics} with 95 % intervals{over_readings(_looks(results))}, {_pairs(measured)}"
    closing += remedies(verdict, results, labels)
    if len(found) == 1:
        return [" ".join([opening, described(measured, results, labels), *closing, f"({scale}.)"])]
    lines = [f"- *{where}:* {described(part, results, labels)}" for where, part in _by_condition(measured)]
    return [" ".join([opening, *closing, f"{scale}:"]), "\n".join(lines)]


def described(findings: Sequence[Finding], results: Results, labels: Labels) -> str:
    """Findings in sentences: for each treatment, one sentence per outcome."""
    return " ".join(f"{subject} {predicate}." for subject, predicate in _statements(findings, results, labels))


def _clauses(findings: Sequence[Finding], results: Results, labels: Labels) -> str:
    """The same as clauses of one sentence."""
    return ", and ".join(
        f"{subject.lower() if subject == 'It' else subject} {predicate}"
        for subject, predicate in _statements(findings, results, labels)
    )


def _statements(findings: Sequence[Finding], results: Results, labels: Labels) -> list[tuple[str, str]]:
    """Subject and predicate of each statement; a subject that was named just before is "It"."""
    arms = list(dict.fromkeys(finding.contrast.treatment for finding in findings))

    def kind(finding: Finding) -> tuple[int, int, bool, bool]:
        place = arms.index(finding.contrast.treatment), OUTCOMES.index(finding.outcome)
        return *place, finding.is_small, finding.gain.ci_low is None or not finding.gain.is_read

    statements, last = [], None
    for (arm, outcome, _, unknown), group in groupby(sorted(findings, key=kind), key=kind):
        subject = "It" if arm == last else labels[arms[arm]]
        predicate = _difference if unknown else PREDICATES[OUTCOMES[outcome]]
        statements.append((subject, predicate(list(group), results, labels)))
        last = arm
    return statements


def sensitivity(verdict: Verdict, results: Results, labels: Labels, question: str = "") -> str:
    """What the page could have seen: its positive control, and the smallest differences that it could have detected.

    Args:
        question: the id of the question, where a page answers several.
    """
    sentences = [f"**What this page could have seen{f' ({question})' if question else ''}.**"]
    if not verdict.controls:
        sentences.append("No positive control is declared.")
    for where, control in _different(verdict.controls):
        missing = f"{versus(control.contrast, labels)} is not measured."
        text = described([control], results, labels) if control.gain.n else missing
        own = control.contrast.metric
        other = own not in {finding.contrast.metric for finding in verdict.findings}
        sentences.append(f"Positive control{where}{f' in {results.metric(own).label}' if other else ''}: {text}")
    if looks := _looks(results):
        once = "once, " if len(looks) == 1 else ""
        own = {each.contrast.looks: None for each in (*verdict.controls, *verdict.findings) if each.contrast.looks}
        others = [f"some contrasts have a reading of their own, at {looks_in_words(each)}" for each in own]
        sentences.append(f"It is read {'; '.join([f'{once}at {looks_in_words(looks)}', *others])}.")
    known = [finding for finding in verdict.findings if finding.detectable is not None]
    known = [finding for finding in known if finding.gain.is_read] or known
    if not known:
        sentences.append("No detectable difference can be stated before two pairs of a contrast differ.")
        return " ".join(sentences)
    parts, smallest = [], []
    for name in dict.fromkeys(each.contrast.metric for each in known):
        group, metric = [each for each in known if each.contrast.metric == name], results.metric(name)
        parts.append(f"{_detectable(group, results)} in {metric.label}")
        smallest.append(notation.size(metric, group[0].contrast.sesoi))
    sentences.append(
        f"With {_pairs(known)} the page could have detected (80 % power) a difference of {_listed(parts)}; the "
        f"smallest effect of interest is {_listed(list(dict.fromkeys(smallest)))}."
    )
    return " ".join(sentences)


def conditions_of(findings: Sequence[Finding]) -> list[Condition]:
    """The different conditions of some findings, in their order."""
    return list({words(finding.contrast.conditions): finding.contrast.conditions for finding in findings}.values())


# -------------------------------------------------------------------- predicates, each about one treatment


def _better(group: Sequence[Finding], results: Results, labels: Labels) -> str:
    parts = [f"than {labels[each.contrast.control]} by {_amount(each, results)}" for each in group]
    return f"is better {_listed(parts)}{_small(group)}"


def _worse(group: Sequence[Finding], results: Results, labels: Labels) -> str:
    parts = [f"than {labels[each.contrast.control]} by {_amount(each, results, negated=True)}" for each in group]
    return f"is worse {_listed(parts)}{_small(group)}"


def _equivalent(group: Sequence[Finding], results: Results, labels: Labels) -> str:
    margin = notation.size(results.metric(group[0].contrast.metric), group[0].contrast.sesoi)
    parts = [f"to {labels[each.contrast.control]} ({_amount(each, results)})" for each in group]
    return f"is equivalent within ± {margin} {_listed(parts)}"


def _not_resolved(group: Sequence[Finding], results: Results, labels: Labels) -> str:
    could = f"; this page could have detected {_detectable(group, results)}"
    if len(group) == 1:
        return f"cannot be told apart from {labels[group[0].contrast.control]}: {_amount(group[0], results)}{could}"
    parts = [f"{labels[each.contrast.control]} ({_amount(each, results)})" for each in group]
    return f"cannot be told apart from {_listed(parts)}{could}"


def _difference(group: Sequence[Finding], results: Results, labels: Labels) -> str:
    parts = [f"from {labels[each.contrast.control]} by {_amount(each, results)}" for each in group]
    unread = [each.contrast.looks or _looks(results) for each in group if not each.gain.is_read]
    early = f", which is not judged before {max(looks[0] for looks in unread)} seeds" if unread else ""
    return f"differs {_listed(parts)}{early}"


PREDICATES = {BETTER: _better, WORSE: _worse, EQUIVALENT: _equivalent, NOT_RESOLVED: _not_resolved}


# -------------------------------------------------------------------- words


def _looks(results: Results) -> Sequence[int]:
    return results.about.get("looks", ())


def _opening(verdict: Verdict, claim: str) -> str:
    """The outcome and the claim, with a full stop."""
    text = OPENINGS[verdict.outcome].format(claim=claim)
    return text.replace("**Supported:**", f"**Supported, {SMALL}:**") if verdict.is_small else text


def _small(group: Sequence[Finding]) -> str:
    return f", {SMALL.removeprefix('by ')}" if all(each.is_small for each in group) else ""


def _amount(finding: Finding, results: Results, negated: bool = False) -> str:
    gain = finding.gain.negated() if negated else finding.gain
    return notation.amount(results.metric(finding.contrast.metric), gain)


def _detectable(findings: Sequence[Finding], results: Results) -> str:
    """ "4.2 points", or the range "2.4 to 4.2 points"."""
    metric = results.metric(findings[0].contrast.metric)
    low, high = (notation.size(metric, pick(each.detectable for each in findings)) for pick in (min, max))
    return high if low == high else f"{low.split(' ')[0]} to {high}"


def _pairs(findings: Sequence[Finding]) -> str:
    counts = sorted({finding.gain.n for finding in findings})
    text = str(counts[-1]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{text} paired seed{'' if text == '1' else 's'}"


def _by_condition(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    """The findings of each condition, with the condition in words."""
    return [
        (words(condition), [each for each in findings if each.contrast.conditions == condition])
        for condition in conditions_of(findings)
    ]


def _different(controls: Sequence[Finding]) -> list[tuple[str, Finding]]:
    """Positive controls, each once, with where it was measured: arms may be the same runs in several conditions."""
    once: dict[tuple, list[Finding]] = {}
    for control in controls:
        arms = control.contrast.treatment, control.contrast.control
        once.setdefault((*arms, control.gain.differences), []).append(control)
    found = []
    for group in once.values():
        axes = list(dict.fromkeys(axis_words(each.contrast.conditions) for each in group))
        full = [words(each.contrast.conditions) for each in group]
        where = axes[0] if len(axes) == 1 and len(once) < len(controls) else "; ".join(full)
        found.append((f" ({where})" if where and len(once) > 1 else "", group[0]))
    return found


def _everywhere(found: Sequence[Condition]) -> str:
    """In which conditions a claim is made, where there is more than one."""
    if len(found) < 2:
        return ""
    budgets = dict.fromkeys(BUDGET_WORDS[each["budget"]] for each in found if "budget" in each)
    axes = dict.fromkeys(filter(None, map(axis_words, found)))
    parts = [f"at {' and at '.join(budgets)}"] if budgets else []
    parts += [f"for {' and '.join(axes)}"] if axes else []
    return f", {', '.join(parts)}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
