"""What is noted of the names of image files: versions of one image, series, and contradictions."""

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
from studies.suite.analysis.name_notes import notes_on_names, original_of, series_of

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
        ("cat1_jpg.rf.0123456789abcdef0123456789abcdef", "cat1"),
        ("cat1-PNG.rf.JT2rw2iVgQR60FmjGFe3", "cat1"),
        ("cat1.rf.0123456789abcdef", "cat1"),
        ("dog_original_7.jpg_4a1b2c3d-1234-1234-1234-123456789abc", "7.jpg"),
        ("a_crop", "a"),
        ("a_hue_2", "a"),
        ("a-affine", "a"),
        ("a_brightness", "a"),
        ("a_grayscale", "a"),
        ("a_horizontal_flip", "a"),
        ("a_flip_vertical", "a"),
        ("rot90_img1", "img1"),
        ("aug_3_img1", "img1"),
        ("hflip_zoom2_img1", "img1"),
        ("90deg-img1", "img1"),
        ("Copy of IMG_1", "IMG_1"),
        ("crop_img1_noise", "img1"),
    ],
)
def test_names_of_changed_versions(stem, original):
    assert original_of(stem) == (original, True)


@pytest.mark.parametrize(
    "stem",
    [
        "a", "frame_0012", "airplane_004", "n014_copyright", "noise_001", "flip_3", "brightfield_12", "10_left",
        "cropland_7", "a_macro", "shadow_3", "aug_12_3", "scalet",
    ],
)  # fmt: skip
def test_other_names_are_their_own(stem):
    assert original_of(stem) == (stem, False)


def test_a_number_behind_a_change_is_a_name_if_it_is_that_of_a_file():
    """Otherwise the word is the name of a class, or of a series."""
    assert original_of("rot90_12", {"12"}) == ("12", True)
    assert original_of("aug_2_12", {"12"}) == ("12", True)
    assert original_of("rot90_12", {"13"}) == ("rot90_12", False)
    assert original_of("aug_3_dog", {"3_dog"}) == ("3_dog", True)
    assert original_of("IMG_E1234", {"IMG_1234"}) == ("IMG_1234", True)  # edited on a phone
    assert original_of("IMG_E1234", {"IMG_E1235"}) == ("IMG_E1234", False)


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


@pytest.mark.parametrize(
    ("versions", "count"),
    [
        (("{}_crop", "{}_hue", "{}_affine", "{}"), 8),
        (("rot90_{}", "vflip_{}", "{}"), 6),
        (("aug_0_{}", "aug_1_{}"), 4),
    ],
)
def test_versions_that_any_tool_has_named_are_noted(tmp_path, versions, count):
    """Of words at the start of a name, and of most words of a change, nothing was said."""
    stems = [version.format(f"{kind}{k}x") for kind in ("cat", "dog") for k in range(5) for version in versions]
    write(tmp_path, [f"{stem.partition('dog')[1] or 'cat'}/{stem}.png" for stem in stems])
    (note,) = notes_on_names(of_folder(tmp_path))
    assert note.startswith(VERSIONS.format(count, count))


def test_a_change_that_all_images_have_is_none(tmp_path):
    """Splits that number their images for themselves, and one word in all names of a class."""
    write(tmp_path / "own", [f"{split}/{kind}/{k}_crop.png" for split in ("train", "test") for kind in "ab"
                             for k in range(6)])  # fmt: skip
    assert notes_on_names(of_folder(tmp_path / "own")) == []
    write(tmp_path / "few", [f"{kind}/leaf_gray{k}.png" for kind in "ab" for k in range(10)])
    assert notes_on_names(of_folder(tmp_path / "few")) == []


TORN = "The images are named in {} series (such as '{}...', {} images), which the split by a hash tears apart"


@pytest.mark.parametrize(
    ("name", "ends", "series", "first"),
    [
        ("{k}_{end}", ("left", "right"), 20, ("10", 2)),
        ("{k}{end}", ("L", "R"), 20, ("10", 2)),
        ("{kind}_{k:04d}_{end}_disaster", ("pre", "post"), 20, ("cat_0010", 2)),
        ("{word}_{end}", ("A", "B"), 20, ("ka", 2)),
        ("{k}_{end}", ("1", "2"), 20, ("10", 2)),
        ("patient{k}_slide3_{end}_class0", ("x100_y200", "x150_y200", "x150_y350"), 20, ("patient10_slide3", 3)),
        ("{k}_idx5_{end}_class1", [f"x{x}_y{2 * x}" for x in range(1, 10)], 20, ("10_idx5", 9)),
    ],
)
def test_series_whose_names_do_not_end_with_a_number_are_noted(tmp_path, name, ends, series, first):
    """Both eyes of a patient, and the tiles of a slide, lay on both sides of the split."""
    names = [
        f"{kind}/{name.format(kind=kind, k=10 + k, word=f'{chr(107 + number)}{chr(97 + k)}', end=end)}.png"
        for number, kind in enumerate(("cat", "dog"))
        for k in range(10)
        for end in ends
    ]
    write(tmp_path / "folder", names)
    (note,) = notes_on_names(of_folder(tmp_path / "folder"))
    assert note.startswith(TORN.format(series, *first))
    last = [f"{'train' if (number + 1) % len(ends) else 'test'}/{one}" for number, one in enumerate(names)]
    write(tmp_path / "split", last)
    (note,) = notes_on_names(of_folder(tmp_path / "split"))
    assert note.startswith("By their names, 20 of the 20 scored images belong to series of training images")
    write(tmp_path / "apart", [f"{'test' if number % (10 * len(ends)) < 2 * len(ends) else 'train'}/{one}"
                               for number, one in enumerate(names)])  # fmt: skip
    assert notes_on_names(of_folder(tmp_path / "apart")) == []


@pytest.mark.parametrize(
    "name",
    [
        "{kind}_{k}_small", "{k}_{kind}", "{kind}_{k}_{code}", "{code}_{k}", "{code}-{k}-{code}",
        "image_{k:04d}_{size}", "{colour}-{kind}-{place}-{k}-{code}", "{k}a", "{kind}_{k}",
    ],
)  # fmt: skip
def test_other_names_are_no_series(tmp_path, name):
    random = np.random.default_rng(0)
    names = []
    for kind in ("cat", "dog"):
        for k in range(20):
            code, size = random.bytes(5).hex(), f"{random.integers(200, 900)}x{random.integers(200, 900)}"
            colour, place = random.choice(["red", "big", "old"]), random.choice(["sea", "sky", "hill", "road"])
            words = {"kind": kind, "k": k, "code": code, "size": size, "colour": colour, "place": place}
            names.append(f"{kind}/{name.format(**words)}.png")
    write(tmp_path / "folder", names)
    assert notes_on_names(of_folder(tmp_path / "folder")) == []
    write(tmp_path / "split", [f"{'test' if number % 4 == 0 else 'train'}/{one}" for number, one in enumerate(names)])
    assert notes_on_names(of_folder(tmp_path / "split")) == []
    write(tmp_path / "own", [f"{split}/{one}" for split in ("train", "test") for one in names])
    assert notes_on_names(of_folder(tmp_path / "own")) == []


def test_names_of_splits_are_no_sides(tmp_path):
    write(
        tmp_path, [f"{split}/{kind}/{k}_{split}.png" for split in ("train", "test") for kind in "ab" for k in range(6)]
    )
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


def test_a_code_of_letters_and_digits_is_one_part_of_a_name():
    """The parts of a hash were names of series that no image belongs to."""
    assert [series_of("patient12_3L", parts) for parts in (1, 2, 3)] == [
        ("patient12_3", "l"), ("patient12", "_3l"), None,
    ]  # fmt: skip
    assert series_of("a1b2c3d4_left", 1) == ("a1b2c3d4", "_left")
    assert series_of("a1b2c3d4", 1) is None
