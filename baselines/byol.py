"""BYOL: predict the other view's target embedding (Grill et al., NeurIPS 2020, arXiv 2006.07733).

L = mean over both directions of || n(p(g(GAP f(v_i)))) - n(g'(GAP f'(v_j))) ||^2, no negatives, target by EMA whose
momentum rises to 1 on a cosine.

Official settings. ResNet-50, hidden 4096, dim 256, LARS (biases and norms excluded from decay and scaling), batch 4096,
base momentum 0.97 / 0.99 / 0.99 / 0.996 for 40 / 100 / 300 / 1000 epochs, views "byol1" and "byol2".
"""

from torch import Tensor, nn

from scd.nn.heads import MLP
from scd.nn.losses import byol_regression
from scd.siamese import Matcher, MomentumSiamese


class Prediction(Matcher):
    """Regression of the target embedding from the online one through a predictor.

    Args:
        predictor: maps embeddings (B, D) to embeddings (B, D); of the online branch only; it has no momentum copy.
            The identity in the ablation without a predictor.
    """

    def __init__(self, predictor: nn.Module):
        super().__init__()
        self.predictor = predictor

    def forward(self, online: Tensor, target: Tensor) -> Tensor:
        """Mean of 2 - 2 cos between the prediction from ``online`` (B, D) and ``target`` (B, D), in [0, 4]."""
        return byol_regression(self.predictor(online), target)


class BYOL(MomentumSiamese):
    """BYOL with Linear-BN-ReLU-Linear heads.

    Args:
        backbone: feature maps.
        dim: D of the embeddings.
        hidden: width of the projector's and the predictor's hidden layer.
        momentum: base of the cosine schedule, m at the start.
        momentum_schedule: "cosine" to 1 (official) or "constant".
        symmetric: both directions (official), or only from the first view to the second.
        has_predictor: False leaves the predictor out, an ablation that is known to collapse (Table 5b of the paper).

    The heads' last Linear has no bias and no BN after it. The target runs in train mode; its running statistics are its
    own and no EMA changes them.

    NOTE: mean over the two directions, range [0, 4]; the official loss is their sum, range [0, 8].
    NOTE: online and target start equal; the official code draws them from different seeds, without a difference
    according to its authors.
    NOTE: Linears start from torch's default, not from Haiku's truncated normal. BN is per process; the official one is
    synchronised over replicas.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int = 256,
        hidden: int = 4096,
        momentum: float = 0.996,
        momentum_schedule: str = "cosine",
        symmetric: bool = True,
        has_predictor: bool = True,
    ):
        super().__init__(
            backbone=backbone,
            projector=MLP((backbone.dim, hidden, dim), norm="batch", last_bias=False),
            matcher=prediction(dim, hidden, has_predictor),
            momentum=momentum,
            momentum_schedule=momentum_schedule,
            symmetric=symmetric,
        )
        self.hidden = hidden
        self.has_predictor = has_predictor

    def new_matcher(self) -> Matcher:
        """Another regression with a predictor of the same shape, for wrappers that compare further vectors."""
        return prediction(self.projector.dim, self.hidden, self.has_predictor)


def prediction(dim: int, hidden: int, has_predictor: bool = True) -> Prediction:
    """The regression with BYOL's predictor, or without one."""
    return Prediction(MLP((dim, hidden, dim), norm="batch", last_bias=False) if has_predictor else nn.Identity())
