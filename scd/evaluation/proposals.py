"""Boxes, segments and masks that an annotator proposes, against the true ones: how much of them a method is told.

    best overlap   of each true box, the IoU with the most similar proposed box; mean over the true boxes
    mean overlap   of each proposed box, the IoU with the most similar true box; mean over the proposals
    cover          share of an object's pixels in segments that lie on it with more than half of their pixels
    mask overlap   of each image with an object, the IoU of its true mask with the proposed one; mean over these images

Proposals do not say which of them is an object. More proposals can only raise the best overlap, and smaller segments
the cover: read both beside the number of proposals. The mean overlap is that of a proposal that is drawn at random.

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


def proposal_scores(annotations: Annotations, kind: str, parts: Iterable[ImageSet], limit: int) -> dict[str, float]:
    """Scores of the proposals of a set's first images.

    Args:
        annotations: of the set; kind: what they are, "boxes", "segments" or "masks".
        parts: the images of the set in the same order, with masks.
        limit: images that are scored at most.

    Returns:
        ``proposals``, their number per image, of masks the share of images that have one; of boxes ``best_overlap`` and
        ``mean_overlap``, 0 where there are none; of segments ``cover``; of masks ``mask_overlap``.

    Raises:
        DataError: no image has an object.
    """
    counts, start, found = [], 0, {}
    for part in parts:
        rows = range(start, min(start + len(part), limit))
        if not rows:
            break
        proposed, masks = annotations.rows(rows), part.masks[: len(rows)]
        if kind == "masks":
            counts += (proposed > 0).flatten(1).any(dim=1).tolist()
            scores = {"mask_overlap": mask_overlap(proposed, masks)}
        elif kind == "segments":
            counts += [len(segments[segments >= 0].unique()) for segments in proposed]
            scores = {"cover": object_cover(proposed, masks)}
        else:
            counts += [len(boxes) for boxes in proposed]
            best, mean = overlaps(proposed, masks)
            scores = {"best_overlap": best, "mean_overlap": mean}
        for name, values in scores.items():
            found.setdefault(name, []).append(values)
        start = rows.stop
    whole = {name: torch.cat(values) for name, values in found.items()}
    if not any(map(len, whole.values())):
        raise DataError("no image has an object that proposals could be compared with")
    means = {name: float(values.mean()) if len(values) else 0.0 for name, values in whole.items()}
    return {"proposals": sum(counts) / len(counts), **means}


def overlaps(boxes: Sequence[Tensor], masks: Tensor) -> tuple[Tensor, Tensor]:
    """IoU of each true box of some images with the most similar proposal, and of each proposal with such a true box.

    Args:
        boxes: one (n_i, 4) tensor per image, x0, y0, x1, y1 in [0, 1].
        masks: (B, S, S), 1 on the object, 0 elsewhere, 2 where it is unknown.

    Returns:
        (M,) float64 of all true boxes, 0 in an image without proposals, and (P,) float64 of the proposals of images
        with an object; both in the images' order.
    """
    best, mean = [torch.zeros(0, dtype=torch.float64)], [torch.zeros(0, dtype=torch.float64)]
    for proposed, truth in zip(boxes, true_boxes(masks), strict=True):
        if len(proposed) and len(truth):
            iou = box_iou(truth, proposed.double())  # (true, proposed)
            best.append(iou.amax(dim=1))
            mean.append(iou.amax(dim=0))
        else:
            best.append(truth.new_zeros(len(truth)))
    return torch.cat(best), torch.cat(mean)


def mask_overlap(proposed: Tensor, masks: Tensor) -> Tensor:
    """IoU of proposed masks with the true ones, over known pixels.

    Args:
        proposed: (B, S, S), 1 on the object and 0 elsewhere.
        masks: (B, S, S), 1 on the object, 0 elsewhere, 2 where it is unknown.

    Returns:
        (M,) float64 of the images that have an object, in their order.
    """
    truth, found = is_object(masks).flatten(1), ((proposed > 0) & is_known(masks)).flatten(1)
    rows = truth.any(dim=1)
    common, either = (truth & found).sum(dim=1), (truth | found).sum(dim=1)
    return common[rows].double() / either[rows]


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
