"""Batch norm over groups of the batch, and over some of its rows.

Groups are the same as plain BN on several GPUs, in one process.

MoCo's key shuffling works only if a query and its key are normalised by different images. In one process this needs BN
statistics over parts of the batch (official CIFAR-10 demo: 8 parts).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.errors import UsageError
from scd.nn.processes import average, place


class _GroupedBatchNorm(nn.Module):
    """Mixin for torch's BatchNorm classes: training statistics per group of consecutive rows of the batch.

    The running statistics are shared: they move towards the mean of the groups' means and unbiased variances with
    the usual momentum. In eval mode, and with one group, it is plain BN.

    Args (after those of BatchNorm):
        groups: number of equal groups; the batch must be a multiple of it.
    """

    def __init__(self, num_features: int, groups: int = 1, **options):
        super().__init__(num_features, **options)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        if self.groups == 1 or not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        if x.shape[0] % self.groups:
            raise UsageError(
                f"a batch of {x.shape[0]} does not split into {self.groups} batch-norm groups; "
                f"choose a batch size that is a multiple of bn_groups={self.groups}, or other bn_groups"
            )
        parts = [
            F.batch_norm(part, self.running_mean, self.running_var, self.weight, self.bias, True, share, self.eps)
            for part, share in zip(x.chunk(self.groups), self._shares(), strict=True)
        ]
        return torch.cat(parts)

    def _shares(self) -> list[float]:
        """The momentum of each group, whose statistics enter the running ones one after the other.

        With m the momentum and s = m / G, the group g = 0, ..., G - 1 has the momentum s / (1 - (G - 1 - g) s). Every
        group then has the weight s in the sum, and the old statistics have 1 - m, as if the groups' mean had entered
        with m at once. This takes no operations beside those of batch norm itself.
        """
        if not self.track_running_stats:
            return [0.0] * self.groups
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        share = momentum / self.groups
        return [share / (1.0 - later * share) for later in reversed(range(self.groups))]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, groups={self.groups}"


class GroupedBatchNorm1d(_GroupedBatchNorm, nn.BatchNorm1d):
    """Grouped BN on (B, C) or (B, C, T)."""


class GroupedBatchNorm2d(_GroupedBatchNorm, nn.BatchNorm2d):
    """Grouped BN on feature maps (B, C, h, w); keeps the memory format of its input."""


GROUPED = {nn.BatchNorm1d: GroupedBatchNorm1d, nn.BatchNorm2d: GroupedBatchNorm2d}


def group_batch_norm(module: nn.Module, groups: int) -> nn.Module:
    """Replace every BatchNorm1d and BatchNorm2d of the module by its grouped form, in place; returns the module.

    Weights, buffers and settings are kept (the very same tensors). ``groups=1`` changes nothing.

    Raises:
        UsageError: fewer than one group, or a kind of batch norm whose grouped form is not known.
    """
    if groups < 1:
        raise UsageError(f"bn_groups is at least 1, not {groups}")
    if groups == 1:
        return module
    if isinstance(module, _GroupedBatchNorm):
        module.groups = groups
        return module
    if type(module) in GROUPED:
        return _grouped(module, groups)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        raise UsageError(f"bn_groups={groups} cannot split a {type(module).__name__}; use bn_groups=1 here")
    for name, child in module.named_children():
        setattr(module, name, group_batch_norm(child, groups))
    return module


def _grouped(norm: nn.Module, groups: int) -> nn.Module:
    grouped = GROUPED[type(norm)](
        norm.num_features,
        groups,
        eps=norm.eps,
        momentum=norm.momentum,
        affine=norm.affine,
        track_running_stats=norm.track_running_stats,
    )
    grouped._parameters = norm._parameters
    grouped._buffers = norm._buffers
    return grouped.train(norm.training)


def batch_norm_of(norm: nn.BatchNorm1d, x: Tensor, counted: Tensor) -> Tensor:
    """Batch norm of all rows by the statistics of some: that of the counted rows alone, whatever the others hold.

    No shape depends on how many rows count. Where none does, the running statistics stay as they are. In eval mode it
    is plain BN.

    Args:
        norm: a batch norm; its running statistics move as if it had seen the counted rows only.
        x: (n, C).
        counted: (n,) bool.
    """
    if not norm.training:
        return norm(x)
    count = counted.sum()
    share = counted.to(x.dtype)[:, None] / count.clamp_min(1)  # (n, 1), of each row in a mean
    mean = (share * x).sum(dim=0)
    variance = (share * (x - mean).square()).sum(dim=0)
    with torch.no_grad():
        moved = norm.momentum * (count > 0).to(mean.dtype)
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean, moved)
        norm.running_var.lerp_(variance * count / (count - 1).clamp_min(1), moved)
    return (x - mean) * (variance + norm.eps).rsqrt() * norm.weight + norm.bias


def has_batch_norm(module: nn.Module) -> bool:
    """Whether any part of the module is a batch norm."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def average_running_statistics(module: nn.Module) -> None:
    """Average every batch norm's running statistics over the processes, in place; nothing in a single process.

    Running statistics are linear in the batch statistics. Averaged after each step, those of n processes are therefore
    the running statistics of one process with n times as many groups.

    NOTE: plain DDP keeps those of process 0, and so do the official codes: they have seen a part of each batch only.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    average([buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None])


def batch_norm_groups(module: nn.Module) -> int | None:
    """Parts of the whole batch with BN statistics of their own, over all processes; None without batch norm."""
    groups = [
        getattr(part, "groups", 1) for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    _, world = place()
    return max(groups) * world if groups else None
