"""How images were read: counts of classes and objects, and what masks show."""

import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PillowImage

from scd.data.sources.columns import read_columns
from scd.data.sources.shapes import Shapes
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.what_was_read import what_was_read

OBJECTS = {"bbox": List(List(Value("float32"))), "category": List(ClassLabel(names=["cat", "dog"]))}


def png(values: np.ndarray) -> dict:
    file = io.BytesIO()
    PillowImage.fromarray(values).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


def half(value: int) -> np.ndarray:
    """A mask (8, 8) whose upper quarter has a value."""
    values = np.zeros((8, 8), np.uint8)
    values[:2] = value
    return values


def data(rows: int = 4, limit: int | None = None, kind: str | None = None, **columns) -> EvaluationData:
    """The same columns in both splits."""
    features = {name: {"mask": Image(), "objects": OBJECTS}.get(name, Value("string")) for name in columns}
    images = [png(np.random.default_rng(row).integers(0, 256, (8, 8, 3), dtype=np.uint8)) for row in range(rows)]
    splits = {
        split: Dataset.from_dict({"image": images, **columns}, features=Features({"image": Image(), **features}))
        for split in ("train", "test")
    }
    identity = {split: [split] for split in splits}
    return EvaluationData(Source(**read_columns("mine", splits, identity, mask_kind=kind)), 8, streamed_limit=limit)


def test_every_split_is_a_line():
    assert what_was_read(data(), decode=True) == ["training: 4 images.", "test: 4 images."]
    assert what_was_read(data(limit=3), decode=True)[0] == "training: 4 images, at most 3 used."
    assert what_was_read(data(limit=9), decode=True)[0] == "training: 4 images."


def test_a_class_that_is_none_shows_in_the_counts():
    lines = what_was_read(data(label=["cat", "no label", "no label", "dog"]), decode=False)
    assert lines[0] == "training: 4 images; 3 classes (images): 'no label' 2, 'cat' 1, 'dog' 1."


def test_of_many_classes_the_largest_and_the_smallest_are_named():
    labels = [f"c{number:02}" for number in range(13) for _ in range(20 - number)]
    line = what_was_read(data(len(labels), label=labels), decode=False)[0]
    assert "13 classes (images): 'c00' 20, 'c01' 19, 'c02' 18, 'c03' 17, 'c04' 16, 'c05' 15, ..., " in line
    assert line.endswith("..., 'c09' 11, 'c10' 10, 'c11' 9, 'c12' 8.")


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (255, None, "masks of the kind 'binary', object on 25% of the pixels (median of 4)."),
        (
            3,
            "classes",
            "masks of the kind 'classes', object on 25% of the pixels (median of 4), ids 0, 3, of which those above 0 "
            "are object.",
        ),
    ],
)
def test_masks_show_their_kind_and_how_much_is_object(value, kind, expected):
    images = data(mask=[png(half(value))] * 4, kind=kind)
    assert what_was_read(images, decode=True)[1] == f"test: 4 images; {expected}"
    assert "of the pixels" not in what_was_read(images, decode=False)[1]


def test_unknown_pixels_are_no_id_of_an_object():
    mask = half(3)
    mask[7] = 255
    line = what_was_read(data(mask=[png(mask)] * 4, kind="classes"), decode=True)[0]
    assert line.endswith("ids 0, 3, of which those above 0 are object, 255 is unknown.")


def test_objects_are_counted_and_images_without_any():
    counts = (3, 0, 1, 1)
    objects = [{"bbox": [[0, 0, 4, 4]] * count, "category": ([0] + [1] * 2)[:count]} for count in counts]
    maps = [png(np.arange(64, dtype=np.uint8).reshape(8, 8) % (count + 1)) for count in counts]
    line = what_was_read(data(objects=objects, mask=maps), decode=True)[0]
    expected = "training: 4 images; 5 objects, none in 1 images, of 2 categories (objects): 'cat' 3, 'dog' 2."
    assert line == expected


def test_embedded_images_need_no_line():
    assert what_was_read(EvaluationData(Shapes(train=8, test=4, size=16), 16), decode=True) == []


def test_maps_of_objects_without_a_list_of_them_have_a_line():
    two = half(1)
    two[6:] = 2
    lines = what_was_read(data(mask=[png(two)] * 4, kind="instances"), decode=True)
    assert lines[0] == (
        "training: 4 images; masks of the kind 'instances', object on 50% of the pixels (median of 4), 2 objects an "
        "image (median)."
    )
