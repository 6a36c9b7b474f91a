"""Checkpoint files are complete or absent, checked by the checksum in their name, and hold tensors and numbers only."""

import errno
import hashlib
import os

import pytest
import torch

from scd.training.checkpoint import (
    CorruptCheckpoint,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)


def state(step=1):
    weights = {"w": torch.arange(2000.0).view(2, 10, 10, 10).to(memory_format=torch.channels_last) + step}
    options = {"betas": (0.9, 0.999), "foreach": True, "none": None, "big": 2**62, "list": [1.5]}
    return {"step": step, "weights": weights, "options": options, "name": "x"}


def test_state_comes_back_with_values_types_and_layout(tmp_path):
    path = save_checkpoint(tmp_path, 7, state())
    back = load_checkpoint(path)
    assert back["options"] == state()["options"] and back["step"] == 1
    assert back["weights"]["w"].equal(state()["weights"]["w"])
    assert back["weights"]["w"].stride() == state()["weights"]["w"].stride()
    assert torch.load(path, weights_only=True)["name"] == "x"


def test_keeps_the_newest_two_and_nothing_unfinished(tmp_path):
    for step in (1, 5, 12):
        save_checkpoint(tmp_path, step, state(step))
    assert [step for step, _ in list_checkpoints(tmp_path)] == [12, 5]
    assert len(list(tmp_path.iterdir())) == 2


def test_same_step_again_is_another_file_and_the_later_one_is_the_newest(tmp_path):
    save_checkpoint(tmp_path, 5, state(5))
    later = save_checkpoint(tmp_path, 5, state(6))
    os.utime(later, ns=(later.stat().st_atime_ns, later.stat().st_mtime_ns + 10**9))
    assert newest_checkpoint(tmp_path, pytest.fail) == later


def test_empty_or_missing_folder_has_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path, pytest.fail) is None
    assert newest_checkpoint(tmp_path / "missing", pytest.fail) is None


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_every_truncation_is_detected(tmp_path, kept):
    path = save_checkpoint(tmp_path, 1, state())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptCheckpoint, match="does not match its checksum: truncated or altered"):
        load_checkpoint(path)


def test_every_flipped_bit_is_detected(tmp_path):
    path = save_checkpoint(tmp_path, 1, state())
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 40):
        data = bytearray(whole)
        data[place] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(CorruptCheckpoint):
            load_checkpoint(path)


def test_a_file_with_the_right_checksum_that_is_no_checkpoint_is_corrupt(tmp_path):
    data = b"not an archive"
    path = tmp_path / f"step-00000001-{hashlib.sha256(data).hexdigest()[:16]}.pt"
    path.write_bytes(data)
    with pytest.raises(CorruptCheckpoint, match="cannot be read"):
        load_checkpoint(path)


def test_corrupt_ones_are_set_aside_and_reported_newest_first(tmp_path):
    good = save_checkpoint(tmp_path, 1, state(1))
    bad = save_checkpoint(tmp_path, 2, state(2))
    bad.write_bytes(b"")
    told = []
    assert newest_checkpoint(tmp_path, told.append) == good
    assert len(told) == 1 and f"set aside as {bad.name}.corrupt" in told[0] and "(0 bytes)" in told[0]
    assert [path for _, path in list_checkpoints(tmp_path)] == [good]


def test_full_disk_leaves_the_older_checkpoint_and_no_other_file(tmp_path, monkeypatch):
    good = save_checkpoint(tmp_path, 1, state(1))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("scd.training.checkpoint.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 2, state(2))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [good]
    assert newest_checkpoint(tmp_path, pytest.fail) == good


def test_objects_other_than_tensors_and_numbers_do_not_load(tmp_path):
    path = save_checkpoint(tmp_path, 1, {"object": tmp_path})
    with pytest.raises(CorruptCheckpoint, match="cannot be read"):
        load_checkpoint(path)
