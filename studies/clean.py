"""Remove stale runs from the store, after showing what would be removed.

    python -m studies.clean [--yes] [--store=runs] [--out=reports]

Stale runs are those whose code has changed since (``suite/planning/staleness.py``): no study of today's code can find
them, whatever its settings. Everything else stays: runs in no plan, failed and interrupted runs that a study would go
on with, runs that a process executes, and what a run that stays uses (its pretraining, or a first stage).

What is stale depends on the files on the disk: with the files of another commit, or without uncommitted changes, the
same runs may be current. On a terminal the command asks; without one it removes nothing unless ``--yes`` is given, or
the word ``yes``. Pages keep their records; the folders behind a page that older code has written go.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scd.errors import UsageError
from studies.program import exit_code, program

if TYPE_CHECKING:
    from studies.suite.execution.inventory import Inventory, Stored

EXIT_NOTHING_REMOVED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Show and remove stale runs; the exit code: 0, 1 nothing was removed for want of a yes, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog=program("clean"), description=__doc__.splitlines()[0])
    parser.add_argument("word", nargs="?", choices=["yes"], help="the same as --yes")
    parser.add_argument("--yes", action="store_true", help="remove without asking, for scripts")
    parser.add_argument("--store", default="runs", metavar="DIR", help="where runs are kept (default: runs)")
    parser.add_argument("--out", default="reports", metavar="DIR", help="the folder of the pages (default: reports)")
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    def begin() -> int:
        try:
            return clean(Path(given.store), Path(given.out), given.yes or given.word == "yes")
        except OSError as error:
            raise UsageError(f"the store '{given.store}' cannot be changed: {error}") from error

    return exit_code(begin, "give the same command again for what is left")


def clean(folder: Path, out: Path, agreed: bool) -> int:
    """Show what is stale, ask unless it is agreed, remove it."""
    from studies.suite.execution.history import History
    from studies.suite.execution.inventory import Inventory, open_store, remove_runs, sweep, with_bar
    from studies.suite.pages.state_of_store import counted

    store = open_store(folder)
    with History() as history:
        inventory = Inventory(store, history, with_bar)
        chosen = inventory.removable
        print("\n".join(described(inventory, out)))
        if not chosen:
            sweep(store)
            return 0
        if not agreed:
            if not sys.stdin.isatty():
                print("nothing was removed: this is no terminal to ask on; give --yes", file=sys.stderr)
                return EXIT_NOTHING_REMOVED
            if not confirmed(f"remove {counted(chosen)}? [y/N] "):
                print("nothing was removed", file=sys.stderr)
                return EXIT_NOTHING_REMOVED
            inventory = Inventory(store, history, with_bar)  # a process may have begun one of them meanwhile
        removed = remove_runs(inventory, {run.id: run.status for run in chosen}, with_bar)
    sweep(store)
    print(f"removed: {counted(removed)}")
    if len(removed) < len(chosen):
        print(f"{len(chosen) - len(removed)} stay: another process has begun or changed them meanwhile")
    return 0


def confirmed(question: str) -> bool:
    """Whether the user answers yes; the end of the input is a no."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def described(inventory: "Inventory", out: Path) -> list[str]:
    """What is stale, what of it would be removed, and what stays."""
    from studies.suite.pages.state_of_store import NOUNS, counted, limited, page_lines, size_lines, stale_lines

    chosen, kept, lines = inventory.removable, inventory.kept, size_lines(inventory)
    if not inventory.stale:
        return [*lines, "nothing is stale"]
    if kept:
        lines.append(f"stale, and stays: {counted(inventory.runs[run] for run in kept)}")
        lines += limited([f"  {NOUNS[inventory.runs[run].kind]} {run}: {why}" for run, why in kept.items()])
    if chosen:
        lines += [f"stale: {counted(chosen)}", *stale_lines(inventory, chosen), *page_lines(chosen, out)]
        lines += ["would be removed:", *folder_lines(inventory, chosen)]
    if any(run.status == "running" for run in inventory.runs.values()):
        lines.append(
            "note: runs are being executed; a study that began with older code needs its stale runs for its page"
        )
    return lines


def folder_lines(inventory: "Inventory", chosen: Sequence["Stored"]) -> list[str]:
    """Every run that would be removed; evaluations are counted with their pretraining."""
    from studies.suite.pages.state_of_store import counted

    own = {run.id: [run] for run in chosen if run.kind != "evaluations"}
    apart: dict[str, list[Stored]] = {}
    for run in chosen:
        if run.kind == "evaluations":
            (own if run.config["pretraining"] in own else apart).setdefault(run.config["pretraining"], []).append(run)
    root = inventory.store.root
    lines = [f"  {root / of[0].kind / run} ({of[0].status}): {counted(of)}" for run, of in own.items()]
    return lines + [f"  of {root / 'pretraining' / run}, which stays: {counted(of)}" for run, of in apart.items()]


if __name__ == "__main__":
    raise SystemExit(main())
