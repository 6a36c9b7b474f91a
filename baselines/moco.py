"""MoCo v2: contrast with a queue of past keys (He et al., CVPR 2020; Chen et al., arXiv 2003.04297).

Query q = n(g(GAP f(v1))), key k = n(g'(GAP f'(v2))) without gradient, L = InfoNCE(q, k, queue, tau). Negatives come
from the queue alone; a step's keys enter it after the optimiser step, so no query meets its own key as a negative.

Official settings. ImageNet: ResNet-50, dim 128, MLP head 2048-2048-128 without BN, queue 65536, m 0.999, tau 0.2, SGD
lr 0.03 at batch 256, weight decay 1e-4 on all parameters, 8 GPUs with 32 images each. CIFAR-10 demo: ResNet-18 with the
small stem, one linear head (``hidden=0``), queue 4096, m 0.99, tau 0.1, batch 512, ``bn_groups=8``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.errors import UsageError
from scd.nn.heads import MLP
from scd.nn.losses import info_nce
from scd.nn.norm import group_batch_norm, has_batch_norm
from scd.nn.processes import gather, place
from scd.nn.queue import Queue
from scd.siamese import Features, Matcher, MomentumSiamese

QUEUE_SIZE = 65536
QUEUE_SIZE_SMALL = 4096


class QueueContrast(Matcher):
    """InfoNCE of a query with its key against a queue of earlier keys.

    Args:
        dim: D of the embeddings.
        queue_size: K, a multiple of the keys that arrive at once (the batch over all processes).
        temperature: tau.

    Raises:
        UsageError: a queue without keys, or a temperature that is not above 0.
    """

    def __init__(self, dim: int, queue_size: int, temperature: float):
        super().__init__()
        if not temperature > 0:
            raise UsageError(f"temperature is above 0, not {temperature}")
        self.queue = Queue(dim, queue_size)
        self.temperature = temperature
        self.waiting: list[Tensor] = []

    def forward(self, online: Tensor, target: Tensor) -> Tensor:
        """Mean InfoNCE of embeddings (B, D) of any length."""
        q, k = F.normalize(online, dim=1), F.normalize(target, dim=1)
        return info_nce(q, k, self.queue.keys, self.temperature)

    def remember(self, targets: list[Tensor]) -> None:
        """Keep this step's keys until the step is over; the symmetric form has two sets of them."""
        self.waiting = [F.normalize(target.detach(), dim=1) for target in targets]

    def after_step(self, progress: float) -> None:
        """Enqueue the keys of the step."""
        for keys in self.waiting:
            self.queue.enqueue(keys)
        self.waiting = []


class MoCo(MomentumSiamese):
    """MoCo v2 with an asymmetric (v1 query, v2 key) or symmetric loss.

    Args:
        backbone: feature maps; its BN is split in place when ``bn_groups`` > 1.
        dim: D of the embeddings.
        hidden: width of the head's hidden layer; C when None (official), 0 for a single linear layer.
        queue_size: K; 65536 (``QUEUE_SIZE``, official) or 4096 (``QUEUE_SIZE_SMALL``, official CIFAR-10 demo).
        momentum: m of the key branch, constant.
        temperature: tau; 0.2 in v2, 0.1 in the CIFAR-10 demo.
        symmetric: both views are query and key; NOTE: the official demo adds the two directions, this is their mean.
        bn_groups: parts of a process's batch with BN statistics of their own. Keys are shuffled over the parts of all
            processes: n processes with one part each equal one process with n parts.

    NOTE: in one process with ``bn_groups=1`` BN is over the whole batch and keys are not shuffled. The batch statistics
    then reveal the positive, which ShuffleBN is meant to prevent.
    NOTE: EMA after the optimiser step, see :class:`scd.siamese.MomentumSiamese`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int = 128,
        hidden: int | None = None,
        queue_size: int = QUEUE_SIZE,
        momentum: float = 0.999,
        temperature: float = 0.2,
        symmetric: bool = False,
        bn_groups: int = 1,
    ):
        width = backbone.dim if hidden is None else hidden
        dims = (backbone.dim, width, dim) if width else (backbone.dim, dim)
        super().__init__(
            backbone=group_batch_norm(backbone, bn_groups),
            projector=MLP(dims),
            matcher=QueueContrast(dim, queue_size, temperature),
            momentum=momentum,
            symmetric=symmetric,
        )
        self.bn_groups = bn_groups
        self.shuffles = has_batch_norm(backbone)  # a ViT has none: its keys need no other partners

    def new_matcher(self) -> Matcher:
        """Another InfoNCE of the same settings with a queue of its own, for wrappers that compare further vectors."""
        return QueueContrast(self.projector.dim, self.matcher.queue.size, self.matcher.temperature)

    def encode_target(self, images: Tensor) -> Features:
        """Key features; images are shuffled, so that a key and its query are normalised in different BN groups."""
        rank, world = place()
        if not (self.shuffles and self.training and self.bn_groups * world > 1):
            return super().encode_target(images)
        count = images.shape[0]
        own = slice(rank * count, (rank + 1) * count)  # this process's rows of the whole batch
        order = torch.randperm(count * world, device="cpu").to(images.device)  # the same on every device and process
        shuffled = super().encode_target(gather(images)[order[own]])
        back = order.argsort()[own]
        return Features(gather(shuffled.maps)[back], gather(shuffled.pooled)[back])
