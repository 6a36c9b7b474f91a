"""Superpixels by colour alone: P. Felzenszwalb, D. Huttenlocher, "Efficient Graph-Based Image Segmentation", IJCV 2004.

DetCon (arXiv 2103.10957) pretrains with these segments.
"""

import skimage
import torch
from skimage.segmentation import felzenszwalb
from torch import Tensor

from scd.data.annotators.annotator import Annotator
from scd.data.images import ImageSet
from scd.errors import UsageError

REFERENCE = 224  # pixels; scale and min_size are those of a canvas of this side


class Felzenszwalb(Annotator):
    """Segments of similar colour, as scikit-image computes them.

    NOTE: DetCon segments each image at its own size. Here the square canvas is segmented, and ``scale`` and
    ``min_size`` grow with its area, so that a small canvas has about as many segments as a large one.

    Args:
        scale: the paper's k, on a canvas of 224 px; larger values give larger segments. DetCon: 1000.
        sigma: standard deviation in pixels of the smoothing before.
        min_size: pixels of the smallest segment, on a canvas of 224 px. DetCon: 1000.

    Raises:
        UsageError: a value that is not positive.
    """

    provides = "segments"

    def __init__(self, scale: float = 1000.0, sigma: float = 0.8, min_size: float = 1000.0):
        for name, value in (("scale", scale), ("min_size", min_size)):
            if value <= 0:
                raise UsageError(f"felzenszwalb: {name} is {value}, it must be positive")
        if sigma < 0:
            raise UsageError(f"felzenszwalb: sigma is {sigma}, it must be 0 or more")
        self.scale = float(scale)
        self.sigma = float(sigma)
        self.min_size = float(min_size)
        self.library = f"scikit-image {skimage.__version__}"  # part of the cache's key

    def __call__(self, images: Tensor, part: ImageSet) -> Tensor:
        area = (images.shape[-1] / REFERENCE) ** 2
        scale, smallest = self.scale * area, max(1, round(self.min_size * area))
        return torch.stack(
            [
                torch.from_numpy(felzenszwalb(image, scale=scale, sigma=self.sigma, min_size=smallest))
                for image in images.permute(0, 2, 3, 1).numpy()
            ]
        )
