"""Objects found by a method's own map on scenes: one box per image, and how many of the objects the map covers.

    CorLoc    share of images whose box has an IoU of at least 0.5 with the box of any object
    covered   share of objects with at least half of their pixels where the map is >= 0.5
    gain      share of an object's pixels where the map is >= 0.5, minus the same share of its image; mean over objects

One box is right where a map marks one of several objects, so CorLoc alone does not tell whether a map knows of the
others; covered does, but a map that is 1 everywhere covers everything. The gain is 0 for that map, and on average for
every map that is drawn without looking at the image's objects or their usual places.

A loss does not say which side of a map is the object, so CorLoc and covered are also taken of 1 - map; no score picks a
polarity, as in :mod:`scd.evaluation.saliency`.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import find_objects, label
from torch import Tensor, nn
from torchvision.ops import box_iou

from scd.data.scene_set import SceneSet
from scd.errors import DataError
from scd.evaluation.features import extract_saliency

MARKED = 0.5  # a pixel belongs to the map's side from here on
COVERED = 0.5  # an object is covered from this share of its pixels on
MIN_IOU = 0.5
COUNTS = (1, 2, 3, 4, 5, 6)  # numbers of objects in an image with a number of their own


def discovery(method: nn.Module, test: SceneSet, size: int, device: str | torch.device = "cpu") -> dict[str, float]:
    """All numbers of :func:`discovery_scores` of a method's maps; {} for a method without maps.

    Args:
        method: already on ``device``.
        test: scenes with objects.
        size: side in pixels of the view that the network sees.

    Raises:
        UsageError: no images, or a map that leaves [0, 1].
        DataError: no objects.
    """
    maps = extract_saliency(method, test.images, size, device=device)
    return {} if maps is None else discovery_scores(maps, test.instances, test.boxes)


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
    """Mean of numbers or of yes and no."""
    return float(values.double().mean())
