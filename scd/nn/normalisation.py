"""Normalisation of the three colour channels, by the mean and standard deviation of ImageNet's training images."""

from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(
    images: Tensor,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Tensor:
    """(images - mean) / std of images (B, 3, s, s) in [0, 1], in place."""
    return images.sub_(images.new_tensor(mean).view(1, 3, 1, 1)).mul_(
        images.new_tensor(std).reciprocal_().view(1, 3, 1, 1)
    )
