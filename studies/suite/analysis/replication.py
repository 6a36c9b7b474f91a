"""A page's runs on a second machine: which numbers are equal to the bit, and whether the differences come out again.

One row per compared number ("number") and per paired difference of the page's claims ("difference"), see COLUMNS.
Times, speed and memory are not compared.

A difference of the page has mean d over n seeds, and a spread s with df degrees of freedom, pooled as on the page. The
mean over m new seeds is expected in d ± t(0.975, df) * s * sqrt(1/n + 1/m), the 95 % prediction interval of the mean of
m further observations (Hahn and Meeker 1991, Statistical Intervals, chapter 4).

NOTE: the new runs repeat m of the n seeds, so that they share initial weights and order of images with the page's. The
interval is that of independent seeds, and therefore too wide rather than too narrow.
"""

import datetime
from collections.abc import Mapping, Sequence
from math import nan, sqrt

import pandas

from studies.suite.analysis.conditions import words
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import PairedResult, by_seed, quantile, select
from studies.suite.planning.study import Contrast

KEYS = ["page", "numerics_page", "numerics_here"]
PLACE = ["arm", "condition", "seed", "run", "metric"]
COLUMNS = [*KEYS, "date", "tier", "kind", *PLACE, "committed", "here", "low", "high"]
CONFIDENCE_TAIL = 0.025
EXACT = ("loss_first", "loss_last")  # of the training, beside the numbers of the protocols


def compared(committed: Results, here: Results, findings: Sequence[tuple[Contrast, PairedResult]]) -> pandas.DataFrame:
    """The rows of a replication.

    Args:
        committed: of the page; here: of the runs of this machine, with the same labels and ids.
        findings: the page's contrasts with their paired differences.
    """
    rows = [*_numbers(committed, here), *_differences(here, findings)]
    about, done = committed.about, here.finished
    classes = {"numerics_page": _classes(committed.finished), "numerics_here": _classes(done)}
    common = {"page": committed.page, "date": datetime.date.today().isoformat(), "tier": about["tier"], **classes}
    return pandas.DataFrame([{**common, **row} for row in rows], columns=COLUMNS)


def _classes(runs: pandas.DataFrame) -> str:
    names = sorted(set(runs["numerics"])) if "numerics" in runs else [""]
    return ", ".join(name or "not recorded" for name in names)


def _numbers(committed: Results, here: Results) -> list[dict]:
    """Every defined number of every run that both have; a number that only one of them has is unequal."""
    labels = [name for name in committed.labels if name not in ("arm", "seed", "data")]
    names = [name for name in committed.metrics if "@" not in name] + list(EXACT)
    rows, known = [], {}
    for run in committed.finished.to_dict("records"):
        known.setdefault(run["run"], run)
    for run in here.finished.drop_duplicates("run").to_dict("records"):
        old = known[run["run"]]
        place = {name: old[name] for name in labels if not pandas.isna(old[name])}
        base = {"kind": "number", "arm": run["arm"], "condition": words(place), "seed": run["seed"], "run": run["run"]}
        for name in dict.fromkeys(names):
            pair = {"committed": old.get(name, nan), "here": run.get(name, nan)}
            if not all(pandas.isna(value) for value in pair.values()):
                rows.append({**base, "metric": name, **pair})
    return rows


def _differences(here: Results, findings: Sequence[tuple[Contrast, PairedResult]]) -> list[dict]:
    rows, done = {}, here.finished
    for contrast, result in findings:
        values = [by_seed(select(done, arm=arm, **contrast.conditions), contrast.metric)
                  for arm in (contrast.treatment, contrast.control)]  # fmt: skip
        seeds = sorted(set(values[0]) & set(values[1]))
        if not seeds or not result.n:
            continue
        low, high = prediction_interval(result, len(seeds))
        name, condition = f"{contrast.treatment} - {contrast.control}", words(contrast.conditions)
        mean = sum(values[0][seed] - values[1][seed] for seed in seeds) / len(seeds)
        rows[name, condition, contrast.metric] = {
            "kind": "difference", "arm": name, "condition": condition, "metric": contrast.metric,
            "committed": result.mean, "here": mean, "low": low, "high": high,
        }  # fmt: skip
    return list(rows.values())


def prediction_interval(result: PairedResult, m: int) -> tuple[float, float]:
    """Where the mean difference of m further seeds is expected at 95 %; NaN where the page's spread is unknown."""
    if not result.spread:
        return nan, nan
    half = quantile(CONFIDENCE_TAIL, result.df) * result.spread * sqrt(1 / result.n + 1 / m)
    return result.mean - half, result.mean + half


def summary(rows: pandas.DataFrame) -> Mapping[str, int]:
    """Of one replication: numbers and those equal to the bit, runs, differences with an interval and those inside."""
    numbers, found = rows[rows["kind"] == "number"], rows[(rows["kind"] == "difference") & rows["low"].notna()]
    return {
        "runs": numbers["run"].nunique(),
        "numbers": len(numbers),
        "equal": int((numbers["committed"] == numbers["here"]).sum()),
        "differences": len(found),
        "inside": int(((found["low"] <= found["here"]) & (found["here"] <= found["high"])).sum()),
    }


def spreads(rows: pandas.DataFrame) -> pandas.DataFrame:
    """By metric: share of equal numbers, sd of the same seed over the two machines, and sd over the seeds of the page.

    The value of one seed on one of two machines has variance (a - b)^2 / 2 around the seed's mean, averaged here over
    trained runs; the variance over seeds is averaged over arms and conditions.
    """
    found = []
    trained = rows.loc[rows["metric"] == "loss_last", "run"]  # untrained runs hardly depend on the machine
    for metric, part in rows[rows["kind"] == "number"].groupby("metric", sort=False):
        over_seeds = part.groupby(["arm", "condition"], dropna=False)["committed"].var(ddof=1).mean()
        kept = part[part["run"].isin(trained)]
        across = ((kept["committed"] - kept["here"]) ** 2).mean() / 2
        equal = (part["committed"] == part["here"]).mean()
        sds = {"across": across, "over_seeds": over_seeds}
        sds = {name: sqrt(value) if value >= 0 else nan for name, value in sds.items()}
        found.append({"metric": metric, "numbers": len(part), "equal": equal, **sds})
    return pandas.DataFrame(found)
