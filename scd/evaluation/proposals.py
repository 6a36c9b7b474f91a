"""Boxes and segments that an annotator proposes, against the true masks: how much of the objects a method is told.

    best overlap   of each true box, the IoU with the most similar proposed box; mean over the true boxes
    cover          share of an object's pixels in segments that lie on it with more than half of their pixels

Both are upper bounds of what a method can take from its proposals, which do not say which of them is an object. More
proposals can only raise the best overlap, and smaller segments the cover: read both beside the number of proposals.

NOTE: true boxes are those of the 4-connected components of a mask, see :func:`scd.evaluation.localization.true_boxes`.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from scd.data.annotators.annotator import Annotations
from scd.data.images import ImageSet
from scd.data.masks import is_known, is_object
from scd.errors import DataError
from scd.evaluation.localization import true_boxes

MAJORITY = 0.5  # share of a segment's pixels above which it belongs to the object


def proposal_scores(annotations: Annotations, parts: Iterable[ImageSet], limit: int) -> dict[str, float]:
    """Scores of the proposals of a set's first images.

    Args:
        annotations: boxes or segments of the set.
        parts: the images of the set in the same order, with masks.
        limit: images that are scored at most.

    Returns:
        ``proposals``, their number per image, and ``best_overlap`` (boxes) or ``cover`` (segments), both in [0, 1].

    Raises:
        DataError: no image has an object.
    """
    counts, scores, start = [], [], 0
    for part in parts:
        rows = range(start, min(start + len(part), limit))
        if not rows:
            break
        proposed, masks = annotations.rows(rows), part.masks[: len(rows)]
        if isinstance(proposed, Tensor):
            counts += [len(segments[segments >= 0].unique()) for segments in proposed]
            scores.append(object_cover(proposed, masks))
        else:
            counts += [len(boxes) for boxes in proposed]
            scores.append(best_overlaps(proposed, masks))
        start = rows.stop
    found = torch.cat(scores) if scores else torch.zeros(0)
    if not len(found):
        raise DataError("no image has an object that proposals could be compared with")
    name = "cover" if annotations.ends is None else "best_overlap"
    return {"proposals": sum(counts) / len(counts), name: float(found.mean())}


def best_overlaps(boxes: Sequence[Tensor], masks: Tensor) -> Tensor:
    """IoU of each true box of some images with the most similar proposal; 0 in an image without proposals.

    Args:
        boxes: one (n_i, 4) tensor per image, x0, y0, x1, y1 in [0, 1].
        masks: (B, S, S), 1 on the object, 0 elsewhere, 2 where it is unknown.

    Returns:
        (M,) float64 of all true boxes of all images, in their order.
    """
    overlaps = [torch.zeros(0, dtype=torch.float64)]
    for proposed, truth in zip(boxes, true_boxes(masks), strict=True):
        if len(proposed):
            overlaps.append(box_iou(truth, proposed.double()).amax(dim=1))
        else:
            overlaps.append(truth.new_zeros(len(truth)))
    return torch.cat(overlaps)


def object_cover(segments: Tensor, masks: Tensor) -> Tensor:
    """Share of each object's pixels in segments of which more than half of the known pixels lie on the object.

    Args:
        segments: (B, S, S) integers, -1 where unknown.
        masks: (B, S, S), 1 on the object, 0 elsewhere, 2 where it is unknown.

    Returns:
        (M,) float64 of the images that have an object, in their order.
    """
    shares = []
    for ids, mask in zip(segments.long(), masks, strict=True):
        on_object, known = is_object(mask), is_known(mask)
        if not on_object.any():
            continue
        inside = torch.bincount(ids[on_object & (ids >= 0)], minlength=int(ids.max()) + 2)
        pixels = torch.bincount(ids[known & (ids >= 0)], minlength=len(inside))
        covered = inside[inside > MAJORITY * pixels].sum()
        shares.append(covered.double() / on_object.sum())
    return torch.stack(shares) if shares else torch.zeros(0, dtype=torch.float64)
