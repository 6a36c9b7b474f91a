"""From the evidence of a study with arms, budgets and one axis to its three figures; figures.py draws them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

import pandas

from studies.suite.analysis import tables
from studies.suite.analysis.conditions import BUDGETS, Condition, axis_words, versus
from studies.suite.analysis.results import Evidence
from studies.suite.pages import figures
from studies.suite.planning.study import Contrast

COLUMNS = ["panel", "row", "style", "value"]


@dataclass(frozen=True)
class Picture:
    """A drawn figure: its path relative to the page, and its caption."""

    path: str
    caption: str


@dataclass(frozen=True)
class Panels:
    """The figures of one metric.

    Args:
        labels: arm -> its label, in the order of rows and colours.
        reference: the arm whose mean is a line through the panels; shared: arms that are one run in every budget.
        metric: a column of the records; sesoi: its smallest difference of interest.
        out: folder of the page.
    """

    evidence: Evidence
    labels: Mapping[str, str]
    reference: str
    shared: tuple[str, ...]
    metric: str
    sesoi: float
    out: Path

    @property
    def name(self) -> str:
        """The metric's label with its unit."""
        return tables.heading(self.metric)

    def panel(self, condition: Condition) -> str:
        """Title of a panel: the axis's value, or the data."""
        return axis_words(condition) or self.evidence.about["data"]

    def points(self, axis: Sequence[str]) -> pandas.DataFrame:
        """One row per planned run; a run without numbers has no value."""
        rows = []
        for run in self.evidence.runs.to_dict("records"):
            condition = {label: run[label] for label in axis if label in run}
            value, cost = run.get(self.metric, nan), run.get("total_flops", nan)
            place = {"panel": self.panel(condition), "row": self.labels[run["arm"]], "style": BUDGETS[run["budget"]]}
            rows.append({**place, "value": tables.scaled(self.metric, value), "cost": cost / 1e12, "arm": run["arm"]})
        return pandas.DataFrame(rows)

    def seeds(self, axis: Sequence[str]) -> Picture:
        """Every seed of every arm."""
        points, colour = self.points(axis), figures.colours(list(self.labels.values()))
        path = self._path("seeds")
        figures.seed_points(self.out / path, points, self.name, colour, self.labels.get(self.reference))
        line = f", dashed: {self.labels[self.reference]}'s mean" if self.reference in self.labels else ""
        return Picture(path, f"{self.name}, one mark per seed; bar: mean, thin line: 95 % t interval{line}.")

    def cost(self, axis: Sequence[str]) -> Picture:
        """The metric against training FLOPs; an arm whose budgets are one run is drawn once."""
        points, colour = self.points(axis), figures.colours(list(self.labels.values()))
        first = points["style"].iloc[0]
        once = points[~points["arm"].isin(self.shared) | (points["style"] == first)]
        path, unit = self._path("cost"), "training FLOPs (TFLOP, 2 per multiply-add)"
        figures.cost_points(self.out / path, once, unit, self.name, colour)
        return Picture(
            path,
            f"{self.name} against the FLOPs that training took: means with 95 % t intervals, small dots: seeds, "
            "dashed: no training; open marks have equal costs and are spread sideways.",
        )

    def differences(self, contrasts: Sequence[Contrast]) -> Picture:
        """Paired differences with their intervals."""
        pairs, intervals = [], []
        for contrast in contrasts:
            condition = contrast.conditions
            key = {"panel": self.panel(condition), "row": versus(contrast, self.labels)}
            key["style"] = BUDGETS[condition["budget"]]
            result = tables.measure(self.evidence, contrast)
            pairs += [{**key, "value": tables.scaled(self.metric, value)} for value in result.differences]
            ends = {"mean": result.mean, "low": result.ci_low, "high": result.ci_high}
            intervals.append(
                {**key, **{end: nan if v is None else tables.scaled(self.metric, v) for end, v in ends.items()}}
            )
        path, unit = self._path("differences"), tables.unit_of_difference(self.metric)
        figures.differences(
            self.out / path,
            pandas.DataFrame(pairs, columns=COLUMNS),
            pandas.DataFrame(intervals),
            f"difference in {tables.label(self.metric)}" + (f" ({unit})" if unit else ""),
            tables.scaled(self.metric, self.sesoi),
        )
        return Picture(
            path,
            f"Paired differences in {tables.label(self.metric)}: means with 95 % t intervals, small dots: seeds, band: "
            "from 0 to the smallest difference of interest.",
        )

    def _path(self, kind: str) -> str:
        return f"figures/{self.evidence.page}-{kind}.png"
