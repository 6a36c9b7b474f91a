"""The command line: ``python -m studies`` lists the studies, ``python -m studies NAME key=value ...`` runs one."""

import argparse
import logging
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scd.errors import UsageError
from scd.installation import check_torchvision
from studies.program import EXIT_FAILED, exit_code, program
from studies.suite.execution.clock import Clock, in_words
from studies.suite.pages.out_folder import check_writable, unwritable

if TYPE_CHECKING:
    from studies.suite.execution.ranks import Team
    from studies.suite.execution.rounds import Rounds

RENDER_SECONDS = 90.0  # the page is rewritten at most this often while runs arrive, and at the end;
RENDER_SHARE = 0.05  # it takes at most this share of the time
TRACKER = "tracker="

EXAMPLES = """\
examples:
  {program}                            the studies and what they ask
  {program} multicrop                  tier cpu: two cores, no download
  {program} multicrop --dry-run        the plan, estimates of time and memory
  {program} multicrop tier=gpu data=cifar10 seeds=10
  {program} mechanism minutes=20       adds seeds for so long, or until decided
  {program} multicrop data=FOLDER data.options.columns.image=img
  {program} multicrop arms=moco,scd presets.wrapper.scd.margin=1.0
  {program} multicrop tracker=csv      live curves of the training, or tensorboard
  {program} multicrop tier=paper data=imagenet launcher=slurm

Every option is documented, with the papers' value, in
{conf}. The same command
continues where it stopped."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 a run failed, 2 wrong usage, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def begin() -> int:
        check_torchvision()
        if options.study is None:
            print(listing())
            return 0
        return run_once(options, command_of(options))

    kept = "" if options.dry_run else "finished runs are kept, and the same command continues from here"
    return exit_code(begin, kept)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line's words."""
    parser = argparse.ArgumentParser(
        prog=program("study"),
        description="Answers a reviewers' question by an experiment, and writes one page about it.",
        epilog=EXAMPLES.format(program=program("study"), conf=Path(__file__).parent / "conf"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", nargs="?", help="name of the study; none: list them")
    parser.add_argument("words", nargs="*", metavar="key=value", help="tier, seeds, minutes, data, arms, any option")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and estimates of time and memory")
    parser.add_argument("--store", default="runs", metavar="DIR", help="where runs are kept (default: runs)")
    parser.add_argument("--out", default="reports", metavar="DIR", help="where pages are written (default: reports)")
    parser.add_argument("--recompute-foreign", action="store_true", help="run again what other machines ran")
    options = parser.parse_intermixed_args(arguments)
    options.study = options.study and options.study.replace("-", "_")
    trackers = [word.partition("=")[2] for word in options.words if word.startswith(TRACKER)]
    options.tracker = trackers[-1] if trackers and trackers[-1] not in ("null", "none") else None
    options.words = [word for word in options.words if not word.startswith(TRACKER)]  # no setting: it changes no run
    return options


def command_of(options: argparse.Namespace) -> str:
    """The command as pages print it: without the folders of runs and of pages, which are those of one machine."""
    return shlex.join([*program("study").split(), options.study, *options.words])


def listing() -> str:
    """All studies: name, the questions' ids, the question, the arms."""
    from studies.suite.planning.command_line import choices, load_study, study_names

    lines = []
    for name in study_names():
        study = load_study(name)
        lines.append(f"{name}  ({', '.join(study.question_ids) or 'all'})\n    {study.question}")
        lines.append(f"    arms: {', '.join(arm.name for arm in study.arms)}")
    lines.append(f"\ntiers: {', '.join(choices('tier'))}   data: {', '.join(choices('data'))}, or a FOLDER")
    lines.append(f"run one: {program('study')} NAME [tier=...] [seeds=N] [data=...] [--dry-run]   more: --help")
    return "\n".join(lines)


def run_once(options: argparse.Namespace, command: str) -> int:
    """Run a study; of several processes that torchrun started, the first one does, and the others work for it."""
    from studies.suite.execution.ranks import follow, team_of_torchrun

    with team_of_torchrun() as team:
        if team is not None and team.rank:
            follow(team)
            return 0
        return run(options, command, team)


def run(options: argparse.Namespace, command: str, team: "Team | None" = None) -> int:
    """Plan a study, execute what is missing, write its page."""
    from studies.suite.execution.tracker import check_tracker, tracked
    from studies.suite.planning.command_line import load_study, resolve_settings

    check_tracker(options.tracker)
    study = load_study(options.study)
    settings = resolve_settings(options.study, options.words, options.store, options.out, command)
    settings.select(study.arms)
    from studies.suite.analysis.results import check_page, data_lines, open_images, protocols_of, trains_on_images
    from studies.suite.execution.forecast import work
    from studies.suite.execution.launcher import launch
    from studies.suite.execution.store import Store
    from studies.suite.pages import images_as_read
    from studies.suite.planning.checks import check_options_hold
    from studies.suite.planning.resolve import preview, resolve, unique

    store = Store(settings.store)
    if old := store.old_runs():
        print(f"'{settings.store}' holds {old} runs of an older version; they are left as they are", file=sys.stderr)
    check_page(settings)
    notes: list[str] = []
    specs = study.plan(settings)
    check_options_hold(settings, specs)
    if options.dry_run:
        planned, notes = preview(specs, settings.declared)
    else:
        planned = resolve(specs)
    if not planned:
        raise UsageError("there is nothing to run: these arms, seeds and axes leave no run")
    if not notes:  # with notes, the data are not here
        is_shown = not options.dry_run and trains_on_images(settings, planned)
        sets = open_images(settings, protocols_of(planned)) if is_shown else ()
        for line in data_lines(settings, planned, decode=not options.dry_run, sets=sets):
            print(line, file=sys.stderr)
        if is_shown:
            picture = images_as_read.path_in(settings.store, settings.page)
            tell(f"shown as read in {images_as_read.draw(sets, picture)}")
    runs = unique(planned)
    rounds = None if settings.minutes is None else rounds_of(study, settings, planned, runs, store, team)
    if options.dry_run:
        if rounds is None:
            print_plan(settings, planned, runs, store, notes)
        else:
            print_first_round(rounds, notes)
        return 0

    check_writable(settings.out)
    page = PageOfStudy(study, settings, planned, store, rounds)

    def execute(chosen, clock=None):
        specs = {name: item.spec for name, item in chosen.items()}
        return launch(specs, work(chosen), store, settings.launcher, page.on_end, team, clock)

    try:
        if options.recompute_foreign:
            forget_foreign({name: item.spec for name, item in runs.items()}, store, settings.launcher, team)
        followed = {name: item.spec for name, item in runs.items()}
        with tracked(options.tracker, followed, store, settings.page) as curves:
            if curves is not None:
                tell(f"curves of the training: {curves}")
            result = execute(runs) if rounds is None else rounds.run(execute, say=tell)
    finally:
        path = page.write()
    print(f"{path}" if path else "no run has finished yet: no page", file=sys.stderr)
    for name, reason in result.failed.items():
        spec = runs[name].spec
        print(f"run {spec.id} failed: {reason} (folder: {store.folder(spec)})", file=sys.stderr)
    return EXIT_FAILED if result.failed else 0


def forget_foreign(specs, store, launcher, team=None) -> None:
    """Put aside the finished runs that are not of this machine's numerics class.

    Raises:
        UsageError: Slurm would execute them, on a machine that is not known yet.
    """
    from studies.suite.execution.launcher import class_here

    here = class_here(specs, launcher, team)
    tell(f"runs of other numerics classes than {here}, which are computed again: {store.forget_foreign(specs, here)}")


def rounds_of(study, settings, planned, runs, store, team) -> "Rounds":
    """The rounds of a study with a time budget, which begins now."""
    from studies.suite.execution.launcher import at_once
    from studies.suite.execution.rounds import Rounds

    specs = {name: item.spec for name, item in runs.items()}
    workers = 1 if team is not None else max(1, at_once(specs, settings.launcher))
    return Rounds(study, settings, planned, store, Clock(settings.minutes), workers)


def tell(text: str) -> None:
    """Tell the user what happens, beside the progress bar."""
    print(text, file=sys.stderr)


def print_first_round(rounds: "Rounds", notes) -> None:
    """What a time budget would run first, and how long that would take."""
    chosen, looks = rounds.next(), rounds.study.looks
    if chosen.runs:
        planned = [item for item in rounds.planned if item.spec.key in chosen.runs]
        print_plan(rounds.settings, planned, chosen.runs, rounds.store, notes)
    print(
        f"time budget: {rounds.settings.minutes:g} min; "
        + (f"first round: {chosen.text}" if chosen.runs else f"nothing would run: {chosen.text}")
    )
    left = len(rounds.missing_of_first_reading()) - len(chosen.runs)
    if left > 0 and chosen.runs:
        print(f"{left} runs of it do not fit by this estimate; what fits is estimated again after each round")
    print(f"later rounds add seeds of the contrasts that are still open, up to {looks[-1]} seeds")


def print_plan(settings, planned, runs, store, notes) -> None:
    """What would run: the plan, its jobs where Slurm would execute it, and an estimate of its time."""
    from studies.suite.execution.forecast import estimate, memory_lines, table
    from studies.suite.execution.launcher import at_once, check_devices
    from studies.suite.execution.store import Status

    missing = {run: item for run, item in runs.items() if store.status(item.spec) is not Status.DONE}
    specs = {run: item.spec for run, item in missing.items()}
    check_devices(specs.values(), settings.launcher)
    print(table(planned, store))
    print(f"\n{len(runs)} different runs, {len(missing)} missing; store: {settings.store}")
    if settings.launcher["name"] == "slurm":
        from studies.suite.execution.slurm import described

        print("\n".join(described(specs, settings.launcher)))
    together = max(1, at_once(specs, settings.launcher))
    seconds, basis = estimate(missing, store, together)
    print(f"estimated time: {in_words(seconds)}, {together} at a time, from {basis}")
    for line in (*memory_lines(planned), *notes):
        print(line)


class PageOfStudy:
    """The study's page, rewritten as records arrive."""

    def __init__(self, study, settings, planned, store, rounds: "Rounds | None" = None):
        self.study = study
        self.settings = settings
        self.planned = planned
        self.store = store
        self.rounds = rounds
        self.next = time.monotonic() + RENDER_SECONDS

    def on_end(self) -> None:
        """A run has ended; write the page unless that was done a moment ago. It takes a small share of the time.

        A page that cannot be made of the runs so far does not end the study: they go on, and it is written at the end.
        """
        began = time.monotonic()
        if began > self.next:
            try:
                self.write()
            except UsageError:
                raise
            except Exception as error:  # a fault of the page
                tell(f"the page cannot be written yet ({type(error).__name__}: {error}); the runs go on")
            ended = time.monotonic()
            self.next = ended + max(RENDER_SECONDS, (ended - began) / RENDER_SHARE)

    def write(self) -> Path | None:
        """Write the page and the index from all records that there are; None while there are none.

        Raises:
            UsageError: the folder of the pages cannot be written to.
        """
        from studies.suite.analysis.results import gather
        from studies.suite.pages.index import write_index
        from studies.suite.pages.publish import publish

        if self.rounds is None:
            results = gather(self.study, self.settings, self.planned, self.store)
        else:
            results = self.rounds.page_results()
        if results.finished.empty:
            return None
        try:
            if self.study.prepare is not None:
                results = self.study.prepare(results, self.settings)
            path = publish(self.study, results, self.settings.out)
            write_index(self.settings.out)
        except OSError as error:
            raise unwritable(self.settings.out, error) from error
        return path


if __name__ == "__main__":
    sys.exit(main())
