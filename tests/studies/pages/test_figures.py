"""The figures: same bytes for same numbers, small files, whatever is missing."""

from itertools import product
from math import nan

import pandas
import pytest

from studies.suite.pages import figures

ARMS = ("random", "moco", "scd")
COLOUR = figures.colours(list(ARMS))


def points(seeds=3, panels=("ρ = 0", "ρ = 0.8"), styles=("equal epochs", "equal training FLOPs")):
    return pandas.DataFrame(
        {
            "panel": panel,
            "row": arm,
            "style": style,
            "value": 50.0 + 3 * ARMS.index(arm) + 0.7 * seed + 2 * panels.index(panel),
            "cost": float(ARMS.index(arm)) * (1 + 0.1 * styles.index(style)),
        }
        for panel, arm, style, seed in product(panels, ARMS, styles, range(seeds))
    )


def intervals(found):
    means = found.groupby(["panel", "row", "style"], sort=False)["value"].mean().rename("mean").reset_index()
    return means.assign(low=means["mean"] - 1, high=means["mean"] + 1)


def draw(kind, path, found):
    if kind == "seeds":
        return figures.seed_points(path, found, "linear top-1 (%)", COLOUR, "moco")
    if kind == "cost":
        return figures.cost_points(path, found, "training FLOPs (TFLOP)", "linear top-1 (%)", COLOUR)
    return figures.differences(path, found, intervals(found), "difference (points)", 1.0)


@pytest.mark.parametrize("kind", ["seeds", "cost", "differences"])
def test_equal_numbers_give_equal_small_files(tmp_path, kind):
    first, second = (draw(kind, tmp_path / f"{name}.png", points()).read_bytes() for name in "ab")
    assert first == second and first.startswith(b"\x89PNG") and len(first) < 150_000
    assert b"Software" not in first and b"tIME" not in first
    moved = points().assign(value=lambda table: table["value"] + table.index % 2)
    assert draw(kind, tmp_path / "c.png", moved).read_bytes() != first


@pytest.mark.parametrize("kind", ["seeds", "cost", "differences"])
def test_one_seed_one_panel_and_missing_values_are_drawn(tmp_path, kind):
    found = points(seeds=1, panels=("shapes",), styles=("equal epochs",))
    found.loc[found["row"] == "scd", "value"] = nan
    assert draw(kind, tmp_path / "one.png", found).stat().st_size > 5_000
    assert draw(kind, tmp_path / "none.png", found.assign(value=nan)).stat().st_size > 5_000


def curve(path, means=(1.0, -2.0, 0.5), low=0.5):
    names, styles = ("3", "1", "2"), ("a vs. b", "c vs. b")
    effects = pandas.DataFrame(
        {"x": name, "style": style, "mean": mean + position, "low": mean - low, "high": mean + 2}
        for position, style in enumerate(styles)
        for name, mean in zip(names, means, strict=True)
    )
    levels = pandas.DataFrame(
        {"x": name, "panel": choice, "row": f"{number % size}"}
        for number, name in enumerate(names)
        for choice, size in (("margin", 2), ("map", 3))
    )
    return figures.specification_curve(path, effects, levels, "difference (points)", 1.0)


def test_a_specification_curve_is_drawn_also_without_intervals(tmp_path):
    first, second = (curve(tmp_path / f"{name}.png").read_bytes() for name in "ab")
    assert first == second and 5_000 < len(first) < 150_000
    assert curve(tmp_path / "c.png", means=(1.0, -2.0, 0.6)).read_bytes() != first
    assert curve(tmp_path / "none.png", means=(nan, nan, nan)).stat().st_size > 5_000
    assert curve(tmp_path / "one.png", low=nan).stat().st_size > 5_000


def test_an_arm_keeps_its_colour_and_the_card_is_light():
    assert len(set(COLOUR.values())) == len(ARMS) and figures.colours(["x", "y"])["x"] == COLOUR["random"]
    assert all(int(figures.CARD[i : i + 2], 16) > 240 for i in (1, 3, 5))


def test_figures_do_not_change_how_others_draw(tmp_path):
    colour, others = figures.matplotlib.rcParams["figure.facecolor"], figures.plt.get_fignums()  # of earlier tests
    draw("seeds", tmp_path / "a.png", points())
    assert figures.matplotlib.rcParams["figure.facecolor"] == colour and figures.plt.get_fignums() == others


def test_a_legend_of_long_labels_stays_inside_the_figure():
    """Five columns of long labels were cut off at both sides."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(7.3, 4), layout="constrained")
    figure.subplots()
    figures.legend(figure, ["equal epochs", "equal training FLOPs"], [Line2D([], [], label="a label " * 3)] * 10)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
