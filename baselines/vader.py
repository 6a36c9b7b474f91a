"""VADeR: points that show the same place of the image in two views are contrasted (Pinheiro et al., NeurIPS 2020).

    u      ~ uniform in the overlap of the views' rectangles     P places of the source image
    r, t   = g_d(F), g_d'(F')                                     dense vectors: a head on every position, and its copy
    L_d    = mean over u of InfoNCE(r(u), t(u), Q_d, tau)         r(u): bilinear, at the coordinates of u in the view
    Q_d   <- n(t(u_1))                                            one point of each image, in a queue of its own
    loss   = (1 - lambda) * host(z, z') + lambda * L_d

"Unsupervised Learning of Dense Visual Representations", arXiv 2011.05499. It is DenseCL with another correspondence: by
the known geometry of the two crops instead of by the features. It has no map and no groups, and contrasts points of the
background like any others. No official code is known.

NOTE: from the paper are the positives (matching places of two views), the embedding of every position, and the contrast
with non-matching ones. Own choices, because the paper's settings were not at hand: P, lambda, the queue's content, the
host's temperature and queue size.
NOTE: the paper has an encoder and a decoder, starts the encoder from MoCo and trains the dense loss alone. Here the
dense head works on the backbone's own map, and its loss is trained together with MoCo's from the start, as those of the
other dense methods. A position of the map is 2 pixels wide with ``resnet_tiny`` at the tier cpu and 32 with ResNet-50;
between the positions' centres dense vectors are interpolated.
NOTE: the queue takes one point per image and target view: it covers as many images as the host's queue, and holds no
two neighbours of one view. It is filled after the step, so that no query meets near-duplicates from its own image.
NOTE: images whose views do not overlap have no term in L_d; their key in the queue is a random point of the target
view. Where no image of a batch has an overlap, L_d is 0. The loss is the mean over the host's pairs of views; an extra
view's points are queries as well.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.densecl import hidden_width, pixels
from baselines.moco import MoCo, QueueContrast
from baselines.slotcon import masked_mean
from scd.errors import UsageError
from scd.nn.heads import MLP
from scd.nn.points import coordinates_in, overlap, points_within, random_shares, sample
from scd.nn.precision import at_least_float32, no_autocast
from scd.siamese import Encoded, JointEmbedding
from scd.wrapper import Wrapper


class PointContrast(QueueContrast):
    """InfoNCE of points with their keys against a queue of earlier points, of the images that count."""

    def forward(self, online: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Mean InfoNCE over the points of the images that count; 0, with a gradient of 0, where none does.

        Args:
            online, target: (B, P, D) of any length, row by row at the same places.
            counted: (B,) bool.
        """
        with no_autocast(online):
            q, k = (F.normalize(at_least_float32(x), dim=2) for x in (online, target))
            positive = (q * k).sum(dim=2) / self.temperature  # (B, P)
            others = (q @ self.queue.keys.T / self.temperature).logsumexp(dim=2)  # (B, P, K) -> (B, P)
            return masked_mean((torch.logaddexp(positive, others) - positive).mean(dim=1), counted)


class VADeR(Wrapper):
    """MoCo plus the same contrast between points that show the same place.

    Args:
        siamese: the host, a MoCo; temperature and queue size of the dense loss are its own.
        dim: D of the dense vectors; the host's when None.
        hidden: width of the dense head's hidden layer; the host's head's when None, 0 for a single linear layer.
        points: P, places that are drawn in each image's overlap.
        weight: lambda, share of the dense loss; 1 - lambda is the share of the image-level loss.

    Raises:
        UsageError: a host that is not MoCo, no points, or a weight outside [0, 1].
    """

    addition = "dense head, points, dense loss"

    def __init__(
        self,
        siamese: JointEmbedding,
        dim: int | None = None,
        hidden: int | None = None,
        points: int = 32,
        weight: float = 0.5,
    ):
        super().__init__(siamese)
        if not isinstance(siamese, MoCo):
            raise UsageError(f"VADeR contrasts with a queue and needs MoCo as its host, not {type(siamese).__name__}")
        if points < 1:
            raise UsageError(f"VADeR compares at least 1 point of each image, not {points}")
        if not 0 <= weight <= 1:
            raise UsageError(f"VADeR's weight is a share in [0, 1], not {weight}")
        dim = siamese.projector.dim if dim is None else dim
        hidden = hidden_width(siamese.projector) if hidden is None else hidden
        channels = siamese.backbone.dim
        self.dense_projector = MLP((channels, hidden, dim) if hidden else (channels, dim))
        self.target_dense_projector = siamese.target_of(self.dense_projector)
        self.dense_matcher = PointContrast(dim, siamese.matcher.queue.size, siamese.matcher.temperature)
        self.points = points
        self.weight = weight

    def combine(self, image_loss: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """Image-level and dense loss by their shares; logs the dense loss and the share of images with an overlap."""
        dense_loss, share = self.dense_loss(encoded)
        loss = (1 - self.weight) * image_loss + self.weight * dense_loss
        return loss, {"dense_loss": dense_loss.detach(), "overlap": share}

    def dense_loss(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """L_d, a mean over the images that overlap and then over pairs, and the share of these images."""
        online = {name: dense_map(self.dense_projector, view.maps) for name, view in encoded.online.items()}
        with torch.no_grad():
            target = {name: dense_map(self.target_dense_projector, view.maps) for name, view in encoded.target.items()}
        rectangles = encoded.views[encoded.pairs[0][0]].rectangles
        shares = random_shares(len(rectangles), self.points, 2, like=rectangles)  # the same numbers for all pairs
        losses, overlapping = [], []
        keys: dict[str, Tensor] = {}
        for i, j in encoded.pairs:
            view, other = encoded.views[i], encoded.views[j]
            rectangles, found = overlap(view, other)
            places = points_within(rectangles, shares)  # (B, P, 2)
            queries = sample(online[i], coordinates_in(view, places))  # (B, P, D)
            positives = sample(target[j], coordinates_in(other, places))
            losses.append(self.dense_matcher(queries, positives, found))
            overlapping.append(found)
            keys.setdefault(j, positives[:, 0])
        self.dense_matcher.remember(list(keys.values()))
        return torch.stack(losses).mean(), torch.stack(overlapping).float().mean()

    def after_step(self, progress: float) -> None:
        """Move the host and the copy of the dense head; both queues then take their keys."""
        super().after_step(progress)
        self.dense_matcher.after_step(progress)


def dense_map(projector: MLP, maps: Tensor) -> Tensor:
    """A head's output (B, D, h, w) at every position of feature maps (B, C, h, w)."""
    return projector(pixels(maps)).transpose(1, 2).unflatten(2, maps.shape[2:])
