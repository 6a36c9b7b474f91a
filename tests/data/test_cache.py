"""The cache: complete folders only, one process fills, hashes of contents."""

import multiprocessing
import os

import pytest

from scd.data.cache import cache_dir, cached_folder, content_hash, file_hash
from scd.data.images import load_images
from scd.data.sources.shapes import Shapes
from scd.errors import UsageError


def fill(queue, barrier):
    barrier.wait()
    source = Shapes(train=60, test=20, size=24)
    queue.put((source.fingerprint, int(load_images(source, "train", 24).images.sum())))


def test_two_processes_fill_the_cache_at_once(monkeypatch, tmp_path):
    """Both get the same images, and each folder is there once and complete."""
    monkeypatch.setenv("SCD_CACHE", str(tmp_path))
    context = multiprocessing.get_context("fork")
    queue, barrier = context.Queue(), context.Barrier(2)
    runs = [context.Process(target=fill, args=(queue, barrier)) for _ in range(2)]
    for run in runs:
        run.start()
    results = [queue.get(timeout=120) for _ in runs]
    for run in runs:
        run.join()
    assert results[0] == results[1]
    for kind, folders in (("shapes", 2), ("images", 1)):
        assert len([entry for entry in (tmp_path / kind).iterdir() if entry.is_dir()]) == folders


def test_a_folder_is_filled_once_and_never_half(monkeypatch, tmp_path):
    monkeypatch.setenv("SCD_CACHE", str(tmp_path))
    calls = []

    def write(folder):
        calls.append(folder)
        (folder / "a").write_text("x")
        if len(calls) == 1:
            raise ValueError("interrupted")

    with pytest.raises(ValueError, match="interrupted"):
        cached_folder("kind", "key", write)
    assert [entry.name for entry in (tmp_path / "kind").iterdir()] in ([], ["key.lock"])
    assert (cached_folder("kind", "key", write) / "a").read_text() == "x"
    cached_folder("kind", "key", write)
    assert len(calls) == 2 and cache_dir() == tmp_path


def test_an_unwritable_cache_says_so(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot write the cache .* set SCD_CACHE to another folder"):
        Shapes(train=10, test=10, size=16)


def test_file_hashes_follow_the_content(monkeypatch, tmp_path):
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # SHA-256 of "abc", FIPS 180-2
    assert file_hash(file) == file_hash(file) == known
    file.write_bytes(b"abd")
    os.utime(file, ns=(1, 1))
    assert file_hash(file) != known


def test_content_hashes_depend_on_values_and_not_on_the_order_of_keys():
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1}) != content_hash({"a": 1, "b": [3]})
    assert len(content_hash("x")) == 24
