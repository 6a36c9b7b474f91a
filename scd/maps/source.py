"""Map sources: where a saliency map over a feature map comes from.

A source is a module ``source(maps, view) -> (B, h, w)`` in [0, 1]. ``maps`` (B, C, h, w) are the features that the
image-level loss uses; ``view`` is the view that they were computed from (geometry, masks, pixels), or None when only
images are at hand; a source that cannot do without it then returns None. Its first argument is ``dim``, the channels
C, so that SCD can build it for any backbone. ``needs`` and ``supervision`` say what it takes from the data and whether
that counts as supervision.

``maps`` carry their gradient; a source that learns passes it on, and its momentum copy comes from ``copy.deepcopy``.
"""

import math

import torch
from torch import Tensor, nn

from scd.data.views import View
from scd.nn.heads import MLP


class MapSource(nn.Module):
    """What every source declares; a learned map from unlabelled images needs nothing."""

    needs = "none"
    supervision = "unsupervised"


class SaliencyMLP(MapSource):
    """M = sigmoid(MLP(F)), the same MLP at every position (SCD; the reviews: "a simple MLP" on the feature map).

    Args:
        dim: C of the feature maps.
        depth: number of Linear layers; 1 is a linear classifier of positions.
        hidden: width of the hidden layers; C when None.
        norm: norm of the hidden layers, see :class:`scd.nn.heads.MLP`.

    Raises:
        ValueError: a depth below 1.
    """

    def __init__(self, dim: int, depth: int = 2, hidden: int | None = None, norm: str = "none"):
        super().__init__()
        if depth < 1:
            raise ValueError(f"the saliency MLP has at least one layer, not depth={depth}")
        self.mlp = MLP((dim, *[hidden or dim] * (depth - 1), 1), norm=norm)

    def forward(self, maps: Tensor, view: View | None = None) -> Tensor:
        """Saliency (B, h, w) of feature maps (B, C, h, w); the view is not looked at."""
        positions = maps.permute(0, 2, 3, 1)  # (B, C, h, w) -> (B, h, w, C)
        return torch.sigmoid(self.mlp(positions).squeeze(3))


class ConstantMap(MapSource):
    """The control that keeps heads and loss and takes the separation away: the same number everywhere.

    Args:
        dim: C of the feature maps; not used.
        value: the number, in (0, 1).

    Raises:
        ValueError: a value at or outside the ends, which leaves one region empty.
    """

    def __init__(self, dim: int = 0, value: float = 0.5):
        super().__init__()
        if not 0.0 < value < 1.0:
            raise ValueError(f"a constant map lies strictly between 0 and 1, not at {value}")
        self.value = value

    def forward(self, maps: Tensor, view: View | None = None) -> Tensor:
        """The constant (B, h, w) for feature maps (B, C, h, w)."""
        return maps.new_full((maps.shape[0], *maps.shape[2:]), self.value)


def map_statistics(maps: Tensor, saturated: float = 0.05) -> dict[str, Tensor]:
    """Scalars that show a map's collapse: its mean, saturation and entropy.

    Args:
        maps: saliency (B, h, w) in [0, 1].
        saturated: a position counts as saturated when it is closer than this to 0 or to 1.

    Returns:
        ``map_mean``; ``map_saturation``, the share of saturated positions; ``map_entropy``, the mean over positions
        of the entropy of a coin with probability M, in bits: 1 for M = 0.5 everywhere, 0 for a hard map.
    """
    m = maps.detach().float()
    inside = m.clamp(1e-6, 1 - 1e-6)
    entropy = -(inside * inside.log() + (1 - inside) * (1 - inside).log()) / math.log(2)
    return {
        "map_mean": m.mean(),
        "map_saturation": ((m < saturated) | (m > 1 - saturated)).float().mean(),
        "map_entropy": entropy.mean(),
    }
