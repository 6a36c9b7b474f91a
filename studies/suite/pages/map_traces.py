"""What runs saw of their maps on the way: the numbers as a long table, and the kept maps as a figure's records.

A page is written from its records alone, so the maps that a figure shows are copied beside them, as
``records/PAGE-maps.safetensors``. Images go with them only where they are the suite's own: nobody's photographs are
republished.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy
import pandas
from safetensors.numpy import load_file, save_file

from studies.suite.analysis import tables
from studies.suite.analysis.results import DONE, FOLDER, Evidence
from studies.suite.execution.store import Store
from studies.suite.pages import figures
from studies.suite.pages import map_figures as mapfigures
from studies.suite.pages.study_figures import Picture
from studies.suite.planning.resolve import is_embedded
from studies.suite.planning.study import Settings

KEPT = 6  # images in a figure, the first of the test images


def course_points(evidence: Evidence, labels: Mapping[str, str], metrics: Sequence[str]) -> pandas.DataFrame:
    """Every traced number of every finished run: columns panel, row, seed, x (share of the training), value."""
    rows = []
    for run in evidence.finished.to_dict("records"):
        if run["arm"] not in labels:
            continue
        for metric in metrics:
            for name, value in run.items():
                if name.startswith(f"{metric}@") and pandas.notna(value):
                    place = {"panel": tables.heading(metric), "row": labels[run["arm"]], "seed": run["seed"]}
                    rows.append({**place, "x": float(name.split("@")[1]), "value": tables.scaled(metric, value)})
    return pandas.DataFrame(rows, columns=["panel", "row", "seed", "x", "value"])


def course_figure(
    evidence: Evidence, labels: Mapping[str, str], metrics: Sequence[str], out: Path, colour: Mapping[str, str]
) -> Picture | None:
    """The courses of some arms, or None where no run has left any."""
    points = course_points(evidence, labels, metrics)
    if points.empty:
        return None
    path = f"figures/{evidence.page}-courses.png"
    mapfigures.courses(Path(out) / path, points, "share of the training", colour)
    return Picture(
        path, "The maps over training, on the same test images: mean over seeds, every seed as a faint line behind it."
    )


def keep_maps(evidence: Evidence, settings: Settings, shown: Sequence[tuple[str, float]]) -> None:
    """Copy the maps of the first seed's runs beside the records: each (arm, share of the training) of ``shown``.

    An arm "dino:attention" is the maps of that kind, where a run keeps several. Nothing is written for images that are
    not the suite's own.
    """
    if not is_embedded(settings.base["data"]):
        return
    found = {}
    runs = evidence.finished
    for name, share in shown:
        arm, _, kind = name.partition(":")
        chosen = runs[(runs["arm"] == arm) & (runs["seed"] == min(evidence.about["seeds"]))]
        if not chosen.empty:
            maps = _maps_at(Store(settings.store).folder(chosen.iloc[0]["run"]) / "trace", kind or "maps", share)
            found |= {} if maps is None else {f"{name}@{share:.2f}": maps}
    if found:
        images, masks = _first_images(settings)
        path = maps_file(settings.out, evidence.page)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"images": images, "masks": masks, **found}, path)


def with_place_share(evidence: Evidence, settings: Settings) -> Evidence:
    """The evidence with a column ``place_share``: of each run's last kept maps, see :func:`place_share`."""
    store, shares = Store(settings.store), []
    for run in evidence.runs.to_dict("records"):
        files = sorted((store.folder(run["run"]) / "trace").glob("*.safetensors")) if run["status"] == DONE else []
        shares.append(place_share(load_file(files[-1])["maps"]) if files else None)
    return Evidence(evidence.about, evidence.runs.assign(place_share=pandas.Series(shares, evidence.runs.index, float)))


def place_share(maps: numpy.ndarray) -> float | None:
    """How much of the maps' variance the position alone explains, whatever the image: 1 for one map for all images.

    1 - (mean variance over images at a position) / (variance over images and positions), both with their degrees of
    freedom (adjusted R^2 of a one-way analysis of variance); about 0, or a little below, where place does not matter.
    None for a single image or maps without variance.

    Args:
        maps: (n, h, w).
    """
    if len(maps) < 2 or maps.var() < 1e-12:
        return None
    x = maps.astype(float)
    return float(1 - x.var(axis=0, ddof=1).mean() / x.var(ddof=1))


def _maps_at(folder: Path, kind: str, share: float) -> numpy.ndarray | None:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    last = int(files[-1].stem)
    kept = load_file(min(files, key=lambda file: abs(int(file.stem) - share * last)))
    return kept[kind][:KEPT] if kind in kept else None


def _first_images(settings: Settings) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The first test images (n, S, S, 3) and masks (n, S, S), uint8."""
    from studies.suite.execution.run import evaluation_data, open_data

    test = evaluation_data(open_data(settings.base["data"], settings.locations), settings.base).test
    few = test.subset(range(min(KEPT, len(test))))
    return few.images.permute(0, 2, 3, 1).contiguous().numpy(), few.masks.numpy()


def maps_file(out: Path, page: str) -> Path:
    """Where a page's maps lie."""
    return Path(out) / FOLDER / f"{page}-maps.safetensors"


def maps_figure(
    evidence: Evidence, labels: Mapping[str, str], shown: Sequence[tuple[str, float]], out: Path
) -> Picture | None:
    """The kept maps beside their images and masks, or None where none were kept."""
    path = maps_file(out, evidence.page)
    if not path.is_file():
        return None
    kept = load_file(path)
    columns = [(arm, share) for arm, share in shown if f"{arm}@{share:.2f}" in kept]
    titles = ["image", "mask", *(f"{labels[arm]}\n{_when(share)}" for arm, share in columns)]
    cells = [
        [
            kept["images"][row],
            kept["masks"][row].astype(float),
            *(kept[f"{arm}@{share:.2f}"][row] for arm, share in columns),
        ]
        for row in range(len(kept["images"]))
    ]
    figure = f"figures/{evidence.page}-maps.png"
    mapfigures.map_grid(Path(out) / figure, cells, titles)
    return Picture(
        figure,
        "The first test images (by index, before any training), their true masks, and maps of the first seed; white is "
        "1. Read a column downwards: a map that marks the object is white where the mask is, an inverted one black.",
    )


def _when(share: float) -> str:
    return {0.0: "untrained", 1.0: "at the end"}.get(share, f"after {share:.0%}")


def colours_of(labels: Mapping[str, str]) -> dict[str, str]:
    """The colours of a page's arms, by label, as in its other figures."""
    return figures.colours(list(labels.values()))
