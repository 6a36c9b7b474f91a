"""An estimate of the memory that training needs on one device, from shapes: nothing is computed or allocated.

The sum of parameters, gradients, optimiser state, what autograd keeps for the backward pass, and the images that lie on
the device. All of it is exact for the tensors that it counts.

NOTE: a lower bound. Left out are temporary tensors of single operations, the libraries' workspaces, what the allocator
keeps for itself, and the views. At the cpu tier with 128 images a step, the measured peak of a process was 35 MiB above
the estimate (MoCo 59 and 23 MiB, BYOL 72 and 38 MiB). Under mixed precision, the numbers that autograd keeps count 2
bytes each, although some of them (of normalisations and losses) stay in float32.
"""

import copy
from dataclasses import dataclass

import torch
from torch.autograd.graph import saved_tensors_hooks

from scd.data.views import Recipe
from scd.method import Method
from scd.profiling.flops import meta_batch
from scd.profiling.parts import SavedStorages

STATES = {"sgd": 1, "lars": 1, "adamw": 2}  # numbers that an optimiser keeps of each trained parameter


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one device.

    Args:
        parameters: of all branches, with buffers (queues, running statistics).
        gradients: of what is trained; over several processes twice, DDP's buckets included.
        optimizer: the optimiser's state.
        activations: what autograd keeps of a step for its backward pass.
        images: training images that lie on the device.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    images: int = 0

    @property
    def total(self) -> int:
        """Bytes of all of it."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.images


def training_memory(
    method: Method,
    recipe: Recipe,
    batch_size: int,
    optimizer: str,
    *,
    mixed: bool = False,
    processes: int = 1,
    images: int = 0,
) -> TrainingMemory:
    """The estimate for one of ``processes`` devices.

    Args:
        method: on any device; a copy of it is moved to the device "meta".
        recipe: the views of each image.
        batch_size: source images per step over all processes.
        optimizer: name of the optimiser, see :func:`scd.training.optimizers.build_optimizer`.
        mixed: numbers that autograd keeps have 2 bytes (bf16-mixed) instead of 4.
        processes: devices that share a step.
        images: bytes of the training images on the device.
    """
    state = (*method.parameters(), *method.buffers())
    trained = sum(parameter.nbytes for parameter in method.parameters() if parameter.requires_grad)
    kept = activation_bytes(method, recipe, max(1, batch_size // processes))
    return TrainingMemory(
        parameters=sum(tensor.nbytes for tensor in state),
        gradients=trained * (2 if processes > 1 else 1),
        optimizer=trained * STATES[optimizer],
        activations=kept // 2 if mixed else kept,
        images=images,
    )


def activation_bytes(method: Method, recipe: Recipe, batch_size: int) -> int:
    """Bytes that autograd keeps of a step in float32, without parameters, buffers and the batch itself."""
    fake = copy.deepcopy(method).to("meta").train()
    batch = meta_batch(recipe, batch_size, fake.needs)
    saved = SavedStorages(fake, batch)
    with torch.random.fork_rng(devices=[]), saved_tensors_hooks(saved.keep, lambda tensor: tensor):
        fake(batch)
    return saved.total
