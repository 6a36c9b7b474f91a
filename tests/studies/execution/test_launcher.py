"""How many devices a launcher can serve, and how many runs it executes at once."""

import pytest

from scd.errors import UsageError
from studies.suite.execution.launcher import at_once, check_devices
from studies.suite.execution.ranks import Team
from studies.suite.planning.study import RunSpec

MEASUREMENT = RunSpec({"measurement": {}}, {}, kind="measurement")


def run_on(devices):
    return RunSpec({"training": {"devices": devices, "accelerator": "cpu"}}, {})


@pytest.mark.parametrize(
    ("devices", "launcher", "message"),
    [
        (0, {"name": "local"}, "training.devices=0: give a whole number, 1 or more"),
        (True, {"name": "local"}, "training.devices=True: give a whole number"),
        (1.5, {"name": "local"}, "training.devices=1.5: give a whole number"),
        (3, {"name": "slurm", "nodes": 2}, "training.devices=3 cannot be split over launcher.nodes=2"),
    ],
)
def test_an_impossible_number_of_devices_is_one_line(devices, launcher, message):
    with pytest.raises(UsageError, match=message):
        check_devices([run_on(devices)], launcher)


def test_torchrun_must_start_as_many_processes_as_there_are_devices():
    team = Team(None, 0, 2, 0)
    check_devices([run_on(2)], {"name": "local"}, team)
    with pytest.raises(UsageError, match="torchrun started 2 processes, but training.devices=4: give training.devices"):
        check_devices([run_on(4)], {"name": "local"}, team)
    with pytest.raises(UsageError, match="torchrun started 2 processes, but a measurement runs in one process"):
        check_devices([MEASUREMENT], {"name": "local"}, team)
    with pytest.raises(UsageError, match="launcher=slurm starts the processes of a run itself: leave torchrun out"):
        check_devices([run_on(2)], {"name": "slurm", "nodes": 1}, team)


def test_runs_at_once():
    local = {"name": "local", "workers": 3, "threads": 1}
    assert at_once({"a": run_on(1)}, local) == 3
    assert at_once({}, {**local, "workers": "auto"}) == 1
    assert at_once({"a": run_on(1)}, {"name": "slurm", "at_once": 5}) == 5
