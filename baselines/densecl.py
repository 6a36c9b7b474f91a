"""DenseCL: every position of the map is a query of its own (Wang et al., CVPR 2021, arXiv 2011.09157).

    r, t   = g_d(F), g_d'(F')                       dense vectors: a head of its own on every position, and its copy
    c(i)   = argmax over j of cos(F_i, F'_j)        correspondence from backbone features, without gradient
    L_d    = mean over i of InfoNCE(r_i, t_c(i), Q_d, tau)
    Q_d   <- n(mean over j of t_j)                  one averaged dense vector per image, in a queue of its own
    loss   = (1 - lambda) * host(z, z') + lambda * L_d

DenseCL wraps MoCo, as SCD and LEWEL wrap a Siamese method: the same feature maps, no second pass through the backbone.
It matches foreground and background positions in the same way, by their features only: it uses no geometry and no map.

Official settings. lambda 0.5, dim 128, queues of 65536, tau 0.2, m 0.999, MoCo v2's augmentation; SGD lr 0.03 on
ImageNet (200 epochs) and 0.3 on COCO (800 epochs), at batch 256; positions of a 7 x 7 map.

NOTE: the loss is the mean over the host's pairs of views. With a symmetric host both directions count; the paper has
the asymmetric form only. An extra view's positions are queries as well.
NOTE: the dense head starts from torch's default, as the official one. The official image-level head starts with Kaiming
fan-in weights; here it is the host's, which starts as in MoCo.
NOTE: lambda is constant. The official code has an option to keep it at 0 at first, which its configurations do not use.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.moco import QueueContrast
from scd.errors import UsageError
from scd.nn.heads import MLP
from scd.nn.precision import at_least_float32, no_autocast
from scd.siamese import Encoded, JointEmbedding, unique
from scd.wrapper import Wrapper


class DenseCL(Wrapper):
    """MoCo plus the same contrast between positions with similar features.

    Args:
        siamese: the host, a MoCo; temperature and queue size of the dense loss are its own.
        dim: D of the dense vectors; the host's when None.
        hidden: width of the dense head's hidden layer; the host's head's when None, 0 for a single linear layer.
        weight: lambda, share of the dense loss; 1 - lambda is the share of the image-level loss.

    Raises:
        UsageError: a host without a queue, or a weight outside [0, 1].
    """

    addition = "dense head, matching, dense loss"

    def __init__(self, siamese: JointEmbedding, dim: int | None = None, hidden: int | None = None, weight: float = 0.5):
        super().__init__(siamese)
        host = siamese.matcher
        if not isinstance(host, QueueContrast):
            raise UsageError(f"DenseCL contrasts with a queue and needs MoCo as its host, not {type(siamese).__name__}")
        if not 0 <= weight <= 1:
            raise UsageError(f"DenseCL's weight is a share in [0, 1], not {weight}")
        dim = siamese.projector.dim if dim is None else dim
        hidden = hidden_width(siamese.projector) if hidden is None else hidden
        channels = siamese.backbone.dim
        self.dense_projector = MLP((channels, hidden, dim) if hidden else (channels, dim))
        self.target_dense_projector = siamese.target_of(self.dense_projector)
        self.dense_matcher = QueueContrast(dim, host.queue.size, host.temperature)
        self.weight = weight

    def combine(self, image_loss: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """Image-level and dense loss by their shares; logs the dense loss and the mean cosine of matched positions."""
        dense_loss, cosine = self.dense_loss(encoded)
        loss = (1 - self.weight) * image_loss + self.weight * dense_loss
        return loss, {"dense_loss": dense_loss.detach(), "match_cosine": cosine}

    def dense_loss(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """L_d, a mean over B·hw queries and then over pairs, and the mean cosine of the matches."""
        online = {name: self.dense_projector(pixels(view.maps)) for name, view in encoded.online.items()}
        with torch.no_grad():
            target = {name: self.target_dense_projector(pixels(view.maps)) for name, view in encoded.target.items()}
        losses, cosines = [], []
        for i, j in encoded.pairs:
            cosine, match = correspondence(encoded.online[i].maps, encoded.target[j].maps)  # (B, hw) each
            positives = target[j].take_along_dim(match[:, :, None], dim=1)  # (B, hw, D)
            losses.append(self.dense_matcher(online[i].flatten(0, 1), positives.flatten(0, 1)))
            cosines.append(cosine.mean())
        used = unique(j for _, j in encoded.pairs)
        means = [at_least_float32(target[name]).mean(dim=1) for name in used]  # (B, D)
        self.dense_matcher.remember(means)  # normalised there
        return torch.stack(losses).mean(), torch.stack(cosines).mean()

    def after_step(self, progress: float) -> None:
        """Move the host and the copy of the dense head; both queues then take their keys."""
        super().after_step(progress)
        self.dense_matcher.after_step(progress)


@torch.no_grad()
def correspondence(maps: Tensor, target_maps: Tensor) -> tuple[Tensor, Tensor]:
    """For each position of one map the most similar position of the other, by the cosine of their features.

    Args:
        maps: (B, C, h, w) of the query view.
        target_maps: (B, C, h', w') of the key view.

    Returns:
        Cosine (B, hw), and flat position (B, hw) in [0, h'w').
    """
    with no_autocast(maps):  # bfloat16's cosines would tie
        a, b = (F.normalize(at_least_float32(pixels(x)), dim=2) for x in (maps, target_maps))
        return (a @ b.transpose(1, 2)).max(dim=2)


def pixels(maps: Tensor) -> Tensor:
    """The positions (B, hw, C) of feature maps (B, C, h, w), row by row."""
    return maps.flatten(2).transpose(1, 2)


def hidden_width(head: MLP) -> int:
    """Width of a head's hidden layer, 0 when it is one linear layer."""
    first, *rest = (layer for layer in head.layers if isinstance(layer, nn.Linear))
    return first.out_features if rest else 0
