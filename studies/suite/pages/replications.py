"""The page of replications, from ``replications.csv`` beside it."""

from pathlib import Path

import pandas

from scd.atomic import write_text
from studies.suite.analysis.replication import COLUMNS, KEYS, spreads, summary
from studies.suite.analysis.tables import Table
from studies.suite.pages.markdown import Page

NAME = "replications"
TEXTS = {name: str for name in (*KEYS, "date", "tier", "kind", "arm", "condition", "run", "metric")}
MAIN = ("knn_top1", "linear_top1")  # metrics of the first table, the first that the page has


def add(rows: pandas.DataFrame, out: Path) -> Path:
    """Put the rows of a replication in the place of an earlier one of the same page and classes; write the page."""
    path = Path(out) / f"{NAME}.csv"
    if path.exists():
        old = read(path)
        same = (old[KEYS] == rows[KEYS].iloc[0]).all(axis=1)
        rows = pandas.concat([old[~same].astype(object), rows.astype(object)], ignore_index=True)
    rows = rows[COLUMNS].sort_values(KEYS, kind="stable")
    write_text(path, rows.to_csv(index=False, lineterminator="\n"))
    return write(out)


def read(path: Path) -> pandas.DataFrame:
    """The rows of all replications."""
    return pandas.read_csv(path, dtype=TEXTS, keep_default_na=False, na_values={
        name: [""] for name in ("seed", "committed", "here", "low", "high")})  # fmt: skip


def write(out: Path) -> Path:
    """Write ``replications.md``: one line per page and machine, then each number's spread."""
    groups = list(read(Path(out) / f"{NAME}.csv").groupby(KEYS, sort=False))
    page, lines = Page("Replications"), []
    page.text(
        "The first seeds of committed pages, run again by `nox -s replicate -- PAGE`. On a machine of the page's own "
        "numerics class every number must be equal to the bit; on another one the same seed is another draw."
    )
    for (name, there, here), rows in groups:
        found, main = summary(rows), spreads(rows).set_index("metric")
        metric = next((each for each in MAIN if each in main.index), main.index[0])
        lines.append({
            "page": name, "tier": rows["tier"].iloc[0], "date": rows["date"].iloc[0], "class of the page": there,
            "class here": here, "runs": str(found["runs"]),
            "numbers equal to the bit": share(found["equal"], found["numbers"]),
            "sd of a seed over machines": f"{main['across'][metric]:.4g} ({metric})",
            "differences in the prediction interval": share(found["inside"], found["differences"]),
        })  # fmt: skip
    page.table(Table(pandas.DataFrame(lines)))
    page.text(
        f"Every compared number is in [{NAME}.csv]({NAME}.csv). Standard deviations are in the unit of the records "
        "(0.01 is one point of an accuracy). A difference lies in the prediction interval where the mean over the new "
        "runs is one that the page's spread lets expect at 95 %. Times and memory are not compared."
    )
    for (name, there, here), rows in groups:
        shown = spreads(rows)
        part = page.details(f"{name}: {there} and {here}, by number")
        part.table(Table(pandas.DataFrame({
            "number": shown["metric"], "values": shown["numbers"].astype(str),
            "equal": [f"{100 * value:.0f} %" for value in shown["equal"]],
            "sd over machines": [f"{value:.3g}" for value in shown["across"]],
            "sd over these seeds": ["–" if pandas.isna(value) else f"{value:.3g}" for value in shown["over_seeds"]],
        })))  # fmt: skip
    return page.write(Path(out) / f"{NAME}.md")


def share(part: int, whole: int) -> str:
    """ "12 of 40"."""
    return f"{part} of {whole}"
