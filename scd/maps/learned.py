"""The learned map of SCD: an MLP on the feature map, and how its numbers become a map."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.errors import UsageError, unknown
from scd.maps.source import MapSource
from scd.method import View
from scd.nn.heads import MLP
from scd.nn.queue import gather

NORMALISATIONS = ("sigmoid", "softmax", "centred")


class SaliencyMLP(MapSource):
    """M = sigmoid(MLP(F)), the same MLP at every position (SCD; the reviews: "a simple MLP" on the feature map).

    With l = MLP(F) the logits (h, w) of an image, ``normalisation`` is one of

    * "sigmoid": M = sigmoid(l);
    * "softmax": W = softmax of l over the positions, M = W / max W = exp(l - max l), in (0, 1]. The weighted mean under
      M is that under W. The complement 1 - M, of which SCD makes the background, gives each position what it lacks of
      the largest weight, and the most salient position nothing;
    * "centred": M = sigmoid(l - c), with c (h, w) the mean of l over images. What is the same in every image, position
      included, is removed. As in batch normalisation c is the batch's mean in training, with its gradient, in either
      branch of its own logits; in evaluation it is a running mean of the online branch's training views.

    NOTE: a single c for both branches of a step would leave position in one of them: the momentum branch's logits lag
    behind those of the online branch.
    NOTE: c has one value per position of the map. A map of another size than the first one of training takes c
    interpolated bilinearly, and does not enter the running mean. c is 0 before the first step.

    Args:
        dim: C of the feature maps.
        depth: number of Linear layers; 1 is a linear classifier of positions.
        hidden: width of the hidden layers; C when None.
        norm: norm of the hidden layers, see :class:`scd.nn.heads.MLP`.
        normalisation: "sigmoid", "softmax" or "centred".
        momentum: of "centred": share of the running mean that stays at each training view.

    Raises:
        UsageError: a depth below 1, or an unknown normalisation.
    """

    position_mean: Tensor

    def __init__(
        self,
        dim: int,
        depth: int = 2,
        hidden: int | None = None,
        norm: str = "none",
        normalisation: str = "sigmoid",
        momentum: float = 0.9,
    ):
        super().__init__()
        if depth < 1:
            raise UsageError(f"the saliency MLP has at least one layer, not depth={depth}")
        if normalisation not in NORMALISATIONS:
            raise unknown("normalisation", normalisation, NORMALISATIONS)
        self.mlp = MLP((dim, *[hidden or dim] * (depth - 1), 1), norm=norm)
        self.normalisation = normalisation
        self.momentum = momentum
        self.waiting: list[Tensor] = []  # this step's means over the batch, one per view
        if normalisation == "centred":
            self.register_buffer("position_mean", torch.zeros(0, 0))  # takes the size of the first map

    def forward(self, maps: Tensor, view: View) -> Tensor:
        """Saliency (B, h, w) of feature maps (B, C, h, w); the view is not used.

        Raises:
            UsageError: centred logits of a training batch of one image, which are 0.
        """
        positions = maps.permute(0, 2, 3, 1)  # (B, C, h, w) -> (B, h, w, C)
        logits = self.mlp(positions).squeeze(3)
        if self.normalisation == "softmax":
            logits = logits.float()
            return (logits - logits.amax(dim=(1, 2), keepdim=True)).exp()
        return torch.sigmoid(self.centred(logits) if self.normalisation == "centred" else logits)

    # ---------------------------------------------------------------- centred logits

    def centred(self, logits: Tensor) -> Tensor:
        """Logits (B, h, w) minus their mean over images."""
        if not self.training:
            return logits - self.mean_at(logits.shape[1], logits.shape[2]).to(logits.dtype)
        if len(logits) < 2:
            raise UsageError("centred logits need a batch of at least 2 images")
        mean = logits.mean(dim=0)
        if torch.is_grad_enabled():  # not in the momentum branch, which runs without gradient
            self.waiting.append(mean.detach().float())
        return logits - mean

    def mean_at(self, h: int, w: int) -> Tensor:
        """The running mean on an h x w grid; zeros before the first step."""
        if not self.position_mean.numel():
            return self.position_mean.new_zeros(h, w)
        if self.position_mean.shape == (h, w):
            return self.position_mean
        return F.interpolate(self.position_mean[None, None], size=(h, w), mode="bilinear")[0, 0]

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the running mean towards that of each view of this step, averaged over processes."""
        for own in self.waiting:
            mean = gather(own[None]).mean(dim=0)
            if not self.position_mean.numel():
                self.position_mean = mean
            elif mean.shape == self.position_mean.shape:
                self.position_mean.lerp_(mean, 1 - self.momentum)
        self.waiting = []

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Load the running mean in the size in which it was saved."""
        saved = state_dict.get(f"{prefix}position_mean")
        if saved is not None and self.normalisation == "centred":
            self.position_mean = self.position_mean.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
