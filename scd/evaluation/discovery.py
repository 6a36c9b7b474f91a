"""Objects found by a method's own map on scenes: one box per image, and the share of the objects that the map covers.

    CorLoc    share of images whose box has an IoU of at least 0.5 with the box of any object
    covered   share of objects with at least half of their pixels where the map is >= 0.5
    gain      share of an object's pixels where the map is >= 0.5, minus the same share of its image; mean over objects

CorLoc is correct where a map marks one of several objects, so it does not tell whether the map marks the others.
Covered does, but a map that is 1 everywhere covers everything. The gain is 0 for that map, and 0 on average for every
map that does not depend on the image's objects or their usual places.

A loss does not determine which side of a map is the object, so CorLoc and covered are also computed for 1 - map; no
score chooses a polarity, as in :mod:`scd.evaluation.saliency`.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import find_objects, label
from torch import Tensor
from torchvision.ops import box_iou

from scd.errors import DataError
from scd.evaluation.metric import SHARE, SHARE_DIFFERENCE, Metric

MARKED = 0.5  # map value from which a pixel counts as marked
COVERED = 0.5  # share of its pixels from which an object counts as covered
MIN_IOU = 0.5
COUNTS = (1, 2, 3, 4, 5, 6)  # numbers of objects in an image that are also scored separately
_MARKED = "where the map is >= 0.5 (maps resized bilinearly to the mask)"

METRICS = {
    "discovery_corloc": Metric(
        "CorLoc",
        SHARE,
        "higher",
        "share of scenes with objects where the box around the 4-connected part, at or above the map's mean, of the "
        "map's maximum has IoU >= 0.5 with the box of any object; maps resized bilinearly to the image",
    ),
    "discovery_corloc_inverted": Metric("CorLoc, inverted map", SHARE, None, "the same CorLoc of 1 - map"),
    "discovery_corloc_whole": Metric(
        "CorLoc of the whole image",
        SHARE,
        None,
        "the same CorLoc of a map that is 1 everywhere: a property of the boxes",
    ),
    "objects_covered": Metric(
        "objects covered",
        SHARE,
        "higher",
        f"share of all objects with at least half of their pixels {_MARKED}; 1 for a map that is 1 everywhere: read it "
        "beside the map's area and the coverage gain",
    ),
    "objects_covered_inverted": Metric(
        "objects covered, inverted map", SHARE, None, "the same share of objects for 1 - map"
    ),
    "objects_covered_best": Metric(
        "scenes with all objects covered",
        SHARE,
        "higher",
        "share of scenes with objects in which every object is covered; 1 for a map that is 1 everywhere",
    ),
    "objects_covered_gain": Metric(
        "coverage gain",
        SHARE_DIFFERENCE,
        "higher",
        f"share of an object's pixels {_MARKED} minus the same share of its image, mean over objects; 0 for a map that "
        "is the same everywhere; below 0 the map marks the background",
    ),
    "foreground_precision": Metric(
        "foreground precision",
        SHARE,
        "higher",
        f"of all pixels of all test scenes {_MARKED} the share that lies on any object; 0 where the maps mark nothing",
    ),
    "foreground_precision_whole": Metric(
        "object area",
        SHARE,
        None,
        "share of all pixels of the test scenes that lies on any object: the precision of a map that is 1 everywhere",
    ),
    "map_area_on_scenes": Metric(
        "map area on scenes", SHARE, None, f"share of all pixels of the test scenes {_MARKED}; 0 or 1: collapse"
    ),
} | {
    f"objects_covered_n{count}": Metric(
        f"objects covered, {count} in the image",
        SHARE,
        "higher",
        f"objects covered, over the test scenes with exactly {count} object{'s' if count > 1 else ''}",
    )
    for count in COUNTS
}


def discovery_scores(maps: Tensor, instances: list[Tensor], boxes: list[Tensor]) -> dict[str, float]:
    """Discovery numbers of a set of images; shares in [0, 1].

    * ``discovery_corloc``, ``discovery_corloc_inverted``, ``discovery_corloc_whole``: CorLoc of :func:`box_of_map`, of
      1 - map, and of the whole image as the box; over images with objects.
    * ``objects_covered``, ``objects_covered_inverted``: over all objects. ``objects_covered_n1`` ... ``_n6``: over the
      objects of images with so many of them, where there are such images.
    * ``objects_covered_best``: share of images with objects in which every object is covered.
    * ``objects_covered_gain``: see above, in [-1, 1].
    * ``foreground_precision``: of all pixels of all images where the map is >= 0.5 the share that lies on any object; 0
      where no pixel is. ``foreground_precision_whole``: the same of a map that is 1 everywhere.
    * ``map_area_on_scenes``: share of all pixels where the map is >= 0.5.

    Args:
        maps: (N, h, w) float in [0, 1], resized bilinearly to the masks.
        instances: N bool tensors (n_i, S, S). boxes: N tensors (n_i, 4) x0, y0, x1, y1 in pixels.

    Raises:
        DataError: no image has an object.
    """
    side = instances[0].shape[-1]
    full = F.interpolate(maps[:, None].float(), (side, side), mode="bilinear", align_corners=False)[:, 0]
    full = full.clamp(0, 1).cpu()
    some = [i for i, masks in enumerate(instances) if len(masks)]
    if not some:
        raise DataError("no image has an object to discover")
    marked = full >= MARKED
    shares = [share_of_objects(marked[i], instances[i]) for i in some]
    every = torch.cat(shares)
    numbers = torch.cat([torch.full((len(part),), len(part)) for part in shares])
    areas = torch.cat([marked[i].double().mean().expand(len(instances[i])) for i in some])
    union = torch.stack([masks.any(dim=0) for masks in instances])  # (N, S, S)
    inverted = torch.cat([share_of_objects(1 - full[i] >= MARKED, instances[i]) for i in some])
    scores = {
        "discovery_corloc": corloc(full[some], [boxes[i] for i in some]),
        "discovery_corloc_inverted": corloc(1 - full[some], [boxes[i] for i in some]),
        "discovery_corloc_whole": corloc(torch.ones_like(full[some]), [boxes[i] for i in some]),
        "objects_covered": mean(every >= COVERED),
        "objects_covered_inverted": mean(inverted >= COVERED),
        "objects_covered_best": mean(torch.stack([(part >= COVERED).all() for part in shares])),
        "objects_covered_gain": mean(every - areas),
        "foreground_precision": mean(union[marked]) if marked.any() else 0.0,
        "foreground_precision_whole": mean(union),
        "map_area_on_scenes": mean(marked),
    }
    for count in COUNTS:
        if (numbers == count).any():
            scores[f"objects_covered_n{count}"] = mean(every[numbers == count] >= COVERED)
    return scores


def share_of_objects(marked: Tensor, masks: Tensor) -> Tensor:
    """Share (n,) float64 of each object's pixels that are marked.

    Args:
        marked: (S, S) bool. masks: (n, S, S) bool, each with a pixel at least.

    Raises:
        DataError: an object without pixels.
    """
    pixels = masks.flatten(1).sum(dim=1)
    if not pixels.all():
        raise DataError("an object has no visible pixel; leave it out of the scene")
    return (masks & marked).flatten(1).sum(dim=1).double() / pixels


def corloc(maps: Tensor, boxes: list[Tensor]) -> float:
    """Share in [0, 1] of images whose box of the map has IoU >= 0.5 with any of the image's boxes.

    Args:
        maps: (N, S, S). boxes: N tensors (n_i, 4), n_i >= 1, in pixels of the maps.
    """
    found = [
        bool((box_iou(box_of_map(m)[None].double(), truth.double()) >= MIN_IOU).any())
        for m, truth in zip(maps, boxes, strict=True)
    ]
    return sum(found) / len(found)


def box_of_map(saliency: Tensor) -> Tensor:
    """Box (4,) x0, y0, x1, y1 in pixels around the 4-connected part, at or above the map's mean, of its maximum.

    A pixel is one unit wide: the box of the whole map is (0, 0, S, S), and it is the one of a constant map. Of equal
    maxima the first in reading order counts.

    Args:
        saliency: (S, S) float.
    """
    values = saliency.double().numpy()
    highest = np.unravel_index(values.argmax(), values.shape)
    parts, _ = label(values >= min(values.mean(), values[highest]))
    rows, columns = find_objects(parts)[parts[highest] - 1]
    return torch.tensor([columns.start, rows.start, columns.stop, rows.stop], dtype=torch.float64)


def mean(values: Tensor) -> float:
    """Mean of numbers, or the share of True."""
    return float(values.double().mean())
