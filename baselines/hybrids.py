"""LEWEL's maps in SCD's triplets, and SCD's map in LEWEL's aligned loss.

LEWEL and SCD differ in two ways: how a map is made (K softmax maps from a head, or one sigmoid map and its complement)
and what is done with the vectors that it pools (attraction of vectors of the same index, or a triplet that separates
foreground from background). Each hybrid takes one half of each, which shows the half that an effect comes from.

:class:`AlignmentMaps` is a map source for :class:`scd.scd.SCD`; :class:`SaliencyInLEWEL` is the other hybrid.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from baselines.lewel import LEWEL, SALIENCY_RULES, Aligned, aligned_vectors, alignment_maps, one_map
from scd.errors import UsageError, unknown
from scd.maps.learned import SaliencyMLP
from scd.maps.source import MapSource
from scd.method import View
from scd.nn.heads import MLP
from scd.siamese import Features, JointEmbedding


class AlignmentMaps(MapSource):
    """LEWEL's maps as a source: a head on every position, unit length over channels, softmax over positions.

    NOTE: the head is a separate one; SCD uses the host's projector for the image-level loss only. Each map is divided
    by its largest value, so that the complement 1 - M of SCD's background exists.

    Args:
        dim: C of the feature maps.
        maps: number J of maps.
        hidden: width of the head's hidden layer; C when None.
        scale: divisor of the normalised logits, see :func:`baselines.lewel.alignment_maps`.
        saliency_rule: how one map is made of all for evaluation, "mean" or "sharpest", see
            :func:`baselines.lewel.one_map`.

    Raises:
        UsageError: fewer than 2 maps, or an unknown rule.
    """

    def __init__(
        self, dim: int, maps: int = 16, hidden: int | None = None, scale: float = 1.0, saliency_rule: str = "mean"
    ):
        super().__init__()
        if maps < 2:
            raise UsageError(f"AlignmentMaps has at least 2 maps, not {maps}: a single one is constant")
        if saliency_rule not in SALIENCY_RULES:
            raise unknown("saliency_rule", saliency_rule, SALIENCY_RULES)
        self.head = MLP((dim, hidden or dim, maps))
        self.scale = scale
        self.saliency_rule = saliency_rule

    def distributions(self, maps: Tensor) -> Tensor:
        """J distributions over positions (B, J, h, w) of feature maps (B, C, h, w)."""
        tokens = self.head(maps.flatten(2).transpose(1, 2))  # (B, hw, J)
        return alignment_maps(tokens, self.scale).unflatten(2, maps.shape[2:])

    def forward(self, maps: Tensor, view: View) -> Tensor:
        """J maps (B, J, h, w) in (0, 1], the largest value of each being 1."""
        weights = self.distributions(maps)
        return weights / weights.amax(dim=(2, 3), keepdim=True)

    def scored(self, maps: Tensor, view: View) -> Tensor:
        """One map (B, h, w) in [0, 1] of the J, by the same rule as LEWEL's."""
        return one_map(self.distributions(maps), self.saliency_rule)


class SaliencyInLEWEL(LEWEL):
    """LEWEL whose aligned vectors are SCD's foreground and background: J = 2, pooled under M and under 1 - M.

    The vectors of one index attract each other as LEWEL's do, through g_obj and the host's second matcher. Only the
    host's negatives, where it has any, separate foreground from background.

    Args:
        siamese, weight: see :class:`baselines.lewel.LEWEL`.
        saliency: a map source or what builds one from ``dim=C``; None is ``SaliencyMLP`` with its defaults.
    """

    def __init__(
        self,
        siamese: JointEmbedding,
        saliency: MapSource | Callable[..., MapSource] | None = None,
        weight: float = 0.5,
    ):
        super().__init__(siamese, heads=1, weight=weight)
        source = SaliencyMLP if saliency is None else saliency
        self.saliency_head = source if isinstance(source, nn.Module) else source(dim=siamese.backbone.dim)
        self.target_saliency_head = self.add_source(self.saliency_head)

    def online_aligned(self, features: Features, view: View) -> Aligned:
        """z, the two vectors and the two maps of a view in the online branch, with gradient."""
        saliency = self.saliency_head(features.maps, view)
        return self.pool(features, saliency, self.siamese.projector, self.object_projector)

    def target_aligned(self, features: Features, view: View) -> Aligned:
        """The same in the momentum branch."""
        saliency = self.target_saliency_head(features.maps, view)
        return self.pool(features, saliency, self.siamese.target_projector, self.target_object_projector)

    def pool(self, features: Features, saliency: Tensor, projector: nn.Module, object_projector: nn.Module) -> Aligned:
        """z, and the vectors under M and 1 - M of each map M, (B, [J,] h, w), by the heads of one branch."""
        maps = torch.stack([saliency, 1 - saliency], dim=-3).flatten(-2).flatten(1, -2)  # (B, [J·]2, hw)
        maps = maps / maps.sum(dim=2, keepdim=True).clamp_min(1e-6)
        pixels = features.maps.flatten(2).transpose(1, 2)  # (B, hw, C)
        objects = object_projector(aligned_vectors(pixels, maps, self.heads))  # (B, [J·]2, K)
        return Aligned(projector(features.pooled), objects, maps.unflatten(2, saliency.shape[-2:]))

    @torch.no_grad()
    def saliency(self, view: View) -> Tensor | None:
        """The map (B, h, w) in [0, 1]; nothing in the loss says which of its sides is the object."""
        maps = self.saliency_head.scored(self.siamese.encode_online(view.images).maps, view)
        return None if maps is None else maps.float()
