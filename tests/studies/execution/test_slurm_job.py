"""A job whose time is over: whether it goes back into the queue."""

import json

import pytest

from studies.suite.execution.run import Ending
from studies.suite.execution.slurm_batch import Batch
from studies.suite.execution.slurm_job import STOPPED, Job
from studies.suite.execution.store import Status, Store
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.study import Arm

MOCO = Arm("moco", "MoCo", {}, "", "")


@pytest.fixture
def job(tmp_path):
    """A job of one run that is in the middle of its training."""
    settings = resolve_settings("multicrop", ["tier=smoke", "launcher=slurm", "launcher.hours=0.01"])
    spec = settings.spec(MOCO, 0)
    store = Store(tmp_path)
    with store.pretraining.claim(spec.id) as folder:
        store.pretraining.begin(spec.id, spec.config)
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "step-00000010-0123456789abcdef.pt").touch()
    return Job(Batch.write(tmp_path, settings.launcher, [{"run": spec}]), 0)


def test_it_is_queued_again_if_it_made_progress(job):
    (spec,) = job.runs.values()
    (job.store.folder(spec) / "checkpoints" / "step-00000020-0123456789abcdef.pt").touch()
    job.requeues = True
    assert job.stopped() == STOPPED
    assert (job.batch.folder / "0.requeue").exists()
    assert job.store.status(spec) is Status.INTERRUPTED and job.batch.outcome("run") is None


def test_a_finished_part_is_progress(job):
    (spec,) = job.runs.values()
    evaluation = next(iter(spec.evaluations))
    with job.store.evaluations.claim(evaluation):
        job.store.evaluations.finish(evaluation, {"numbers": {}}, {})
    job.requeues = True
    assert job.stopped() == STOPPED and (job.batch.folder / "0.requeue").exists()


def test_without_progress_its_run_fails_with_the_reason(job):
    (spec,) = job.runs.values()
    job.requeues = True
    assert job.stopped() == 1
    assert not (job.batch.folder / "0.requeue").exists()
    reason = "its time limit of 1 min was over before anything was saved: give it more with launcher.hours"
    assert json.loads((job.store.folder(spec) / "failure.json").read_text())["reason"] == reason
    assert job.batch.outcome("run").ending is Ending.FAILED


def test_a_job_that_is_cancelled_or_preempted_leaves_the_queue_to_slurm(job):
    assert job.stopped() == STOPPED
    assert not (job.batch.folder / "0.requeue").exists() and job.batch.outcome("run") is None
