"""The section of a page that lists its contrasts, what each would say, and the rule that judges the first claim."""

from collections.abc import Mapping, Sequence

from studies.suite.analysis import tables
from studies.suite.analysis.conditions import versus
from studies.suite.analysis.results import Evidence
from studies.suite.analysis.verdict import Verdict, rule
from studies.suite.pages import report
from studies.suite.planning.study import Contrast


def compared(
    page: report.Page,
    evidence: Evidence,
    contrasts: Sequence[Contrast],
    verdicts: Sequence[Verdict],
    labels: Mapping[str, str],
    unit: str,
    heading: str = "Contrasts, declared before the runs",
) -> None:
    """Paired differences of all contrasts, their claims, and the rule for those that are judged.

    Args:
        verdicts: of the claims that the page's first sentences are about.
        labels: arm -> its label.
        unit: the smallest difference of interest with its unit.
    """
    page.heading(heading)
    names = {each.name: versus(each, labels) for each in contrasts}
    page.table(tables.contrast_table(evidence, contrasts, names, {each.name: "equal epochs" for each in contrasts}))
    metrics = " and ".join(dict.fromkeys(tables.label(each.metric) for each in contrasts))
    corrected = f"; Holm's correction over all {len(contrasts)} rows" if len(contrasts) > 1 else ""
    page.text(f"Differences in {metrics}, in points{corrected}.")
    report.claims(page, contrasts, labels)
    page.heading("How the verdict is reached", 3)
    for verdict in verdicts:
        page.text(f"Claim: *{verdict.claim}*.", rule(len(verdict.parts), unit))
