"""Marks of annotations that other tools take out of the scores, and scores of pseudo labels."""

import json

import pytest

from scd.data.sources.coco import Coco
from scd.data.sources.coco_marks import notes_on_fields, notes_on_marks, notes_on_open_categories, notes_on_stuff

MARKED = "Annotations with {}=1, which count as objects like others: {} of {}. Those with iscrowd=1 are not scored."


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"ignore": 1}, "ignore"),
        ({"difficult": True}, "difficult"),
        ({"attributes": {"difficult": "true"}}, "difficult"),
        ({"IsGroupOf": "1"}, "IsGroupOf"),
        ({"IsDepiction": 1}, "IsDepiction"),
        ({"isinside": 1}, "isinside"),
        ({"attributes": {"outside": True}}, "outside"),
        ({"attributes": {"is_crowd": 1}, "iscrowd": 0}, "is_crowd"),
        ({"invalid": 1}, "invalid"),
        ({"uncertain": True}, "uncertain"),
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


@pytest.mark.parametrize(
    ("image", "noted"),
    [
        ({"neg_category_ids": [2], "not_exhaustive_category_ids": [1]}, True),
        ({"neg_category_ids": [], "not_exhaustive_category_ids": []}, True),  # of the category 2 nobody knows
        ({"neg_category_ids": [2], "not_exhaustive_category_ids": []}, False),
        ({"not_exhaustive_category_ids": []}, False),
        ({"not_exhaustive_category_ids": [2]}, True),
        ({"neg_category_ids": None}, True),
        ({}, False),
    ],
)
def test_images_of_which_not_all_categories_are_annotated_are_noted(image, noted):
    """LVIS: what was found of a category that nobody has annotated counted as false."""
    images, entries = [{"id": 7, **image}, {"id": 8}], [{"image_id": "7", "category_id": 1}]
    notes = notes_on_open_categories(images, entries, 2)
    assert len(notes) == noted
    if noted:
        assert notes[0].startswith(
            "Images of which not all categories are annotated (neg_category_ids, not_exhaustive_category_ids), which "
            "is not read: 1 of 2. What is found of the others counts as false"
        )


def test_lists_of_lvis_are_notes_of_its_source(tmp_path):
    Coco.example(tmp_path)
    content = json.loads((tmp_path / "test.json").read_text())
    content["images"][0] |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    (tmp_path / "test.json").write_text(json.dumps(content))
    source = Coco(tmp_path / "train", tmp_path / "train.json", tmp_path / "test", tmp_path / "test.json")
    (note,) = source.notes
    assert note.startswith("test: Images of which not all categories are annotated") and ": 1 of 4." in note


def test_stuff_of_panoptic_sets_is_noted():
    """Grass was an object of a class in every image."""
    categories = [
        {"id": 1, "name": "cat", "isthing": 1},
        {"id": 2, "name": "grass", "isthing": 0},
        {"id": 3, "name": "dog"},
    ]
    entries = [{"image_id": 7, "category_id": number} for number in (1, "2", 2, 3)]
    (note,) = notes_on_stuff(categories, entries)
    assert note.startswith(
        "Annotations of categories with isthing=0 (such as 'grass'), which count as objects like others: 2 of 4."
    )
    assert notes_on_stuff(categories, entries[:1]) == [] == notes_on_stuff(categories[2:], entries[3:])


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"visibility": 0.0}, "with visibility=0, of which nothing can be seen"),
        ({"attributes": {"visibility": 0}}, "with visibility=0, of which nothing can be seen"),
        ({"visibility": 0.1}, None),
        ({"visibility": None}, None),
        ({"legibility": "illegible"}, "that mark a text as illegible"),
        ({"attributes": {"transcription": "###"}}, "that mark a text as illegible"),
        ({"legibility": "legible", "utf8_string": "EXIT"}, None),
    ],
)
def test_what_nobody_can_see_or_read_is_noted(entry, what):
    """MOT's hidden people and COCO-Text's illegible words were scored as objects that a detector must find."""
    note = f"Annotations {what}, which count as objects like others: 2 of 3."
    assert notes_on_marks([entry, {}, entry]) == ([note] if what else [])


def test_further_fields_are_named_with_how_often_a_flag_is_set():
    """TinyPerson's in_dense_image marks regions in which not every person is annotated; nothing said so."""
    plain = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [0, 0, 1, 1],
        "area": 1,
        "iscrowd": 0,
        "segmentation": [],
    }
    flagged = {"in_dense_image": True, "logo": 1, "score": 0.9, "attributes": {"occluded": "yes", "rotation": 30.0}}
    text = {"caption": "a dog", "in_dense_image": False, "attributes": {"occluded": "no", "tags": ["new"]}}
    assert notes_on_fields([plain, {**plain, **flagged}, {**plain, **text}]) == [
        "Fields of annotations that are not read (4): attributes.occluded (set in 1), attributes.tags, caption, "
        "in_dense_image (set in 1)."
    ]
    assert notes_on_fields([plain, {**plain, "in_dense_image": False, "attributes": {}}]) == []
    (note,) = notes_on_fields([{**plain, **{f"field{number}": "text" for number in range(10)}}])
    assert (
        note == f"Fields of annotations that are not read (10): {', '.join(f'field{n}' for n in range(8))} and 2 more."
    )
