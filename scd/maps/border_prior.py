"""Which side of the map is the foreground? A triplet loss does not say; here is a rule that needs no label.

The border rule: what touches the border of the image is background more often than what does not (the "boundary prior"
of the saliency literature: Wei et al., Geodesic Saliency Using Background Priors, ECCV 2012). The map that is lower at
the border than inside marks the foreground; if it is the other way round, map and complement change places.
"""

import torch
from torch import Tensor, nn

from scd.data.views import View
from scd.maps.source import MapSource, SaliencyMLP


class SettledMap(MapSource):
    """A learned map whose polarity is settled by the border rule, for all images alike.

    A running mean of (inside - border) over training views decides: while it is negative, 1 - M takes M's place, in the
    loss and in what is scored. One sign for all images: an image's own object may well touch the border.

    Args:
        dim: C of the feature maps.
        depth, hidden, norm: of the MLP underneath, see :class:`scd.maps.source.SaliencyMLP`.
        momentum: share of the running mean that stays at each training step.
    """

    def __init__(self, dim: int, depth: int = 2, hidden: int | None = None, norm: str = "none", momentum: float = 0.9):
        super().__init__()
        self.source = SaliencyMLP(dim, depth, hidden, norm)
        self.momentum = momentum
        self.register_buffer("inside_minus_border", torch.zeros(()))

    def forward(self, maps: Tensor, view: View | None = None) -> Tensor:
        """Saliency (B, h, w) in [0, 1] with the settled polarity."""
        saliency = self.source(maps, view)
        if self.training and view is not None:
            contrast = border_contrast(saliency.detach().float()).mean()
            self.inside_minus_border.lerp_(contrast, 1 - self.momentum)
        return torch.where(self.inside_minus_border < 0, 1 - saliency, saliency)


def border_contrast(maps: Tensor) -> Tensor:
    """Mean inside minus mean over the outermost positions (B,) of maps (B, h, w); 0 where there is no inside."""
    h, w = maps.shape[1:]
    if min(h, w) < 3:
        return maps.new_zeros(len(maps))
    inside = nn.functional.pad(maps.new_ones(h - 2, w - 2), (1, 1, 1, 1))
    border = 1 - inside
    means = [(maps * part).sum(dim=(1, 2)) / part.sum() for part in (inside, border)]
    return means[0] - means[1]
