"""Hierarchical Grouping (reconstruction): pixels are contrasted by a tree of regions (Zhang, Maire, NeurIPS 2020).

    q_p, k_r = n(g(F_p)), n(g'(F'_r))             embeddings of the pixels of two views; ' is the momentum branch
    d(p, r)  = number of the cuts t_1 < t_2 < t_3 of the image's tree that separate p and r        an ultrametric
    P_l, N_l = sums of e^{q_p·k_r/tau} over the pixels r of the other view with d(p, r) < l, and with d(p, r) > l
    L_l      = mean over p of -log( P_l / (P_l + N_l + sum over other images' pixels k of e^{q_p·k/tau}) )    l = 1, 2
    loss     = image_weight * host(z, z') + tree_weight * (L_1 + L_2)

Pixels in one region of the finest cut attract each other in both terms, and pixels in two regions of the coarsest cut
repel each other in both. Pairs at distance l do not count in L_l, because only a weak contour is between them: those at
distance 1 attract each other in L_2 alone, those at distance 2 repel each other in L_1 alone. In a flat tree d is 0 or
3, and L_1 = L_2 is the contrast of the pixels of one region with all others. SCD learns one map of two parts and
compares two pooled vectors; here the parts are given, and pixels are compared one by one.

"Self-Supervised Visual Representation Learning from Hierarchical Grouping", arXiv 2012.03044. From its abstract are the
contours that give a tree of regions, and the contrast of pixels' embeddings, whose distances are to respect the tree.
The rest of the text was not at hand, and no official code is known: the loss and all settings are a reconstruction.

NOTE: the published contour detector is supervised, by contours that people drew. Here contours are colour gradients
(:mod:`scd.data.annotators.region_tree`), so that nothing is learned from annotations.
NOTE: the paper trains the pixels' loss alone, with a decoder for them. Here it is trained together with MoCo's from the
start, as those of the other methods around MoCo, by a head on the backbone's own map; pixels are positions of this map,
in the region that has most of their area. ``image_weight=0`` leaves MoCo's loss out.
NOTE: pixels are compared across two views of an image, by MoCo's momentum branch, and other images' pixels come from a
queue as VADeR's, one for each image and target view, which it takes after the step.
NOTE: p are pixels drawn at random from a view. A pixel without any positive in the other view has no term in L_l, and
where no pixel has one, L_l is 0. Pixels of no region have no part in either. Views need not overlap: a region may reach
into both. The losses are means over the host's pairs of views; an extra view's pixels are drawn as well.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.densecl import hidden_width, pixels
from baselines.moco import MoCo, QueueContrast
from baselines.slotcon import masked_mean
from scd.errors import UsageError
from scd.method import View
from scd.nn.heads import MLP
from scd.nn.points import random_shares
from scd.nn.precision import at_least_float32, no_autocast
from scd.nn.region_pooling import regions_on_grid
from scd.nn.region_tree import CUTS, tree_distances
from scd.siamese import Encoded, JointEmbedding
from scd.wrapper import Wrapper

CLOSED = -1e9  # logit of a key that does not count


class TreeContrast(QueueContrast):
    """For each level the pixels of near regions against those of far regions and those in a queue, of other images."""

    def forward(self, online: Tensor, target: Tensor, distances: Tensor) -> Tensor:
        """L_1 + L_2; 0, with a gradient of 0, where no pixel has a positive.

        Args:
            online: (B, P, D) of any length.
            target: (B, M, D) of any length, pixels of the same images.
            distances: (B, P, M) from :func:`scd.nn.region_tree.tree_distances`; pairs below 0 do not count.
        """
        with no_autocast(online):
            q, k = (F.normalize(at_least_float32(x), dim=2) for x in (online, target))
            logits = q @ k.transpose(1, 2) / self.temperature  # (B, P, M)
            others = (q @ self.queue.keys.to(q.dtype).T / self.temperature).logsumexp(dim=2)  # (B, P, K) -> (B, P)
            losses = []
            for level in range(1, CUTS):
                near, far = (distances >= 0) & (distances < level), distances > level
                positive, negative = (logits.masked_fill(~chosen, CLOSED).logsumexp(dim=2) for chosen in (near, far))
                total = torch.stack([positive, negative, others]).logsumexp(dim=0)
                losses.append(masked_mean((total - positive).flatten(), near.any(dim=2).flatten()))
            return torch.stack(losses).sum()


class HierarchicalGrouping(Wrapper):
    """MoCo plus the contrast of pixels by their distance in a tree of regions.

    Args:
        siamese: the host, a MoCo; temperature and queue size of the pixels' loss are its own.
        dim: D of the pixels' embeddings; the host's when None.
        hidden: width of the pixel head's hidden layer; the host's head's when None, 0 for a single linear layer.
        points: P, pixels that are drawn in each view, with replacement.
        image_weight: of the host's loss; 0: the pixels' loss alone, as in the paper.
        tree_weight: of L_1 + L_2.

    Segments are trees of regions, or flat: see :mod:`scd.nn.region_tree`.

    Raises:
        UsageError: a host that is not MoCo, no pixels, or a negative weight.
    """

    needs = frozenset({"segments"})
    addition = "pixel head, tree distances, contrast of levels"

    def __init__(
        self,
        siamese: JointEmbedding,
        dim: int | None = None,
        hidden: int | None = None,
        points: int = 32,
        image_weight: float = 1.0,
        tree_weight: float = 0.5,
    ):
        super().__init__(siamese)
        if not isinstance(siamese, MoCo):
            raise UsageError(
                f"Hierarchical Grouping has MoCo's queue and needs MoCo as its host, not {type(siamese).__name__}"
            )
        if points < 1:
            raise UsageError(f"Hierarchical Grouping draws at least 1 pixel of each view, not {points}")
        if min(image_weight, tree_weight) < 0:
            raise UsageError(f"Hierarchical Grouping's weights are 0 or more, not {image_weight} and {tree_weight}")
        self.needs = siamese.needs | type(self).needs
        dim = siamese.projector.dim if dim is None else dim
        hidden = hidden_width(siamese.projector) if hidden is None else hidden
        channels = siamese.backbone.dim
        self.pixel_projector = MLP((channels, hidden, dim) if hidden else (channels, dim))
        self.target_pixel_projector = siamese.target_of(self.pixel_projector)
        self.tree_matcher = TreeContrast(dim, siamese.matcher.queue.size, siamese.matcher.temperature)
        self.points = points
        self.image_weight = image_weight
        self.tree_weight = tree_weight

    def combine(self, image_loss: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """Both losses by their weights.

        Logs L_1 + L_2, and the share of the drawn pixels whose finest region the other view shows as well.

        Raises:
            UsageError: views without segments.
        """
        online = {name: self.pixel_projector(pixels(features.maps)) for name, features in encoded.online.items()}
        with torch.no_grad():
            target = {
                name: self.target_pixel_projector(pixels(features.maps)) for name, features in encoded.target.items()
            }
        rectangles = encoded.views[encoded.pairs[0][0]].rectangles
        shares = random_shares(len(rectangles), self.points + 1, like=rectangles)  # the same numbers for all pairs
        losses, matched = [], []
        for i, j in encoded.pairs:
            drawn = drawn_rows(shares[:, 1:], online[i])
            anchors = online[i].take_along_dim(drawn[:, :, None], dim=1)  # (B, P, D)
            ids = ids_on_grid(encoded.views[i], encoded.online[i].maps).take_along_dim(drawn, dim=1)
            distances = tree_distances(ids, ids_on_grid(encoded.views[j], encoded.target[j].maps))
            losses.append(self.tree_matcher(anchors, target[j], distances))
            matched.append((distances == 0).any(dim=2).float().mean())
        kept = [keys.take_along_dim(drawn_rows(shares[:, :1], keys)[:, :, None], dim=1) for keys in target.values()]
        self.tree_matcher.remember([keys[:, 0] for keys in kept])
        tree = torch.stack(losses).mean()
        loss = self.image_weight * image_loss + self.tree_weight * tree
        return loss, {"tree_loss": tree.detach(), "matched_pixels": torch.stack(matched).mean()}

    def after_step(self, progress: float) -> None:
        """Move the host and the copy of the pixel head; both queues then take their keys."""
        super().after_step(progress)
        self.tree_matcher.after_step(progress)


def drawn_rows(shares: Tensor, rows: Tensor) -> Tensor:
    """The rows (B, P) that numbers (B, P) in [0, 1) draw from rows (B, n, D), each with the same probability."""
    count = rows.shape[1]
    return (shares * count).long().clamp_max(count - 1)


def ids_on_grid(view: View, maps: Tensor) -> Tensor:
    """The id (B, h·w) of each position of feature maps (B, C, h, w): that of most of the position's pixels.

    Raises:
        UsageError: a view without segments.
    """
    if view.segments is None:
        raise UsageError(
            "Hierarchical Grouping needs images with segments: name what makes them, annotations.segments=NAME"
        )
    return regions_on_grid(view.segments, *maps.shape[2:]).flatten(1)
