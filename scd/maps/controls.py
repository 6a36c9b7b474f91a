"""Control map sources. Each one replaces the learned map, and everything else of the method stays.

ConstantMap  the same number everywhere
FrozenMLP    the learned map's network with its random initial weights
CentrePrior  a Gaussian at the centre of the image, seen through the crop
OtherImage   the learned map of another image of the batch
OracleMask   the true mask
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.errors import UsageError
from scd.maps.learned import SaliencyMLP
from scd.maps.source import MapSource
from scd.method import View

EMPTY = 0.02  # value of a hard map outside the object, and 1 - EMPTY inside, so that no region is ever empty


class ConstantMap(MapSource):
    """The same number everywhere: nothing is separated, while the heads and the loss stay.

    Args:
        dim: C of the feature maps; not used.
        value: the number, in (0, 1).

    Raises:
        UsageError: a value outside (0, 1), which would leave one region empty.
    """

    def __init__(self, dim: int = 0, value: float = 0.5):
        super().__init__()
        if not 0.0 < value < 1.0:
            raise UsageError(f"a constant map lies strictly between 0 and 1, not at {value}")
        self.value = value

    def forward(self, maps: Tensor, view: View) -> Tensor:
        """The constant (B, h, w) for feature maps (B, C, h, w); the view is not used."""
        return maps.new_full((maps.shape[0], *maps.shape[2:]), self.value)


class FrozenMLP(SaliencyMLP):
    """The saliency MLP at its random initial weights: a fixed random function of the features that it is given.

    The MLP never learns. The backbone does, through the map as well as through the features.

    Args:
        dim, depth, hidden, norm: see :class:`scd.maps.learned.SaliencyMLP`.
        gain: factor of the last layer's weights. NOTE: at 1 a fresh map is nearly 0.5 everywhere; a larger one
            separates regions from the first step on, at random.

    Raises:
        UsageError: a gain that is not above 0, or a depth below 1.
    """

    def __init__(self, dim: int, depth: int = 2, hidden: int | None = None, norm: str = "none", gain: float = 1.0):
        super().__init__(dim, depth, hidden, norm)
        if not gain > 0:
            raise UsageError(f"FrozenMLP's gain is a number above 0, not {gain}")
        with torch.no_grad():
            self.mlp.layers[-1].weight.mul_(gain)
        self.requires_grad_(False)


class CentrePrior(MapSource):
    """M = exp(-r^2 / (2 sigma^2)), r the distance from the centre of the *image*: photographers centre their objects.

    A view shows its part of the Gaussian, according to its rectangle and flip.

    Args:
        dim: C of the feature maps; not used.
        sigma: in sides of the image.

    Raises:
        UsageError: a sigma that is not above 0.
    """

    def __init__(self, dim: int = 0, sigma: float = 0.3):
        super().__init__()
        if not sigma > 0:
            raise UsageError(f"CentrePrior's sigma is a share of the image's side above 0, not {sigma}")
        self.sigma = sigma

    def forward(self, maps: Tensor, view: View) -> Tensor:
        """The Gaussian (B, h, w) at the positions of the feature map (B, C, h, w) in the image."""
        squared = (view.grid(*maps.shape[2:]) - 0.5).square().sum(dim=3)
        return torch.exp(-squared / (2 * self.sigma**2)).to(maps.dtype)


class OtherImage(SaliencyMLP):
    """The learned map, each image given the previous one's: the map is learned, but shows another image's object.

    Area, smoothness and training of the map stay what they are; only its relation to the image's own content is lost.
    In evaluation mode each image has its own map, which shows what the MLP has learned under this training.
    """

    def forward(self, maps: Tensor, view: View) -> Tensor:
        """Saliency (B, h, w); in training mode rolled by one image.

        Raises:
            UsageError: a training batch of one image, which has no other.
        """
        saliency = super().forward(maps, view)
        if not self.training:
            return saliency
        if len(maps) < 2:
            raise UsageError("another image's map needs a batch of at least 2 images")
        return saliency.roll(1, dims=0)


class OracleMask(MapSource):
    """M = the share of the position that the true mask covers, at least 0.02 and at most 0.98.

    Args:
        dim: C of the feature maps; not used.
    """

    needs = frozenset({"masks"})
    supervision = "oracle"

    def __init__(self, dim: int = 0):
        super().__init__()

    def forward(self, maps: Tensor, view: View) -> Tensor | None:
        """The mask (B, h, w) of the view on the feature map's grid; None in evaluation mode for a view without masks.

        Raises:
            UsageError: a view without masks in training mode.
        """
        if view.masks is None:
            if self.training:
                raise UsageError("the oracle map needs images with masks; this data set has none")
            return None
        covered = F.adaptive_avg_pool2d(view.masks[:, None].float(), maps.shape[2:])[:, 0]
        return covered.clamp(EMPTY, 1 - EMPTY).to(maps.dtype)
