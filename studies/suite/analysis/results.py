"""What a page is made of, and nothing else: two files beside it are enough to write the same page again.

``records/PAGE.csv`` has one row per planned run, finished or not, with its labels, status and numbers;
``records/PAGE.json`` says what the study was asked to do and how far it came.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas

from scd.errors import DataError
from studies.suite.analysis.statistics import select
from studies.suite.execution.store import write_text
from studies.suite.planning.identity import ENTRY, canonical, code_fingerprint, target_modules
from studies.suite.planning.study import RunSpec, Settings, Standing, Study

FOLDER = "records"
DONE, FAILED, MISSING = "done", "failed", "missing"
_SOURCES: dict[str, dict[str, str]] = {}


@dataclass(frozen=True)
class Evidence:
    """Everything that a page says comes from here, from the study's file, and from the protocols' definitions.

    Attributes:
        about: plain values: study, page, tier, meaningful, data, seeds, arms, axes, base (the run configuration that
            every arm starts from), presets (what arms put in its place), source (the images), command, planned, done,
            fingerprint, roots (the modules that it covers), environments, seconds; once drawn, outcome, answer.
        runs: one row per planned run: its labels (arm, budget, seed, ...), ``run`` (its id), ``status`` ("done",
            "failed", "missing"), ``reason`` and, where done, its numbers.
    """

    about: dict[str, Any]
    runs: pandas.DataFrame

    @property
    def finished(self) -> pandas.DataFrame:
        """The rows that have numbers."""
        return self.runs[self.runs["status"] == DONE]

    @property
    def page(self) -> str:
        """Name of the page, without ``.md``."""
        return self.about["page"]

    @property
    def labels(self) -> list[str]:
        """The names of the plan's labels: arm, budget, seed, data and the study's own axes."""
        columns = list(self.runs)
        return columns[: columns.index("run")]

    def levels(self, label: str) -> list[Any]:
        """The values that a label takes in the plan, in the plan's order; empty where no run has it."""
        return list(dict.fromkeys(self.runs[label].dropna())) if label in self.runs else []

    def where(self, **labels: Any) -> "Evidence":
        """The evidence of the planned runs with these labels alone."""
        return Evidence(self.about, select(self.runs, **labels))

    def answered(self, outcome: str, answer: str) -> "Evidence":
        """The same evidence with the verdict drawn from it, for the index."""
        return Evidence({**self.about, "outcome": outcome, "answer": answer}, self.runs)


def gather(study: Study, settings: Settings, records: pandas.DataFrame, standing: Standing) -> Evidence:
    """The evidence of a study as it stands: its whole plan, and the numbers of what has finished.

    Args:
        records: one row per finished run, with ``run`` and its numbers as columns.
        standing: with the whole plan.
    """
    numbers = {} if records.empty else {row["run"]: row for row in records.to_dict("records")}
    return assemble(study, settings, standing.plan, described(settings), numbers, standing)


def assemble(
    study: Study,
    settings: Settings,
    plan: Sequence[RunSpec],
    source: Mapping[str, str],
    numbers: Mapping[str, Mapping[str, Any]],
    standing: Standing,
) -> Evidence:
    """Evidence from its parts.

    Args:
        plan: complete specs of all runs, finished or not; a run that is shown twice is in it twice.
        source: name, version, description and fingerprint of the data.
        numbers: run id -> its record.
    """
    rows = [_row(spec, numbers, standing.failed) for spec in plan]
    roots = [ENTRY, *sorted({module for spec in plan for module in target_modules(spec.config)})]
    about = {
        "study": study.name,
        "questions": list(study.question_ids),
        "page": settings.page or study.name,
        "tier": settings.tier,
        "meaningful": settings.meaningful,
        "data": settings.data,
        "seeds": list(settings.seeds),
        "arms": [arm.name for arm in settings.select(study.arms)],
        "axes": settings.axes,
        "base": settings.base,
        "presets": used_presets(study, settings),
        "source": dict(source),
        "command": settings.command,
        "planned": standing.planned,
        "done": standing.done,
        "fingerprint": code_fingerprint(roots),
        "roots": roots,
        "environments": list(standing.environments),
        "seconds": round(standing.seconds, 1),
    }
    return Evidence(json.loads(json.dumps(about)), pandas.DataFrame(rows))


def used_presets(study: Study, settings: Settings) -> dict[str, dict[str, Any]]:
    """The named configurations that the chosen arms put in the place of the base's."""
    used: dict[str, dict[str, Any]] = {}
    for arm in settings.select(study.arms):
        for group, presets in settings.presets.items():
            chosen = arm.overrides.get(group)
            name = chosen.get("preset") if isinstance(chosen, Mapping) else chosen
            if name in presets:
                used.setdefault(group, {})[name] = presets[name]
    return used


def described(settings: Settings) -> dict[str, str]:
    """What the images are, in the source's own words; kept for the life of the process, as pages are rewritten."""
    from studies.suite.execution.run import open_data  # imports torch, which listing the studies should not

    data, locations = settings.base["data"], settings.locations
    key = json.dumps(canonical([data, locations]), sort_keys=True)
    if key not in _SOURCES:
        source = open_data(data, locations)
        _SOURCES[key] = {name: getattr(source, name) for name in ("name", "version", "description", "fingerprint")}
    return _SOURCES[key]


def _row(spec: RunSpec, numbers: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str]) -> dict[str, Any]:
    run = spec.id
    status = DONE if run in numbers else FAILED if run in failed else MISSING
    row = {**spec.labels, "run": run, "status": status, "reason": failed.get(run, "") if status == FAILED else ""}
    return {**row, **{key: value for key, value in numbers.get(run, {}).items() if key not in row}}


def save(evidence: Evidence, out: Path) -> None:
    """Write the two files under ``out/records``; a page that is interrupted leaves the old or the new ones."""
    folder = Path(out) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{evidence.page}.csv", evidence.runs.to_csv(index=False, lineterminator="\n"))
    write_text(folder / f"{evidence.page}.json", json.dumps(evidence.about, indent=1) + "\n")


def load(out: Path, page: str) -> Evidence:
    """The evidence that was saved for a page.

    Raises:
        DataError: one of the two files is missing or cannot be read; the text names it.
    """
    folder = Path(out) / FOLDER
    about = read_about(folder / f"{page}.json")
    path = folder / f"{page}.csv"
    try:
        runs = pandas.read_csv(
            path, dtype={"run": str, "reason": str, "protocol_version": str}, keep_default_na=False, na_values=[""]
        )
    except (OSError, ValueError) as error:
        raise DataError(f"records '{path}' cannot be read: {error}") from error
    return Evidence(about, runs.assign(reason=runs["reason"].fillna("")))


def read_about(path: Path) -> dict[str, Any]:
    """The JSON file of a page.

    Raises:
        DataError: it is missing or no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"page file '{path}' cannot be read: {error}") from error


def only(values: pandas.Series) -> Any:
    """The one value that all rows share, or None where they differ or there is none."""
    kept = list(dict.fromkeys(value for value in values if not (isinstance(value, float) and math.isnan(value))))
    return kept[0] if len(kept) == 1 else None
