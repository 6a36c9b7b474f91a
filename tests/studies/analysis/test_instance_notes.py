"""What is noted of maps of objects: filled boxes, and regions of classes. Hidden objects are in test_mask_notes."""

import json

import numpy as np
import pytest
from datasets import Dataset, Features, Image, List, Value

from scd.data.sources.coco import Coco
from scd.data.sources.columns import read_columns
from scd.data.sources.instance_maps import BOX_ONLY
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.mask_notes import notes_on_masks

BOXES = (
    "Objects that fill an upright rectangle in the map of objects: {} in the 12 {} images that were looked at. What is "
    "measured with masks is measured with boxes."
)
REGIONS = "No image has two objects of a category, and {} objects in the {} {} images that were looked at consist of "


def scenes(maps: list[np.ndarray], categories: list[int]) -> EvaluationData:
    """The same maps of objects, with the same categories in each image, in both splits."""
    splits = {}
    for first, split in enumerate(("train", "test")):
        seeds = range(1000 * first, 1000 * first + len(maps))
        cells = [
            encode_png(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)) for seed in seeds
        ]
        objects = {"bbox": [[0, 0, 24, 24]] * len(categories), "category": categories}
        features = {"bbox": List(List(Value("float32"))), "category": List(Value("int64"))}
        columns = {"image": cells, "mask": [encode_png(one) for one in maps], "objects": [objects] * len(maps)}
        splits[split] = Dataset.from_dict(columns, Features(image=Image(), mask=Image(), objects=features))
    return EvaluationData(Source(**read_columns("mine", splits, {split: [split] for split in splits})), 24)


def two_boxes(cut: int = 0) -> np.ndarray:
    """Two boxes; a corner of ``cut`` pixels is missing in each."""
    values = np.zeros((24, 24), np.uint8)
    for number, top in ((1, 2), (2, 14)):
        values[top : top + 8, 3:13] = number
        values[top : top + cut, 3 : 3 + cut] = 0
    return values


@pytest.mark.parametrize(("whole", "noted"), [(12, True), (9, True), (8, False)])
def test_filled_boxes_in_maps_are_noted(whole, noted):
    """They were scored as shapes of objects."""
    notes = notes_on_masks(scenes([two_boxes()] * whole + [two_boxes(cut=3)] * (12 - whole), [0, 0]))
    found = [BOXES.format(f"{2 * whole} of 24", words) for words in ("training", "test")]
    assert notes == (found if noted else [])


def test_few_boxes_prove_nothing():
    assert notes_on_masks(scenes([two_boxes()] * 9, [0, 0])) == []


def parts(gap: int, second: int) -> np.ndarray:
    """An object of two parts with ``gap`` columns between them, the second of ``second`` rows, beside one of a part."""
    values = np.zeros((24, 24), np.uint8)
    values[2:12, 2:8] = 1
    values[3:5, 8] = 1
    values[2 : 2 + second, 8 + gap : 14 + gap] = 1
    values[15:20, 4:9] = 2
    values[15, 4] = 0
    return values


@pytest.mark.parametrize(
    ("gap", "second", "categories", "noted"),
    [
        (2, 8, [0, 1], True),
        (2, 8, [0, 0], False),  # two objects of a category: each object is annotated
        (0, 8, [0, 1], False),  # one part
        (2, 0, [0, 1], False),
    ],
)
def test_regions_of_classes_in_the_place_of_objects_are_noted(gap, second, categories, noted):
    """A map of classes as COCO's annotations: three cats were one object."""
    notes = notes_on_masks(scenes([parts(gap, second)] * 4, categories))
    assert len(notes) == 2 * noted
    assert not noted or notes[0].startswith(REGIONS.format("4 of 8", 4, "training"))


def test_specks_and_few_images_are_no_regions_of_classes():
    speck = parts(2, 0)
    speck[22, 22] = 1
    assert notes_on_masks(scenes([speck] * 4, [0, 1])) == []
    assert notes_on_masks(scenes([parts(2, 8)] * 3, [0, 1])) == []
    few = [parts(2, 8)] * 3 + [parts(0, 8)] * 3  # 3 of 12 objects: some are behind others
    assert notes_on_masks(scenes(few, [0, 1])) == []


def test_parts_that_touch_in_a_corner_are_one():
    values = np.zeros((24, 24), np.uint8)
    values[2:8, 2:8] = values[8:14, 8:14] = 1
    values[16:20, 4:9] = 2
    assert notes_on_masks(scenes([values] * 4, [0, 1])) == []


def test_boxes_of_which_the_source_says_so_are_noted_once(tmp_path):
    Coco.example(tmp_path)
    for split in ("train", "test"):
        content = json.loads((tmp_path / f"{split}.json").read_text())
        for entry in (found := content["annotations"]):
            del entry["segmentation"]
        content["annotations"] = [
            {**entry, "id": 1000 * copy + entry["id"], "bbox": [4 * copy, 0, 4, 9]}
            for copy in range(3)
            for entry in found
        ]
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    source = Coco(tmp_path / "train", tmp_path / "train.json", tmp_path / "test", tmp_path / "test.json")
    assert any(BOX_ONLY in note for note in source.notes)
    assert notes_on_masks(EvaluationData(source, 8)) == []
