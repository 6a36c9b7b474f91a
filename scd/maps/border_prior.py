"""A learned map whose foreground side is chosen without labels, by the image's border.

A triplet loss does not determine which side of a map is the foreground. The border rule does: what touches the border
of the image is background more often than what does not (the "boundary prior" of the saliency literature: Wei et al.,
Geodesic Saliency Using Background Priors, ECCV 2012). If the map is higher at the border than inside, map and
complement are exchanged.
"""

import torch
from torch import Tensor, nn

from scd.maps.learned import SaliencyMLP
from scd.maps.source import MapSource
from scd.method import View
from scd.nn.processes import gather


class SettledMap(MapSource):
    """A learned map with one sign for all images, which the border rule determines.

    The sign follows a running mean of (inside - border) over the online branch's training views: while it is negative,
    1 - M replaces M, in the loss and in evaluation. It changes after a step only, and the momentum copy takes it over,
    so that both branches of a step use the same sign. A single image may well have its object at the border, therefore
    the sign is not chosen per image.

    Args:
        dim: C of the feature maps.
        depth, hidden, norm: of the MLP, see :class:`scd.maps.learned.SaliencyMLP`.
        momentum: share of the running mean that stays at each training view.
    """

    shared_buffers = ("inside_minus_border",)
    inside_minus_border: Tensor

    def __init__(self, dim: int, depth: int = 2, hidden: int | None = None, norm: str = "none", momentum: float = 0.9):
        super().__init__()
        self.source = SaliencyMLP(dim, depth, hidden, norm)
        self.momentum = momentum
        self.register_buffer("inside_minus_border", torch.zeros(()))
        self.waiting: list[Tensor] = []  # this step's contrasts, one per view

    def forward(self, maps: Tensor, view: View) -> Tensor:
        """Saliency (B, h, w) in [0, 1] with the current sign."""
        saliency = self.source(maps, view)
        if self.training and torch.is_grad_enabled():  # not in the momentum branch, which runs without gradient
            self.waiting.append(border_contrast(saliency.detach().float()).mean())
        return torch.where(self.inside_minus_border < 0, 1 - saliency, saliency)

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the running mean towards the contrast of each view of this step, averaged over processes."""
        for contrast in self.waiting:
            self.inside_minus_border.lerp_(gather(contrast[None]).mean(), 1 - self.momentum)
        self.waiting = []


def border_contrast(maps: Tensor) -> Tensor:
    """Mean inside minus mean over the outermost positions (B,) of maps (B, h, w); 0 where there is no inside."""
    h, w = maps.shape[1:]
    if min(h, w) < 3:
        return maps.new_zeros(len(maps))
    inside = nn.functional.pad(maps.new_ones(h - 2, w - 2), (1, 1, 1, 1))
    border = 1 - inside
    means = [(maps * part).sum(dim=(1, 2)) / part.sum() for part in (inside, border)]
    return means[0] - means[1]
