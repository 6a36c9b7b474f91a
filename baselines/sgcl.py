"""SGCL: crops that follow the network's own saliency, and losses weighted by it (arXiv 2302.11461), a reconstruction.

    S   = min-max over places of the mean over channels of f'(x)      x: the whole image; no gradient
    v   = a crop around a place drawn with probability ~ S            or, with probability u, one drawn uniformly
    w_i = mean of S_i inside its two crops / mean of this over the batch
    loss = mean over i of w_i InfoNCE(q_i, k_i, queue)

Chen, Wang, Tang et al., "Saliency Guided Contrastive Learning on Scene Images", 2023. There is no official code, and
the formulas and settings were not available: the abstract says that a saliency map from the model's own output guides
the crops that become positive pairs and weights their losses. The formulas above, the settings and the following
choices are ours. The method takes nothing but the images.

NOTE: S is that of the momentum backbone f', in eval mode: BN reads its running statistics and does not change them, and
an image's map does not depend on the batch.
NOTE: in the first part of the training (``warmup``) S is noise. Crops are then uniform and all weights 1, as in the
host. S is computed all the same, so that every step costs the same.
NOTE: the weight of a pair is by the mean of S over both of its crops, and the batch is that of all processes.
NOTE: a constant map counts as 0.5 everywhere.
NOTE: a crop around a place at the border is moved into the image.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.moco import MoCo
from scd.data.cut_views import WHOLE, WholeImages, cut, rectangles_inside, uniform, whole_images
from scd.data.photometric import photometric as photometrics_of
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.features import maps_and_vector
from scd.nn.normalisation import normalise
from scd.nn.precision import at_least_float32, no_autocast
from scd.nn.processes import gather
from scd.siamese import JointEmbedding, unique
from scd.wrapper import Wrapper

NAMES = ("v1", "v2")


class SGCL(Wrapper):
    """MoCo on crops that follow the saliency of its momentum backbone, each pair weighted by the saliency in it.

    The recipe gives one view of whole images.

    Args:
        siamese: the host, a MoCo.
        size: side of the views in pixels.
        scale: range of a view's area as a share of the image's.
        uniform_share: u, probability that a crop is drawn uniformly.
        warmup: share of the training, from its start, in which the host's loss is taken on uniform crops.
        photometric: name of the photometric augmentation of both views.
        blur_reference: see :class:`scd.data.views.CropSpec`.

    Raises:
        UsageError: a host that is not MoCo, a size below 1, an impossible scale, shares outside [0, 1], or an unknown
            photometric augmentation.
    """

    addition = "saliency of whole images"

    def __init__(
        self,
        siamese: JointEmbedding,
        size: int = 224,
        scale: Sequence[float] = (0.2, 1.0),
        uniform_share: float = 0.5,
        warmup: float = 0.1,
        photometric: str = "mocov2",
        blur_reference: float = 224.0,
    ):
        super().__init__(siamese)
        if not isinstance(siamese, MoCo):
            raise UsageError(f"SGCL weights the rows of MoCo's loss and needs MoCo, not {type(siamese).__name__}")
        if size < 1:
            raise UsageError(f"the size of SGCL's views is 1 pixel or more, not {size}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise UsageError(f"the scale of SGCL's views is two ascending shares in (0, 1], not {list(scale)}")
        for name, share in (("uniform_share", uniform_share), ("warmup", warmup)):
            if not 0 <= share <= 1:
                raise UsageError(f"SGCL's {name} is a share in [0, 1], not {share}")
        photometrics_of(photometric)
        self.size = size
        self.scale = tuple(scale)
        self.uniform_share = uniform_share
        self.warmup = warmup
        self.photometric = photometric
        self.blur_reference = blur_reference

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted loss; logs the share of crops that followed the saliency and its mean inside all crops.

        Raises:
            UsageError: other views than one of whole images.
        """
        whole = whole_images(batch)
        saliency = self.target_saliency(whole.images)
        warm = self.siamese.progress < self.warmup
        views, guided = self.views(whole, saliency, 1.0 if warm else self.uniform_share)
        inside = torch.stack([mean_inside(saliency, view.rectangles) for view in views.values()]).mean(dim=0)  # (B,)
        weights = torch.ones_like(inside) if warm else over_the_mean(inside)
        loss = self.weighted_loss(views, weights)
        logs = {"image_loss": loss.detach(), "guided": guided, "saliency_inside": inside.mean()}
        return {"loss": loss, **logs}

    # ---------------------------------------------------------------- saliency and views

    @torch.no_grad()
    def target_saliency(self, images: Tensor) -> Tensor:
        """S (B, h, w) of whole images (B, 3, S, S) in [0, 1], by the momentum backbone."""
        return saliency_of(self.siamese.target_backbone, normalise(images.clone()))

    @torch.no_grad()
    def saliency(self, view: View) -> Tensor:
        """S (B, h, w) of a view, by the online backbone, the part that is kept for evaluations."""
        return saliency_of(self.backbone, view.images)

    def views(self, whole: WholeImages, saliency: Tensor, uniform_share: float) -> tuple[dict[str, View], Tensor]:
        """The two views of each image, and the share of them that followed the saliency."""
        views, guided = {}, []
        for name in NAMES:
            rectangles = rectangles_inside(saliency.new_tensor(WHOLE).expand(len(saliency), 4), self.scale)
            draws = uniform(len(saliency), 4).to(saliency.device)
            follows = draws[:, 0] >= uniform_share
            centred = around(drawn_places(saliency, draws[:, 1:]), rectangles)
            rectangles = torch.where(follows[:, None], centred, rectangles)
            views[name] = cut(whole, rectangles, self.size, self.photometric, name, blur_reference=self.blur_reference)
            guided.append(follows)
        return views, torch.stack(guided).float().mean()

    # ---------------------------------------------------------------- loss

    def weighted_loss(self, views: dict[str, View], weights: Tensor) -> Tensor:
        """Mean over pairs of views and over images of the weighted InfoNCE; the keys wait for the queue, as MoCo's."""
        host = self.siamese
        encoded = host.encode(views)
        online = {name: host.projector(features.pooled) for name, features in encoded.online.items()}
        target = host.target_embeddings(encoded, online)
        matcher = host.matcher
        losses = [
            info_nce_rows(
                F.normalize(online[i], dim=1), F.normalize(target[j], dim=1), matcher.queue.keys, matcher.temperature
            )
            for i, j in encoded.pairs
        ]
        matcher.remember([target[name] for name in unique(j for _, j in encoded.pairs)])
        return (weights * torch.stack(losses)).mean()


def info_nce_rows(q: Tensor, k: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE (B,) of each query by itself, of which :func:`scd.nn.losses.info_nce` is the mean; arguments as there."""
    with no_autocast(q):
        q, k, negatives = (at_least_float32(x) for x in (q, k, negatives))
        positive = (q * k).sum(dim=1) / temperature  # (B,)
        others = (q @ negatives.T / temperature).logsumexp(dim=1)  # (B, K) -> (B,)
        return torch.logaddexp(positive, others) - positive


def over_the_mean(values: Tensor) -> Tensor:
    """Values (B,) over their mean in the batch of all processes; 1 each where that is 0."""
    mean = gather(values).mean()
    return torch.where(mean > 0, values / torch.where(mean > 0, mean, 1.0), 1.0)


# -------------------------------------------------------------------- saliency


def saliency_of(backbone: nn.Module, images: Tensor) -> Tensor:
    """Mean over the channels of a backbone's maps in eval mode, brought to [0, 1] in each image: (B, h, w) float32.

    Args:
        images: (B, 3, s, s), normalised.
    """
    with evaluating(backbone):
        maps, _ = maps_and_vector(backbone(images))
    with no_autocast(maps):
        mean = maps.float().mean(dim=1)
        low, high = mean.amin(dim=(1, 2), keepdim=True), mean.amax(dim=(1, 2), keepdim=True)
        flat = high <= low
        return torch.where(flat, 0.5, (mean - low) / torch.where(flat, 1.0, high - low))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in eval mode; each of its parts has its own mode again afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


# -------------------------------------------------------------------- places and rectangles


def drawn_places(saliency: Tensor, draws: Tensor) -> Tensor:
    """A place of each image: a cell of its map with a probability that is proportional to its value, uniform inside.

    Args:
        saliency: (B, h, w), 0 or more.
        draws: (B, 3) in [0, 1): of the cell, of x and of y in it.

    Returns:
        (B, 2) x, y in [0, 1] of the image.
    """
    height, width = saliency.shape[1:]
    ends = saliency.flatten(1).cumsum(dim=1)  # (B, hw)
    below = ends <= draws[:, :1] * ends[:, -1:]
    cell = below.sum(dim=1).clamp(max=height * width - 1)
    x = (cell % width + draws[:, 1]) / width
    y = (cell // width + draws[:, 2]) / height
    return torch.stack([x, y], dim=1)


def around(places: Tensor, rectangles: Tensor) -> Tensor:
    """Rectangles (B, 4) of the same sides around places (B, 2), moved into the image."""
    sides = rectangles[:, 2:] - rectangles[:, :2]
    corner = torch.minimum((places - sides / 2).clamp_min(0), 1 - sides)
    return torch.cat([corner, corner + sides], dim=1).clamp(0, 1)


def mean_inside(maps: Tensor, rectangles: Tensor) -> Tensor:
    """Mean (B,) of maps (B, h, w) inside rectangles (B, 4); each cell counts by the part of it that lies inside."""
    height, width = maps.shape[1:]
    x0, y0, x1, y1 = rectangles[:, :, None].unbind(dim=1)  # (B, 1) each
    rows, columns = overlaps(y0, y1, height), overlaps(x0, x1, width)  # (B, h), (B, w)
    weights = rows[:, :, None] * columns[:, None, :]
    return (weights * maps).sum(dim=(1, 2)) / weights.sum(dim=(1, 2))


def overlaps(low: Tensor, high: Tensor, count: int) -> Tensor:
    """Length (B, count) of an interval (B, 1) of [0, 1] in each of so many equal parts of it."""
    start = torch.arange(count, device=low.device, dtype=low.dtype) / count
    return (torch.minimum(high, start + 1 / count) - torch.maximum(low, start)).clamp_min(0)
