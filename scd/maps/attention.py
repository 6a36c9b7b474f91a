"""Map sources that a ViT brings along, nothing learned for them: where its class token looks, and how its keys cut.

    AttentionMap  the class token's attention in the last block (DINO, arXiv 2104.14294)
    TokenCutMap   the normalised cut of the last block's keys (TokenCut, arXiv 2202.11539)

Each takes the place of :class:`scd.maps.source.SaliencyMLP` in :class:`scd.scd.SCD`: the question is what a learned
map adds to these. Neither passes a gradient on, so the triplet loss reaches the backbone through the features alone.

NOTE: both read what :func:`scd.nn.vit.tokens_of` finds with the very feature maps of a forward pass. SCD's options that
change these maps on the way (``map_gradient=false``, several extra views in one pass with ``triplet_views=all``)
cannot go with them.
"""

import torch
from torch import Tensor

from scd.data.views import View
from scd.errors import UsageError
from scd.maps.controls import EMPTY
from scd.maps.source import MapSource
from scd.maps.tokencut import affinity, bipartition
from scd.nn.vit import tokens_of


class AttentionMap(MapSource):
    """M = the class token's attention to the patches, stretched from 0 to 1 in each image.

    NOTE: stretching makes the least seen patch 0 and the most seen one 1 whatever their weights; the attention itself
    sums to at most 1 over all patches, and 1 - M would be nearly flat.

    Args:
        dim: C of the feature maps; not used.
        head: one head of the last block; the mean over all heads when None.

    Raises:
        UsageError: a negative head.
    """

    def __init__(self, dim: int = 0, head: int | None = None):
        super().__init__()
        if head is not None and head < 0:
            raise UsageError(f"AttentionMap's head is 0 or more, not {head}")
        self.head = head

    def forward(self, maps: Tensor, view: View | None = None) -> Tensor:
        """The map (B, h, w) that belongs to feature maps (B, C, h, w) of a ViT; the view is not looked at.

        Raises:
            UsageError: maps without tokens, or a head that the block does not have.
        """
        attention = tokens_of(maps).attention.detach()
        last = attention.shape[1] - 1
        if self.head is not None and self.head > last:
            raise UsageError(f"AttentionMap's head is {self.head}; the last block has heads 0 to {last}")
        chosen = attention.mean(dim=1) if self.head is None else attention[:, self.head]
        return stretched(chosen).to(maps.dtype)


class TokenCutMap(MapSource):
    """M = the foreground of the cut of the keys, a little above 0 and below 1 at its ends as the oracle's map.

    NOTE: the whole foreground, not the one component that TokenCut calls the object: the loss knows two regions, and
    what looks like the seed belongs to its region wherever it lies.

    Args:
        dim: C of the feature maps; not used.
        tau: cosine above which two patches are neighbours, see :func:`scd.maps.tokencut.affinity`.
    """

    def __init__(self, dim: int = 0, tau: float = 0.2):
        super().__init__()
        self.tau = tau

    def forward(self, maps: Tensor, view: View | None = None) -> Tensor:
        """The map (B, h, w) that belongs to feature maps (B, C, h, w) of a ViT; the view is not looked at.

        NOTE: on the device "meta" its values are undefined; the graph's product is counted, the solver is not.

        Raises:
            UsageError: maps without tokens, or keys that are not finite.
        """
        keys = tokens_of(maps).keys
        if keys.is_meta:
            affinity(keys, self.tau)
            return maps.new_empty((maps.shape[0], *maps.shape[2:]))
        foreground = bipartition(keys, self.tau).foreground
        return foreground.to(maps.dtype).clamp(EMPTY, 1 - EMPTY)


def stretched(maps: Tensor) -> Tensor:
    """Maps (..., h, w) moved and scaled so that each goes from 0 to 1; 0.5 where a map is the same everywhere."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0.5)
