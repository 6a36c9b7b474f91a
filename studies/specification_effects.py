"""The effects of a study in every specification of a grid: tables, a specification curve, and what each choice does."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, nan
from pathlib import Path
from typing import Any

import pandas

from studies.specifications import WORDS, Specification, shown, varied
from studies.suite.analysis import notation, tables
from studies.suite.analysis.conditions import versus
from studies.suite.analysis.readings import level as error_of
from studies.suite.analysis.readings import over_readings
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import PairedResult, difference_of
from studies.suite.analysis.verdict import OUTCOMES, Finding, find
from studies.suite.pages import figures
from studies.suite.pages.markdown import Picture
from studies.suite.planning.study import Contrast


@dataclass(frozen=True)
class Effects:
    """Contrasts on one metric, measured in each specification.

    Args:
        results: runs with the label ``specification``, its number.
        chosen: the specifications, in the order of their numbers.
        choices: choice -> its levels.
        contrasts: without conditions; the first one sorts tables and curve.
        names: arm -> its label.
    """

    results: Results
    chosen: tuple[Specification, ...]
    choices: Mapping[str, Sequence[Any]]
    contrasts: tuple[Contrast, ...]
    names: Mapping[str, str]

    @cached_property
    def findings(self) -> dict[tuple[int, str], Finding]:
        """(number of the specification, name of the contrast) -> what the runs say of it."""
        return {
            (each.number, contrast.name): find(
                self.results, replace(contrast, conditions={"specification": each.number})
            )
            for each in self.chosen
            for contrast in self.contrasts
        }

    def gain(self, specification: Specification, contrast: Contrast) -> PairedResult:
        """The paired differences of a contrast in a specification."""
        return self.findings[specification.number, contrast.name].gain

    @property
    def in_order(self) -> list[Specification]:
        """The specifications by the mean of the first contrast, lowest first; those without a pair come last."""

        def mean(specification: Specification) -> float:
            value = self.gain(specification, self.contrasts[0]).mean
            return inf if value is None else value

        return sorted(self.chosen, key=mean)

    # ---------------------------------------------------------------- tables

    def outcomes(self) -> tables.Table:
        """One row per contrast: the number and the share of the specifications with each outcome."""
        rows = []
        for contrast in self.contrasts:
            found = [self.findings[each.number, contrast.name].outcome for each in self.chosen]
            counts = {outcome: found.count(outcome) for outcome in OUTCOMES}
            row = {"treatment vs. control": versus(contrast, self.names)}
            row |= {outcome: f"{count} ({100 * count / len(found):.0f} %)" for outcome, count in counts.items()}
            rows.append(row)
        return tables.Table(pandas.DataFrame(rows))

    def every(self) -> tables.Table:
        """One row per specification: its levels and its effects."""
        notes, rows = tables.Notes(), []
        for each in self.in_order:
            row = {"specification": str(each.number)}
            row |= {WORDS[choice]: shown(each.levels[choice]) for choice in varied(self.choices)}
            row |= {title: self.cell(self.gain(each, contrast), notes) for title, contrast in self.titled}
            rows.append(row)
        return tables.Table(pandas.DataFrame(rows), [*notes.lines, *tables.interval_note(self.results)], self.metrics)

    def by_level(self) -> tables.Table:
        """One row per level of the choices that vary: the mean effects over the specifications that have it."""
        notes, rows = tables.Notes(), []
        for choice, level in self.levels():
            count = sum(each.levels[choice] == level for each in self.chosen)
            row = {"choice": WORDS[choice], "level": shown(level), "specifications": str(count)}
            for title, contrast in self.titled:
                row[title] = self.cell(self.over_seeds(self.level_means(choice, level, contrast)), notes)
            rows.append(row)
        return tables.Table(pandas.DataFrame(rows), notes.lines, self.metrics)

    def main_effects(self) -> tables.Table:
        """One row per level but the first of each choice: its mean effects minus those of the first one."""
        notes, rows = tables.Notes(), []
        for choice, level in self.levels():
            if level == self.choices[choice][0]:
                continue
            row = {"choice": WORDS[choice], "level": f"{shown(level)} − {shown(self.choices[choice][0])}"}
            row |= {title: self.cell(self.main_effect(choice, level, each), notes) for title, each in self.titled}
            rows.append(row)
        return tables.Table(pandas.DataFrame(rows), notes.lines, self.metrics)

    def cell(self, gain: PairedResult, notes: tables.Notes) -> str:
        """A difference with its interval."""
        if not gain.n:
            return notes.dash("no seed has finished in all runs that this takes, or no specification has this level")
        return tables.difference_cell(self.metrics[0], gain, self.results, notes)

    @property
    def titled(self) -> list[tuple[str, Contrast]]:
        """The contrasts with what they compare."""
        return [(versus(each, self.names), each) for each in self.contrasts]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metric of the contrasts."""
        return (self.contrasts[0].metric,)

    # ---------------------------------------------------------------- choices

    def levels(self) -> Iterator[tuple[str, Any]]:
        """The levels of the choices that vary."""
        for choice in varied(self.choices):
            for level in self.choices[choice]:
                yield choice, level

    def level_means(self, choice: str, level: Any, contrast: Contrast) -> dict[int, float]:
        """Seed -> the mean difference over the specifications with a level; seeds that lack one are left out."""
        gains = [self.gain(each, contrast) for each in self.chosen if each.levels[choice] == level]
        values = [dict(zip(gain.seeds, gain.differences, strict=True)) for gain in gains]
        seeds = set.intersection(*map(set, values)) if values else set()
        return {seed: sum(each[seed] for each in values) / len(values) for seed in sorted(seeds)}

    def main_effect(self, choice: str, level: Any, contrast: Contrast) -> PairedResult:
        """The mean difference at a level minus that at the choice's first level, seed by seed."""
        here, first = (self.level_means(choice, each, contrast) for each in (level, self.choices[choice][0]))
        return self.over_seeds({seed: here[seed] - first[seed] for seed in here if seed in first})

    def over_seeds(self, values: Mapping[int, float]) -> PairedResult:
        """The mean of differences, one per seed, with an interval by their own spread and the error of the readings."""
        error = error_of(self.results.about.get("looks", ()))
        return difference_of(list(values), list(values.values()), 1 - 2 * error)

    # ---------------------------------------------------------------- figure

    def curve(self, drawn: Sequence[Contrast], out: Path) -> Picture:
        """The specification curve of some of the contrasts (Simonsohn, Simmons and Nelson 2020)."""
        metric, effects, levels = self.results.metric(self.metrics[0]), [], []
        for each in self.in_order:
            for contrast in drawn:
                gain = self.gain(each, contrast)
                ends = {"mean": gain.mean, "low": gain.ci_low, "high": gain.ci_high}
                ends = {end: nan if value is None else notation.scaled(metric, value) for end, value in ends.items()}
                effects.append({"x": str(each.number), "style": versus(contrast, self.names), **ends})
        for choice, level in self.levels():
            place = {"panel": WORDS[choice], "row": shown(level)}
            levels += [{"x": str(each.number), **place} for each in self.chosen if each.levels[choice] == level]
        path, unit = f"figures/{self.results.page}-specifications.png", notation.unit_of_difference(metric)
        first, over = self.titled[0][0], over_readings(self.results.about.get("looks", ()))
        figures.specification_curve(
            Path(out) / path,
            pandas.DataFrame(effects),
            pandas.DataFrame(levels, columns=["x", "panel", "row"]),
            f"difference in {metric.label}" + (f" ({unit})" if unit else ""),
            notation.scaled(metric, self.contrasts[0].sesoi),
        )
        return Picture(
            path,
            f"Paired differences in {metric.label} by specification, sorted by {first}: means with 95 % "
            f"intervals{over}; band: ± the smallest effect of interest. Below: the level of each choice.",
        )
