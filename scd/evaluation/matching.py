"""Mean IoU of a segmentation whose labels have no names: clusters are first matched with classes.

The matching is one to one and has the largest sum of IoUs (Hungarian method); the background is a class like the
others, and the cluster of the background is not known beforehand. As in the evaluation of COMUS (arXiv 2207.05027).
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from scd.errors import DataError


def pixel_counts(predicted: Tensor, truth: Tensor, clusters: int, classes: int, ignored: int) -> Tensor:
    """Number of pixels (clusters, classes) int64 with each pair of a predicted label and a true class.

    Args:
        predicted: integers in [0, clusters). truth: of the same shape, in [0, classes) or ``ignored``.
    """
    known = truth != ignored
    pairs = predicted[known].long() * classes + truth[known].long()
    return torch.bincount(pairs, minlength=clusters * classes).view(clusters, classes)


def matched_iou(counts: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The IoU (classes,) float64 of each class with the cluster that it is matched with, and this cluster (classes,).

    A class without a cluster, where there are fewer of these, has the cluster -1 and an IoU of 0.

    Args:
        counts: (clusters, classes), see :func:`pixel_counts`.
    """
    common = counts.double().numpy()
    either = common.sum(axis=1, keepdims=True) + common.sum(axis=0, keepdims=True) - common
    iou = common / np.maximum(either, 1)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    cluster, found = np.full(iou.shape[1], -1), np.zeros(iou.shape[1])
    cluster[columns], found[columns] = rows, iou[rows, columns]
    return found, cluster


def matched_miou(counts: Tensor) -> float:
    """Mean of :func:`matched_iou` in [0, 1] over the classes that the truth shows; higher is better.

    NOTE: the official code counts a class that no scored image shows as 0; here it is left out.

    Args:
        counts: (clusters, classes), see :func:`pixel_counts`.

    Raises:
        DataError: no known pixel.
    """
    shown = (counts.sum(dim=0) > 0).numpy()
    if not shown.any():
        raise DataError("no image has a pixel of a known class to score segmentation on")
    return float(matched_iou(counts)[0][shown].mean())
