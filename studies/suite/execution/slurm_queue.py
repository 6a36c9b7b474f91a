"""Slurm's commands: submission, what is in the queue, and how a job ended."""

import getpass
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from scd.errors import UsageError
from studies.suite.execution.ranks import how_ended

USUAL_ARRAY = 1001  # Slurm's default of MaxArraySize
SECONDS = 60  # after which a command of Slurm that does not answer is given up


class SlurmError(UsageError):
    """Slurm refused a command, or did not answer."""


@dataclass(frozen=True)
class Task:
    """One job of an array in the queue."""

    name: str
    job: str
    index: int
    state: str = "PENDING"

    @property
    def id(self) -> str:
        """As Slurm writes it."""
        return f"{self.job}_{self.index}"


def call(*words: str) -> str:
    """Standard output of one of Slurm's commands.

    Variables of a job that this process itself runs in are left out: they would become options of a new job.

    Raises:
        SlurmError: the command does not exist, fails, or does not answer.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_") or key == "SLURM_CONF"}
    try:
        done = subprocess.run(words, env=kept, capture_output=True, text=True, timeout=SECONDS, check=True)
    except FileNotFoundError as error:
        raise SlurmError(f"launcher=slurm needs Slurm's command '{words[0]}' on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"Slurm does not answer: '{words[0]}' was given up after {SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in error.stderr.splitlines() if line.strip()]
        raise SlurmError(
            f"Slurm refused '{words[0]}': {lines[-1] if lines else how_ended(error.returncode)}"
        ) from error
    return done.stdout


def submit(options: Sequence[str], script: str) -> str:
    """Submit a job array; returns its id."""
    return call("sbatch", "--parsable", *options, script).strip().split(";")[0]


def queue() -> list[Task]:
    """All jobs of this user's arrays that wait or run."""
    rows = call("squeue", "--user", getpass.getuser(), "--array", "--noheader", "--format", "%j|%F|%K|%T")
    return parse_queue(rows)


def parse_queue(rows: str) -> list[Task]:
    """The tasks in squeue's rows ``name|array job|index|state``; jobs that are no array are left out."""
    found = []
    for row in rows.splitlines():
        name, job, index, state = row.strip().rsplit("|", 3)
        if index.isdigit():
            found.append(Task(name, job, int(index), state))
    return found


def largest_array() -> int:
    """How many jobs an array may have."""
    try:
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"))
    except SlurmError:
        return USUAL_ARRAY
    return int(found[1]) if found else USUAL_ARRAY


def end_state(task: Task) -> str:
    """How a job that has left the queue ended, in Slurm's words (COMPLETED, CANCELLED, TIMEOUT, ...); empty if unknown.

    Slurm's controller remembers it for some minutes, its accounting, where there is one, for ever.
    """
    try:
        found = re.search(r"JobState=(\w+)", call("scontrol", "--oneliner", "show", "job", task.id))
        if found:
            return found[1]
    except SlurmError:
        pass
    try:
        rows = call("sacct", "--allocations", "--noheader", "--parsable2", "--format", "State", "--jobs", task.id)
    except SlurmError:
        return ""
    return rows.split()[0] if rows.split() else ""


def why(state: str, code: int | None, tail: Sequence[str], minutes: int) -> str:
    """Why a job ended before its run did, in words.

    Args:
        state: of :func:`end_state`.
        code: exit code of its processes, where the job's script could still write it.
        tail: the last lines of its log.
        minutes: its time limit.
    """
    if state == "CANCELLED":
        ended = "was cancelled"
    elif state == "TIMEOUT":
        ended = f"was ended by its time limit of {minutes} min; give it more with launcher.hours"
    elif state == "OUT_OF_MEMORY":
        ended = "was out of memory; give it more with launcher.memory_gb"
    elif code is not None and code != 0:
        hint = ", perhaps for want of memory (launcher.memory_gb)" if code == 137 else ""
        ended = f"ended by {how_ended(code)}{hint}"
    else:
        ended = f"ended as {state}" if state else "left the queue"
    return f"{ended}; last lines: {' | '.join(tail)}" if tail else ended
