"""What Slurm's answers mean."""

import pytest

from studies.suite.execution.slurm_queue import SlurmError, Task, call, end_state, parse_queue, why


def test_the_queue_has_one_row_a_job_of_an_array():
    rows = "scd-0a|12|0|RUNNING\nscd-0a|12|1|PENDING\nother|13|N/A|RUNNING\nwith|bar|14|2|COMPLETING\n"
    assert parse_queue(rows) == [
        Task("scd-0a", "12", 0, "RUNNING"), Task("scd-0a", "12", 1, "PENDING"), Task("with|bar", "14", 2, "COMPLETING"),
    ]  # fmt: skip
    assert parse_queue(rows)[1].id == "12_1"


@pytest.mark.parametrize(
    ("state", "code", "tail", "words"),
    [
        ("FAILED", 137, ["srun: error: task 0: Killed"],
         "ended by signal 9 (SIGKILL), perhaps for want of memory (launcher.memory_gb); "
         "last lines: srun: error: task 0: Killed"),
        ("FAILED", 1, ["Traceback", "ValueError: x"], "ended by exit code 1; last lines: Traceback | ValueError: x"),
        ("CANCELLED", None, [], "was cancelled"),
        ("TIMEOUT", None, [], "was ended by its time limit of 3 min; give it more with launcher.hours"),
        ("OUT_OF_MEMORY", 137, [], "was out of memory; give it more with launcher.memory_gb"),
        ("NODE_FAIL", None, [], "ended as NODE_FAIL"),
        ("", None, [], "left the queue"),
    ],
)  # fmt: skip
def test_the_reason_of_a_job(state, code, tail, words):
    assert why(state, code, tail, minutes=3) == words


def test_a_command_that_fails_is_one_line():
    with pytest.raises(SlurmError, match="Slurm refused 'sh': second"):
        call("sh", "-c", "echo first >&2; echo second >&2; exit 3")
    with pytest.raises(SlurmError, match="Slurm refused 'sh': exit code 3"):
        call("sh", "-c", "exit 3")


def test_the_variables_of_the_job_that_submits_are_left_out(monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    assert call("sh", "-c", "echo $SLURM_CONF $SLURM_MEM_PER_CPU").strip() == "/etc/slurm.conf"


def test_without_controller_and_accounting_the_end_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert end_state(Task("scd-0a", "12", 0)) == ""
