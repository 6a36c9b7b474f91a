"""One run against the store: claim it, execute it, record how it ended. What a worker and a Slurm job do."""

import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from scd.allocator import keep_freed_memory
from scd.errors import UsageError
from studies.suite.execution import machine as environment
from studies.suite.execution.store import Store, disk_full, is_disk_full, remove
from studies.suite.planning import identity
from studies.suite.planning.study import RunSpec

if TYPE_CHECKING:
    from studies.suite.execution.run import Runtime

NEARLY_FULL = 2**20  # bytes; torch reports a full disk without its error number


class Ending(StrEnum):
    """How a run ended for the process that was asked to do it."""

    DONE = "done"
    FAILED = "failed"
    BUSY = "busy"  # another process has finished it or is at it
    FULL = "full"  # no space is left: whatever is asked next would fail, too


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and why where it did not end well."""

    ending: Ending
    reason: str = ""


def perform(
    run: str,
    spec: RunSpec,
    store: Store,
    runtime: "Runtime",
    threads: int | None = None,
    keep_checkpoints: bool = False,
) -> Outcome:
    """Execute a run unless it is finished or somebody else's; errors are recorded in its folder, not raised.

    Only KeyboardInterrupt and the like get out; the run is then interrupted, and resumes at the next call.

    Args:
        run: the id that the spec had when the study was planned.
    """
    from studies.suite.execution.run import execute  # torch is imported by workers, not by whoever starts them

    keep_freed_memory()
    with store.claim(run) as folder:
        if folder is None:
            return Outcome(Ending.BUSY)
        try:
            check_code(run, spec)
            store.begin(run, spec.config)
            store.finish(run, execute(spec, folder, runtime), environment.describe(threads))
        except Exception as error:
            if _full(error, folder):
                return Outcome(Ending.FULL, disk_full(folder))
            reason = _one_line(error)
            store.fail(run, reason, error)
            return Outcome(Ending.FAILED, reason)
        if not keep_checkpoints:
            remove(folder / "checkpoints")
        return Outcome(Ending.DONE)


def check_code(run: str, spec: RunSpec) -> None:
    """The files on the disk must still be those that the run's id was made of: other ones may have been imported.

    Raises:
        UsageError: the code was edited while the study was running.
    """
    if identity.run_id(spec.config, fresh=True) != run:
        raise UsageError("the code changed while the study was running; give the command again")


def _full(error: Exception, folder: Path) -> bool:
    if is_disk_full(error):
        return True
    return isinstance(error, OSError | RuntimeError) and shutil.disk_usage(folder).free < NEARLY_FULL


def _one_line(error: Exception) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return first if isinstance(error, UsageError) else f"{type(error).__name__}: {first}"
