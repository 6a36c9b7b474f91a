"""Execute what the store does not have yet, with the launcher that the configuration names."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from scd.errors import UsageError
from studies.suite.execution.clock import Clock
from studies.suite.execution.local import Crew, Pool, crew, in_process
from studies.suite.execution.numerics import numerics
from studies.suite.execution.progress import Bar, Launched
from studies.suite.execution.ranks import Team, devices_of
from studies.suite.execution.store import Status, Store
from studies.suite.planning.study import TRAINING, RunSpec


def launch(
    runs: Mapping[str, RunSpec],
    work: Mapping[str, float],
    store: Store,
    launcher: Mapping[str, Any],
    on_end: Callable[[], None] = lambda: None,
    team: Team | None = None,
    clock: Clock | None = None,
) -> Launched:
    """Execute the runs that the store does not have yet.

    Args:
        runs: by key, in the order in which they are started.
        work: how much each counts in the progress bar.
        launcher: configuration of conf/launcher.
        on_end: called after each run that ends, e.g. to rewrite a page.
        team: the processes that torchrun started, of which this one is the first.
        clock: no run begins after its end; None for all runs, however long they take.

    Raises:
        DiskFull: no space is left; finished runs are kept.
        KeyboardInterrupt: Ctrl-C; workers are stopped, their runs resume from their checkpoints next time.
        UsageError: options that the launcher cannot work with.
    """
    missing = {run: spec for run, spec in runs.items() if store.status(spec) is not Status.DONE}
    if not missing:
        return Launched()
    execute = chosen(missing, store, launcher, team, clock)
    finished, ids = [run for run in runs if run not in missing], {run: spec.id for run, spec in runs.items()}
    with Bar(work, finished, len(runs), ids, clock) as bar:
        return execute(bar, on_end)


def chosen(
    missing: Mapping[str, RunSpec],
    store: Store,
    launcher: Mapping[str, Any],
    team: Team | None,
    clock: Clock | None = None,
) -> Callable[[Bar, Callable[[], None]], Launched]:
    """How these runs are executed: a function of the progress bar and of what is called after each run.

    Raises:
        UsageError: as for :func:`launch`.
    """
    check_devices(missing.values(), launcher, team)
    if launcher["name"] == "slurm":
        check_clock(launcher, clock)
        from studies.suite.execution.slurm import SlurmLauncher

        jobs = SlurmLauncher(missing, store, launcher)
        return jobs.run
    hands = local_crew(missing, launcher)
    if team is not None or hands.workers == 0:
        return lambda bar, on_end: in_process(missing, store, launcher, bar, on_end, team, clock)
    return lambda bar, on_end: Pool(missing, store, launcher, hands, bar, on_end, clock).run()


def local_crew(missing: Mapping[str, RunSpec], launcher: Mapping[str, Any]) -> Crew:
    """How many runs the local launcher executes at once, and their threads."""
    training = [spec.config["training"] for spec in missing.values() if spec.kind == TRAINING]
    accelerator = "cuda" if "cuda" in {options["accelerator"] for options in training} else "cpu"
    return crew(launcher, accelerator, len(missing), max(map(devices_of, missing.values()), default=1))


def class_here(runs: Mapping[str, RunSpec], launcher: Mapping[str, Any], team: Team | None = None) -> str:
    """The numerics class that these runs have when this machine executes them.

    Args:
        team: the processes that torchrun started, of which this one is the first.

    Raises:
        UsageError: Slurm would execute them, on a machine that is not known yet.
    """
    import torch

    if launcher["name"] == "slurm":
        raise UsageError("the numerics class of this machine says nothing of Slurm's: leave launcher=slurm out")
    hands = local_crew(runs, launcher)
    training = [spec.config["training"]["accelerator"] for spec in runs.values() if spec.kind == TRAINING]
    threads = hands.threads if hands.workers and team is None else torch.get_num_threads()
    return numerics(threads, "cuda" if "cuda" in training else "cpu")["class"]


def at_once(missing: Mapping[str, RunSpec], launcher: Mapping[str, Any]) -> int:
    """How many of the runs are executed at the same time."""
    return launcher["at_once"] if launcher["name"] == "slurm" else local_crew(missing, launcher).workers


def check_clock(launcher: Mapping[str, Any], clock: Clock | None) -> None:
    """Raise the one-line error for a launcher that cannot keep to a time."""
    if clock is not None and launcher["name"] == "slurm":
        raise UsageError("minutes= works with launcher=local; Slurm decides when a job begins: give seeds=")


def check_devices(specs: Iterable[RunSpec], launcher: Mapping[str, Any], team: Team | None = None) -> None:
    """Raise the one-line error for a number of devices that cannot be served."""
    nodes = launcher.get("nodes", 1)
    if team is not None and launcher["name"] == "slurm":
        raise UsageError("launcher=slurm starts the processes of a run itself: leave torchrun out")
    for spec in specs:
        devices = devices_of(spec)
        if isinstance(devices, bool) or not isinstance(devices, int) or devices < 1:
            raise UsageError(f"training.devices={devices}: give a whole number, 1 or more")
        if devices % nodes:
            raise UsageError(f"training.devices={devices} cannot be split over launcher.nodes={nodes}")
        if team is not None and devices != team.world:
            what = "a measurement runs in one process" if spec.kind != TRAINING else f"training.devices={devices}"
            raise UsageError(
                f"torchrun started {team.world} processes, but {what}: give training.devices={team.world}, or leave "
                "torchrun out"
            )
