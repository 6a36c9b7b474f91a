"""Boxes that a label tool has turned by an angle, in COCO's files and in VOC's."""

import math

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
