"""Map sources that are read off a ViT, without anything learned for them.

    AttentionMap  the class token's attention in the last block (DINO, arXiv 2104.14294)
    TokenCutMap   the normalised cut of the last block's keys (TokenCut, arXiv 2202.11539)

Each can replace :class:`scd.maps.learned.SaliencyMLP` in :class:`scd.scd.SCD`, to show what a learned map adds. Neither
passes a gradient on, so the triplet loss reaches the backbone through the features only.

NOTE: both read the queries and keys that a ViT attaches to its feature maps (:func:`scd.nn.vit.tokens_of`). Options of
SCD that replace these maps (``map_gradient=false``, several extra views in one pass with ``triplet_views=all``) do not
work with them.
"""

import torch
from torch import Tensor

from scd.errors import UsageError
from scd.maps.controls import EMPTY
from scd.maps.source import MapSource
from scd.maps.tokencut import affinity, bipartition
from scd.method import View
from scd.nn.vit import tokens_of


class AttentionMap(MapSource):
    """M = the class token's attention to the patches, scaled from 0 to 1 in each image.

    NOTE: the patch of lowest attention becomes 0 and that of highest attention 1, whatever their weights. The attention
    itself sums to at most 1 over all patches, so without the scaling 1 - M would be nearly flat.

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

    def forward(self, maps: Tensor, view: View) -> Tensor:
        """The map (B, h, w) that belongs to feature maps (B, C, h, w) of a ViT; the view is not used.

        Raises:
            UsageError: maps without tokens, or a head that the block does not have.
        """
        attention = tokens_of(maps).attention.detach()
        last = attention.shape[1] - 1
        if self.head is not None and self.head > last:
            raise UsageError(f"AttentionMap's head is {self.head}; the last block has heads 0 to {last}")
        chosen = attention.mean(dim=1) if self.head is None else attention[:, self.head]
        return rescaled(chosen).to(maps.dtype)


class TokenCutMap(MapSource):
    """M = the foreground of the cut of the keys, with 0.98 on the foreground and 0.02 elsewhere.

    NOTE: this is the whole foreground, not the connected component that TokenCut calls the object: the loss has two
    regions, and positions that resemble the seed belong to its region wherever they lie.

    Args:
        dim: C of the feature maps; not used.
        tau: cosine above which two patches are neighbours, see :func:`scd.maps.tokencut.affinity`.
    """

    def __init__(self, dim: int = 0, tau: float = 0.2):
        super().__init__()
        self.tau = tau

    def forward(self, maps: Tensor, view: View) -> Tensor:
        """The map (B, h, w) that belongs to feature maps (B, C, h, w) of a ViT; the view is not used.

        NOTE: on the device "meta" the values are undefined; FLOPs include the graph's product, not the solver.

        Raises:
            UsageError: maps without tokens, or keys that are not finite.
        """
        keys = tokens_of(maps).keys
        if keys.is_meta:
            affinity(keys, self.tau)
            return maps.new_empty((maps.shape[0], *maps.shape[2:]))
        foreground = bipartition(keys, self.tau).foreground
        return foreground.to(maps.dtype).clamp(EMPTY, 1 - EMPTY)


def rescaled(maps: Tensor) -> Tensor:
    """Maps (..., h, w), each shifted and scaled to the range from 0 to 1; 0.5 where a map is constant."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0.5)
