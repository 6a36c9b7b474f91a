"""Maps logged during training: their numbers as curves, and the kept maps as a figure.

A page is written from its records alone, so the maps of its figure are copied beside them, as
``records/PAGE-maps.safetensors``. This is done for embedded images only: photographs are not republished.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pandas
from safetensors.numpy import load_file, save_file

from studies.suite.analysis import notation
from studies.suite.analysis.results import FOLDER, Results
from studies.suite.pages import map_figures
from studies.suite.pages.markdown import Blocks, Picture
from studies.suite.pages.study_figures import colours_of

if TYPE_CHECKING:
    from studies.suite.planning.settings import Settings

KEPT = 6  # images in a figure, the first of the test images
NO_PICTURES = "There are no pictures of maps: these images are not the suite's own and are not republished."
Labels = Mapping[str, str]


# -------------------------------------------------------------------- numbers over training


def curve_points(results: Results, names: Labels, metrics: Sequence[str]) -> pandas.DataFrame:
    """Every number ``METRIC@SHARE`` of the finished runs: columns panel, row, seed, x (share of training), value."""
    rows = []
    for run in results.finished.to_dict("records"):
        if run["arm"] not in names:
            continue
        for name in metrics:
            metric = results.metric(name)
            place = {"panel": notation.heading(metric), "row": names[run["arm"]], "seed": run["seed"]}
            rows += [
                {**place, "x": float(column.split("@")[1]), "value": notation.scaled(metric, value)}
                for column, value in run.items()
                if column.startswith(f"{name}@") and pandas.notna(value)
            ]
    return pandas.DataFrame(rows, columns=["panel", "row", "seed", "x", "value"])


def curve_figure(
    results: Results, names: Labels, metrics: Sequence[str], out: Path, arms: Sequence[str]
) -> Picture | None:
    """The curves of some arms, or None where no run has any.

    Args:
        names: arm -> its label, of all arms of the page, for their colours.
        arms: those to draw.
    """
    drawn = {arm: names[arm] for arm in arms if arm in results.about["arms"]}
    points = curve_points(results, drawn, metrics)
    if points.empty:
        return None
    path = f"figures/{results.page}-curves.png"
    map_figures.curves_over_training(Path(out) / path, points, "share of the training", colours_of(names))
    return Picture(path, "The maps over training, on the same test images: mean over seeds; faint lines: seeds.")


# -------------------------------------------------------------------- maps


def keep_maps(results: Results, settings: "Settings", shown: Sequence[tuple[str, float]]) -> None:
    """Copy maps of the first seed's runs beside the records; nothing for images that are not embedded ones.

    Args:
        shown: (arm, share of the training) of each map; an arm "dino:attention" is the map of that kind, where a run
            keeps several.
    """
    if not settings.embedded:
        return
    found, runs = {}, results.finished
    for name, share in shown:
        arm, _, kind = name.partition(":")
        chosen = runs[(runs["arm"] == arm) & (runs["seed"] == min(results.about["seeds"]))]
        maps = None if chosen.empty else _maps_at(results, chosen.iloc[0]["run"], kind or "learned", share)
        found |= {} if maps is None else {f"{name}@{share:.2f}": maps}
    if found:
        images, masks = _first_images(settings)
        path = maps_file(settings.out, results.page)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"images": images, "masks": masks, **found}, path)


def _maps_at(results: Results, run: str, kind: str, share: float) -> numpy.ndarray | None:
    """The maps that a run kept at the point of its training that is nearest to a share."""
    files = map_files(results, run)
    if not files:
        return None
    kept = load_file(min(files, key=lambda file: abs(float(file.stem) - share)))
    return kept[kind][:KEPT] if kind in kept else None


def map_files(results: Results, run: str) -> list[Path]:
    """The files of maps that a run kept, in the order of its training; their names are shares of it."""
    return sorted(
        (file for folder in results.folders.get(run, ()) for file in Path(folder).glob("*.safetensors")),
        key=lambda file: float(file.stem),
    )


def _first_images(settings: "Settings") -> tuple[numpy.ndarray, numpy.ndarray]:
    """The first test images (n, S, S, 3) and masks (n, S, S), uint8."""
    from studies.suite.planning.assembly import open_data
    from studies.suite.planning.protocols import evaluation_data

    source = open_data(settings.base["data"], settings.locations)
    test = evaluation_data(settings.base, source).test
    few = test.subset(range(min(KEPT, len(test))))
    return few.images.permute(0, 2, 3, 1).contiguous().numpy(), few.masks.numpy()


def maps_file(out: Path, page: str) -> Path:
    """The file of a page's maps."""
    return Path(out) / FOLDER / f"{page}-maps.safetensors"


def maps_figure(results: Results, names: Labels, shown: Sequence[tuple[str, float]], out: Path) -> Picture | None:
    """The kept maps beside their images and masks, or None where none were kept."""
    path = maps_file(out, results.page)
    if not path.is_file():
        return None
    kept = load_file(path)
    columns = {f"{arm}@{share:.2f}": f"{names[arm]}\n{_when(share)}" for arm, share in shown}
    columns = {key: title for key, title in columns.items() if key in kept}
    cells = [
        [kept["images"][row], kept["masks"][row].astype(float), *(kept[key][row] for key in columns)]
        for row in range(len(kept["images"]))
    ]
    figure = f"figures/{results.page}-maps.png"
    map_figures.map_grid(Path(out) / figure, cells, ["image", "mask", *columns.values()])
    return Picture(
        figure,
        "The first test images (by index, chosen before any training), their true masks, and maps of the first seed; "
        "white is 1. A map that marks the object is white where the mask is; an inverted one is black there.",
    )


def pictures(blocks: Blocks, results: Results, names: Labels, shown: Sequence[tuple[str, float]], out: Path) -> None:
    """The kept maps, or the reason why there are none."""
    figure = maps_figure(results, names, shown, out)
    blocks.figure(figure)
    blocks.text("" if figure else NO_PICTURES)


def _when(share: float) -> str:
    return {0.0: "untrained", 1.0: "at the end"}.get(share, f"after {share:.0%}")
