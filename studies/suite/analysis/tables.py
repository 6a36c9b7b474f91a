"""Tables of a page. A number that does not exist is a dash with a letter; the letter's line says why. It is never 0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas

from studies.suite.analysis import notation
from studies.suite.analysis.comparison import compare
from studies.suite.analysis.conditions import words
from studies.suite.analysis.readings import looks_in_words, over_readings
from studies.suite.analysis.results import DONE, FAILED, Results
from studies.suite.analysis.statistics import PairedResult, holm, select
from studies.suite.analysis.verdict import OUTCOMES, Verdict, find, measure
from studies.suite.planning.study import Contrast

NONE = "–"


@dataclass
class Table:
    """A table, the lines under it, and the names of the metrics that it shows."""

    frame: pandas.DataFrame
    notes: list[str] = field(default_factory=list)
    metrics: tuple[str, ...] = ()


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


def arm_table(
    results: Results,
    labels: Mapping[str, str],
    metrics: Sequence[str],
    relative: Mapping[str, str] | None = None,
    reference: str = "",
    **conditions: Any,
) -> Table:
    """One row per arm: how many seeds, the metrics as mean ± half width, and costs relative to one arm.

    Args:
        labels: arm -> its label, in the order of the rows; arms that are not planned are left out.
        metrics: columns of the records.
        relative: column of the records -> heading, for costs shown as a multiple of ``reference``'s.
        conditions: the labels of the rows, for example budget and rho.
    """
    notes, rows = Notes(), []
    planned = select(results.runs, **conditions)
    others = planned[(planned["arm"] == reference) & (planned["status"] == DONE)]
    for arm, label in labels.items():
        runs = planned[planned["arm"] == arm]
        if runs.empty:
            continue
        done = runs[runs["status"] == DONE]
        row = {"arm": label, "seeds": _count(runs, done, notes)}
        for metric in metrics:
            row[notation.heading(results.metric(metric))] = mean_or_dash(metric, done, results, notes)
        for column, name in (relative or {}).items():
            row[name] = _multiple(column, done, others, labels.get(reference, reference), notes)
        rows.append(row)
    return Table(pandas.DataFrame(rows), notes.lines, tuple(metrics))


def label_table(results: Results, names: Mapping[str, str], metrics: Sequence[str]) -> Table:
    """One row per arm and setting that the plan distinguishes, for numbers that no other table shows.

    Args:
        names: arm -> its label.
    """
    notes, rows = Notes(), []
    keys = [label for label in results.labels if label not in ("seed", "data") and len(results.levels(label)) > 1]
    keys = ["arm", *(key for key in keys if key != "arm")]
    for values, runs in results.finished.groupby(keys, sort=False, dropna=False):
        place = dict(zip(keys, values, strict=True))
        row = {"arm": names.get(place.pop("arm"), values[0]), **{key: _plain(value) for key, value in place.items()}}
        for metric in metrics:
            row[notation.heading(results.metric(metric))] = mean_or_dash(metric, runs, results, notes)
        rows.append(row)
    return Table(pandas.DataFrame(rows), notes.lines, tuple(metrics))


def _plain(value: Any) -> str:
    return NONE if pandas.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def _count(runs: pandas.DataFrame, done: pandas.DataFrame, notes: Notes) -> str:
    """ "5", or "3 of 5", with what failed."""
    text = str(len(done)) if len(done) == len(runs) else f"{len(done)} of {len(runs)}"
    failed = runs[runs["status"] == FAILED]
    if failed.empty:
        return text
    reasons = "; ".join(dict.fromkeys(failed["reason"]))
    return f"{text}, {len(failed)} **failed**" + notes.mark(f"failed: {reasons}".rstrip("."))


def mean_or_dash(metric: str, done: pandas.DataFrame, results: Results, notes: Notes) -> str:
    """The mean of a metric over some finished runs, or the dash that says why there is none."""
    if done.empty:
        return notes.dash("no finished run")
    values = done[metric].dropna() if metric in done else ()
    if len(values):
        return notation.mean_cell(results.metric(metric), values, len(done))
    reasons = [reason for reason in done["reason"] if reason]
    if reasons:
        return notes.dash(f"failed: {reasons[0]}".rstrip("."))
    return notes.dash("the arm or the images lack what this takes (labels, masks, a map)")


def _multiple(column: str, done: pandas.DataFrame, others: pandas.DataFrame, name: str, notes: Notes) -> str:
    if done.empty:
        return notes.dash("no finished run")
    if column not in done or others.empty or not others[column].mean() > 0:
        return notes.dash(f"no finished run of {name} to compare with")
    return f"{done[column].mean() / others[column].mean():.2f}×"


def contrast_table(results: Results, contrasts: Sequence[Contrast], names: Mapping[str, str]) -> Table:
    """One row per contrast: the paired difference, its interval, p values, the outcome, what was detectable.

    Holm's correction runs over all rows of the table.

    Args:
        contrasts: with their conditions.
        names: contrast's name -> what is compared.
    """
    notes, rows = Notes(), []
    measured = [measure(results, contrast) for contrast in contrasts]
    adjusted = holm([result.p for result in measured])
    units = {notation.unit_of_difference(results.metric(each.metric)) for each in contrasts}
    detectable = "detectable" if len(units) > 1 else f"detectable ({', '.join(units)})".removesuffix(" ()")
    has_metrics = len(units) > 1 or len({_compared(each) for each in contrasts}) < len(contrasts)
    for contrast, result, p_holm in zip(contrasts, measured, adjusted, strict=True):
        metric, finding = results.metric(contrast.metric), find(results, contrast)
        row = {"treatment vs. control": names[contrast.name]}
        if any(words(each.conditions) for each in contrasts):
            row["setting"] = words(contrast.conditions) or NONE
        if has_metrics:
            row["metric"] = metric.label
        row["pairs"] = str(result.n)
        if result.n == 0:
            row["difference"] = notes.dash("no seed has finished in both arms")
        else:
            row["difference"] = notation.number(metric, result.mean, signed=True)
        why = "one pair: no interval" if result.n == 1 else "no pair of seeds"
        why = "all differences are equal, so no spread and no interval" if result.n > 1 else why
        known = result.ci_low is not None
        row["95 % interval"] = notation.interval(metric, result) if known else notes.dash(why)
        row["p"] = notation.p_value(result.p) if known else notes.dash(why)
        row["p (Holm)"] = notation.p_value(p_holm) if known else notes.dash(why)
        row["treatment is"] = finding.outcome if known else notes.dash(why)
        write = notation.size if len(units) > 1 else notation.number  # with its unit where units differ
        row[detectable] = write(metric, finding.detectable) if known else notes.dash(why)
        rows.append(row)
    lines = [*notes.lines, *interval_note(results)]
    return Table(pandas.DataFrame(rows), lines, tuple(dict.fromkeys(each.metric for each in contrasts)))


def _compared(contrast: Contrast) -> tuple[str, str, str]:
    """What a contrast compares, whatever its metric."""
    return contrast.treatment, contrast.control, words(contrast.conditions)


def interval_note(results: Results) -> list[str]:
    """What the intervals of paired differences are, where the study declares readings and pools; a line or none."""
    parts = []
    looks = results.about.get("looks", ())
    if over := over_readings(looks):
        parts.append(f"hold with 95 %{over}, at {looks_in_words(looks)},")
    pools = results.about.get("pools", {})
    if any(list(pools.values()).count(pool) > 2 for pool in pools.values()):
        parts.append("use a spread that is pooled over the arms of a setting, see *How the answer follows*")
    return [f"Intervals {' and '.join(parts)}."] if parts else []


def verdict_table(verdicts: Mapping[str, Verdict], heading: str = "condition") -> Table:
    """One row per claim or part of one: its outcome, the number of contrasts of each outcome, the positive control.

    Args:
        verdicts: the claim or its part in words -> its verdict.
        heading: of the column with these words.
    """
    rows = [
        {
            heading: text,
            "answer": verdict.outcome,
            **{outcome: str(len(verdict.having(outcome))) for outcome in OUTCOMES},
            "positive control": ", ".join(dict.fromkeys(each.outcome for each in verdict.controls)) or NONE,
        }
        for text, verdict in verdicts.items()
    ]
    return Table(pandas.DataFrame(rows))


def gain_table(
    results: Results,
    labels: Mapping[str, str],
    metric: str,
    reference: str,
    conditions: Mapping[str, Mapping[str, Any]],
    looks: Mapping[str, Sequence[int]] | None = None,
) -> Table:
    """One row per arm, one column per condition: the paired difference from a reference arm, with its interval.

    Args:
        conditions: the condition in words -> its labels.
        looks: arm -> its readings, where they are not the study's.
    """
    notes, rows = Notes(), []
    for arm, label in labels.items():
        if arm == reference:
            continue
        row = {f"difference from {labels.get(reference, reference)}": label}
        for column, condition in conditions.items():
            result = compare(results, arm, reference, metric, (looks or {}).get(arm, ()), **condition)
            planned = select(results.runs, arm=arm, **condition)["seed"].nunique()
            row[column] = difference_cell(metric, result, results, notes, planned)
        rows.append(row)
    return Table(pandas.DataFrame(rows), [*notes.lines, *interval_note(results)], (metric,))


def difference_cell(
    metric: str, result: PairedResult, results: Results, notes: Notes, planned: int | None = None
) -> str:
    """A paired difference with its interval; fewer pairs than ``planned`` are stated."""
    if result.n == 0:
        return notes.dash("no seed has finished in both arms")
    shown = results.metric(metric)
    text = f"{notation.number(shown, result.mean, signed=True)} {notation.interval(shown, result)}"
    return text if planned in (None, result.n) else f"{text} (n={result.n})"


def definitions(results: Results, metrics: Sequence[str]) -> Table:
    """What each metric is, from the protocols' own definitions."""
    known = results.metrics
    rows = [
        {
            "metric": known[name].label,
            "key": f"`{name}`",
            "better": known[name].better or "neither",
            "definition": known[name].definition,
        }
        for name in metrics
        if name in known
    ]
    return Table(pandas.DataFrame(rows))
