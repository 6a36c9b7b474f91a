"""LEWEL: the projection head, applied to every pixel, also says where to pool (arXiv 2203.14898, CVPR 2022).

    z, A   = g([GAP(F), F])                                one call on 1 + hw tokens
    A_k    = softmax over positions of (A / ||A||_2)_k / s  K maps, the norm along the K channels of each pixel
    a_j    = concat over heads h of sum_p A_{h,j}(p) F_h(p)  j = 1 ... K / n_H aligned vectors of dimension C
    o_j    = g_obj(a_j)
    loss   = w * host(z, z') + (1 - w) * mean over j of host(o_j, o'_j)

LEWEL wraps a Siamese method, as SCD does: the same feature maps, the host's own kind of loss. Only SCD has a map from a
separate MLP, its complement as background, and a loss that repels. Only LEWEL has K maps that each sum to 1 and come
from the projection head, and a correspondence between views by the index of the map.

NOTE: heads (g, g_obj, predictors) have the host's shape, norm and biases; LEWEL's own are BYOL's without any bias.
MoCo's g has no BN; around MoCo the joint pass over 1 + hw tokens mixes no statistics.
NOTE: what LEWEL adds (g_obj, a second predictor) starts with the official Kaiming fan-out weights. The host's g and
predictor start as in the arm without LEWEL, so that both arms of a seed share their start.
NOTE: the target follows LEWEL's SyncBN form: moving averages of parameters only, batch statistics of its own. The EMAN
form (target in eval mode with averaged buffers) is not implemented.
NOTE: the loss is the mean over pairs of views where LEWEL's is the sum over two directions (see scd.siamese).
NOTE: the paper's MoCo variant was never released and its details are not described. Here the aligned vectors have
an InfoNCE of their own, with the host's temperature and a second queue of the host's size. Every o_j is a query and its
o'_j the positive. The queue takes one aligned vector per image and target view, whose index j is drawn uniformly: it
covers as many images as the host's queue, and its negatives are other images' vectors of any index.
"""

from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.errors import UsageError, unknown
from scd.method import Batch, View
from scd.nn.ema import copy_without_grad
from scd.nn.precision import at_least_float32
from scd.siamese import Features, JointEmbedding, Pair, match, unique
from scd.wrapper import Wrapper

SALIENCY_RULES = ("mean", "sharpest")


@dataclass
class Aligned:
    """What one branch computes of a view: ``embedding`` z (B, K), ``objects`` o (B, J, K), ``maps`` (B, K, h, w)."""

    embedding: Tensor
    objects: Tensor
    maps: Tensor


class LEWEL(Wrapper):
    """A Siamese method whose projector is also applied per pixel, plus its loss between aligned vectors.

    Args:
        siamese: the host, for example MoCo or BYOL; its projector maps C to K numbers, and it has a second matcher.
        heads: n_H, groups of maps and of features that are pooled separately; there are J = K / n_H aligned vectors.
        scale: s, what the normalised maps are divided by before the softmax.
        weight: w, share of the image-level loss; 1 - w is the share of the aligned vectors' loss.
        saliency_rule: how :meth:`saliency` makes one map of K, "mean" or "sharpest".

    Raises:
        UsageError: a host without a second matcher (DINO, SlotCon), heads that do not divide K and C, or a scale,
            weight or rule out of range.
    """

    addition = "maps, pooling, aligned loss"

    def __init__(
        self,
        siamese: JointEmbedding,
        heads: int = 4,
        scale: float = 1.0,
        weight: float = 0.5,
        saliency_rule: str = "mean",
    ):
        super().__init__(siamese)
        maps, channels = siamese.projector.dim, siamese.backbone.dim
        if heads < 1 or maps % heads or channels % heads:
            raise UsageError(f"LEWEL's heads={heads} must divide its {maps} maps and the map's {channels} channels")
        if scale <= 0:
            raise UsageError(f"LEWEL's scale is a divisor above 0, not {scale}")
        if not 0 <= weight <= 1:
            raise UsageError(f"LEWEL's weight is a share in [0, 1], not {weight}")
        if saliency_rule not in SALIENCY_RULES:
            raise unknown("saliency_rule", saliency_rule, SALIENCY_RULES)
        self.object_projector = fresh_copy(siamese.projector)  # g_obj: the shape of g, weights of its own
        self.object_matcher = siamese.new_matcher()
        for head in (self.object_projector, self.object_matcher):
            start_fan_out(head)
        self.target_object_projector = siamese.target_of(self.object_projector)
        self.heads = heads
        self.scale = scale
        self.weight = weight
        self.saliency_rule = saliency_rule

    # ---------------------------------------------------------------- loss

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """One step's loss; logs both terms and the online maps' entropy and largest weight, relative to uniform.

        The host's loss is computed here and not by the host: its embeddings come from the same pass of g as the maps.
        """
        encoded = self.siamese.encode(batch.views)
        online = {name: self.online_aligned(view, encoded.views[name]) for name, view in encoded.online.items()}
        target = self.siamese.target_results(encoded, online, self.target_aligned)
        matcher, weights = self.siamese.matcher, encoded.weights
        image_loss = match(matcher, encoded.pairs, embeddings(online), embeddings(target), weights)
        aligned_loss = self.aligned_loss(encoded.pairs, online, target)
        loss = self.weight * image_loss + (1 - self.weight) * aligned_loss
        logs = {"image_loss": image_loss.detach(), "aligned_loss": aligned_loss.detach()}
        return {"loss": loss, **logs, **alignment_statistics([aligned.maps for aligned in online.values()])}

    def online_aligned(self, features: Features, view: View) -> Aligned:
        """z, o and maps of a view in the online branch, with gradient."""
        return self.align(features, self.siamese.projector, self.object_projector)

    def target_aligned(self, features: Features, view: View) -> Aligned:
        """The same in the momentum branch."""
        return self.align(features, self.siamese.target_projector, self.target_object_projector)

    def align(self, features: Features, projector: nn.Module, object_projector: nn.Module) -> Aligned:
        """z, o and maps of one view by the heads of one branch: steps 1 to 3 of the module's docstring."""
        height, width = features.maps.shape[2:]
        pixels = features.maps.flatten(2).transpose(1, 2)  # (B, hw, C)
        tokens = projector(torch.cat([features.pooled[:, None], pixels], dim=1))  # (B, 1 + hw, K)
        maps = alignment_maps(tokens[:, 1:], self.scale)  # (B, K, hw)
        objects = object_projector(aligned_vectors(pixels, maps, self.heads))  # (B, J, K)
        return Aligned(tokens[:, 0], objects, maps.unflatten(2, (height, width)))

    def aligned_loss(self, pairs: list[Pair], online: dict[str, Aligned], target: dict[str, Aligned]) -> Tensor:
        """The second matcher's loss over aligned vectors of the same index: a mean over B·J, then over pairs."""
        o = {name: view.objects.flatten(0, 1) for name, view in online.items()}  # (B·J, K)
        o_target = {name: view.objects.flatten(0, 1) for name, view in target.items()}
        losses = [self.object_matcher(o[i], o_target[j]) for i, j in pairs]
        self.object_matcher.remember([one_per_image(target[name].objects) for name in unique(j for _, j in pairs)])
        return torch.stack(losses).mean()

    def after_backward(self) -> None:
        super().after_backward()
        self.object_matcher.after_backward()

    def after_step(self, progress: float) -> None:
        """Move the host and the copy of g_obj; both matchers then change their state."""
        super().after_step(progress)
        self.object_matcher.after_step(progress)

    # ---------------------------------------------------------------- evaluation

    @torch.no_grad()
    def maps(self, view: View) -> Tensor:
        """The K alignment maps (B, K, h, w) of the online branch, each a distribution over positions."""
        return self.online_aligned(self.siamese.encode_online(view.images), view).maps

    def saliency(self, view: View) -> Tensor:
        """One map (B, h, w) in [0, 1] of the K maps, for scoring against masks; :meth:`maps` gives the single maps."""
        return one_map(self.maps(view), self.saliency_rule)


def alignment_maps(tokens: Tensor, scale: float) -> Tensor:
    """K distributions over positions, (B, K, hw), from projected pixels (B, hw, K).

    Each pixel's K numbers are first brought to unit length and divided by ``scale``, so two logits differ by at most
    2 / scale and two weights of a map by a factor of at most exp(2 / scale). Source: arXiv 2203.14898.
    """
    logits = F.normalize(at_least_float32(tokens), dim=2) / scale
    return logits.softmax(dim=1).transpose(1, 2)


def aligned_vectors(pixels: Tensor, maps: Tensor, heads: int) -> Tensor:
    """Aligned vectors (B, K / heads, C) of pixels (B, hw, C) pooled with maps (B, K, hw), head by head.

    The head is the slow index of both: map ``h * (K / heads) + j`` pools channels ``h * (C / heads) ...`` of vector j.
    """
    grouped_maps = maps.unflatten(1, (heads, -1))  # (B, n_H, J, hw)
    groups = pixels.unflatten(2, (heads, -1)).permute(0, 2, 1, 3)  # (B, n_H, hw, C / n_H)
    pooled = grouped_maps.to(groups.dtype) @ groups  # (B, n_H, J, C / n_H)
    return pooled.transpose(1, 2).flatten(2)


def one_per_image(objects: Tensor) -> Tensor:
    """One of each image's J aligned vectors, (B, J, K) -> (B, K); drawn on the CPU, so that all devices agree."""
    batch, count = objects.shape[:2]
    index = torch.randint(count, (batch,)).to(objects.device)
    return objects.take_along_dim(index[:, None, None], dim=1).squeeze(1)


def one_map(maps: Tensor, rule: str) -> Tensor:
    """One map (B, h, w) in [0, 1] of K distributions over positions (B, K, h, w).

    NOTE: LEWEL has no single map and no foreground; the rule is the suite's own. "mean" averages the K maps, "sharpest"
    takes each image's map of lowest entropy. The result is scaled from 0 to 1 in each image, which shows a shape even
    where all weights are nearly equal.
    """
    if rule == "mean":
        one = maps.mean(dim=1)
    else:
        index = entropy(maps).argmin(dim=1)  # (B,)
        one = maps.take_along_dim(index[:, None, None, None], dim=1).squeeze(1)
    low, high = one.amin(dim=(1, 2), keepdim=True), one.amax(dim=(1, 2), keepdim=True)
    return (one - low) / (high - low).clamp_min(torch.finfo(one.dtype).tiny)


def alignment_statistics(maps: list[Tensor]) -> dict[str, Tensor]:
    """Mean over maps (B, K, h, w) of all views: entropy over its maximum (1 is uniform), largest weight times hw."""
    relative = torch.stack([(entropy(m) / log(max(m[0, 0].numel(), 2))).mean() for m in maps]).mean()
    peak = torch.stack([(m.amax(dim=(2, 3)) * m[0, 0].numel()).mean() for m in maps]).mean()
    return {"alignment_entropy": relative.detach(), "alignment_peak": peak.detach()}


def entropy(maps: Tensor) -> Tensor:
    """Entropy (B, K) in nats of maps (B, K, h, w) that sum to 1."""
    return -(maps * maps.clamp_min(torch.finfo(maps.dtype).tiny).log()).sum(dim=(2, 3))


def embeddings(aligned: dict[str, Aligned]) -> dict[str, Tensor]:
    """The image-level embeddings z of all views."""
    return {name: view.embedding for name, view in aligned.items()}


def fresh_copy(module: nn.Module) -> nn.Module:
    """A module of the same shape with newly drawn weights."""
    copy = copy_without_grad(module).requires_grad_(True)
    for part in copy.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return copy


def start_fan_out(module: nn.Module) -> None:
    """Linear weights of a module from a normal of variance 2 / outputs, biases of 0 (He et al., ICCV 2015)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
