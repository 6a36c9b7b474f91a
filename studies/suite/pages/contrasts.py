"""The section of a page that lists its contrasts, what each claims, and the rule by which a claim is judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studies.suite.analysis import notation, tables
from studies.suite.analysis.answers import conditions_of
from studies.suite.analysis.conditions import versus, words
from studies.suite.analysis.results import Results
from studies.suite.analysis.verdict import Verdict, rule
from studies.suite.pages.markdown import Blocks
from studies.suite.planning.study import Contrast


@dataclass(frozen=True)
class Judgement:
    """Claims that a page judges together, with the contrasts that are listed beside them.

    Attributes:
        verdicts: of the claims.
        results: which they were judged by; names: arm -> its label in them.
        contrasts: those of the claims, and others of the same kind.
        question: its id, where a page answers several.
    """

    verdicts: tuple[Verdict, ...]
    results: Results
    names: Mapping[str, str]
    contrasts: Sequence[Contrast]
    question: str = ""


def contrasts(blocks: Blocks, judgement: Judgement) -> None:
    """Paired differences of all contrasts, their claims, and the rule for those that are judged."""
    results, declared, verdicts = judgement.results, judgement.contrasts, judgement.verdicts
    names = {each.name: versus(each, judgement.names) for each in declared}
    blocks.table(tables.contrast_table(results, declared, names))
    metrics = list(dict.fromkeys(each.metric for each in declared))
    corrected = f"; Holm's correction over all {len(declared)} rows" if len(declared) > 1 else ""
    labels = " and ".join(results.metric(metric).label for metric in metrics)
    units = {notation.unit_of_difference(results.metric(metric)) for metric in metrics}
    unit = units.pop() if len(units) == 1 else ""
    blocks.text(
        f"Treatment minus control, {labels}{f' in {unit}' if unit else ''}, over the seeds that both arms have; "
        f"two-sided 95 % t intervals{corrected}. p is that of one reading."
    )
    blocks.text("What is claimed:")
    blocks.items(claims(declared, judgement.names))
    blocks.heading("How the answer follows")
    if len(verdicts) == 1:
        blocks.text(f"Claim: *{verdicts[0].claim}*.")
    joint = [verdict for verdict in verdicts if not verdict.some] or verdicts
    first = max(joint, key=lambda verdict: verdict.k)
    metric = results.metric(first.findings[0].contrast.metric)
    margin = notation.size(metric, first.findings[0].contrast.sesoi)
    some = max((verdict.k for verdict in verdicts if verdict.some), default=0)
    controlled = any(each.controls for each in verdicts)
    blocks.text(*rule(first.k, margin, controlled, results.about.get("looks", ()), some))
    found = conditions_of(first.findings)
    if len(verdicts) > 1:
        blocks.text("The claims, each by itself:")
        blocks.table(tables.verdict_table({verdict.claim: verdict for verdict in verdicts}, "claim"))
    elif len(found) > 1:
        blocks.text("The parts of the claim, by the same bounds; all of them together give the answer:")
        blocks.table(tables.verdict_table({words(each): first.within(each) for each in found}))


def claims(declared: Sequence[Contrast], names: Mapping[str, str]) -> list[str]:
    """Each claim once, with the contrasts that it is about."""
    about: dict[str, dict[str, None]] = {}
    for contrast in declared:
        about.setdefault(contrast.claim, {})[versus(contrast, names)] = None
    return [f"{'; '.join(rows)}: {claim}" for claim, rows in about.items()]
