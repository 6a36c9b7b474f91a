"""COCO's own files: masks as pycocotools draws them, contiguous categories, and files that cannot be used."""

import json

import numpy as np
import pytest
from PIL import Image

from scd.data.scene_set import load_scenes
from scd.data.sources.coco import Coco
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
        (lambda c: c["images"][1].update(id=7), "lists 2 images, but only 1 ids"),
        (lambda c: c.pop("categories"), "it needs the lists images, annotations, categories"),
        (lambda c: c["images"].clear(), "lists no images"),
        (
            lambda c: c["annotations"][2]["segmentation"].update(size=[30, 20]),
            r"annotation 102: its segmentation cannot be drawn \(its size is \[30, 20\], the image's \[20, 30\]\)",
        ),
        (
            lambda c: c["annotations"][2]["segmentation"].update(counts=[0, 40, 10]),
            r"annotation 102: its segmentation cannot be drawn \(.*decoded 50 pixels but expected 600",
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
        entry = {"id": number, "image_id": number, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": shape}
        content["annotations"].append(entry)
    source = open_coco((tmp_path, content))
    for row, mask in zip(source.split("train"), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(row["mask"]), mask)


def test_each_split_has_a_fingerprint_of_its_own(coco):
    folder, content = coco
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "other.json").write_text(json.dumps({**content, "annotations": []}), encoding="utf-8")
    files = {name: Coco(folder / "images", folder / "instances.json", folder / "images", folder / name)
             for name in ("instances.json", "other.json")}  # fmt: skip
    first, second = files["instances.json"].fingerprints, files["other.json"].fingerprints
    assert first["train"] == second["train"] == first["test"] != second["test"]
    content["categories"].append({"id": 5, "name": "cow"})
    (folder / "other.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="the categories of '.*instances.json' and '.*other.json' differ"):
        Coco(folder / "images", folder / "instances.json", folder / "images", folder / "other.json")
