"""A folder of the user's is opened as what it holds."""

import re
from pathlib import Path

import pytest

from scd.data.sources.image_folder import ImageFolder
from scd.data.sources.parquet import Parquet
from scd.data.sources.path import PathSource
from scd.errors import DataError, UsageError


@pytest.fixture
def parquet(tmp_path):
    folder = tmp_path / "birds"
    folder.mkdir()
    return folder, Parquet.example(folder)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "pets"
    folder.mkdir()
    return folder, ImageFolder.example(folder)


def test_parquet_files_come_first(parquet):
    folder, expected = parquet
    found = PathSource(folder)
    assert found.name == "birds" and found.fingerprints == expected.fingerprints  # the content, not the way to it
    assert (found.class_names, found.mask_kind) == (("dark", "light"), "binary")
    assert found.description == "parquet files of birds"
    assert PathSource(folder, foreground=[3], mask_kind="classes").foreground == (3,)
    with pytest.raises(DataError, match="'birds' has no column 'photo'"):
        PathSource(folder, columns={"image": "photo", "label": None})


def test_else_it_is_a_folder_of_images(images):
    folder, expected = images
    found = PathSource(str(folder), columns={"image": None, "label": None})
    assert found.name == "pets" and found.fingerprints == expected.fingerprints
    assert found.class_names == ("dark", "light") and found.mask_kind is None
    assert set(PathSource(folder / "train", test_fraction=0.5).splits) == {"train", "test"}


def test_a_relative_path_starts_at_the_working_directory(parquet, monkeypatch):
    folder, expected = parquet
    monkeypatch.chdir(folder.parent)
    assert PathSource("birds").fingerprints == expected.fingerprints


@pytest.mark.parametrize(
    ("train", "test", "split"),
    [
        ("Train.parquet", "testing.parquet", "test"),
        ("training.parquet", "val.parquet", "validation"),
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "test"),
    ],
)
def test_usual_names_of_parquet_files(parquet, train, test, split):
    folder, expected = parquet
    (folder / "data").mkdir()
    (folder / "train.parquet").rename(folder / train)
    (folder / "test.parquet").rename(folder / test)
    found = PathSource(folder)
    assert set(found.splits) == {"train", split} and found.fingerprints["train"] == expected.fingerprints["train"]
    assert found.notes == ()
    Path(folder / train).with_name("extra.parquet").write_bytes(b"")
    assert PathSource(folder).notes == ("Not read: parquet files of no split: extra.",)


def test_a_split_in_parts_has_all_of_them(parquet):
    """A split of which a part had not been fetched was read without a word."""
    folder, _ = parquet
    data = (folder / "train.parquet").read_bytes()
    (folder / "train.parquet").unlink()
    for number in (0, 2):
        (folder / f"train-{number:05d}-of-00003.parquet").write_bytes(data)
    text = f"train: '{folder}' lacks 1 of the 3 parts of this split (00001); fetch them, or rename the others"
    with pytest.raises(DataError, match=re.escape(text)):
        PathSource(folder)
    (folder / "train-00001-of-00003.parquet").write_bytes(data)
    rows = len(PathSource(folder).splits["train"])
    (folder / "train-00000-of-00003.parquet").rename(folder / "train-00003-of-00003.parquet")  # counted from 1
    assert len(PathSource(folder).splits["train"]) == rows
    (folder / "train.parquet").write_bytes(data)
    with pytest.raises(DataError, match="train: '.*' holds parts of several data sets; leave the files of one"):
        PathSource(folder)


def test_a_folder_of_data_beside_the_files_is_named(parquet):
    folder, _ = parquet
    (folder / "data").mkdir()
    (folder / "data" / "train-00000-of-00001.parquet").write_bytes((folder / "train.parquet").read_bytes())
    assert PathSource(folder).notes == ("Not read beside the parquet files: data.",)


def test_splits_in_two_forms_are_refused(parquet):
    """The folder was named in a note, and the study then said that there was nothing to score on."""
    folder, _ = parquet
    (folder / "test.parquet").unlink()
    (folder / "test" / "dark").mkdir(parents=True)
    with pytest.raises(
        DataError, match="holds parquet files of one split, train, and a folder 'test'; give all splits"
    ):
        PathSource(folder)


def test_folders_are_left_out(images):
    folder, expected = images
    (folder / "reports").mkdir()
    (folder / "train" / "dark" / "0.png").rename(folder / "reports" / "0.png")
    found = PathSource(folder, left_out=[folder / "reports"])
    assert len(found.splits["train"]) == len(expected.splits["train"]) - 1
    assert found.notes == ("Folders left out (1): 'reports'.",)


def test_changed_content_is_refused(parquet):
    folder, _ = parquet
    PathSource(folder, fingerprint=PathSource(folder).fingerprint)
    with pytest.raises(DataError, match="birds' has changed since the run was planned; give the command again"):
        PathSource(folder, fingerprint="another")


def test_what_is_wrong_is_said(parquet, images):
    (folder, _), (pets, _) = parquet, images
    with pytest.raises(DataError, match="no such folder: '/nowhere/images'"):
        PathSource("/nowhere/images")
    (pets / "notes.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"notes.npz' is a file; data=FOLDER takes a folder of images or of parquet"):
        PathSource(pets / "notes.npz")
    with pytest.raises(UsageError, match="is one parquet file; give data=parquet data.locations.train="):
        PathSource(folder / "train.parquet")
    with pytest.raises(UsageError, match="test_fraction splits a folder of images, but '.*birds' holds parquet files"):
        PathSource(folder, test_fraction=0.3)
    with pytest.raises(UsageError, match="mask_kind is an option of parquet files, but '.*pets' holds none"):
        PathSource(pets, mask_kind="binary")
