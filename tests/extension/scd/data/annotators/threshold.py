"""Foreground by brightness: the pixels that are far from the mean brightness of their image."""

from torch import Tensor

from scd.data.annotators.annotator import Annotator
from scd.data.images import ImageSet


class Threshold(Annotator):
    """Masks where the brightness is further from the image's mean than ``deviations`` standard deviations."""

    provides = "masks"

    def __init__(self, deviations: float = 1.0):
        self.deviations = deviations

    def __call__(self, images: Tensor, part: ImageSet) -> Tensor:
        grey = images.float().mean(dim=1)
        mean, spread = grey.mean(dim=(1, 2), keepdim=True), grey.std(dim=(1, 2), keepdim=True)
        return ((grey - mean).abs() > self.deviations * spread).to(images.dtype)
