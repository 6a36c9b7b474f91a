"""Columns under the user's names, labels as numbers in one order, and what masks hold."""

import re

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from scd.data.images import load_images
from scd.data.sources.columns import files_outside, read_columns, rename_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError

PIXELS = encode_png(np.full((20, 20, 3), 9, np.uint8))


def dataset(**columns) -> Dataset:
    """Columns of lists: bytes are images, text and numbers as they are."""
    features = {}
    for name, values in columns.items():
        types = {dict: Image(), str: Value("string"), int: Value("int64")}
        features[name] = types[type(values[0])]
    return Dataset.from_dict(columns, features=Features(features))


def source(splits: dict, **options) -> Source:
    contents = {split: rows._fingerprint for split, rows in splits.items()}
    return Source(**read_columns("mine", splits, contents, **options))


def half_mask(value: int) -> dict:
    return encode_png(np.repeat(np.array([[value, 0]], np.uint8), 10, axis=1).repeat(20, axis=0))


def test_columns_are_renamed_and_others_left_out():
    rows = dataset(photo=[PIXELS] * 3, species=["b", "a", "b"], seg=[half_mask(255)] * 3, other=[1, 2, 3])
    found = source({"train": rows}, columns={"image": "photo", "label": "species", "mask": "seg", "background": None})
    assert found.splits["train"].column_names == ["image", "label", "mask"]
    assert found.class_names == ("a", "b") and found.splits["train"]["label"][:] == [1, 0, 1]
    images = load_images(found, "train", 20)
    assert images.labels.tolist() == [1, 0, 1] and images.masks.float().mean() == 0.5


def test_a_column_with_another_meaning_loses_its_own():
    rows = dataset(image=[PIXELS], label=[3], fine=[7])
    renamed = rename_columns("mine", rows, {"background": "label", "label": "fine"})
    assert renamed["label"][:] == [7] and renamed["background"][:] == [3]


def test_columns_that_are_not_read_are_named():
    """A column of labels under another name left the set without labels, silently."""
    named = source({"train": dataset(image=[PIXELS], labels=[3])})
    assert named.notes == (
        "Columns that are not read (1): labels; one of labels is named with data.options.columns.label=NAME.",
    )
    assert not named.labelled and source({"train": dataset(image=[PIXELS], label=[3])}).labelled
    many = dataset(image=[PIXELS], label=[3], **{f"x{number}": [0] for number in range(7)})
    assert source({"train": many}).notes == ("Columns that are not read (7): x0, x1, x2, x3, x4, ....",)


def test_bytes_and_paths_become_images():
    rows = Dataset.from_dict({"image": [PIXELS["bytes"]]}, features=Features({"image": Value("binary")}))
    assert isinstance(rename_columns("mine", rows, {}).features["image"], Image)


def test_text_labels_have_one_numbering_in_all_splits():
    train = dataset(image=[PIXELS] * 3, label=["a", "b", "c"])
    found = source({"train": train, "test": dataset(image=[PIXELS] * 2, label=["c", "b"])})
    assert found.class_names == ("a", "b", "c") and found.splits["test"]["label"][:] == [2, 1]


def test_the_numbers_of_training_labels_depend_on_no_other_split():
    train = dataset(image=[PIXELS] * 2, label=["m", "z"])
    for other in (["a"], ["z"]):
        found = source({"train": train, "test": dataset(image=[PIXELS], label=other)})
        assert found.splits["train"]["label"][:] == [0, 1]
        assert found.fingerprints["train"] == source({"train": train}).fingerprints["train"]
        assert found.class_names[found.splits["test"]["label"][0]] == other[0]


def test_a_split_without_labels_stays_without():
    train = dataset(image=[PIXELS] * 2, label=["m", "z"])
    found = source({"train": train, "test": dataset(image=[PIXELS])})
    assert found.splits["test"].column_names == ["image"] and found.class_names == ("m", "z")
    assert found.notes == ("The test images have no labels.",)


@pytest.mark.parametrize(("value", "kind"), [(255, "binary"), (3, "classes"), (1, "classes")])
def test_kinds_of_masks(value, kind):
    found = source({"train": dataset(image=[PIXELS], mask=[half_mask(value)])})
    assert found.mask_kind == kind and load_images(found, "train", 20).masks.float().mean() == 0.5


def with_objects(column: list) -> Dataset:
    """One image with a mask and a column ``objects``."""
    return dataset(image=[PIXELS], mask=[half_mask(255)]).add_column("objects", column)


def test_objects_make_masks_instances():
    rows = with_objects([{"bbox": [[0, 0, 4, 4]], "category": [0]}])
    assert source({"train": rows}).mask_kind == "instances"
    assert source({"train": rows}, mask_kind="binary").mask_kind == "binary"


def test_names_of_labels_are_kept():
    features = Features(image=Image(), label=ClassLabel(names=["x", "y"]), background=ClassLabel(names=["sea"]))
    rows = Dataset.from_dict({"image": [PIXELS], "label": [1], "background": [0]}, features=features)
    found = source({"train": rows})
    assert found.class_names == ("x", "y") and found.background_names == ("sea",)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"columns": {"pixels": "image"}}, "unknown column 'pixels'"),
        ({"columns": {"image": "photo"}}, "'mine' has no column 'photo'; its columns: image, label; name yours with"),
        ({"columns": {"image": "image", "mask": "image"}}, "uses one column twice"),
        ({"columns": {"image": "label"}}, "column 'label' of 'mine' holds Value.*, not images"),
        ({"mask_kind": "soft"}, "unknown mask_kind 'soft'; valid: binary, classes, instances"),
    ],
)
def test_wrong_options_say_so(options, text):
    with pytest.raises(UsageError, match=text):
        source({"train": dataset(image=[PIXELS], label=[0])}, **options)


def test_an_empty_split_says_so():
    empty = dataset(image=[PIXELS]).select([])
    with pytest.raises(DataError, match="split 'test' of 'mine' has no rows"):
        source({"train": dataset(image=[PIXELS]), "test": empty})


def test_text_that_is_no_path_is_an_image_that_is_not_here():
    """Base64 text in the place of a path was a traceback: the operating system refuses so long a name."""
    cells = Dataset.from_dict({"image": [{"bytes": None, "path": "A" * 5000}]}, Features({"image": Image()}))
    with pytest.raises(DataError, match=r"'x' train row 0: the image 'A{200}\.\.\.' is not a file of this machine"):
        files_outside("x", "train", cells)


def test_encoded_text_is_not_taken_for_a_path():
    rows = dataset(image=["data:image/png;base64,iVBORw0KGgo="], label=[0])
    text = r"'mine' train row 0: the image is text of an encoded picture \(data:image/png;base64,...\); store"
    with pytest.raises(DataError, match=text):
        source({"train": rows})


def objects(*names: str) -> Dataset:
    features = {"bbox": List(List(Value("float32"))), "category": List(ClassLabel(names=list(names)))}
    rows = {"image": [PIXELS], "mask": [PIXELS], "objects": [{"bbox": [[0, 0, 4, 4]], "category": [0]}]}
    return Dataset.from_dict(rows, features=Features(image=Image(), mask=Image(), objects=features))


def test_categories_of_another_order_are_refused():
    """The numbers of one split were read by the names of the other: a scene mAP of 0.34 in the place of 1."""
    source({"train": objects("dark", "light"), "test": objects("dark", "light")})
    text = "'mine': the categories of the objects are dark, light in train and light, dark in test; write both with"
    with pytest.raises(DataError, match=text):
        source({"train": objects("dark", "light"), "test": objects("light", "dark")})


def test_masks_of_the_test_images_alone():
    """Their kind was not looked for: soft borders counted as the object, and the object as unknown."""
    found = source({"train": dataset(image=[PIXELS]), "test": dataset(image=[PIXELS], mask=[half_mask(255)])})
    assert found.mask_kind == "binary"
    assert load_images(found, "test", 20).masks.float().mean() == 0.5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"foreground": [0]},
            r"data.options.foreground=\[0\] chooses among class ids, but the masks of 'mine' are binary",
        ),
        ({"columns": {"mask": ""}, "foreground": [1]}, "'mine' has no column of masks for data.options.foreground"),
        ({"columns": {"mask": ""}, "mask_kind": "binary"}, "'mine' has no column of masks for data.options.mask_kind"),
    ],
)
def test_options_that_these_masks_do_not_have(options, text):
    """They were ignored, and the page was named by them."""
    with pytest.raises(UsageError, match=text):
        source({"train": dataset(image=[PIXELS], mask=[half_mask(255)])}, **options)


def test_a_column_can_be_left_out():
    rows = {"train": dataset(image=[PIXELS], label=[0], mask=["no picture"])}
    found = source(rows, columns={"mask": ""})
    assert found.splits["train"].column_names == ["image", "label"] and found.mask_kind is None
    assert found.fingerprint != source({"train": dataset(image=[PIXELS], label=[0])}).fingerprint


def test_what_a_column_of_pictures_needs_is_said():
    with pytest.raises(
        DataError, match="column 'mask' of 'mine' holds Value.*, not images; data.options.columns.mask=''"
    ):
        source({"train": dataset(image=[PIXELS], mask=[1])})
    fields = Dataset.from_dict({"image": [{"bytes": b"x"}]})
    with pytest.raises(DataError, match="holds the fields bytes; a picture has the fields bytes and path"):
        source({"train": fields})
    with pytest.raises(DataError, match="its columns: photo; name yours with data.options.columns.image=NAME"):
        source({"train": dataset(photo=[PIXELS])})


@pytest.mark.parametrize(
    ("objects", "found"),
    [
        ([1], "no fields"),
        ([["cat", "dog"]], "no fields"),
        ([{"bbox": [[0, 0, 4, 4]]}], "bbox"),
        ([{"name": ["a"]}], "name"),
    ],
)
def test_a_column_of_other_things_called_objects_is_refused(objects, found):
    rows = with_objects(objects)
    text = (
        f"'mine' train: the column objects has {found}, where boxes with categories are expected (bbox, category); if "
        "it is something else, leave it out with data.options.columns.objects=''"
    )
    with pytest.raises(DataError, match=re.escape(text)):
        source({"train": rows})


def test_objects_without_a_map_are_named():
    rows = objects("dark").remove_columns("mask")
    assert "The column objects is not used: there is no map" in " ".join(source({"train": rows}).notes)


def test_a_column_with_another_meaning_can_lose_its_own_name():
    found = source({"train": dataset(image=[PIXELS], label=[half_mask(255)])}, columns={"mask": "label", "label": ""})
    assert found.splits["train"].column_names == ["image", "mask"] and found.mask_kind == "binary"
