"""Rectangles among segmentations, and angles of boxes."""

import pytest

from scd.data.sources.turned_boxes import is_rectangle, is_turned_by

TURNED = [30, 10, 58, 26, 48, 43.5, 20, 27.5]  # 32 by 20 pixels, at 30 degrees


@pytest.mark.parametrize(
    ("segmentation", "found"),
    [
        ([[4, 5, 24, 5, 24, 17, 4, 17]], True),
        ([[4, 5, 24, 5, 24, 17, 4, 17, 4, 5]], True),  # closed
        ([4, 5, 24, 5, 24, 17, 4, 17], True),  # one flat list
        ([[4, 5], [24, 5], [24, 17], [4, 17]], True),  # corners
        ([TURNED], True),
        ([[round(value) for value in TURNED]], True),
        ([[14, 5, 30, 20, 14, 35, 9, 20]], False),  # a kite
        ([[4, 5, 24, 5, 30, 17, 10, 17]], False),  # a parallelogram
        ([[4, 5, 24, 5, 20, 17, 8, 17]], False),  # a trapezium
        ([[4, 5, 24, 5, 24, 17]], False),
        ([[4, 5, 24, 5, 24, 17, 4, 17], [40, 5, 60, 5, 60, 17, 40, 17]], False),  # two of them
        ([[4, 5, 24, 5, 24, 17, 4, 17], [40, 5, 60, 5, 60, 17]], False),
        ([[4, 4, 4, 4, 4, 4, 4, 4]], False),
        ({"counts": [0, 4], "size": [2, 2]}, False),
        ([["a", "b"]], False),
        ([], False),
        (None, False),
    ],
)
def test_rectangles(segmentation, found):
    assert is_rectangle(segmentation) == found


@pytest.mark.parametrize(
    ("angle", "turned"), [(30, True), ("45.5", True), (0, False), (180.0, False), (True, False), ("left", False)]
)
def test_angles(angle, turned):
    assert is_turned_by(angle) == turned
