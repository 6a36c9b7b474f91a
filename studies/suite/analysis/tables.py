"""Tables of a page: how a number is written, and why one is missing.

Shares are written in percent and their differences in points; every mean comes with the half width of its t interval.
A number that does not exist is an en dash with a letter, and the letter's line under the table says why; never 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas

from scd.evaluation.further import FURTHER
from scd.evaluation.metrics import METRICS as OF_ALL_RUNS
from studies.suite.analysis.results import DONE, FAILED, Evidence
from studies.suite.analysis.statistics import PairedResult, estimate, holm, paired, seeds_needed, select
from studies.suite.analysis.verdict import Verdict
from studies.suite.planning.study import Contrast

METRICS = {**OF_ALL_RUNS, **FURTHER}
NONE = "–"
MINUS = "−"
OUTCOMES = {"hold": "holds", "fail": "fails", "open": "open"}
SHARES = ("share in [0, 1]", "difference of shares")
ABSENT = {
    "saliency": "no saliency map in this arm, or no masks in the test images",
    "map": "no saliency map in this arm",
    "mixed": "no masks or no labels in the data, so no mixed images",
    "bg": "no masks or no labels in the data, so no mixed images",
    "background": "the data name no background classes",
    "knn": "no labels in the data",
    "linear": "no labels in the data",
}


@dataclass
class Table:
    """A table and the lines under it."""

    frame: pandas.DataFrame
    notes: list[str] = field(default_factory=list)


class Notes:
    """Collects the reasons of one table; equal reasons share a letter."""

    def __init__(self):
        self.reasons: list[str] = []

    def dash(self, reason: str) -> str:
        """The cell of a number that does not exist."""
        return NONE + self.mark(reason)

    def mark(self, reason: str) -> str:
        """The letter of a reason, superscript."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f"<sup>{_letter(self.reasons.index(reason))}</sup>"

    @property
    def lines(self) -> list[str]:
        """One line per letter."""
        return [f"<sup>{_letter(position)}</sup> {reason}." for position, reason in enumerate(self.reasons)]


def _letter(position: int) -> str:
    return chr(ord("a") + position) if position < 26 else str(position + 1)


# -------------------------------------------------------------------- single numbers


def is_share(metric: str) -> bool:
    """Whether the metric is written in percent."""
    return metric in METRICS and METRICS[metric].unit in SHARES


def heading(metric: str) -> str:
    """A metric's column heading with its unit."""
    if metric not in METRICS:
        return metric
    label, unit, *_ = METRICS[metric]
    if is_share(metric):
        return f"{label} ({'points' if unit.startswith('difference') else '%'})"
    return label


def label(metric: str) -> str:
    """A metric's name without its unit."""
    return METRICS[metric].label if metric in METRICS else metric


def unit_of_difference(metric: str) -> str:
    """The unit in which differences of a metric are written: percentage points for shares."""
    return "points" if is_share(metric) else ""


def scaled(metric: str, value: float) -> float:
    """A metric's value in the unit in which it is shown."""
    return 100 * value if is_share(metric) else value


def number(metric: str, value: float, signed: bool = False) -> str:
    """A value as it is printed: shares as percent with one decimal (differences two), others with three digits."""
    shown = scaled(metric, value)
    if is_share(metric):
        text = f"{abs(shown):.2f}" if signed else f"{abs(shown):.1f}"
    else:
        text = f"{abs(shown):.2f}" if abs(shown) < 100 else f"{abs(shown):,.0f}"
    if not float(text.replace(",", "")):
        return text
    return (MINUS if shown < 0 else "+" if signed else "") + text


def mean_cell(metric: str, values: Sequence[float], expected: int) -> str:
    """Mean ± half width of the 95 % t interval; fewer values than ``expected`` and a single one are said."""
    summary = estimate(values)
    text = number(metric, summary.mean)
    if summary.half is None:
        return f"{text} (n=1, no interval)"
    text += f" ± {number(metric, summary.half)}"
    return text if summary.n == expected else f"{text} (n={summary.n})"


def interval(metric: str, result: PairedResult) -> str:
    """The interval of a difference, or that there is none."""
    if result.ci_low is None:
        return "(no interval)"
    return f"[{number(metric, result.ci_low, signed=True)}, {number(metric, result.ci_high, signed=True)}]"


def amount(metric: str, result: PairedResult) -> str:
    """A difference in a sentence: "+1.20 points [+0.40, +2.00], n = 5 pairs"."""
    if result.n == 0:
        return "not measured yet"
    unit = unit_of_difference(metric)
    pairs = "1 pair" if result.n == 1 else f"{result.n} pairs"
    return (
        " ".join(filter(None, [number(metric, result.mean, True), unit, interval(metric, result)])) + f", n = {pairs}"
    )


def p_value(p: float) -> str:
    """A p value with two digits, or "<0.001"."""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def quantity(value: float) -> str:
    """A large number with its SI prefix: 24.3 G."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g}"


# -------------------------------------------------------------------- tables


def arm_table(
    evidence: Evidence,
    labels: Mapping[str, str],
    metrics: Sequence[str],
    relative: Mapping[str, str] | None = None,
    reference: str = "",
    **conditions: Any,
) -> Table:
    """One row per arm: how many seeds, the metrics as mean ± half width, and costs relative to one arm.

    Args:
        labels: arm -> its label, in the order of the rows; arms that the study did not plan are left out.
        metrics: columns of the records.
        relative: column of the records -> heading, for costs shown as a multiple of ``reference``'s.
        conditions: the labels of the rows, for example budget and rho.
    """
    notes, rows = Notes(), []
    planned = select(evidence.runs, **conditions)
    for arm, label in labels.items():
        runs = planned[planned["arm"] == arm]
        if runs.empty:
            continue
        done = runs[runs["status"] == DONE]
        row = {"arm": label, "seeds": _count(runs, done, notes)}
        for metric in metrics:
            row[heading(metric)] = _cell(metric, done, evidence, notes)
        for column, name in (relative or {}).items():
            row[name] = _multiple(column, done, planned[planned["arm"] == reference], reference, labels, notes)
        rows.append(row)
    return Table(pandas.DataFrame(rows), notes.lines)


def _count(runs: pandas.DataFrame, done: pandas.DataFrame, notes: Notes) -> str:
    """ "5", or "3 of 5", with what failed."""
    text = str(len(done)) if len(done) == len(runs) else f"{len(done)} of {len(runs)}"
    failed = runs[runs["status"] == FAILED]
    if failed.empty:
        return text
    reasons = "; ".join(dict.fromkeys(failed["reason"]))
    return f"{text}, {len(failed)} **failed**" + notes.mark(f"failed: {reasons}".rstrip("."))


def _cell(metric: str, done: pandas.DataFrame, evidence: Evidence, notes: Notes) -> str:
    if done.empty:
        return notes.dash("no finished run")
    values = done[metric].dropna() if metric in done else ()
    if len(values) == 0:
        group = metric.split("_")[0]
        return notes.dash(ABSENT.get(group, "not measured"))
    return mean_cell(metric, values, len(done))


def _multiple(
    column: str,
    done: pandas.DataFrame,
    others: pandas.DataFrame,
    reference: str,
    labels: Mapping[str, str],
    notes: Notes,
) -> str:
    if done.empty:
        return notes.dash("no finished run")
    base = others[others["status"] == DONE]
    if column not in done or base.empty or not base[column].mean() > 0:
        return notes.dash(f"no finished run of {labels.get(reference, reference)} to compare with")
    return f"{done[column].mean() / base[column].mean():.2f}×"


def contrast_table(
    evidence: Evidence,
    contrasts: Sequence[Contrast],
    name: Mapping[str, str],
    setting: Mapping[str, str],
) -> Table:
    """One row per contrast and setting: the paired difference, its interval, p values, effect size and seeds needed.

    Holm's correction runs over all rows of the table.

    Args:
        contrasts: with their conditions.
        name: contrast's name -> what is compared; setting: its name -> the conditions in words.
    """
    notes, rows = Notes(), []
    results = [measure(evidence, contrast) for contrast in contrasts]
    adjusted = holm([result.p for result in results])
    for contrast, result, p_holm in zip(contrasts, results, adjusted, strict=True):
        metric = contrast.metric
        row: dict[str, str] = {"treatment vs. control": name[contrast.name], "setting": setting[contrast.name]}
        row["pairs"] = str(result.n)
        if result.n == 0:
            row["difference"] = notes.dash("no seed has finished in both arms")
        else:
            row["difference"] = number(metric, result.mean, signed=True)
        why = "one pair: no interval" if result.n == 1 else "no pair of seeds"
        why = "all differences are equal, so no spread and no interval" if result.n > 1 else why
        known = result.ci_low is not None
        row["95 % interval"] = interval(metric, result) if known else notes.dash(why)
        row["p"] = p_value(result.p) if known else notes.dash(why)
        row["p (Holm)"] = p_value(p_holm) if known else notes.dash(why)
        row["d<sub>z</sub>"] = number("", result.dz, signed=True) if known else notes.dash(why)
        needed = seeds_needed(result.sd, contrast.sesoi)
        row["seeds for 80 % power"] = str(needed) if needed else notes.dash(why)
        rows.append(row)
    frame = pandas.DataFrame(rows)
    return Table(frame, notes.lines)


def measure(evidence: Evidence, contrast: Contrast) -> PairedResult:
    """The paired result of one contrast in its conditions."""
    return paired(evidence.finished, contrast.treatment, contrast.control, contrast.metric, **contrast.conditions)


def verdict_table(verdicts: Mapping[str, Verdict], name: Mapping[str, str]) -> Table:
    """One row per part of a claim: what the rule says of it, how many contrasts hold, fail, are open, and the lowest.

    Args:
        verdicts: the part in words -> its verdict.
        name: contrast's name -> what is compared.
    """
    notes, rows = Notes(), []
    for where, verdict in verdicts.items():
        measured = [part for part in verdict.parts if part.result.n]
        row = {"condition": where, "outcome": verdict.outcome}
        row |= {outcome: str(len(verdict.having(word))) for outcome, word in OUTCOMES.items()}
        if measured:
            lowest = min(measured, key=lambda part: part.result.mean)
            row["lowest contrast"] = f"{name[lowest.contrast.name]}: {amount(lowest.contrast.metric, lowest.result)}"
        else:
            row["lowest contrast"] = notes.dash("no pair of seeds")
        why = "decided" if verdict.outcome != "undecided" else "a contrast has no two pairs that differ"
        row["seeds that would decide"] = str(verdict.seeds) if verdict.seeds else notes.dash(why)
        rows.append(row)
    return Table(pandas.DataFrame(rows), notes.lines)


def gain_table(
    evidence: Evidence,
    labels: Mapping[str, str],
    metric: str,
    reference: str,
    conditions: Mapping[str, Mapping[str, Any]],
) -> Table:
    """One row per arm, one column per condition: the paired difference from a reference arm, with its interval.

    Args:
        conditions: the condition in words -> its labels.
    """
    notes, rows = Notes(), []
    for arm, label in labels.items():
        if arm == reference:
            continue
        row = {f"difference from {labels.get(reference, reference)}": label}
        for words, condition in conditions.items():
            result = paired(evidence.finished, arm, reference, metric, **condition)
            if result.n == 0:
                row[words] = notes.dash("no seed has finished in both arms")
                continue
            text = f"{number(metric, result.mean, signed=True)} {interval(metric, result)}"
            planned = select(evidence.runs, arm=arm, **condition)["seed"].nunique()
            row[words] = text if result.n == planned else f"{text} (n={result.n})"
        rows.append(row)
    return Table(pandas.DataFrame(rows), notes.lines)


def definitions(metrics: Sequence[str]) -> Table:
    """What each metric is, from the protocols themselves."""
    rows = [
        {"metric": METRICS[key].label, "key": f"`{key}`", "better": METRICS[key].better or "neither",
         "definition": METRICS[key].definition}
        for key in metrics
        if key in METRICS
    ]  # fmt: skip
    return Table(pandas.DataFrame(rows))
