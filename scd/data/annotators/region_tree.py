"""A tree of regions for each image, without training: superpixels, merged where the contour between them is weak.

P. Arbelaez, M. Maire, C. Fowlkes, J. Malik, "Contour Detection and Hierarchical Image Segmentation", PAMI 2011, section
4.2: regions are merged in the order of the mean strength of the contour between them. The strength at which two pixels
come into one region is an ultrametric. Hierarchical Grouping (Zhang and Maire, NeurIPS 2020) learns from such trees.
"""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import numpy as np
import scipy
import skimage
import torch
from scipy.cluster.hierarchy import fcluster
from scipy.ndimage import gaussian_gradient_magnitude
from skimage.color import rgb2lab
from skimage.segmentation import felzenszwalb
from torch import Tensor

from scd.data.annotators.annotator import Annotator
from scd.data.annotators.felzenszwalb import REFERENCE
from scd.data.images import ImageSet
from scd.errors import UsageError
from scd.nn.region_tree import MODULI, MOST

STEPS = 1000  # of contour strength in a unit of CIELAB per pixel: strengths are whole numbers, and their sums exact


class RegionTree(Annotator):
    """Segments whose ids hold three cuts of a tree of regions, see :mod:`scd.nn.region_tree`.

    The leaves are superpixels (Felzenszwalb and Huttenlocher, 2004). Two neighbours are compared by the mean strength
    of the contour on their common border. The pair with the weakest contour is merged, of several the first by the
    numbers of the regions, until one region is left. A cut with at most n regions is made at the lowest height that
    leaves n or fewer: it has fewer if several pairs merge at this height, or if there are fewer leaves. An image of one
    colour has one region.

    NOTE: the published contour detector learns from contours that people drew; here a contour's strength is the
    gradient of the colour in CIELAB, and nothing is learned. The published leaves follow from the contours, by an
    oriented watershed; here they are superpixels. With leaves of a plain watershed of the same gradient, the cut of 12
    regions covers objects as well if leaves have a smallest size (share of the objects: 0.74, on 100 training images of
    ECSSD at 128 px; superpixels: 0.75, on 60 of them), and worse without one (0.43).

    Args:
        regions: n of the finest, the middle and the coarsest cut, in falling order.
        scale: of the leaves, see :class:`scd.data.annotators.felzenszwalb.Felzenszwalb`; for a canvas of 224 px.
        sigma: standard deviation in pixels of the smoothing before the leaves are sought.
        min_size: pixels of the smallest leaf, on a canvas of 224 px.
        contour_sigma: standard deviation in pixels of the Gaussian derivatives that give the contours.

    Raises:
        UsageError: not three falling numbers of regions, more regions than ids can hold, or an impossible value.
    """

    provides = "segments"

    def __init__(
        self,
        regions: Sequence[int] = (32, 12, 4),
        scale: float = 100.0,
        sigma: float = 0.8,
        min_size: float = 400.0,
        contour_sigma: float = 1.0,
    ):
        if len(regions) != len(MOST) or sorted(regions, reverse=True) != list(regions) or regions[-1] < 1:
            raise UsageError(f"region_tree: regions are {len(MOST)} falling numbers from 1, not {list(regions)}")
        if any(count > most for count, most in zip(regions, MOST, strict=True)):
            raise UsageError(f"region_tree: regions are {list(regions)}, ids hold {list(MOST)} at most")
        for name, value in (("scale", scale), ("min_size", min_size), ("contour_sigma", contour_sigma)):
            if value <= 0:
                raise UsageError(f"region_tree: {name} is {value}, it must be positive")
        if sigma < 0:
            raise UsageError(f"region_tree: sigma is {sigma}, it must be 0 or more")
        self.regions = list(regions)
        self.scale = float(scale)
        self.sigma = float(sigma)
        self.min_size = float(min_size)
        self.contour_sigma = float(contour_sigma)
        # Part of the cache's key beside the options.
        self.moduli = list(MODULI)
        self.reference = REFERENCE
        self.libraries = f"scikit-image {skimage.__version__}, scipy {scipy.__version__}"

    def __call__(self, images: Tensor, part: ImageSet) -> Tensor:
        return torch.from_numpy(np.stack([self.segments(image) for image in images.permute(0, 2, 3, 1).numpy()]))

    def segments(self, image: np.ndarray) -> np.ndarray:
        """Ids (S, S) of an image (S, S, 3) uint8."""
        area = (len(image) / self.reference) ** 2
        smallest = max(1, round(self.min_size * area))
        leaves = felzenszwalb(image, scale=self.scale * area, sigma=self.sigma, min_size=smallest)
        return tree_ids(merges(leaves, contour_strength(image, self.contour_sigma)), self.regions)[leaves]


def contour_strength(image: np.ndarray, sigma: float) -> np.ndarray:
    """Magnitude (S, S) int64 of the colour gradient of an image (S, S, 3) uint8, in CIELAB units / STEPS per pixel."""
    channels = np.moveaxis(rgb2lab(image), 2, 0)
    squares = [gaussian_gradient_magnitude(channel, sigma, mode="nearest") ** 2 for channel in channels]
    return np.rint(STEPS * np.sqrt(np.sum(squares, axis=0))).astype(np.int64)


def borders(leaves: np.ndarray, strength: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbouring leaves, and the contour on their common border.

    A border consists of the pairs of pixels that touch at a side. The strength of a pair is the larger one of the two.

    Args:
        leaves: (S, S) integers from 0.
        strength: (S, S) int64 of the contour at each pixel.

    Returns:
        Pairs (m, 2), the smaller number first; the sum of strengths (m,) int64, and the number (m,) of pairs of pixels.
    """
    pairs, values = [], []
    for one, other in (np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1]):
        apart = leaves[one] != leaves[other]
        pairs.append(np.sort(np.stack([leaves[one][apart], leaves[other][apart]], axis=1), axis=1))
        values.append(np.maximum(strength[one], strength[other])[apart])
    found, numbers, lengths = np.unique(np.concatenate(pairs), axis=0, return_inverse=True, return_counts=True)
    sums = np.zeros(len(found), np.int64)
    np.add.at(sums, numbers.ravel(), np.concatenate(values))
    return found, sums, lengths


def merges(leaves: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """The tree of n leaves: all merges in their order, with heights that never fall.

    The mean strength of a union's border lies between those of its parts, so it is not below the height of the merge.

    Args:
        leaves, strength: of :func:`borders`; every number from 0 to n - 1 occurs.

    Returns:
        (n - 1, 4): the numbers of two regions, the mean strength of the border between them, and the leaves of their
        union; the i-th union has the number n + i. That is SciPy's linkage matrix.
    """
    count = int(leaves.max()) + 1
    around: list[dict[int, tuple[int, int]]] = [{} for _ in range(count)]  # neighbour -> sum and length of the border
    heap = []
    for pair, total, length in zip(*(part.tolist() for part in borders(leaves, strength)), strict=True):
        first, second = pair
        around[first][second] = around[second][first] = total, length
        heap.append((total / length, first, second))
    heapify(heap)
    sizes, merged, rows = [1] * count, set(), []
    while heap:
        height, first, second = heappop(heap)
        if first in merged or second in merged:
            continue
        merged |= {first, second}
        union = len(around)
        own: dict[int, tuple[int, int]] = {}
        for part in (first, second):
            for other, (total, length) in around[part].items():
                if other not in (first, second):
                    del around[other][part]
                    before = own.get(other, (0, 0))
                    own[other] = before[0] + total, before[1] + length
        around.append(own)
        for other, (total, length) in own.items():
            around[other][union] = total, length
            heappush(heap, (total / length, other, union))
        sizes.append(sizes[first] + sizes[second])
        rows.append((first, second, height, sizes[union]))
    return np.array(rows, dtype=float).reshape(-1, 4)


def tree_ids(tree: np.ndarray, regions: Sequence[int]) -> np.ndarray:
    """Ids (n,) of the leaves of a tree (n - 1, 4), cut at no more than these numbers of regions, the finest cut first.

    The regions of the coarsest cut are numbered from 0; those of a finer cut from 0 in each region of the coarser one.
    """
    ids = np.zeros(len(tree) + 1, np.int64)
    if not len(tree):
        return ids
    for count, step in zip(reversed(regions), (1, *reversed(MODULI[1:])), strict=True):
        height = (
            tree[len(ids) - count - 1, 2] if len(ids) > count else 0.0
        )  # of the merge that leaves ``count`` regions
        labels = fcluster(tree, height, criterion="distance")
        found, where = np.unique(np.stack([ids, labels], axis=1), axis=0, return_inverse=True)  # parents are in order
        number = np.arange(len(found)) - np.searchsorted(found[:, 0], found[:, 0])  # within each parent
        ids += step * number[where.ravel()]
    return ids
