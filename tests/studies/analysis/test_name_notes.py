"""What is noted of the names of image files: versions of one image, series, lists of splits, and contradictions."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as PillowImage

from scd.data.sources.columns import read_columns
from scd.data.sources.image_folder import ImageFolder
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.image_notes import notes_on_images
from studies.suite.analysis.name_notes import notes_on_names, original_of

VERSIONS = "By their names, {} of the {} scored images are changed versions of a training image"


def write(folder: Path, names: list[str]) -> None:
    """An image of noise for each name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = zlib.crc32(name.encode())
        PillowImage.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


def of_folder(folder: Path) -> EvaluationData:
    return EvaluationData(ImageFolder(folder), 8)


def of_rows(train: dict[str, list], test: dict[str, list]) -> EvaluationData:
    """Rows whose columns ``image`` and ``mask`` hold names, and ``label`` text."""
    splits = {}
    for split, columns in (("train", train), ("test", test)):
        cells: dict[str, list] = {}
        for column, values in columns.items():
            low = 100 * (split == "test")
            mask = np.eye(8, dtype=np.uint8) * 255
            cells[column] = values
            if column != "label":
                pixels = [
                    np.random.default_rng(low + row).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                    if column == "image"
                    else np.roll(mask, row, axis=1)
                    for row in range(len(values))
                ]
                cells[column] = [{**encode_png(one), "path": name} for one, name in zip(pixels, values, strict=True)]
        types = {column: Value("string") if column == "label" else Image() for column in columns}
        splits[split] = Dataset.from_dict(cells, features=Features(types))
    return EvaluationData(Source(**read_columns("mine", splits, {split: [split] for split in splits})), 8)


@pytest.mark.parametrize(
    ("stem", "original"),
    [
        ("a_flip", "a"),
        ("a-hflip", "a"),
        ("IMG0_90deg", "IMG0"),
        ("RS_Rust 3655_new30degFlipLR", "RS_Rust 3655"),
        ("a_rotated_90", "a"),
        ("a_aug_2_bright", "a"),
        ("a - Copy (2)", "a"),
        ("cat1_jpg.rf.0123456789abcdef0123456789abcdef", "cat1_jpg"),
        ("dog_original_7.jpg_4a1b2c3d-1234-1234-1234-123456789abc", "7.jpg"),
    ],
)
def test_names_of_changed_versions(stem, original):
    assert original_of(stem) == (original, True)


@pytest.mark.parametrize(
    "stem", ["a", "frame_0012", "airplane_004", "n014_copyright", "noise_001", "flip_3", "brightfield_12", "10_left"]
)
def test_other_names_are_their_own(stem):
    assert original_of(stem) == (stem, False)


def test_changed_versions_of_training_images_are_noted(tmp_path):
    """Turned and brighter copies are no near copies by their pixels: nothing was said of them."""
    write(tmp_path, [f"{split}/{kind}/{k}.png" for split in ("train", "test") for kind in "ab" for k in range(4)])
    write(tmp_path, ["test/a/1_rot90.png"])  # of the test image 1.png, not of the training image of that name
    assert notes_on_images(of_folder(tmp_path)) == []
    write(
        tmp_path, ["train/a/7.png", "test/a/7_rot90.png", "train/b/8_flip.png", "test/b/8.png", "test/b/8_bright.png"]
    )
    (note,) = notes_on_images(of_folder(tmp_path))
    assert note.startswith(VERSIONS.format(3, 12)) and "'7_rot90.png' and '7.png'" in note


def test_versions_of_an_image_whose_original_is_nowhere_are_noted(tmp_path):
    """Roboflow's export of one folder: all files are versions."""
    write(tmp_path, [f"{kind}/{k}_jpg.rf.{10**31 + i}.png" for kind in "ab" for k in range(5) for i in range(4)])
    (note,) = notes_on_images(of_folder(tmp_path))
    assert note.startswith(VERSIONS.format(8, 8))


def test_changed_versions_inside_a_split_are_none_of_the_other(tmp_path):
    write(tmp_path, [f"train/{kind}/{k}{end}.png" for kind in "ab" for k in range(4) for end in ("", "_flip")])
    write(tmp_path, [f"test/{kind}/{k}{end}.png" for kind in "ab" for k in range(4, 8) for end in ("", "_flip")])
    assert notes_on_names(of_folder(tmp_path)) == []


def test_a_word_that_most_names_share_is_no_change(tmp_path):
    write(tmp_path, [f"{split}/{kind}/leaf_dark{k:02d}.png" for split in ("train", "test") for kind in "ab"
                     for k in range(30)])  # fmt: skip
    assert notes_on_names(of_folder(tmp_path)) == []


def test_series_that_are_torn_apart_are_noted(tmp_path):
    names = [f"{kind}/video{video}_frame{frame:03d}.png" for kind in "ab" for video in range(3) for frame in range(5)]
    write(tmp_path / "frames", names)
    (note,) = notes_on_images(of_folder(tmp_path / "frames"))
    assert note.startswith(
        "The images are named in 6 series (such as 'video0...', 5 images), which the split by a hash"
    )
    write(tmp_path / "split", [f"{split}/{name}" for split in ("train", "test") for name in names])
    (note,) = notes_on_images(of_folder(tmp_path / "split"))
    assert note.startswith("By their names, 30 of the 30 scored images belong to series of training images (such as 'v")
    apart = [f"{'test' if 'video2' in name else 'train'}/{name}" for name in names]
    write(tmp_path / "apart", apart)
    assert notes_on_images(of_folder(tmp_path / "apart")) == []
    write(tmp_path / "plain", [f"{split}/{kind}/{kind}_{k}.png" for split in ("train", "test") for kind in "abc"
                               for k in range(5)])  # fmt: skip
    assert notes_on_images(of_folder(tmp_path / "plain")) == []
    write(tmp_path / "numbered", [f"{kind}/{kind}_{k}.png" for kind in "abc" for k in range(10)])
    assert notes_on_images(of_folder(tmp_path / "numbered")) == []


@pytest.mark.parametrize(
    ("root", "lists", "noted"),
    [
        ("", ["train_test_split.txt"], True),
        ("", ["list_eval_partition.csv", "setid.mat"], True),
        ("images", ["meta/train.txt", "meta/test.txt"], True),
        ("images", ["trainval.txt"], True),
        ("", ["README.txt", "classes.txt", "training.py"], False),
        ("birds", ["train.txt"], False),  # beside a folder that may be one of many
    ],
)
def test_lists_of_splits_are_noted(tmp_path, root, lists, noted):
    write(tmp_path / root, [f"{kind}/{k}.png" for kind in "ab" for k in range(8)])
    for name in lists:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a/0.png\n")
    found = [note for note in notes_on_images(of_folder(tmp_path / root)) if "may list the images of splits" in note]
    assert len(found) == noted
    if noted:
        assert f"are not read ({len(lists)}): " in found[0]


def test_lists_beside_folders_of_splits_need_no_note(tmp_path):
    write(tmp_path, [f"{split}/{kind}/{k}.png" for split in ("train", "test") for kind in "ab" for k in range(4)])
    (tmp_path / "train.txt").write_text("a/0.png\n")
    assert not any("may list" in note for note in notes_on_images(of_folder(tmp_path)))


@pytest.mark.parametrize(
    ("numbers", "noted"),
    [(range(6), None), ([1, 2, 3, 4, 5, 0], 6), ([0, 1, 2, 3, 5, 4], None), (range(100, 106), None)],
)
def test_masks_that_are_named_after_other_images_are_noted(numbers, noted):
    """Two lists that were sorted differently: 1, 10, 2 and 1, 2, 10."""
    rows = {"image": [f"img_{k}.jpg" for k in range(6)], "mask": [f"img_{k}_mask.png" for k in numbers]}
    found = [note for note in notes_on_images(of_rows(rows, rows)) if note.startswith("By their names")]
    assert len(found) == (2 if noted else 0)
    if noted:
        assert found[0].startswith(f"By their names, {noted} of 6 training masks belong to another image, such as")
        assert "'img_1_mask.png' in the row of 'img_0.jpg'" in found[0]


def labelled(cat: str, dog: str, first: int) -> dict[str, list]:
    paths = [f"{folder}/{first + k}.png" for folder in ("cat", "dog") for k in range(4)]
    return {"image": paths, "label": [cat] * 4 + [dog] * 4}


@pytest.mark.parametrize(
    ("train", "test", "text"),
    [
        (("cat", "dog"), ("cat", "dog"), None),
        (("0", "1"), ("0", "1"), None),
        (("feline", "canine"), ("feline", "canine"), None),
        (("0", "1"), ("1", "0"), "folders called 'cat' have the label '0' in the training split and '1' in the test"),
        (("cat", "dog"), ("dog", "cat"), "The test images in the folder 'cat' have the label 'dog', although there is"),
    ],
)
def test_labels_that_the_folders_contradict_are_noted(train, test, text):
    """Each split numbered its folders in the order in which the system listed them."""
    notes = notes_on_names(of_rows(labelled(*train, 0), labelled(*test, 10)))
    assert len(notes) == (text is not None)
    if text:
        assert text in notes[0]


def test_images_without_labels_whose_names_hold_classes_are_noted(tmp_path):
    """Oxford's pets and Kaggle's dogs and cats: protocols that need labels were left out, and nothing said why."""
    write(tmp_path / "pets", [f"{kind}.{k}.png" for kind in ("cat", "dog") for k in range(6)])
    (note,) = notes_on_images(of_folder(tmp_path / "pets"))
    assert note.startswith("The images are named in 2 series (such as 'cat...', 6 images). If these are classes, put ")
    write(tmp_path / "photos", [f"IMG_{k}.png" for k in range(12)])
    assert notes_on_images(of_folder(tmp_path / "photos")) == []


def test_folders_that_hold_several_classes_say_nothing():
    """Folders of days or of cameras."""
    train, test = labelled("0", "1", 0), labelled("1", "0", 10)
    train["label"] = ["0", "0", "1", "1", "1", "1", "0", "0"]
    assert notes_on_names(of_rows(train, test)) == []
