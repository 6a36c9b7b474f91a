"""What lies in a store: every pretraining, evaluation and measurement with its status, its size and its standing.

``planning/staleness.py`` says what *current*, *stale* and *unknown* mean. Only stale runs may be removed, and of these
none that a process executes or that a run which stays uses: a pretraining stays with its evaluations, and a first stage
with the runs that are trained from it.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from scd.errors import UsageError
from studies.suite.execution.history import History, why_stale
from studies.suite.execution.store import CLAIM_SECONDS, Records, Status, Store, read_json
from studies.suite.planning.identity import pretraining_part
from studies.suite.planning.staleness import (
    Judgement,
    Standing,
    input_names,
    judge_evaluation,
    judge_measurement,
    judge_pretraining,
    possible_inputs,
    with_standing_of,
)

KINDS = ("pretraining", "evaluations", "measurements")
REMOVING = ".removing"  # folders that are being removed, beside those of the runs; they are no runs any more
Show = Callable[[Sequence[Any], str], Iterable[Any]]  # goes over a sequence and shows how far it is, with a title


def silently(items: Sequence[Any], title: str) -> Iterable[Any]:
    """The items, and nothing is shown."""
    return items


def with_bar(items: Sequence[Any], title: str) -> Iterable[Any]:
    """The items under a progress bar with the time that is left; none for what takes a second."""
    interval = 0.5 if sys.stderr.isatty() else 30.0
    return tqdm(
        items, title, file=sys.stderr, delay=1.0, leave=False, dynamic_ncols=True, mininterval=interval, unit=" runs"
    )


@dataclass(frozen=True)
class Stored:
    """One folder of the store.

    Attributes:
        kind: one of KINDS; id: the folder's name; size: of its files, in bytes.
        config: content of its config.json; None where it has none that can be read.
        judgement: its standing, after that of the runs that it uses.
    """

    kind: str
    id: str
    status: Status
    size: int
    config: dict[str, Any] | None
    judgement: Judgement

    @property
    def standing(self) -> Standing:
        """Whether today's code can still make it."""
        return self.judgement.standing

    @property
    def uses(self) -> tuple[str, ...]:
        """Ids of the runs that it needs: its pretraining, or its inputs as far as they are known."""
        own = (self.config or {}).get("pretraining") if self.kind == "evaluations" else None
        return tuple(self.judgement.inputs.values()) if own is None else (own,)

    @property
    def may_use_any(self) -> bool:
        """Whether it uses earlier runs that are not known."""
        return self.kind == "pretraining" and not self.judgement.inputs and any(input_names(self.config))


def open_store(folder: Path | str) -> Store:
    """The store in a folder that exists.

    Raises:
        UsageError: there is no such folder, or it holds no runs.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"there is no store '{folder}'; give --store=FOLDER, or run a study")
    if not any((folder / kind).is_dir() for kind in KINDS):
        raise UsageError(f"'{folder}' is not a store: it has no folder {', '.join(KINDS)}; give --store=FOLDER")
    return Store(folder)


def records_of(store: Store, kind: str) -> Records:
    """The part of the store that holds runs of a kind."""
    return {"pretraining": store.pretraining, "evaluations": store.evaluations, "measurements": store.measurements}[
        kind
    ]


class Inventory:
    """All runs of a store as they are now.

    Args:
        show: shows the progress over the folders.

    Attributes:
        runs: id -> the run, pretrainings before their evaluations.
        kept: id of a stale run that must stay -> why.
    """

    def __init__(self, store: Store, history: History, show: Show = silently):
        self.store, self.history = store, history
        folders = [(kind, path) for kind in KINDS for path in _folders(store.root / kind)]
        read = [self._read(kind, path) for kind, path in show(folders, "reading the store")]
        earlier = {each.id: each.config for each in read if each.kind == "pretraining" and each.config is not None}
        own = {each.id: self._judged(each, earlier) for each in show(read, "comparing with the code")}
        self.runs: dict[str, Stored] = {}
        for run in own:
            self._settle(run, own)
        self.kept = self._kept()

    @property
    def stale(self) -> list[Stored]:
        """The stale runs."""
        return [run for run in self.runs.values() if run.standing is Standing.STALE]

    @property
    def removable(self) -> list[Stored]:
        """The stale runs that nothing needs, in the order of their removal: users before what they use."""
        chosen = {run.id: run for run in self.stale if run.id not in self.kept}
        users: dict[str, list[Stored]] = {}
        for run in chosen.values():
            for used in run.uses:
                users.setdefault(used, []).append(run)
        ordered: dict[str, Stored] = {}
        seen: set[str] = set()

        def add(run: Stored) -> None:
            if run.id not in seen:
                seen.add(run.id)
                for user in users.get(run.id, []):
                    add(user)
                ordered[run.id] = run

        for run in chosen.values():
            add(run)
        return list(ordered.values())

    def cause(self, run: Stored) -> tuple[tuple[str, ...], str]:
        """The files that made a run, or the run that it uses, stale; and what is known in one phrase."""
        if run.judgement.by:
            return self.cause(self.runs[run.judgement.by])
        if run.judgement.reason:
            return (), run.judgement.reason
        environment = records_of(self.store, run.kind).environment(run.id)
        return why_stale(self.history, run.id, contents_of(run), run.judgement.roots, environment)

    # ---------------------------------------------------------------- inside

    def _read(self, kind: str, folder: Path) -> Stored:
        config = read_json(folder / "config.json")
        nothing = Judgement(Standing.UNKNOWN, "it has no config.json that can be read")
        status = records_of(self.store, kind).status(folder.name)
        return Stored(kind, folder.name, status, size_of(folder), config, nothing)

    def _judged(self, run: Stored, earlier: Mapping[str, Mapping[str, Any]]) -> Stored:
        """The run with the standing of its own configuration and code."""
        if run.config is None:
            return run
        if run.kind == "evaluations":
            return replace(run, judgement=judge_evaluation(run.id, run.config))
        if run.kind == "measurements":
            return replace(run, judgement=judge_measurement(run.id, run.config))
        found = replace(run, judgement=judge_pretraining(run.id, run.config, earlier))
        if found.standing is Standing.UNKNOWN and found.may_use_any and found.judgement.roots:
            return self._by_commit(found, earlier)
        return found

    def _by_commit(self, run: Stored, earlier: Mapping[str, Mapping[str, Any]]) -> Stored:
        """A run whose inputs are not found is stale where its code was that of its commit, which is not today's."""
        git = (self.store.pretraining.environment(run.id) or {}).get("git") or {}
        commit, roots = git.get("commit"), run.judgement.roots
        if not commit or self.history.tree(commit) is None:
            return run
        part = pretraining_part(run.config)
        for inputs in possible_inputs(run.id, run.config, earlier):
            if self.history.gives(run.id, [part, inputs], roots, commit):
                return replace(run, judgement=Judgement(Standing.STALE, roots=roots, inputs=inputs))
        if git.get("dirty") is False and self.history.changed(roots, commit):
            return replace(run, judgement=Judgement(Standing.STALE, roots=roots))
        return run

    def _settle(self, run: str, own: Mapping[str, Stored]) -> Judgement | None:
        """The standing of a run after that of the runs that it uses; None where it is not in the store."""
        if run not in own:
            return None
        if run not in self.runs:
            used = {other: self._settle(other, own) for other in own[run].uses if other != run}
            self.runs[run] = replace(own[run], judgement=with_standing_of(own[run].judgement, used))
        return self.runs[run].judgement

    def _kept(self) -> dict[str, str]:
        """Stale runs that must stay, with the reason: those in use, and what they use."""
        kept = {run.id: "a process executes it" for run in self.stale if run.status is Status.RUNNING}
        for run in self.runs.values():
            if run.status is Status.RUNNING and run.may_use_any:
                others = [other.id for other in self.stale if other.kind == "pretraining" and other.id != run.id]
                kept = {**dict.fromkeys(others, f"run {run.id}, which a process executes, may use it"), **kept}
        waiting = [run for run in self.runs.values() if run.standing is not Standing.STALE or run.id in kept]
        while waiting:
            user = waiting.pop()
            for run in user.uses:
                if run in self.runs and self.runs[run].standing is Standing.STALE and run not in kept:
                    kept[run] = f"run {user.id}, which stays, uses it"
                    waiting.append(self.runs[run])
        return kept


def remove_runs(inventory: Inventory, shown: Mapping[str, Status], show: Show = silently) -> list[Stored]:
    """Remove the folders of runs, each under its lock.

    A run that is not among those shown, has another status by now, or is held by another process stays, with what it
    uses. A folder is first moved away from the runs, so that no half of one is left among them. Lock files stay:
    another process may be waiting for one.

    Args:
        inventory: as the store is now; only its removable runs are removed.
        shown: id -> status of the runs that may be removed.

    Returns:
        What was removed.
    """
    removed, needed = [], set()
    for run in show(inventory.removable, "removing"):
        agreed = shown.get(run.id) == run.status and run.id not in needed
        if agreed and _remove(records_of(inventory.store, run.kind), run.id):
            removed.append(run)
        else:
            needed.update(run.uses)
    return removed


def sweep(store: Store) -> None:
    """Remove what an interrupted removal has left behind."""
    for kind in KINDS:
        shutil.rmtree(store.root / kind / REMOVING, ignore_errors=True)


def contents_of(run: Stored) -> list[Any]:
    """What the id of a run covers beside the code, in its order (``planning/identity.py``)."""
    if run.kind == "pretraining":
        return [pretraining_part(run.config), run.judgement.inputs]
    if run.kind == "evaluations":
        return [run.config["pretraining"], {key: value for key, value in run.config.items() if key != "pretraining"}]
    return [run.config]


def size_of(folder: Path) -> int:
    """The bytes of the files under a folder; links are not followed."""
    total, waiting = 0, [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # another process has removed it meanwhile
            continue
    return total


def _remove(records: Records, run: str) -> bool:
    folder, away = records.folder(run), records.root / REMOVING
    try:
        with FileLock(records.root / ".locks" / run, timeout=CLAIM_SECONDS):
            if folder.is_symlink():
                folder.unlink()
                return True
            away.mkdir(exist_ok=True)
            number = 1
            while (away / f"{run}-{number}").exists():
                number += 1
            moved = away / f"{run}-{number}"
            os.replace(folder, moved)
    except (Timeout, FileNotFoundError):  # in use, or another process has just removed it
        return False
    with suppress(FileNotFoundError):  # see sweep
        shutil.rmtree(moved)
    return True


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
