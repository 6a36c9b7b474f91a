"""SCD whose map learns from given masks, as the saliency network of reverse attention does (arXiv 1807.09940).

    L = L_SCD + mask_weight · mean over the global views of sum_r BCE(S_r, mask)

with the logits S_r of :class:`scd.maps.reverse_attention.ReverseAttention`. The map is then a supervised one, and the
arm an oracle: it shows what SCD would do with a map that was learned from masks in the place of the triplets.

NOTE: the official network is trained through its backbone. Here the gradient of this loss stops at the feature map
unless ``supervise_backbone`` is set, so that the features themselves learn from no mask.
NOTE: the map still learns from the triplets too; the official network knows none.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from scd.errors import UsageError
from scd.maps.reverse_attention import ReverseAttention, mask_loss
from scd.maps.source import MapSource
from scd.method import strongest_supervision
from scd.scd import SCD
from scd.siamese import Encoded, JointEmbedding, unique


class MaskedReverseAttention(SCD):
    """SCD with a reverse-attention map and the cross-entropy of all its stages against the views' masks.

    Args:
        siamese, saliency: see :class:`scd.scd.SCD`; the source is a ``ReverseAttention``, None one with its defaults.
        mask_weight: of the loss against the masks.
        supervise_backbone: whether this loss reaches the backbone.
        options: of :class:`scd.scd.SCD`.

    Raises:
        UsageError: another map source, a weight that is not above 0, or, in a step, views without masks.

    NOTE: it counts as "oracle" whatever makes the masks: they are what the map is fitted to.
    """

    needs = frozenset({"masks"})
    supervision = "oracle"

    def __init__(
        self,
        siamese: JointEmbedding,
        saliency: MapSource | Callable[..., MapSource] | None = None,
        mask_weight: float = 1.0,
        supervise_backbone: bool = False,
        **options,
    ):
        super().__init__(siamese, ReverseAttention if saliency is None else saliency, **options)
        if not isinstance(self.saliency_head, ReverseAttention):
            raise UsageError(
                f"a map that learns from masks is saliency=reverse_attention, not a {type(self.saliency_head).__name__}"
            )
        if not mask_weight > 0:
            raise UsageError(f"mask_weight is the weight of a loss, above 0, not {mask_weight}")
        self.needs = self.needs | {"masks"}
        self.supervision = strongest_supervision(self.supervision, "oracle")
        self.mask_weight = mask_weight
        self.supervise_backbone = supervise_backbone

    def combine(self, image_loss: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """SCD's loss and the weighted cross-entropy, which is logged as ``mask_loss``."""
        loss, logs = super().combine(image_loss, encoded)
        losses = []
        for name in unique(i for i, _ in self.triplet_pairs(encoded)):
            masks, maps = encoded.views[name].masks, encoded.online[name].maps
            if masks is None:
                raise UsageError("a map that learns from masks needs images with masks; this data set has none")
            maps = maps if self.supervise_backbone else maps.detach()
            losses.append(mask_loss(self.saliency_head.logits(maps), masks))
        fitted = torch.stack(losses).mean()
        return loss + self.mask_weight * fitted, {**logs, "mask_loss": fitted.detach()}
