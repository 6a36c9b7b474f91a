"""A backbone that is evaluated as it is."""

from torch import Tensor, nn

from scd.errors import UsageError
from scd.method import Batch, Method


class Scored(Method):
    """The method of a checkpoint: it has a backbone and no loss, so it can be evaluated and not trained."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Raise UsageError: a checkpoint alone does not say how it was trained."""
        raise UsageError("a checkpoint can be evaluated and not trained: it does not hold the method's loss")
