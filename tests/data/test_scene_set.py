"""Scenes in memory: from the generator, from COCO's format and from class maps; what bad entries lead to."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from scd.data.scene_set import load_scenes
from scd.data.sources.coco import coco_source
from scd.data.sources.scenes import scenes
from scd.data.sources.source import Source, open_source
from scd.errors import DataError, UsageError

NAMES = ["cat", "dog", "cow"]


def png(pixels: np.ndarray) -> dict:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def coco_like(mask: np.ndarray, objects: list[dict], names: list[str] | None = NAMES, images: int = 1) -> Source:
    """Rows with this instance map, these objects and an image whose red is x and whose green is y."""
    y, x = np.indices(mask.shape).astype(np.uint8)
    category = ClassLabel(names=names) if names else Value("int64")
    fields = {"bbox": List(Value("float32")), "category": category, "iscrowd": Value("int32")}
    features = Features(image=ImageFeature(), mask=ImageFeature(), objects=List(fields))
    columns = {"image": png(np.stack([x, y, 0 * x], axis=2)), "mask": png(mask), "objects": objects}
    dataset = Dataset.from_dict({name: [value] * images for name, value in columns.items()}, features=features)
    class_names = None if names else tuple(NAMES)
    return Source("scrap", "1", {"train": dataset}, "f", class_names, None, "instances", "a test")


def entry(bbox, category=0, iscrowd=0) -> dict:
    return {"bbox": bbox, "category": category, "iscrowd": iscrowd}


def two_objects() -> np.ndarray:
    """A map of 40 x 20: object 1 on columns 12 to 17 and rows 4 to 9, object 2 on columns 28 to 35 and rows 6 to 17."""
    mask = np.zeros((20, 40), np.uint8)
    mask[4:10, 12:18] = 1
    mask[6:18, 28:36] = 2
    return mask


def test_scenes_of_the_generator_are_what_was_drawn():
    source = scenes(size=32, train=20, test=5)
    loaded = load_scenes(source, "train", 32, limit=15)
    assert len(loaded) == 15 and loaded.images.shape == (15, 3, 32, 32) and loaded.dropped == {}
    assert loaded.class_names == source.class_names
    assert loaded.segment_names == source.class_names + source.background_names
    for i, record in enumerate(source.split("train").select(range(15))):
        instances = np.asarray(record["instances"])
        np.testing.assert_array_equal(loaded.images[i].permute(1, 2, 0).numpy(), np.asarray(record["image"]))
        np.testing.assert_array_equal(loaded.semantic[i].numpy(), np.asarray(record["semantic"]))
        np.testing.assert_array_equal(loaded.instances[i].any(dim=0).numpy(), instances > 0)
        for k, (mask, box, kind) in enumerate(
            zip(loaded.instances[i], loaded.boxes[i], loaded.classes[i], strict=True)
        ):
            np.testing.assert_array_equal(mask.numpy(), instances == k + 1)
            y, x = mask.nonzero().unbind(dim=1)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert (loaded.semantic[i][mask] == kind).all()
        assert set(loaded.present[i].nonzero()[:, 0].tolist()) == set(record["objects"]["category"])


def test_boxes_masks_and_pixels_move_together_onto_the_canvas():
    """40 x 20 onto 40: the central 20 columns, twice as large; the second object is cut at the canvas's border."""
    source = coco_like(two_objects(), [entry([12, 4, 6, 6], 1), entry([28, 6, 8, 12], 2)])
    loaded = load_scenes(source, "train", 40)
    assert loaded.boxes[0].tolist() == [[4, 8, 16, 20], [36, 12, 40, 36]] and loaded.classes[0].tolist() == [1, 2]
    for mask, box in zip(loaded.instances[0], loaded.boxes[0], strict=True):
        x0, y0, x1, y1 = box.int().tolist()
        expected = torch.zeros(40, 40, dtype=torch.bool)
        expected[y0:y1, x0:x1] = True
        assert torch.equal(mask, expected)
        red, green = (float(channel[mask].float().mean()) + 0.5 for channel in loaded.images[0, :2])
        assert 10 + (x0 + x1) / 4 == pytest.approx(red, abs=0.6)  # red is the column in the file
        assert (y0 + y1) / 4 == pytest.approx(green, abs=0.6)
    assert loaded.segment_names == ("background", "cat", "dog", "cow")
    assert loaded.semantic[0].unique().tolist() == [0, 2, 3] and loaded.dropped == {}
    small = load_scenes(source, "train", 10)
    assert small.boxes[0].tolist() == [[1, 2, 4, 5], [9, 3, 10, 9]]


def test_unusable_entries_are_dropped_clipped_and_counted():
    mask = two_objects()
    mask[0:3, 12:16] = 3  # a crowd
    mask[19, 20] = 4  # of a box without height
    mask[0:5, 0:5] = 6  # left of the canvas
    objects = [entry([12, 4, 6, 6]), entry([28, 6, 30, 12], 1), entry([12, 0, 4, 3], 2, iscrowd=1)]
    objects += [entry([20, 19, 1, 0]), entry([3, 3, 2, 2]), entry([0, 0, 5, 5])]
    loaded = load_scenes(coco_like(mask, objects), "train", 20)
    assert loaded.classes[0].tolist() == [0, 1] and loaded.boxes[0].tolist() == [[2, 4, 8, 10], [18, 6, 20, 18]]
    assert loaded.dropped == {"crowd": 1, "empty box": 1, "hidden": 1, "clipped box": 1, "off canvas": 1}
    assert (loaded.semantic[0, 0:3, 2:6] == 255).all() and (loaded.semantic[0] == 255).sum() == 12
    assert loaded.present.tolist() == [[True, True, False]]


def test_images_without_objects_stay():
    loaded = load_scenes(coco_like(np.zeros((20, 20), np.uint8), [], images=2), "train", 20)
    assert len(loaded) == 2 and loaded.dropped == {"image without objects": 2}
    assert [tuple(masks.shape) for masks in loaded.instances] == [(0, 20, 20)] * 2
    assert loaded.boxes[1].shape == (0, 4) and not loaded.present.any() and not loaded.semantic.any()


def test_class_maps_have_segments_and_no_objects():
    mask = np.repeat(np.array([[0, 1], [3, 11], [255, 3]], np.uint8), 8, axis=0).repeat(12, axis=1)
    dataset = Dataset.from_dict(
        {"image": [png(np.zeros((24, 24, 3), np.uint8))], "mask": [png(mask)]},
        features=Features(image=ImageFeature(), mask=ImageFeature()),
    )
    source = Source("street", "1", {"train": dataset}, "f", None, None, "classes", "a test")
    loaded = load_scenes(source, "train", 24, ignore=(11,))
    np.testing.assert_array_equal(loaded.semantic[0].numpy(), np.where(mask == 11, 255, mask))
    assert loaded.segment_names == ("class 0", "class 1", "class 2", "class 3") and loaded.class_names == ()
    assert loaded.instances[0].shape == (0, 24, 24) and loaded.present.shape == (1, 0) and loaded.dropped == {}
    named = load_scenes(source, "train", 24, ignore=(11,), segment_names="abcd")
    assert named.segment_names == ("a", "b", "c", "d")
    with pytest.raises(DataError, match="'street' row 0: the mask holds the class 11, it must lie in 0 to 3"):
        load_scenes(source, "train", 24, segment_names="abcd")


@pytest.mark.parametrize(
    ("objects", "text"),
    [
        ([entry([12, 4, 6, 6])], "'scrap' row 0: the mask shows object number 2, the row lists 1 objects"),
        ([entry([12, 4, 6, 6]), entry([0, 0, 3, 3])], "row 0 object 1: none of its pixels in the mask lie in its box"),
        ([entry([12, 4, 6, 6], -1)] * 2, "row 0 object 0: the category is -1, it must lie in 0 to 2"),
        ([entry([12, 4, 6])] * 2, r"row 0 object 0: the box is \[12.0, 4.0, 6.0\], it needs four finite numbers"),
        ([entry([12, 4, np.nan, 6])] * 2, "row 0 object 0: the box is .*nan.*, it needs four finite numbers"),
    ],
)
def test_objects_that_do_not_fit_say_so(objects, text):
    with pytest.raises(DataError, match=text):
        load_scenes(coco_like(two_objects(), objects), "train", 20)


def test_categories_without_a_class_label_go_by_the_sources_names():
    right = [entry([12, 4, 6, 6], 2), entry([28, 6, 8, 12])]
    loaded = load_scenes(coco_like(two_objects(), right, names=None), "train", 20)
    assert loaded.classes[0].tolist() == [2, 0] and loaded.class_names == tuple(NAMES)
    with pytest.raises(DataError, match="object 1: the category is 3, it must lie in 0 to 2"):
        load_scenes(coco_like(two_objects(), [right[0], entry([28, 6, 8, 12], 3)], names=None), "train", 20)


def test_sets_without_scenes_say_so():
    with pytest.raises(UsageError, match="'shapes' has neither objects with an instance map nor a mask of class ids"):
        load_scenes(open_source("shapes", size=16, train=2, test=2), "train", 16)
    source = coco_like(two_objects(), [entry([12, 4, 6, 6])] * 2)
    with pytest.raises(UsageError, match="'scrap' names its segments itself; leave segment_names out"):
        load_scenes(source, "train", 20, segment_names=("a",))
    with pytest.raises(UsageError, match="size=0 and limit=None must be at least 1"):
        load_scenes(source, "train", 0)
    with pytest.raises(UsageError, match="'scrap' train at 200000 px needs more than 16 GiB of memory; set a limit"):
        load_scenes(source, "train", 200_000)


def test_a_map_of_another_size_or_kind_says_so():
    source = coco_like(two_objects(), [entry([12, 4, 6, 6])] * 2)
    for pixels, text in (
        (np.zeros((20, 41), np.uint8), "row 0: the mask is 41x20, the image 40x20; they must have one size"),
        (np.zeros((20, 40, 3), np.uint8), "row 0: the mask is RGB, a map of ids has one channel"),
    ):
        dataset = source.splits["train"].remove_columns("mask").add_column("mask", [png(pixels)])
        dataset = dataset.cast_column("mask", ImageFeature())
        with pytest.raises(DataError, match=text):
            load_scenes(Source("scrap", "1", {"train": dataset}, "f", None, None, "instances", ""), "train", 20)


# ------------------------------------------------------------------------------------------------ COCO's own files


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


def open_coco(coco) -> Source:
    folder, content = coco
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return coco_source(folder / "images", folder / "instances.json")


def test_coco_becomes_scenes(coco):
    pytest.importorskip("pycocotools")
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
    ],
)
def test_bad_coco_files_say_so(coco, change, text):
    pytest.importorskip("pycocotools")
    change(coco[1])
    with pytest.raises(DataError, match=text):
        open_coco(coco)


def test_coco_without_pycocotools_says_what_to_install(coco, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    coco[1]["images"][0]["note"] = "a file that no other test has drawn"
    with pytest.raises(UsageError, match="COCO's masks need pycocotools: pip install pycocotools"):
        open_coco(coco)


def test_missing_coco_files_say_so(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the annotations '.*none.json': No such file"):
        coco_source(tmp_path, tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"'.*bad.json' is not JSON"):
        coco_source(tmp_path, tmp_path / "bad.json")
    with pytest.raises(UsageError, match="give test_images and test_annotations together"):
        coco_source(tmp_path, tmp_path / "bad.json", test_images=tmp_path)


# ------------------------------------------------------------------------------------------------ real sets


def test_coco_mini(real_data):
    """The real photographs: masks lie in their boxes, and nothing is dropped but crowds and what the canvas loses."""
    if not (real_data / "coco_mini").is_dir():
        pytest.skip("coco_mini is not in SCD_REAL_DATA")
    source = open_source(str(real_data / "coco_mini"))
    loaded = load_scenes(source, "train", 64, limit=240)
    assert len(loaded.class_names) == 80 and len(loaded.segment_names) == 81
    assert 5 < np.mean([len(boxes) for boxes in loaded.boxes]) < 9 and loaded.present.any(dim=0).sum() > 70
    assert loaded.dropped["crowd"] > 10 and not {"hidden", "empty box", "clipped box"} & set(loaded.dropped)
    for masks, boxes, semantic, classes in zip(
        loaded.instances, loaded.boxes, loaded.semantic, loaded.classes, strict=True
    ):
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all() and (boxes <= 64).all()
        for mask, box, kind in zip(masks, boxes, classes, strict=True):
            y, x = mask.nonzero().unbind(dim=1)
            extent = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
            assert (box[:2] - extent[:2]).max() < 2 and (extent[2:] - box[2:]).max() < 2
            assert (semantic[mask] == kind + 1).all()
    assert (loaded.semantic == 255).float().mean() < 0.05


def test_camvid(real_data):
    if not (real_data / "camvid").is_dir():
        pytest.skip("camvid is not in SCD_REAL_DATA")
    loaded = load_scenes(open_source(str(real_data / "camvid")), "test", 64, limit=40, ignore=(11,))
    assert len(loaded.segment_names) == 11 and 0 < (loaded.semantic == 255).float().mean() < 0.2
    assert loaded.semantic[loaded.semantic != 255].max() == 10 and loaded.class_names == ()
