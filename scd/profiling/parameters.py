"""How many parameters a method trains, keeps as moving averages, and hands over after training."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of scalar parameters, each parameter once even where modules share it.

    Args:
        trained: those that receive gradients (online backbone, heads, predictors).
        momentum: those that do not (the moving averages).
        inference: the backbone alone, which is what is evaluated and exported.
        buffers: floating-point state that is not a parameter (queues, running statistics, centres).
    """

    trained: int
    momentum: int
    inference: int
    buffers: int


def count_parameters(method: nn.Module) -> ParameterCount:
    """Count the parameters of a method that has a ``.backbone``."""
    return ParameterCount(
        trained=sum(p.numel() for p in method.parameters() if p.requires_grad),
        momentum=sum(p.numel() for p in method.parameters() if not p.requires_grad),
        inference=sum(p.numel() for p in method.backbone.parameters()),
        buffers=sum(b.numel() for b in method.buffers() if b.is_floating_point()),
    )
