"""What is noted of images that a split holds several times."""

import numpy as np
import pytest
from datasets import Dataset, Image

from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.image_notes import notes_on_images
from studies.suite.analysis.repeat_notes import notes_on_repeats


def data(train: list[int], test: list[int], labels: bool = True) -> EvaluationData:
    """Images of noise, by their seeds; those of an odd seed are of another class."""
    splits = {}
    for split, seeds in (("train", train), ("test", test)):
        pixels = [np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8) for seed in seeds]
        columns = {"image": [encode_png(one) for one in pixels]}
        if labels:
            columns["label"] = [("even", "odd")[seed % 2] for seed in seeds]
        splits[split] = Dataset.from_dict(columns).cast_column("image", Image())
    return EvaluationData(Source(**read_columns("mine", splits, {split: [split] for split in splits})), 8)


@pytest.mark.parametrize("labels", [True, False])
def test_repeated_images_are_noted(labels):
    """One row for each caption: an image counted five times."""
    found = notes_on_images(data([0, 1, 2, 3] * 5, [10, 11, 12, 13, 10], labels))
    assert found == [
        "16 of the 20 training images repeat an earlier one of them, which are trained on more often than others.",
        "1 of the 5 scored images repeat an earlier one of them, which count more than others.",
    ]


def test_images_that_are_there_once_need_no_note():
    assert notes_on_images(data(list(range(8)), list(range(10, 14)))) == []


def test_one_copy_among_very_many_is_not_noted():
    assert notes_on_repeats(data([*range(100), 0], list(range(200, 204)))) == []
