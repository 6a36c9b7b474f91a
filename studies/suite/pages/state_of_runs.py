"""The state of a page's runs, in the lines of its first screen: how complete it is, and the machines they come from."""

from collections.abc import Mapping

import pandas

from studies.suite.analysis.results import DONE, MISSING, Results
from studies.suite.analysis.statistics import PairedResult
from studies.suite.pages.markdown import code_span

CONTRASTS_SHOWN = 3  # whose left-out seeds are named on the first screen


def completeness(results: Results) -> str:
    """How complete the page is, in one line."""
    about, runs = results.about, results.runs
    seeds = about["seeds"]
    waiting = runs[(runs["status"] != DONE) | (runs["reason"] != "")]
    if "time_budget" in about:
        return _timed(results, waiting)
    line = f"{about['done']} of {about['planned']} runs have finished"
    if waiting.empty:
        if not seeds:
            return f"Complete: {line}."
        low, high = _seeds(results)
        if low < len(seeds):
            return f"Complete: {line}, {low} to {high} seeds in an arm and setting."
        at_least = "at least " if high > low else ""
        return f"Complete: {line}, {at_least}{low} seed{'s' if low != 1 else ''} in every arm and setting."
    parts = _unfinished(waiting)
    whole = "" if not seeds else (
        f"{len([seed for seed in seeds if seed not in set(waiting['seed'])])} of {len(seeds)} seeds are complete; "
    )  # fmt: skip
    return f"**Partial page:** {whole}{line} ({', '.join(parts)})."


def machines(results: Results, compared: Mapping[str, PairedResult]) -> str:
    """Where runs come from several numerics classes: which, the seeds that are no pairs, and what to do; else empty.

    Args:
        compared: what each contrast compares, in words -> its paired result.
    """
    done = results.finished
    counts = done.drop_duplicates("run")["numerics"].value_counts() if "numerics" in done else {}
    if len(counts) < 2:
        return ""
    words = {name: f"`{name}`" if name else "none that is recorded" for name in counts.index}
    listed = ", ".join(f"{count} of {words[name]}" for name, count in counts.items())
    text = f"**Runs of {len(counts)} numerics classes:** {listed}. Pairs are formed within one class: "
    left_out = {pair: result.mixed for pair, result in compared.items() if result.mixed}
    if not left_out:
        return f"{text}no seed of a contrast is left out."
    shown = [f"{pair} without {len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))})"
             for pair, seeds in left_out.items()]  # fmt: skip
    more = f"; and {len(shown) - CONTRASTS_SHOWN} more contrasts" if len(shown) > CONTRASTS_SHOWN else ""
    command = f"{results.about['command']} --recompute-foreign".strip()
    return (
        f"{text}{'; '.join(shown[:CONTRASTS_SHOWN])}{more}. {code_span(command)} computes runs of other classes again "
        "on the machine where it is given; give it where the most runs come from."
    )


def _unfinished(waiting: pandas.DataFrame) -> list[str]:
    """How many runs have failed, and how many are not run yet."""
    counts = {"failed": waiting[waiting["reason"] != ""], "not run yet": waiting[waiting["status"] == MISSING]}
    return [f"{part['run'].nunique()} {words}" for words, part in counts.items() if not part.empty]


def _seeds(results: Results) -> tuple[int, int]:
    """The smallest and the largest number of finished seeds of an arm in a setting; 0 where nothing has finished."""
    if results.finished.empty:
        return 0, 0
    labels = [label for label in results.labels if label != "seed"]
    counts = results.finished.groupby(labels, dropna=False)["seed"].nunique()
    return int(counts.min()), int(counts.max())


def _timed(results: Results, waiting: pandas.DataFrame) -> str:
    """How far a study came in the time that it was given; its arms may have different numbers of seeds."""
    about, (low, high) = results.about, _seeds(results)
    seeds = f"{low} seed{'s' if low != 1 else ''}" if low == high else f"{low} to {high} seeds"
    time, parts = about["time_budget"], _unfinished(waiting)
    open_ones = f" ({', '.join(parts)})" if parts else ""
    return (
        f"**Time budget {time['minutes']:g} min:** {time['stopped']}. {about['done']} runs have finished"
        f"{open_ones}, {seeds} in an arm and setting. Seeds were added to the contrasts that were still open, and "
        "count at the declared readings alone."
    )
