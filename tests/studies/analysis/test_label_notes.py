"""What is noted of labels: lists, names of files, classes of one image, and what tells a class beside the pixels."""

import io

import numpy as np
import pytest
from datasets import Dataset, Image
from PIL import Image as PillowImage

from scd.data.sources.columns import read_columns
from scd.data.sources.source import Source
from scd.errors import DataError
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.image_notes import notes_on_images
from studies.suite.analysis.label_notes import notes_on_labels, notes_on_lists_of_labels, told_by


def noise(seed: int, side: int = 8) -> PillowImage.Image:
    return PillowImage.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def stored(image: PillowImage.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def data(labels: list[str], images: list[bytes] | None = None) -> EvaluationData:
    """The same labels in both splits; noise, if no training images are given."""
    splits = {}
    for first, split in enumerate(("train", "test")):
        cells = images if images and split == "train" else None
        cells = cells or [stored(noise(1000 * first + row)) for row in range(len(labels))]
        splits[split] = Dataset.from_dict({"image": cells, "label": labels}).cast_column("image", Image())
    return EvaluationData(Source(**read_columns("mine", splits, {split: [split] for split in splits})), 8)


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["['cat', 'dog']", "['cat']", "['dog']"], 3),  # a column of lists that was written as text
        (["cat", "dog", "cat|dog"], 1),
        (["cat,dog", "dog, bird", "cat; bird"], 3),
        (["scab", "frog_eye_leaf_spot", "scab frog_eye_leaf_spot"], 1),
        (["cat", "dog"], 0),
        (["tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "crane, bird"], 0),  # ImageNet's synonyms
        (["tench, fish", "crane, bird", "crane"], 0),
        (["hot dog", "dog", "red apple", "red car"], 0),
        (["0", "1"], 0),
    ],
)
def test_labels_that_are_lists_are_noted(names, count):
    """Each combination became a class of its own."""
    notes = notes_on_lists_of_labels(names)
    assert len(notes) == bool(count)
    if count:
        assert f"each counts as a class of its own ({count}): " in notes[0]


def test_lists_are_noted_of_the_training_labels():
    (note,) = notes_on_images(data(["a|b", "a", "b", "b"] * 3))
    assert note == (
        "Labels that look like lists, of which each counts as a class of its own (1): 'a|b'. Write one label for each "
        "image."
    )


def test_names_of_files_and_classes_of_one_image_are_noted():
    names, alone = notes_on_images(data([f"IMG_{k}.JPG" for k in range(10)]))
    assert names.startswith("Labels that are names of image files, each a class of its own (10): 'IMG_0.JPG', 'IMG_1")
    assert alone.startswith("Classes with one training image alone: 10 of 10.")
    assert notes_on_images(data([str(k % 9) for k in range(16)])) == [] == notes_on_images(data(["a.b", "c.d"] * 4))


def padded(row: int) -> PillowImage.Image:
    """Bars of one colour above and below."""
    pixels = np.asarray(noise(row)).copy()
    pixels[:1] = pixels[-1:] = 0
    return PillowImage.fromarray(pixels)


def saved(row: int, quality: int) -> bytes:
    return stored(noise(row), "JPEG", quality=quality)


def test_classes_of_another_compression_are_noted():
    """Generated images at quality 98 beside photographs at 60: a network learned the blocks."""
    strong, weak = (
        (lambda row: stored(noise(row), "JPEG", quality=60)),
        (lambda row: stored(noise(row), "JPEG", quality=98)),
    )
    (note,) = notes_on_labels(of_two_classes(strong, weak))
    assert note.startswith(
        "The classes differ in the strength of JPEG's compression of their images, such as 'dark' "
        "(mean step 2) and 'light' (mean step 46)"
    )
    assert notes_on_labels(of_two_classes(strong, strong)) == []


def of_two_classes(light, dark) -> EvaluationData:
    return data(["light", "dark"] * 4, [(light, dark)[row % 2](row) for row in range(8)])


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (lambda row: stored(noise(row), "BMP"), "the formats of their images, such as 'dark' (BMP)"),
        (lambda row: stored(noise(row).convert("L")), "the kinds of pixels of their images"),
        (lambda row: stored(noise(row, 9)), "such as 'dark' (9x9 px) and 'light' (8x8 px)"),
        (lambda row: stored(padded(row)), "the bars at two opposite ends of their images, such as"),
        (lambda row: stored(noise(row)), None),
        (lambda row: stored(noise(row, 9 + row // 2 % 2)), None),
    ],
)
def test_a_class_that_its_files_give_away_is_noted(other, text):
    """Photographs as JPEG and generated images as PNG are told apart by the traces of the compression."""
    notes = notes_on_labels(of_two_classes(lambda row: stored(noise(row)), other))
    assert len(notes) == (text is not None)
    if text:
        assert notes[0].startswith("The classes differ in the ") and text in notes[0]


def test_an_image_of_unknown_range_is_named():
    deep = PillowImage.fromarray(np.full((8, 8), 900, np.uint16))
    with pytest.raises(DataError, match=r"^'mine' row 0: the image has 16-bit values that end at 900 of 65535"):
        notes_on_labels(of_two_classes(lambda row: stored(deep), lambda row: stored(noise(row))))


def test_storage_that_tells_the_class_of_most_images_is_noted():
    """Two sets of radiographs, one of them with patients and healthy people, the other with patients alone."""
    labels = ["ill", "healthy"] * 24
    sizes = [12 if label == "ill" and row % 8 else 8 for row, label in enumerate(labels)]
    images = [stored(noise(row, side)) for row, side in enumerate(sizes)]
    (note,) = notes_on_labels(data(labels, images))
    assert note == (
        "The sizes of the training images, without what these show, tell the class of 88% of the 48 that were looked "
        "at (the largest class has 50%), as where classes come from several sets of images: a network may learn their "
        "traces in the place of what the images show."
    )


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_storage_that_varies_by_chance_is_not_noted(classes):
    draws = np.random.default_rng(0)
    labels = [f"class {row % classes}" for row in range(60)]
    for _ in range(5):
        sides = draws.choice([8, 9, 10, 11], 60)
        assert notes_on_labels(data(labels, [stored(noise(row, side)) for row, side in enumerate(sides)])) == []


def test_the_share_that_storage_tells_leaves_out_the_image_itself():
    assert told_by([1, 1, 2, 2], "aabb") == 1.0
    assert told_by([1, 2, 3, 4], "aabb") == 0.0, "values of their own: the others have more of the other class"
    assert told_by([1, 1, 1, 1], "aabb") == 0.0
    assert told_by([1, 1, 1, 2, 2, 2], "aabbcc") == pytest.approx((0.5 + 0.5 + 0 + 0 + 0.5 + 0.5) / 6)
    assert told_by([1, 1, 1], "abc") == 0.0
