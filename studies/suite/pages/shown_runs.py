"""The finished runs of a store whose maps are shown: which ones a word names, what they are called, and their methods.

A run's configuration does not say which study and arm it belongs to; the records of the pages do (``records/*.csv``).
A run that no page names is called by its classes: "SCD (SaliencyMLP) around MoCo".
"""

import csv
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from scd.errors import UsageError
from scd.method import Method
from studies.program import program
from studies.suite.execution.evaluation import load_method
from studies.suite.execution.inventory import open_store
from studies.suite.execution.store import Records, Status, read_json
from studies.suite.planning.command_line import load_study, study_names
from studies.suite.planning.staleness import Judgement, Standing, input_names, judge_pretraining

LATEST = "LATEST"
SHOWN = 5  # ids in a message
SHORTEST_ID = 6  # characters of an id's beginning that may stand for it


def how_to_make_one() -> str:
    """The command that makes runs with maps in a minute or two."""
    return f"{program('study')} mechanism tier=smoke"


@dataclass(frozen=True)
class Arm:
    """Where the records of a page have a run.

    Args:
        page: name of the page; study: whose it is; name, label: of the arm.
    """

    page: str
    study: str
    name: str
    label: str


@dataclass(frozen=True)
class StoredRun:
    """A finished pretraining.

    Args:
        folder: its folder, whose name is its id.
        config: its config.json; record: its numbers.
        ended: when it was finished, in seconds as of ``os.stat``.
        arms: where pages have it.
    """

    folder: Path
    config: Mapping[str, Any]
    record: Mapping[str, Any]
    ended: float
    arms: tuple[Arm, ...] = ()

    @property
    def id(self) -> str:
        """The run's id."""
        return self.folder.name

    @property
    def name(self) -> str:
        """The arm's label, or what the method is made of."""
        return self.arms[0].label if self.arms else described(self.config)

    @property
    def kind(self) -> str:
        """Equal for the runs of one arm, or of one method with equal arguments, whatever their seeds and data."""
        if self.arms:
            return f"arm {self.arms[0].label}"
        parts = [self.config["method"], self.config["wrapper"], self.config["annotations"], self.config["views"]]
        return json.dumps(parts, sort_keys=True)

    @property
    def has_map(self) -> bool:
        """Whether its method has a map of a picture that comes without masks."""
        try:
            defines = class_of(self.config["wrapper"] or self.config["method"]).saliency is not Method.saliency
            source = (self.config["wrapper"] or {}).get("saliency")
            needs = getattr(class_of(source), "needs", ()) if isinstance(source, Mapping) else ()
        except UsageError:
            return False
        return defines and "masks" not in needs

    @property
    def training(self) -> str:
        """What it was trained on, and how long."""
        steps, epochs = self.record.get("steps", 0), self.record.get("epochs", 0)
        length = (
            f"{steps} steps ({epochs:.3g} epoch{'' if epochs == 1 else 's'})"
            if steps
            else "not trained: random weights"
        )
        return f"{self.config['data'].get('title') or 'unnamed data'}, seed {self.config['seed']}, {length}"

    @property
    def supervision(self) -> str:
        """What it learned from."""
        return self.record.get("supervision", "unknown")

    @cached_property
    def judgement(self) -> Judgement:
        """Whether today's code is that of the run, and the earlier runs that it uses."""
        return judge_pretraining(self.id, self.config, _configurations(self.folder.parent))


def stored_runs(store: Path, reports: Path) -> list[StoredRun]:
    """The finished pretrainings of a store, the newest first.

    Raises:
        UsageError: there is no such store.
    """
    records, arms, found = open_store(store).pretraining, arms_of_runs(reports), []
    for done in records.root.glob("*/done"):
        run = read_run(done.parent, arms.get(done.parent.name, ()))
        if run is not None and records.record(run.id) is not None:
            found.append(run)
    return sorted(found, key=lambda run: (-run.ended, run.id))


def read_run(folder: Path, arms: Sequence[Arm] = ()) -> StoredRun | None:
    """The finished pretraining in a folder, of a store or not; None where there is none."""
    record, config = read_json(folder / "record.json"), read_json(folder / "config.json")
    if record is None or config is None or "method" not in config or not (folder / "done").is_file():
        return None
    return StoredRun(folder, config, record, (folder / "done").stat().st_mtime, tuple(arms))


def arms_of_runs(reports: Path) -> dict[str, list[Arm]]:
    """Id of a run -> where the records of pages have it, the page that was written last first."""
    found: dict[str, list[Arm]] = {}
    paths = sorted((reports / "records").glob("*.csv"), key=lambda path: (-path.stat().st_mtime, path.name))
    for path in paths:
        study = (read_json(path.with_suffix(".json")) or {}).get("study", "")
        labels = {arm.name: arm.label for arm in load_study(study).arms} if study in study_names() else {}
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                arm = Arm(path.stem, study, row.get("arm") or "", labels.get(row.get("arm"), row.get("arm") or ""))
                if row.get("run") and arm not in found.setdefault(row["run"], []):
                    found[row["run"]].append(arm)
    return found


# -------------------------------------------------------------------- which runs a word names


def usual(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The newest run of each arm or method that has a map, by name; without any, the newest run of all."""
    found = newest_of_each([run for run in runs if run.has_map], lambda run: run.kind)
    return sorted(found, key=lambda run: run.name) or list(runs[:1])


def named(word: str, runs: Sequence[StoredRun], store: Path, reports: Path) -> list[StoredRun]:
    """The runs that ``run=WORD`` means: LATEST, the name of a study, an id or its beginning.

    Args:
        runs: all finished ones, the newest first.

    Raises:
        UsageError: no such run, or one that is not finished.
    """
    if not runs:
        raise UsageError(f"run={word}: no run of the store '{store}' is finished; make one with {how_to_make_one()}")
    study = word.replace("-", "_")
    if word == LATEST:
        return usual(latest(runs))
    if study in study_names():
        of_study = [run for run in runs if any(arm.study == study for arm in run.arms)]
        if not of_study:
            raise UsageError(
                f"run={word}: no page of this study in '{reports}' names a finished run of the store '{store}'; run "
                f"the study, or give the folders of both with --reports and --store"
            )
        return usual(of_study)
    same = [run for run in runs if run.id == word]
    fitting = same or [run for run in runs if len(word) >= SHORTEST_ID and run.id.startswith(word)]
    if len(fitting) == 1:
        return fitting
    if fitting:
        raise UsageError(f"run={word} is the beginning of {len(fitting)} ids: {_ids(fitting)}; give more of it")
    status = Records(store / "pretraining").status(word)
    if status not in (Status.MISSING, Status.DONE):
        raise UsageError(f"run={word} is not finished, it is {status}; give the command of its study again")
    raise UsageError(
        f"run={word} is no finished run of the store '{store}', no study and no path; the newest runs are "
        f"{_ids(runs)}; run={LATEST} takes those of the most recent study"
    )


def latest(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The runs of the page that has the newest run; where no page has it, those with its data and its training."""
    newest = runs[0]
    if newest.arms:
        return [run for run in runs if newest.arms[0].page in {arm.page for arm in run.arms}]
    return [run for run in runs if all(run.config[key] == newest.config[key] for key in ("data", "training"))]


def newest_of_each(runs: Sequence[StoredRun], key: Callable[[StoredRun], Any]) -> list[StoredRun]:
    """The first run of each key, in their order."""
    found: dict[Any, StoredRun] = {}
    for run in runs:
        found.setdefault(key(run), run)
    return list(found.values())


def _ids(runs: Sequence[StoredRun]) -> str:
    more = len(runs) - SHOWN
    return ", ".join(run.id for run in runs[:SHOWN]) + (f" and {more} more" if more > 0 else "")


# -------------------------------------------------------------------- names and methods


def class_of(part: Mapping[str, Any]) -> type:
    """The class that a part of a configuration names.

    Raises:
        UsageError: a class that is not there any more.
    """
    module, _, name = part["_target_"].rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{part['_target_']} cannot be imported: {error}") from error


def described(config: Mapping[str, Any]) -> str:
    """What a method is made of, by the names of its classes: "SCD (SaliencyMLP) around MoCo"."""
    names = [part["_target_"].rpartition(".")[2] for part in (config["wrapper"], config["method"]) if part is not None]
    saliency = (config["wrapper"] or {}).get("saliency")
    if isinstance(saliency, Mapping) and "_target_" in saliency:
        names[0] += f" ({saliency['_target_'].rpartition('.')[2]})"
    made = [f"{kind} of {part['_target_'].rpartition('.')[2]}" for kind, part in config["annotations"].items()]
    return " around ".join(names) + (f", {', '.join(made)}" if made else "")


def load(run: StoredRun) -> Method:
    """The trained method of a run, with those of the earlier runs that it is built with, in evaluation mode.

    Raises:
        UsageError: an earlier run that is not found, or weights that do not fit the network of today's code.
    """
    inputs = {}
    built_of = [run.config[part] for part in ("backbone", "method", "wrapper")]  # annotations are not made again
    for name in sorted(set(input_names(built_of))):
        earlier = run.judgement.inputs.get(name)
        used = None if earlier is None else read_run(run.folder.parent / earlier)
        if used is None:
            raise UsageError(
                f"run {run.id} is built with an earlier run, '{name}', which is not found beside it; give the command "
                "of its study again, or choose another run"
            )
        inputs[name] = load(used)
    try:
        return load_method(run.config, run.folder, inputs)
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"run {run.id}: its method.safetensors cannot be read ({error}); choose another run"
        ) from error
    except (RuntimeError, UsageError) as error:
        changed = " (its code has changed since)" if run.judgement.standing is Standing.STALE else ""
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"run {run.id}: its weights do not fit the network of its config.json{changed}; choose another "
            f"run, or give the command of its study again: {reason}"
        ) from error


def _configurations(root: Path) -> dict[str, Mapping[str, Any]]:
    """Id -> configuration of the pretrainings beside a run."""
    found = {path.parent.name: read_json(path) for path in sorted(root.glob("*/config.json"))}
    return {name: config for name, config in found.items() if config is not None}
