"""Accuracy against cost, from the records of the other studies' pages; a part of the cost profile's page."""

from collections.abc import Mapping
from math import nan
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas

from scd.errors import DataError
from studies.suite.analysis import notation
from studies.suite.analysis.conditions import BUDGET_WORDS, conditions, title
from studies.suite.analysis.results import FOLDER, Results, load
from studies.suite.analysis.statistics import paired, select
from studies.suite.analysis.tables import Notes, Table
from studies.suite.pages import figures
from studies.suite.pages.markdown import Blocks, Picture, in_line
from studies.suite.pages.study_figures import plain_text
from studies.suite.planning.command_line import load_study, study_names

METRIC, HOST, RANDOM = "linear_top1", "moco", "random"
BUDGETS = {"epochs": "at equal epochs", "flops": "at equal FLOPs"}


def section(blocks: Blocks, out: Path, page: str) -> None:
    """A table per page of a study, and one figure of all.

    Args:
        out: folder of the pages; page: name of the page that this section is on.
    """
    pages = pages_with_costs(out)
    if not pages:
        blocks.text("No study has records yet: run `nox -s study-multicrop`, and then this page again.")
        return
    blocks.text(
        "Every study with records of linear top-1. Where runs differ in more than budget and background correlation, "
        "those at the first setting are shown."
    )
    for results in pages:
        data = in_line(results.about["data"])
        blocks.heading(f"[{results.page}]({quote(results.page)}.md): {data}, {seeds_of(results)} seeds")
        for words, axis in settings_found(results):
            blocks.text(f"**{words}**" if words else "")
            blocks.table(page_table(results, axis))
    points = cost_points(pages)
    if points.empty:
        return
    path, heading = f"figures/{page}-accuracy.png", notation.heading(pages[0].metric(METRIC))
    colours = figures.colours(list(dict.fromkeys(points["row"])))
    figures.cost_points(Path(out) / path, points, "training FLOPs (TFLOP, 2 per multiply-add)", heading, colours)
    caption = (
        f"{heading} against the FLOPs of the training, for studies with runs at equal epochs and at equal FLOPs; one "
        "panel per page (its first setting). Means with 95 % t intervals; small dots: seeds; dashed: no training."
    )
    blocks.figure(Picture(path, caption))


def pages_with_costs(out: Path) -> list[Results]:
    """The results of every meaningful page of a study whose records hold the FLOPs of the training, by name."""
    found = []
    for path in sorted((Path(out) / FOLDER).glob("*.csv")):
        try:
            results = load(out, path.stem)
        except DataError:
            continue  # the index names it
        known = results.about.get("study") in study_names() and results.about.get("meaningful")
        known = known and "metrics" in results.about  # not so in pages of an older version; the index marks them
        if known and {METRIC, "total_flops", "arm", "budget"} <= set(results.runs):
            found.append(results)
    return found


def seeds_of(results: Results) -> int:
    """The number of seeds of a page."""
    return len(results.about["seeds"])


def labels_of(results: Results) -> dict[str, str]:
    """Arm -> label, from the study's file."""
    return {arm.name: arm.label for arm in load_study(results.about["study"]).arms}


def page_table(results: Results, axis: Mapping[str, Any]) -> Table:
    """One row per arm in one setting of the axes: accuracy at equal epochs and at equal FLOPs, and what it takes.

    The FLOPs to reach MoCo are read from the runs that exist: at most 1× where the arm's mean at equal FLOPs is MoCo's
    or higher; at most the arm's cost at equal epochs where only that run reaches it; else more than that.
    """
    notes, rows, done, metric = Notes(), [], results.finished, results.metric(METRIC)
    host, heading = select(done, arm=HOST, **axis), notation.heading(metric)
    for arm, label in labels_of(results).items():
        mine = select(done, arm=arm, **axis)
        if mine.empty or arm == RANDOM or host.empty:
            continue
        by_budget = dict(iter(mine.groupby("budget")))
        row, means, costs = {"arm": label}, {}, {}
        for budget, words in BUDGETS.items():
            if budget not in set(done["budget"]):
                continue  # this study does not run it at all
            part = by_budget.get(budget)
            if part is None:
                row[f"{heading}, {words}"] = notes.dash("not run with this budget")
                continue
            means[budget] = part[METRIC].mean()
            costs[budget] = part["total_flops"].mean() / host["total_flops"].mean()
            row[f"{heading}, {words}"] = notation.mean_cell(metric, part[METRIC], len(part))
        at_epochs = f"{costs['epochs']:.2f}×" if "epochs" in costs else notes.dash("not run with this budget")
        row["FLOPs at equal epochs / MoCo's"] = at_epochs
        row["FLOPs to reach MoCo's mean / MoCo's"] = _reach(arm, means, costs, host[METRIC].mean(), notes)
        row["gain per 10 % more FLOPs"] = _marginal(results, arm, costs.get("epochs", nan), axis, notes)
        rows.append(row)
    return Table(pandas.DataFrame(rows), notes.lines)


def _reach(arm: str, means: dict[str, float], costs: dict[str, float], goal: float, notes: Notes) -> str:
    if arm == HOST:
        return "1.00×"
    if "flops" in means and means["flops"] >= goal:
        return f"≤ {min(1.0, costs['flops']):.2f}×"
    if "epochs" in means:
        return f"≤ {costs['epochs']:.2f}×" if means["epochs"] >= goal else f"> {costs['epochs']:.2f}×"
    return f"> {costs['flops']:.2f}×" if "flops" in means else notes.dash("not run at equal epochs")


def _marginal(results: Results, arm: str, cost: float, axis: Mapping[str, Any], notes: Notes) -> str:
    if arm == HOST:
        return notes.dash("the reference itself")
    if not cost > 1.001:
        return notes.dash("no additional FLOPs")
    gain, metric = paired(results.finished, arm, HOST, METRIC, budget="epochs", **axis), results.metric(METRIC)
    if gain.ci_low is None:
        return notes.dash("fewer than two paired seeds")
    scale = 0.1 / (cost - 1)
    low, mean, high = (
        notation.number(metric, scale * value, signed=True) for value in (gain.ci_low, gain.mean, gain.ci_high)
    )
    return f"{mean} [{low}, {high}] points"


def settings_found(results: Results) -> list[tuple[str, dict[str, Any]]]:
    """(words, labels) of every background correlation; other axes are at their first value, the study's own."""
    others = [label for label in results.labels if label not in ("arm", "seed", "data", "budget", "rho")]
    first = {label: results.levels(label)[0] for label in others if results.levels(label)}
    return [(title(each), {**first, **each}) for each in conditions(results, ("rho",))]


def cost_points(pages: list[Results]) -> pandas.DataFrame:
    """The points of the figure: the runs at the first setting of every page that has both budgets."""
    rows = []
    for results in pages:
        if not set(BUDGETS) <= set(results.levels("budget")):
            continue
        labels, metric = labels_of(results), results.metric(METRIC)
        for run in select(results.finished, **settings_found(results)[0][1]).to_dict("records"):
            place = {
                "panel": plain_text(results.about["data"]),
                "row": labels[run["arm"]],
                "style": BUDGET_WORDS[run["budget"]],
            }
            rows.append({**place, "cost": run["total_flops"] / 1e12, "value": notation.scaled(metric, run[METRIC])})
    return pandas.DataFrame(rows)
