"""Boxes that a label tool has turned by an angle, in COCO's files and in VOC's."""

import math

import numpy as np

ROUNDED = 1.5  # pixels by which rounding may move the middle of a diagonal
TURNED_BOXES = (
    "Boxes with a rotation (attributes.rotation) and without a segmentation, which are taken as upright; polygons "
    "would keep their shape"
)


def is_turned_by(angle: object) -> bool:
    """Whether an angle in degrees, as CVAT writes it, turns a box: it is not 0 or 180; False for what is none."""
    if isinstance(angle, bool):
        return False
    try:
        return math.isfinite(float(angle)) and float(angle) % 180 != 0
    except (TypeError, ValueError, OverflowError):
        return False


def is_rectangle(segmentation: object) -> bool:
    """Whether a segmentation is one polygon with the four corners of a rectangle, upright or turned.

    The first corner may stand at the end again. Corners may be rounded to whole pixels.
    """
    try:
        corners = np.asarray(segmentation, float)
    except (TypeError, ValueError):  # several polygons, or run lengths
        return False
    several = corners.ndim > 1 and len(corners) > 1 and corners.shape[1:] != (2,)
    if several or not corners.size or corners.size % 2:
        return False
    corners = corners.reshape(-1, 2)
    if len(corners) == 5 and (corners[0] == corners[-1]).all():
        corners = corners[:-1]
    if len(corners) != 4:
        return False
    first, second = corners[2] - corners[0], corners[3] - corners[1]
    middle = (corners[0] + corners[2] - corners[1] - corners[3]) / 2
    lengths = math.hypot(*first), math.hypot(*second)
    return bool(min(lengths) > 0 and math.hypot(*middle) <= ROUNDED and abs(lengths[0] - lengths[1]) <= 2 * ROUNDED)
