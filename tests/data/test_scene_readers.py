"""Scenes of instance maps and of class maps; entries that cannot be used, and contradictions."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature

from scd.data.scene_set import load_scenes
from scd.data.sources.png import encode_png as png
from scd.data.sources.shapes import Shapes
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError

NAMES = ["cat", "dog", "cow"]


def scrap(dataset: Dataset, name: str = "scrap", mask_kind: str = "instances", class_names=None) -> Source:
    return Source(name, {"train": dataset}, {"train": "f"}, mask_kind=mask_kind, class_names=class_names)


def coco_like(mask: np.ndarray, objects: list[dict], names: list[str] | None = NAMES, images: int = 1) -> Source:
    """Rows with this instance map, these objects and an image whose red is x and whose green is y."""
    y, x = np.indices(mask.shape).astype(np.uint8)
    category = ClassLabel(names=names) if names else Value("int64")
    fields = {"bbox": List(Value("float32")), "category": category, "iscrowd": Value("int32")}
    features = Features(image=ImageFeature(), mask=ImageFeature(), objects=List(fields))
    columns = {"image": png(np.stack([x, y, 0 * x], axis=2)), "mask": png(mask), "objects": objects}
    dataset = Dataset.from_dict({name: [value] * images for name, value in columns.items()}, features=features)
    return scrap(dataset, class_names=None if names else NAMES)


def entry(bbox, category=0, iscrowd=0) -> dict:
    return {"bbox": bbox, "category": category, "iscrowd": iscrowd}


def two_objects() -> np.ndarray:
    """A map of 40 x 20: object 1 on columns 12 to 17 and rows 4 to 9, object 2 on columns 28 to 35 and rows 6 to 17."""
    mask = np.zeros((20, 40), np.uint8)
    mask[4:10, 12:18] = 1
    mask[6:18, 28:36] = 2
    return mask


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
    source = scrap(dataset, "street", "classes")
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
        ([entry(None)] * 2, "row 0 object 0: the box is None, it needs four finite numbers"),
        ([entry([12, 4, 6, 6]), entry([28, 6, 8, 12], None)], "row 0 object 1: it has no category"),
        (
            [entry([12, 4, 18, 10]), entry([28, 6, 36, 18])],
            "row 0: its boxes are x0, y0, x1, y1; they must be x",
        ),
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
        load_scenes(Shapes(size=16, train=2, test=2), "train", 16)
    source = coco_like(two_objects(), [entry([12, 4, 6, 6])] * 2)
    with pytest.raises(UsageError, match="'scrap' names its segments itself; leave segment_names out"):
        load_scenes(source, "train", 20, segment_names=("a",))


def test_a_map_of_another_size_or_kind_says_so():
    source = coco_like(two_objects(), [entry([12, 4, 6, 6])] * 2)
    for pixels, text in (
        (np.zeros((20, 41), np.uint8), "row 0: the mask is 41x20, the image 40x20; they must have one size"),
        (np.full((20, 40, 3), [1, 2, 3], np.uint8), r"row 0: the mask is a coloured picture \(RGB\); a mask has one"),
    ):
        dataset = source.splits["train"].remove_columns("mask").add_column("mask", [png(pixels)])
        dataset = dataset.cast_column("mask", ImageFeature())
        with pytest.raises(DataError, match=text):
            load_scenes(scrap(dataset), "train", 20)
