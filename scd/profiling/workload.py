"""What is measured: a method with all that a step of its training takes, on example images."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scd.data.annotators.annotator import Annotations
from scd.data.images import ImageSet
from scd.data.loader import MemoryBatches
from scd.data.views import Recipe
from scd.method import Method

EXAMPLES = 512  # images in memory, or two batches if that is more


@dataclass
class Workload:
    """A method and how it is trained.

    Args:
        method: on any device.
        recipe: the views of each image.
        batch_size: source images per step.
        canvas: side in pixels of the images that the views are cut from.
        optimizer: options of :func:`scd.training.optimizers.build_optimizer`, and ``clip``.
        device: where the training runs.
    """

    method: Method
    recipe: Recipe
    batch_size: int
    canvas: int
    optimizer: dict[str, Any]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def batches(self) -> MemoryBatches:
        """Batches of example images with all that the method needs; their content does not change the cost."""
        count, needs = max(EXAMPLES, 2 * self.batch_size), self.method.needs
        images = ImageSet(example_images(self.canvas, count), torch.arange(count) % 2).to(self.device)
        annotations = {kind: example_annotations(kind, self.canvas, count) for kind in needs - {"labels"}}
        return MemoryBatches(images, self.batch_size, 0, needs, annotations)


Build = Callable[[], Workload]  # builds the workload of an arm anew


def example_images(size: int, count: int) -> Tensor:
    """(count, 3, size, size) uint8 smooth random images."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (smooth * 255).to(torch.uint8)


def example_annotations(kind: str, size: int, count: int) -> Annotations:
    """The same annotations for every image: a square object in the middle, and the four quarters as segments and boxes.

    Args:
        kind: "masks", "segments" or "boxes".
    """
    half = size // 2
    if kind == "boxes":
        corners = [(x, y, x + 0.5, y + 0.5) for y in (0.0, 0.5) for x in (0.0, 0.5)]
        return Annotations(np.tile(np.array(corners, np.float32), (count, 1)), np.arange(1, count + 1) * len(corners))
    plane = np.zeros((size, size), np.uint8 if kind == "masks" else np.int64)
    if kind == "masks":
        plane[size // 4 : size // 4 + half, size // 4 : size // 4 + half] = 1
    else:
        plane[half:] += 2
        plane[:, half:] += 1
    return Annotations(np.repeat(plane[None], count, axis=0))
