"""The learned map of SCD: an MLP on the feature map."""

import torch
from torch import Tensor

from scd.errors import UsageError
from scd.maps.source import MapSource
from scd.method import View
from scd.nn.heads import MLP


class SaliencyMLP(MapSource):
    """M = sigmoid(MLP(F)), the same MLP at every position (SCD; the reviews: "a simple MLP" on the feature map).

    Args:
        dim: C of the feature maps.
        depth: number of Linear layers; 1 is a linear classifier of positions.
        hidden: width of the hidden layers; C when None.
        norm: norm of the hidden layers, see :class:`scd.nn.heads.MLP`.

    Raises:
        UsageError: a depth below 1.
    """

    def __init__(self, dim: int, depth: int = 2, hidden: int | None = None, norm: str = "none"):
        super().__init__()
        if depth < 1:
            raise UsageError(f"the saliency MLP has at least one layer, not depth={depth}")
        self.mlp = MLP((dim, *[hidden or dim] * (depth - 1), 1), norm=norm)

    def forward(self, maps: Tensor, view: View) -> Tensor:
        """Saliency (B, h, w) of feature maps (B, C, h, w); the view is not used."""
        positions = maps.permute(0, 2, 3, 1)  # (B, C, h, w) -> (B, h, w, C)
        return torch.sigmoid(self.mlp(positions).squeeze(3))
