"""One optimiser step. Pretraining, fine-tuning, detection and the step-time profile all take this step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from scd.method import Method
from scd.training.optimizers import clip_each
from scd.training.phase_timer import PhaseTimer


def take_step(
    model: Callable[[Any], dict[str, Tensor]],
    module: nn.Module,
    batch: Any,
    optimizer: Optimizer,
    progress: float,
    *,
    backward: Callable[[Tensor], None] = Tensor.backward,
    clip: float | None = None,
    timer: PhaseTimer | None = None,
) -> dict[str, Tensor]:
    """Forward pass, backward pass, optimiser step and the method's own updates, in this order.

    Args:
        model: called with ``batch``; returns ``{"loss": scalar, ...}``. It is the module itself, a wrapper of it (DDP,
            mixed precision), or a function that computes a loss with it.
        module: the module that is trained. The hooks ``after_backward`` and ``after_step`` are called if it is a
            :class:`scd.method.Method`.
        batch: what ``model`` takes.
        optimizer: holds the module's parameters; its learning rates are already set for this step.
        progress: share in (0, 1] of the training that is done after this step.
        backward: computes the gradients of the loss, for example ``fabric.backward``.
        clip: the norm that each parameter's gradient is clipped to, or None (see
            :func:`scd.training.optimizers.clip_each`).
        timer: receives the phases "forward", "backward", "optimizer" and "after_step".

    Returns:
        What the model returned.
    """
    lap = ignore if timer is None else timer.lap
    hooks = module if isinstance(module, Method) else None
    outputs = model(batch)
    lap("forward")
    backward(outputs["loss"])
    lap("backward")
    if hooks is not None:
        hooks.after_backward()
    if clip is not None:
        clip_each(module, clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    lap("optimizer")
    if hooks is not None:
        with torch.no_grad():
            hooks.after_step(progress)
    lap("after_step")
    return outputs


def ignore(phase: str) -> None:
    """The timer's lap where nothing is timed."""
