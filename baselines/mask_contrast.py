"""MaskContrast: pixels of an object find its mask's prototype (W. Van Gansbeke et al., ICCV 2021, arXiv 2102.06191).

    q_i, k_i = n(h(F)), n(h'(F'))                      embeddings of a view's pixels; ' is the momentum branch
    P_b      = n( sum of k_i over the mask of image b )             prototype, from the image's other view
    l_i      = -log( e^{q_i·P_b/tau} / (sum_b' e^{q_i·P_b'/tau} + sum_n e^{q_i·Q_n/tau}) )     i: in the mask of b
    L_c      = sum_i w_b l_i / sum_i w_b,  w_b = 1 / ln(1.02 + share of b in all these pixels)
    L_s      = (w sum_{i in masks} softplus(-a_i) + (1 - w) sum_{others} softplus(a_i)) / pixels
    loss     = image_weight * host(z, z') + L_c + saliency_weight * L_s

"Unsupervised Semantic Segmentation by Contrasting Object Mask Proposals"; its code is
wvangansbeke/Unsupervised-Semantic-Segmentation. Q is a queue of earlier prototypes, a_i the logit of a saliency head,
and w the share of pixels outside the masks. Pixels of the background are in no term but L_s. The masks come from
outside, and the method is as supervised as they are; the head learns to draw them. In SCD the map is learned without
masks, and the object is repelled by its own image's background and not by other images' objects.

Official settings. Dilated ResNet-50 and DeepLab's head, started from MoCo v2 after 800 epochs; dim 32, tau 0.5, queue
256, m 0.999; VOC's images for 40 epochs, batch 128, SGD with lr 0.004 and a polynomial decay; crops of 20 to 100 %,
flip, grey 0.2, jitter 0.4 with probability 0.8, no blur. Masks of DeepUSPS, by a BASNet that learned from them.

NOTE: the paper starts from a MoCo and trains L_c + L_s alone. Here both are trained together with MoCo's loss from the
start, as the other methods around MoCo; ``image_weight=0`` leaves it out, and the training starts from random weights.
NOTE: h is one hidden layer at every position of the backbone's own map, and pixels are positions, which belong to the
mask where it covers half of them or more. The paper has a decoder over a dilated network, and brings its output to the
size of the view.
NOTE: an image whose mask is empty in the query's or the key's view, on the maps' grids, has no term in L_c, and the
prototype of an empty mask is no negative; a view whose mask is empty has no term in L_s. The official code draws crops
until 1 to 99 % of each belong to the mask, and after three tries those of another image.
NOTE: as in the official code, prototypes of the batch are those of the process's own part of it. The queue has those of
all processes.
NOTE: L_c and L_s are the means over the host's pairs of views; the official code has one pair.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.densecl import pixels
from baselines.moco import MoCo, QueueContrast
from scd.errors import UsageError
from scd.method import View
from scd.nn.precision import at_least_float32, no_autocast
from scd.siamese import Encoded, JointEmbedding
from scd.wrapper import Wrapper

CLOSED = -1e9  # logit of a key that does not count
SMOOTHING = 1.02  # of the weight of an image's pixels


class PixelHead(nn.Module):
    """Embeddings and saliency logits of every position: one hidden layer that they share, and a linear layer each.

    Args:
        channels: C of the feature maps.
        hidden: width of the hidden layer.
        dim: D of the embeddings.
    """

    def __init__(self, channels: int, hidden: int, dim: int):
        super().__init__()
        self.decoder = nn.Linear(channels, hidden)
        self.embedding = nn.Linear(hidden, dim)
        self.saliency = nn.Linear(hidden, 1, bias=False)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, h·w, D) of any length, row by row, and logits (B, h, w), of feature maps (B, C, h, w)."""
        decoded = self.decoder(pixels(maps)).relu()
        return self.embedding(decoded), self.saliency(decoded)[:, :, 0].unflatten(1, maps.shape[2:])


class PrototypeContrast(QueueContrast):
    """InfoNCE of the pixels in masks with the prototype of their mask, against those of other images.

    Prototypes of length 0, of images without a mask, wait in the queue like others and count for nothing.
    """

    def forward(self, online: Tensor, target: Tensor, masks: Tensor) -> Tensor:
        """L_c; 0, with a gradient of 0, where no image counts.

        Args:
            online: vectors (B, n, D) of any length.
            target: prototypes (B, D) of length 1 or 0; a row of length 0 does not count.
            masks: (B, n) bool.
        """
        with no_autocast(online):
            q, prototypes = F.normalize(at_least_float32(online), dim=2), at_least_float32(target)
            keys = torch.cat([prototypes, self.queue.keys.to(prototypes.dtype)])  # (B + K, D)
            logits = q @ keys.T / self.temperature  # (B, n, B + K)
            partition = logits.masked_fill(~keys.any(dim=1), CLOSED).logsumexp(dim=2)
            positive = (q * prototypes[:, None]).sum(dim=2) / self.temperature

            counted = (masks & prototypes.any(dim=1, keepdim=True)).to(q.dtype)  # (B, n)
            share = counted.sum(dim=1, keepdim=True) / counted.sum().clamp_min(1)
            weights = counted / (SMOOTHING + share).log()
            total = torch.where(counted.any(), weights.sum(), 1.0)
            return (weights * (partition - positive)).sum() / total


class MaskContrast(Wrapper):
    """MoCo plus the contrast of pixels with the prototypes of masks, and a saliency head that learns the masks.

    Args:
        siamese: the host, a MoCo.
        dim: D of the pixels' embeddings.
        hidden: width of the pixel head's hidden layer.
        queue_size: K, prototypes kept; a multiple of the batch.
        temperature: tau.
        image_weight: of the host's loss; 0: the paper's loss alone.
        saliency_weight: of L_s.

    Raises:
        UsageError: a host that is not MoCo, a width below 1, a negative weight, or what the queue and the temperature
            refuse.
    """

    needs = frozenset({"masks"})
    addition = "pixel head, prototypes, saliency"

    def __init__(
        self,
        siamese: JointEmbedding,
        dim: int = 32,
        hidden: int = 256,
        queue_size: int = 256,
        temperature: float = 0.5,
        image_weight: float = 1.0,
        saliency_weight: float = 1.0,
    ):
        super().__init__(siamese)
        if not isinstance(siamese, MoCo):
            raise UsageError(f"MaskContrast has MoCo's queue and needs MoCo as its host, not {type(siamese).__name__}")
        if min(dim, hidden) < 1:
            raise UsageError(f"the widths of MaskContrast's head are 1 or more, not dim {dim} and hidden {hidden}")
        if min(image_weight, saliency_weight) < 0:
            raise UsageError(f"MaskContrast's weights are 0 or more, not {image_weight} and {saliency_weight}")
        self.needs = siamese.needs | type(self).needs
        self.pixel_head = PixelHead(siamese.backbone.dim, hidden, dim)
        self.target_pixel_head = siamese.target_of(self.pixel_head)
        self.pixel_matcher = PrototypeContrast(dim, queue_size, temperature)
        self.image_weight = image_weight
        self.saliency_weight = saliency_weight

    def combine(self, image_loss: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """The three losses by their weights.

        Logs L_c and L_s, and the share of images, over pairs, without a term in L_c.

        Raises:
            UsageError: views without masks.
        """
        online = {name: self.pixel_head(features.maps) for name, features in encoded.online.items()}
        masks = {name: on_grid(encoded.views[name], logits) for name, (_, logits) in online.items()}
        prototypes = self.prototypes(encoded)
        contrasts, saliencies, missing = [], [], []
        for i, j in encoded.pairs:
            vectors, logits = online[i]
            contrasts.append(self.pixel_matcher(vectors, prototypes[j], masks[i].flatten(1)))
            saliencies.append(balanced_cross_entropy(logits, masks[i]))
            missing.append(~(masks[i].flatten(1).any(dim=1) & prototypes[j].any(dim=1)))
        self.pixel_matcher.remember(list(prototypes.values()))
        contrast, saliency = torch.stack(contrasts).mean(), torch.stack(saliencies).mean()
        loss = self.image_weight * image_loss + contrast + self.saliency_weight * saliency
        share = torch.stack(missing).float().mean()
        return loss, {"pixel_loss": contrast.detach(), "saliency_loss": saliency.detach(), "without_mask": share}

    @torch.no_grad()
    def prototypes(self, encoded: Encoded) -> dict[str, Tensor]:
        """P (B, D) of each target view, of length 1, or 0 where the view has nothing of the mask."""
        found = {}
        for name, features in encoded.target.items():
            vectors, logits = self.target_pixel_head(features.maps)
            found[name] = mask_prototypes(vectors, on_grid(encoded.views[name], logits).flatten(1))
        return found

    def after_step(self, progress: float) -> None:
        """Move the host and the copy of the pixel head; both queues then take their keys."""
        super().after_step(progress)
        self.pixel_matcher.after_step(progress)

    @torch.no_grad()
    def saliency(self, view: View) -> Tensor:
        """What the saliency head makes of a view, (B, h, w) in [0, 1]; its masks are not used."""
        _, logits = self.pixel_head(self.siamese.encode_online(view.images).maps)
        return logits.float().sigmoid()


def on_grid(view: View, like: Tensor) -> Tensor:
    """The positions (B, h, w) bool of a map (..., h, w) of which a view's mask covers half or more.

    Raises:
        UsageError: a view without masks.
    """
    if view.masks is None:
        raise UsageError("MaskContrast needs images with masks: name what makes them, annotations.masks=NAME")
    return F.adaptive_avg_pool2d(view.masks[:, None].float(), like.shape[-2:])[:, 0] >= 0.5


def mask_prototypes(vectors: Tensor, masks: Tensor) -> Tensor:
    """Prototypes (B, D): the normalised sum of the normalised vectors (B, n, D) in masks (B, n); 0 if these are empty.

    NOTE: vectors are normalised twice, before the sum and after it (official).
    """
    with no_autocast(vectors):
        unit = F.normalize(at_least_float32(vectors), dim=2)
        return F.normalize((unit * masks[:, :, None]).sum(dim=1), dim=1)


def balanced_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """L_s: binary cross-entropy in nats, each class weighted by the share of the other, over all pixels together.

    Views with an empty mask do not count; where none does, this is 0 with a gradient of 0.

    Args:
        logits: (B, h, w).
        masks: (B, h, w) bool.
    """
    with no_autocast(logits):
        logits = at_least_float32(logits)
        inside = masks.to(logits.dtype)
        outside = (~masks & masks.flatten(1).any(dim=1)[:, None, None]).to(logits.dtype)
        number = (inside.sum() + outside.sum()).clamp_min(1)
        share = outside.sum() / number  # w
        total = share * (inside * F.softplus(-logits)).sum() + (1 - share) * (outside * F.softplus(logits)).sum()
        return total / number
