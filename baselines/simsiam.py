"""SimSiam: predict the other view's embedding, without negatives and without a momentum branch.

Chen & He, CVPR 2021, arXiv 2011.10566. With z_i = g(GAP f(v_i)) and p_i = h(z_i),

    L = 1/2 D(p_1, sg(z_2)) + 1/2 D(p_2, sg(z_1)),    D(p, z) = -cos(p, z),

where sg stops the gradient. L lies in [-1, 1]; -1 everywhere is a collapse or a perfect match.

Official settings. ResNet-50, projector 2048-2048-2048-2048, predictor 2048-512-2048, SGD lr 0.05 at batch 256 (0.1 at
its batch of 512), weight decay 1e-4 on all parameters, cosine schedule per epoch without warm-up, 100 epochs, MoCo v2's
views. The predictor's learning rate stays at its peak (``--fix-pred-lr``).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from scd.method import ParameterGroup
from scd.nn.heads import MLP
from scd.nn.precision import at_least_float32
from scd.siamese import JointEmbedding, Matcher


class CosinePrediction(Matcher):
    """Negative cosine between the prediction from one embedding and another embedding, which gets no gradient.

    Args:
        dim: D of the embeddings.
        bottleneck: width of the predictor's hidden layer.
    """

    def __init__(self, dim: int, bottleneck: int):
        super().__init__()
        self.predictor = MLP((dim, bottleneck, dim), norm="batch", bias=False)

    def forward(self, online: Tensor, target: Tensor) -> Tensor:
        """Mean of -cos between the prediction from ``online`` (B, D) and ``target`` (B, D), in [-1, 1]."""
        prediction = self.predictor(online)
        prediction, target = at_least_float32(prediction), at_least_float32(target.detach())
        return -F.cosine_similarity(prediction, target, dim=1).mean()


class SimSiam(JointEmbedding):
    """SimSiam with a three-layer projector and a two-layer predictor.

    Args:
        backbone: feature maps.
        dim: D of the embeddings.
        hidden: width of the projector's two hidden layers; the backbone's C when None (official).
        bottleneck: width of the predictor's hidden layer; D / 4 when None (official: 512 of 2048).
        fix_predictor_lr: the predictor's learning rate stays at its peak (official) instead of following the schedule.

    BN follows every layer of the projector; the last one has no affine parameters. In the predictor, BN follows the
    hidden layer alone. Linears before a BN have no bias.

    NOTE: the official code keeps the bias of the projector's last Linear at its initial value; the BN that follows
    removes it, so it is left out here.
    NOTE: the official code starts the last BN of each residual block at 0. Here backbones start as in the other arms.
    NOTE: BN is per process; the official one is synchronised over processes.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int = 2048,
        hidden: int | None = None,
        bottleneck: int | None = None,
        fix_predictor_lr: bool = True,
    ):
        hidden = backbone.dim if hidden is None else hidden
        bottleneck = dim // 4 if bottleneck is None else bottleneck
        projector = MLP((backbone.dim, hidden, hidden, dim), norm="batch", bias=False, last_bias=False)
        projector.layers.append(nn.BatchNorm1d(dim, affine=False))
        super().__init__(backbone, projector, CosinePrediction(dim, bottleneck))
        self.bottleneck = bottleneck
        self.fix_predictor_lr = fix_predictor_lr

    def new_matcher(self) -> Matcher:
        """Another comparison of the same form with a predictor of its own, for methods that compare further vectors."""
        return CosinePrediction(self.projector.dim, self.bottleneck)

    def groups_of(self, module: nn.Module) -> list[ParameterGroup]:
        """The encoder, and the predictors with their constant learning rate: a wrapper may have a second one."""
        matchers = [part for part in module.modules() if isinstance(part, CosinePrediction)]
        predictors = [parameter for matcher in matchers for parameter in matcher.parameters()]
        held = {id(parameter) for parameter in predictors}
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return [
            ParameterGroup([parameter for parameter in trainable if id(parameter) not in held]),
            ParameterGroup(predictors, constant_lr=self.fix_predictor_lr),
        ]
