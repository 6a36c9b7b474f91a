"""Exact resume: real processes, really killed, end with the weights and the log of one that never was."""

import signal

import pytest
import torch
from tiny_training import (
    Batches,
    ddp_worker,
    free_port,
    live,
    logged,
    resumed,
    start,
    state_hash,
    tiny_method,
    tiny_run,
)

from scd.errors import UsageError
from scd.training.checkpoint import list_checkpoints, load_checkpoint

KILLS = [
    ("step", 0),  # before the first step
    ("half written", 1),  # in the very first checkpoint
    ("step", 7),  # in the middle of a log window
    ("before rename", 10),
    ("half written", 12),  # after a log line that no checkpoint knows of
    ("after rename", 15),  # before old checkpoints are removed
    ("step", 16),
    ("half written", 20),
    ("step", 23),
    ("before rename", 24),  # in the last checkpoint
]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_killed_at_ten_points_equals_never_killed(tmp_path, optimizer):
    options = {"name": optimizer, "lr": 0.01, "weight_decay": 1e-4, "exclude_bias_norm": True}
    code, calm = live(tmp_path / "calm", tmp_path, optimizer=options)
    assert code == 0 and not resumed(tmp_path / "calm")
    starts = []
    for kill in KILLS:
        code, _ = live(tmp_path / "killed", tmp_path, kill, optimizer=options)
        assert code == -signal.SIGKILL, kill
        newest = list_checkpoints(tmp_path / "killed" / "checkpoints")
        starts.append(newest[0][0] if newest else None)
    assert starts == [None, None, 7, 9, 11, 15, 16, 19, 23, 23]
    code, survivor = live(tmp_path / "killed", tmp_path, optimizer=options)
    assert code == 0 and resumed(tmp_path / "killed")[-1] == 23
    assert survivor["hash"] == calm["hash"]
    assert survivor["losses"] == calm["losses"]
    assert logged(tmp_path / "killed") == logged(tmp_path / "calm")
    assert [line["step"] for line in logged(tmp_path / "calm")] == [4, 8, 12, 16, 20, 24]
    assert not list((tmp_path / "killed" / "checkpoints").glob("*.corrupt"))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip])
def test_corrupt_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, damage):
    method, _ = tiny_run(tmp_path / "calm")
    tiny_run(tmp_path / "run")
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[0][1]
    damage(newest)
    again, _ = tiny_run(tmp_path / "run")
    assert resumed(tmp_path / "run") == [23]
    note = (tmp_path / "run" / "training.log").read_text()
    assert f"set aside as {newest.name}.corrupt" in note and "checksum" in note
    assert newest.with_name(newest.name + ".corrupt").exists()
    assert state_hash(again) == state_hash(method)
    assert logged(tmp_path / "run") == logged(tmp_path / "calm")


def test_all_checkpoints_corrupt_starts_again_and_says_so(tmp_path):
    method, _ = tiny_run(tmp_path)
    for _, path in list_checkpoints(tmp_path / "checkpoints"):
        flip(path)
    again, _ = tiny_run(tmp_path)
    assert not resumed(tmp_path)
    assert "starting again from step 0" in (tmp_path / "training.log").read_text()
    assert state_hash(again) == state_hash(method)
    assert len(logged(tmp_path)) == 6


def test_finished_run_is_not_trained_again(tmp_path):
    method, summary = tiny_run(tmp_path)
    again, second = tiny_run(tmp_path, batches=Batches(before=lambda step: pytest.fail("trained again")))
    assert state_hash(again) == state_hash(method)
    assert second == summary and resumed(tmp_path) == [24]


def test_checkpoint_of_another_run_is_refused(tmp_path):
    tiny_run(tmp_path)
    with pytest.raises(UsageError, match="is of a run with seed=3, not 4: use another folder"):
        tiny_run(tmp_path, seed=4)
    with pytest.raises(UsageError, match="steps=24, not 30"):
        tiny_run(tmp_path, steps=30)
    with pytest.raises(UsageError, match="is of another method or optimiser"):
        tiny_run(tmp_path, method=tiny_method(norm=False))


def test_checkpoint_holds_plain_tensors_and_the_whole_method(tmp_path):
    method, _ = tiny_run(tmp_path)
    path = list_checkpoints(tmp_path / "checkpoints")[0][1]
    state = torch.load(path, weights_only=True)
    assert state["step"] == 24
    assert set(state["method"]) == set(method.state_dict()) and "queue" in state["method"]
    assert "backbone.1.running_mean" in state["method"]
    assert state["optimizer"]["state"][0]["momentum_buffer"].abs().sum() > 0
    assert load_checkpoint(path)["method"]["queue"].equal(method.queue)


def test_two_processes_equal_one_and_each_other(tmp_path):
    """BN-free method: the mean gradient over two halves is the gradient over the whole batch."""
    alone, summary = tiny_run(method=tiny_method(norm=False), steps=8)
    answers = run_pair(tmp_path / "pair", norm=False, run_dir=None)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(answers[0]["state"][name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert answers[0]["summary"]["losses"]["loss"] == pytest.approx(summary.losses["loss"], rel=1e-5)
    assert answers[0]["summary"]["losses"] == answers[1]["summary"]["losses"]


def test_two_processes_resume_exactly(tmp_path):
    """The 8-step run whose last checkpoint is lost goes on from step 4, on both processes."""
    calm = run_pair(tmp_path / "calm", norm=True, run_dir=tmp_path / "run")
    before = logged(tmp_path / "run")
    list_checkpoints(tmp_path / "run" / "checkpoints")[0][1].unlink()
    again = run_pair(tmp_path / "again", norm=True, run_dir=tmp_path / "run")
    assert resumed(tmp_path / "run") == [4]
    for name, value in calm[0]["state"].items():
        assert again[0]["state"][name].equal(value), name
    assert logged(tmp_path / "run") == before


def run_pair(answer, norm, run_dir):
    """Both processes' answers after eight steps; their trained weights are equal to the last bit."""
    port = free_port()
    pair = [start(ddp_worker, rank, port, str(answer), norm, run_dir and str(run_dir), 8) for rank in (0, 1)]
    for process in pair:
        process.join(300)
    assert [process.exitcode for process in pair] == [0, 0]
    answers = [torch.load(f"{answer}.{rank}", weights_only=True) for rank in (0, 1)]
    trained = [name for name in answers[0]["state"] if "running" not in name and name != "queue"]
    for name in trained:
        if not name.startswith("target_") or not norm:
            assert answers[0]["state"][name].equal(answers[1]["state"][name]), name
    return answers
