"""The worked example of *How to read a page* by a calculation of its own, and as the committed page states it."""

import re
from math import sqrt

import numpy
import pandas
from scipy import stats

from docs.generators.declarations import ROOT
from docs.generators.worked_example import PAGE, points, values


def number(text: str) -> float:
    return float(text.replace("−", "-").split()[0])


def test_the_interval_follows_from_the_shown_seeds():
    """Mean, spread over the arms and interval from the records alone, by the formulas that the page states."""
    shown = values()
    runs = pandas.read_csv(ROOT / "reports" / "records" / f"{PAGE}.csv")
    runs = runs[(runs["status"] == "done") & (runs["budget"] == "flops") & (runs["rho"] == 0.8)]
    rows = [line.strip("| ").split(" | ") for line in shown["seed_table"].splitlines()[2:]]
    seeds = [int(row[0]) for row in rows]
    table = runs.pivot(index="seed", columns="arm", values="shift_linear_top1").loc[seeds]
    difference = 100 * (table["scd"] - table["constant_map"])
    assert [row[3] for row in rows] == [points(value / 100, signed=True) for value in difference]
    n, mean = len(seeds), difference.mean()
    pooled = table.drop(columns="random").dropna(axis=1)  # arms of the pool that have all of these seeds
    residual = pooled - pooled.mean()
    residual = residual.sub(residual.mean(axis=1), axis=0)
    df = (pooled.shape[1] - 1) * (n - 1)
    spread = 100 * sqrt(2 * float((residual**2).to_numpy().sum()) / df)
    half = stats.t.ppf(1 - 0.025 / 2, df) * spread / sqrt(n)  # two readings share the error
    assert (shown["n"], shown["df"], shown["arms"], shown["is_pooled"]) == (n, df, pooled.shape[1], True)
    expected = {"mean": mean, "spread": spread, "half": half, "low": mean - half, "high": mean + half}
    assert {name: round(number(shown[name]), 2) for name in expected} == {
        name: round(float(value), 2) for name, value in expected.items()
    }
    assert number(shown["own_sd"]) == round(float(numpy.std(difference, ddof=1)), 2)


def test_the_page_states_the_same():
    shown, page = values(), (ROOT / "reports" / f"{PAGE}.md").read_text(encoding="utf-8")
    assert f"*{shown['question']}* {shown['sentence']}" in page
    control = re.escape(shown["control_amount"])
    assert re.search(rf"Positive control.*is {shown['control_outcome']} than .* by {control}", page)
    assert f"the smallest effect of interest is {shown['sesoi']}" in page


def test_every_number_of_the_text_is_computed():
    """The hand-written text of the worked example has placeholders in the place of numbers of the records."""
    text = (ROOT / "docs" / "how-to-read.md").read_text(encoding="utf-8")
    assert not re.findall(r"[−-]?\d+\.\d\d", text)
    assert {name for name in re.findall(r"example\.(\w+)", text)} <= set(values())
    assert all(f"example.{name}" in text for name in ("mean", "spread", "low", "high", "detectable", "seed_table"))
