"""Accuracy against cost: the records of finished studies beside what their arms cost."""

from collections.abc import Mapping
from math import nan
from pathlib import Path
from typing import Any

import pandas

from scd.errors import DataError
from studies.suite.analysis import tables
from studies.suite.analysis.conditions import BUDGETS, conditions, title
from studies.suite.analysis.results import FOLDER, Evidence, load
from studies.suite.analysis.statistics import paired, select
from studies.suite.analysis.tables import Notes, Table
from studies.suite.planning.settings import load_study, study_names

METRIC, HOST = "linear_top1", "moco"


def pages_with_costs(out: Path) -> list[Evidence]:
    """The evidence of every meaningful page of a study whose records say what training took, by name."""
    found = []
    for path in sorted((Path(out) / FOLDER).glob("*.csv")):
        try:
            evidence = load(out, path.stem)
        except DataError:
            continue  # the index names it
        about = evidence.about
        known = about.get("study") in study_names() and about.get("meaningful")
        if known and {METRIC, "total_flops", "arm", "budget"} <= set(evidence.runs):
            found.append(evidence)
    return found


def labels_of(evidence: Evidence) -> dict[str, str]:
    """Arm -> label, from the study's file."""
    return {arm.name: arm.label for arm in load_study(evidence.about["study"]).arms}


def joined_table(evidence: Evidence, axis: Mapping[str, Any]) -> Table:
    """One row per arm in one setting of the axes: accuracy at equal epochs and at equal FLOPs, and what it takes.

    "FLOPs to reach MoCo" is read off the runs that there are: 1× or less where the arm's mean at equal FLOPs is
    MoCo's or more, at most its cost at equal epochs where only that run's is, else more than that.
    """
    notes, rows, done = Notes(), [], evidence.finished
    host = select(done, arm=HOST, **axis)
    for arm, label in labels_of(evidence).items():
        mine = select(done, arm=arm, **axis)
        if mine.empty or arm == "random" or host.empty:
            continue
        by_budget = {budget: part for budget, part in mine.groupby("budget")}
        cost = host["total_flops"].mean()
        row = {"arm": label}
        means, costs = {}, {}
        for budget, heading in (("epochs", "at equal epochs"), ("flops", "at equal FLOPs")):
            if budget not in set(done["budget"]):
                continue  # this study does not run it at all
            part = by_budget.get(budget)
            if part is None:
                row[f"{tables.heading(METRIC)}, {heading}"] = notes.dash("not run in this budget")
                continue
            means[budget], costs[budget] = part[METRIC].mean(), part["total_flops"].mean() / cost
            row[f"{tables.heading(METRIC)}, {heading}"] = tables.mean_cell(METRIC, part[METRIC], len(part))
        row["FLOPs at equal epochs / MoCo's"] = f"{costs['epochs']:.2f}×" if "epochs" in costs else notes.dash(
            "not run in this budget")  # fmt: skip
        row["FLOPs to reach MoCo's mean / MoCo's"] = _reach(arm, means, costs, host[METRIC].mean(), notes)
        row["gain per 10 % more FLOPs"] = _marginal(evidence, arm, costs.get("epochs", nan), axis, notes)
        rows.append(row)
    return Table(pandas.DataFrame(rows), notes.lines)


def _reach(arm: str, means: dict[str, float], costs: dict[str, float], goal: float, notes: Notes) -> str:
    if arm == HOST:
        return "1.00×"
    if "flops" in means and means["flops"] >= goal:
        return f"≤ {min(1.0, costs['flops']):.2f}×"
    if "epochs" in means:
        return f"≤ {costs['epochs']:.2f}×" if means["epochs"] >= goal else f"> {costs['epochs']:.2f}×"
    return notes.dash("not run at equal epochs") if "flops" not in means else f"> {costs['flops']:.2f}×"


def _marginal(evidence: Evidence, arm: str, cost: float, axis: Mapping[str, Any], notes: Notes) -> str:
    if arm == HOST:
        return notes.dash("the reference itself")
    if not cost > 1.001:
        return notes.dash("no additional FLOPs")
    result = paired(evidence.finished, arm, HOST, METRIC, budget="epochs", **axis)
    if result.ci_low is None:
        return notes.dash("fewer than two paired seeds")
    scale = 0.1 / (cost - 1)
    low, mean, high = (
        tables.number(METRIC, scale * v, signed=True) for v in (result.ci_low, result.mean, result.ci_high)
    )
    return f"{mean} [{low}, {high}] points"


def settings_found(evidence: Evidence) -> list[tuple[str, dict[str, Any]]]:
    """(words, labels) of every background correlation; other axes stand at their first value, the study's own."""
    others = [label for label in evidence.labels if label not in ("arm", "seed", "data", "budget", "rho")]
    first = {label: evidence.levels(label)[0] for label in others}
    return [(title(each), {**first, **each}) for each in conditions(evidence, ("rho",))]


def cost_points(pages: list[Evidence]) -> pandas.DataFrame:
    """Long table for :func:`studies.suite.pages.figures.cost_points`: the first setting of every page with both budgets."""
    rows = []
    for evidence in pages:
        if not set(BUDGETS) <= set(evidence.levels("budget")):
            continue
        labels, done = labels_of(evidence), evidence.finished
        axis = settings_found(evidence)[0][1]
        for run in select(done, **axis).to_dict("records"):
            rows.append({
                "panel": evidence.about["data"], "row": labels[run["arm"]], "style": BUDGETS[run["budget"]],
                "cost": run["total_flops"] / 1e12, "value": tables.scaled(METRIC, run[METRIC]),
            })  # fmt: skip
    return pandas.DataFrame(rows)


def spread(values: list[float]) -> str:
    """Median and the interquartile range of ratios: "1.07 [1.05, 1.10]"."""
    series = pandas.Series(values)
    low, high = series.quantile(0.25), series.quantile(0.75)
    return f"{series.median():.2f} [{low:.2f}, {high:.2f}]"
