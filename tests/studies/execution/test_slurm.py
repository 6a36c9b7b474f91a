"""The Slurm launcher: its options, and jobs through submitit's own executor in this process."""

import pytest

from studies.suite.execution import slurm
from studies.suite.execution.forecast import work
from studies.suite.execution.launcher import launch
from studies.suite.execution.store import Status, Store
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.resolve import resolve, unique
from studies.suite.planning.study import Arm

MOCO = Arm("moco", "MoCo", {}, "", "")
WORDS = ["tier=smoke", "sizes.generated_train=80", "sizes.generated_test=40", "evaluation.protocols=[knn]"]


def test_slurm_options():
    launcher = resolve_settings("multicrop", ["launcher=slurm", "launcher.partition=gpu"]).launcher
    options = slurm.options(launcher, devices=8, cluster="slurm")
    assert (options["nodes"], options["tasks_per_node"], options["gpus_per_node"]) == (1, 8, 8)
    assert options["slurm_partition"] == "gpu" and "slurm_account" not in options
    assert slurm.options({**launcher, "nodes": 2}, 8, "slurm")["tasks_per_node"] == 4
    assert not [key for key in slurm.options(launcher, 1, "local") if key.startswith("slurm")]


def test_jobs_go_through_submitit(tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed: pip install -e '.[slurm]'")
    launcher = {**resolve_settings("multicrop", ["launcher=slurm"]).launcher, "cluster": "debug", "gpus": False}
    settings = resolve_settings("multicrop", WORDS)
    runs = unique(resolve([settings.spec(MOCO, 0, "none")], check=False))
    store, wanted = Store(tmp_path), {name: item.spec for name, item in runs.items()}
    result = launch(wanted, work(runs), store, launcher)
    assert (result.done, result.failed) == (1, {})
    assert all(store.status(spec) is Status.DONE for spec in wanted.values())
