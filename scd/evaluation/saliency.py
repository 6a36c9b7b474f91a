"""Saliency maps against true masks: IoU and maxF of both polarities.

A plain triplet loss does not determine which of its two regions is the object, so a learned map may be high on the
background. Every score is therefore computed for the map and for its inverse (1 - map); no score chooses a polarity.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.data.masks import is_known, is_object
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.protocol import N_TEST, Context, EvaluationData, Protocol

THRESHOLDS = torch.arange(255, dtype=torch.float64) * (1 / 255)  # 0, 1/255, ..., 254/255
BETA2 = 0.3
CHUNK_PIXELS = 1 << 23

METRICS = {
    "saliency_iou": Metric(
        "saliency IoU",
        SHARE,
        "higher",
        "intersection over union of (map >= 0.5) and the true mask, per image, mean over test images; 1 if both are "
        "empty; maps resized bilinearly to the mask",
    ),
    "saliency_iou_inverted": Metric("saliency IoU, inverted map", SHARE, None, "the same IoU of 1 - map"),
    "saliency_iou_whole": Metric(
        "IoU of the whole image", SHARE, None, "the same IoU of a map that is 1 everywhere: a property of the masks"
    ),
    "saliency_maxf": Metric(
        "saliency maxF",
        SHARE,
        "higher",
        "F_beta, beta^2 = 0.3, per image at thresholds 0, 1/255, ..., 254/255 (map > t), averaged over test images at "
        "each threshold, then the maximum; precision 1 if nothing is predicted, recall 1 if the mask is empty; no maxF "
        "of maps that are above 0 everywhere is below that of the whole image, because of t = 0",
    ),
    "saliency_maxf_inverted": Metric("saliency maxF, inverted map", SHARE, None, "the same maxF of 1 - map"),
    "saliency_maxf_whole": Metric(
        "maxF of the whole image", SHARE, None, "the same maxF of a map that is 1 everywhere: a property of the masks"
    ),
    "saliency_inverted_share": Metric(
        "images better inverted",
        SHARE,
        None,
        "share of test images whose IoU is strictly higher for 1 - map than for the map; near 1: the map marks the "
        "background",
    ),
}


@dataclass(kw_only=True)
class Saliency(Protocol):
    """The method's own maps against the true masks; no numbers for a method without maps."""

    def definitions(self) -> dict[str, Metric]:
        return {**METRICS, "n_test": N_TEST}

    def applies(self, data: EvaluationData) -> bool:
        return "mask" in data.columns(data.split)

    def check(self, data: EvaluationData) -> None:
        data.check_masks("test")

    def measure(self, context: Context) -> dict[str, float]:
        maps = context.maps()
        if maps is None:
            return {}
        return {**saliency_scores(maps, context.data.test.masks), "n_test": len(maps)}


def saliency_scores(maps: Tensor, masks: Tensor) -> dict[str, float]:
    """All saliency numbers of a set of images; shares in [0, 1], higher is better for the plain polarity.

    * ``saliency_iou``: map >= 0.5 against the mask, intersection over union per image, mean over images.
    * ``saliency_maxf``: F_beta with beta^2 = 0.3 per image and threshold, curve averaged over images, then its maximum.
    * ``saliency_iou_inverted``, ``saliency_maxf_inverted``: the same of 1 - map.
    * ``saliency_inverted_share``: share of images whose IoU is strictly higher for 1 - map; no better side.
    * ``saliency_iou_whole``, ``saliency_maxf_whole``: the same of a map that is 1 everywhere, which does not depend on
      the image. Where maps are above 0 everywhere, t = 0 marks every pixel, and maxF is not below that value.

    Args:
        maps: (N, h, w) float in [0, 1], resized bilinearly to the masks' size.
        masks: (N, S, S), 1 on the object, 0 elsewhere, 2 where it is unknown; unknown pixels count for nothing.
    """
    chunk = max(1, CHUNK_PIXELS // masks[0].numel())
    collected: dict[str, list[Tensor]] = {name: [] for name in ("plain", "inverted", "f_plain", "f_inverted", "share")}
    for part, mask in zip(maps.split(chunk), masks.split(chunk), strict=True):
        mask = mask.to(maps.device)
        truth, known = is_object(mask), is_known(mask)
        m = F.interpolate(part[:, None].float(), truth.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        m = m.clamp_(0, 1)
        for name, polarity in (("plain", m), ("inverted", 1 - m)):
            collected[name].append(iou((polarity >= 0.5) & known, truth))
            collected[f"f_{name}"].append(f_curve(polarity, truth, known))
        inside, counted = (region.flatten(1).sum(dim=1).double() for region in (truth, known))
        collected["share"].append(inside / counted.clamp_min(1))
    plain, inverted, f_plain, f_inverted, share = (torch.cat(parts) for parts in collected.values())
    return {
        "saliency_iou": float(plain.mean()),
        "saliency_iou_inverted": float(inverted.mean()),
        "saliency_iou_whole": float(share.mean()),
        "saliency_maxf": max_f(f_plain),
        "saliency_maxf_inverted": max_f(f_inverted),
        "saliency_maxf_whole": float(f_beta(share, torch.ones_like(share)).mean()),
        "saliency_inverted_share": float((inverted > plain).double().mean()),
    }


def iou(predicted: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union (n,) of bool masks (n, S, S), in [0, 1]; 1 where both are empty."""
    intersection = (predicted & truth).flatten(1).sum(dim=1).double()
    union = (predicted | truth).flatten(1).sum(dim=1).double()
    return torch.where(union > 0, intersection / union.clamp_min(1), 1.0)


def max_f(curves: Tensor) -> float:
    """Maximum over thresholds of the mean over images of F curves (N, 255)."""
    return float(curves.mean(dim=0).max())


def f_curve(maps: Tensor, truth: Tensor, known: Tensor | None = None) -> Tensor:
    """F_beta (n, 255) of each image at each threshold t, foreground where map > t, in [0, 1].

    P = TP / predicted area, R = TP / true area. P := 1 where nothing is predicted and R := 1 where the mask is empty
    (the convention of the unsupervised saliency literature, Wang et al. 2022, TokenCut).

    Args:
        maps: (n, S, S) float in [0, 1].
        truth: (n, S, S) bool.
        known: (n, S, S) bool, the pixels that count; None: all.
    """
    hits, area = threshold_counts(maps, truth, known)  # (n, 255) each
    size = truth.flatten(1).sum(dim=1, keepdim=True)  # (n, 1)
    precision = torch.where(area > 0, hits / area.clamp_min(1), 1.0)
    recall = torch.where(size > 0, hits / size.clamp_min(1), 1.0)
    return f_beta(precision, recall)


def f_beta(precision: Tensor, recall: Tensor) -> Tensor:
    """F = (1 + beta^2) P R / (beta^2 P + R), and 0 where P = R = 0."""
    weighted = BETA2 * precision + recall
    return torch.where(weighted > 0, (1 + BETA2) * precision * recall / weighted.clamp_min(1e-12), 0.0)


def threshold_counts(maps: Tensor, truth: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Known pixels with map > t that lie on the object, and all of them: two (n, 255) float64, for all t at once.

    Each pixel falls into the bin of the number of thresholds that it exceeds; sums over bins from the right give the
    counts. Thresholds are compared in the type of the map.
    """
    n, bins = len(maps), len(THRESHOLDS) + 1
    exceeded = torch.bucketize(maps.flatten(1), THRESHOLDS.to(maps))  # (n, S*S), in [0, 255]
    exceeded += bins * torch.arange(n, device=maps.device)[:, None]
    exceeded = exceeded.mul_(2).add_(truth.flatten(1))
    exceeded = exceeded.flatten() if known is None or known.all() else exceeded[known.flatten(1)]
    counts = torch.bincount(exceeded, minlength=2 * bins * n).view(n, bins, 2)
    outside, hits = counts[:, 1:].flip(1).cumsum(1).flip(1).double().unbind(dim=2)
    return hits, outside + hits
