"""A file is complete, or it does not exist."""

import errno
import os

import pytest
from full_disk import FullDisk

from scd import atomic
from scd.atomic import DiskFull, is_disk_full, write_atomically, write_text


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, lambda file: file.write_text("old"))

    def half(file):
        file.write_text("ne")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, half)
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_writing_replaces_a_file_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "page.md"
    write_text(path, "old")
    monkeypatch.setattr(atomic.os, "fsync", FullDisk(after=0))
    with pytest.raises(DiskFull):
        write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["page.md"]


def test_a_full_disk_is_recognised_behind_other_errors():
    try:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError as error:
            raise RuntimeError("cannot save") from error
    except RuntimeError as outer:
        assert is_disk_full(outer)
    assert not is_disk_full(OSError(errno.EACCES, "denied"))
