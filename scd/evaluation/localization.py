"""Predicted foregrounds against true masks: Jaccard, maxF and CorLoc.

The predicted foreground is a set of positions on the prediction's own grid, resized to the mask by nearest neighbour;
soft maps are resized bilinearly.

NOTE: a mask here is the union of an image's objects and does not say which pixels are one object. CorLoc's true boxes
are those of the mask's 4-connected components: objects that touch share a box, and an object in pieces has several.
For data sets that name their objects, :mod:`scd.evaluation.discovery` uses the boxes of the objects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor
from torchvision.ops import box_iou

from scd.data.masks import is_known, is_object
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.saliency import CHUNK_PIXELS, f_curve, iou, max_f
from scd.maps.tokencut import component_of

MASS = 0.6  # share of a map's sum that the predicted positions hold at least (DINO's attention masks)
ROUNDING = 1e-6

METRICS = {
    "jaccard": Metric(
        "Jaccard",
        SHARE,
        "higher",
        "intersection over union of the predicted foreground (nearest neighbour) and the true mask, mean over images; "
        "1 where both are empty",
    ),
    "maxf": Metric(
        "maxF",
        SHARE,
        "higher",
        "F_beta, beta^2 = 0.3, of the map rescaled from 0 to 1 in each image (for tokencut the predicted foreground "
        "itself), at 255 thresholds, averaged over images, then the maximum",
    ),
    "corloc": Metric(
        "CorLoc",
        SHARE,
        "higher",
        "share of images where the box of the predicted component that holds the map's maximum overlaps the box of any "
        "4-connected component of the mask with an IoU of at least 0.5 (Deselaers et al., ECCV 2010); images with an "
        "empty mask left out",
    ),
}


@dataclass
class Prediction:
    """One extractor's prediction: ``soft`` (n, h, w) in [0, 1] and the foreground ``hard`` (n, h, w) bool."""

    soft: Tensor
    hard: Tensor


def mass_set(maps: Tensor, mass: float = MASS) -> Tensor:
    """The smallest sets of positions (n, h, w) bool that hold at least this share of each map's sum.

    Of equal values those that come first in row-major order are taken.

    Args:
        maps: (n, h, w), 0 or more.
        mass: a share in (0, 1).
    """
    values, order = maps.flatten(1).double().sort(dim=1, descending=True, stable=True)
    before = values.cumsum(dim=1) - values  # the mass of all larger positions
    needed = before < (mass - ROUNDING) * values.sum(dim=1, keepdim=True)
    return torch.zeros_like(needed).scatter(1, order, needed).view_as(maps)


def scores(predictions: Mapping[str, Prediction], masks: Tensor) -> dict[str, float]:
    """``{extractor}_jaccard``, ``_maxf`` and ``_corloc`` of every prediction, see ``METRICS``.

    There is no corloc if all masks are empty.

    Args:
        masks: (n, S, S), 1 on the object, 0 elsewhere, 2 where it is unknown; unknown pixels count for nothing.
    """
    truth = true_boxes(masks)
    numbers = {}
    for name, prediction in predictions.items():
        numbers[f"{name}_jaccard"] = float(overlaps(prediction.hard, masks).mean())
        numbers[f"{name}_maxf"] = max_f(f_curves(prediction.soft, masks))
        hits = located(prediction, truth)
        if hits:
            numbers[f"{name}_corloc"] = sum(hits) / len(hits)
    return numbers


def overlaps(hard: Tensor, masks: Tensor) -> Tensor:
    """IoU (n,) of positions (n, h, w) bool, resized by nearest neighbour, with masks (n, S, S); 1 if both are empty."""
    resized = F.interpolate(hard[:, None].float(), masks.shape[1:], mode="nearest-exact")[:, 0] > 0.5
    return iou(resized & is_known(masks), is_object(masks))


def f_curves(soft: Tensor, masks: Tensor) -> Tensor:
    """F_beta (n, 255) at each threshold of maps (n, h, w) in [0, 1], resized bilinearly to masks (n, S, S)."""
    chunk = max(1, CHUNK_PIXELS // masks[0].numel())
    curves = []
    for part, mask in zip(soft.split(chunk), masks.split(chunk), strict=True):
        resized = F.interpolate(part[:, None].float(), mask.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        curves.append(f_curve(resized.clamp_(0, 1), is_object(mask), is_known(mask)))
    return torch.cat(curves)


def located(prediction: Prediction, truth: Sequence[Tensor]) -> list[bool]:
    """For each image with an object, whether the predicted box overlaps a true one with an IoU of 0.5 or more.

    The predicted box is the extent of the 4-connected component of ``hard`` that holds the maximum of ``soft``. Where
    the maximum lies outside ``hard`` there is no box, and the image counts as missed.

    Args:
        truth: each image's boxes (k, 4), see :func:`true_boxes`.
    """
    predicted = extents(component_of(prediction.hard, prediction.soft.flatten(1).argmax(dim=1)))
    return [
        bool((box_iou(box[None], boxes) >= 0.5 - ROUNDING).any())
        for box, boxes in zip(predicted, truth, strict=True)
        if len(boxes)
    ]


def extents(regions: Tensor) -> Tensor:
    """Boxes (n, 4) x0, y0, x1, y1 in [0, 1] around regions (n, h, w) bool; all 0 for an empty region."""
    sides = []
    for dim in (1, 2):  # columns that the region touches, then rows
        touched = regions.any(dim=dim).to(torch.uint8)
        length = touched.shape[1]
        low, high = touched.argmax(dim=1), length - touched.flip(1).argmax(dim=1)
        sides.append(torch.stack([low, high]).double() / length * touched.any(dim=1))
    (x0, x1), (y0, y1) = sides
    return torch.stack([x0, y0, x1, y1], dim=1)


def true_boxes(masks: Tensor) -> list[Tensor]:
    """Boxes (k, 4) in [0, 1] of each mask's 4-connected components, k = 0 for an empty one; masks (n, S, S)."""
    height, width = masks.shape[1:]
    boxes = []
    for mask in is_object(masks).cpu().numpy():
        labels, _ = ndimage.label(mask)
        found = [
            [x.start / width, y.start / height, x.stop / width, y.stop / height]
            for y, x in ndimage.find_objects(labels)
        ]
        boxes.append(torch.tensor(found, dtype=torch.float64).view(-1, 4))
    return boxes
