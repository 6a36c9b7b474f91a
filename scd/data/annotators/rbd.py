"""Saliency without training: Robust Background Detection.

W. Zhu, S. Liang, Y. Wei, J. Sun, "Saliency Optimization from Robust Background Detection", CVPR 2014. A region that
touches the border of the image along much of its perimeter is background. What differs in colour from the background
is the object. DiLo (Zhao et al., AAAI 2021) takes its foregrounds from these maps, among others.
"""

from dataclasses import dataclass

import numpy as np
import skimage
import torch
from scipy.linalg import solve
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist
from skimage.color import rgb2lab
from skimage.filters import threshold_otsu
from skimage.segmentation import slic
from torch import Tensor

from scd.data.annotators.annotator import Annotator
from scd.data.images import ImageSet
from scd.errors import UsageError

SMALLEST = 4  # pixels of a superpixel, on average
ROUNDING = 1e-6  # a range of values below this is an error of floating point


class RBD(Annotator):
    """Masks of the salient object, and the soft saliency maps that they are cut from.

    The saliency of superpixels is found in four steps: geodesic distances between them, boundary connectivity and the
    background probability that follows from it, background weighted contrast, and least squares over both and a
    smoothness term (equation 9). The map is stretched to [0, 1], and the mask is where it is above Otsu's threshold.
    A map that is the same everywhere, as of an image of one colour, becomes 0 and its mask is empty; such a mask is
    kept, and :func:`is_empty_or_full` finds it. No mask is full.

    The choices below were made on the 800 training images of ECSSD at 128 px, by maxF and IoU as in
    :mod:`scd.evaluation.saliency`. Masks above Otsu's threshold, twice the mean and 0.5 have an IoU of 0.53, 0.44 and
    0.52; the paper thresholds nothing.

    NOTE: where the paper is silent, or the code that its authors released differs from it:

    * The square canvas is annotated and not the whole image. The released code first removes plain frames around the
      image; here they stay.
    * The released code has a superpixel for 600 pixels: 200 of an image of 400 x 300. Here ``superpixels`` is the same
      for all canvases, but a superpixel has 4 pixels or more: a canvas of 24 px has 144 at most. SLIC rounds this
      number to a regular grid and then joins small regions: there are about 180 at 128 px, 250 at 48 px and 140 at
      24 px.
    * ``sigma_colour`` is the paper's. The released code estimates it per image from the least colour distances of
      neighbours, lowers the lengths of edges by such an estimate, counts neighbours of neighbours as neighbours, weighs
      the background term by 5 and fixes superpixels of high boundary connectivity to the background. All of this
      together gives maxF 0.656 and IoU 0.467 instead of 0.665 and 0.530.
    * As in the released code, the contrast is stretched to [0, 1] before it is the weight of the foreground in
      equation 9, and contrasts below Otsu's threshold count as 0. Without the latter (``otsu=False``), maxF and IoU
      change by less than 0.01, and the mean absolute error is 0.30 instead of 0.25.

    Args:
        superpixels: how many, about.
        compactness: of SLIC; larger values give squarer superpixels.
        sigma_colour: in CIELAB units, of geodesic distances and of the smoothness term. Paper: 10.
        sigma_boundary: of the boundary connectivity. Paper: 1.
        sigma_space: in sides of the canvas, of the contrast. Paper: 0.25.
        mu: the smoothness between neighbours of any colours. Paper: 0.1.
        otsu: whether contrasts below Otsu's threshold count as 0.

    Raises:
        UsageError: a value that is not positive.
    """

    provides = "masks"

    def __init__(
        self,
        superpixels: int = 200,
        compactness: float = 20.0,
        sigma_colour: float = 10.0,
        sigma_boundary: float = 1.0,
        sigma_space: float = 0.25,
        mu: float = 0.1,
        otsu: bool = True,
    ):
        for name, value in (
            ("superpixels", superpixels),
            ("compactness", compactness),
            ("sigma_colour", sigma_colour),
            ("sigma_boundary", sigma_boundary),
            ("sigma_space", sigma_space),
            ("mu", mu),
        ):
            if not value > 0:
                raise UsageError(f"rbd: {name} is {value}, it must be positive")
        self.superpixels = int(superpixels)
        self.compactness = float(compactness)
        self.sigma_colour = float(sigma_colour)
        self.sigma_boundary = float(sigma_boundary)
        self.sigma_space = float(sigma_space)
        self.mu = float(mu)
        self.otsu = bool(otsu)
        self.library = f"scikit-image {skimage.__version__}"  # part of the cache's key

    def __call__(self, images: Tensor, part: ImageSet) -> Tensor:
        masks = [one > threshold_otsu(one) for one in self.maps(images).numpy()]
        return torch.from_numpy(np.stack(masks).astype(np.uint8))

    def maps(self, images: Tensor) -> Tensor:
        """Soft saliency (B, S, S) float32 of images (B, 3, S, S) uint8; of each image from 0 to 1, or 0 everywhere."""
        return torch.from_numpy(np.stack([self._map(image) for image in images.permute(0, 2, 3, 1).cpu().numpy()]))

    def _map(self, image: np.ndarray) -> np.ndarray:
        """Saliency (S, S) of one image (S, S, 3) uint8."""
        found = find_superpixels(image, self.superpixels, self.compactness)
        colour, space = cdist(found.colours, found.colours), cdist(found.centres, found.centres)  # (N, N)
        geodesic = geodesic_distances(colour, found.adjacent, found.boundary)
        connectivity = boundary_connectivity(geodesic, found.boundary, self.sigma_colour)
        background = background_probability(connectivity, self.sigma_boundary)
        foreground = stretched(weighted_contrast(colour, space, background, self.sigma_space))
        if self.otsu:
            foreground = np.where(foreground > threshold_otsu(foreground), foreground, 0.0)
        smoothness = np.where(found.adjacent, similarity(colour, self.sigma_colour) + self.mu, 0.0)
        saliency = stretched(optimised_saliency(background, foreground, smoothness))
        return saliency.astype(np.float32)[found.labels]


@dataclass
class Superpixels:
    """The N superpixels of an image.

    Args:
        labels: (S, S) integers, the superpixel of each pixel.
        colours: (N, 3) mean CIELAB colours.
        centres: (N, 2) mean positions y, x, in sides of the image.
        adjacent: (N, N) bool, whether two superpixels share a side of a pixel.
        boundary: (N,) bool, whether a superpixel touches the border of the image.
    """

    labels: np.ndarray
    colours: np.ndarray
    centres: np.ndarray
    adjacent: np.ndarray
    boundary: np.ndarray


def find_superpixels(image: np.ndarray, count: int, compactness: float) -> Superpixels:
    """About ``count`` superpixels (SLIC) of an image (S, S, 3) uint8, of 4 pixels or more on average."""
    size = len(image)
    count = max(1, min(count, size * size // SMALLEST))
    return describe_superpixels(image, slic(image, n_segments=count, compactness=compactness, start_label=0))


def describe_superpixels(image: np.ndarray, labels: np.ndarray) -> Superpixels:
    """The superpixels that ``labels`` (S, S), 0 to N - 1, divide an image (S, S, 3) uint8 into."""
    size = len(labels)
    areas = np.bincount(labels.ravel())  # (N,)
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    means = [
        np.bincount(labels.ravel(), values.ravel()) / areas for values in (*np.moveaxis(rgb2lab(image), 2, 0), y, x)
    ]
    adjacent = np.zeros((len(areas), len(areas)), dtype=bool)
    for first, second in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        adjacent[first, second] = adjacent[second, first] = True
    np.fill_diagonal(adjacent, False)
    boundary = np.zeros(len(areas), dtype=bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        boundary[side] = True
    return Superpixels(labels, np.stack(means[:3], axis=1), np.stack(means[3:], axis=1), adjacent, boundary)


def geodesic_distances(colour: np.ndarray, adjacent: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    """Least sums of colour distances (N, N) over paths from one superpixel to another.

    A path goes from neighbour to neighbour, or from any superpixel at the border to any other at the border: a
    background in several parts is one region then.

    Args:
        colour: (N, N) colour distances.
        adjacent: (N, N) bool.
        boundary: (N,) bool.
    """
    edges = np.nonzero(adjacent | (boundary[:, None] & boundary))
    graph = csr_array((colour[edges], edges), shape=colour.shape)  # an edge of length 0 is an edge
    return shortest_path(graph, method="FW", directed=False)


def similarity(distances: np.ndarray, sigma: float) -> np.ndarray:
    """exp(-d^2 / (2 sigma^2)) of each distance, in [0, 1]."""
    return np.exp(-np.square(distances) / (2 * sigma**2))


def boundary_connectivity(geodesic: np.ndarray, boundary: np.ndarray, sigma: float) -> np.ndarray:
    """Length at the border of the region of each superpixel, over the square root of its area (N,).

    Args:
        geodesic: (N, N) geodesic distances.
        boundary: (N,) bool.
        sigma: superpixels at this distance or less belong to a region, softly.
    """
    belongs = similarity(geodesic, sigma)
    return belongs[:, boundary].sum(axis=1) / np.sqrt(belongs.sum(axis=1))


def background_probability(connectivity: np.ndarray, sigma: float) -> np.ndarray:
    """w^bg = 1 - exp(-BndCon^2 / (2 sigma^2)) (N,), in [0, 1]."""
    return 1 - similarity(connectivity, sigma)


def weighted_contrast(colour: np.ndarray, space: np.ndarray, background: np.ndarray, sigma: float) -> np.ndarray:
    """w^ctr_i = sum over j of d_app(i, j) exp(-d_spa(i, j)^2 / (2 sigma^2)) w^bg_j (N,).

    Args:
        colour: (N, N) colour distances.
        space: (N, N) distances of centres, in sides of the image.
        background: (N,) background probabilities.
    """
    return (colour * similarity(space, sigma)) @ background


def optimised_saliency(background: np.ndarray, foreground: np.ndarray, smoothness: np.ndarray) -> np.ndarray:
    """The saliency s (N,) in [0, 1] with the least cost (equation 9):

        sum_i w^bg_i s_i^2 + sum_i w^fg_i (s_i - 1)^2 + sum_{i<j} w_ij (s_i - s_j)^2

    Its gradient is 0 where (D - W + diag(w^bg + w^fg)) s = w^fg, D the diagonal matrix of the row sums of W.

    Args:
        background, foreground: (N,) weights.
        smoothness: (N, N) weights w_ij, symmetric, 0 between superpixels that are no neighbours.
    """
    system = np.diag(smoothness.sum(axis=1) + background + foreground) - smoothness
    return solve(system, foreground, assume_a="pos")


def stretched(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1; 0 where they are all the same."""
    low, high = values.min(), values.max()
    return np.zeros_like(values) if high - low < ROUNDING else (values - low) / (high - low)


def is_empty_or_full(masks: Tensor) -> Tensor:
    """Which masks (B, S, S) of 0 and 1 show nothing or leave nothing out: (B,) bool, whose sum is their number."""
    flat = masks.flatten(1)
    return flat.amin(dim=1) == flat.amax(dim=1)
