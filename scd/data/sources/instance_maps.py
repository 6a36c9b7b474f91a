"""Annotations of other formats in the columns that :mod:`scd.data.scene_readers` reads: map and list of objects."""

import io
from collections.abc import Sequence

import numpy as np
from datasets import ClassLabel, Features, Image, List, Value
from PIL import Image as PillowImage


def drawn(masks: Sequence[np.ndarray], crowd: Sequence[bool], height: int, width: int) -> dict:
    """The instance map (H, W) as a PNG that an ``Image`` column takes: 0 = no object, k = the k-th mask (H, W) bool.

    Crowds are drawn first, then larger objects before smaller ones, so that small ones stay visible.
    """
    out = np.zeros((height, width), np.uint8 if len(masks) < 256 else np.uint16)
    for k in sorted(range(len(masks)), key=lambda k: (not crowd[k], -masks[k].sum())):
        out[masks[k]] = k + 1
    png = io.BytesIO()
    PillowImage.fromarray(out).save(png, "PNG")
    return {"bytes": png.getvalue(), "path": None}


def features(names: Sequence[str]) -> Features:
    """``image``, ``mask`` and ``objects`` (lists ``bbox`` [x, y, w, h] in pixels, ``category``, ``iscrowd``)."""
    objects = {
        "bbox": List(List(Value("float32"))),
        "category": List(ClassLabel(names=list(names))),
        "iscrowd": List(Value("int32")),
    }
    return Features(image=Image(), mask=Image(), objects=objects)
