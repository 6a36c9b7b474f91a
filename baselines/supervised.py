"""Supervised pretraining: a linear classifier on pooled features, trained with the labels.

L = cross-entropy(W GAP f(v) + b, y), averaged over images and views. It shows what labels are worth on the same views,
backbone and number of steps; it is not a self-supervised method, and pages print its supervision.

Usual settings (Goyal et al., arXiv 1706.02677). ResNet-50, SGD lr 0.1 at batch 256, momentum 0.9, weight decay 1e-4,
90 epochs, random crops of 8 to 100 % of the area and mirroring.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.errors import UsageError
from scd.method import Batch, Method, Parts
from scd.nn.features import maps_and_vector


class Supervised(Method):
    """A classifier on the backbone's pooled features.

    Args:
        backbone: feature maps.
        classes: number of classes; labels are 0 to ``classes`` - 1.

    Raises:
        UsageError: fewer than two classes.

    Every view of the batch is classified, and the loss is their mean; the usual recipe has one view.

    NOTE: the learning rate follows a half cosine instead of falling in three steps, as in the suite's other methods.
    """

    needs = frozenset({"labels"})
    supervision = "labels"

    def __init__(self, backbone: nn.Module, classes: int):
        super().__init__()
        if classes < 2:
            raise UsageError(f"a classifier needs two classes or more, not {classes}")
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.dim, classes)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Mean cross-entropy over views; logs the accuracy on the training images, a share in [0, 1]."""
        losses, hits = [], []
        for view in batch.views.values():
            _, pooled = maps_and_vector(self.backbone(view.images))
            logits = self.classifier(pooled).float()  # (B, classes)
            losses.append(F.cross_entropy(logits, batch.labels))
            hits.append((logits.argmax(dim=1) == batch.labels).float().mean())
        return {"loss": torch.stack(losses).mean(), "train_top1": torch.stack(hits).mean()}

    def parts(self) -> Parts:
        return Parts(root="loss", modules={self.backbone: "backbone, online", self.classifier: "heads"})
