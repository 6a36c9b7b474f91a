"""LEWEL's maps in SCD's triplets, and SCD's map in LEWEL's aligned loss: which half of a method does the work?

LEWEL and SCD differ in two things at once: how a map is made (K softmax maps from a head, or one sigmoid map and its
complement) and what is done with what it pools (attraction of vectors of the same index, or a triplet that parts
foreground from background). Each class here takes one half from each; all else is its parent's.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.lewel import LEWEL, SALIENCY_RULES, Aligned, aligned_vectors, alignment_maps, one_map
from scd.data.views import View
from scd.errors import UsageError, unknown
from scd.maps.source import MapSource, SaliencyMLP
from scd.nn.ema import copy_without_grad, ema_update
from scd.nn.heads import MLP
from scd.scd import SCD, Regions
from scd.siamese import Features, Siamese


class SaliencyInLEWEL(LEWEL):
    """LEWEL whose aligned vectors are SCD's foreground and background: J = 2, pooled under M and under 1 - M.

    The vectors of one index attract each other as LEWEL's do, through g_obj and the host's second matcher; nothing
    parts foreground from background but the host's own negatives, where it has any.

    Args:
        siamese, weight: see :class:`baselines.lewel.LEWEL`.
        saliency: a map source or what builds one from ``dim=C``; None is ``SaliencyMLP`` with its defaults.
    """

    def __init__(
        self, siamese: Siamese, saliency: nn.Module | Callable[..., nn.Module] | None = None, weight: float = 0.5
    ):
        super().__init__(siamese, heads=1, weight=weight)
        source = SaliencyMLP if saliency is None else saliency
        self.saliency_head = source if isinstance(source, nn.Module) else source(dim=siamese.backbone.dim)
        self.target_saliency_head = copy_without_grad(self.saliency_head)
        if self.saliency_head.needs != "none":
            raise UsageError("LEWEL's loss passes no views on: give it a map source that needs features alone")

    def align(self, features: Features, projector: nn.Module, object_projector: nn.Module) -> Aligned:
        """z, the two maps and their two vectors, of one view by one network."""
        is_target = object_projector is self.target_object_projector
        head = self.target_saliency_head if is_target else self.saliency_head
        saliency = head(features.maps, None)  # (B, h, w)
        maps = torch.stack([saliency, 1 - saliency], dim=1).flatten(2)  # (B, 2, hw)
        maps = maps / maps.sum(dim=2, keepdim=True).clamp_min(1e-6)
        pixels = features.maps.flatten(2).transpose(1, 2)  # (B, hw, C)
        objects = object_projector(aligned_vectors(pixels, maps, self.heads))  # (B, 2, K)
        return Aligned(projector(features.pooled), objects, maps.unflatten(2, saliency.shape[1:]))

    def after_step(self, progress: float) -> None:
        """LEWEL's own, and the same momentum for the copy of the saliency head."""
        ema_update(self.target_saliency_head, self.saliency_head, self.siamese.momentum(progress))
        super().after_step(progress)

    @torch.no_grad()
    def saliency(self, images: Tensor) -> Tensor:
        """The map (B, h, w) in [0, 1]; which of its sides is the object, nothing in the loss says."""
        return self.saliency_head(self.siamese.encode_online(images).maps, None).float()


class AlignmentMaps(MapSource):
    """LEWEL's maps as a source: a head on every position, unit length over channels, softmax over positions.

    NOTE: a head of its own, since SCD leaves the host's projector to the image-level loss. Each map is divided by its
    largest value, so that the complement 1 - M of SCD's background exists.

    Args:
        dim: C of the feature maps.
        maps: number J of maps.
        hidden: width of the head's hidden layer; C when None.
        scale: divisor of the normalised logits, see :func:`baselines.lewel.alignment_maps`.
    """

    def __init__(self, dim: int, maps: int = 16, hidden: int | None = None, scale: float = 1.0):
        super().__init__()
        if maps < 2:
            raise UsageError(f"AlignmentMaps has at least 2 maps, not {maps}: of one alone the unit length is constant")
        self.head = MLP((dim, hidden or dim, maps))
        self.scale = scale

    def distributions(self, maps: Tensor) -> Tensor:
        """J distributions over positions (B, J, h, w) of feature maps (B, C, h, w)."""
        tokens = self.head(maps.flatten(2).transpose(1, 2))  # (B, hw, J)
        return alignment_maps(tokens, self.scale).unflatten(2, maps.shape[2:])

    def forward(self, maps: Tensor, view: View | None = None) -> Tensor:
        """J maps (B, J, h, w) in (0, 1], the largest value of each being 1."""
        weights = self.distributions(maps)
        return weights / weights.amax(dim=(2, 3), keepdim=True)


class AlignmentInSCD(SCD):
    """SCD whose map is one of LEWEL's J at a time: J triplets per pair of views, each between vectors of one index.

    Args:
        siamese: the host.
        saliency: an :class:`AlignmentMaps` or what builds one from ``dim=C``.
        saliency_rule: how one map is made of all for scoring, as in LEWEL.
        options: of :class:`scd.scd.SCD`.
    """

    def __init__(
        self,
        siamese: Siamese,
        saliency: nn.Module | Callable[..., nn.Module] | None = None,
        saliency_rule: str = "mean",
        **options,
    ):
        if saliency_rule not in SALIENCY_RULES:
            raise unknown("saliency_rule", saliency_rule, SALIENCY_RULES)
        super().__init__(siamese, AlignmentMaps if saliency is None else saliency, **options)
        self.saliency_rule = saliency_rule

    def regions(self, maps: Tensor, saliency: Tensor, projection: nn.Module) -> Regions:
        """Vectors (B·J, D) of every map's foreground and background, through the projection."""
        weights = torch.stack([saliency, 1.0 - saliency], dim=2).flatten(3).float()  # (B, J, 2, hw)
        if self.pooling == "mean":
            weights = weights / weights.sum(dim=3, keepdim=True).clamp_min(1e-6)
        pixels = maps.flatten(2).transpose(1, 2)[:, None]  # (B, 1, hw, C)
        pooled = (weights.to(maps.dtype) @ pixels).flatten(0, 1)  # (B·J, 2, C)
        vectors = projection(pooled).float()
        if self.normalise:
            vectors = F.normalize(vectors, dim=2)
        foreground, background = vectors.unbind(dim=1)
        return Regions(saliency, foreground, background)

    @torch.no_grad()
    def saliency(self, images: Tensor) -> Tensor:
        """One map (B, h, w) in [0, 1] of the J, by the same rule as LEWEL's."""
        return one_map(self.saliency_head.distributions(self.siamese.encode_online(images).maps), self.saliency_rule)
