"""A batch of Slurm jobs on the disk: what its jobs execute, the script that starts them, and how each run ended.

``STORE/.slurm/ID/`` holds jobs.pkl and job.sh, and for each job INDEX its log, its exit code, and one file for each run
that has ended. Slurm knows the batch by the job name scd-ID: whoever finds that name in the queue can follow the jobs.
"""

import json
import math
import os
import pickle
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scd.atomic import write_text
from scd.errors import UsageError
from studies.suite.execution import machine
from studies.suite.execution.run import Ending, Outcome
from studies.suite.planning.study import RunSpec

FOLDER = ".slurm"
PREFIX = "scd-"
MODULE = "studies.suite.execution.slurm_job"
SCRIPT = """\
#!/bin/bash
# Written by studies/suite/execution/slurm_batch.py; one job of an array.
folder={folder}
index=$SLURM_ARRAY_TASK_ID
rm -f "$folder/$index.exit" "$folder/$index.requeue"
export OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads}
export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}
{setup}
srun --kill-on-bad-exit=1 --cpus-per-task={threads} {python} -m {module} "$folder" "$index"
code=$?
if [ -e "$folder/$index.requeue" ]; then
    rm -f "$folder/$index.requeue"
    scontrol requeue "$SLURM_JOB_ID" && sleep 600
fi
echo $code > "$folder/$index.exit"
exit $code
"""


@dataclass(frozen=True)
class Batch:
    """Jobs of one array.

    Args:
        id: of the batch; folder: where it lies.
        root: of the store.
        launcher: configuration of conf/launcher.
        jobs: for each index of the array, the runs of that job by key, in their order.
    """

    id: str
    folder: Path
    root: Path
    launcher: dict[str, Any]
    jobs: list[dict[str, RunSpec]]

    @property
    def name(self) -> str:
        """Of the jobs, in Slurm's queue."""
        return PREFIX + self.id

    # ---------------------------------------------------------------- files

    @classmethod
    def write(cls, root: Path, launcher: Mapping[str, Any], jobs: Sequence[Mapping[str, RunSpec]]) -> "Batch":
        """A new batch in the store at ``root``."""
        name = secrets.token_hex(4)
        root = root.resolve()
        batch = cls(name, root / FOLDER / name, root, dict(launcher), [dict(job) for job in jobs])
        batch.folder.mkdir(parents=True)
        (batch.folder / "jobs.pkl").write_bytes(pickle.dumps(batch))
        write_text(batch.folder / "job.sh", batch.script())
        return batch

    @classmethod
    def named(cls, root: Path, name: str) -> "Batch | None":
        """The batch of a job's name in the queue; None where it is not of this store, or of other code."""
        if not name.startswith(PREFIX):
            return None
        return cls.read(root.resolve() / FOLDER / name.removeprefix(PREFIX))

    @classmethod
    def read(cls, folder: Path) -> "Batch | None":
        """The batch in a folder; None where there is none that this code can read."""
        try:
            batch = pickle.loads((folder / "jobs.pkl").read_bytes())
        except (OSError, pickle.UnpicklingError, AttributeError, ImportError, EOFError):
            return None
        return batch if isinstance(batch, cls) else None

    def script(self) -> str:
        """What a job executes: the launcher's set-up, then a process for each device of a run."""
        return SCRIPT.format(
            folder=shlex.quote(str(self.folder)),
            threads=self.launcher["cpus"],
            code=shlex.quote(str(machine.ROOT)),
            setup="\n".join(self.launcher["setup"]),
            python=shlex.quote(sys.executable),
            module=MODULE,
        )

    def log(self, index: int) -> Path:
        """The log of a job."""
        return self.folder / f"{index}.log"

    def tail(self, index: int, lines: int = 3) -> list[str]:
        """The last lines of a job's log that are not empty."""
        try:
            text = self.log(index).read_text(encoding="utf-8", errors="replace")[-4000:]
        except OSError:
            return []
        return [line.strip() for line in text.splitlines() if line.strip()][-lines:]

    def exit_code(self, index: int) -> int | None:
        """The exit code of a job's processes; None while they run, or where the whole job was killed."""
        try:
            return int((self.folder / f"{index}.exit").read_text())
        except (OSError, ValueError):
            return None

    def ask_to_requeue(self, index: int) -> None:
        """Tell the job's script to put the job back into the queue."""
        (self.folder / f"{index}.requeue").touch()

    # ---------------------------------------------------------------- how runs ended

    def report(self, run: str, outcome: Outcome) -> None:
        """Leave word of how a run ended for the job."""
        write_text(self.folder / f"{run}.json", json.dumps({"ending": outcome.ending, "reason": outcome.reason}))

    def outcome(self, run: str) -> Outcome | None:
        """How a run ended for the job; None where it has not."""
        try:
            found = json.loads((self.folder / f"{run}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return Outcome(Ending(found["ending"]), found["reason"])


# ---------------------------------------------------------------- options


def minutes(launcher: Mapping[str, Any]) -> int:
    """The time limit of a job in whole minutes, as Slurm counts: rounded up, since 0 would mean no limit."""
    hours = launcher["hours"]
    if isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 < hours < math.inf:
        raise UsageError(f"launcher.hours={hours}: give a number above 0")
    return math.ceil(hours * 60 - 1e-9)


def warning_seconds(launcher: Mapping[str, Any]) -> int:
    """How long before its time is over a job is told to stop: a tenth of the time, 10 s to 60 s."""
    return max(10, min(60, minutes(launcher) * 6))


def options(launcher: Mapping[str, Any], devices: int, alone: bool = False) -> list[str]:
    """sbatch's options for runs on so many devices.

    Args:
        launcher: configuration of conf/launcher.
        devices: of a run, over all machines.
        alone: no other job may share the machine.

    Raises:
        UsageError: a value that Slurm could not use.
    """
    for name in ("nodes", "cpus", "at_once", "runs_per_job"):
        value = launcher[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"launcher.{name}={value}: give a whole number, 1 or more")
    memory = launcher["memory_gb"]
    if isinstance(memory, bool) or not isinstance(memory, int | float) or memory <= 0:
        raise UsageError(f"launcher.memory_gb={memory}: give a number above 0")
    if not isinstance(launcher["setup"], list) or not all(isinstance(line, str) for line in launcher["setup"]):
        raise UsageError(f"launcher.setup={launcher['setup']}: give a list of shell commands: launcher.setup=[...]")
    per_node = devices // launcher["nodes"]
    words = [
        f"--time={minutes(launcher)}",
        f"--signal=USR2@{warning_seconds(launcher)}",
        f"--nodes={launcher['nodes']}",
        f"--ntasks-per-node={per_node}",
        f"--cpus-per-task={launcher['cpus']}",
        f"--mem={math.ceil(memory * 1024) * per_node}M",
        "--requeue",
        "--open-mode=append",
    ]
    if launcher["gpus"]:
        words.append(f"--gpus-per-node={per_node}")
    words += [f"--{name}={launcher[name]}" for name in ("partition", "account") if launcher[name] is not None]
    if alone:
        words.append("--exclusive")
    for name, value in launcher["extra"].items():
        flag = f"--{name.replace('_', '-')}"
        words.append(flag if value is True else f"{flag}={value}")
    return words


def array_options(batch: Batch, waits_for: Sequence[str]) -> list[str]:
    """sbatch's options of one array.

    Args:
        batch: its jobs.
        waits_for: ids of jobs that must have ended before.
    """
    words = [
        f"--job-name={batch.name}",
        f"--array=0-{len(batch.jobs) - 1}%{batch.launcher['at_once']}",
        f"--output={batch.folder}/%a.log",
        f"--chdir={os.getcwd()}",
    ]
    return [*words, f"--dependency=afterany:{':'.join(waits_for)}"] if waits_for else words
