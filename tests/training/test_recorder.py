"""What a run records: log lines, snapshots at shares of the training, checkpoints; also after an interruption."""

import json
from itertools import count

import pytest
import torch
from tiny_training import Batches, live, logged, resumed, state_hash, ticking, tiny_method, tiny_run

from scd.errors import UsageError
from scd.training import recorder
from scd.training.checkpoint import list_checkpoints
from scd.training.schedules import Schedule
from scd.training.state import NonFiniteLoss, Stopped

SHARES = (0.0, 0.3, 0.5, 1.0)  # after 0, 7, 12 and 24 of 24 steps


class Snapshots:
    """Keeps every call, and what the method was at that moment."""

    def __init__(self):
        self.calls, self.tensors = [], {}

    def __call__(self, step, share, tensors):
        self.calls.append((step, share))
        self.tensors[share] = {name: value.clone() for name, value in tensors.items()}


def test_log_lines(tmp_path):
    tiny_run(tmp_path, log_every=10)
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 24]
    assert list(lines[0]) == ["step", "epoch", "lr", "momentum", "loss", "pull", "images_per_second"]
    assert [line["epoch"] for line in lines] == [2.5, 5.0, 6.0]
    assert lines[0]["lr"] == 0.05 * Schedule(warmup_epochs=1, per="epoch").factor(9, 24, 4)
    assert lines[-1]["momentum"] == 1.0
    assert min(line["images_per_second"] for line in lines) > 0


def test_checkpoints_follow_the_clock_and_one_is_always_written_at_the_end(tmp_path, monkeypatch):
    clock = count()
    monkeypatch.setattr(recorder, "monotonic", lambda: next(clock))
    tiny_run(tmp_path / "often", checkpoint_seconds=9)
    steps = [step for step, _ in list_checkpoints(tmp_path / "often" / "checkpoints")]
    assert steps[0] == 24 and 4 < steps[0] - steps[1] < 12
    tiny_run(tmp_path / "never", checkpoint_seconds=1e9)
    assert [step for step, _ in list_checkpoints(tmp_path / "never" / "checkpoints")] == [24]


def test_a_run_that_is_told_to_stop_saves_this_step_and_goes_on_from_it_later(tmp_path):
    """With checkpoints that are not due for long; one process asks after each step."""
    calm, _ = tiny_run(tmp_path / "calm", checkpoint_seconds=1e9)
    asked = []
    with pytest.raises(Stopped, match="stopped after step 9"):
        tiny_run(tmp_path / "run", checkpoint_seconds=1e9, stop=lambda: asked.append(1) or len(asked) == 9)
    assert [step for step, _ in list_checkpoints(tmp_path / "run" / "checkpoints")] == [9]
    method, _ = tiny_run(tmp_path / "run", checkpoint_seconds=1e9, stop=lambda: False)
    assert resumed(tmp_path / "run") == [9]
    assert state_hash(method) == state_hash(calm) and logged(tmp_path / "run") == logged(tmp_path / "calm")


def test_a_run_that_is_at_its_end_is_not_asked_to_stop():
    asked = []
    _, summary = tiny_run(stop=lambda: asked.append(1))
    assert summary.steps == 24 and len(asked) == 23


def test_snapshots_are_taken_at_their_steps_and_change_nothing():
    plain, _ = tiny_run()

    class Drawing(Snapshots):
        def __call__(self, *call):
            super().__call__(*call)
            torch.rand(100)  # even one that draws: every step is seeded anew

    saved = Drawing()
    method, _ = tiny_run(snapshots=SHARES, save_snapshot=saved)
    assert saved.calls == [(0, 0.0), (7, 0.3), (12, 0.5), (24, 1.0)]
    for name, value in plain.state_dict().items():
        assert method.state_dict()[name].equal(value)
    final, first = method.evaluated_state(), tiny_method().evaluated_state()
    assert set(saved.tensors[1.0]) == set(final) and not any("target" in name for name in final)
    assert all(saved.tensors[1.0][name].equal(value) for name, value in final.items())
    assert all(saved.tensors[0.0][name].equal(value) for name, value in first.items())


def test_several_shares_of_a_short_run_may_be_one_step():
    saved = Snapshots()
    tiny_run(steps=2, schedule={}, snapshots=SHARES, save_snapshot=saved)
    assert saved.calls == [(0, 0.0), (1, 0.3), (1, 0.5), (2, 1.0)]


@pytest.mark.parametrize("kill", [("step", 5), ("half written", 7), ("after rename", 7), ("step", 8), ("step", 23)])
def test_a_run_that_is_killed_leaves_the_same_snapshots(tmp_path, kill):
    """Killed before a snapshot, between a snapshot and its checkpoint, and after both."""
    for name, point in (("calm", None), ("killed", kill)):
        live(tmp_path / name, tmp_path, point, snapshots=SHARES)
    live(tmp_path / "killed", tmp_path, snapshots=SHARES)
    files = [sorted(path.name for path in (tmp_path / name / "snapshots").iterdir()) for name in ("calm", "killed")]
    assert files[0] == files[1] == ["0.0.pt", "0.3.pt", "0.5.pt", "1.0.pt"]
    for name in files[0]:
        calm, killed = (torch.load(tmp_path / run / "snapshots" / name) for run in ("calm", "killed"))
        assert all(killed[key].equal(value) for key, value in calm.items())


def test_a_run_in_seconds_has_a_snapshot_for_every_share_of_its_time(monkeypatch):
    """A step takes 1 s of 10; the step that begins when a share of the time is over has its snapshot."""
    saved = Snapshots()
    options = {"steps": None, "max_seconds": 10.0, "schedule": {}, "batches": ticking(monkeypatch, 1.0)}
    tiny_run(snapshots=(0.0, 0.25, 0.5, 1.0), save_snapshot=saved, **options)
    assert saved.calls == [(0, 0.0), (3, 0.25), (5, 0.5), (10, 1.0)]


def test_no_snapshot_is_taken_of_a_state_that_is_not_finite():
    saved = Snapshots()
    with pytest.raises(NonFiniteLoss):
        tiny_run(method=tiny_method(nan_weights_at=12), snapshots=SHARES, save_snapshot=saved, checkpoint_seconds=1e9)
    assert saved.calls == [(0, 0.0), (7, 0.3)]


def test_shares_outside_the_training_are_refused():
    with pytest.raises(UsageError, match=r"a share of the training in \[0, 1\], not 25"):
        tiny_run(snapshots=(0, 25), save_snapshot=Snapshots())


def test_the_progress_of_a_finished_run_is_reported_again(tmp_path):
    tiny_run(tmp_path)
    calls, batches = [], Batches(before=lambda step: pytest.fail("trained again"))
    _, summary = tiny_run(tmp_path, batches=batches, progress=lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(24, 24)]
    assert logged(tmp_path)[-1]["step"] == summary.steps == 24
