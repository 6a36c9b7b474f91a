"""Normalisation of the three colour channels, by the mean and standard deviation of ImageNet's training images."""

import torch
from torch import Tensor, nn

from scd.errors import unknown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NORMALISATIONS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),  # as MoCo's CIFAR-10 demo has them
}


def normalise(
    images: Tensor,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Tensor:
    """(images - mean) / std of images (B, 3, s, s) in [0, 1], in place."""
    return images.sub_(images.new_tensor(mean).view(1, 3, 1, 1)).mul_(
        images.new_tensor(std).reciprocal_().view(1, 3, 1, 1)
    )


class Renormalisation(nn.Module):
    """From images that are normalised as everywhere in the suite to those of another mean and standard deviation.

    Args:
        name: of ``NORMALISATIONS``.

    Raises:
        UsageError: an unknown name.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str):
        super().__init__()
        if name not in NORMALISATIONS:
            raise unknown("normalisation", name, NORMALISATIONS)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALISATIONS[name])
        usual_mean, usual_std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALISATIONS["imagenet"])
        self.register_buffer("scale", usual_std / std, persistent=False)
        self.register_buffer("shift", (usual_mean - mean) / std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, s, s), normalised by ImageNet's mean and standard deviation before and by the chosen ones after."""
        return torch.addcmul(self.shift, images, self.scale)
