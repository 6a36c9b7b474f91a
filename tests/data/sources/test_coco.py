"""COCO's own files: masks as pycocotools draws them, contiguous categories, and files that cannot be used."""

import json

import numpy as np
import pytest
from PIL import Image

from scd.data.decoding import ORIENTATION
from scd.data.scene_set import load_scenes
from scd.data.sources.coco import OTHER_AREA, WHOLE, Coco
from scd.data.sources.coco_file import SHARED_IDS
from scd.data.sources.instance_maps import CUT, PERCENT, RECTANGLES, UPPER_LEFT
from scd.errors import DataError, UsageError


@pytest.fixture
def coco(tmp_path):
    """A folder of two images and its annotations: a polygon over a larger one, run lengths of a crowd; an empty one."""
    (tmp_path / "images").mkdir()
    for name in ("1.png", "2.png"):
        Image.new("RGB", (30, 20), (9, 9, 9)).save(tmp_path / "images" / name)
    content = {
        "images": [{"id": 7 * k, "file_name": f"{k}.png", "width": 30, "height": 20} for k in (1, 2)],
        "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"segmentation": [[8, 4, 12, 4, 12, 8, 8, 8]], "bbox": [8, 4, 4, 4], "category_id": 3},
            {"segmentation": [[6, 2, 20, 2, 20, 18, 6, 18]], "bbox": [6, 2, 14, 16], "category_id": 90},
            {"segmentation": {"counts": [0, 40, 560], "size": [20, 30]}, "bbox": [0, 0, 2, 20], "category_id": 3},
        ],
    }
    for number, annotation in enumerate(content["annotations"]):
        annotation.update(id=100 + number, image_id=7, iscrowd=int(number == 2))
    return tmp_path, content


def open_coco(coco) -> Coco:
    folder, content = coco
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return Coco(folder / "images", folder / "instances.json")


def test_coco_becomes_scenes(coco):
    source = open_coco(coco)
    assert source.mask_kind == "instances" and source.class_names == ("cat", "dog")
    row = source.split("train")[0]
    expected = np.zeros((20, 30), np.uint8)
    expected[:, :2], expected[2:18, 6:20], expected[4:8, 8:12] = 3, 2, 1
    np.testing.assert_array_equal(np.asarray(row["mask"]), expected)
    assert row["objects"]["category"] == [0, 1, 0]
    loaded = load_scenes(source, "train", 20)
    assert loaded.classes[0].tolist() == [0, 1] and loaded.boxes[0].tolist() == [[3, 4, 7, 8], [1, 2, 15, 18]]
    assert loaded.dropped == {"crowd": 1, "image without objects": 1} and loaded.classes[1].tolist() == []
    assert open_coco(coco).fingerprint == source.fingerprint


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c["images"][1].update(file_name="3.png"), "lists the image 3.png, which is not in"),
        (lambda c: c["annotations"][1].update(image_id=5), "annotation 101: there is no image 5"),
        (lambda c: c["annotations"][2].update(category_id=4), "annotation 102: there is no category 4"),
        (lambda c: c["annotations"][0].pop("bbox"), r"annotations\[0\] \(id 100\) has no bbox"),
        (lambda c: c["images"][1].update(id=7), "has the image id 7 twice, for 1.png and 2.png"),
        (lambda c: c.pop("categories"), "it needs the lists images, annotations, categories"),
        (lambda c: c["images"].clear(), "lists no images"),
        (
            lambda c: c["annotations"][2]["segmentation"].update(size=[30, 20]),
            r"annotation 102: its segmentation cannot be drawn \(its size is \[30, 20\], the image's \[20, 30\]\)",
        ),
        (
            lambda c: c["annotations"][2]["segmentation"].update(counts=[0, 40, 10]),
            r"annotation 102: its segmentation cannot be drawn \(its run lengths cover 50 pixels, the image has 600\)",
        ),
        (
            lambda c: c["annotations"][0].update(segmentation=[["x"] * 8]),
            "annotation 100: its segmentation cannot be drawn",
        ),
    ],
)
def test_bad_coco_files_say_so(coco, change, text):
    change(coco[1])
    with pytest.raises(DataError, match=text):
        open_coco(coco)


def test_missing_coco_files_say_so(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the annotations '.*none.json': No such file"):
        Coco(tmp_path, tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"'.*bad.json' is not JSON"):
        Coco(tmp_path, tmp_path / "bad.json")
    with pytest.raises(UsageError, match="give test_images and test_annotations together"):
        Coco(tmp_path, tmp_path / "bad.json", test_images=tmp_path)


def test_masks_are_those_of_pycocotools(tmp_path):
    """Random polygons, run lengths and compressed run lengths of one image, one object each."""
    reference = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    expected = []
    for number in range(30):
        height, width = (int(side) for side in random.integers(8, 40, 2))
        Image.new("RGB", (width, height)).save(tmp_path / "images" / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        if number % 3 == 0:
            corners = (random.random((int(random.integers(3, 8)), 2)) * [width, height]).ravel().tolist()
            shape, runs = [corners], reference.merge(reference.frPyObjects([corners], height, width))
        else:
            runs = reference.encode(np.asfortranarray(random.random((height, width)) < 0.4, np.uint8))
            shape = {"size": [height, width], "counts": runs["counts"].decode()}
            if number % 3 == 1:
                flat = reference.decode(runs).ravel(order="F")
                changes = np.flatnonzero(np.diff(flat, prepend=0, append=2))
                shape["counts"] = np.diff(changes, prepend=0).tolist()
        expected.append(reference.decode(runs))
        entry = {
            "id": number,
            "image_id": number,
            "category_id": 1,
            "bbox": reference.toBbox(runs).tolist(),
            "segmentation": shape,
        }
        content["annotations"].append(entry)
    source = open_coco((tmp_path, content))
    for row, mask in zip(source.split("train"), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(row["mask"]), mask)


def test_each_split_has_a_fingerprint_of_its_own(coco):
    folder, content = coco
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "other.json").write_text(
        json.dumps({**content, "annotations": content["annotations"][:1]}), encoding="utf-8"
    )
    files = {name: Coco(folder / "images", folder / "instances.json", folder / "images", folder / name)
             for name in ("instances.json", "other.json")}  # fmt: skip
    first, second = files["instances.json"].fingerprints, files["other.json"].fingerprints
    assert first["train"] == second["train"] == first["test"] != second["test"]
    content["categories"].append({"id": 5, "name": "cow"})
    (folder / "other.json").write_text(json.dumps(content), encoding="utf-8")
    both = Coco(folder / "images", folder / "instances.json", folder / "images", folder / "other.json")
    assert both.class_names == ("cat", "dog")  # a category without objects adds no class
    content["annotations"][0]["category_id"] = 5
    (folder / "other.json").write_text(json.dumps(content), encoding="utf-8")
    text = "the categories of '.*instances.json' and '.*other.json' differ: annotation 100 is of the category 'cow'"
    with pytest.raises(DataError, match=text):
        Coco(folder / "images", folder / "instances.json", folder / "images", folder / "other.json")


def test_splits_are_aligned_by_the_names_of_their_categories(coco):
    folder, content = coco
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    swapped = {3: "dog", 90: "cat"}
    content["categories"] = [{"id": key, "name": name} for key, name in swapped.items()]
    for annotation in content["annotations"]:
        annotation["category_id"] = {3: 90, 90: 3}[annotation["category_id"]]
    (folder / "other.json").write_text(json.dumps(content), encoding="utf-8")
    both = Coco(folder / "images", folder / "instances.json", folder / "images", folder / "other.json")
    train, test = (both.split(split)[0]["objects"]["category"] for split in ("train", "test"))
    assert train == test == [0, 1, 0]


def test_replaced_pixels_are_another_set(coco):
    """F4: files of one size were one content."""
    folder, content = coco
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace("png", "bmp")
    for k in (1, 2):
        Image.new("RGB", (30, 20), (9, 9, 9)).save(folder / "images" / f"{k}.bmp")
    before = open_coco(coco).fingerprint
    size = (folder / "images" / "1.bmp").stat().st_size
    Image.new("RGB", (30, 20), (200, 9, 9)).save(folder / "images" / "1.bmp")
    assert (folder / "images" / "1.bmp").stat().st_size == size
    assert open_coco(coco).fingerprint != before


# ---------------------------------------------------------------- what other tools write


def boxes_and_map(source: Coco) -> tuple[list, np.ndarray]:
    row = source.split("train")[0]
    return row["objects"]["bbox"], np.asarray(row["mask"])


def test_objects_without_a_segmentation_get_their_box(coco):
    """Exports of boxes alone had no visible object, and every one was dropped as hidden."""
    for annotation, nothing in zip(coco[1]["annotations"], ([], None, "absent"), strict=True):
        annotation["segmentation"] = nothing
        if nothing == "absent":
            del annotation["segmentation"]
    source = open_coco(coco)
    expected = np.zeros((20, 30), np.uint8)
    expected[:, :2], expected[2:18, 6:20], expected[4:8, 8:12] = 3, 2, 1
    np.testing.assert_array_equal(boxes_and_map(source)[1], expected)
    assert source.notes == ("train: Objects without a segmentation, whose boxes are drawn filled: 3.",)


@pytest.mark.parametrize("nothing", [[[]], [[], []]])
def test_segmentations_without_numbers_are_none(coco, nothing):
    """Their objects were left out."""
    coco[1]["annotations"][0]["segmentation"] = []
    expected = boxes_and_map(open_coco(coco))[1]
    coco[1]["annotations"][0]["segmentation"] = nothing
    source = open_coco(coco)
    np.testing.assert_array_equal(boxes_and_map(source)[1], expected)
    assert source.notes == ("train: Objects without a segmentation, whose boxes are drawn filled: 1.",)


@pytest.mark.parametrize(
    "written",
    [lambda a, b, c, d: [[a, b, c, d]], lambda a, b, c, d: [a, b, c, d], lambda a, b, c, d: [[a, b], [c, d + 0.5]]],
)
def test_segmentations_of_the_corners_of_boxes_are_none(coco, written):
    """Exports of boxes alone lost all of their objects."""
    annotations = coco[1]["annotations"]
    for annotation in annotations[:2]:
        x, y, w, h = annotation["bbox"]
        annotation["segmentation"] = written(x, y, x + w, y + h)
    left_out = (
        "train: Objects whose segmentation covers no pixel (points, lines, outside its image), which are left out: 2.",
    )
    assert open_coco(coco).notes == left_out  # lines: the third object has another segmentation
    annotations[2]["segmentation"] = [[]]
    source = open_coco(coco)
    expected = np.zeros((20, 30), np.uint8)
    expected[:, :2], expected[2:18, 6:20], expected[4:8, 8:12] = 3, 2, 1
    np.testing.assert_array_equal(boxes_and_map(source)[1], expected)
    assert source.notes == ("train: Objects without a segmentation, whose boxes are drawn filled: 3.",)
    annotations[0]["segmentation"] = [[12, 4, 8, 8]]  # the other diagonal
    assert left_out[0] in open_coco(coco).notes


def test_polygons_in_other_lists(coco):
    """One flat list, and lists of corners, mean the same polygon."""
    expected = boxes_and_map(open_coco(coco))[1]
    flat = coco[1]["annotations"][0]["segmentation"][0]
    corners = [flat[k : k + 2] for k in range(0, 8, 2)]
    for shape in (flat, corners, [corners]):
        coco[1]["annotations"][0]["segmentation"] = shape
        np.testing.assert_array_equal(boxes_and_map(open_coco(coco))[1], expected)


@pytest.mark.parametrize("polygon", [[8, 4, 12, 4], [8, 4, 12, 4, 10, 4], [8, 4, 8, 4, 8, 4], [40, 4, 44, 4, 44, 8]])
def test_segmentations_without_area_are_counted(coco, polygon):
    """A point, a line and a polygon beside its image were left out without a word."""
    coco[1]["annotations"][0]["segmentation"] = [polygon]
    source = open_coco(coco)
    assert source.notes == (
        "train: Objects whose segmentation covers no pixel (points, lines, outside its image), which are left out: 1.",
    )
    assert load_scenes(source, "train", 20).dropped["hidden"] == 1


def test_segmentations_of_whole_images_are_counted(coco):
    coco[1]["annotations"][0].update(segmentation=[[0, 0, 30, 0, 30, 20, 0, 20]], bbox=[0, 0, 30, 20])
    assert open_coco(coco).notes == ("train: Objects whose segmentation covers its whole image: 1.",)


@pytest.mark.parametrize(
    "moved",
    [
        lambda x, y: (y, x),
        lambda x, y: (30 - x, y),
        lambda x, y: (0.5 * x, 0.5 * y),
        lambda x, y: (x + 8, y),
    ],
    ids=["exchanged", "mirrored", "scaled", "shifted"],
)
def test_boxes_and_segmentations_that_do_not_belong_together_are_refused(coco, moved):
    """Polygons in other pixels than their boxes: some were found late, some never."""
    content = coco[1]
    content["annotations"] = content["annotations"][:1]
    content["annotations"].append({**content["annotations"][0], "id": 7, "image_id": 14, "bbox": [18, 2, 6, 3]})
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        corners = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
        annotation["segmentation"] = [[value for corner in corners for value in moved(*corner)]]
    text = "2 of 2 boxes overlap by less than half with their segmentation; one of the two has another scale"
    with pytest.raises(DataError, match=text):
        open_coco(coco)


def test_few_boxes_that_lie_elsewhere_are_counted(coco):
    coco[1]["annotations"][0]["bbox"] = [20, 14, 4, 4]
    what = (
        "Objects whose box and segmentation overlap by less than half (IoU of the box with the segmentation's extent)"
    )
    assert open_coco(coco).notes == (f"train: {what}: 1.",)


def test_polygons_may_leave_the_image_a_little(coco):
    coco[1]["annotations"][1].update(segmentation=[[-3, 2, 20, 2, 20, 25, -3, 25]], bbox=[0, 2, 20, 18])
    drawn = boxes_and_map(open_coco(coco))[1]
    assert (drawn[2:, 2:20] > 0).all() and not drawn[:, 20:].any()


@pytest.mark.parametrize(
    ("segmentation", "text"),
    [
        ([[8, 4, 12, 4, 12, float("nan")]], r"the corner \(12, nan\) does not lie in or near the image"),
        ([[8, 4, 12, 4, -1e9, 8]], r"the corner \(-1e\+09, 8\) does not lie in or near the image"),
        ([[8, 4, 12, 4, 12, 8, 8]], "a polygon has 7 numbers, they are pairs of x and y"),
        ([[8, 4, 12, None, 12, 8]], "a polygon is no list of numbers"),
        ([[8, 4, 12, 4, 12, 8], 8], "a polygon is no list of numbers"),
        ("polygon", "it is str, not polygons or run lengths"),
        ([[0.2, 0.1, 0.9, 0.1, 0.9, 0.8]], "its corners are shares of the image; COCO's are in pixels"),
        ({"counts": [0, -40, 640], "size": [20, 30]}, "a run length is negative or no whole number"),
        ({"counts": [0, float("nan")], "size": [20, 30]}, "a run length is negative or no whole number"),
        ({"counts": "0", "size": [20, 30]}, "its run lengths cover 0 pixels, the image has 600"),
        ({"counts": "~~", "size": [20, 30]}, "its compressed run lengths are damaged"),
        ({"counts": [600]}, "run lengths need size and counts"),
    ],
)
def test_shapes_are_checked_before_they_are_drawn(coco, segmentation, text):
    """F17: uninitialised memory, an endless loop and an OverflowError."""
    coco[1]["annotations"][0]["segmentation"] = segmentation
    with pytest.raises(DataError, match=rf"annotation 100: its segmentation cannot be drawn \({text}"):
        open_coco(coco)


def test_boxes_that_are_corners_are_refused(coco):
    for annotation in coco[1]["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x, y, x + w, y + h]
    with pytest.raises(DataError, match="its boxes are x0, y0, x1, y1; COCO's are x, y, width, height"):
        open_coco(coco)
    for annotation in coco[1]["annotations"]:
        annotation["segmentation"] = []
    coco[1]["annotations"][0]["bbox"] = [16, 10, 28, 18]  # leaves the image as x, y, w, h
    with pytest.raises(DataError, match="its boxes are x0, y0, x1, y1; COCO's are x, y, width, height"):
        open_coco(coco)


def test_boxes_that_are_shares_are_refused(coco):
    for annotation in coco[1]["annotations"]:
        annotation["bbox"] = [value / 40 for value in annotation["bbox"]]
    with pytest.raises(DataError, match="its boxes are shares of the image; COCO's are in pixels"):
        open_coco(coco)


def test_boxes_outside_the_image_and_without_area_are_counted(coco):
    content = coco[1]
    content["annotations"][0].update(bbox=[28, 4, 10, 4], segmentation=[])
    content["annotations"][1].update(bbox=[40, 4, 10, 4], segmentation=[])
    content["annotations"].append({**content["annotations"][0], "id": 103, "bbox": [4, 4, 0, 4]})
    loaded = load_scenes(open_coco(coco), "train", 20)
    assert loaded.dropped == {
        "crowd": 1, "empty box": 2, "clipped box": 1, "off canvas": 1, "image without objects": 2
    }  # fmt: skip


def test_a_split_without_objects_is_refused(coco):
    """Nothing was said, in train or in test."""
    folder, content = coco
    open_coco(coco)
    (folder / "other.json").write_text(json.dumps({**content, "annotations": []}), encoding="utf-8")
    with pytest.raises(DataError, match="'train' of '.*other.json' holds no object, its list of annotations is empty"):
        Coco(folder / "images", folder / "other.json")
    with pytest.raises(DataError, match="'test' of '.*other.json' holds no object, its list of annotations is empty"):
        Coco(folder / "images", folder / "instances.json", folder / "images", folder / "other.json")


def test_many_crowds_are_noted_and_crowds_alone_refused(coco):
    """All objects were dropped, which the last table alone said."""
    annotations = coco[1]["annotations"]
    assert open_coco(coco).notes == ()
    annotations[1]["iscrowd"] = 1
    note = "train: Annotations with iscrowd=1, which are not scored as objects: 2 of 3 (67%)."
    assert open_coco(coco).notes == (note,)
    annotations[0]["iscrowd"] = 1
    text = "'train' of '.*instances.json' holds no object that is not a crowd: all of its 3 annotations have iscrowd=1"
    with pytest.raises(DataError, match=text):
        open_coco(coco)


@pytest.mark.parametrize(
    ("attributes", "turned"),
    [
        ({"occluded": False, "rotation": 45.0}, True),
        ({"rotation": "-90"}, True),
        ({"rotation": 0.0}, False),
        ({"rotation": 180}, False),
        ({"rotation": True}, False),
        ({"rotation": "left"}, False),
        ({}, False),
        ([], False),
        (None, False),
    ],
)
def test_boxes_with_a_rotation_are_noted(coco, attributes, turned):
    """CVAT's boxes that were turned by 45 degrees counted as upright, without a word."""
    for annotation in coco[1]["annotations"]:
        annotation["attributes"] = attributes
    assert open_coco(coco).notes == ()  # the segmentations show the shapes
    for annotation in coco[1]["annotations"][:2]:
        annotation["segmentation"] = []
    note = (
        "train: Boxes with a rotation (attributes.rotation) and without a segmentation, which are taken as upright; "
        "polygons would keep their shape: 2."
    )
    assert (note in open_coco(coco).notes) == turned and len(open_coco(coco).notes) == 1 + turned


# ---------------------------------------------------------------- the pictures


def test_a_broken_image_is_named(coco):
    (coco[0] / "images" / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"'.*2.png' cannot be decoded \(not an image"):
        open_coco(coco)


def test_sizes_that_are_not_the_pictures_are_refused(coco):
    coco[1]["images"][0].update(width=20, height=30)
    with pytest.raises(DataError, match=r"'.*1.png' is 30x20, its annotations are for a picture of 20x30"):
        open_coco(coco)


def test_annotations_belong_to_the_upright_picture(coco):
    """F8: the picture lay on its side. Its left half is white; the box and polygon of the first object lie there."""
    folder, content = coco
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    Image.fromarray(pixels[::-1, ::-1].copy()).save(folder / "images" / "1.png", exif=exif)
    content["annotations"] = [{**content["annotations"][0], "segmentation": [[0, 0, 15, 0, 15, 20, 0, 20]]}]
    content["annotations"][0]["bbox"] = [0, 0, 15, 20]
    source = open_coco(coco)
    loaded = load_scenes(source, "train", 20)
    assert (loaded.images[0][:, loaded.instances[0][0]] == 255).all()
    turned = "train: Images with an EXIF orientation, whose annotations count as drawn on the upright picture: 1."
    assert source.notes == (turned,)
    exif[ORIENTATION] = 6
    Image.fromarray(pixels).save(folder / "images" / "1.png", exif=exif)
    with pytest.raises(DataError, match="is stored as 30x20 and turned to 20x30 by its EXIF orientation"):
        open_coco(coco)


def test_boxes_of_pictures_that_were_halved_are_refused(tmp_path):
    Coco.example(tmp_path)
    content = json.loads((tmp_path / "train.json").read_text())
    for image in content["images"]:
        del image["width"], image["height"]
        file = tmp_path / "train" / image["file_name"]
        picture = Image.open(file)
        picture.resize((picture.width // 4, picture.height // 4)).save(file)
    for entry in content["annotations"]:
        entry["segmentation"] = []
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="train.json': 8 of 8 boxes leave their image"):
        Coco(tmp_path / "train", tmp_path / "train.json")


@pytest.mark.parametrize("drawn", [True, False])
def test_boxes_of_centre_width_and_height_are_refused(tmp_path, drawn):
    """They gave masks of another place, without a word."""
    Coco.example(tmp_path)
    content = json.loads((tmp_path / "train.json").read_text())
    if drawn:
        for entry in content["annotations"]:
            x, y, w, h = entry["bbox"]
            entry["bbox"] = [x + w / 2, y + h / 2, w, h]
    else:
        content["annotations"] = [
            {**entry, "id": 1000 * k + entry["id"], "bbox": box, "segmentation": []}
            for k, box in enumerate(([3, 3, 6, 6], [1, 10, 2, 3], [11, 9, 8.5, 8]))
            for entry in content["annotations"]
        ]
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="train.json': its boxes are centre, width, height; COCO's are x, y"):
        Coco(tmp_path / "train", tmp_path / "train.json")


# ---------------------------------------------------------------- what counts, but may be meant otherwise


def test_categories_that_are_almost_alike_are_noted(coco):
    folder, content = coco
    content["categories"] = [{"id": 90, "name": "Cat"}, {"id": 3, "name": "cat"}, {"id": 4, "name": "CAT"}]
    note = "Categories that are almost alike: 'cat' and 'Cat'."
    assert open_coco(coco).notes == (note,)  # no object is a CAT
    (folder / "other.json").write_text(
        json.dumps({**content, "annotations": content["annotations"][1:2]}), encoding="utf-8"
    )
    content["annotations"] = content["annotations"][:1]
    assert open_coco(coco).notes == ()
    both = Coco(folder / "images", folder / "instances.json", folder / "images", folder / "other.json")
    assert both.notes == (note,)


def test_images_without_objects_are_noted_where_they_are_most(coco):
    assert open_coco(coco).notes == ()
    Image.new("RGB", (30, 20)).save(coco[0] / "images" / "3.png")
    coco[1]["images"].append({"id": 3, "file_name": "3.png"})
    (note,) = open_coco(coco).notes
    assert note.startswith("train: Images without objects, which count as negatives: 2 of 3. Leave out those")


def test_boxes_in_percent_are_noted(coco):
    folder, content = coco
    for image in content["images"]:
        image.update(width=300, height=190)  # the boxes leave the left upper quarter
        Image.new("RGB", (300, 190)).save(folder / "images" / image["file_name"])
    first = content["annotations"][0]
    content["annotations"] = [
        {**first, "id": k, "image_id": 7 * (1 + k % 2), "bbox": [4 * k, 0, 20, 100], "segmentation": []}
        for k in range(20)
    ]
    boxes_drawn = "train: Objects without a segmentation, whose boxes are drawn filled: {}."
    assert open_coco(coco).notes == (boxes_drawn.format(20), f"train: {PERCENT}")
    content["annotations"][0]["segmentation"] = [[0, 0, 20, 0, 20, 100, 0, 100]]
    assert open_coco(coco).notes == (boxes_drawn.format(19),)


def test_images_at_an_absolute_place_are_read(coco):
    """A traceback."""
    folder, content = coco
    before = open_coco(coco)
    (folder / "elsewhere").mkdir()
    (folder / "images" / "2.png").rename(folder / "elsewhere" / "2.png")
    content["images"][1]["file_name"] = str(folder / "elsewhere" / "2.png")
    assert len(open_coco(coco).split("train")) == len(before.split("train")) == 2


@pytest.mark.parametrize(("factor", "noted"), [(1, False), (2, True), (4, True)])
def test_images_that_were_enlarged_after_they_were_annotated_are_noted(coco, factor, noted):
    """Boxes and polygons covered a part of each image without a word: the sizes were left out."""
    folder, content = coco
    for image in content["images"]:
        del image["width"], image["height"]
        Image.new("RGB", (30 * factor, 20 * factor)).save(folder / "images" / image["file_name"])
    shape = [[4, 2, 30, 2, 30, 20, 4, 20]]
    content["annotations"] = [
        {"id": k, "image_id": 7 * (1 + k % 2), "bbox": [4, 2, 26, 18], "segmentation": shape, "category_id": k // 2}
        for k in range(20)
    ]
    content["categories"] = [{"id": k, "name": f"c{k}"} for k in range(10)]
    found = [note for note in open_coco(coco).notes if "upper quarter" in note]
    assert found == ([f"train: {UPPER_LEFT.format(20)}"] if noted else [])


@pytest.mark.parametrize("name", ["__background__", "Background", "backgrounds"])
def test_a_category_called_background_is_noted(coco, name):
    coco[1]["categories"][0]["name"] = name
    note = f"Objects of the category '{name}', which count as objects of a class: 1."
    assert [one for one in open_coco(coco).notes if "of the category" in one] == ([note] if name[-1] != "s" else [])


@pytest.mark.parametrize("name", ["DontCare", "ignored regions", "ignore", "don't care", "void"])
def test_categories_of_regions_to_be_ignored_are_noted(coco, name):
    """KITTI's and VisDrone's: regions that hold anything were objects of a class without a word."""
    coco[1]["categories"][0]["name"] = name
    note = f"Objects of the category '{name}', which count as objects of a class: 1."
    assert note in open_coco(coco).notes


def rectangles(coco, count: int, width: int = 300, height: int = 190) -> list[dict]:
    """So many annotations with a polygon, a box and an area that agree, of large images."""
    folder, content = coco
    for image in content["images"]:
        image.update(width=width, height=height)
        Image.new("RGB", (width, height)).save(folder / "images" / image["file_name"])
    content["annotations"] = []
    for k in range(count):
        x, y, w, h = 10 * k, 20, width - 10 * k - 5, 150
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        entry = {"id": k, "image_id": 7 * (1 + k % 2), "category_id": 3, "bbox": [x, y, w, h], "area": w * h}
        content["annotations"].append({**entry, "segmentation": [corners]})
    return content["annotations"]


def with_hole(entry: dict) -> None:
    """A second polygon inside the first one, which tools of other formats mean as a hole."""
    x, y, w, h = entry["bbox"]
    hole = [x + 5, y + 5, x + w - 5, y + 5, x + w - 5, y + h - 5, x + 5, y + h - 5]
    entry["segmentation"].append(hole)
    entry["area"] -= (w - 10) * (h - 10)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda entry: None, 0),
        (lambda entry: entry.update(area=4 * entry["area"]), 20),  # annotated on images of twice the size
        (with_hole, 20),
        (lambda entry: entry.update(area=0), 0),
        (lambda entry: entry.update(area="large"), 0),
        (lambda entry: entry.update(area=1.2 * entry["area"]), 0),
        (lambda entry: entry.update(area=9 * entry["area"], iscrowd=entry["id"] > 0), 0),  # one object that is scored
    ],
)
def test_areas_that_contradict_what_is_drawn_are_noted(coco, change, count):
    for entry in rectangles(coco, 20):
        change(entry)
    notes = [note for note in open_coco(coco).notes if OTHER_AREA in note]
    assert notes == ([f"train: {OTHER_AREA}: {count}."] if count else [])


def test_the_area_of_the_box_is_one(coco):
    """Some tools write it beside a polygon."""
    for entry in rectangles(coco, 20):
        x, y, w, h = entry["bbox"]
        entry["segmentation"] = [[x, y, x + w, y, x, y + h]]
    assert open_coco(coco).notes == ()


def test_boxes_of_y_and_x_are_refused(coco):
    """Of images that are not square; three of 20 boxes left their image, which was noted as a cut at the border."""
    for entry in rectangles(coco, 20):
        x, y, w, h = entry["bbox"]
        entry.update(bbox=[y, x, h, w], segmentation=[])
    with pytest.raises(DataError, match="instances.json': its boxes fit into their images as y, x, height, width alo"):
        open_coco(coco)
    for entry in rectangles(coco, 20):
        entry["segmentation"] = []
    coco[1]["annotations"][0]["bbox"] = [200, 20, 150, 100]  # one that leaves its image means nothing
    assert any(note.startswith(f"train: {CUT}") for note in open_coco(coco).notes)


@pytest.mark.parametrize(("whole", "noted"), [(20, True), (11, True), (10, False)])
def test_boxes_of_whole_images_are_noted_where_they_are_most(coco, whole, noted):
    """Labels of images that were written as boxes."""
    annotations = rectangles(coco, 20)
    coco[1]["categories"] += [{"id": 100 + k, "name": f"c{k}"} for k in range(20)]
    for entry in annotations:
        entry.update(segmentation=[], area=None, category_id=100 + entry["id"])
        if entry["id"] < whole:
            entry["bbox"] = [0, 0, 300, 190]
    found = [note for note in open_coco(coco).notes if WHOLE in note]
    assert found == ([f"train: {WHOLE}: {whole}."] if noted else [])


@pytest.mark.parametrize(("number", "noted"), [(11, True), (10, False)])
def test_segmentations_that_are_rectangles_are_noted_where_they_are_most(coco, number, noted):
    """Turned boxes as polygons: masks were scored that no one had drawn."""
    for entry in rectangles(coco, 20):
        x, y, width, height = entry["bbox"]
        corner = x + width / 2 if entry["id"] >= number else x
        entry["segmentation"] = [[corner, y, x + width, y, x + width, y + height, x, y + height]]
    found = [note for note in open_coco(coco).notes if RECTANGLES in note]
    assert found == ([f"train: {RECTANGLES}: {number}."] if noted else [])


def test_annotations_that_share_an_id_are_noted(coco):
    """Parts of one object under one id, as groups of Datumaro, were several objects."""
    for entry in rectangles(coco, 6):
        entry["id"] = entry["id"] // 2 if entry["id"] < 4 else entry["id"]
    assert f"train: {SHARED_IDS}: 4 of 6." in open_coco(coco).notes
    rectangles(coco, 6)
    assert not any(SHARED_IDS in note for note in open_coco(coco).notes)
