"""Whether a trained backbone shows the objects without a learned map: several map extractors on the same images.

    learned    the method's own map, where it has one          foreground where map >= 0.5
    inverted   1 - learned                                     foreground where 1 - map >= 0.5
    attention  class token to patches, mean over heads (ViT)   smallest set of positions with 60 % of the mass
    best_head  the head with the highest IoU (ViT)             the same rule
    tokencut   cut of the keys (ViT) or feature maps (CNN)     the component that TokenCut calls the object
    whole      the whole image                                 everything: a floor
    centre     Gaussian bump at the centre, sigma 0.3          60 % of the mass: a floor

Rules: attention, DINO (arXiv 2104.14294) and its authors' answers on how its masks were scored; tokencut, arXiv
2202.11539. All are scored in the same way, see :mod:`scd.evaluation.localization`; soft maps are rescaled from 0 to 1
in each image first.

NOTE: ``learned_jaccard`` therefore differs slightly from ``saliency_iou``, which resizes before the threshold, and
``learned_maxf`` from ``saliency_maxf``, which does not rescale.
NOTE: ``best_head`` uses the mask to choose a head for each image. It bounds what a head could show and is no result.
DINO's Jaccard chooses like this for each object; a mask here is the union of an image's objects.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from scd.errors import UsageError
from scd.evaluation.features import BATCH, evaluation_views, extract_saliency, frozen
from scd.evaluation.localization import METRICS, Prediction, mass_set, overlaps, scores
from scd.evaluation.metric import Metric
from scd.evaluation.protocol import Context, EvaluationData, Protocol
from scd.maps.attention import rescaled
from scd.maps.controls import CentrePrior
from scd.maps.tokencut import bipartition
from scd.method import Method, whole_view
from scd.nn.features import maps_and_vector
from scd.nn.vit import tokens_of

EXTRACTORS = {
    "learned": "the method's own map, foreground where map >= 0.5",
    "inverted": "1 - the method's own map, foreground where it is >= 0.5",
    "attention": "the class token's attention in the last block, mean over heads, foreground: the smallest set of "
    "positions with 60 % of the mass",
    "best_head": "the attention of the head with the highest IoU with the mask, chosen in each image by that mask (an "
    "oracle choice, no result), foreground: the smallest set of positions with 60 % of the mass",
    "tokencut": "the normalised cut of the last block's keys, or of a CNN's feature maps, foreground: the component "
    "that holds the seed",
    "whole": "the whole image, a floor",
    "centre": "a Gaussian bump at the image's centre, sigma 0.3 of the side, foreground: 60 % of its mass, a floor",
}
LABEL_FREE = ("learned", "inverted", "attention", "tokencut")
NEITHER = ("inverted", "whole", "centre")  # extractors of which neither side is better


def extractor_metrics(*extractors: str) -> dict[str, Metric]:
    """The definition of ``{extractor}_jaccard``, ``_maxf`` and ``_corloc`` of some extractors."""
    return {
        f"{extractor}_{number}": metric._replace(
            label=f"{metric.label}, {extractor.replace('_', ' ')}",
            better=None if extractor in NEITHER else metric.better,
            definition=f"{metric.definition}; of {EXTRACTORS[extractor]}",
        )
        for extractor in extractors
        for number, metric in METRICS.items()
    }


@dataclass(kw_only=True)
class Emergence(Protocol):
    """The numbers of every extractor against the true masks.

    Args:
        images: number of test images, the first ones.
        tau: TokenCut's threshold, see :func:`scd.maps.tokencut.affinity`. NOTE: 0.2 is the paper's, for DINO's ViTs;
            for other features choose it on training images.
        batch: images per forward pass; it does not change the result.

    Raises:
        UsageError: fewer than 1 image, or than 1 in a batch.
    """

    images: int = 500
    tau: float = 0.2
    batch: int = BATCH

    def __post_init__(self) -> None:
        for name in ("images", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"emergence: {name} is {getattr(self, name)}, it must be at least 1")

    def definitions(self) -> dict[str, Metric]:
        return extractor_metrics(*EXTRACTORS)

    def applies(self, data: EvaluationData) -> bool:
        return "mask" in data.columns(data.split)

    def check(self, data: EvaluationData) -> None:
        data.check_masks("test")

    def measure(self, context: Context) -> dict[str, float]:
        """The numbers.

        Raises:
            UsageError: a tau outside [-1, 1), maps outside [0, 1], features that are not finite.
        """
        images, masks = context.data.test.images[: self.images], context.data.test.masks[: self.images]
        readings = read(context.method, images, context.size, self.tau, self.batch, context.device)
        predictions = label_free(readings)
        if readings.heads is not None:
            predictions["best_head"] = best_head(readings.heads, masks)
        return scores(predictions | floors(readings.object), masks)


# ---------------------------------------------------------------- extractors


@dataclass
class Readings:
    """What the extractors start from, for n images, on the CPU.

    Attributes:
        learned: the method's own map (n, h, w) in [0, 1], or None.
        heads: the class token's attention (n, H, h, w), or None.
        object: TokenCut's component (n, h, w) bool.
    """

    learned: Tensor | None
    heads: Tensor | None
    object: Tensor


def read(
    method: Method, images: Tensor, size: int, tau: float, batch: int = BATCH, device: str | torch.device = "cpu"
) -> Readings:
    """Maps, attention and cuts of the test-time views of images; the method is left as it was found.

    Args:
        method: on ``device``.
        images: (N, 3, S, S) uint8.
        size: side in pixels of the view that the network sees.
        tau: of TokenCut, see :func:`scd.maps.tokencut.affinity`.
        batch: images per forward pass; it does not change the result.

    Raises:
        UsageError: no images, a map outside [0, 1], features that are not finite.
    """
    learned = extract_saliency(method, images, size, batch, device)
    heads, objects = [], []
    with frozen(method):
        for view in evaluation_views(images, size, batch, device):
            maps, _ = maps_and_vector(method.backbone(view.images))
            try:
                tokens = tokens_of(maps)
            except UsageError:  # a CNN's maps, or a ViT's without class token
                objects.append(bipartition(maps, tau).component.cpu())
                continue
            heads.append(tokens.attention.float().cpu())
            objects.append(bipartition(tokens.keys, tau).component.cpu())
    return Readings(
        learned=None if learned is None else learned.cpu(),
        heads=torch.cat(heads) if heads else None,
        object=torch.cat(objects),
    )


def label_free(readings: Readings) -> dict[str, Prediction]:
    """The predictions of the extractors that use no mask: those of ``LABEL_FREE`` that the method allows."""
    predictions = {}
    if readings.learned is not None:
        predictions["learned"] = Prediction(rescaled(readings.learned), readings.learned >= 0.5)
        predictions["inverted"] = Prediction(1 - predictions["learned"].soft, 1 - readings.learned >= 0.5)
    if readings.heads is not None:
        attention = readings.heads.mean(dim=1)
        predictions["attention"] = Prediction(rescaled(attention), mass_set(attention))
    predictions["tokencut"] = Prediction(readings.object.float(), readings.object)
    return predictions


def best_head(heads: Tensor, masks: Tensor) -> Prediction:
    """In each image the head whose foreground has the highest IoU with the mask, the first of several equal ones.

    Args:
        heads: attention (n, H, h, w).
        masks: (n, S, S), 1 on the object, 0 elsewhere, 2 where it is unknown.
    """
    hard = torch.stack([mass_set(head) for head in heads.unbind(1)], dim=1)
    overlap = torch.stack([overlaps(head, masks) for head in hard.unbind(1)], dim=1)  # (n, H)
    rows, chosen = torch.arange(len(heads)), overlap.argmax(dim=1)
    return Prediction(rescaled(heads[rows, chosen]), hard[rows, chosen])


def floors(like: Tensor) -> dict[str, Prediction]:
    """Predictions that do not depend on the images, on the grid of ``like`` (n, h, w): whole and centre."""
    grid = like[:, None].float()
    bump = CentrePrior(sigma=0.3)(grid, whole_view(grid))
    return {
        "whole": Prediction(torch.ones_like(bump), torch.ones_like(bump, dtype=torch.bool)),
        "centre": Prediction(rescaled(bump), mass_set(bump)),
    }
