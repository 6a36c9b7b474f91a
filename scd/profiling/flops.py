"""Floating-point operations of a training step or a forward pass, counted from shapes on the device "meta".

A multiply-add counts as 2 operations everywhere: ResNet-50 at 224 px is 8.2 GFLOP here and "4.1 G" in tables of MACs.
Nothing is computed and nothing is allocated, so a full-size model takes a second on any machine.

NOTE: only products of matrices, convolutions and attention are counted. Normalisation, activations, pooling,
resizing, the optimiser, the moving average and the augmentation count 0.
NOTE: attention counts as its two products, forward 4·T²·D for T tokens of width D and backward twice that. A fused
kernel that recomputes the weights in its backward pass does more than is counted.
"""

import copy
from dataclasses import dataclass
from math import prod

import torch
from torch import Size, nn
from torch.utils.flop_counter import FlopCounterMode

from scd.data.views import Recipe, View


@dataclass(frozen=True)
class StepFlops:
    """Operations of one training step on ``batch_size`` images; 2 per multiply-add.

    Args:
        forward: all online and target forward passes and the loss.
        backward: gradients of the loss with respect to everything that is trained.
        batch_size: source images in the step, whatever the number of views.
    """

    forward: int
    backward: int
    batch_size: int

    @property
    def total(self) -> int:
        """Forward plus backward."""
        return self.forward + self.backward

    @property
    def per_image(self) -> float:
        """Operations for one source image with all its views, forward plus backward."""
        return self.total / self.batch_size


def training_flops(method: nn.Module, recipe: Recipe, batch_size: int) -> StepFlops:
    """Operations of one step of ``method`` on the views of ``recipe``; the target branch's forward passes count.

    The method itself stays as it is, and so does torch's global random state: a copy is moved to the device "meta".

    Args:
        method: a method with ``forward(views) -> {"loss": ...}``, on any device.
        recipe: which crops each image yields.
        batch_size: source images per step.
    """
    fake = copy.deepcopy(method).to("meta").train()
    views = meta_views(recipe, batch_size, masks=getattr(method, "needs", "none") == "masks")
    with torch.random.fork_rng(devices=[]):
        with counter() as forward:
            loss = fake(views)["loss"]
        with counter() as backward:
            loss.backward()
    return StepFlops(forward.get_total_flops(), backward.get_total_flops(), batch_size)


def forward_flops(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Operations of one forward pass in eval mode on a float32 input of ``input_shape``, the batch included."""
    fake = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad(), counter() as forward:
        fake(torch.empty(input_shape, device="meta"))
    return forward.get_total_flops()


def meta_views(recipe: Recipe, batch_size: int, masks: bool = False) -> dict[str, View]:
    """The views that a recipe yields, by name, with shapes and no values."""
    views = {}
    for crop in recipe.crops:
        side = crop.size
        views[crop.name] = View(
            name=crop.name,
            role=crop.role,
            images=torch.empty(batch_size, 3, side, side, device="meta"),
            boxes=torch.empty(batch_size, 4, device="meta"),
            flips=torch.empty(batch_size, dtype=torch.bool, device="meta"),
            masks=torch.empty(batch_size, side, side, device="meta") if masks else None,
        )
    return views


def counter() -> FlopCounterMode:
    """Torch's counter with this module's formula for the backward pass of a convolution.

    NOTE: torch 2.15's own formula leaves the number of groups out of the weight's gradient, which makes the backward
    pass of a depthwise convolution with C channels (C + 1)/2 times too expensive.
    """
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: convolution_backward})


def convolution_backward(
    grad_shape: Size,
    input_shape: Size,
    weight_shape: Size,
    bias,
    stride,
    padding,
    dilation,
    transposed: bool,
    output_padding,
    groups: int,
    output_mask: list[bool],
    **kwargs,
) -> int:
    """Operations of a convolution's backward pass: the input's and the weight's gradient cost one forward pass each.

    The weight is (C_out, C_in / groups, k, k), or (C_in, C_out / groups, k, k) when transposed, so its size already
    holds the groups; it is applied once for each output position, or each input position when transposed.
    """
    positions = prod((input_shape if transposed else grad_shape)[2:])
    forward = 2 * input_shape[0] * positions * prod(weight_shape)
    return forward * (int(output_mask[0]) + int(output_mask[1]))
