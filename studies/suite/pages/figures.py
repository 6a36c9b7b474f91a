"""The figures of the pages: every seed as a point, means with their intervals, units on the axes, one style for all.

Each function takes a long table, one row per point, and writes one PNG. Figures have a light background of their own,
so that they can be read on a dark page. They contain no date and no version, so equal numbers give equal bytes.

Columns shared by all tables: ``panel`` (one axes per value, side by side), ``row`` (what is compared: an arm, a
contrast) and ``style`` (at most three values, shown by marker: a budget). All orders are those of first appearance.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib
import pandas

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402  (the backend is chosen first)
from matplotlib.lines import Line2D  # noqa: E402

from studies.suite.analysis.statistics import estimate  # noqa: E402

CARD, INK, SOFT, GRID, BAND = "#fcfbf8", "#23262b", "#6b7078", "#e3e1db", "#efe6cf"
PALETTE = ("#8c8c8c", "#23262b", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#a6761d", "#7570b3", "#66a61e")
MARKERS = ("o", "s", "^")
CURVES = ("#0072b2", "#d55e00", "#23262b")  # of the effects in a specification curve
DPI = 150
LOOK = {
    "figure.facecolor": CARD,
    "axes.facecolor": CARD,
    "savefig.facecolor": CARD,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 9,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.hashsalt": "studies",
}


def colours(rows: list[str]) -> dict[str, str]:
    """A colour for each row, by its position, so that an arm has one colour in all figures of a page."""
    return {row: PALETTE[position % len(PALETTE)] for position, row in enumerate(rows)}


def seed_points(
    path: Path,
    points: pandas.DataFrame,
    xlabel: str,
    colour: Mapping[str, str],
    reference: str | None = None,
) -> Path:
    """One dot per seed, one line per arm, the mean as a bar and its 95 % t interval as a thin line (from two seeds on).

    Args:
        points: columns panel, row, style, value.
        reference: the row whose mean is drawn through each panel, in the colour of its row, per style.
    """
    rows, styles = by_first_appearance(points, "row"), by_first_appearance(points, "style")
    with plt.rc_context(LOOK):
        figure, panels = _panels(points, height=0.9 + 0.42 * len(rows), sharex=False)
        for axes, (_, part) in panels:
            found = dict(iter(part.dropna(subset=["value"]).groupby(["row", "style"])["value"]))
            for lane, row, style, offset in _lanes(rows, styles):
                values = found.get((row, style))
                if values is None:
                    continue
                y, face = lane + offset, colour[row] if styles.index(style) == 0 else CARD
                # a fixed spread by rank of the seed, not a random jitter: equal numbers give equal figures
                spread = [y + 0.05 * (position % 3 - 1) for position in range(len(values))]
                marker = MARKERS[styles.index(style)]
                axes.scatter(
                    values, spread, s=17, marker=marker, facecolor=face, edgecolor=colour[row], lw=0.9, zorder=3
                )
                summary = estimate(values)
                axes.vlines(summary.mean, y - 0.17, y + 0.17, color=colour[row], lw=2.4, zorder=4)
                if summary.half is not None:
                    interval = (summary.mean - summary.half, summary.mean + summary.half)
                    axes.hlines(y, *interval, color=colour[row], lw=1.1, alpha=0.7, zorder=2)
                if row == reference and styles.index(style) == 0:
                    axes.axvline(summary.mean, color=colour[row], lw=0.9, ls=(0, (4, 3)), zorder=1)
            _rows(axes, rows)
            axes.set_xlabel(xlabel)
        legend(figure, styles)
        return save(figure, path)


def cost_points(path: Path, points: pandas.DataFrame, xlabel: str, ylabel: str, colour: Mapping[str, str]) -> Path:
    """Accuracy against cost: per row and style the mean with its t interval, and every seed as a faint dot.

    Args:
        points: columns panel, row, style, cost, value; a cost of 0 (random weights) is drawn as a dashed level. The
            marks of every style but the first have nearly equal costs and are spread sideways.
    """
    rows, styles = by_first_appearance(points, "row"), by_first_appearance(points, "style")
    spread = 0.012 * (points["cost"].max() - points.loc[points["cost"] > 0, "cost"].min())
    with plt.rc_context(LOOK):
        figure, panels = _panels(points, height=3.7, sharey=False)
        for axes, (_, part) in panels:
            for lane, row in enumerate(rows):
                for position, style in enumerate(styles):
                    seeds = part[(part["row"] == row) & (part["style"] == style)].dropna(subset=["cost", "value"])
                    if seeds.empty:
                        continue
                    cost, summary = seeds["cost"].mean(), estimate(seeds["value"])
                    if cost == 0:
                        axes.axhline(summary.mean, color=colour[row], lw=1.1, ls=(0, (4, 3)), zorder=1)
                        continue
                    face = colour[row] if position == 0 else CARD
                    aside = 0.0 if position == 0 or pandas.isna(spread) else spread * (lane - (len(rows) - 1) / 2)
                    at = seeds["cost"] + aside
                    axes.scatter(at, seeds["value"], s=7, color=colour[row], alpha=0.35, lw=0, zorder=2)
                    axes.errorbar(
                        cost + aside,
                        summary.mean,
                        yerr=summary.half,
                        marker=MARKERS[position],
                        ms=6.5,
                        color=colour[row],
                        mfc=face,
                        mew=1.2,
                        lw=1.1,
                        zorder=4,
                    )
            axes.grid(axis="both", lw=0.7)
            axes.margins(x=0.08)
            axes.set_xlabel(xlabel)
        panels[0][0].set_ylabel(ylabel)
        free = {row for row in rows if not points[points["row"] == row]["cost"].gt(0).any()}
        arms = [
            Line2D([], [], color=colour[row], lw=1.4, ls=(0, (4, 3)) if row in free else "-", label=row) for row in rows
        ]
        legend(figure, styles, arms)
        return save(figure, path)


def differences(
    path: Path, points: pandas.DataFrame, intervals: pandas.DataFrame, xlabel: str, sesoi: float | None = None
) -> Path:
    """Paired differences: one dot per seed, the mean with its 95 % t interval, 0 as a line, ± SESOI as a band.

    Args:
        points: columns panel, row, style, value (one per pair of seeds).
        intervals: columns panel, row, style, mean, low, high; NaN where there is none.
    """
    rows, styles = by_first_appearance(intervals, "row"), by_first_appearance(intervals, "style")
    with plt.rc_context(LOOK):
        figure, panels = _panels(intervals, height=0.9 + 0.42 * len(rows), sharex=True)
        found = dict(iter(points.dropna(subset=["value"]).groupby(["panel", "row", "style"])["value"]))
        for axes, (panel, part) in panels:
            means = dict(iter(part.dropna(subset=["mean"]).groupby(["row", "style"])))
            axes.axvline(0, color=INK, lw=0.9, zorder=1)
            if sesoi:
                axes.axvspan(-sesoi, sesoi, color=BAND, lw=0, zorder=0)
            for lane, row, style, offset in _lanes(rows, styles):
                chosen = means.get((row, style))
                if chosen is None:
                    continue
                mean, low, high = chosen.iloc[0][["mean", "low", "high"]]
                y, position = lane + offset, styles.index(style)
                seeds = found.get((panel, row, style), ())
                axes.scatter(seeds, [y] * len(seeds), s=9, color=SOFT, alpha=0.55, lw=0, zorder=2)
                if pandas.notna(low):
                    axes.hlines(y, low, high, color=INK, lw=1.5, zorder=3)
                face = INK if position == 0 else CARD
                axes.scatter(mean, y, s=30, marker=MARKERS[position], facecolor=face, edgecolor=INK, lw=1.2, zorder=4)
            _rows(axes, rows)
            axes.set_xlabel(xlabel)
        legend(figure, styles)
        return save(figure, path)


def curves(path: Path, points: pandas.DataFrame, ylabel: str) -> Path:
    """A quantity along several axes, one panel each: medians joined by a line, the interquartile range as a bar.

    Args:
        points: columns panel (the axis with its unit, printed under it), style (a way of measuring), x, value, and low
            and high, equal to value where it is exact.
    """
    styles, names = by_first_appearance(points, "style"), by_first_appearance(points, "panel")
    with plt.rc_context(LOOK):
        figure, grid = plt.subplots(1, len(names), figsize=(3.1 * len(names), 3.0), squeeze=False, layout="constrained")
        for axes, name in zip(grid[0], names, strict=True):
            part = points[points["panel"] == name]
            for position, style in enumerate(styles):
                line = part[part["style"] == style].dropna(subset=["value"]).sort_values("x")
                if line.empty:
                    continue
                span = [line["value"] - line["low"], line["high"] - line["value"]]
                axes.errorbar(
                    range(len(line)) if len(styles) == 1 else line["x"], line["value"], yerr=span, color=INK, lw=1.2,
                    marker=MARKERS[position], ms=5, mfc=INK if position == 0 else CARD, mew=1.2, elinewidth=1.0,
                )  # fmt: skip
                if len(styles) == 1:
                    axes.set_xticks(range(len(line)), [f"{x:g}" for x in line["x"]])
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            axes.set_xlabel(name)
            axes.grid(axis="y", lw=0.7)
        grid[0][0].set_ylabel(ylabel)
        legend(figure, styles)
        return save(figure, path)


def power_curves(path: Path, points: pandas.DataFrame, xlabel: str, ylabel: str, margins: Sequence[float]) -> Path:
    """Which difference is found with how many seeds: one line per row, both axes logarithmic.

    Args:
        points: columns row, x, value.
        margins: values that are marked by bands.
    """
    rows = by_first_appearance(points, "row")
    with plt.rc_context(LOOK):
        figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
        for position, row in enumerate(rows):
            line = points[points["row"] == row]
            style = ("-", "--", "-.", ":")[position % 4]
            axes.plot(line["x"], line["value"], style, color=(INK, SOFT)[position % 2], lw=1.6, label=row)
        for margin in margins:
            axes.axhline(margin, color=BAND, lw=6, zorder=0)
        axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel, facecolor=CARD)
        axes.grid(axis="both", which="both", lw=0.6)
        axes.legend()
        return save(figure, path)


def specification_curve(
    path: Path, effects: pandas.DataFrame, levels: pandas.DataFrame, ylabel: str, sesoi: float | None = None
) -> Path:
    """A specification curve: effects with their intervals above, and below them the level that each choice has.

    Args:
        effects: columns x (name of the specification), style (the effect, at most three), mean, low, high; NaN where
            there is none. Specifications are drawn in the order of their first appearance.
        levels: columns x, panel (the choice), row (its level), one row per specification and choice.
    """
    names, styles = by_first_appearance(effects, "x"), by_first_appearance(effects, "style")
    rows = list(dict.fromkeys(zip(levels["panel"], levels["row"], strict=True)))
    width, below = max(5.6, 2.6 + 0.5 * len(names)), 0.3 + 0.22 * len(rows)
    with plt.rc_context(LOOK):
        figure, (above, grid) = plt.subplots(
            2, 1, figsize=(width, 3.3 + below), sharex=True, height_ratios=[2.9, below], layout="constrained"
        )
        above.axhline(0, color=INK, lw=0.9, zorder=1)
        if sesoi:
            above.axhspan(-sesoi, sesoi, color=BAND, lw=0, zorder=0)
        for position, style in enumerate(styles):
            part = effects[effects["style"] == style].dropna(subset=["mean"])
            at = [names.index(name) + 0.2 * (position - (len(styles) - 1) / 2) for name in part["x"]]
            colour, marker = CURVES[position], MARKERS[position]
            above.vlines(at, part["low"], part["high"], color=colour, lw=1.4, zorder=2)
            above.scatter(at, part["mean"], s=26, marker=marker, color=colour, zorder=3, label=style)
        above.set_ylabel(ylabel)
        above.grid(axis="y", lw=0.7)
        places = zip(levels["panel"], levels["row"], strict=True)
        lanes = [-rows.index(place) for place in places]
        grid.scatter([names.index(name) for name in levels["x"]], lanes, s=24, color=INK, zorder=3)
        grid.set_yticks([-lane for lane in range(len(rows))], [f"{choice}: {level}" for choice, level in rows])
        grid.set_ylim(-len(rows) + 0.4, 0.6)
        grid.tick_params(axis="y", length=0)
        grid.grid(axis="both", lw=0.7)
        for lane, (one, two) in enumerate(pairwise(rows)):
            if one[0] != two[0]:
                grid.axhline(-lane - 0.5, color=SOFT, lw=0.7, zorder=1)
        grid.set_xticks(range(len(names)), names)
        grid.set_xlim(-0.6, len(names) - 0.4)
        grid.set_xlabel("specification")
        if styles:
            figure.legend(*above.get_legend_handles_labels(), loc="outside upper center")
        return save(figure, path)


# -------------------------------------------------------------------- shared parts


def by_first_appearance(points: pandas.DataFrame, column: str) -> list[str]:
    """The values of a column, in the order in which they appear."""
    return list(dict.fromkeys(points[column]))


def _panels(points: pandas.DataFrame, height: float, **sharing: bool):
    """A figure with one axes per panel, titled, and those axes with their part of the table."""
    names = by_first_appearance(points, "panel")
    width = 4.2 + 3.4 * len(names) if len(names) > 1 else 6.8
    figure, grid = plt.subplots(1, len(names), figsize=(width, height), squeeze=False, layout="constrained", **sharing)
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, loc="left")
    parts = [(name, points[points["panel"] == name]) for name in names]
    return figure, list(zip(grid[0], parts, strict=True))


def _lanes(rows: list[str], styles: list[str]):
    """(row's height, row, style, offset within the row) for every lane; the first row is on top."""
    step = 0.42 if len(styles) < 3 else 0.3
    for lane, row in enumerate(rows):
        for position, style in enumerate(styles):
            yield -lane, row, style, step * ((len(styles) - 1) / 2 - position)


def _rows(axes, rows: list[str]) -> None:
    first = axes.get_subplotspec().is_first_col()
    axes.set_yticks([-lane for lane in range(len(rows))], rows if first else [""] * len(rows))
    axes.set_ylim(-len(rows) + 0.45, 0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", lw=0.7)
    for lane in range(1, len(rows)):
        axes.axhline(0.5 - lane, color=GRID, lw=0.7, zorder=0)


def legend(figure, styles: list[str], more: list[Line2D] | None = None) -> None:
    """The legend of colours and marks, under the figure."""
    marks = [
        Line2D(
            [], [], ls="", marker=MARKERS[position], ms=5.5, color=INK, mfc=INK if position == 0 else CARD, label=style
        )
        for position, style in enumerate(styles)
        if len(styles) > 1
    ]
    handles = [*(more or []), *marks]
    if handles:
        column = 0.6 + 0.065 * max(len(handle.get_label()) for handle in handles)  # inches: the mark and the text
        fitting = max(1, int(figure.get_figwidth() / column))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), fitting, 5))


def save(figure, path: Path) -> Path:
    """Write the figure, without date or version."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.patch.set_edgecolor(GRID)
    figure.patch.set_linewidth(1.5)
    figure.savefig(path, dpi=DPI, metadata={"Software": None}, edgecolor=figure.get_edgecolor())
    plt.close(figure)
    return path
