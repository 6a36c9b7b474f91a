"""The results of a study: everything that its page is made from, in two files beside the page.

``records/PAGE.csv`` has one row per planned run, finished or not, with its labels, status and numbers.
``records/PAGE.json`` has what the study was asked to do, its settings, and the definition of every number.
The page can be written again from these two files.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas

from scd.atomic import write_text
from scd.errors import DataError, UsageError
from scd.evaluation.metric import Metric
from studies.suite.analysis.statistics import select
from studies.suite.planning.study import MEASUREMENT as MEASUREMENT_KIND
from studies.suite.planning.study import TRAINING, Progress, RunSpec, Study

if TYPE_CHECKING:
    from scd.evaluation.protocol import EvaluationData
    from studies.suite.execution.store import Store
    from studies.suite.planning.resolve import Planned
    from studies.suite.planning.settings import Settings

FOLDER = "records"
DONE, FAILED, MISSING = "done", "failed", "missing"
_METRICS: dict[str, dict[str, Metric]] = {}
_SOURCES: dict[str, dict[str, Any]] = {}
TEXT_COLUMNS = {"run": str, "reason": str, "numerics": str, "supervision": str}


@dataclass(frozen=True)
class Results:
    """The runs of a study and what is known about them.

    Attributes:
        about: plain values, see :func:`assemble`; after the analysis also ``outcome`` and ``answer``.
        runs: one row per planned run: its labels (arm, budget, seed, data, ...), ``run`` (its id), ``status`` ("done",
            "failed" or "missing"), ``reason`` (of a failure, also of an evaluation of a finished run) and, where done,
            ``numerics`` (the class of the machine, see numerics.py; empty: not recorded) and its numbers.
        folders: run id -> the folders of its evaluations in the store; empty for results that were loaded.
        kept: what :mod:`studies.suite.analysis.comparison` has computed from the runs, which do not change.
    """

    about: dict[str, Any]
    runs: pandas.DataFrame
    folders: Mapping[str, Sequence[Path]] = field(default_factory=dict, compare=False)
    kept: dict[tuple, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

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
        return replace(self, about=about, runs=runs)


# -------------------------------------------------------------------- from the plan and the store


def gather(study: Study, settings: "Settings", planned: Sequence["Planned"], store: "Store") -> Results:
    """The results of a study as far as it is: its whole plan, and what the store has of it.

    A run has the numbers of the protocols that were asked for, and of the study's usual ones where they are evaluated
    already.

    Args:
        planned: the runs in the study's order; one that is shown under two sets of labels is in it twice.
    """
    from studies.suite.planning.identity import EVALUATION, MEASUREMENT, PRETRAINING, code_fingerprint, target_modules
    from studies.suite.planning.resolve import unique

    usual = [settings.protocol(item) for item in settings.usual_protocols]
    plan = [item.spec for item in planned]
    evaluations = {spec.id: list(spec.with_protocols(usual).evaluations) for spec in plan if spec.kind == TRAINING}
    records = {spec.id: store.record(spec, evaluations.get(spec.id, ())) for spec in plan}
    runs = [item.spec for item in unique(planned).values()]
    failed = {spec.id: reason for spec in runs if (reason := store.failure(spec))}
    done = [spec for spec in runs if store.status(spec) == DONE]
    finished = {spec.id for spec in done} | set(failed)
    classes = {
        spec.id: store.numerics(spec, evaluations.get(spec.id, ()))
        for spec in plan
        if spec.id in finished and records[spec.id] is not None
    }
    seen = [environment for spec in runs if (environment := store.environment(spec))]
    entries = {TRAINING: (*PRETRAINING, *EVALUATION), MEASUREMENT_KIND: MEASUREMENT}
    roots = [root for kind in dict.fromkeys(spec.kind for spec in plan) for root in entries[kind]]
    roots += sorted({module for spec in plan for module in target_modules(spec.config)})
    roots = tuple(dict.fromkeys(roots))
    protocols = [protocol for spec in plan for protocol in spec.evaluations.values()] + usual
    results = assemble(
        study,
        settings,
        plan,
        {run: {"numerics": classes[run], **numbers} for run, numbers in records.items() if run in classes},
        metrics_of(protocols) if evaluations else {},
        describe_source(settings, [each for spec in plan for each in spec.evaluations.values()]) if evaluations else {},
        Progress(
            planned=len(runs),
            done=len(done),
            failed=failed,
            fingerprint=code_fingerprint(roots),
            roots=roots,
            environments=tuple(_distinct(seen)),
            seconds=round(sum(store.seconds(spec) for spec in runs), 1),
        ),
    )
    folders: dict[str, list[Path]] = {}
    for spec in plan:
        names = dict.fromkeys([*evaluations.get(spec.id, ()), *spec.evaluations])
        folders[spec.id] = [store.evaluations.folder(name) for name in names]
    return replace(results, folders=folders)


def metrics_of(protocols: Sequence[Mapping[str, Any]]) -> dict[str, Metric]:
    """The definitions of the numbers of some protocols; kept for the life of the process, as pages are rewritten."""
    from studies.suite.planning.protocols import build_protocol  # imports torch, which listing the studies must not

    found: dict[str, Metric] = {}
    for protocol in _distinct(protocols):
        key = json.dumps(protocol, sort_keys=True)
        if key not in _METRICS:
            _METRICS[key] = build_protocol(protocol).metrics
        found |= _METRICS[key]
    return found


def describe_source(
    settings: "Settings", protocols: Sequence[Mapping[str, Any]], sets: Sequence["EvaluationData"] = ()
) -> dict[str, Any]:
    """What the images are, in the source's own words, and notes on them and on those of protocols that have their own.

    The answer is kept for the life of the process.

    Args:
        protocols: configurations of all protocols of the study's runs.
        sets: what :func:`open_images` gave for them, where they are open already.
    """
    from studies.suite.analysis.altered_notes import notes_on_trained_copies
    from studies.suite.analysis.image_notes import left_out_protocols, notes_on_images, notes_on_splits
    from studies.suite.analysis.what_was_read import what_was_read

    data, locations = settings.base["data"], settings.locations
    others = _with_own_data(protocols)
    asked, names = settings.base["evaluation"]["protocols"], sorted({protocol["name"] for protocol in protocols})
    key = json.dumps([data, locations, others, asked, names], sort_keys=True, default=str)
    if key not in _SOURCES:
        images, *own_images = sets or open_images(settings, protocols)
        found = {name: getattr(images.source, name) for name in ("name", "version", "description", "fingerprint")}
        read = what_was_read(images, decode=True)
        notes = [*notes_on_images(images), *notes_on_splits(images), *left_out_protocols(settings, protocols)]
        for own in own_images:
            read += [f"{own.source.name}, {line}" for line in what_was_read(own, decode=True)]
            own_notes = [*notes_on_images(own), *notes_on_trained_copies(images, own)]
            notes += [f"{own.source.name}: {note}" for note in own_notes]
        place, notes = place_of(settings), list(dict.fromkeys(notes))
        _SOURCES[key] = {**found, "place": place, "read": list(dict.fromkeys(read)), "notes": notes}
    return _SOURCES[key]


def open_images(settings: "Settings", protocols: Sequence[Mapping[str, Any]]) -> list["EvaluationData"]:
    """The images of a study, and those of protocols that have their own, once each, unless these are embedded.

    Args:
        protocols: configurations of all protocols of the study's runs.
    """
    from studies.suite.planning.assembly import open_data
    from studies.suite.planning.protocols import build_protocol, evaluation_data

    images = evaluation_data(settings.base, open_data(settings.base["data"], settings.locations))
    own = [build_protocol(protocol).own_data(images) for protocol in _with_own_data(protocols)]
    different = {each.source.fingerprint: each for each in reversed(own) if not each.source.embedded}
    return [images, *reversed(different.values())]


def protocols_of(planned: Sequence["Planned"]) -> list[dict[str, Any]]:
    """The configurations of all protocols of planned runs."""
    return [protocol for item in planned for protocol in item.spec.evaluations.values()]


def data_lines(
    settings: "Settings", planned: Sequence["Planned"], decode: bool, sets: Sequence["EvaluationData"] = ()
) -> list[str]:
    """What a user must know about their images before anything is trained: how they were read, and notes.

    Args:
        decode: also look at masks, and compare the pixels of training and scored images; if not, a line says so.
        sets: the images of the plan, where they are open already.
    """
    if not trains_on_images(settings, planned):
        return []
    from studies.suite.analysis.image_notes import before_decoding, in_lines, notes_on_trained_sources

    if decode:
        protocols, trained = protocols_of(planned), [item.spec.config["data"] for item in planned]
        sets = sets or open_images(settings, protocols)
        found, further = describe_source(settings, protocols, sets), notes_on_trained_sources(sets, trained)
        return in_lines(found["read"], [*found["notes"], *further])
    return before_decoding(open_images(settings, ())[0], "training")


def trains_on_images(settings: "Settings", planned: Sequence["Planned"]) -> bool:
    """Whether some run is trained, and on images that are not generated."""
    return not settings.embedded and any(item.spec.kind == TRAINING for item in planned)


def place_of(settings: "Settings") -> str | None:
    """A hash of where the images lie and of the columns that are read; None for embedded images."""
    if settings.embedded:
        return None
    options = settings.base["data"]["options"]
    places = {name: settings.locations[name] for name in settings.locations if name != "left_out"}
    for name, value in places.items():
        paths = [str(Path(path).expanduser().absolute()) for path in ([value] if isinstance(value, str) else value)]
        places[name] = paths
    content = [options.get("_target_"), options.get("repo"), options.get("columns"), places]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def check_page(settings: "Settings") -> None:
    """Make sure that the page would not replace that of other images with the same title.

    Raises:
        UsageError: it would; the text says how to give these images another title.
    """
    try:
        about = read_about(Path(settings.out) / FOLDER / f"{settings.page}.json")
    except DataError:  # none, or one that cannot be read
        return
    known, place = about.get("source", {}), place_of(settings)
    if known.get("place", place) == place or known["fingerprint"] == fingerprint_of(settings):
        return
    raise UsageError(
        f"page '{settings.page}' in '{settings.out}' is of other images called '{about['data']}'; give yours another "
        "title: data.title=NAME"
    )


def fingerprint_of(settings: "Settings") -> str:
    """The fingerprint of the images as they are now."""
    from studies.suite.planning.assembly import open_data

    return open_data(settings.base["data"], settings.locations).fingerprint


def assemble(
    study: Study,
    settings: "Settings",
    plan: Sequence[RunSpec],
    numbers: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Metric],
    source: Mapping[str, Any],
    progress: Progress,
) -> Results:
    """Results from their parts.

    Args:
        plan: the complete specs of all runs in the study's order, finished or not; a run that is shown under two sets
            of labels is in it twice.
        numbers: run id -> the numbers of a finished run, those of its training and of its evaluations together.
        metrics: definitions of the protocols' numbers, from the runs' protocols.
        source: name, version, description, fingerprint, place and notes of the images.
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
        "deviations": _deviations(settings, trained),
        "protocols": _distinct(protocol for spec in trained for protocol in spec.config["evaluation"]["protocols"]),
        "metrics": plain_metrics({**metrics, **study.metrics}),
        "source": dict(source),
        "command": settings.command,
        **study.design,
        **asdict(progress),
    }
    about.pop("failed")
    rows = [_row(spec, numbers, progress.failed) for spec in plan]
    return Results(json.loads(json.dumps(about)), pandas.DataFrame(rows))


def plain_metrics(metrics: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Definitions of numbers as plain values."""
    return {name: Metric(*metric)._asdict() for name, metric in metrics.items()}


def _deviations(settings: "Settings", specs: Sequence[RunSpec]) -> dict[str, list[str]]:
    """Where the training runs depart from the papers: sentence -> the classes that it is about, none for every run."""
    found: dict[str, list[str]] = {text: [] for text in settings.departures.values()} if specs else {}
    for spec in specs:
        trained = spec.config["training"]["budget"].get("value") != 0  # one in FLOPs has no value before it is planned
        for name, sentences in spec.deviations.items() if trained else ():
            for text in sentences.values():
                names = found.setdefault(text, [name])
                names += [] if name in names else [name]
    return found


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


def _with_own_data(protocols: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return _distinct(protocol for protocol in protocols if protocol.get("data") is not None)


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
    texts = [name for name in ("reason", "numerics") if name in runs]
    return Results(about, runs.assign(**{name: runs[name].fillna("") for name in texts}))


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
