"""Optimisers by name, with the weight-decay exclusions that the papers differ in."""

import math

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from scd.errors import UsageError, unknown

OPTIMIZERS = ("sgd", "adamw", "lars")


def build_optimizer(
    module: nn.Module,
    name: str = "sgd",
    *,
    lr: float,
    weight_decay: float,
    momentum: float | None = None,
    nesterov: bool = False,
    betas: tuple[float, float] | None = None,
    trust: float | None = None,
    exclude_bias_norm: bool = False,
) -> Optimizer:
    """An optimiser over the parameters of a module that ask for a gradient.

    Args:
        module: the method; parameters with ``requires_grad=False`` (the target branch) are left out.
        name: "sgd" (MoCo), "lars" (BYOL; You et al. 2017) or "adamw" (DINO).
        lr: base learning rate, already scaled to the batch; schedules multiply it.
        weight_decay: L2 penalty for sgd and lars, decoupled decay for adamw.
        momentum: sgd and lars only, in [0, 1); 0.9 when None.
        nesterov: Nesterov momentum, sgd and lars only.
        betas: adamw only; (0.9, 0.999) when None.
        trust: lars only, the trust coefficient eta; 0.001 when None (BYOL).
        exclude_bias_norm: no weight decay, and no LARS scaling, for biases and norm parameters (BYOL, LEWEL, DINO);
            these are the parameters with fewer than two dimensions. MoCo decays all parameters.

    Raises:
        UsageError: an unknown name, a value out of range, an option that the optimiser does not have, or a module
            without trainable parameters.

    NOTE: LARS is timm's. Its trust ratio is eta |w| / (|g| + wd |w|); BYOL's is eta |w| / |g + wd w|, which is smaller
    or larger with the angle between gradient and weights. BYOL's weight decay is 1.5e-6 or less.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    foreign = {"adamw": {"momentum": momentum, "nesterov": nesterov or None, "trust": trust}}
    foreign |= {"sgd": {"betas": betas, "trust": trust}, "lars": {"betas": betas}}
    for option, value in foreign[name].items():
        if value is not None:
            raise UsageError(f"{name} has no {option}: set optimizer.{option}=null")
    momentum = 0.9 if momentum is None else momentum
    check("lr", lr, lr > 0, "above 0")
    check("weight_decay", weight_decay, weight_decay >= 0, "0 or more")
    check("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")

    matrices, vectors = split_parameters(module, exclude_bias_norm)
    groups = [{"params": matrices}] if matrices else []
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    if not groups:
        raise UsageError(f"{type(module).__name__} has no parameter to train")
    if name == "adamw":
        return AdamW(groups, lr, betas or (0.9, 0.999), weight_decay=weight_decay, foreach=True)
    if name == "sgd":
        return SGD(groups, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, foreach=True)
    from timm.optim import Lars  # here, because timm loads all of its models, which takes longer than PyTorch

    for group in groups:  # timm scales a group that decays; a weight decay of 0 must not turn the scaling off
        group["always_adapt"] = group.get("weight_decay") is None
    trust = 0.001 if trust is None else trust
    return Lars(groups, lr, momentum, 0, weight_decay, nesterov, trust_coeff=trust, foreach=True)


def split_parameters(module: nn.Module, exclude_bias_norm: bool) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters that decay, and those that do not (biases and norms, when excluded), each once."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not exclude_bias_norm:
        return trainable, []
    return [p for p in trainable if p.ndim >= 2], [p for p in trainable if p.ndim < 2]


def clip_each(module: nn.Module, norm: float) -> None:
    """Scale the gradient of every parameter whose own 2-norm exceeds ``norm`` down to it, in place.

    NOTE: parameter by parameter, as DINO's released code; PyTorch's ``clip_grad_norm_`` scales all by their joint norm.
    """
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    norms = torch._foreach_norm(gradients)
    torch._foreach_mul_(gradients, [(norm / (each + 1e-6)).clamp(max=1.0) for each in norms])


def check(option: str, value: float, valid: bool, expected: str) -> None:
    """Raises the one-line error for an option out of its range, NaN and infinity included."""
    if not (valid and math.isfinite(value)):
        raise UsageError(f"optimizer.{option} is a number {expected}, not {value}")
