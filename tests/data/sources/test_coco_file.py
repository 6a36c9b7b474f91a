"""COCO's annotation file as other tools write it: accepted where it has one meaning, named where it has none."""

import json
import re

import pytest
from PIL import Image

from scd.data.sources.coco_file import identity, order, read_coco
from scd.errors import DataError


@pytest.fixture
def coco(tmp_path):
    """Two images, two categories, one annotation."""
    (tmp_path / "images" / "sub folder").mkdir(parents=True)
    for name in ("1.png", "2.png", "sub folder/3.png"):
        Image.new("RGB", (30, 20)).save(tmp_path / "images" / name)
    content = {
        "images": [{"id": k, "file_name": f"{k}.png", "width": 30, "height": 20} for k in (1, 2)],
        "categories": [{"id": 5, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [{"id": 8, "image_id": 2, "category_id": 5, "bbox": [1, 2, 3, 4], "iscrowd": 0}],
    }
    return tmp_path, content


def opened(coco, encoding: str = "utf-8"):
    (coco[0] / "a.json").write_text(json.dumps(coco[1]), encoding=encoding)
    return read_coco(coco[0] / "images", coco[0] / "a.json")


def facts(read) -> tuple:
    return [
        (image.path.name, image.size, [vars(entry) for entry in image.entries]) for image in read.images
    ], read.names


def update(kind: str, number: int, **values):
    return lambda content: content[kind][number].update(values)


@pytest.mark.parametrize(
    "change",
    [
        update("images", 1, id="2"),
        update("images", 1, id=2.0),
        update("images", 1, id="0002"),
        update("annotations", 0, image_id="2", category_id="5"),
        update("categories", 0, id="5"),
        update("images", 0, width=30.0, height=20.0),
        update("annotations", 0, iscrowd=None),
        update("annotations", 0, iscrowd=False),
        update("annotations", 0, iscrowd="0"),
        lambda content: content["annotations"][0].pop("iscrowd"),
        lambda content: content["images"].append(dict(content["images"][1])),
        lambda content: content["categories"].append(dict(content["categories"][0])),
        lambda content: content["categories"].insert(0, {"id": 0, "name": "dog", "supercategory": "none"}),
        lambda content: content.update(info=None, licenses=[], videos=[{}]),
    ],
)
def test_what_has_one_meaning_is_accepted(coco, change):
    """F16: ids of mixed types, float sizes, null flags and Roboflow's root category ended in tracebacks."""
    expected = facts(opened(coco))
    change(coco[1])
    assert facts(opened(coco)) == expected


def test_a_byte_order_mark_is_no_part_of_json(coco):
    assert facts(opened(coco, "utf-8-sig")) == facts(opened(coco))


@pytest.mark.parametrize("name", ["sub folder/3.png", "sub folder\\3.png", "sub%20folder/3.png", "sub%20folder\\3.png"])
def test_names_of_files_in_other_spellings(coco, name):
    coco[1]["images"][1]["file_name"] = name
    assert opened(coco).images[1].path == coco[0] / "images" / "sub folder" / "3.png"


@pytest.mark.parametrize("name", ["..\\..\\media\\upload\\4\\2.png", "images/2.png", "/data/local-files/?d=x/2.png"])
def test_names_from_another_folder(coco, name):
    """Label Studio writes the place of its own upload."""
    coco[1]["images"][1]["file_name"] = name
    read = opened(coco)
    assert read.images[1].path == coco[0] / "images" / "2.png"
    note = "Images whose file_name names another folder, and that are read from 'images': 1."
    assert read.notes == ([] if name == "images/2.png" else [note])


@pytest.mark.parametrize("name", ["{}/old/images/2.png", "../old/images/2.png", "{}/old/images/sub folder/3.png"])
def test_files_of_another_place_do_not_replace_those_of_the_folder(coco, name):
    """A whole path, or one with "..", was read from there, whatever folder was given."""
    (coco[0] / "old" / "images" / "sub folder").mkdir(parents=True)
    for each in ("2.png", "3.png", "sub folder/3.png"):
        Image.new("RGB", (30, 20), "red").save(coco[0] / "old" / "images" / each)
    coco[1]["images"][1]["file_name"] = name.format(coco[0])
    read = opened(coco)
    end = "sub folder/3.png" if "sub" in name else "2.png"
    assert read.images[1].path == coco[0] / "images" / end
    assert read.notes[0] == "Images whose file_name names another folder, and that are read from 'images': 1."


@pytest.mark.parametrize("name", ["{}/old/4.png", "../old/4.png"])
def test_images_that_lie_elsewhere_are_noted(coco, name):
    """The only note counted the other files of that place."""
    (coco[0] / "old").mkdir()
    for each in ("4.png", "5.png"):
        Image.new("RGB", (30, 20)).save(coco[0] / "old" / each)
    coco[1]["images"].append({"id": 4, "file_name": name.format(coco[0])})
    read = opened(coco)
    assert read.images[2].path.resolve() == coco[0] / "old" / "4.png"
    assert read.notes == [
        "Images that are not in 'images' and are read from where their file_name says: 1, the first from 'old'."
    ]


@pytest.mark.parametrize("name", ["{}/images/2.png", "sub folder/../2.png", "../images/2.png"])
def test_whole_paths_into_the_folder_need_no_note(coco, name):
    coco[1]["images"][1]["file_name"] = name.format(coco[0])
    read = opened(coco)
    assert read.images[1].path.resolve() == coco[0] / "images" / "2.png" and read.notes == []


@pytest.mark.parametrize("numbers", [(1, 2), (2, 2)])
@pytest.mark.parametrize("names", [("a/2.png", "b/2.png"), ("2.png", "b/2.png"), ("a/2.png", "2.png")])
def test_names_from_several_folders_are_not_one_file(coco, names, numbers):
    """Under one id they counted as one image that is listed twice."""
    for image, name, number in zip(coco[1]["images"], names, numbers, strict=True):
        image.update(file_name=name, id=number)
    text = (
        f"lists {names[0]} and {names[1]}, and '.*images' holds one file for both, 2.png; give the folder in which both"
    )
    with pytest.raises(DataError, match=text):
        opened(coco)


@pytest.mark.parametrize("name", ["sub folder/2.png", "sub%20folder\\2.png"])
def test_a_missing_file_of_a_folder_is_not_read_from_another_one(coco, name):
    """Another image of the same name was read."""
    coco[1]["images"][1]["file_name"] = name
    with pytest.raises(DataError, match=f"lists the image {re.escape(name)}, which is not in '.*images'"):
        opened(coco)


@pytest.mark.parametrize("size", [{"width": 0, "height": 0}, {"width": None}])
def test_sizes_that_are_not_given_are_left_to_the_picture(coco, size):
    coco[1]["images"][0].update(size)
    assert opened(coco).images[0].size is None


def test_what_is_left_out_is_noted(coco):
    Image.new("RGB", (30, 20)).save(coco[0] / "images" / "9.png")
    coco[1]["images"].append(dict(coco[1]["images"][0]))
    coco[1]["categories"].insert(0, {"id": 0, "name": "dog"})
    assert opened(coco).notes == [
        "Images that are listed twice in 'a.json' and count once: 1.",
        "Images in 'images' that its annotations do not list and that are left out: 1.",
        "The category 'dog' with the id 0 has no objects and repeats a name; it is left out.",
    ]


SQUARE, CORNER = [[1, 2, 4, 2, 4, 6, 1, 6]], [[1, 2, 4, 2, 1, 6, 4, 6]]


@pytest.mark.parametrize(
    ("others", "kept"),
    [
        ([{}], [8]),
        ([{"bbox": [1.0, 2.0, 3.0, 4.0], "iscrowd": None}, {}], [8]),
        ([{"segmentation": SQUARE}, {"segmentation": []}], [9]),
        ([{"segmentation": SQUARE}, {"segmentation": SQUARE, "bbox": [1, 2, 3, 4.01]}], [9]),
        ([{"segmentation": SQUARE}, {"segmentation": CORNER}], [9, 10]),
        ([{"category_id": 3}, {"image_id": 1}, {"bbox": [1, 2, 3, 5]}, {"iscrowd": 1}], [8, 9, 10, 11, 12]),
    ],
)
def test_objects_that_are_annotated_twice_count_once(coco, others, kept):
    """Both counted: a detector missed one of the two, whatever it found."""
    entries = coco[1]["annotations"]
    entries += [{**entries[0], "id": 9 + number, **other} for number, other in enumerate(others)]
    read = opened(coco)
    found = [entry.label for image in read.images for entry in image.entries]
    assert sorted(found) == sorted(f"annotation {number}" for number in kept)
    dropped = len(entries) - len(kept)
    note = f"Objects that are annotated twice in 'a.json' and count once: {dropped}."
    assert [one for one in read.notes if "annotated twice" in one] == ([note] if dropped else [])


@pytest.mark.parametrize(
    ("others", "counted"),
    [
        ([{}], 0),
        ([{"category_id": 3}], 1),
        ([{"category_id": 3}, {"category_id": 3, "segmentation": []}], 1),
        ([{"category_id": 3, "image_id": 1}], 0),
        ([{"category_id": 3, "bbox": [1, 2, 3, 5]}], 0),
        ([{"segmentation": SQUARE}, {"category_id": 3, "segmentation": SQUARE, "bbox": [1, 2, 3, 5]}], 1),
        ([{"segmentation": SQUARE}, {"category_id": 3, "segmentation": CORNER}], 0),
    ],
)
def test_objects_with_two_categories_are_counted(coco, others, counted):
    entries = coco[1]["annotations"]
    entries += [{**entries[0], "id": 9 + number, **other} for number, other in enumerate(others)]
    note = f"Objects that are annotated with two categories: {counted}."
    assert [one for one in opened(coco).notes if "two categories" in one] == ([note] if counted else [])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c["annotations"].append(None), r"annotations\[1\] is null, not an entry with image_id"),
        (lambda c: c["images"].append("3.png"), r'images\[2\] is "3.png", not an entry with id'),
        (update("annotations", 0, bbox=None), r"annotations\[0\] \(id 8\) has no bbox"),
        (update("annotations", 0, bbox=[1, 2, 3]), r"annotation 8: its bbox is \[1, 2, 3\], it needs the four numbers"),
        (update("annotations", 0, bbox=[1, 2, 3, float("nan")]), "annotation 8: its bbox is .*NaN.*it needs the four"),
        (update("annotations", 0, bbox=["1", 2, 3, 4]), 'annotation 8: its bbox is .*"1".*it needs the four numbers'),
        (update("annotations", 0, bbox={"x": 1}), "annotation 8: its bbox is .*it needs the four numbers"),
        (update("annotations", 0, iscrowd=2), "annotation 8: iscrowd is 2, it must be 0 or 1"),
        (update("annotations", 0, image_id=[2]), r"annotation 8: image_id is \[2\], it must be a number or text"),
        (update("annotations", 0, image_id=3), "annotation 8: there is no image 3"),
        (update("annotations", 0, category_id=4), "annotation 8: there is no category 4"),
        (update("images", 0, id=None), r"images\[0\] \(id None\) has no id"),
        (update("images", 0, id=True), r"images\[0\]: id is true, it must be a number or text"),
        (update("images", 0, id="2"), "has the image id 2 twice, for 1.png and 2.png"),
        (update("images", 0, file_name="2.png"), "lists 2.png twice, as image 1 and 2"),
        (update("images", 0, file_name=7), "image 1: file_name is 7, it must be text"),
        (update("images", 0, file_name="../a.json.png"), "lists the image ../a.json.png, which is not in"),
        (update("images", 0, width=30.5), "image 1: its size is 30.5x20, it must be whole pixels"),
        (update("images", 0, width="30"), "image 1: its size is 30x20, it must be whole pixels"),
        (update("images", 0, width=float("inf")), "image 1: its size is infx20, it must be whole pixels"),
        (update("categories", 0, id=3), "has the category id 3 twice, for 'dog' and 'cat'"),
        (update("categories", 0, name=None), r"categories\[0\] \(id 5\) has no name"),
        (update("categories", 0, name=["dog"]), r'category 5: its name is \["dog"\], it must be text'),
        (lambda c: c["categories"].clear(), "lists no categories"),
    ],
)
def test_entries_without_one_meaning_are_named(coco, change, text):
    change(coco[1])
    with pytest.raises(DataError, match=text):
        opened(coco)


def test_two_categories_of_one_name_with_objects_are_refused(coco):
    """F16: the last name won silently."""
    coco[1]["categories"][1]["name"] = "dog"
    coco[1]["annotations"].append({**coco[1]["annotations"][0], "id": 9, "category_id": 3})
    with pytest.raises(DataError, match="calls two categories 'dog', the ids 3 and 5"):
        opened(coco)


def test_entries_without_an_id_are_named_by_their_place(coco):
    coco[1]["annotations"][0].pop("id")
    assert opened(coco).images[1].entries[0].label == "annotations[0]"


def test_ids_are_compared_as_numbers_or_text():
    assert {identity(value, "x") for value in (7, 7.0, "7", " 7", "007")} == {"7"}
    assert identity("-7", "x") == "-7" and identity("a7", "x") == "a7"
    assert sorted(["b", "10", "9", "-1", "a"], key=order) == ["-1", "9", "10", "a", "b"]


def of_via(content: dict) -> dict:
    return {"1.png123": {"filename": "1.png", "size": 123, "regions": [], "file_attributes": {}}}


def without_names(content: dict) -> dict:
    images = [{"id": k, "coco_url": f"http://images.cocodataset.org/train2017/{k}.png"} for k in (1, 2)]
    return {**content, "images": images}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: {**c, "annotations": [{"image_id": 1, "segments_info": []}]}, "panoptic format .* instances_"),
        (
            without_names,
            "names its images by coco_url alone, as LVIS does; write the end of each coco_url into file_name",
        ),
        (of_via, "is a file of the VGG Image Annotator .* export its annotations in COCO's format"),
        (lambda c: {"_via_settings": {}, "_via_img_metadata": of_via(c)}, "is a file of the VGG Image Annotator"),
        (
            lambda c: {"images": []},
            "is not COCO's instances format, it needs the lists images, annotations, categories",
        ),
        (lambda c: {}, "is not COCO's instances format"),
        (lambda c: [c], "is not COCO's instances format"),
    ],
)
def test_files_of_other_formats_are_named(coco, change, text):
    """Each ended in a message on the first key that it lacks."""
    with pytest.raises(DataError, match=text):
        opened((coco[0], change(coco[1])))


def test_images_with_an_address_beside_their_name_are_read(coco):
    for image in coco[1]["images"]:
        image["coco_url"] = "http://images.cocodataset.org/train2017/1.png"
    assert len(opened(coco).images) == 2
