"""The results of a study: everything that its page is made from, in two files beside the page.

``records/PAGE.csv`` has one row per planned run, finished or not, with its labels, status and numbers.
``records/PAGE.json`` has what the study was asked to do, its settings, and the definition of every number.
The page can be written again from these two files.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas

from scd.errors import DataError
from scd.evaluation.metric import Metric
from studies.suite.analysis.statistics import select
from studies.suite.execution.store import write_text
from studies.suite.planning.study import TRAINING, Progress, RunSpec, Study

if TYPE_CHECKING:
    from studies.suite.planning.settings import Settings

FOLDER = "records"
DONE, FAILED, MISSING = "done", "failed", "missing"
TEXT_COLUMNS = {"run": str, "reason": str, "supervision": str}


@dataclass(frozen=True)
class Results:
    """The runs of a study and what is known about them.

    Attributes:
        about: plain values, see :func:`gather`; after the analysis also ``outcome`` and ``answer``.
        runs: one row per planned run: its labels (arm, budget, seed, data, ...), ``run`` (its id), ``status`` ("done",
            "failed" or "missing"), ``reason`` (of a failure) and, where done, its numbers.
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
        """The names of the runs' labels: arm, budget, seed, data and the study's own."""
        columns = list(self.runs)
        return columns[: columns.index("run")] if "run" in columns else columns

    @property
    def metrics(self) -> dict[str, Metric]:
        """The definition of every number, by name."""
        return {name: Metric(**fields) for name, fields in self.about["metrics"].items()}

    def metric(self, name: str) -> Metric:
        """The definition of a number; one that no protocol defines has its name as label, and no unit."""
        return Metric(**self.about["metrics"].get(name, {"label": name, "unit": "", "better": None, "definition": ""}))

    def has(self, metric: str) -> bool:
        """Whether a finished run has this number."""
        return metric in self.runs and bool(self.finished[metric].notna().any())

    def levels(self, label: str) -> list[Any]:
        """The values of a label, in the plan's order; empty where no run has it."""
        return list(dict.fromkeys(self.runs[label].dropna())) if label in self.runs else []

    def where(self, **labels: Any) -> "Results":
        """The results of the runs with these labels alone."""
        return replace(self, runs=select(self.runs, **labels))

    def of(self, arm: str) -> pandas.DataFrame:
        """The finished runs of an arm."""
        return select(self.finished, arm=arm)

    def with_runs(self, runs: pandas.DataFrame, metrics: Mapping[str, Metric] | None = None) -> "Results":
        """Other rows, for numbers that a study derives from its runs, with definitions of further numbers."""
        about = {**self.about, "metrics": {**self.about["metrics"], **plain_metrics(metrics or {})}}
        return Results(about, runs)


# -------------------------------------------------------------------- from the plan and the store


def gather(
    study: Study,
    settings: "Settings",
    plan: Sequence[RunSpec],
    numbers: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Metric],
    source: Mapping[str, str],
    progress: Progress,
) -> Results:
    """The results of a study as far as it is: its whole plan, and the numbers of what has finished.

    Args:
        plan: the complete specs of all runs in the study's order, finished or not; a run that is shown under two sets
            of labels is in it twice.
        numbers: run id -> the numbers of a finished run, those of its training and of its evaluations together.
        metrics: definitions of the protocols' numbers, from the runs' protocols.
        source: name, version, description and fingerprint of the images.
        progress: how far the study is.
    """
    trained = [spec for spec in plan if spec.kind == TRAINING]
    reference = next((spec for spec in trained if _steps(spec) != 0), None)
    base = {} if reference is None else _configuration(study, settings, reference)
    about = {
        "study": study.name,
        "questions": list(study.question_ids),
        "page": settings.page or study.name,
        "tier": settings.tier,
        "meaningful": settings.meaningful,
        "data": settings.data,
        "seeds": list(settings.seeds),
        "arms": list(dict.fromkeys(spec.labels["arm"] for spec in plan)),
        "axes": settings.axes,
        "reference": None if reference is None else reference.labels["arm"],
        "base": base,
        "overrides": {} if reference is None else _overrides(trained, reference),
        "protocols": _distinct(protocol for spec in trained for protocol in spec.config["evaluation"]["protocols"]),
        "metrics": plain_metrics({**metrics, **study.metrics}),
        "source": dict(source),
        "command": settings.command,
        **asdict(progress),
    }
    about.pop("failed")
    rows = [_row(spec, numbers, progress.failed) for spec in plan]
    return Results(json.loads(json.dumps(about)), pandas.DataFrame(rows))


def plain_metrics(metrics: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Definitions of numbers as plain values."""
    return {name: Metric(*metric)._asdict() for name, metric in metrics.items()}


def _steps(spec: RunSpec) -> Any:
    return spec.config["training"]["budget"]["value"]


def _configuration(study: Study, settings: "Settings", reference: RunSpec) -> dict[str, Any]:
    """The configuration of the first trained run, its training in the unit in which it was asked for."""
    config = {key: value for key, value in reference.config.items() if key not in ("seed", "seed_of", "inputs")}
    asked = settings.configure(study.arm(reference.labels["arm"]), reference.labels["seed"])["training"]["budget"]
    return {**config, "training": {**config["training"], "budget": asked}}


def _overrides(specs: Sequence[RunSpec], reference: RunSpec) -> dict[str, dict[str, Any]]:
    """Arm -> what its first run's configuration sets differently from the reference's."""
    found: dict[str, dict[str, Any]] = {}
    for spec in specs:
        if spec.labels["arm"] not in found:
            changed = difference(reference.config, spec.config)
            found[spec.labels["arm"]] = {key: value for key, value in changed.items() if key not in ("seed", "seed_of")}
    return {arm: changed for arm, changed in found.items() if changed}


def difference(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What ``other`` sets differently from ``base``, nested; another ``_target_`` or name is given whole."""
    changed: dict[str, Any] = {}
    for key, value in other.items():
        old = base.get(key)
        if old == value:
            continue
        alike = isinstance(old, Mapping) and isinstance(value, Mapping)
        alike = alike and all(old.get(word) == value.get(word) for word in ("_target_", "name"))
        changed[key] = difference(old, value) if alike else value
    return changed


def _distinct(values: Any) -> list[Any]:
    """The different values, in their order."""
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())


def _row(spec: RunSpec, numbers: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str]) -> dict[str, Any]:
    run = spec.id
    status = DONE if run in numbers else FAILED if run in failed else MISSING
    row = {**spec.labels, "run": run, "status": status, "reason": failed.get(run, "")}
    return {**row, **{key: value for key, value in numbers.get(run, {}).items() if key not in row}}


# -------------------------------------------------------------------- on disk


def save(results: Results, out: Path) -> None:
    """Write the two files under ``out/records``, each of them as a whole."""
    folder = Path(out) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{results.page}.csv", results.runs.to_csv(index=False, lineterminator="\n"))
    write_text(folder / f"{results.page}.json", json.dumps(results.about, indent=1) + "\n")


def load(out: Path, page: str) -> Results:
    """The results that were saved for a page.

    Raises:
        DataError: one of the two files is missing or cannot be read; the text names it.
    """
    folder = Path(out) / FOLDER
    about, path = read_about(folder / f"{page}.json"), folder / f"{page}.csv"
    try:
        runs = pandas.read_csv(path, dtype=TEXT_COLUMNS, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise DataError(f"records '{path}' cannot be read: {error}") from error
    return Results(about, runs.assign(reason=runs["reason"].fillna("")))


def read_about(path: Path) -> dict[str, Any]:
    """The JSON file of a page.

    Raises:
        DataError: it is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"page file '{path}' cannot be read: {error}") from error


def only(values: pandas.Series) -> Any:
    """The one value that all rows share, or None where they differ or there is none."""
    kept = list(dict.fromkeys(value for value in values if not (isinstance(value, float) and math.isnan(value))))
    return kept[0] if len(kept) == 1 else None
