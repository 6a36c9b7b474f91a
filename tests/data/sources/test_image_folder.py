"""Folders of images, with splits or split here; what is missing is named."""

import pytest
from PIL import Image

from scd.data.images import load_images
from scd.data.sources.image_folder import ImageFolder
from scd.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path):
    """A class folder set with train/ and test/: 2 classes, 6 + 4 images."""
    for split, count in (("train", 3), ("test", 2)):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (30, 20), (100 * number, i, 0)).save(tmp_path / "pets" / split / name / f"{i}.png")
    return tmp_path / "pets"


def test_splits_and_classes_are_folders(folder):
    source = ImageFolder(str(folder))
    assert source.name == "pets" and source.class_names == ("cat", "dog")
    assert source.splits["train"]["label"][:] == [0, 0, 0, 1, 1, 1] and len(source.splits["test"]) == 4
    assert ImageFolder(folder).fingerprints == source.fingerprints
    images = load_images(source, "test", 16)
    assert images.images.shape == (4, 3, 16, 16) and images.images[3, :, 8, 8].tolist() == [100, 1, 0]
    (folder / "test").rename(folder / "val")
    assert set(ImageFolder(folder).splits) == {"train", "validation"}


def test_the_training_split_does_not_depend_on_the_test_split(folder):
    before = ImageFolder(folder)
    (folder / "test" / "ape").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "test" / "ape" / "0.png")
    after = ImageFolder(folder)
    assert after.class_names == ("cat", "dog", "ape")  # training classes keep their numbers
    assert after.fingerprints["train"] == before.fingerprints["train"]
    assert after.fingerprints["test"] != before.fingerprints["test"]
    assert sorted(after.split("test")["label"][:]) == [0, 0, 1, 1, 2]


def test_one_folder_is_split_the_same_way_every_time(folder):
    source = ImageFolder(folder / "train", test_fraction=0.34)
    assert {split: len(d) for split, d in source.splits.items()} == {"train": 4, "test": 2}
    assert sorted(source.splits["test"]["label"][:]) == [0, 1]  # class by class
    assert ImageFolder(folder / "train", test_fraction=0.34).fingerprints == source.fingerprints
    loose = ImageFolder(folder / "train" / "cat")
    assert loose.class_names is None and "label" not in loose.splits["train"].column_names


def test_bad_folders_say_so(tmp_path, folder):
    with pytest.raises(DataError, match="no such folder: '/nowhere/images'"):
        ImageFolder("/nowhere/images")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no images and no train.parquet in"):
        ImageFolder(tmp_path / "nothing")
    (folder / "val").mkdir()
    with pytest.raises(DataError, match=r"no images in '.*val'"):
        ImageFolder(folder)
    with pytest.raises(UsageError, match="test_fraction is 1.0, it must lie strictly between 0 and 1"):
        ImageFolder(folder, test_fraction=1)
    with pytest.raises(DataError, match=r"too few images \(3\) for a test split of 0.1"):
        ImageFolder(folder / "train" / "cat", test_fraction=0.1)


def test_bad_files_are_named(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(5):
        (tmp_path / "a" / f"{i}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"row 0 \(.*\.png\): the image cannot be decoded"):
        load_images(ImageFolder(tmp_path), "train", 8)
