"""The cache: complete folders only, one process fills, hashes of contents."""

import errno
import gc
import multiprocessing
import os

import pytest
from full_disk import FullDisk

from scd.atomic import DiskFull
from scd.data import images
from scd.data.cache import CONTENTS, cache_dir, cached_folder, cached_value, content_hash, file_hash, file_hashes
from scd.data.images import load_images
from scd.data.sources.image_folder import ImageFolder
from scd.data.sources.parquet import Parquet
from scd.data.sources.shapes import Shapes
from scd.data.sources.voc import Voc
from scd.errors import DataError, UsageError


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


# ---------------------------------------------------------------- what happens to caches


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def damage_remove(folder):
    (folder / "image.npy").unlink()


def damage_truncate(folder):
    os.truncate(folder / "image.npy", 500)


def damage_note(folder):
    (folder / CONTENTS).unlink()


def damage_note_content(folder):
    (folder / CONTENTS).write_text("[")


@pytest.mark.parametrize("damage", [damage_remove, damage_truncate, damage_note, damage_note_content])
def test_damaged_images_are_decoded_again(cache, damage):
    """F13: accuracies were absent, or there was a traceback."""
    source = Shapes(train=10, test=5, size=16)
    before = load_images(source, "test", 12).images.clone()
    (folder,) = (entry for entry in (cache / "images").iterdir() if entry.is_dir())
    damage(folder)
    images._read.cache_clear()
    assert (load_images(source, "test", 12).images == before).all()
    assert (folder / "image.npy").stat().st_size == before.numel() + 128 and (folder / CONTENTS).is_file()


def pixels(source):
    return [row["image"].tobytes() for row in source.split("train")]


def arrow_files(cache):
    return sorted(file for file in cache.rglob("*.arrow") if ".tmp" not in str(file))


@pytest.mark.parametrize("make", [lambda folder: Shapes(train=10, test=5, size=16), Parquet.example, Voc.example])
def test_damaged_data_sets_are_made_again(cache, tmp_path, make):
    """F13: load_from_disk and the parquet reader ended in tracebacks, or the parquet was blamed."""
    (tmp_path / "data").mkdir()
    source = make(tmp_path / "data")
    again = type(source)
    options = {
        Shapes: {"train": 10, "test": 5, "size": 16},
        Parquet: {split: tmp_path / "data" / f"{split}.parquet" for split in ("train", "test")},
        Voc: {"root": tmp_path / "data", "train": ["2007/trainval"], "test": ["2007/test"]},
    }[again]
    first = pixels(source)
    del source
    gc.collect()
    files = arrow_files(cache)
    assert files
    os.truncate(files[0], 100)
    if len(files) > 1:
        files[-1].unlink()
    assert pixels(again(**options)) == first


def test_damaged_notes_are_written_again(cache, tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    known = file_hash(file)
    (note,) = (cache / "hashes").iterdir()
    for content in ("", "{", "[]", '{"files": 3}', '{"files": {"a": [1]}}'):
        note.write_text(content)
        assert file_hash(file) == known
    assert cached_value("kind", "key", lambda: 3) == 3
    (cache / "kind" / "key.json").write_text("")
    assert cached_value("kind", "key", lambda: 4) == cached_value("kind", "key", lambda: 5) == 4


def test_a_file_of_equal_size_and_time_is_read_again(cache, tmp_path):
    """Archives set the time of modification; the time of change tells the files apart."""
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    os.utime(file, ns=(5, 5))
    before = file_hash(file)
    file.write_bytes(b"abd")
    os.utime(file, ns=(5, 5))
    assert file_hash(file) != before


def test_unchanged_files_are_not_read_again(cache, tmp_path, monkeypatch):
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_bytes(file.name.encode())
    before = file_hashes(files)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert file_hashes(files[::-1]) == before[::-1]


# ---------------------------------------------------------------- errors of the system


def unwritable(path):
    return f"cannot write the cache .*{path}.*; set SCD_CACHE to another folder"


@pytest.mark.parametrize(
    "make", [lambda folder: Shapes(train=10, test=10, size=16), Parquet.example, ImageFolder.example]
)
def test_an_unwritable_cache_is_blamed_and_not_the_data(monkeypatch, tmp_path, make):
    """F15: the parquet was blamed."""
    (tmp_path / "data").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match=unwritable("file/cache")) as caught:
        make(tmp_path / "data")
    assert not isinstance(caught.value, DataError)


def test_an_unwritable_home_is_blamed(monkeypatch, tmp_path):
    (tmp_path / "home").write_text("")
    monkeypatch.delenv("SCD_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(UsageError, match=unwritable("home/.cache/scd-suite")):
        Shapes(train=10, test=10, size=16)


def test_no_home_and_no_entry_in_the_password_file(monkeypatch):
    """F15: a RuntimeError."""

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SCD_CACHE")
    monkeypatch.setattr("pathlib.Path.home", no_home)
    with pytest.raises(UsageError, match="this user has no home folder for the cache; set SCD_CACHE to a folder"):
        Shapes(train=10, test=10, size=16)


def test_a_full_disk_says_so(cache):
    """F14: a bus error. The error is of the kind that stops a study without failing its runs."""

    def fill(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFull, match="no space is left for the cache .*kind; make room, or set SCD_CACHE to another"):
        cached_folder("kind", "key", fill)


def test_decoded_images_on_a_full_disk(cache, monkeypatch):
    source = Shapes(train=10, test=5, size=16)
    monkeypatch.setattr("os.fsync", FullDisk(0))
    with pytest.raises(DiskFull, match="no space is left for the cache .*images"):
        load_images(source, "train", 12)
    assert not [entry for entry in (cache / "images").iterdir() if entry.is_dir()]


def test_errors_of_the_data_do_not_blame_the_cache(cache, tmp_path):
    def missing(folder):
        (tmp_path / "gone.jpg").read_bytes()

    def broken(folder):
        raise OSError("image file is truncated")

    with pytest.raises(DataError, match="cannot read '.*gone.jpg': No such file or directory"):
        cached_folder("kind", "key", missing)
    with pytest.raises(DataError, match="a file cannot be read: image file is truncated"):
        cached_folder("kind", "key", broken)
    with pytest.raises(DataError, match="cannot read '.*gone.jpg': No such file or directory"):
        file_hash(tmp_path / "gone.jpg")
