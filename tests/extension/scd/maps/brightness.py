"""A map source that looks at the pixels of the view."""

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.maps.source import MapSource
from scd.method import View


class BrightnessMap(MapSource):
    """M = sigmoid of the mean of the normalised channels, on the grid of the feature map."""

    def __init__(self, dim: int = 0, gain: float = 2.0):
        super().__init__()
        self.gain = gain

    def forward(self, maps: Tensor, view: View) -> Tensor:
        brightness = F.adaptive_avg_pool2d(view.images.mean(dim=1, keepdim=True), maps.shape[2:])[:, 0]
        return torch.sigmoid(self.gain * brightness).to(maps.dtype)
