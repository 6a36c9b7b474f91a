"""The state of a store in lines for a terminal: how large it is, what is stale and why, what is in no plan."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from studies.suite.execution.inventory import KINDS, Inventory, Stored, size_of
from studies.suite.planning.staleness import Standing

NOUNS = {"pretraining": "pretraining", "evaluations": "evaluation", "measurements": "measurement"}
SHOWN = 20  # lines of a list; the others are counted
LONGEST = 120  # characters of a reason


def in_bytes(size: int) -> str:
    """A size for people: 12 KiB, 3.4 MiB, 1.9 GiB."""
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size} bytes"


def counted(runs: Iterable[Stored]) -> str:
    """ "3 pretrainings, 1 evaluation, 2.0 MiB"; kinds without a run are left out."""
    runs = list(runs)
    counts = Counter(run.kind for run in runs)
    parts = [f"{counts[kind]} {NOUNS[kind]}{'s' if counts[kind] > 1 else ''}" for kind in KINDS if counts[kind]]
    return ", ".join([*parts, in_bytes(sum(run.size for run in runs))]) if parts else "nothing"


def size_lines(inventory: Inventory) -> list[str]:
    """How many runs there are, and what they and the other files of the store take."""
    root, runs = inventory.store.root, inventory.runs.values()
    lines = [f"store {root}: {counted(runs)}"]
    aside = sum(size_of(root / kind / ".foreign") for kind in KINDS)
    others = size_of(root) - sum(run.size for run in runs) - aside
    if aside:
        lines.append(f"  put aside by --recompute-foreign (.foreign): {in_bytes(aside)}")
    if others >= 2**20:
        lines.append(f"  other files in the folder: {in_bytes(others)}")
    if old := inventory.store.old_runs():
        lines.append(f"  runs of an older version, which are left as they are: {old}")
    return lines


def stale_lines(inventory: Inventory, runs: Sequence[Stored]) -> list[str]:
    """Stale runs by what made them stale, the most first; and which of the files have uncommitted changes."""
    groups: dict[str, list[Stored]] = {}
    touched: set[str] = set()
    for run in runs:
        files, text = inventory.cause(run)
        groups.setdefault(text, []).append(run)
        touched.update(files)
    lines = limited([f"  {text}: {counted(of)}" for text, of in sorted(groups.items(), key=lambda item: -len(item[1]))])
    if uncommitted := sorted(touched & inventory.history.uncommitted()):
        lines.append(f"  uncommitted changes in {', '.join(uncommitted)}: without them, runs may be current again")
    return lines


def unknown_lines(inventory: Inventory) -> list[str]:
    """What cannot be judged, by reason; it is never removed."""
    groups: dict[str, list[Stored]] = {}
    for run in inventory.runs.values():
        if run.standing is Standing.UNKNOWN:
            groups.setdefault(shortened(run.judgement.reason), []).append(run)
    return limited([f"  {reason}: {counted(runs)}" for reason, runs in groups.items()])


def unplanned_lines(runs: Sequence[Stored], out: Path) -> list[str]:
    """Current runs that no plan has, by the pages whose records name them.

    Args:
        out: the folder of the pages.
    """
    pages = pages_of_runs(out)
    groups: dict[str, list[Stored]] = {}
    for run in runs:
        names = pages.get(trained(run))
        groups.setdefault(f"on page {', '.join(names)}" if names else f"on no page in {out}", []).append(run)
    return limited([f"  {where}: {counted(of)}" for where, of in groups.items()])


def page_lines(runs: Sequence[Stored], out: Path) -> list[str]:
    """One line with the pages whose records name some of the runs; none where there is no such page."""
    pages = pages_of_runs(out)
    names = sorted({name for run in runs for name in pages.get(trained(run), ())})
    return [f"  pages whose records name some of them, and keep their numbers: {', '.join(names)}"] if names else []


def trained(run: Stored) -> str:
    """The id by which the records of pages name a run: that of its pretraining or measurement."""
    return run.config["pretraining"] if run.kind == "evaluations" else run.id


def pages_of_runs(out: Path) -> dict[str, list[str]]:
    """Id of a pretraining or measurement -> names of the pages whose records have it."""
    found: dict[str, list[str]] = {}
    for path in sorted((out / "records").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for run in dict.fromkeys(row.get("run") or "" for row in csv.DictReader(file)):
                found.setdefault(run, []).append(path.stem)
    return found


def table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Rows of equal keys as aligned columns; the first column is text, zeros are dashes."""
    if not rows:
        return []
    cells = [list(rows[0]), *([str(value or "-") for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return [
        "  ".join(text.rjust(width) if column else text.ljust(width)
                  for column, (text, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in cells
    ]  # fmt: skip


def limited(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"  and {more} more"] if more > 0 else list(lines)


def shortened(text: str) -> str:
    """The first line of a text, not longer than LONGEST."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
