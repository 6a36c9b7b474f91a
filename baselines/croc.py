"""CrOC: the patches of two views are clustered together, and the clusters' vectors are distilled across the views.

    x_i      = n(key of patch i), of both views' 2 h w patches, from the teacher; each attention head by itself
    r        = softmax over i of cos(x_i, class token's key) / T_r        mass of the patches; K_0 seeds are drawn by it
    M_ik     = -cos(x_i, centroid_k) + alpha * |place_i - place_k|        cost; places in the source image
    P        = Sinkhorn(exp(-lambda M), r, c)                             optimal transport of patches to centroids

The two most similar centroids are merged and P computed anew, until two are left. Of the clusterings with K_max or
fewer centroids, the one of the lowest <P, M> is kept. Each patch keeps its largest entry. With W_v the kept entries of
view v, normalised over its patches:

    o_vk     = |class token| * n(sum over patches of W_v,ik F_v,i)        a cluster in view v; student and teacher alike
    L_o      = mean over clusters and both directions of the cross-entropy of DINO's two distributions of o_1k and o_2k
    loss     = DINO + w * L_o                                             w = ``weight``

Stegmüller, Lebailly et al., CVPR 2023, arXiv 2303.13245, section 3. CrOC wraps DINO; o goes through DINO's MLP and a
last layer of its own. SCD has one learned map for each view by itself; CrOC has clusters that both views share.

Official settings. ViT-S/16; K_0 5, K_max 4, alpha 4, lambda 20 with 5 iterations, T_r and T_c 2, w 1, 8192 prototypes
for the clusters; DINO's head, temperatures, EMA and optimiser; two crops of 0.25 to 1 of the area, no local ones; 300
epochs, batch 256 on COCO and 1024 on ImageNet. The released networks were trained with other arguments than the code's
defaults, which were not at hand.

NOTE: a cluster counts when it holds a patch in both views. This is rarely otherwise: a view's weights have the sum 1 in
each column before the largest entry of each patch is taken, so that a cluster of little mass still gets the patches of
the view that are nearest to it. Views that do not overlap are therefore clustered as others are, as in the official
code; the share of views that overlap is logged. Where no cluster of a batch counts, L_o is 0 and its centre stays; the
official code has no loss then (a mean over nothing).
NOTE: distances are in shares of the source image's width and height, the official ones in its pixels; on square images
they are the same, since only their ratio to the image's largest distance counts.
NOTE: a backbone without attention (a CNN) has one clustering of its map's positions, with the pooled vector in the
place of the class token.
NOTE: clusters are those of the two global views. Local views, where the host's recipe has them, are in DINO's loss.
NOTE: as in the official code M is scaled to [0, 1] over the batch of a process, so that an image's clusters depend a
little on the others'; and similar centroids are found by the product of their means, not by the cosine.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.densecl import pixels
from baselines.dino import DINO, Distillation
from baselines.slotcon import masked_mean
from scd.errors import UsageError
from scd.nn.points import overlap, random_shares
from scd.nn.precision import at_least_float32, no_autocast
from scd.nn.processes import gather
from scd.siamese import Encoded, Features, JointEmbedding
from scd.wrapper import Wrapper


@dataclass(frozen=True)
class JointClustering:
    """Clusters of the patches of two views, by optimal transport and merging. R rows: an image and a head each.

    Attributes:
        seeds: K_0, first centroids.
        most: K_max, centroids of the finest clustering that may be kept.
        position_weight: alpha.
        sharpness: lambda.
        iterations: of Sinkhorn.
        patch_temperature, centroid_temperature: T_r and T_c of the masses.
    """

    seeds: int = 5
    most: int = 4
    position_weight: float = 4.0
    sharpness: float = 20.0
    iterations: int = 5
    patch_temperature: float = 2.0
    centroid_temperature: float = 2.0

    def draw(self, cosines: Tensor) -> Tensor:
        """Indices (R, K_0) of patches, without replacement, with the probabilities softmax(cosines (R, n) / T_r).

        The largest of p / e, e exponential: as in torch.multinomial, with numbers that are drawn on the CPU.
        """
        exponentials = -random_shares(*cosines.shape, like=cosines).log()
        return (self.masses(cosines) / exponentials).topk(self.seeds, dim=1).indices

    def masses(self, cosines: Tensor) -> Tensor:
        """r (R, n) of the patches, from their cosines (R, n) with the class token."""
        return (cosines / self.patch_temperature).softmax(dim=1)

    def stages(self, patches: Tensor, cosines: Tensor, places: Tensor, seeds: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Plans (R, n, k) and their costs (R,) of the clusterings with k = K_0, ..., 2 centroids.

        Args:
            patches: (R, n, d), unit length.
            cosines: (R, n) with the class token.
            places: (R, n, 2) in the source image.
            seeds: (R, K_0), patches that are the first centroids.
        """
        masses = self.masses(cosines)[:, :, None]  # (R, n, 1)
        shares = (cosines.take_along_dim(seeds, dim=1) / self.centroid_temperature).softmax(dim=1)[
            :, None
        ]  # c, (R, 1, k)
        centroids, middles = (x.take_along_dim(seeds[:, :, None], dim=1) for x in (patches, places))
        found = []
        for k in range(self.seeds, 1, -1):
            distances = (places[:, :, None] - middles[:, None]).norm(dim=3)  # (R, n, k)
            distances = distances / distances.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
            cost = -patches @ F.normalize(centroids, dim=2).transpose(1, 2) + self.position_weight * distances
            low, high = cost.aminmax()
            cost = (cost - low) / (high - low).clamp_min(1e-12)
            plan = self.transport(cost, masses, shares)
            found.append((plan, (plan * cost).sum(dim=(1, 2))))
            if k > 2:
                plan = merged(plan, members(plan) @ patches)
                of = members(plan)  # (R, k - 1, n)
                centroids, middles = of @ patches, of @ places
                shares = (of @ masses).transpose(1, 2)
                shares = shares / shares.sum(dim=2, keepdim=True)
        return found

    def transport(self, cost: Tensor, masses: Tensor, shares: Tensor) -> Tensor:
        """The plan P (R, n, k) after Sinkhorn's iterations: rows to ``masses`` (R, n, 1), columns to ``shares``."""
        plan = (-self.sharpness * cost).exp()
        plan = plan / plan.sum(dim=(1, 2), keepdim=True)
        for _ in range(self.iterations):
            plan = plan * (masses / plan.sum(dim=2, keepdim=True))
            plan = plan * (shares / plan.sum(dim=1, keepdim=True))
        return plan

    def assign(self, stages: list[tuple[Tensor, Tensor]], of_view: tuple[int, int]) -> tuple[list[Tensor], Tensor]:
        """Each view's patches in the clusters of the cheapest clustering, with weights.

        Args:
            stages: of :meth:`stages`.
            of_view: patches of the first and of the second view.

        Returns:
            W (R, n_v, K_max) of each view, with one positive entry in each row (several where they tie), and K (R,)
            of the chosen clustering.
        """
        last = stages[-(self.most - 1) :]
        best = torch.stack([cost for _, cost in last], dim=1).argmin(dim=1)  # (R,)
        weights = []
        for parts in zip(*(plan.split(of_view, dim=1) for plan, _ in last), strict=True):
            parts = [F.pad(part / part.sum(dim=1, keepdim=True), (0, self.most - part.shape[2])) for part in parts]
            weights.append(torch.stack(parts, dim=1).take_along_dim(best[:, None, None, None], dim=1)[:, 0])
        return [w.where(w == w.amax(dim=2, keepdim=True), 0.0) for w in weights], self.most - best


def members(plan: Tensor) -> Tensor:
    """The patches' shares (R, k, n) in each centroid, with a sum of 1, of a plan (R, n, k)."""
    return (plan / plan.sum(dim=1, keepdim=True)).transpose(1, 2)


def merged(plan: Tensor, centroids: Tensor) -> Tensor:
    """The plan (R, n, k - 1) after the two centroids with the largest product have become one, the last one.

    Args:
        plan: (R, n, k).
        centroids: (R, k, d), means of their patches.
    """
    k = plan.shape[2]
    upper = torch.ones(k, k, dtype=torch.bool, device=plan.device).triu(diagonal=1)
    pair = (centroids @ centroids.transpose(1, 2)).masked_fill(~upper, -torch.inf).flatten(1).argmax(dim=1)[:, None]
    i, j = pair // k, pair % k  # (R, 1), i < j
    others = torch.arange(k - 2, device=plan.device)
    others = others + (others >= i)
    others = others + (others >= j)  # (R, k - 2), without i and j
    both = plan.take_along_dim(i[:, None], dim=2) + plan.take_along_dim(j[:, None], dim=2)
    return torch.cat([plan.take_along_dim(others[:, None], dim=2), both], dim=2)


class Prototypes(nn.Module):
    """The clusters' last layer: products (m, K) of bottleneck vectors (m, D) with K rows, all of unit length."""

    def __init__(self, count: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, dim).uniform_(-1 / math.sqrt(dim), 1 / math.sqrt(dim)))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) @ F.normalize(self.weight, dim=1).T


class ClusterDistillation(Distillation):
    """DINO's cross-entropy and centre, of the clusters that count.

    ``waiting`` are the sum of this step's teacher logits over these clusters, and their number: (K + 1,).
    """

    def forward(self, online: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Mean cross-entropy in nats over the rows that count; 0, with a gradient of 0, where none does.

        Args:
            online, target: logits (m, K) of student and teacher.
            counted: (m,) bool.
        """
        student, teacher = at_least_float32(online), at_least_float32(target.detach())
        teacher = ((teacher - self.centre) / self.teacher_temperature).softmax(dim=1)
        losses = -(teacher * (student / self.temperatures.student).log_softmax(dim=1)).sum(dim=1)
        return masked_mean(losses, counted)

    def remember(self, targets: list[Tensor], counted: Tensor) -> None:
        """Keep this step's teacher logits, (m, K) of each view, summed over the rows that count, (m,) bool."""
        logits = at_least_float32(torch.cat(targets).detach())
        rows = counted.repeat(len(targets))
        self.waiting = torch.cat([torch.where(rows[:, None], logits, 0.0).sum(dim=0), rows.sum(dim=0, keepdim=True)])
        sharpened = ((logits - self.centre) / self.teacher_temperature).softmax(dim=1)
        self.entropy = masked_mean(torch.special.entr(sharpened).sum(dim=1), rows)

    def after_step(self, progress: float) -> None:
        """Move the centre towards the mean over all processes' clusters, if there are any."""
        self.progress = progress
        if self.waiting is not None:
            total, count = gather(self.waiting[None]).sum(dim=0).split([len(self.centre), 1])
            moved = (1.0 - self.centre_momentum) * (count > 0).to(self.centre)
            self.centre.lerp_((total / count.clamp_min(1)).to(self.centre), moved)
            self.waiting = None


class CrOC(Wrapper):
    """DINO plus the same distillation of clusters that two views share.

    Args:
        siamese: the host, a DINO; MLP, temperatures, centre momentum and the frozen share are its own.
        prototypes: of the clusters' last layer.
        seeds: K_0.
        most_clusters: K_max.
        position_weight: alpha, of the distance between patch and centroid.
        sharpness: lambda.
        iterations: of Sinkhorn.
        patch_temperature, centroid_temperature: T_r and T_c.
        weight: w of the clusters' loss.

    Raises:
        UsageError: a host that is not DINO, fewer than 2 clusters or more than seeds, no iterations, a sharpness or
            temperature not above 0, a negative weight; maps with fewer positions than seeds.
    """

    addition = "clustering, clusters' loss"

    def __init__(
        self,
        siamese: JointEmbedding,
        prototypes: int = 8192,
        seeds: int = 5,
        most_clusters: int = 4,
        position_weight: float = 4.0,
        sharpness: float = 20.0,
        iterations: int = 5,
        patch_temperature: float = 2.0,
        centroid_temperature: float = 2.0,
        weight: float = 1.0,
    ):
        super().__init__(siamese)
        if not isinstance(siamese, DINO):
            raise UsageError(f"CrOC distils clusters by DINO's head and needs DINO, not {type(siamese).__name__}")
        if not 2 <= most_clusters <= seeds:
            raise UsageError(f"CrOC keeps 2 clusters or more, and at most its {seeds} seeds, not {most_clusters}")
        if iterations < 1 or prototypes < 2:
            raise UsageError(f"CrOC has 1 iteration and 2 prototypes at least, not {iterations} and {prototypes}")
        above = {"sharpness": sharpness, "patch_temperature": patch_temperature}
        for name, value in {**above, "centroid_temperature": centroid_temperature}.items():
            if not value > 0:
                raise UsageError(f"CrOC's {name} is a number above 0, not {value}")
        for name, value in (("position_weight", position_weight), ("weight", weight)):
            if value < 0:
                raise UsageError(f"CrOC's {name} is 0 or more, not {value}")
        self.clustering = JointClustering(
            seeds, most_clusters, position_weight, sharpness, iterations, patch_temperature, centroid_temperature
        )
        self.prototypes = Prototypes(prototypes, siamese.projector.weight.shape[1])
        self.target_prototypes = siamese.target_of(self.prototypes)
        host = siamese.matcher
        self.cluster_matcher = ClusterDistillation(prototypes, host.temperatures, host.centre_momentum)
        self.weight = weight

    def combine(self, image_loss: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """DINO's loss plus w L_o.

        Logged are L_o, the teacher's entropy over the clusters in nats, the number of clusters K that were chosen, that
        of clusters in both views (means over images and heads), and the shares of images without any of these and of
        images whose views overlap.
        """
        names = encoded.pairs[0]
        online, target = ([features[name] for name in names] for features in (encoded.online, encoded.target))
        with torch.no_grad():
            weights, chosen = self.clusters(encoded, names)  # (B, H, n, K) of each view
            shared = torch.stack([w.sum(dim=2) > 0 for w in weights]).all(dim=0)  # (B, H, K)
            teacher = [
                self.target_prototypes(self.siamese.target_projector.mlp(vectors))
                for vectors in cluster_vectors(target, weights)
            ]
        student = [self.prototypes(self.siamese.projector.mlp(vectors)) for vectors in cluster_vectors(online, weights)]
        counted = shared.flatten()
        directions = [self.cluster_matcher(student[v], teacher[1 - v], counted) for v in (0, 1)]
        self.cluster_matcher.remember(teacher, counted)
        cluster_loss = torch.stack(directions).mean()
        logs = {
            "cluster_loss": cluster_loss.detach(),
            "cluster_entropy": self.cluster_matcher.entropy,
            "clusters": chosen.float().mean(),
            "shared_clusters": shared.float().sum(dim=2).mean(),
            "without_clusters": (~shared.flatten(1).any(dim=1)).float().mean(),
            "overlap": overlap(*(encoded.views[name] for name in names))[1].float().mean(),
        }
        return image_loss + self.weight * cluster_loss, logs

    def clusters(self, encoded: Encoded, names: tuple[str, str]) -> tuple[list[Tensor], Tensor]:
        """W (B, H, n_v, K_max) of the two views and K (B·H,), from the teacher's features.

        Raises:
            UsageError: the two views have fewer positions than the clustering has seeds.
        """
        parts = [patches_and_cosines(encoded.target[name]) for name in names]
        patches, cosines = (torch.cat([part[which] for part in parts], dim=2) for which in (0, 1))
        heads, count = cosines.shape[1:]
        if count < self.clustering.seeds:
            raise UsageError(
                f"CrOC draws {self.clustering.seeds} seeds among the {count} positions of two views; "
                "use larger maps or fewer seeds"
            )
        grids = [
            encoded.views[name].grid(*encoded.target[name].maps.shape[2:]).to(patches).flatten(1, 2) for name in names
        ]
        places = torch.cat(grids, dim=1).repeat_interleave(heads, dim=0)  # (B·H, n, 2)
        patches, cosines = patches.flatten(0, 1), cosines.flatten(0, 1)
        with no_autocast(patches):
            stages = self.clustering.stages(patches, cosines, places, self.clustering.draw(cosines))
            weights, chosen = self.clustering.assign(stages, tuple(grid.shape[1] for grid in grids))
        return [w.unflatten(0, (-1, heads)) for w in weights], chosen

    def after_backward(self) -> None:
        """Drop the gradient of the last layers while they are frozen."""
        super().after_backward()
        if self.siamese.matcher.progress < self.siamese.freeze_last:
            self.prototypes.weight.grad = None

    def after_step(self, progress: float) -> None:
        """Move the host and the copy of the last layer; both centres then take their steps."""
        super().after_step(progress)
        self.cluster_matcher.after_step(progress)


def patches_and_cosines(features: Features) -> tuple[Tensor, Tensor]:
    """What is clustered (B, H, h·w, d), unit length, and its cosines (B, H, h·w) with the vector of the whole view.

    With a ViT these are the keys of the last block's heads; with other backbones the map's positions, and H is 1.
    """
    tokens = getattr(features.maps, "tokens", None)
    if tokens is None:
        patches, whole = pixels(features.maps)[:, None], features.pooled[:, None, None]
    else:
        patches, whole = tokens.key[:, :, -math.prod(tokens.grid) :], tokens.key[:, :, :1]
    patches, whole = (F.normalize(at_least_float32(x), dim=3) for x in (patches, whole))
    return patches, (patches * whole).sum(dim=3)


def cluster_vectors(views: list[Features], weights: list[Tensor]) -> list[Tensor]:
    """o of each view, (B·H·K, C): weighted means of the map, as long as the whole views' vectors are on average.

    Args:
        views: of one network, the two views.
        weights: W (B, H, h·w, K) of each view; the vector of a cluster without any weight is 0.
    """
    with no_autocast(weights[0]):
        length = at_least_float32(torch.cat([view.pooled for view in views])).norm(dim=1).mean()
        found = []
        for view, w in zip(views, weights, strict=True):
            means = torch.einsum("bhnk,bnc->bhkc", w, at_least_float32(pixels(view.maps)))
            found.append(length * F.normalize(means.flatten(0, 2), dim=1))
    return found
