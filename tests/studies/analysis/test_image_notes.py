"""What is noted of images: classes that limits, or the files, leave without an image."""

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image

from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.image_notes import notes_on_classes

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
