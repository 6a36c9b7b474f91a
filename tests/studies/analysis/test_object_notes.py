"""What is noted of objects in rows: marks that are not read, crowds, and images without objects."""

import numpy as np
import pyarrow
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from scd.data.sources.coco import Coco
from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.errors import DataError
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.image_notes import notes_on_images
from studies.suite.analysis.object_notes import (
    notes_on_doubled,
    notes_on_everywhere,
    notes_on_inner,
    notes_on_objects,
    overlaps,
)

SPLITS = ("train", "test")
ALIKE = "train: Objects that have marks which are not read, so that they count like others: "


def rows(fields: dict[str, list], empty: int = 0, total: int = 4, as_list: bool = False) -> EvaluationData:
    """Two objects an image, but for the first ``empty`` ones; ``fields`` hold the values of an image's two objects."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:4], mask[4:] = 1, 2
    types = {"bbox": List(Value("float32")), "category": ClassLabel(names=["a", "b"])}
    kinds = {
        name: Value({str: "string", float: "float32"}.get(type(values[0]), "int64")) for name, values in fields.items()
    }
    types = kinds | types
    columns: dict[str, list] = {"image": [], "mask": [], "objects": []}
    for row in range(total):
        pixels = np.random.default_rng(row).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        objects = {"bbox": [[0, 0, 8, 4], [0, 4, 8, 4]], "category": [0, 1], **fields}
        if row < empty:
            objects = {name: [] for name in objects}
        if as_list:
            objects = [dict(zip(objects, values, strict=True)) for values in zip(*objects.values(), strict=True)]
        columns["image"].append(encode_png(pixels))
        columns["mask"].append(encode_png(np.zeros_like(mask) if row < empty else mask))
        columns["objects"].append(objects)
    objects_type = List(types) if as_list else {name: List(kind) for name, kind in types.items()}
    features = Features(image=Image(), mask=Image(), objects=objects_type)
    splits = dict.fromkeys(SPLITS, Dataset.from_dict(columns, features=features))
    return EvaluationData(Source(**read_columns("mine", splits, {split: [split] for split in SPLITS})), 8)


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"is_crowd": [1, 0]}, "is_crowd 4 of 8"),
        ({"difficult": [1, 1], "IsGroupOf": [0, 1]}, "IsGroupOf 4, difficult 8 of 8"),
        ({"occluded": [2, -1], "truncated": [0, 0]}, "occluded 4 of 8"),
        ({"ignore": ["True", "no"]}, "ignore 4 of 8"),
        ({"is_crowd": [0, 0]}, None),
        ({"area": [9, 9], "id": [1, 2]}, None),
        ({"iscrowd": [0, 0]}, None),
    ],
)
def test_marks_of_objects_that_are_not_read_are_noted(fields, named, as_list):
    """Rows with is_crowd or difficult: only iscrowd was read, and the objects were scored."""
    notes = notes_on_objects(rows(fields, as_list=as_list))
    assert len(notes) == (2 if named else 0)
    if named:
        assert notes[0] == f"{ALIKE}{named}. Give iscrowd=1 to those that are not to be scored."


@pytest.mark.parametrize("as_list", [False, True])
def test_crowds_and_images_without_objects_of_rows_are_noted(as_list):
    images = rows({"iscrowd": [1, 0]}, empty=2, as_list=as_list)
    notes = [note for note in notes_on_images(images) if note.startswith("test: ")]
    assert notes == [
        "test: Images without objects, which count as negatives: 2 of 4. Leave out those that nobody has annotated, or "
        "what they show counts as background.",
        "test: Annotations with iscrowd=1, which are not scored as objects: 2 of 4 (50%).",
    ]


def test_what_a_source_has_noted_itself_is_noted_once(tmp_path):
    Coco.example(tmp_path)
    text = (tmp_path / "test.json").read_text().replace('"iscrowd": 0', '"iscrowd": 1', 2)
    (tmp_path / "test.json").write_text(text)
    source = Coco(tmp_path / "train", tmp_path / "train.json", tmp_path / "test", tmp_path / "test.json")
    notes = [note for note in notes_on_images(EvaluationData(source, 24)) if "iscrowd" in note]
    assert notes == ["test: Annotations with iscrowd=1, which are not scored as objects: 2 of 4 (50%)."]


DOUBLED = (
    "train: Objects whose box nearly equals that of another object of their category (IoU of 0.75 or more): {}, as"
)
NESTED = "train: Objects whose box nearly equals that of an object of another category (IoU of 0.75 or more): {}, as"


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(
    ("second", "categories", "fields", "start"),
    [
        ([1, 1, 40, 30], [0, 0], {}, DOUBLED.format("4 of 8")),
        ([1, 1, 40, 30], [0, 1], {}, NESTED.format("4 of 8")),
        ([3, 2, 40, 30], [0, 0], {}, DOUBLED.format("4 of 8")),  # IoU 0.76
        ([4, 2, 40, 30], [0, 0], {}, None),  # IoU 0.72
        ([1, 1, 40, 30], [0, 0], {"iscrowd": [0, 1]}, None),
        ([0, 0, 20, 15], [0, 0], {}, None),  # a part of the first
    ],
)
def test_objects_that_are_there_twice_are_noted(second, categories, fields, start, as_list):
    """Two people annotated the same images: every object was there twice, and one of the two was always missed."""
    both = {"bbox": [[0, 0, 40, 30], second], "category": categories, **fields}
    notes = [note for note in notes_on_objects(rows(both, as_list=as_list)) if "nearly equals" in note]
    assert len(notes) == (2 if start else 0)
    assert not start or notes[0].startswith(start)


def test_few_objects_that_are_there_twice_are_not_noted():
    images = rows({"bbox": [[0, 0, 40, 30], [1, 1, 40, 30]], "category": [0, 0]}, empty=1)
    assert not any("nearly equals" in note for note in notes_on_objects(images))  # 3 of 6 objects


def test_overlaps_of_boxes():
    boxes = np.array([[0, 0, 4, 4], [2, 0, 4, 4], [9, 9, 1, 1], [0, 0, 0, 5]], float)
    expected = [[1, 1 / 3, 0, 0], [1 / 3, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(overlaps(boxes), expected)


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"score": [0.05, 0.9]}, "Objects with a score below 0.5, which count like others: 4 of 8."),
        ({"score": [0.5, 0.9]}, None),
        (
            {"visibility": [0.0, 0.3]},
            "Objects with visibility=0, of which nothing can be seen, which count like others: ",
        ),
        ({"visibility": [0.2, 0.3]}, None),
    ],
)
def test_scores_and_visibilities_of_objects_are_noted(fields, note):
    """Pseudo labels of a score of 0.05 counted as truth."""
    notes = [
        each
        for each in notes_on_objects(rows(fields))
        if each.startswith(("train: Objects with a", "train: Objects with v"))
    ]
    assert len(notes) == (note is not None) and all(each.startswith(f"train: {note}") for each in notes)


@pytest.mark.parametrize(("width", "noted"), [(2, True), (3, False)])
def test_slivers_at_the_borders_of_tiles_are_noted(width, noted):
    """Half of the objects were rests of a pixel or two, with the class of the whole object."""
    images = rows({"bbox": [[0, 0, width, 30], [9, 0, 20, 30]], "category": [0, 1]})
    notes = [note for note in notes_on_objects(images) if "at most 2 pixels wide or high" in note]
    assert len(notes) == 2 * noted and all("tile: 4 of 8." in note for note in notes)
    assert notes_on_objects(rows({"bbox": [[0, 0, width, 0], [9, 0, 20, 30]], "category": [0, 1]})) == []


def test_further_fields_of_objects_are_named():
    images = rows({"bbox": [[0, 0, 4, 4], [8, 8, 3, 3]], "category": [0, 1], "id": [1, 2], "in_dense_image": [0, 1]})
    notes = [note for note in notes_on_objects(images) if "Fields" in note]
    assert notes == [
        f"{split}: Fields of objects that are not read (1): in_dense_image." for split in ("train", "test")
    ]


def test_scored_images_without_a_single_object_are_refused():
    """Annotations of the test images were kept back: scene mIoU was 100 % for every network."""
    with pytest.raises(DataError, match="'mine' test: no image has an object, as where annotations are kept"):
        notes_on_objects(rows({}, empty=4))


def test_holes_that_are_objects_are_noted():
    """Contours of masks, of which each became an object: those of the holes as well."""
    notes = notes_on_objects(rows({"bbox": [[0, 0, 8, 8], [2, 2, 3, 3]], "category": [0, 0]}))
    assert notes == [
        f"{split}: Objects whose box lies inside that of another object of their category: 4 of 8, as where holes of "
        "objects, or their parts, are annotated as objects. Each counts as an object of its own."
        for split in ("train", "test")
    ]
    for other in ({"category": [0, 1]}, {"bbox": [[0, 0, 8, 8], [2, 2, 3, 7]]}, {"bbox": [[0, 0, 8, 8]] * 2}):
        notes = notes_on_objects(rows({"bbox": [[0, 0, 8, 8], [2, 2, 3, 3]], "category": [0, 0], **other}))
        assert not any("lies inside" in note for note in notes)


def test_few_objects_inside_of_others_are_not_noted():
    """People before people: in COCO, 9 % of the boxes lie inside of another one of their category."""
    nested, apart = np.array([[0, 0, 8, 8], [2, 2, 3, 3]], float), np.array([[0, 0, 8, 8], [20, 0, 8, 8]], float)
    images = [(nested, np.array([0, 0]))] * 4 + [(apart, np.array([0, 0]))] * 6
    assert notes_on_inner(images, "") == [] and len(notes_on_inner(images[:8], "")) == 1


@pytest.mark.parametrize(
    ("rows_of", "start"),
    [
        ([{0, 1}] * 5 + [{0}] * 5, "Categories that every image shows: 'a'. The scene mAP counts each with 100 % for"),
        ([{0}] * 10, "No category is shown by 5% to 95% of these images, so that they hardly differ in what they show"),
        ([{0}] * 5 + [{1}] * 5, None),
        ([{0, 1}] * 3 + [{0}] * 3, None),  # few
    ],
)
def test_categories_that_every_scored_image_shows_are_noted(rows_of, start):
    """The ego vehicle of Mapillary: 100 % average precision for every network, in the mean with the others."""
    objects = pyarrow.array([{"category": sorted(categories)} for categories in rows_of])
    notes = notes_on_everywhere(objects, ["a", "b"])
    assert len(notes) == bool(start) and all(note.startswith(start) for note in notes)


def test_categories_that_no_training_object_has_are_noted():
    """Base and novel classes: the average precision of what nobody could learn halved every difference."""
    images = rows({})
    assert not any("nothing learns" in note for note in notes_on_objects(images))
    train = rows({"category": [0, 0]}).source.split("train")
    images.source.splits = {"train": train, "test": images.source.split("test")}
    (note,) = [note for note in notes_on_objects(images) if "nothing learns" in note]
    assert note.startswith(
        "Categories of scored objects that no training object has, so that nothing learns them: 'b', in 4 of the 4"
    )


def test_categories_noted_by_a_source_do_not_hide_many_more():
    nested = {"bbox": [[0, 0, 40, 30], [1, 1, 40, 30]], "category": [0, 1]}
    found = [(np.array(nested["bbox"], float), np.array([0, 1]))] * 8
    for count, noted in ((3, 1), (7, 0)):
        notes = notes_on_doubled(found, "", [f"Objects that are annotated with two categories: {count}."])
        assert len(notes) == noted
