"""The momentum branch: a frozen copy of a module, moved towards the online one after every step."""

import copy
import math

import torch
from torch import nn


def copy_without_grad(module: nn.Module) -> nn.Module:
    """A deep copy with the same weights and buffers that no optimiser and no gradient touches."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema_update(target: nn.Module, online: nn.Module, m: float) -> None:
    """theta' <- m theta' + (1 - m) theta for every parameter, in place.

    Parameters only: running statistics of BN are the target's own, from its own forward passes (MoCo, BYOL).

    Args:
        target: the momentum copy, as made by :func:`copy_without_grad`.
        online: the module that the optimiser trains, of the same structure.
        m: share of the target that stays, in [0, 1].

    Raises:
        ValueError: the two modules do not have the same number of parameters.
    """
    theta_target, theta = list(target.parameters()), list(online.parameters())
    if len(theta_target) != len(theta):
        raise ValueError(f"the target has {len(theta_target)} parameters, the online module {len(theta)}")
    if theta:
        torch._foreach_lerp_(theta_target, theta, 1.0 - m)


def cosine_momentum(base: float, progress: float) -> float:
    """m from ``base`` at progress 0 to exactly 1 at progress 1, on half a cosine (BYOL, section 3.2, tau).

    Args:
        base: m at the start of training.
        progress: share of the training steps that are done, in [0, 1].
    """
    return 1.0 - (1.0 - base) * (math.cos(math.pi * progress) + 1.0) / 2.0
