"""What is noted of images: classes that limits, or the files, leave without an image, and sets that are dark."""

import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PillowImage

from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.image_notes import notes_on_classes, notes_on_dark_images

SPLITS = ("train", "test")
NAMES = ["bus", "fish", "penguin", "teapot"]


def images(train, test, **limits):
    """Images of these labels; every one has other pixels."""
    splits = {}
    for split, labels in {"train": train, "test": test}.items():
        pixels = [encode_png(np.full((4, 4, 3), row, np.uint8)) for row in range(len(labels))]
        features = Features(image=Image(), label=ClassLabel(names=NAMES))
        splits[split] = Dataset.from_dict({"image": pixels, "label": labels}, features=features)
    source = Source(**read_columns("mine", splits, {split: [split] for split in splits}))
    return EvaluationData(source, 4, limits.get("train_limit"), limits.get("test_limit"))


def test_a_rare_class_that_limits_leave_out_is_named():
    labels = [0, 1, 2] * 20 + [3]
    assert notes_on_classes(images(labels, labels)) == []
    assert notes_on_classes(images(labels, labels, train_limit=30, test_limit=30)) == [
        "Classes without an image among the training images that are used: 'teapot'.",
        "Classes without an image among the test images that are used: 'teapot'.",
    ]


def test_a_class_without_a_test_image_is_named():
    assert notes_on_classes(images([0, 1, 2, 3] * 5, [0, 1] * 5)) == [
        "Classes without an image among the test images that are used: 'penguin', 'teapot'."
    ]


def deep(highest):
    """A picture of 16-bit grey values from 0 to ``highest``."""
    stored = io.BytesIO()
    values = np.linspace(0, highest, 16).reshape(4, 4).astype(np.uint16)
    PillowImage.fromarray(values).save(stored, "png")
    return stored.getvalue()


@pytest.mark.parametrize(("highest", "shown"), [(10_000, 39), (16_383, 64), (40_000, None)])
def test_16_bit_values_that_use_a_part_of_their_range_are_noted(highest, shown):
    splits = {
        split: Dataset.from_dict({"image": [deep(highest)] * 3}).cast_column("image", Image()) for split in SPLITS
    }
    source = Source(**read_columns("mine", splits, {split: [split] for split in splits}))
    expected = [
        f"The {words} images are dark: no pixel of the 3 that were looked at is above {shown} of 255. Values are read "
        "as they stand, those of 16 bits from their whole range (65535); if your images use a part of it, scale them."
        for words in ("training", "test")
    ]
    assert notes_on_dark_images(EvaluationData(source, 4)) == (expected if shown else [])


def test_a_dark_image_among_others_is_not_noted():
    assert notes_on_dark_images(images([0] * 200, [1] * 200)) == []
