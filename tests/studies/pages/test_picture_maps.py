"""The PNG of a picture with its maps: sizes, colours, overlays, and where the panels' pixels lie."""

import numpy as np
import pytest
from PIL import Image

from scd.errors import UsageError
from studies.suite.pages.picture_maps import (
    GAP,
    HEAD,
    WIDTH,
    Panel,
    coloured,
    draw,
    levels,
    palette,
    shown,
    shown_size,
    with_boxes,
    with_segments,
)


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [
        ((400, 300), 480, (400, 300)),
        ((960, 640), 480, (480, 320)),
        ((640, 960), 480, (320, 480)),
        ((24, 16), 480, (240, 160)),
        ((9000, 3), 480, (480, 1)),
        ((9000, 3), 0, (9000, 3)),
        ((24, 16), 0, (24, 16)),
    ],
)
def test_a_picture_is_drawn_at_its_own_size_within_limits(size, most, expected):
    assert shown_size(size, most) == expected
    if size[0] < 1000:
        assert shown(Image.new("RGB", size), expected).shape == (expected[1], expected[0], 3)


def test_one_colour_scale_for_all_maps():
    values = np.array([[0.0, 0.5, 1.0]])
    assert levels(values).tolist() == [[0, 128, 255]]
    assert np.array_equal(coloured(values), palette()[[[0, 128, 255]]])
    assert len(np.unique(palette(), axis=0)) > 200
    picture = np.zeros((2, 3, 3), np.uint8)
    assert coloured(picture) is picture


def test_boxes_and_segments_are_drawn_where_they_are():
    grey = np.full((60, 120, 3), 128, np.uint8)
    boxed = with_boxes(grey, np.array([[0.5, 0.25, 1.0, 0.75]]))
    changed = (boxed != grey).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (60, 119, 15, 44)
    assert not changed[20:40, 65:114].any()  # an outline
    segments = np.zeros((4, 4), int)
    segments[:, 3] = 1  # the right quarter
    edges = (with_segments(grey, segments) != grey).any(axis=2)
    assert set(np.nonzero(edges)[1]) <= {89, 90} and edges[:, 90].all()
    assert np.array_equal(grey, np.full((60, 120, 3), 128, np.uint8))


def test_panels_lie_pixel_by_pixel_in_the_png(tmp_path):
    x, y = np.meshgrid(np.arange(40), np.arange(30))
    picture = np.stack([x * 6, y * 8, np.zeros_like(x)], axis=2).astype(np.uint8)
    values = (x + y) / 70
    panels = [Panel("Picture", ("a line",), picture), Panel("Map $x_1$", ("values",), values), Panel("None", (), None)]
    path = draw(tmp_path / "one.png", "one_$a.png", "a note", panels, (40, 30))
    drawn = np.asarray(Image.open(path).convert("RGB"))
    assert drawn.shape[1] == 3 * WIDTH + 4 * GAP
    assert np.array_equal(drawn[HEAD : HEAD + 30, GAP : GAP + 40], picture)
    left = 2 * GAP + WIDTH
    assert np.array_equal(drawn[HEAD : HEAD + 30, left : left + 40], coloured(values))


def test_many_panels_go_on_in_further_rows(tmp_path):
    panels = [Panel(f"map {number}", ("x",) * (number % 3), np.full((30, 310), number / 10)) for number in range(7)]
    drawn = np.asarray(Image.open(draw(tmp_path / "many.png", "many", "", panels, (310, 30))).convert("RGB"))
    assert drawn.shape[1] == 5 * 310 + 6 * GAP
    for number in range(7):
        place = (drawn == palette()[round(number / 10 * 255)]).all(axis=2)
        assert place.sum() >= 30 * 310, number


def test_panels_that_are_too_large_for_one_png_end_in_one_line(tmp_path):
    panels = [Panel("a", (), None)] * 3
    with pytest.raises(UsageError, match="3 panels of 70000 x 10 px are too large for one PNG; give --side=480"):
        draw(tmp_path / "large.png", "large", "", panels, (70000, 10))
    assert not list(tmp_path.iterdir())
