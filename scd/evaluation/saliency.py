"""Saliency maps against true masks: IoU and maxF of both polarities, beside maps that know nothing and the best map.

A plain triplet loss does not determine which of its two regions is the object, so a learned map may be high on the
background. Every score is therefore computed for the map and for its inverse (1 - map); no score chooses a polarity.

Two kinds of reference say what an IoU means. Trivial maps are the same for every image: the whole image, all but the
outermost positions of the map, and a disc at the centre. The best possible map of a resolution is the true mask,
averaged over the positions of the map: no map of so few positions draws an outline much better.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.data.masks import is_known, is_object
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.protocol import N_TEST, Context, EvaluationData, Protocol

THRESHOLDS = torch.arange(255, dtype=torch.float64) * (1 / 255)  # 0, 1/255, ..., 254/255
BETA2 = 0.3
CHUNK_PIXELS = 1 << 23
RADII = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # of the centred discs, in sides of the image

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
    "saliency_iou_trivial": Metric(
        "IoU of the best trivial map",
        SHARE,
        None,
        "the largest IoU of maps that are the same for every image: the whole image, all but the outermost positions "
        f"of the map, a disc at the centre of radius {', '.join(f'{radius:g}' for radius in RADII)} sides; the best of "
        "them is chosen by the true masks, so it is a high bar",
    ),
    "saliency_iou_possible": Metric(
        "IoU of the best possible map",
        SHARE,
        None,
        "the same IoU of the true mask, averaged over the positions of the map and resized as a map: what the "
        "resolution of the map allows",
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
    * ``saliency_iou_trivial``, ``saliency_iou_possible``: of the best map that is the same for every image, and of the
      true mask at the resolution of the maps, see the module.

    Args:
        maps: (N, h, w) float in [0, 1], resized bilinearly to the masks' size.
        masks: (N, S, S), 1 on the object, 0 elsewhere, 2 where it is unknown; unknown pixels count for nothing.
    """
    chunk = max(1, CHUNK_PIXELS // masks[0].numel())
    names = ("plain", "inverted", "f_plain", "f_inverted", "share", "trivial", "possible")
    collected: dict[str, list[Tensor]] = {name: [] for name in names}
    fixed = trivial_maps(tuple(maps.shape[1:]), tuple(masks.shape[1:])).to(maps.device)
    for part, mask in zip(maps.split(chunk), masks.split(chunk), strict=True):
        mask = mask.to(maps.device)
        truth, known = is_object(mask), is_known(mask)
        m = resized(part.float(), truth.shape[1:])
        for name, polarity in (("plain", m), ("inverted", 1 - m)):
            collected[name].append(iou((polarity >= 0.5) & known, truth))
            collected[f"f_{name}"].append(f_curve(polarity, truth, known))
        inside, counted = (region.flatten(1).sum(dim=1).double() for region in (truth, known))
        collected["share"].append(inside / counted.clamp_min(1))
        collected["trivial"].append(torch.stack([iou(known & each, truth) for each in fixed], dim=1))  # (n, T)
        covered = F.adaptive_avg_pool2d(truth[:, None].float(), part.shape[1:])[:, 0]
        collected["possible"].append(iou((resized(covered, truth.shape[1:]) >= 0.5) & known, truth))
    found = {name: torch.cat(parts) for name, parts in collected.items()}
    plain, inverted, share = (found[name] for name in ("plain", "inverted", "share"))
    return {
        "saliency_iou": float(plain.mean()),
        "saliency_iou_inverted": float(inverted.mean()),
        "saliency_iou_whole": float(share.mean()),
        "saliency_iou_trivial": max(float(share.mean()), float(found["trivial"].mean(dim=0).max())),
        "saliency_iou_possible": float(found["possible"].mean()),
        "saliency_maxf": max_f(found["f_plain"]),
        "saliency_maxf_inverted": max_f(found["f_inverted"]),
        "saliency_maxf_whole": float(f_beta(share, torch.ones_like(share)).mean()),
        "saliency_inverted_share": float((inverted > plain).double().mean()),
    }


def resized(maps: Tensor, size: torch.Size) -> Tensor:
    """Maps (n, h, w) at the size of the masks, bilinear, in [0, 1]."""
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0].clamp_(0, 1)


@lru_cache(maxsize=8)
def trivial_maps(grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Maps that are the same for every image (T, S, S), bool: all but the outermost positions, and centred discs.

    Args:
        grid: h and w of the maps, whose outermost positions are left out; a map of fewer than 3 x 3 has no inside.
        size: height and width of the masks.
    """
    inner = torch.zeros(1, *grid)
    inner[:, 1:-1, 1:-1] = 1
    rows, columns = ((torch.arange(side) + 0.5) / side - 0.5 for side in size)
    distance = (rows[:, None].square() + columns.square()).sqrt()  # from the centre, in sides
    discs = distance <= torch.tensor(RADII)[:, None, None]
    return torch.cat([resized(inner, torch.Size(size)) >= 0.5, discs])


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
