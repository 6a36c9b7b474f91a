"""What is noted of columns whose values scored images share with training images, whatever these columns are called."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from scd.data.sources.parquet import Parquet
from scd.data.sources.png import encode_png
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.image_notes import notes_on_files
from studies.suite.analysis.shared_value_notes import notes_on_shared_values

TRAIN, TEST = 48, 24


def data(folder, kind, values, labels=True, column="dealer"):
    """Rows of parquet files; ``values`` gives the value of the row n of a split."""
    for split, count in (("train", TRAIN), ("test", TEST)):
        cells = {
            "image": [encode_png(np.full((4, 4, 3), n, np.uint8)) for n in range(count)],
            column: [values(n, split) for n in range(count)],
        }
        features = {"image": Image(), column: Value(kind)}
        if labels:
            cells["label"], features["label"] = [n % 2 for n in range(count)], ClassLabel(names=["cat", "dog"])
        Dataset.from_dict(cells, features=Features(features)).to_parquet(folder / f"{split}.parquet")
    return EvaluationData(Parquet(folder / "train.parquet", folder / "test.parquet", name="mine"), 8)


NOTE = (
    "By columns that are not read ('{}'), most scored images share their value with training images. If the values "
    "name persons, things or places, and not kinds of them, scores are too high: split the images by such a column."
)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("string", lambda n, _: f"shop {n % 12}"),
        ("int64", lambda n, _: 7000 + 13 * (n % 12)),
        ("float64", lambda n, _: 48.1 + (n % 12) / 1000),  # a latitude
        ("string", lambda n, _: f"POINT (11.5 48.{n % 12})"),
    ],
    ids=["names", "numbers", "coordinates", "points"],
)
def test_values_that_group_images_of_both_splits_are_noted(kind, values, tmp_path):
    """Only columns with names of a list were looked at; a sign language set is split by its signers."""
    images = data(tmp_path, kind, values)
    assert notes_on_shared_values(images) == [NOTE.format("dealer")]
    assert NOTE.format("dealer") in notes_on_files(images)


@pytest.mark.parametrize(
    ("kind", "values", "column"),
    [
        ("string", lambda n, split: f"{split} {n % 12}", "dealer"),  # each in one split
        ("string", lambda n, split: f"shop {n}", "dealer"),  # one image each
        ("string", lambda n, _: f"shop {n % 4}", "dealer"),  # few
        ("string", lambda n, _: f"shop {n % 15}", "dealer"),  # of both classes, as ages and cities
        ("string", lambda n, _: f"n{n % 12}", "synset"),
        ("string", lambda n, _: f"shop {n % 12 if n % 3 else 0}", "dealer"),  # one of a third of the images
        ("string", lambda n, split: None if split == "test" and n % 2 else f"shop {n % 12}", "dealer"),
    ],
    ids=["apart", "one each", "few", "both classes", "kinds", "one large", "half without"],
)
def test_other_values_are_not_noted(kind, values, column, tmp_path):
    assert notes_on_shared_values(data(tmp_path, kind, values, column=column)) == []


def test_without_labels_numbers_are_not_judged(tmp_path):
    """They may be years, sizes and ages."""
    (tmp_path / "a").mkdir()
    assert notes_on_shared_values(data(tmp_path / "a", "int64", lambda n, _: n % 12, labels=False)) == []
    assert notes_on_shared_values(data(tmp_path, "string", lambda n, _: f"shop {n % 12}", labels=False)) != []
