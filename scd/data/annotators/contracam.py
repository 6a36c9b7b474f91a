"""Contrastive class activation maps: where a finished contrastive network finds what tells an image from others.

    s_i   = log( e^(z_i . k_i) / sum over j != i of e^(z_i . z_j) )     z: unit projections in eval mode; k: of the
                                                                        images as they are, without gradient
    a_ic  = mean over positions of d s_i / d F_ic                       F: the backbone's map of image i
    M_i   = min-max of upsampled relu( sum over c of max(a_ic, 0) F_ic )

S. Mo et al., "Object-aware Contrastive Learning for Debiased Scene Representation" (ContraCAM), NeurIPS 2021, arXiv
2108.00049. With T iterations what has been found is covered with the mean colour of the batch, the map is computed
again, and the result is the largest value of all maps; the projections of the covered images are further negatives. No
label is used. The network is that of an earlier run, so a method that learns from these annotations is trained twice.

NOTE: the boxes are those of the thresholded map. The paper first refines the map with a dense CRF (5 iterations).
NOTE: the square canvas is annotated. The released code squeezes each photograph into a square.
"""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from scd.data.annotators.annotator import Annotator
from scd.data.annotators.oracle import boxes_of
from scd.data.cut_views import dilated
from scd.data.images import ImageSet
from scd.errors import UsageError, unknown
from scd.nn.normalisation import normalise
from scd.siamese import JointEmbedding
from scd.wrapper import Wrapper

THRESHOLDS = {"masks": 0.2, "boxes": 0.5}  # of the released code: what background mixup covers; what a box surrounds
ITERATIONS = {"masks": 1, "boxes": 10}  # README of the released code
SCORES = ("paper", "released")
ROUNDING = 1e-5  # a range of values below this share of the largest one is an error of floating point


class ContraCAM(Annotator):
    """Masks or boxes from the contrastive class activation maps of a trained network.

    An image's map depends on the other images of its batch, which are its negatives. The images come in parts of a
    fixed size and order (:func:`scd.data.images.image_parts`), and each part is split into batches of almost equal
    size, so that the same images always get the same maps.

    NOTE: an image that is alone in its batch has no negatives. Its map is 0 everywhere.

    Args:
        network: a trained joint-embedding method, or a wrapper around one, whose backbone ends in a feature map that
            is pooled by its mean. It is not changed. The annotations are as supervised as it is.
        provides: "masks": where the map is at or above the threshold; "boxes": around each 4-connected component of
            that, enlarged. A map that is the same everywhere has an empty mask and no boxes.
        threshold: of the map, in (0, 1); 0.2 for masks and 0.5 for boxes when None (the released code).
        iterations: T; 1 for masks and 10 for boxes when None (the released code).
        doubled: the strides of the backbone's last stage are 1, so that the map has twice the side. Released: False for
            masks, True for boxes, at 224 px (14 x 14 instead of 7 x 7).
        batch: images whose projections are each other's negatives, at most. Released: 256, which is a part.
        score: "paper": the equation above; "released": see :func:`contrastive_scores`. With one iteration both give
            the same map.
        least_area: boxes of components with this share of the canvas or less are left out.
        margin: each side of a box is moved outwards by this share of the box's width or height.
        device: where the maps are computed, "cpu" or "cuda".

    Raises:
        UsageError: a network of another kind, an unknown kind or score, or an impossible number.
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        provides: str = "masks",
        threshold: float | None = None,
        iterations: int | None = None,
        doubled: bool = False,
        batch: int = 256,
        score: str = "paper",
        least_area: float = 0.01,
        margin: float = 0.2,
        device: str = "cpu",
    ):
        if provides not in THRESHOLDS:
            raise unknown("kind of annotation of contracam", provides, THRESHOLDS)
        if score not in SCORES:
            raise unknown("score of contracam", score, SCORES)
        threshold = THRESHOLDS[provides] if threshold is None else threshold
        iterations = ITERATIONS[provides] if iterations is None else iterations
        if not 0 < threshold < 1:
            raise UsageError(f"contracam: threshold is {threshold}, it must lie between 0 and 1")
        if iterations < 1:
            raise UsageError(f"contracam: iterations is {iterations}, it must be at least 1")
        if batch < 2:
            raise UsageError(f"contracam: batch is {batch}, it must be at least 2: the other images are the negatives")
        if not 0 <= least_area < 1:
            raise UsageError(f"contracam: least_area is {least_area}, it must be a share in [0, 1)")
        if margin < 0:
            raise UsageError(f"contracam: margin is {margin}, it must be 0 or more")
        host = network.siamese if isinstance(network, Wrapper) else network
        if not isinstance(host, JointEmbedding):
            raise UsageError(
                "contracam: it needs the trained network of an earlier run that compares pairs of views (MoCo, BYOL): "
                f"a study gives it as an input of the run; got {type(network).__name__}"
            )
        self.provides = provides
        self.supervision = network.supervision
        self.threshold = float(threshold)
        self.iterations = int(iterations)
        self.batch = int(batch)
        self.score = score
        self.least_area = float(least_area)
        self.margin = float(margin)
        self.device = device
        self.backbone, self.projector = (
            copy.deepcopy(module).requires_grad_(False).eval().to(device) for module in (host.backbone, host.projector)
        )
        if doubled:
            double_last_map(self.backbone)
        self.doubled = bool(doubled)

    def __call__(self, images: Tensor, part: ImageSet) -> Tensor | list[Tensor]:
        masks = self.maps(images) >= self.threshold
        return masks.to(torch.uint8) if self.provides == "masks" else [self._boxes(mask) for mask in masks.numpy()]

    def maps(self, images: Tensor) -> Tensor:
        """Maps (B, S, S) float32 in [0, 1] of images (B, 3, S, S) uint8, on the CPU."""
        found = []
        for own in images.tensor_split(math.ceil(len(images) / self.batch)):
            seen = normalise(own.to(self.device, torch.float32).div_(255))
            maps = contrastive_cam(self.backbone, self.projector, seen, self.iterations, self.score)
            found.append(maps.float().cpu())
        return torch.cat(found)

    def _boxes(self, mask: np.ndarray) -> Tensor:
        """Boxes (n, 4) in [0, 1] of the large components of a mask (S, S) bool."""
        numbers, _ = ndimage.label(mask)
        large = np.bincount(numbers.ravel())[1:] > self.least_area * mask.size
        return dilated(boxes_of(numbers)[torch.from_numpy(large)], self.margin)


@torch.no_grad()
def contrastive_cam(
    backbone: nn.Module, projector: nn.Module, images: Tensor, iterations: int = 1, score: str = "paper"
) -> Tensor:
    """The maps of a batch, whose images are each other's negatives.

    Args:
        backbone: images to feature maps (B, C, h, w); in eval mode, as the projector.
        projector: spatial means (B, C) to projections (B, D) of any length.
        images: (B, 3, S, S), normalised.
        iterations: T.
        score: see :func:`contrastive_scores`.

    Returns:
        (B, S, S), each map from 0 to 1 for T = 1; the largest values of T such maps otherwise. 0 everywhere where no
        channel raises the score, or where B is 1.

    Raises:
        UsageError: a backbone with a vector of its own (a ViT's CLS): no position of its map changes the score.
    """
    union = images.new_zeros(len(images), *images.shape[2:])
    if len(images) < 2:
        return union
    colour = images.mean(dim=(0, 2, 3), keepdim=True)
    shown, negatives = images, []
    for _ in range(iterations):
        features = backbone(shown)
        if isinstance(features, tuple):
            raise UsageError("contracam: its network needs a backbone whose map is pooled by the mean, as a CNN")
        pooled = features.mean(dim=(2, 3)).requires_grad_()  # (B, C, h, w) -> (B, C)
        with torch.enable_grad():
            projections = F.normalize(projector(pooled), dim=1)
            negatives.append(projections.detach())
            scores = contrastive_scores(projections, negatives[0], negatives, score)
            (gradient,) = torch.autograd.grad(scores.sum(), pooled)
        weights = gradient.clamp_min(0) / features[0, 0].numel()  # the mean over positions of d s / d F
        maps = torch.einsum("bc,bchw->bhw", weights, features).relu()
        maps = F.interpolate(maps[:, None], size=images.shape[2:], mode="bicubic", align_corners=False)[:, 0]
        union = torch.maximum(union, stretched(maps))
        shown = torch.lerp(images, colour, union[:, None])
    return union


def contrastive_scores(projections: Tensor, keys: Tensor, negatives: list[Tensor], score: str = "paper") -> Tensor:
    """The score of each image: its similarity to itself against that to the other images; no temperature.

    NOTE: "released" is what the released code computes. The positive similarities are summed over the batch before the
    logarithm, and an image counts among its own negatives as one with a similarity of 0. In the first iteration the
    gradient of the positive term is 0 either way, so that the maps differ from the second iteration on only.

    Args:
        projections: z (B, D), unit length, with gradient.
        keys: (B, D), of the images as they are.
        negatives: (B, D) each, of the images in every iteration so far. Row i is no negative of image i.
        score: "paper" or "released".

    Returns:
        (B,).
    """
    positive = (projections * keys).sum(dim=1)
    similarity = torch.stack([projections @ others.T for others in negatives])  # (T, B, B)
    own = torch.eye(len(projections), dtype=torch.bool, device=projections.device)
    if score == "released":
        return positive.logsumexp(dim=0) - similarity.masked_fill(own, 0.0).logsumexp(dim=(0, 2))
    return positive - similarity.masked_fill(own, -math.inf).logsumexp(dim=(0, 2))


def stretched(maps: Tensor) -> Tensor:
    """Maps (B, S, S), 0 or more, with a minimum of 0 and a maximum of 1 each; 0 everywhere where they are constant."""
    highest = maps.amax(dim=(1, 2), keepdim=True)
    above = maps - maps.amin(dim=(1, 2), keepdim=True)
    spread = above.amax(dim=(1, 2), keepdim=True)
    return torch.where(spread > ROUNDING * highest, above / spread, 0.0)


def double_last_map(backbone: nn.Module) -> None:
    """Set the strides of the last stage's convolutions to 1, in place.

    Raises:
        UsageError: a backbone without stages, or whose last stage has a stride of 1 already.
    """
    trunk = getattr(backbone, "trunk", None)
    last = list(trunk[-1].modules()) if isinstance(trunk, nn.Sequential) else []
    strided = [each for each in last if isinstance(each, nn.Conv2d) and each.stride != (1, 1)]
    if not strided:
        raise UsageError(
            "contracam: doubled=true needs a ResNet whose last stage has a stride of 2 (resnet18, resnet50); "
            "give doubled=false"
        )
    for convolution in strided:
        convolution.stride = (1, 1)
