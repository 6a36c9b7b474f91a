"""What is in the store, study by study: finished, running, failed, interrupted and stale runs, and their size.

    python -m studies.status [STUDY ...] [key=value ...] [--store=runs]

A study is planned with its default settings, or with those of the words (``tier=gpu data=cifar10 seeds=10``). Nothing
is trained, downloaded or changed. The columns of the table count runs: pretrainings with their evaluations, or
measurements. Studies share runs, so that columns do not add up.

- *finished*: the run and all of its evaluations are done.
- *running*: a process executes it, or one of its evaluations.
- *failed*: it ended with an error; the next study tries it again.
- *interrupted*: it was begun and has not ended; the next study resumes it.
- *not evaluated*: the training is done, an evaluation was not begun.
- *damaged*: a record does not match its checksum; the next study does the run again.
- *not begun*: nothing of it is in the store.
- *stale*: the store has it, or an evaluation of it, from code that has changed since
  (``suite/planning/staleness.py``). No plan finds it any more; ``python -m studies.clean`` removes it.

A run *in no plan* is not stale: other settings find it.
"""

import argparse
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scd.errors import UsageError
from studies.program import exit_code, program

if TYPE_CHECKING:
    from studies.suite.execution.inventory import Inventory, Show
    from studies.suite.planning.study import RunSpec

STATES = {  # of the store -> column of the table
    "done": "finished",
    "running": "running",
    "failed": "failed",
    "interrupted": "interrupted",
    "unevaluated": "not evaluated",
    "corrupt": "damaged",
    "missing": "not begun",
}


@dataclass(frozen=True)
class Plan:
    """The different runs that a study lists; or why it cannot be planned here."""

    study: str
    runs: list["RunSpec"] = field(default_factory=list)
    problem: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the state of a store; the exit code: 0, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog=program("status"), description=__doc__.splitlines()[0])
    parser.add_argument(
        "words", nargs="*", metavar="STUDY|key=value", help="studies (default: all), and their settings"
    )
    parser.add_argument("--store", default="runs", metavar="DIR", help="where runs are kept (default: runs)")
    parser.add_argument("--out", default="reports", metavar="DIR", help="the folder of the pages (default: reports)")
    given = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when datasets is imported; a status downloads nothing

    def begin() -> int:
        try:
            print("\n".join(report(given.words, Path(given.store), Path(given.out))))
        except OSError as error:
            raise UsageError(f"the store '{given.store}' cannot be read: {error}") from error
        return 0

    return exit_code(begin, "nothing was changed")


def report(words: Sequence[str], folder: Path, out: Path) -> list[str]:
    """The lines of the report."""
    from studies.suite.execution.history import History
    from studies.suite.execution.inventory import Inventory, open_store, with_bar
    from studies.suite.pages.state_of_store import size_lines, stale_lines, table, unknown_lines, unplanned_lines
    from studies.suite.planning.command_line import load_study, study_names

    studies = [word.replace("-", "_") for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    for name in studies:
        load_study(name)
    store = open_store(folder)
    with History() as history:
        inventory = Inventory(store, history, with_bar)
        plans = planned(studies or study_names(), settings, folder, out, with_bar)
        blocks = [size_lines(inventory)]
        asked = ", ".join(settings) if settings else "the default settings"
        rows = [row(plan, inventory, belonging(plan, inventory)) for plan in plans if not plan.problem]
        blocks.append([f"studies with {asked}:", *table(rows)])
        blocks[-1] += [f"{plan.study}  cannot be planned here: {plan.problem}" for plan in plans if plan.problem]
        blocks.append(headed("failed", failed_lines(plans, inventory)))
        blocks.append(headed("running", running_lines(plans, inventory)))
        stale = headed("stale", stale_lines(inventory, inventory.stale))
        blocks.append([*stale, f"  {program('clean')} shows and removes them"] if stale else [])
        known = {run for plan in plans for spec in plan.runs for run in ids_of(spec)}
        others = [run for run in inventory.runs.values() if run.standing == "current" and run.id not in known]
        blocks.append(headed("in none of these plans, and current", unplanned_lines(others, out)))
        blocks.append(headed("cannot be judged, and stays", unknown_lines(inventory)))
    return "\n\n".join("\n".join(lines) for lines in blocks if lines).splitlines()


def headed(title: str, lines: Sequence[str]) -> list[str]:
    """Lines under a title; nothing where there are none."""
    return [f"{title}:", *lines] if lines else []


# ---------------------------------------------------------------- plans


def planned(names: Sequence[str], words: Sequence[str], store: Path, out: Path, show: "Show") -> list[Plan]:
    """The plans of some studies with the same words; one that cannot be made says why."""
    from studies.suite.planning.command_line import load_study, resolve_settings
    from studies.suite.planning.resolve import Resolver, unique

    class Planner(Resolver):
        """Counts FLOPs only where a budget is given in them: an id holds none."""

        def cost(self, config, inputs=None):
            return super().cost(config, inputs) if config["training"]["budget"]["unit"] == "flops" else 0.0

    planner, listed, problems = Planner(check=False), {}, {}
    for name in show(names, "reading the studies"):
        try:
            study = load_study(name)
            settings = resolve_settings(name, words, store, out)
            settings.select(study.arms)
            listed[name] = study.plan(settings)
        except UsageError as error:
            problems[name] = " ".join(str(error).splitlines())
    complete: dict[str, list[Any]] = {name: [] for name in listed}
    for name, spec in show([(name, spec) for name, specs in listed.items() for spec in specs], "planning"):
        if name in problems:
            continue
        try:
            complete[name].append(planner.complete(spec))
        except UsageError as error:
            problems[name] = " ".join(str(error).splitlines())
    if len(problems) == len(names):
        raise UsageError(problems[names[0]])
    return [
        Plan(name, problem=problems[name]) if name in problems
        else Plan(name, [item.spec for item in unique(complete[name]).values()])
        for name in names
    ]  # fmt: skip


def ids_of(spec: "RunSpec") -> set[str]:
    """The ids of a run: its own, and those of its evaluations."""
    return {spec.id, *spec.evaluations}


# ---------------------------------------------------------------- states


def state_of(spec: "RunSpec", inventory: "Inventory") -> str:
    """The state of a run with its evaluations, one of STATES: as of ``Store.status``, and "unevaluated"."""

    def status(run: str) -> str:
        return inventory.runs[run].status if run in inventory.runs else "missing"

    own, parts = status(spec.id), {status(evaluation) for evaluation in spec.evaluations}
    if own != "done":
        return str(own)
    first = next((each for each in ("running", "failed", "corrupt", "interrupted") if each in parts), "")
    return first or ("unevaluated" if "missing" in parts else "done")


def belonging(plan: Plan, inventory: "Inventory") -> int:
    """How many runs of a plan the store has from older code: the same configuration, or a stale evaluation."""
    from studies.suite.planning.identity import canonical, pretraining_part

    def key(config, is_training) -> str:
        return json.dumps(canonical(pretraining_part(config) if is_training else config), sort_keys=True)

    stale = inventory.stale
    if not stale:
        return 0
    keys = {key(spec.config, spec.kind == "training") for spec in plan.runs}
    own = {run.id for run in stale if run.kind != "evaluations" and key(run.config, run.kind == "pretraining") in keys}
    current = {spec.id for spec in plan.runs}
    evaluated = {run.config["pretraining"] for run in stale if run.kind == "evaluations"}
    return len(own | (evaluated & current))


def row(plan: Plan, inventory: "Inventory", stale: int) -> dict[str, Any]:
    """One row of the table."""
    counts = Counter(state_of(spec, inventory) for spec in plan.runs)
    states = {column: counts[state] for state, column in STATES.items()}
    return {"study": plan.study, "planned": len(plan.runs), **states, "stale": stale}


def failed_lines(plans: Sequence[Plan], inventory: "Inventory") -> list[str]:
    """Failed runs of the plans, with the reason."""
    from studies.suite.pages.state_of_store import limited, shortened

    reason = inventory.store.failure
    return limited([f"  {named}: {shortened(reason(spec) or 'no reason is recorded')}"
                    for named, spec in in_state("failed", plans, inventory)])  # fmt: skip


def running_lines(plans: Sequence[Plan], inventory: "Inventory") -> list[str]:
    """Running runs of the plans; those in no plan are counted."""
    from studies.suite.pages.state_of_store import limited

    known = {run for plan in plans for spec in plan.runs for run in ids_of(spec)}
    others = [run for run in inventory.runs.values() if run.status == "running" and run.id not in known]
    lines = [f"  {named}" for named, _ in in_state("running", plans, inventory)]
    return limited([*lines, *(f"  {run.kind} {run.id}, in none of these plans" for run in others)])


def in_state(state: str, plans: Sequence[Plan], inventory: "Inventory") -> list[tuple[str, "RunSpec"]]:
    """The different runs of the plans that are in a state, each with the study that names it first and its labels."""
    found: dict[str, tuple[str, RunSpec]] = {}
    for plan in plans:
        for spec in plan.runs:
            if spec.id not in found and state_of(spec, inventory) == state:
                labels = " ".join(f"{key}={value}" for key, value in spec.labels.items() if value is not None)
                found[spec.id] = (f"{plan.study} {spec.id} ({labels})", spec)
    return list(found.values())


if __name__ == "__main__":
    raise SystemExit(main())
