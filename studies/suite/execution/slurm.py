"""Runs as Slurm jobs through submitit: one job per run, requeued when its time is over or it is pre-empted."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scd.atomic import DiskFull
from scd.errors import UsageError
from studies.suite.execution.progress import Bar, Launched, runtime_of
from studies.suite.execution.run import Ending, Execution, Outcome
from studies.suite.execution.store import Status, Store
from studies.suite.planning.study import RunSpec

POLL_SECONDS = 15.0


@dataclass
class Job:
    """A Slurm task: each GPU of a run has a task of its own, and the first one writes the record."""

    spec: RunSpec
    root: str
    launcher: dict[str, Any]

    def __call__(self) -> Outcome:
        import submitit

        rank = submitit.JobEnvironment().global_rank
        runtime = runtime_of(self.launcher, lambda step, steps, loss: None)
        store = Store(self.root)
        if rank == 0:
            return Execution(self.spec, store, runtime, keep_checkpoints=self.launcher["keep_checkpoints"]).perform()
        from studies.suite.execution.pretraining import pretrain_run

        pretrain_run(self.spec.config, self.spec.locations, store.folder(self.spec), runtime)
        return Outcome(Ending.DONE)

    def checkpoint(self):
        """Called by submitit when the job's time is over: the same again, which resumes from the run's checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def submit(
    missing: Mapping[str, RunSpec],
    store: Store,
    launcher: Mapping[str, Any],
    bar: Bar,
    on_end: Callable[[], None],
    poll: float = POLL_SECONDS,
) -> Launched:
    """Submit all missing runs as one job array and wait; stopping the launcher leaves the jobs running.

    Raises:
        UsageError: submitit is not installed, or Slurm refuses the options.
    """
    try:
        import submitit
    except ImportError as error:
        raise UsageError("launcher=slurm needs submitit: python -m pip install -e '.[slurm]'") from error
    executor = submitit.AutoExecutor(folder=store.root / ".slurm", cluster=launcher["cluster"])
    jobs: dict[str, Any] = {}
    by_shape: dict[int, list[str]] = {}
    for run, spec in missing.items():
        if spec.inputs or spec.alone:
            raise UsageError("launcher=slurm does not order runs that depend on each other yet; use launcher=local")
        by_shape.setdefault(spec.config["training"]["devices"], []).append(run)
    for devices, names in by_shape.items():
        try:
            executor.update_parameters(**options(launcher, devices, executor.cluster))
            tasks = [Job(missing[run], str(store.root.resolve()), dict(launcher)) for run in names]
            jobs |= dict(zip(names, executor.submit_array(tasks), strict=True))
        except (RuntimeError, ValueError, OSError, submitit.core.utils.FailedSubmissionError) as error:
            raise UsageError(f"Slurm does not take the jobs: {str(error).splitlines()[0]}") from error
    return follow(jobs, missing, store, bar, on_end, poll)


def options(launcher: Mapping[str, Any], devices: int, cluster: str) -> dict[str, Any]:
    """submitit's parameters for runs on so many devices."""
    per_node = max(1, devices // launcher["nodes"])
    shared = {
        "timeout_min": int(launcher["hours"] * 60),
        "nodes": launcher["nodes"],
        "tasks_per_node": per_node,
        "cpus_per_task": launcher["cpus"],
        "mem_gb": launcher["memory_gb"] * per_node,
        "gpus_per_node": per_node if launcher["gpus"] else 0,
        "name": "scd-study",
    }
    if cluster != "slurm":
        return shared
    named = {"slurm_partition": launcher["partition"], "slurm_account": launcher["account"]}
    chosen = {key: value for key, value in named.items() if value is not None}
    return {
        **shared,
        **chosen,
        "slurm_array_parallelism": launcher["at_once"],
        "slurm_additional_parameters": dict(launcher["extra"]),
    }


def follow(
    jobs: Mapping[str, Any],
    specs: Mapping[str, RunSpec],
    store: Store,
    bar: Bar,
    on_end: Callable[[], None],
    poll: float,
) -> Launched:
    """Wait for the jobs; the store decides how their runs ended."""
    result, open_jobs = Launched(), dict(jobs)
    while open_jobs:
        for run, job in list(open_jobs.items()):
            if not job.done():
                continue
            del open_jobs[run]
            status = store.status(specs[run])
            if status is Status.DONE:
                result.done += 1
            else:
                result.failed[run] = store.failure(specs[run]) or _why(job)
            if not job.exception() and job.results()[0].ending is Ending.FULL:
                raise DiskFull(job.results()[0].reason)
            bar.end(run, result.failed.get(run, ""))
            on_end()
        if open_jobs:
            time.sleep(poll)
    return result


def _why(job: Any) -> str:
    error = job.exception()
    return f"its Slurm job {job.job_id} ended as {job.state}: {str(error).strip().splitlines()[-1] if error else ''}"
