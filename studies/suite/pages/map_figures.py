"""Figures of maps: their numbers over training, the maps beside image and mask, and heat maps of differences."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import numpy
import pandas

from studies.suite.pages.figures import CARD, GRID, INK, LOOK, by_first_appearance, legend, plt, save

COLUMNS = 3
LUMINANCE = numpy.array([0.2126, 0.7152, 0.0722])  # of red, green and blue


def curves_over_training(path: Path, points: pandas.DataFrame, xlabel: str, colour: Mapping[str, str]) -> Path:
    """One axes per quantity, one line per row: its mean over seeds, every seed as a faint line behind it.

    Args:
        points: columns panel (the quantity with its unit), row, seed, x, value.
        colour: row -> colour.
    """
    names, rows = by_first_appearance(points, "panel"), by_first_appearance(points, "row")
    height, width = -(-len(names) // COLUMNS), min(COLUMNS, len(names))
    size = (9.6 if width == COLUMNS else 2.4 + 3.4 * width, (2.5 if width > 1 else 3.2) * height)
    with plt.rc_context(LOOK):
        figure, grid = plt.subplots(height, width, figsize=size, squeeze=False, layout="constrained")
        for axes, name in zip(grid.flat[: len(names)], names, strict=True):
            part = points[points["panel"] == name].dropna(subset=["value"])
            for row in rows:
                line = part[part["row"] == row]
                for _, seed in line.groupby("seed"):
                    seed = seed.sort_values("x")
                    axes.plot(seed["x"], seed["value"], color=colour[row], lw=0.7, alpha=0.3, zorder=2)
                means = line.groupby("x")["value"].mean()
                axes.plot(means.index, means, color=colour[row], lw=1.8, marker="o", ms=3, zorder=3)
            axes.set_title(name, loc="left")
            axes.set_xlabel(xlabel)
            axes.grid(axis="both", lw=0.7)
        for axes in grid.flat[len(names) :]:
            axes.set_visible(False)
        handles = [plt.Line2D([], [], color=colour[row], lw=1.8, label=row) for row in rows]
        legend(figure, [], handles)
        return save(figure, path)


def map_grid(path: Path, cells: Sequence[Sequence[numpy.ndarray]], columns: Sequence[str]) -> Path:
    """Rows of pictures under column titles: (S, S, 3) in [0, 1] or uint8 as colours, (h, w) in [0, 1] as grey levels.

    Args:
        cells: one list per image: the image, its mask, its maps.
        columns: their titles.
    """
    with plt.rc_context(LOOK):
        size = (1.05 * len(columns), 1.05 * len(cells) + 0.7)
        figure, grid = plt.subplots(len(cells), len(columns), figsize=size, squeeze=False, layout="constrained")
        for row, pictures in zip(grid, cells, strict=True):
            for axes, picture in zip(row, pictures, strict=True):
                axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                for spine in axes.spines.values():
                    spine.set(visible=True, color=GRID)
        for axes, title in zip(grid[0], columns, strict=True):
            axes.set_title("\n".join(line for part in title.split("\n") for line in wrap(part, 13)), fontsize=7)
        return save(figure, path)


def heat(path: Path, values: pandas.DataFrame, texts: pandas.DataFrame, label: str) -> Path:
    """Differences as a heat map that is white at 0, with a text in every cell.

    Args:
        values: rows and columns as shown; NaN where nothing was measured. Colours are scaled by column.
        texts: of the same shape, the text of each cell.
        label: what the colours mean.
    """
    scale = values.abs().max(axis=0).replace(0, 1)
    with plt.rc_context(LOOK):
        size = (2.6 + 1.75 * values.shape[1], 0.9 + 0.36 * len(values))
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        shown = axes.imshow((values / scale).to_numpy(float), cmap="PuOr_r", vmin=-1.4, vmax=1.4, aspect="auto")
        cells = shown.to_rgba(shown.get_array())
        for (y, x), text in numpy.ndenumerate(texts.to_numpy()):
            dark = cells[y, x, :3] @ LUMINANCE < 0.45
            axes.text(x, y, text, ha="center", va="center", fontsize=8, color=CARD if dark else INK)
        axes.set_xticks(range(values.shape[1]), values.columns)
        axes.set_yticks(range(len(values)), values.index)
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        bar = figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.02, ticks=[-1.2, 0, 1.2])
        bar.ax.set_yticklabels(["−", "0", "+"])
        bar.set_label(label, color=INK, fontsize=8.5)
        bar.outline.set_visible(False)
        return save(figure, path)
