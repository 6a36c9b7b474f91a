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

from scd.data.views import Recipe
from scd.method import Batch, Method, View

BOXES = 4  # of each image of a batch without values, for methods that need boxes


@dataclass(frozen=True)
class StepFlops:
    """Operations of one training step on ``batch_size`` images; 2 per multiply-add.

    Args:
        forward: of the forward passes of all branches and the loss.
        backward: of the gradients of the loss with respect to everything that is trained.
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


def training_flops(method: Method, recipe: Recipe, batch_size: int) -> StepFlops:
    """Operations of one step of ``method`` on the views of ``recipe``; the target branch's forward passes count.

    The method itself and torch's global random state stay as they are: a copy is moved to the device "meta". The copy
    takes the whole step, queues and momentum included, so that settings that make a step impossible are found here.

    Args:
        method: on any device.
        recipe: the views of each image.
        batch_size: source images per step.

    Raises:
        UsageError: a step that the method refuses, for example because the batch does not fit its queue.
    """
    fake = copy.deepcopy(method).to("meta").train()
    batch = meta_batch(recipe, batch_size, fake.needs)
    with torch.random.fork_rng(devices=[]):
        with counter() as forward:
            loss = fake(batch)["loss"]
        with counter() as backward:
            loss.backward()
        fake.after_backward()
        with torch.no_grad():
            fake.after_step(1.0)
    return StepFlops(forward.get_total_flops(), backward.get_total_flops(), batch_size)


def forward_flops(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Operations of one forward pass in eval mode on a float32 input of ``input_shape``, the batch included."""
    fake = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad(), counter() as forward:
        fake(torch.empty(input_shape, device="meta"))
    return forward.get_total_flops()


def meta_batch(recipe: Recipe, batch_size: int, needs: frozenset[str] = frozenset()) -> Batch:
    """The batch of a recipe with shapes and no values, on the device "meta".

    Args:
        needs: what it carries beside pixels; boxes are ``BOXES`` an image.
    """

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    views = {}
    for crop in recipe.crops:
        square = (batch_size, crop.size, crop.size)
        views[crop.name] = View(
            name=crop.name,
            role=crop.role,
            images=empty(batch_size, 3, crop.size, crop.size),
            rectangles=empty(batch_size, 4),
            flips=empty(batch_size, dtype=torch.bool),
            masks=empty(*square) if "masks" in needs else None,
            segments=empty(*square, dtype=torch.int64) if "segments" in needs else None,
            boxes=[empty(BOXES, 4) for _ in range(batch_size)] if "boxes" in needs else None,
        )
    labels = empty(batch_size, dtype=torch.int64) if "labels" in needs else None
    return Batch(views, empty(batch_size, dtype=torch.int64), labels)


def counter() -> FlopCounterMode:
    """Torch's counter with this module's formula for the backward pass of a convolution, without its module tracker.

    NOTE: torch 2.15's own formula leaves the number of groups out of the weight's gradient, which makes the backward
    pass of a depthwise convolution with C channels (C + 1)/2 times too expensive.
    NOTE: torch's tracker of modules fails where a module gets an input with gradient inside ``torch.no_grad`` (SCD on
    SimSiam); the totals do not need it.
    """
    mode = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: convolution_backward})
    mode.mod_tracker = NoModules()
    return mode


class NoModules:
    """The module tracker of a counter that counts the total alone."""

    parents = frozenset({"Global"})

    def __enter__(self) -> "NoModules":
        return self

    def __exit__(self, *error: object) -> None:
        pass


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
