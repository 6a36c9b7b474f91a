"""FLOPs per image of the methods, from the records of the page ``cost-profile``."""

from functools import cache
from pathlib import Path

import pandas

from docs.generators.declarations import ROOT, settings_of, targets
from scd.errors import DataError
from studies.suite.analysis.results import DONE, load
from studies.suite.planning.command_line import load_study

PAGE = "cost-profile"
GIGA = 1e9


@cache
def counted(reports: Path = ROOT / "reports") -> pandas.DataFrame:
    """One row per arm and backbone whose operations were counted, with the modules of the arm's wrapper, or method."""
    results = load(reports, PAGE)
    runs = results.runs[(results.runs["kind"] == "counted") & (results.runs["status"] == DONE)]
    arms = {arm.name: arm for arm in load_study("cost_profile").arms}
    configs = {name: settings_of("paper").configure(arms[name], 0) for name in runs["arm"].unique() if name in arms}
    parts = {name: targets(config["wrapper"] or config["method"]) for name, config in configs.items()}
    known = runs[runs["arm"].isin(list(parts))]
    return known.assign(modules=known["arm"].map(parts), label=known["arm"].map(lambda name: arms[name].label))


def rows(module: str) -> list[tuple[str, str, str, str]]:
    """(arm, backbone and view, forward GFLOPs, training GFLOPs) per source image of the arms with a module."""
    try:
        chosen = counted()
    except DataError:  # the page is not there
        return []
    chosen = chosen[[module in each for each in chosen["modules"]]]
    return [
        (row.label, row.setting, f"{row.forward_flops / GIGA:.1f}", f"{row.training_flops / GIGA:.1f}")
        for row in chosen.itertuples()
    ]
