"""The picture of a study's images as they were read: what is drawn where, and which images are chosen."""

import zlib

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.errors import DataError
from scd.evaluation.protocol import EvaluationData
from studies.suite.pages import images_as_read
from studies.suite.pages.figures import PALETTE
from studies.suite.pages.images_as_read import CROWD, DARKENED, GAP, SIDE, drawn, shown_rows
from studies.suite.pages.picture_maps import EDGES

GREY, WIDTH, HEIGHT = 200, 42, 21
OBJECTS = {
    "category": List(ClassLabel(names=["person", "dog"])),
    "bbox": List(List(Value("float64"))),
    "iscrowd": List(Value("int64")),
}


def opened(rows, features, name, **options):
    """Images of one split, as training and as scored ones."""
    dataset = Dataset.from_list(rows, features=Features(features))
    splits, content = {"train": dataset, "test": dataset}, {split: [name, split] for split in ("train", "test")}
    return EvaluationData(Source(**read_columns(name, splits, content, **options)), 16)


def picture(width=WIDTH, height=HEIGHT, level=GREY):
    return encode_png(np.full((height, width, 3), level, np.uint8))


def as_drawn(images, row=0):
    """The pixels of an image of the training split as it is drawn, and the lines below it."""
    dataset = images_as_read.undecoded(images.source.split("train"))
    shown, lines = drawn(dataset[row], row, images.source, dataset)
    return np.asarray(shown), lines


def test_an_object_keeps_its_colours_where_the_mask_has_it():
    """The object is the upper left quarter: a mask that is turned or mirrored would keep another one."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[: HEIGHT // 2, : WIDTH // 2] = 255
    rows = [{"image": picture(), "mask": encode_png(mask)}] * 2
    pixels, lines = as_drawn(opened(rows, {"image": ImageFeature(), "mask": ImageFeature()}, "one quarter"))
    assert pixels.shape == (SIDE // 2, SIDE, 3) and not lines
    assert (pixels[5:30, 5:35] == GREY).all()
    assert (pixels[60:80, 5:35] == int(DARKENED * GREY)).all() and (pixels[5:80, 140:] == int(DARKENED * GREY)).all()
    assert (pixels[39, 5:35] == EDGES).all()


def test_the_square_that_networks_see_has_lines():
    pixels, lines = as_drawn(opened([{"image": picture(), "label": 1}] * 2, {
        "image": ImageFeature(), "label": ClassLabel(names=["cat", "dog"]),
    }, "wide pictures"))  # fmt: skip
    assert (pixels[1:-1, [SIDE // 4, SIDE - 1 - SIDE // 4]] == 255).all() and (pixels[1:-1, SIDE // 2] == GREY).all()
    assert lines == ["dog"]


def test_boxes_lie_where_the_file_says_and_crowds_are_grey():
    objects = {"category": [1, 0, 0], "bbox": [[21, 0, 21, 10.5], [0, 10, 10, 10], [0, 0, 10, 8]], "iscrowd": [0, 0, 1]}
    rows = [{"image": picture(), "objects": objects}] * 2
    pixels, lines = as_drawn(opened(rows, {"image": ImageFeature(), "objects": OBJECTS}, "three boxes"))

    def colour(x, y):
        return "#" + bytes(pixels[y, x].tolist()).hex()

    person, dog = (PALETTE[zlib.crc32(name) % len(PALETTE)] for name in (b"person", b"dog"))
    assert person != dog and colour(167, 20) == colour(100, 40) == dog
    assert colour(0, 60) == person and colour(0, 20) == "#" + bytes(CROWD).hex()
    assert colour(130, 60) == "#c8c8c8"
    assert lines == ["person 2, dog 1"]


def test_an_image_without_objects_says_so():
    rows = [{"image": picture(), "objects": {"category": [], "bbox": [], "iscrowd": []}}] * 2
    assert as_drawn(opened(rows, {"image": ImageFeature(), "objects": OBJECTS}, "no boxes"))[1] == ["no object"]


def test_categories_may_be_text():
    objects = {"category": ["dog", "dog"], "bbox": [[21, 0, 21, 10.5], [0, 10, 10, 10]]}
    features = {"category": List(Value("string")), "bbox": OBJECTS["bbox"]}
    rows = [{"image": picture(), "objects": objects}] * 2
    assert as_drawn(opened(rows, {"image": ImageFeature(), "objects": features}, "text"))[1] == ["dog 2"]


def test_each_class_has_its_share_of_the_images():
    """Of 200 cats and 5 dogs all dogs are shown; the same ones every time."""
    labels = [0] * 200 + [1] * 5
    rows = [{"image": picture(4, 4, number % 250), "label": label} for number, label in enumerate(labels)]
    features = {"image": ImageFeature(), "label": ClassLabel(names=["cat", "dog"])}
    chosen = shown_rows(images := opened(rows, features, "rare dogs"), "train")
    assert len(chosen) == images_as_read.SHOWN and chosen == shown_rows(images, "train")
    assert [row for row in chosen if row >= 200] == [200, 201, 202, 203, 204]
    assert chosen[0] > 0 and max(np.diff(chosen[:-5])) > 1, "not the first ones"


def test_the_picture_has_a_band_for_each_split_and_set(tmp_path):
    rows = [{"image": picture(), "label": 0}] * 9
    one = opened(rows, {"image": ImageFeature(), "label": ClassLabel(names=["cat", "dog"])}, "nine cats")
    given = {"a.png": [one], "b.png": [one, one]}
    paths = [images_as_read.draw(sets, tmp_path / "new" / name) for name, sets in given.items()]
    sizes = [Image.open(path).size for path in paths]
    rows_of_images = 2  # nine images, eight in a row
    band = images_as_read.LINE + GAP + rows_of_images * (SIDE + 2 * images_as_read.LINE + GAP)
    assert sizes[0][0] == sizes[1][0] == 8 * (SIDE + GAP) + GAP
    assert sizes[1][1] - sizes[0][1] == 2 * band
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.png", "b.png"]


def test_a_mask_of_another_size_is_named():
    mask = encode_png(np.zeros((WIDTH, HEIGHT), np.uint8))
    rows = [{"image": picture(), "mask": mask}] * 2
    images = opened(rows, {"image": ImageFeature(), "mask": ImageFeature()}, "turned mask", mask_kind="binary")
    with pytest.raises(DataError, match=r"row 0: the mask is 21x42, the image 42x21; they must have one size"):
        as_drawn(images)
