"""Execute what the store does not have yet, with the launcher that the configuration names."""

from collections.abc import Callable, Mapping
from typing import Any

from studies.suite.execution.local import Pool, crew, in_process
from studies.suite.execution.progress import Bar, Launched
from studies.suite.execution.store import Status, Store
from studies.suite.planning.study import TRAINING, RunSpec


def launch(
    runs: Mapping[str, RunSpec],
    work: Mapping[str, float],
    store: Store,
    launcher: Mapping[str, Any],
    on_end: Callable[[], None] = lambda: None,
) -> Launched:
    """Execute the runs that the store does not have yet.

    Args:
        runs: by key, in the order in which they are started.
        work: how much each counts in the progress bar.
        launcher: configuration of conf/launcher.
        on_end: called after each run that ends, e.g. to rewrite a page.

    Raises:
        DiskFull: no space is left; finished runs are kept.
        KeyboardInterrupt: Ctrl-C; workers are stopped, their runs resume from their checkpoints next time.
    """
    missing = {run: spec for run, spec in runs.items() if store.status(spec) is not Status.DONE}
    training = [spec.config["training"] for spec in missing.values() if spec.kind == TRAINING]
    accelerators = {options["accelerator"] for options in training}
    if launcher["name"] == "slurm" and missing:
        from studies.suite.execution.slurm import submit  # submitit is an extra

        with Bar(work, [run for run in runs if run not in missing], len(runs)) as bar:
            return submit(missing, store, launcher, bar, on_end)
    chosen = crew(launcher, "cuda" if "cuda" in accelerators else "cpu", len(missing))
    with Bar(work, [run for run in runs if run not in missing], len(runs)) as bar:
        if not missing:
            return Launched()
        if chosen.workers == 0:
            return in_process(missing, store, launcher, bar, on_end)
        return Pool(missing, store, launcher, chosen, bar, on_end).run()
