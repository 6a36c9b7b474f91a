"""Run a committed page's first seeds again on this machine, and compare every number.

    python -m studies.replicate PAGE [seeds=2] [arms=moco,scd] [data=FOLDER] [launcher.workers=1]

The runs go into a store of their own; ``reports/replications.csv`` and ``replications.md`` say what came out.
"""

import argparse
import logging
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scd.errors import UsageError
from studies.program import exit_code, program

SEEDS = "2"
COMMANDS = ("python -m studies ", "scd-suite study ")  # how a page says that it was written
OF_THIS_MACHINE = ("data=", "data.locations.", "launcher")  # words that change no number


def main(argv: Sequence[str] | None = None) -> int:
    """Replicate a page; the exit code: 0, 1 a run failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog=program("replicate"), description=__doc__.splitlines()[0])
    parser.add_argument("page", help="name of the page, as in reports/records")
    parser.add_argument("words", nargs="*", metavar="key=value", help="seeds=2, arms=moco,scd, data=FOLDER")
    parser.add_argument("--store", default="runs/replications", metavar="DIR", help="default: runs/replications")
    parser.add_argument("--out", default="reports", metavar="DIR", help="the folder of the pages (default: reports)")
    given = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    def begin() -> int:
        return replicate(given.page, given.words, Path(given.store), Path(given.out))

    return exit_code(begin, "finished runs are kept, and the same command continues from here")


def replicate(page: str, words: Sequence[str], store: Path, out: Path) -> int:
    """Run what is missing, compare, write the table and the page."""
    from studies.__main__ import parse
    from studies.suite.analysis.replication import compared, summary
    from studies.suite.analysis.results import gather, load
    from studies.suite.execution.forecast import work
    from studies.suite.execution.launcher import class_here, launch
    from studies.suite.execution.store import Store
    from studies.suite.pages.index import write_index
    from studies.suite.pages.replications import add
    from studies.suite.planning.command_line import load_study, resolve_settings
    from studies.suite.planning.resolve import resolve, unique

    committed = load(out, page.replace(".md", ""))
    own, asked = words_of(words)
    command = committed.about["command"] or ""
    opening = next((each for each in COMMANDS if command.startswith(each)), None)
    if opening is None or not committed.about["seeds"]:
        raise UsageError(f"page '{page}' has no runs with seeds, or no command of this version; choose another page")
    options = parse(shlex.split(command.removeprefix(opening)))
    kept = [word for word in options.words if not any(word.split("=")[0] == each.split("=")[0] for each in own)]
    seeds = chosen_seeds(asked.get("seeds", SEEDS), committed.about["seeds"])
    kept = [word for word in kept if not word.startswith("seeds=")]
    study = load_study(options.study)
    arms = asked["arms"].split(",") if "arms" in asked else committed.about["arms"]
    for arm in arms:
        study.arm(arm)
    all_seeds = f"seeds=[{','.join(map(str, committed.about['seeds']))}]"
    settings = resolve_settings(options.study, [*kept, *own, all_seeds], store, out, committed.about["command"])
    planned = resolve(study.plan(settings))
    planned = [item for item in planned if item.spec.labels["arm"] in arms and item.spec.labels["seed"] in seeds]
    check_ids(committed, planned)
    specs = {name: item.spec for name, item in unique(planned).items()}
    here = Store(store / class_here(specs, settings.launcher))
    result = launch(specs, work(unique(planned)), here, settings.launcher)
    results = gather(study, settings, planned, here)
    if study.prepare is not None:
        results = study.prepare(results, settings)
    for name, reason in result.failed.items():
        print(f"run {specs[name].id} failed: {reason}", file=sys.stderr)
    if results.finished.empty:
        return 1
    rows = compared(committed, results, findings_of(study, committed))
    found = summary(rows)
    path = add(rows, out)
    write_index(out)
    print(
        f"{found['runs']} runs: {found['equal']} of {found['numbers']} numbers are equal to the bit; "
        f"{found['inside']} of {found['differences']} differences lie in the prediction interval; {path}"
    )
    return 1 if result.failed else 0


def words_of(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words that say where this machine has its data and how it runs, and the replication's own: seeds and arms."""
    own = [word for word in words if word.startswith(OF_THIS_MACHINE)]
    asked = dict(word.partition("=")[::2] for word in words if word not in own)
    if set(asked) - {"seeds", "arms"}:
        raise UsageError("a replication takes seeds=, arms=, data= and launcher options; the page says everything else")
    return own, asked


def chosen_seeds(count: str, seeds: Sequence[int]) -> list[int]:
    """The first ``count`` seeds of the page."""
    if not count.isdigit() or not 1 <= int(count) <= len(seeds):
        raise UsageError(f"seeds={count}: give how many of the page's {len(seeds)} seeds, 1 or more")
    return list(seeds[: int(count)])


def check_ids(committed, planned) -> None:
    """The runs must be those of the page.

    Raises:
        UsageError: the code or the configuration changed since; the text says which commit to check out.
    """
    known = set(committed.runs["run"])
    other = {item.spec.id for item in planned} - known
    if not planned:
        raise UsageError("these arms and seeds leave no run of the page")
    if other:
        git = [each.get("git") or {} for each in committed.about["environments"]]
        commits = list(dict.fromkeys(each["commit"][:12] for each in git if each.get("commit")))
        dirty = " (the page's runs had uncommitted changes)" if any(each.get("dirty") for each in git) else ""
        where = f"check out {' or '.join(commits)}{dirty} and give the command there" if commits else "write it again"
        raise UsageError(
            f"the code or the data changed since page '{committed.page}' was written ({len(other)} of "
            f"{len({item.spec.id for item in planned})} runs have other ids): {where}"
        )


def findings_of(study, committed) -> list:
    """The contrasts that the page judges, with their paired differences, as the page itself computes them."""
    from studies.suite.analysis.verdict import measure
    from studies.suite.pages.publish import Report

    with tempfile.TemporaryDirectory() as folder:
        report = Report(study, committed, Path(folder))
        study.sections(report)
    contrasts = [each.contrast for verdict in report.verdicts for each in verdict.findings]
    arms = set(committed.runs["arm"])
    shown = [each for each in contrasts if {each.treatment, each.control} <= arms]
    return [(each, measure(report.results, each)) for each in shown]


if __name__ == "__main__":
    raise SystemExit(main())
