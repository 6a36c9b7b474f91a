"""COMUS: unsupervised semantic segmentation from object proposals, as an evaluation of frozen features.

    1. proposals     a mask of what is salient in each training image; each mask is one region
    2. features      the frozen backbone's vector of each region's box, cut out and resized
    3. clusters      spectral clustering of the vectors into as many clusters as there are classes
    4. pseudo masks  the regions near the centre of their cluster, with their cluster's number; else background
    5. self-training a segmentation head on the frozen feature maps learns the pseudo masks
    6. score         predictions for test images; clusters matched with classes; mean IoU

Source: Zadaianchuk et al., "Unsupervised Semantic Segmentation with Self-supervised Object-centric Representations",
ICLR 2023, arXiv 2207.05027, and its code. No label is used before the score, but for the number of clusters. The same
steps are repeated with the true objects in place of the proposals: a control of what features and head can do at all.

What differs from the paper:

NOTE: its proposals come from BASNet, trained on pseudo labels of other saliency methods. Here they are training-free.
Those of ``rbd`` are found in the pixels and do not depend on the method, so that a difference is one of features. (On
the embedded shapes at 48 px their IoU with the true objects is 0.84; that of TokenCut on the 12 x 12 maps of a small
CNN is 0.06 to 0.21, at the thresholds 0.2 and 0.7.)
NOTE: as in the paper a mask is one region, so that proposals on scenes mix objects of several classes; the true objects
are regions of their own.
NOTE: it fine-tunes a DeepLabv3 whose ResNet-50 was trained by DINO, whatever features were clustered, in two rounds.
Here the evaluated backbone stays frozen, and the head is a 1 x 1 convolution that sees a position's features, their
means over a window of half the map's side, and their means over the map, in the place of DeepLabv3's pyramid; there is
one round, on un-augmented images. The head is a multinomial logistic regression to the shares of labels in each
position's pixels, solved to its optimum; a fifth of the images, with their pseudo labels, chooses its penalty.
NOTE: regions outside the core, and images without core regions, are not learned from. The official code leaves out the
same images; regions are dropped with their images there, which have one region each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from scd.data.annotators.annotator import annotate
from scd.data.annotators.rbd import RBD
from scd.errors import DataError, UsageError, unknown
from scd.evaluation.emergence import read
from scd.evaluation.features import extract_maps, extract_saliency
from scd.evaluation.labels import held_out_part
from scd.evaluation.linear import check_penalties
from scd.evaluation.logistic import Regression, Shares, choose_and_fit
from scd.evaluation.matching import matched_miou, pixel_counts
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.object_regions import (
    BACKGROUND,
    IGNORED,
    ClassMaps,
    Regions,
    class_maps,
    has_class_maps,
    region_features,
    whole_masks,
)
from scd.evaluation.protocol import Context, EvaluationData, Protocol
from scd.evaluation.saliency import iou
from scd.evaluation.segmentation import CHUNK_VALUES, labelled_positions, mean_iou, position_scores
from scd.evaluation.spectral import Clusters, spectral_clusters

PROPOSALS = {
    "rbd": "the mask of Robust Background Detection, found in the pixels without training",
    "tokencut": "TokenCut's component, cut from the last block's keys or a CNN's feature maps",
    "own": "the method's own map, where it is >= 0.5",
}
ORACLE = "the true objects, an oracle"
POSITIONS = 4000
L2_GRID = (0.1, 0.01, 0.001, 0.0001)
MARKED = 0.5  # value from which a method's own map proposes a pixel


@dataclass(kw_only=True)
class Comus(Protocol):
    """mIoU of the segmentation that frozen features find without labels.

    Args:
        proposals: a name of ``PROPOSALS``; no numbers of "own" for a method without maps.
        oracle: whether the steps are repeated with the true objects.
        smallest: share of an image's pixels that a region must exceed; paper: 400 pixels, of about 500 x 375.
        neighbours, restarts, core: of the clustering, see :func:`scd.evaluation.spectral.spectral_clusters`.
        positions: labelled positions that the head learns from, at most.
        l2: penalties of the head to choose from.
        tau: TokenCut's threshold, see :func:`scd.maps.tokencut.affinity`; for "tokencut" alone.

    Raises:
        UsageError: an unknown kind of proposals, or a number out of its range.
    """

    prefix: str = "comus_"
    train_limit: int | None = 1500
    test_limit: int | None = 1500
    proposals: str = "rbd"
    oracle: bool = True
    smallest: float = 0.002
    neighbours: int = 30
    restarts: int = 10
    core: float = 0.8
    positions: int = POSITIONS
    l2: Sequence[float] = L2_GRID
    tau: float = 0.2

    def __post_init__(self) -> None:
        if self.proposals not in PROPOSALS:
            raise unknown("kind of proposals", self.proposals, PROPOSALS)
        for name, least in (("neighbours", 2), ("restarts", 1), ("positions", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"comus: {name} is {getattr(self, name)}, it must be at least {least}")
        if not 0 < self.core <= 1 or not 0 <= self.smallest < 1:
            raise UsageError(
                f"comus: core lies in (0, 1] and smallest in [0, 1), not at {self.core:g} and {self.smallest:g}"
            )
        check_penalties(self.l2)

    def definitions(self) -> dict[str, Metric]:
        metrics = self._of_regions("", PROPOSALS[self.proposals])
        if self.oracle:
            own = self._of_regions("_oracle", ORACLE)
            metrics |= {name: metric._replace(label=f"{metric.label}, true objects") for name, metric in own.items()}
            metrics["clustered_oracle"] = Metric(
                "clustered objects",
                SHARE,
                "higher",
                "share of the true objects of training images whose cluster is the one that their class is matched "
                "with, one to one, so that this share is largest; as many clusters as classes",
            )
        return metrics | {
            "miou_background": Metric(
                "mIoU of background alone",
                SHARE,
                None,
                "the mIoU of COMUS for a prediction that is background everywhere: a property of the masks",
            ),
            "proposal_iou": Metric(
                "IoU of proposals",
                SHARE,
                "higher",
                f"intersection over union of {PROPOSALS[self.proposals]}, and the true objects; mean over training "
                "images, 1 where both are empty",
            ),
            "classes": Metric(
                "classes",
                "classes",
                None,
                "classes of objects that training or test images show: the number of clusters",
            ),
            "classes_scored": Metric(
                "classes scored", "classes", None, "classes of objects that test images show: those in the mIoU"
            ),
            "n_train": Metric("training images", "images", None, "images that regions are proposed in"),
            "n_test": Metric("test images", "images", None, "images on which the mIoU is measured"),
        }

    def _of_regions(self, suffix: str, source: str) -> dict[str, Metric]:
        """The numbers of one source of regions."""
        steps = (
            f"regions of training images: {source}, above {self.smallest:.2g} of the image; vectors of their boxes by "
            "the frozen backbone; spectral clustering into as many clusters as there are classes (the one thing that "
            f"labels say); the {self.core:.0%} of each cluster nearest to its centre as pseudo masks"
        )
        matched = (
            "clusters matched with classes one to one by IoU, the background included; mean over classes that the "
        )
        return {
            f"miou{suffix}": Metric(
                "COMUS mIoU",
                SHARE,
                "higher",
                f"{steps}; a 1 x 1 convolution on the frozen feature maps, their means over windows of half the side "
                "and over the map learns these; its predictions for test images against the true classes: IoU over all "
                f"pixels; {matched}test images show",
            ),
            f"pseudo_miou{suffix}": Metric(
                "mIoU of pseudo masks",
                SHARE,
                "higher",
                f"{steps}, background elsewhere; against the true classes of training images: IoU over all pixels; "
                f"{matched}training images show",
            ),
            f"regions{suffix}": Metric("regions", "regions", None, f"regions that are clustered: {source}"),
            f"empty{suffix}": Metric(
                "images without region",
                "images",
                None,
                f"training images without a region to cluster, too small or absent: {source}; nothing is learned from "
                "them",
            ),
            f"clusters{suffix}": Metric(
                "clusters",
                "clusters",
                None,
                "clusters that were found; fewer than classes where there are fewer regions: each region is one then",
            ),
        }

    def applies(self, data: EvaluationData) -> bool:
        return self.data is not None or has_class_maps(data)

    def check(self, data: EvaluationData) -> None:
        if not has_class_maps(data):
            raise DataError(
                f"'{data.source.name}' has neither objects with an instance map, nor masks with labels, nor masks of "
                "class ids in its training and its scored images, which comus needs"
            )
        if not data.source.embedded:  # images without objects are found before any training
            class_maps(data)

    def measure(self, context: Context) -> dict[str, float]:
        train, test = context.once("class maps", lambda: class_maps(context.data))
        proposed = self.proposed(context, train)
        if proposed is None:
            return {}
        backbone, size, device = context.method.backbone, context.size, context.device
        maps = [with_context(extract_maps(backbone, part.images, size, device=device)) for part in (train, test)]
        numbers = self.scores(context, train, test, *maps, whole_masks(proposed))
        if self.oracle:
            oracle = self.scores(context, train, test, *maps, train.objects, is_oracle=True)
            numbers |= {f"{name}_oracle": value for name, value in oracle.items()}
        known = train.classes != IGNORED
        nothing = torch.full_like(test.classes, BACKGROUND)
        return numbers | {
            "miou_background": matched_miou(counts_of(nothing, test)),
            "proposal_iou": float(iou(proposed & known, known & (train.classes != BACKGROUND)).mean()),
            "classes": train.count - 1,
            "classes_scored": len(set(test.classes.unique().tolist()) - {BACKGROUND, IGNORED}),
            "n_train": len(train),
            "n_test": len(test),
        }

    def proposed(self, context: Context, train: ClassMaps) -> Tensor | None:
        """Masks (N, S, S) bool of the training images, or None for "own" and a method without maps."""
        data, shape = context.data, train.classes.shape[1:]
        if self.proposals == "rbd":
            masks = annotate(RBD(), data.source, "train", data.canvas, data.train_limit)
            return masks.rows(range(len(train))) > 0
        if self.proposals == "tokencut":
            cut = read(context.method, train.images, context.size, self.tau, device=context.device).object
            return F.interpolate(cut[:, None].float(), shape, mode="nearest-exact")[:, 0] > 0.5
        maps = extract_saliency(context.method, train.images, context.size, device=context.device)
        if maps is None:
            return None
        return F.interpolate(maps[:, None], shape, mode="bilinear", align_corners=False)[:, 0].cpu() >= MARKED

    def scores(
        self,
        context: Context,
        train: ClassMaps,
        test: ClassMaps,
        train_maps: Tensor,
        test_maps: Tensor,
        regions: Regions,
        is_oracle: bool = False,
    ) -> dict[str, float]:
        """The numbers of some regions of the training images.

        Without any region all predictions are background.
        """
        large = regions.masks.flatten(1).double().mean(dim=1) > self.smallest
        used = regions.subset(large)
        empty = len(train) - len(used.image.unique())
        numbers = {"regions": len(used), "empty": empty, "clusters": 0}
        pseudo, predicted = torch.full_like(train.classes, IGNORED), torch.full_like(test.classes, BACKGROUND)
        if len(used):
            backbone, size = context.method.backbone, context.size
            vectors = region_features(backbone, train.images, used, size, context.device).double().cpu().numpy()
            found = spectral_clusters(vectors, train.count - 1, context.seed, self.neighbours, self.restarts, self.core)
            pseudo = pseudo_masks(regions, large, found, train.classes)
            if is_oracle:  # what is unknown is told, too
                pseudo[train.classes == IGNORED] = IGNORED
            head = learn(train_maps, pseudo, found.count + 1, context.seed, self.positions, self.l2)
            predicted = predict(head, test_maps, test.classes)
            numbers["clusters"] = found.count
            if is_oracle:
                numbers["clustered"] = clustered(found, used, train.classes)
        shown = torch.where(pseudo == IGNORED, BACKGROUND, pseudo)
        return numbers | {
            "miou": matched_miou(counts_of(predicted, test)),
            "pseudo_miou": matched_miou(counts_of(shown, train)),
        }


# ---------------------------------------------------------------- pseudo masks, and a head that learns them


def pseudo_masks(regions: Regions, used: Tensor, found: Clusters, like: Tensor) -> Tensor:
    """Maps (N, S, S) uint8 of cluster + 1 on core regions, 255 on all other regions, 0 on the rest of the image.

    An image without a core region is 255 everywhere.

    Args:
        regions: R regions of N images.
        used: (R,) bool, those that were clustered; found: their clusters.
        like: (N, S, S) uint8.
    """
    labels = torch.full((len(regions),), IGNORED, dtype=torch.uint8)
    labels[used] = torch.where(torch.from_numpy(found.core), torch.from_numpy(found.labels) + 1, IGNORED).to(
        torch.uint8
    )
    out = torch.full_like(like, IGNORED)
    out[regions.image[labels != IGNORED]] = BACKGROUND
    for image, mask, label in zip(regions.image, regions.masks, labels, strict=True):
        out[image][mask] = label
    return out


def with_context(maps: Tensor) -> Tensor:
    """Feature maps (N, 3 C, h, w): those of each position, and their means over a window around it and over the map.

    The window has half the sides of the map, rounded to odd numbers of positions; what lies outside does not count.

    Args:
        maps: (N, C, h, w).
    """
    window = [side // 2 | 1 for side in maps.shape[2:]]
    margin = [side // 2 for side in window]
    near = F.avg_pool2d(maps, window, stride=1, padding=margin, count_include_pad=False)
    return torch.cat([maps, near, maps.mean(dim=(2, 3), keepdim=True).expand_as(maps)], dim=1)


def learn(
    maps: Tensor, pseudo: Tensor, labels: int, seed: int, positions: int = POSITIONS, l2: Sequence[float] = L2_GRID
) -> Regression:
    """The head that learns pseudo masks: multinomial logistic regression on standardised position features.

    The penalty is the one with the highest mean IoU on a held-out fifth of the images, by their pseudo labels; the
    largest one where the fifth, or the rest, has no drawn position.

    Args:
        maps: (N, C, h, w) feature maps.
        pseudo: (N, S, S) uint8 in [0, labels), 255 is ignored; one pixel is labelled at least.
        seed: draws the held-out images, and the positions where there are more than ``positions``.
    """
    rows = (pseudo != IGNORED).flatten(1).any(dim=1)
    maps, pseudo = maps[rows.to(maps.device)], pseudo[rows]
    image, features, targets = labelled_positions(maps, pseudo, labels, positions, seed)
    held = held_out_part(len(maps), seed) if len(maps) > 1 else torch.ones(1, dtype=torch.bool)
    row_held = held.to(image.device)[image]
    held_maps, held_pseudo = maps[held.to(maps.device)], pseudo[held]

    def score(fit: Regression) -> float:
        return mean_iou(position_scores(fit, held_maps), held_pseudo, labels, fit.classes)

    grid = l2 if row_held.any() and not row_held.all() else (max(l2),)
    return choose_and_fit(features, Shares(targets, "softmax"), row_held, score, grid)


def predict(head: Regression, maps: Tensor, like: Tensor) -> Tensor:
    """Labels (N, S, S) uint8, of the scores of maps (N, C, h, w) resized bilinearly to the pixels of ``like``."""
    parts = []
    scores = position_scores(head, maps)
    for part in scores.split(max(1, CHUNK_VALUES // (like[0].numel() * scores.shape[1]))):
        full = F.interpolate(part.contiguous(), like.shape[1:], mode="bilinear", align_corners=False)
        parts.append(head.classes[full.max(dim=1).indices].to(torch.uint8).cpu())
    return torch.cat(parts)


# ---------------------------------------------------------------- scores


def counts_of(predicted: Tensor, truth: ClassMaps) -> Tensor:
    """Pixels of each pair of a predicted label and a true class; labels (N, S, S) of at most as many as classes."""
    return pixel_counts(predicted, truth.classes, truth.count, truth.count, IGNORED)


def clustered(found: Clusters, regions: Regions, classes: Tensor) -> float:
    """Share of regions, each within one true class, whose cluster is the one that the class is matched with."""
    numbers = [classes[row][mask] for row, mask in zip(regions.image, regions.masks, strict=True)]
    of_region = torch.stack([own[own != IGNORED].mode().values for own in numbers]).long() - 1
    counts = torch.zeros(found.count, int(of_region.max()) + 1, dtype=torch.int64)
    counts.index_put_((torch.from_numpy(found.labels), of_region), torch.ones_like(of_region), accumulate=True)
    return float(counts.numpy()[linear_sum_assignment(counts.numpy(), maximize=True)].sum() / len(regions))
