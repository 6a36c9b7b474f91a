"""DetCon-B: contrast between the regions of images (O. Henaff et al., ICCV 2021, arXiv 2103.10957).

    h_m   = mean of the feature map F over region m             m: R drawn regions of a view, on the grid of F
    p_m   = n(q(g(h_m))),  z_m = n(g'(h'_m))                    BYOL's heads; ' is the momentum branch
    l_m   = -mean over m' of log( e^{p_m·z_m'/tau} / sum_k e^{p_m·z_k/tau} )      m': region m in the other view
    loss  = mean over all drawn regions of c_m l_m / (number of times that m was drawn in its view)

c_m is 1 if region m was drawn in the other view of its image as well, else 0. The keys k are the drawn regions of both
views of all images, without region m in its own view. Other regions of the same image are therefore negatives. Regions
come with the data ("segments"); in the paper they are superpixels. SCD has one learned soft map and the rest of the
image as its negative; DetCon has hard regions that do not learn and negatives from the whole batch.

It is a method of its own and no wrapper of BYOL: nothing is left of BYOL's loss on whole images, only its networks.

Official settings. ResNet-50, hidden 4096, dim 256, R 16, tau 0.1, Felzenszwalb's segments (scale and min_size 1000),
LARS with lr 0.2 at batch 256 and decay 1.5e-6 without biases and norms, batch 4096, m from 0.996 on a cosine to 1, a
warm-up of 1 % of the epochs, BYOL's views.

NOTE: the loss is the mean over the two directions; the official one is their sum.
NOTE: online and target start equal; the official code draws them from different seeds. Linears start from torch's
default. BN is per process, not synchronised. The official code trains a classifier beside, without an effect on this.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.errors import UsageError
from scd.nn.heads import MLP
from scd.nn.precision import at_least_float32, no_autocast
from scd.nn.processes import gather, place
from scd.nn.region_pooling import (
    UNKNOWN,
    count_regions,
    draw_regions,
    masked_means,
    random_numbers,
    region_masks,
    regions_on_grid,
    same_region,
)
from scd.siamese import Encoded, Matcher, MomentumSiamese

CLOSED = -1e9  # logit of a key that does not count


@dataclass
class Regions:
    """R regions of each image of a view: ``vectors`` (B, R, D) and ``ids`` (B, R) int64, the same id more than once."""

    vectors: Tensor
    ids: Tensor


class RegionContrast(Matcher):
    """InfoNCE of an image's predicted regions with the regions of the same ids in its other view.

    Args:
        predictor: maps embeddings (B, R, D) to embeddings (B, R, D); of the online branch only.
        temperature: tau.
    """

    def __init__(self, predictor: nn.Module, temperature: float):
        super().__init__()
        self.predictor = predictor
        self.temperature = temperature

    def forward(self, online: Regions, target: Regions, own_target: Regions) -> Tensor:
        """The loss of one direction; the arguments are those of :func:`region_contrast` before the predictor."""
        predicted = Regions(self.predictor(online.vectors), online.ids)
        return region_contrast(predicted, target, own_target, self.temperature)


class DetCon(MomentumSiamese):
    """DetCon-B, symmetric: BYOL's networks on pooled regions, InfoNCE over the regions of the batch.

    Args:
        backbone: feature maps, on whose grid regions are told apart; the paper's have 7 x 7 positions.
        dim: D of the embeddings.
        hidden: width of the projector's and the predictor's hidden layer.
        regions: R, drawn from each view with replacement; both branches pool the same ones.
        temperature: tau.
        momentum: m of the target at the start.
        momentum_schedule: "cosine" to 1 (official) or "constant".

    The target runs in train mode, with the statistics of its own batches, as in BYOL. What is drawn depends on the seed
    and the step alone.

    NOTE: the paper has no extra views. One is seen by the online network only; in each pair it takes the place of the
    global view that it is not compared with, with this view's random numbers and its target regions as keys.
    NOTE: in an image without any known region, which the official code does not have, the whole view is pooled; it is
    neither counted in the loss nor a key of another region.

    Raises:
        UsageError: no regions, or a temperature that is not above 0.
    """

    needs = frozenset({"segments"})

    def __init__(
        self,
        backbone: nn.Module,
        dim: int = 256,
        hidden: int = 4096,
        regions: int = 16,
        temperature: float = 0.1,
        momentum: float = 0.996,
        momentum_schedule: str = "cosine",
    ):
        if regions < 1:
            raise UsageError(f"DetCon draws 1 region or more from each view, not {regions}")
        if not temperature > 0:
            raise UsageError(f"DetCon's temperature is a number above 0, not {temperature}")
        predictor = MLP((dim, hidden, dim), norm="batch", last_bias=False)
        super().__init__(
            backbone=backbone,
            projector=MLP((backbone.dim, hidden, dim), norm="batch", last_bias=False),
            matcher=RegionContrast(predictor, temperature),
            momentum=momentum,
            momentum_schedule=momentum_schedule,
            symmetric=True,
        )
        self.regions = regions

    def image_loss(self, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss averaged over pairs; logs the share of rows with a positive, and the regions on a view's grid."""
        first, second = encoded.pairs[0]
        other = {first: second, second: first}
        grids = {
            name: regions_on_grid(encoded.views[name].segments, *features.maps.shape[2:])
            for name, features in encoded.online.items()
        }
        numbers = {name: random_numbers(len(grids[name]), self.regions, grids[name].device) for name in other}
        with torch.no_grad():
            target = {
                name: pool(self.target_projector, encoded.target[name].maps, grids[name], numbers[name])
                for name in other
            }
        losses, shares = [], []
        for i, j in encoded.pairs:
            own = other[j]  # i itself, unless i is an extra view
            online = pool(self.projector, encoded.online[i].maps, grids[i], numbers[own])
            losses.append(self.matcher(online, target[j], target[own]))
            shares.append(same_region(online.ids, target[j].ids).any(dim=2).float().mean())
        weights = losses[0].new_tensor(encoded.weights)
        loss = (torch.stack(losses) * weights).sum() / weights.sum()
        counts = torch.stack([count_regions(grid).float().mean() for grid in grids.values()])
        logs = {"image_loss": loss.detach(), "matched_regions": torch.stack(shares).mean(), "regions": counts.mean()}
        return loss, logs


def pool(projector: nn.Module, maps: Tensor, grid: Tensor, numbers: Tensor) -> Regions:
    """The regions that numbers (B, R) draw from a grid (B, h, w), as projected means of maps (B, C, h, w)."""
    ids = draw_regions(grid, numbers)
    return Regions(projector(masked_means(maps, region_masks(grid, ids))), ids)


def region_contrast(predicted: Regions, target: Regions, own_target: Regions, temperature: float) -> Tensor:
    """Mean over all B·R rows of their weight times their cross-entropy (equation 3 of the paper); 0 without positives.

    A row is a region of an image. Its positives, which share the probability equally, are the target regions of the
    same image and id. Its weight is 0 without a positive, else 1 over the number of rows of the same image and id.

    Args:
        predicted: from the online branch, of any length.
        target: of the other view, of any length; positives and negatives.
        own_target: of the rows' own view, of any length; negatives, without the row's own id in its own image.
        temperature: tau.
    """
    with no_autocast(predicted.vectors):
        p, z, z_own = (F.normalize(at_least_float32(r.vectors), dim=2) for r in (predicted, target, own_target))
        p = p / temperature
        keys = torch.stack([gather(z), gather(z_own)]).flatten(0, 2)  # (K, D), K = 2·B·R of all processes
        logits = p.flatten(0, 1) @ keys.T  # (B·R, K)
        partition = logits.masked_fill_(closed_keys(predicted.ids, target.ids, own_target.ids), CLOSED).logsumexp(dim=1)

        positive = same_region(predicted.ids, target.ids)  # (B, R, R)
        count = positive.sum(dim=2)
        attraction = (p @ z.transpose(1, 2) * positive).sum(dim=2) / count.clamp_min(1)
        multiplicity = same_region(predicted.ids, predicted.ids).sum(dim=2).clamp_min(1)
        weight = (count > 0).to(p.dtype) / multiplicity
        return (weight * (partition.view_as(attraction) - attraction)).mean()


def closed_keys(ids: Tensor, target_ids: Tensor, own_ids: Tensor) -> Tensor:
    """Keys (B·R, K) bool that do not count for a row: unknown ones, and the row's own id in its own view.

    Args:
        ids: (B, R) of the rows.
        target_ids, own_ids: (B, R) of the keys, which are those of all processes, first the target's and then the own.
    """
    rows, count = ids.shape
    rank, _ = place()
    unknown = torch.stack([gather(target_ids), gather(own_ids)]) == UNKNOWN  # (2, images of all processes, R)
    closed = unknown.expand(rows, count, *unknown.shape).clone()
    image = torch.arange(rows, device=ids.device)
    closed[image, :, 1, rank * rows + image] |= same_region(ids, own_ids)
    return closed.flatten(2).flatten(0, 1)
