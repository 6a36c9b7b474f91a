"""Optimisers by name, with the parameter groups of a method and the weight-decay exclusions of the papers."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from scd.errors import UsageError, unknown
from scd.method import Method, ParameterGroup

OPTIMIZERS = ("sgd", "adamw", "lars")


def build_optimizer(
    trained: nn.Module | Sequence[ParameterGroup],
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
    """An optimiser over the trainable parameters of a module.

    Args:
        trained: a method, whose ``parameter_groups()`` are taken; another module, whose trainable parameters are one
            group; or the groups themselves.
        name: "sgd" (MoCo), "lars" (BYOL; You et al. 2017) or "adamw" (DINO).
        lr: base learning rate, already scaled to the batch. A group's own rate is this times its ``lr_multiplier``.
        weight_decay: L2 penalty for sgd and lars, decoupled decay for adamw; multiplied per group as well.
        momentum: sgd and lars only, in [0, 1); 0.9 when None.
        nesterov: Nesterov momentum, sgd and lars only.
        betas: adamw only; (0.9, 0.999) when None.
        trust: lars only, the trust coefficient eta; 0.001 when None (BYOL).
        exclude_bias_norm: no weight decay, and no LARS scaling, for biases and norm parameters (BYOL, LEWEL, DINO);
            these are the parameters with fewer than two dimensions. MoCo decays all parameters.

    Returns:
        The optimiser. Its groups carry ``lr_multiplier``, ``weight_decay_multiplier`` and ``constant_lr``, which
        :func:`set_learning_rate` and :func:`set_weight_decay` respect; groups of equal settings are one group.

    Raises:
        UsageError: an unknown name, a value out of range, an option that the optimiser does not have, or nothing to
            train.
        ValueError: a method whose groups do not hold each trainable parameter exactly once.

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

    groups = optimizer_groups(groups_of(trained), lr, weight_decay, exclude_bias_norm)
    if not groups:
        raise UsageError(f"{type(trained).__name__} has no parameter to train")
    form = fastest_form(groups)
    if name == "adamw":
        return AdamW(groups, lr, betas or (0.9, 0.999), weight_decay=weight_decay, **form)
    if name == "sgd":
        return SGD(groups, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, **form)
    from timm.optim import Lars  # here, because timm loads all of its models, which takes longer than PyTorch

    for group in groups:  # timm scales a group that decays; a weight decay of 0 must not turn the scaling off
        group["always_adapt"] = not group["excluded"]
    trust = 0.001 if trust is None else trust
    return Lars(groups, lr, momentum, 0, weight_decay, nesterov, trust_coeff=trust, foreach=True)


def fastest_form(groups: Sequence[dict]) -> dict[str, bool]:
    """PyTorch's fastest form of SGD and AdamW: fused on the CPU, lists of tensors on other devices."""
    on_cpu = all(parameter.device.type == "cpu" for group in groups for parameter in group["params"])
    return {"fused": True} if on_cpu else {"foreach": True}


def groups_of(trained: nn.Module | Sequence[ParameterGroup]) -> list[ParameterGroup]:
    """The parameter groups of a method, of another module, or as they are given.

    Raises:
        ValueError: a method whose groups do not hold each trainable parameter exactly once.
    """
    if not isinstance(trained, nn.Module):
        return list(trained)
    trainable = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    if not isinstance(trained, Method):
        return [ParameterGroup(trainable)]
    groups = trained.parameter_groups()
    if sorted(id(p) for group in groups for p in group.parameters) != sorted(map(id, trainable)):
        raise ValueError(f"{type(trained).__name__}.parameter_groups() must hold each trainable parameter exactly once")
    return groups


def optimizer_groups(
    groups: Sequence[ParameterGroup], lr: float, weight_decay: float, exclude_bias_norm: bool
) -> list[dict]:
    """Groups as PyTorch takes them: parameters of equal settings together, in the order of their first appearance."""
    together: dict[tuple, list[nn.Parameter]] = {}
    for group in groups:
        for parameter in group.parameters:
            excluded = exclude_bias_norm and parameter.ndim < 2
            decay = 0.0 if excluded else group.weight_decay_multiplier
            key = (group.lr_multiplier, decay, group.constant_lr, excluded)
            together.setdefault(key, []).append(parameter)
    names = ("lr_multiplier", "weight_decay_multiplier", "constant_lr", "excluded")
    return [
        {
            "params": parameters,
            "lr": lr * key[0],
            "weight_decay": weight_decay * key[1],
            **dict(zip(names, key, strict=True)),
        }
        for key, parameters in together.items()
    ]


def set_learning_rate(optimizer: Optimizer, factor: float) -> float:
    """Set every group's learning rate to base rate x ``factor`` x its multiplier; a constant one has the factor 1.

    Returns:
        The base rate x ``factor``.
    """
    base = optimizer.defaults["lr"]
    for group in optimizer.param_groups:
        group["lr"] = (base if group["constant_lr"] else base * factor) * group["lr_multiplier"]
    return base * factor


def set_weight_decay(optimizer: Optimizer, value: float) -> None:
    """Set every group's weight decay to ``value`` x its multiplier."""
    for group in optimizer.param_groups:
        group["weight_decay"] = value * group["weight_decay_multiplier"]


def clip_each(module: nn.Module, norm: float) -> None:
    """Scale the gradient of every parameter whose own 2-norm exceeds ``norm`` down to it, in place.

    NOTE: parameter by parameter, as in DINO's released code; PyTorch's ``clip_grad_norm_`` scales all by their joint
    norm.
    """
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    norms = torch._foreach_norm(gradients)
    torch._foreach_mul_(gradients, [(norm / (each + 1e-6)).clamp(max=1.0) for each in norms])


def check(option: str, value: float, valid: bool, expected: str) -> None:
    """Raise the one-line error for an option out of its range, NaN and infinity included."""
    if not (valid and math.isfinite(value)):
        raise UsageError(f"optimizer.{option} is a number {expected}, not {value}")
