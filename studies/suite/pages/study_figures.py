"""From the results of a study with arms and conditions to its three figures; figures.py draws them."""

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path

import pandas

from studies.suite.analysis import notation
from studies.suite.analysis.conditions import BUDGET_WORDS, Condition, axis_words, versus
from studies.suite.analysis.readings import over_readings
from studies.suite.analysis.results import Results
from studies.suite.analysis.verdict import measure
from studies.suite.pages import figures
from studies.suite.pages.markdown import Picture
from studies.suite.planning.study import Contrast

COLUMNS = ["panel", "row", "style", "value"]
Labels = Mapping[str, str]


def differences(results: Results, contrasts: Sequence[Contrast], names: Labels, out: Path) -> Picture | None:
    """Paired differences with their intervals, on one axis; None without contrasts.

    Args:
        contrasts: with their conditions, or with none; those on the first one's metric are drawn.
        names: arm -> its label.
        out: folder of the page.
    """
    if not contrasts:
        return None
    metric, pairs, intervals = results.metric(contrasts[0].metric), [], []
    for contrast in (each for each in contrasts if each.metric == contrasts[0].metric):
        condition = contrast.conditions
        key = {"panel": _panel(results, condition), "row": versus(contrast, names)}
        key["style"] = BUDGET_WORDS[condition.get("budget", "epochs")]
        result = measure(results, contrast)
        pairs += [{**key, "value": notation.scaled(metric, value)} for value in result.differences]
        ends = {"mean": result.mean, "low": result.ci_low, "high": result.ci_high}
        shown = {end: nan if value is None else notation.scaled(metric, value) for end, value in ends.items()}
        intervals.append({**key, **shown})
    path, unit = f"figures/{results.page}-differences.png", notation.unit_of_difference(metric)
    figures.differences(
        Path(out) / path,
        pandas.DataFrame(pairs, columns=COLUMNS),
        pandas.DataFrame(intervals),
        f"difference in {metric.label}" + (f" ({unit})" if unit else ""),
        notation.scaled(metric, contrasts[0].sesoi),
    )
    return Picture(
        path,
        f"Paired differences in {metric.label}: means with 95 % t intervals"
        f"{over_readings(results.about.get('looks', ()))}; small dots: seeds; band: ± the smallest effect of interest.",
    )


def seeds(
    results: Results, names: Labels, metric: str, out: Path, axis: Sequence[str] = (), reference: str = ""
) -> Picture:
    """Every seed of every arm.

    Args:
        axis: labels whose values are panels.
        reference: an arm whose mean is a line through the panels.
    """
    points, path = _points(results, names, metric, axis), f"figures/{results.page}-seeds.png"
    title = notation.heading(results.metric(metric))
    figures.seed_points(Path(out) / path, points, title, colours_of(names), names.get(reference))
    line = f"; dashed: {names[reference]}'s mean" if reference in names else ""
    return Picture(path, f"{title}, one mark per seed; bar: mean; thin line: 95 % t interval{line}.")


def cost(
    results: Results, names: Labels, metric: str, out: Path, axis: Sequence[str] = (), shared: Sequence[str] = ()
) -> Picture:
    """The metric against training FLOPs.

    Args:
        shared: arms that are the same run in every budget; they are drawn once.
    """
    points, path = _points(results, names, metric, axis), f"figures/{results.page}-cost.png"
    once = points[~points["arm"].isin(shared) | (points["style"] == points["style"].iloc[0])]
    title, unit = notation.heading(results.metric(metric)), "training FLOPs (TFLOP, 2 per multiply-add)"
    figures.cost_points(Path(out) / path, once, unit, title, colours_of(names))
    return Picture(
        path,
        f"{title} against the FLOPs of the training: means with 95 % t intervals; small dots: seeds; dashed: no "
        "training. Open marks have equal costs and are spread sideways.",
    )


def colours_of(names: Labels) -> dict[str, str]:
    """The colours of a page's arms, by label, the same in all of its figures."""
    return figures.colours(list(names.values()))


def _points(results: Results, names: Labels, metric: str, axis: Sequence[str]) -> pandas.DataFrame:
    """One row per planned run of the arms; a run without numbers has no value."""
    rows, definition = [], results.metric(metric)
    for run in results.runs.to_dict("records"):
        if run["arm"] not in names:
            continue
        condition = {label: run[label] for label in axis if label in run}
        place = {"panel": _panel(results, condition), "row": names[run["arm"]], "style": BUDGET_WORDS[run["budget"]]}
        value, flops = notation.scaled(definition, run.get(metric, nan)), run.get("total_flops", nan)
        rows.append({**place, "value": value, "cost": flops / 1e12, "arm": run["arm"]})
    return pandas.DataFrame(rows)


def _panel(results: Results, condition: Condition) -> str:
    """The title of a panel: the value of the axis, or the data."""
    return axis_words(condition) or plain_text(results.about["data"])


def plain_text(title: str) -> str:
    """A title of data for a figure, where dollars would enclose a formula."""
    return title.replace("$", r"\$")
