"""Marks of annotations that other tools take out of the scores, and scores of pseudo labels."""

import json

import pytest

from scd.data.sources.coco import Coco
from scd.data.sources.coco_marks import notes_on_marks

MARKED = "Annotations with {}=1, which count as objects like others: {} of {}. Those with iscrowd=1 are not scored."


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"ignore": 1}, "ignore"),
        ({"difficult": True}, "difficult"),
        ({"attributes": {"difficult": "true"}}, "difficult"),
        ({"IsGroupOf": "1"}, "IsGroupOf"),
        ({"ignore": 0}, None),
        ({"ignore": None, "attributes": None}, None),
        ({"attributes": ["difficult"]}, None),
        ({"iscrowd": 1, "attributes": {"occluded": True}}, None),
        ({"ignore": [1]}, None),
    ],
)
def test_marks_are_noted(entry, name):
    """Regions that their authors do not score were scored as objects."""
    assert notes_on_marks([entry, {}, entry]) == ([MARKED.format(name, 2, 3)] if name else [])


def test_scores_of_pseudo_labels_are_noted():
    entries = [{"score": 0.05}, {"score": 0.9}, {"attributes": {"confidence": 0.2}}, {"score": None}, {"score": "0.1"}]
    assert notes_on_marks(entries) == [
        "Annotations with a score below 0.5, which count as objects like others: 2 of 5."
    ]
    assert notes_on_marks([{"score": 0.5}, {"score": -1}]) == []


def test_marks_of_a_file_are_notes_of_its_source(tmp_path):
    Coco.example(tmp_path)
    content = json.loads((tmp_path / "test.json").read_text())
    content["annotations"][0]["ignore"] = 1
    (tmp_path / "test.json").write_text(json.dumps(content))
    source = Coco(tmp_path / "train", tmp_path / "train.json", tmp_path / "test", tmp_path / "test.json")
    assert source.notes == (f"test: {MARKED.format('ignore', 1, 4)}",)
