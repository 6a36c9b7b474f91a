"""A method that is not Siamese: regress the mean colour of every view from the backbone's pooled features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.method import Batch, Method
from scd.nn.features import maps_and_vector


class ColourRegression(Method):
    """L = mean over views of |W GAP f(v) - mean colour of v|^2."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.dim, 3)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        losses = []
        for view in batch.views.values():
            _, pooled = maps_and_vector(self.backbone(view.images))
            losses.append(F.mse_loss(self.head(pooled), view.images.mean(dim=(2, 3))))
        return {"loss": torch.stack(losses).mean()}
