"""Map sources that learn nothing about where the object is, or are told: the rungs around the learned map.

    FrozenMLP    the learned map's own network with its random weights
    CentrePrior  a bump at the centre of the image, seen through the crop
    OtherImage   the learned map of another image of the batch
    OracleMask   the true mask

Each takes the place of :class:`scd.maps.source.SaliencyMLP` in :class:`scd.scd.SCD`, and nothing else changes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.data.views import View
from scd.errors import UsageError
from scd.maps.source import MapSource, SaliencyMLP

EMPTY = 0.02  # of the oracle's map outside the object, so that a view without object still has two regions


class FrozenMLP(SaliencyMLP):
    """The saliency MLP at its random initial weights: a fixed random function of the features that it is given.

    The features underneath still learn, through the map as well; only the MLP stands still.

    Args:
        dim, depth, hidden, norm: see :class:`scd.maps.source.SaliencyMLP`.
        gain: factor of the last layer's weights. NOTE: at 1 a fresh map is nearly 0.5 everywhere; a larger one
            separates regions from the first step on, at random.
    """

    def __init__(self, dim: int, depth: int = 2, hidden: int | None = None, norm: str = "none", gain: float = 1.0):
        super().__init__(dim, depth, hidden, norm)
        if not gain > 0:
            raise UsageError(f"FrozenMLP's gain is a number above 0, not {gain}")
        with torch.no_grad():
            self.mlp.layers[-1].weight.mul_(gain)
        self.requires_grad_(False)


class CentrePrior(MapSource):
    """M = exp(-r^2 / (2 sigma^2)), r the distance from the centre of the *image*: what photographers do, unlearned.

    A view shows its part of the bump, by its rectangle and flip. Without a view the maps are of whole images.

    Args:
        dim: C of the feature maps; not used.
        sigma: in sides of the image.
    """

    def __init__(self, dim: int = 0, sigma: float = 0.3):
        super().__init__()
        if not sigma > 0:
            raise UsageError(f"CentrePrior's sigma is a share of the image's side above 0, not {sigma}")
        self.sigma = sigma

    def forward(self, maps: Tensor, view: View | None = None) -> Tensor:
        """The bump (B, h, w) at the places that the feature map (B, C, h, w) looks at."""
        h, w = maps.shape[2:]
        if view is None:
            x = ((torch.arange(w, device=maps.device) + 0.5) / w).expand(h, w)
            y = ((torch.arange(h, device=maps.device) + 0.5) / h)[:, None].expand(h, w)
            places = torch.stack([x, y], dim=2).expand(len(maps), h, w, 2)
        else:
            places = view.grid(h, w)
        squared = (places - 0.5).square().sum(dim=3)
        return torch.exp(-squared / (2 * self.sigma**2)).to(maps.dtype)


class OtherImage(SaliencyMLP):
    """The learned map, each image given the next one's: the map is learned, and wrong about where things are.

    Areas, smoothness and training of the map stay what they are; its tie to the image's own content goes. What is
    scored and shown, without a view, is each image's own map: what the MLP has learned from being given away.
    """

    def forward(self, maps: Tensor, view: View | None = None) -> Tensor:
        """Saliency (B, h, w) of a view's images, rolled by one; of images without a view, their own.

        Raises:
            UsageError: a batch of one image, which has no other.
        """
        saliency = super().forward(maps, view)
        if view is None:
            return saliency
        if len(maps) < 2:
            raise UsageError("another image's map needs a batch of at least 2 images")
        return saliency.roll(1, dims=0)


class OracleMask(MapSource):
    """M = the share of the position that the true mask covers, a little above 0 and below 1 at its ends.

    Args:
        dim: C of the feature maps; not used.
    """

    needs = "masks"
    supervision = "oracle"

    def __init__(self, dim: int = 0):
        super().__init__()

    def forward(self, maps: Tensor, view: View | None = None) -> Tensor | None:
        """The mask (B, h, w) of the view on the feature map's grid; None without a view."""
        if view is None:
            return None
        if view.masks is None:
            raise UsageError("the oracle map needs images with masks; this data set has none")
        covered = F.adaptive_avg_pool2d(view.masks[:, None].float(), maps.shape[2:])[:, 0]
        return covered.clamp(EMPTY, 1 - EMPTY).to(maps.dtype)
