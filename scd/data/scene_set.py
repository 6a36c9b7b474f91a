"""Scenes of a split in memory: images with every object's mask, box and class, and a segment for every pixel.

Three kinds of set become one :class:`SceneSet`: the generator of :mod:`scd.data.sources.scenes`; sets with an instance
map and an ``objects`` column (COCO's); and sets whose mask holds class ids, which have no objects.
Box conventions of COCO: x, y, w, h in pixels, x and y of the left upper corner; a pixel is one unit wide.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scd.data.images import check_request, chosen_rows, require_memory, undecoded
from scd.data.scene_readers import reader_of
from scd.data.sources.source import Source

MAPS = ("image", "mask", "instances", "semantic")  # columns of images
MOST_KEPT = 8  # sets that one process keeps
_KEPT: dict[tuple, "SceneSet"] = {}


@dataclass
class SceneSet:
    """Images with their objects and segments, on square canvases of S pixels.

    Args:
        images: (N, 3, S, S) uint8.
        semantic: (N, S, S) uint8, index into ``segment_names``; 255 = ignored.
        instances: N bool tensors (n_i, S, S), the visible pixels of each object.
        boxes: N float32 tensors (n_i, 4), x0, y0, x1, y1 in pixels of the canvas.
        classes: N int64 tensors (n_i,), index into ``class_names``.
        class_names: the C classes of objects; empty for sets without objects.
        segment_names: the classes of pixels.
        dropped: number of entries that were changed or left out, by reason. Left out: "crowd", "empty box", "hidden"
            (no pixel in the image) and "off canvas" (cropped away, or too small for a pixel of the canvas). Kept:
            "clipped box" and "image without objects".
    """

    images: Tensor
    semantic: Tensor
    instances: list[Tensor]
    boxes: list[Tensor]
    classes: list[Tensor]
    class_names: tuple[str, ...]
    segment_names: tuple[str, ...]
    dropped: dict[str, int]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def present(self) -> Tensor:
        """(N, C) bool: which classes occur among an image's objects."""
        out = torch.zeros(len(self), len(self.class_names), dtype=torch.bool)
        for row, classes in enumerate(self.classes):
            out[row, classes] = True
        return out


def scenes_once(source: Source, split: str, size: int, limit: int | None = None) -> SceneSet:
    """:func:`load_scenes`, decoded once in a process and kept; the result must not be changed."""
    key = (source.name, source.fingerprints[split], source.mask_kind, split, size, limit)
    if key not in _KEPT:
        while len(_KEPT) >= MOST_KEPT:
            _KEPT.pop(next(iter(_KEPT)))
        _KEPT[key] = load_scenes(source, split, size, limit)
    return _KEPT[key]


def load_scenes(
    source: Source,
    split: str,
    size: int,
    limit: int | None = None,
    ignore: Sequence[int] = (),
    segment_names: Sequence[str] | None = None,
) -> SceneSet:
    """Decode a split onto the canvas of :func:`scd.data.images.load_images`: central square, images bilinear, ids
    nearest, boxes moved and clipped with it.

    Args:
        source: with the columns ``objects`` and ``instances`` or an instance ``mask``; or with a ``mask`` of class ids.
        split: its name.
        size: side S of the canvas in pixels.
        limit: at most this many images, see :func:`scd.data.images.chosen_rows`.
        ignore: segment ids that become 255; 255 in a mask of class ids is always ignored.
        segment_names: names of the ids of a mask of class ids; None names them "class 0" and so on, up to the largest
            id of the loaded images. Other sets have their own: the generator's things and stuff; COCO's "background"
            (0) and the classes (index + 1).

    Crowd regions are ignored as in COCO's tools: no objects, their pixels 255. Boxes that leave the image are clipped.

    Raises:
        UsageError: an impossible size or limit, names for a set that has its own, a set without scenes, or one too
            large for the memory.
        DataError: an image or map that cannot be used, or an object that does not fit to its map, by row and entry.
    """
    check_request(split, size, limit)
    return decode_scenes(source, split, size, chosen_rows(source.split(split), limit), ignore, segment_names)


def decode_scenes(
    source: Source,
    split: str,
    size: int,
    rows: Sequence[int] | np.ndarray,
    ignore: Sequence[int] = (),
    segment_names: Sequence[str] | None = None,
) -> SceneSet:
    """The scenes of these rows, in this order; other arguments and errors as of :func:`load_scenes`."""
    dataset = source.split(split)
    reader = reader_of(source, dataset, ignore, segment_names)
    what, needed = f"'{source.name}' {split} at {size} px", len(rows) * 4 * size * size
    require_memory(needed, what)
    images = np.empty((len(rows), 3, size, size), np.uint8)
    semantic = np.empty((len(rows), size, size), np.uint8)
    instances, boxes, classes = [], [], []
    raw = undecoded(dataset, MAPS)
    for i, row in enumerate(rows):
        images[i], semantic[i], masks, objects = reader.scene(raw[int(row)], int(row), size)
        instances.append(torch.from_numpy(masks))
        boxes.append(torch.from_numpy(objects.boxes))
        classes.append(torch.from_numpy(objects.classes))
        needed += masks.size
        require_memory(needed, what)
    return SceneSet(
        torch.from_numpy(images),
        torch.from_numpy(semantic),
        instances,
        boxes,
        classes,
        reader.class_names,
        reader.names_of_segments(),
        dict(reader.dropped),
    )
