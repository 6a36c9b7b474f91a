"""A learned map that is refined where it found nothing: reverse attention (Chen et al., ECCV 2018, arXiv 1807.09940).

    S_0 = MLP(F)                                    coarse logits, as in SaliencyMLP
    S_r = S_(r-1) + convs_r(A_r · convert_r(F))     A_r = 1 - sigmoid(S_(r-1)), the reverse attention
    M   = sigmoid(S_R)

What the map already holds is erased from the features, so that the residual has to find what is missing. The residual
is added to the logits; the sigmoid serves the attention alone. Gradients pass through A_r.

The official network is a supervised one: its coarse logits come from the deepest stage, its refinements from the stages
before it, the finest last, and all of them learn from masks. Here they learn without labels, from SCD's triplets; for
the supervised form see :func:`mask_loss` and ``baselines/reverse_attention.py``.

A refinement is that of the official PyTorch code (RAS-pytorch, v1): a 1 x 1 convolution to 64 channels, the product
with A, three 3 x 3 convolutions with ReLU, and one to a single channel. The paper has two, and no convolution before A.

NOTE: every refinement reads the last feature map, since a map source is given no other; nothing is upsampled. So the
map has the resolution of the features, and no finer stage sharpens its boundaries, as the paper's stages do.
NOTE: the coarse logits are those of SCD's MLP; the official ones come from a module of 3 x 3 to 7 x 7 convolutions.
NOTE: the last convolution of a refinement starts at 0, so that a fresh map is the coarse one. The official code draws
it as all others, from a normal distribution with deviation 0.01 (v1) or by He's rule (v2, as the others here).
NOTE: 3 x 3 convolutions see the zeros beyond the border. SCD's MLP is the same at every position; this map is not.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.errors import UsageError
from scd.maps.source import MapSource
from scd.method import View
from scd.nn.heads import MLP
from scd.nn.precision import at_least_float32, no_autocast

CONVOLUTIONS = 3  # of 3 x 3 with ReLU, before the one that makes the residual


class Refinement(nn.Module):
    """One residual under reverse attention.

    Args:
        dim: C of the feature maps.
        width: channels inside.
    """

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.convert = nn.Conv2d(dim, width, 1)
        layers = [layer for _ in range(CONVOLUTIONS) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())]
        self.convs = nn.Sequential(*layers, nn.Conv2d(width, 1, 3, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.convs[-1].weight)

    def forward(self, maps: Tensor, logits: Tensor) -> Tensor:
        """Refined logits (B, h, w) of feature maps (B, C, h, w) and logits (B, h, w)."""
        attention = torch.sigmoid(-logits)[:, None]  # 1 - sigmoid, without its rounding near 1
        return logits + self.convs(attention * self.convert(maps))[:, 0]


class ReverseAttention(MapSource):
    """M = sigmoid of the MLP's logits after some refinements under reverse attention.

    Args:
        dim: C of the feature maps.
        depth, hidden, norm: of the coarse map's MLP, see :class:`scd.maps.learned.SaliencyMLP`.
        refinements: number of residuals, one after the other.
        width: channels inside a refinement.

    Raises:
        UsageError: a depth, a number of refinements or a width below 1.
    """

    def __init__(
        self,
        dim: int,
        depth: int = 2,
        hidden: int | None = None,
        norm: str = "none",
        refinements: int = 1,
        width: int = 64,
    ):
        super().__init__()
        for name, value in (("depth", depth), ("refinements", refinements), ("width", width)):
            if value < 1:
                raise UsageError(f"ReverseAttention's {name} is 1 or more, not {value}")
        self.mlp = MLP((dim, *[hidden or dim] * (depth - 1), 1), norm=norm)
        self.refinements = nn.ModuleList(Refinement(dim, width) for _ in range(refinements))

    def logits(self, maps: Tensor) -> list[Tensor]:
        """S_0 to S_R, each (B, h, w), of feature maps (B, C, h, w)."""
        found = [self.mlp(maps.permute(0, 2, 3, 1)).squeeze(3)]
        for refinement in self.refinements:
            found.append(refinement(maps, found[-1]))
        return found

    def forward(self, maps: Tensor, view: View) -> Tensor:
        """Saliency (B, h, w) of feature maps (B, C, h, w); the view is not used."""
        return torch.sigmoid(self.logits(maps)[-1])


def mask_loss(logits: list[Tensor], masks: Tensor) -> Tensor:
    """Sum over the logits of the mean binary cross-entropy against the masks, at the masks' size.

    The logits are upsampled bilinearly with aligned corners, as in the official code.

    NOTE: the official PyTorch code adds 1 - IoU to each term; the paper does not.

    Args:
        logits: of :meth:`ReverseAttention.logits`, each (B, h, w).
        masks: (B, s, s), 1 on the object.
    """
    with no_autocast(logits[0]):
        sized = [
            F.interpolate(at_least_float32(each)[:, None], size=masks.shape[1:], mode="bilinear", align_corners=True)
            for each in logits
        ]
        target = masks[:, None].to(sized[0].dtype)
        return torch.stack([F.binary_cross_entropy_with_logits(each, target) for each in sized]).sum()
