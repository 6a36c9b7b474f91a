"""DenseSiam: the same places of two views predict each other's channels, and soft regions each other's vectors.

    x, x'   = F, F' at the same places u of the source image      a grid over the overlap of the views' rectangles
    z       = g(x),  p = h(z)                                      projector and predictor at every place, N channels
    L_p     = mean over u of CE(softmax(sg(z')), softmax(p))       pixel consistency; softmax over the N channels
    m_n(u)  = softmax over n of z_n(u)                             N soft regions
    c_n     = sum over u of m_n(u) x(u)                            a region's vector, a sum and not a mean
    r       = g_r(c),  q = h_r(r)
    L_r     = mean over n of -log softmax over k of cos(q_n, r'_k) / tau, at k = n            region consistency
    loss    = w * SimSiam + w_p * L_p + w_r * L_r                      both directions averaged

Zhang et al., "Dense Siamese Network for Dense Unsupervised Learning", ECCV 2022, arXiv 2203.11075. DenseSiam wraps
SimSiam, whose loss is the image-level one. SCD has one map and its complement, and repels the one from the other; here
N maps compete for each place, and L_r repels the regions of an image from each other.

Settings of the released code, which is for unsupervised segmentation: N 27, heads of width 128 on an FPN of 128
channels and stride 4, tau 0.1, w_r 0.1 in the last 2 of 10 epochs and 0 before, no image-level loss; a ResNet-18 that
was trained with ImageNet's labels, SGD with a constant lr of 0.05 at batch 256.

NOTE: the released code has no configuration for representation learning, whose settings were not at hand. w = 1, w_r
from the first step, N and the width of the heads are own choices. The heads work on the backbone's own map.
NOTE: parts for segmentation are left out: an auxiliary head with 128 channels, and training on the network's own hard
labels. With the first, w_p is about 0.6 in the released code, otherwise 1.
NOTE: there, view 1 is a crop of view 2, which is the whole image; the crop and the flip are repeated on view 2's map.
Here both views are crops, as in every other arm, and both maps are read at the same places, by bilinear interpolation.
The grid of places is as fine as the coarser of the two maps.
NOTE: images whose views do not overlap have no term in L_p and L_r. Their maps are read over the whole of each view, so
that batch norm sees features of images. Where no image of a batch has an overlap, both losses are 0.
NOTE: no region is without a place: softmax leaves every region a share of every place, and its vector is a sum.
NOTE: the official last Linear of the projector has a bias, which the batch norm after it removes; it is left out.
NOTE: as in the released code, a gradient flows through both sides of L_r, and through m. L_p stops that of the target.
NOTE: BN is per process; the official one is synchronised over processes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.simsiam import CosinePrediction, SimSiam
from baselines.slotcon import masked_mean
from scd.errors import UsageError
from scd.method import View
from scd.nn.heads import MLP
from scd.nn.points import coordinates_in, grid_points, overlap, sample
from scd.nn.precision import at_least_float32, no_autocast
from scd.siamese import Encoded, JointEmbedding
from scd.wrapper import Wrapper


class PixelPrediction(CosinePrediction):
    """SimSiam's predictor at every place, with a cross-entropy over channels in the place of the cosine."""

    def forward(self, online: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Mean over places, then over the images that count, of the cross-entropy in nats; 0 where none does.

        Args:
            online, target: z (B, P, N), row by row at the same places; no gradient reaches the target.
            counted: (B,) bool.
        """
        prediction = at_least_float32(self.predictor(online))
        wanted = at_least_float32(target.detach()).softmax(dim=2)
        losses = -(wanted * prediction.log_softmax(dim=2)).sum(dim=2)  # (B, P)
        return masked_mean(losses.mean(dim=1), counted)


class RegionPrediction(CosinePrediction):
    """Each predicted region is to find the region of its number among those of the other view of its image.

    Args:
        dim: D of the projected regions.
        bottleneck: width of the predictor's hidden layer.
        temperature: tau.
    """

    def __init__(self, dim: int, bottleneck: int, temperature: float):
        super().__init__(dim, bottleneck)
        self.temperature = temperature

    def forward(self, online: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Mean over regions, then over the images that count, of the cross-entropy in nats; 0 where none does.

        Args:
            online, target: r (B, N, D) of the two views; the gradient reaches both.
            counted: (B,) bool.
        """
        prediction = self.predictor(online)
        with no_autocast(prediction):
            q, r = (F.normalize(at_least_float32(x), dim=2) for x in (prediction, target))
            scores = q @ r.transpose(1, 2) / self.temperature  # (B, N, N)
            losses = -scores.log_softmax(dim=2).diagonal(dim1=1, dim2=2)  # (B, N)
        return masked_mean(losses.mean(dim=1), counted)


class DenseSiam(Wrapper):
    """SimSiam plus pixel and region consistency.

    Args:
        siamese: the host, a SimSiam.
        regions: N, channels of the projected places.
        hidden: width of all heads' hidden layers, and of the projected regions; the backbone's C when None.
        temperature: tau of the regions' cosines.
        image_weight, pixel_weight, region_weight: w, w_p and w_r.

    Raises:
        UsageError: a host that is not SimSiam, fewer than 2 regions, a temperature not above 0, a negative weight.
    """

    addition = "dense heads, pixel and region losses"

    def __init__(
        self,
        siamese: JointEmbedding,
        regions: int = 27,
        hidden: int | None = None,
        temperature: float = 0.1,
        image_weight: float = 1.0,
        pixel_weight: float = 1.0,
        region_weight: float = 0.1,
    ):
        super().__init__(siamese)
        if not isinstance(siamese, SimSiam):
            raise UsageError(f"DenseSiam predicts as SimSiam does and needs SimSiam, not {type(siamese).__name__}")
        if regions < 2:
            raise UsageError(f"DenseSiam has at least 2 regions, not {regions}: a single one is the whole view")
        if not temperature > 0:
            raise UsageError(f"DenseSiam's temperature is a number above 0, not {temperature}")
        for name, weight in (("image", image_weight), ("pixel", pixel_weight), ("region", region_weight)):
            if weight < 0:
                raise UsageError(f"DenseSiam's {name}_weight is 0 or more, not {weight}")
        channels = siamese.backbone.dim
        hidden = channels if hidden is None else hidden
        self.pixel_projector = projector(channels, hidden, regions)
        self.pixel_matcher = PixelPrediction(regions, hidden)
        self.region_projector = projector(channels, hidden, hidden)
        self.region_matcher = RegionPrediction(hidden, hidden, temperature)
        self.image_weight = image_weight
        self.pixel_weight = pixel_weight
        self.region_weight = region_weight

    def combine(self, image_loss: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """The three losses by their weights.

        Logged are L_p, L_r, the number of regions that have the highest m at one place at least (a mean over images and
        views), and the share of images with an overlap.
        """
        pixel_losses, region_losses, used, overlapping = [], [], [], []
        read: dict[frozenset[str], dict[str, tuple[Tensor, Tensor]]] = {}  # z and r of both views, once for each two
        for i, j in encoded.pairs:
            view, other = encoded.views[i], encoded.views[j]
            rectangles, found = overlap(view, other)
            two = frozenset((i, j))
            if two not in read:
                maps = {i: encoded.online[i].maps, j: encoded.target[j].maps}
                side = min(min(each.shape[2:]) for each in maps.values())
                places = grid_points(rectangles, side)  # (B, P, 2)
                read[two] = {
                    name: self.regions(values_at(maps[name], encoded.views[name], places, found)) for name in (i, j)
                }
            (z, r), (other_z, other_r) = read[two][i], read[two][j]
            pixel_losses.append(self.pixel_matcher(z, other_z, found))
            region_losses.append(self.region_matcher(r, other_r, found))
            used.append(regions_used(z))
            overlapping.append(found)
        pixel, region = torch.stack(pixel_losses).mean(), torch.stack(region_losses).mean()
        loss = self.image_weight * image_loss + self.pixel_weight * pixel + self.region_weight * region
        logs = {"pixel_loss": pixel.detach(), "region_loss": region.detach(), "regions_used": torch.stack(used).mean()}
        return loss, {**logs, "overlap": torch.stack(overlapping).float().mean()}

    def regions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, P, N) and r (B, N, D) of a view's features x (B, P, C) at some places."""
        z = self.pixel_projector(x)
        with no_autocast(x):  # sums over all places
            shares = at_least_float32(z).softmax(dim=2)
            vectors = shares.transpose(1, 2) @ at_least_float32(x)  # (B, N, C)
        return z, self.region_projector(vectors)


def projector(channels: int, hidden: int, dim: int) -> MLP:
    """Three layers with BN after each, the last one without affine parameters, as in SimSiam."""
    head = MLP((channels, hidden, hidden, dim), norm="batch", bias=False, last_bias=False)
    head.layers.append(nn.BatchNorm1d(dim, affine=False))
    return head


def values_at(maps: Tensor, view: View, places: Tensor, found: Tensor) -> Tensor:
    """Values (B, P, C) of a view's maps (B, C, h, w) at places (B, P, 2) of the source images.

    Where ``found`` (B,) is False, the places are none of the view's: the values are those of a grid over all of it.
    """
    side = round(places.shape[1] ** 0.5)
    whole = grid_points(places.new_tensor([0.0, 0.0, 1.0, 1.0]), side)  # (P, 2)
    return sample(maps, torch.where(found[:, None, None], coordinates_in(view, places), whole))


@torch.no_grad()
def regions_used(z: Tensor) -> Tensor:
    """Regions that have the highest channel of z (B, P, N) at one place at least, a mean over images."""
    best = torch.zeros_like(z, dtype=torch.float32).scatter(2, z.argmax(dim=2, keepdim=True), 1.0)
    return best.amax(dim=1).sum(dim=1).mean()
