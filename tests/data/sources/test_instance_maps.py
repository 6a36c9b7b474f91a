"""Instance maps: which mask is on top, and numbers above 255."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from scd.data.sources.instance_maps import (
    PER_MILLE,
    PERCENT,
    UPPER_LEFT,
    check_boxes,
    count_boxes,
    crowds,
    describe,
    draw_instances,
    filled_box,
    negatives,
    object_features,
    percentages,
    upper_left,
)
from scd.errors import DataError


def drawn(masks, crowd) -> np.ndarray:
    cell = draw_instances(masks, crowd, *masks[0].shape)
    return np.asarray(Image.open(io.BytesIO(cell["bytes"])))


def test_small_objects_are_drawn_over_large_ones_and_crowds_lie_below():
    small, large, crowd = (np.zeros((1, 6), bool) for _ in range(3))
    small[0, 2], large[0, 1:4], crowd[0, :3] = True, True, True
    assert drawn([small, large, crowd], [False, False, True]).tolist() == [[3, 2, 1, 2, 0, 0]]
    assert drawn([large, small, crowd], [False, False, False]).tolist() == [[3, 3, 2, 1, 0, 0]]


def test_many_objects_get_sixteen_bits():
    masks = [np.zeros((1, 300), bool) for _ in range(300)]
    for k, mask in enumerate(masks):
        mask[0, k] = True
    assert drawn(masks, [False] * 300)[0].tolist() == list(range(1, 301))


def test_features_name_the_categories():
    features = object_features(["a", "b"])
    assert features["objects"]["category"].feature.names == ["a", "b"]


def test_filled_boxes_hold_the_pixels_whose_centre_lies_inside():
    assert filled_box([0.4, 0, 2.2, 1.5], 3, 4).astype(int).tolist() == [[1, 1, 1, 0], [0] * 4, [0] * 4]
    assert not filled_box([1, 1, 0, 2], 3, 4).any()


def test_boxes_that_leave_their_image_are_counted():
    counted = Counter()
    boxes = [[0, 0, 4, 3], [-0.5, 0, 4.5, 3], [-5, 0, 6, 3], [3, 1, 4, 1], [1, 1, 0, 1], [4, 0, 2, 2]]
    count_boxes(boxes, 3, 4, counted)
    assert describe(counted).splitlines() == [
        "Boxes that leave their image and are cut at its border: 2.",
        "Boxes without area inside their image, whose objects are left out: 2.",
    ]


@pytest.mark.parametrize(("inside", "outside", "refused"), [(5, 5, True), (6, 5, False), (0, 4, False)])
def test_boxes_of_which_most_leave_their_image_are_refused(inside, outside, refused):
    """Halved images beside the original boxes, or boxes of centre, width and height, were only counted."""
    counted = Counter()
    count_boxes([[1, 1, 5, 5]] * inside + [[8, 8, 6, 6]] * (outside - 1) + [[15, 2, 4, 4]], 10, 10, counted)
    if not refused:
        check_boxes(counted, inside + outside, "'x'", "x, y, width, height")
        return
    text = "'x': 5 of 10 boxes leave their image, .* images were resized .* or the boxes are centre, width and height"
    with pytest.raises(DataError, match=text):
        check_boxes(counted, inside + outside, "'x'", "x, y, width, height")


@pytest.mark.parametrize(
    ("box", "number", "sizes", "noted"),
    [
        ([20, 30, 80, 70], 20, [(151, 200)], True),
        ([20, 30, 80, 70], 20, [(151, 200), (90, 90), (400, 300)], True),
        ([20, 30, 80, 70], 19, [(151, 200)], False),
        ([20, 30, 80.5, 70], 20, [(151, 200)], False),
        ([20, 30, 80, 70], 20, [(151, 150)], False),
        ([20, 30, 80, 70], 20, [(151, 200), (90, 90)], False),
    ],
)
def test_boxes_that_may_be_percentages_are_noted(box, number, sizes, noted):
    """They were drawn in the left upper corners of large images, without a word."""
    assert PERCENT == (
        "All boxes end within 100 of the left upper corner, as percentages would; they are taken as pixels."
    )
    assert percentages([box] * number, sizes) == ([PERCENT] if noted else [])


def test_images_without_objects_are_noted_where_they_are_most():
    assert negatives([0] * 7 + [2]) == [
        "Images without objects, which count as negatives: 7 of 8. Leave out those that nobody has annotated, or what "
        "they show counts as background."
    ]
    assert negatives([0, 1]) == negatives([]) == []


@pytest.mark.parametrize(("empty", "total", "noted"), [(2, 40, True), (2, 41, False), (1, 10, False), (1, 1, True)])
def test_images_without_objects_and_crowds_are_noted_from_one_in_twenty(empty, total, noted):
    """Half of the images without an annotation, and 40 % of crowds, were no word worth."""
    assert len(negatives([0] * empty + [3] * (total - empty))) == noted
    share = f"{empty / total:.0%}"
    note = f"Annotations with iscrowd=1, which are not scored as objects: {empty} of {total} ({share})."
    assert crowds(empty, total) == ([note] if noted else [])


def test_notes_follow_what_was_counted():
    assert describe(Counter({"b": 2, "a": 1000, "none": 0}), ["Last."]).splitlines() == ["a: 1,000.", "b: 2.", "Last."]
    assert describe(Counter()) == ""


@pytest.mark.parametrize(
    ("last", "number", "noted"),
    [
        ([0, 0, 20, 10], 20, True),
        ([0, 0, 20, 10], 19, False),  # too few to tell
        ([0, 0, 22, 10], 20, False),
        ([0, 0, 20, 12], 20, False),
    ],
)
def test_boxes_of_images_that_were_enlarged_are_noted(last, number, noted):
    boxes, sizes = [[1, 1, 5, 5]] * (number - 1) + [last], [(40, 20)] * number
    assert upper_left(boxes, sizes) == ([UPPER_LEFT.format(number)] if noted else [])


@pytest.mark.parametrize(
    ("last", "number", "size", "noted"),
    [
        ([500, 500, 450, 490], 20, (1920, 1080), True),
        ([500, 500, 450, 490], 19, (1920, 1080), False),
        ([500, 500, 450, 390], 20, (1920, 1080), True),
        ([500, 500, 380, 390], 20, (1920, 1080), False),  # nothing near 1000
        ([500, 500, 501, 490], 20, (1920, 1080), False),
        ([500, 500, 450, 490], 20, (1000, 1000), False),
    ],
)
def test_boxes_on_a_scale_of_1000_are_noted(last, number, size, noted):
    """A language model's boxes from 0 to 1000 were taken as pixels of larger images."""
    boxes = [[10, 10, 300, 200]] * (number - 1) + [last]
    assert percentages(boxes, [size] * number) == ([PER_MILLE] if noted else [])
