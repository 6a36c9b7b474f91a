"""Barlow Twins: bring the cross-correlation of two views' embeddings close to the identity matrix.

Zbontar et al., ICML 2021, arXiv 2103.03230. Each dimension of an embedding is standardised over the batch, n(z). With
C = n(z_1)^T n(z_2) / B, a matrix (D, D),

    L = sum_i (1 - C_ii)^2 + lambda sum_i sum_{j != i} C_ij^2.

The gradient flows through both views. There are no negatives, no predictor and no momentum branch.

Official settings. ResNet-50, projector 2048-8192-8192-8192, lambda 0.0051, LARS (trust 0.001, momentum 0.9) at batch
2048, lr 0.2 at batch 256 for weights and 0.0048 for biases and norms (1.6 and 0.0384 at 2048), which have no weight
decay and no LARS scaling, weight decay 1e-6 (paper: 1.5e-6), 10 epochs of warm-up, cosine per step to 0.001 of the
peak, 1000 epochs, BYOL's views.
"""

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from scd.method import ParameterGroup
from scd.nn.heads import MLP
from scd.nn.precision import at_least_float32, no_autocast
from scd.siamese import JointEmbedding, Matcher


class CrossCorrelation(Matcher):
    """Squared distance of the cross-correlation matrix from the identity, off-diagonal entries weighted.

    Args:
        off_diagonal: lambda.
    """

    def __init__(self, off_diagonal: float):
        super().__init__()
        self.off_diagonal = off_diagonal

    def forward(self, online: Tensor, target: Tensor) -> Tensor:
        """The loss of two sets of embeddings (B, D), a sum over D diagonal and D (D - 1) further entries."""
        correlation = cross_correlation(online, target)
        diagonal = correlation.diagonal()
        on = (diagonal - 1).square().sum()
        off = correlation.square().sum() - diagonal.square().sum()
        return on + self.off_diagonal * off


def cross_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Correlation (D, D) of each dimension of ``a`` with each of ``b``, both (B, D), over the images of all processes.

    Computed in float32 where the embeddings come in a narrower type.
    NOTE: embeddings are standardised over the images of a process, and C is the mean over processes; the official code
    synchronises the standardisation, too.
    """
    with no_autocast(a):
        a, b = (F.batch_norm(at_least_float32(z), None, None, training=True) for z in (a, b))
        correlation = a.T @ b / len(a)
    if dist.is_available() and dist.is_initialized():
        correlation = all_reduce(correlation) / dist.get_world_size()
    return correlation


class BarlowTwins(JointEmbedding):
    """Barlow Twins with a three-layer projector.

    Args:
        backbone: feature maps.
        width: of the projector's layers, D of the embeddings; 4 C when None (official: 8192 for ResNet-50).
        off_diagonal: lambda, the weight of the off-diagonal entries.
        bias_lr: learning rate of biases and norms as a factor on that of the weights; official: 0.0048 / 0.2 = 0.024,
            which belongs to LARS. 1.0 suits optimisers without a scaling by layer.

    BN and ReLU follow the projector's hidden layers. Linears have no bias.

    NOTE: the loss is a sum over the matrix, as in the official code, so its size grows with D. LARS makes the step
    independent of the loss's scale; with SGD the learning rate must be chosen for D.
    NOTE: the pair (v1, v2) is compared once, in one direction. The loss is symmetric up to the transposition of C.
    NOTE: the official code starts the last BN of each residual block at 0. Here backbones start as in the other arms.
    NOTE: BN is per process; the official one is synchronised over processes.
    """

    def __init__(
        self,
        backbone: nn.Module,
        width: int | None = None,
        off_diagonal: float = 0.0051,
        bias_lr: float = 0.024,
    ):
        width = 4 * backbone.dim if width is None else width
        projector = MLP((backbone.dim, width, width, width), norm="batch", bias=False, last_bias=False)
        super().__init__(backbone, projector, CrossCorrelation(off_diagonal), symmetric=False)
        self.bias_lr = bias_lr

    def new_matcher(self) -> Matcher:
        """Another cross-correlation loss; it has no state."""
        return CrossCorrelation(self.matcher.off_diagonal)

    def groups_of(self, module: nn.Module) -> list[ParameterGroup]:
        """Weights, and biases and norms with their own learning rate."""
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return [
            ParameterGroup([parameter for parameter in trainable if parameter.ndim > 1]),
            ParameterGroup([parameter for parameter in trainable if parameter.ndim == 1], lr_multiplier=self.bias_lr),
        ]
