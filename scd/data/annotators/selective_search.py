"""Box proposals: J. Uijlings, K. van de Sande, T. Gevers, A. Smeulders, "Selective Search for Object Recognition", IJCV
2013.

Segments of an image are merged, the two most similar neighbours first, until one region is left; every region on the
way gives a box. SoCo (arXiv 2106.02637) and ORL (arXiv 2106.11952) pretrain with such boxes.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from heapq import heapify, heappop, heappush

import numpy as np
import scipy
import skimage
import torch
from scipy.ndimage import find_objects, gaussian_filter
from skimage.color import rgb2gray, rgb2hsv, rgb2lab
from skimage.segmentation import felzenszwalb
from torch import Tensor

from scd.data.annotators.annotator import Annotator
from scd.data.annotators.felzenszwalb import REFERENCE
from scd.data.images import ImageSet
from scd.errors import UsageError, unknown
from scd.seeds import generator

COLOUR_BINS = 25
TEXTURE_BINS = 10
ORIENTATIONS = 8
MEASURES = ("colour", "texture", "size", "fill")
DIGITS = 9  # of a similarity: what is equal by the equations does not differ by rounding


class SelectiveSearch(Annotator):
    """Boxes around the regions of several hierarchies of segments (section 3).

    There is one hierarchy for every colour space, scale and similarity. The default has the colour spaces and
    similarities of the paper's "fast" setting, two of each. Its "quality" setting has the colour spaces hsv, lab, rgi,
    h and i, four scales, and the similarities "fill" and "size" beside these two.

    The boxes of all hierarchies are ordered by the product of a random number and the region's position in its
    hierarchy, 1 for the whole image (section 3.3); of equal boxes the first is kept. The random numbers follow from the
    image's content. The filters are SoCo's, and so is what happens to an image without a box that passes them: the
    limits of the share are left out, then also that of the aspect ratio. Where no box is left, in an image of one
    colour for example, the whole image is the only box. No image is without a box, and no box without area.

    NOTE: the paper has photographs of about 500 x 375 px and the scales 50 and 100; SoCo has 300. Here the lengths and
    areas in pixels are those of a canvas of 224 px, and ``scales``, ``min_size`` and ``least_side`` shrink with the
    canvas. The default's scales are larger than the paper's: of scale 50, a photograph at 48 px has 500 segments.
    NOTE: the authors' code takes the scale as the smallest segment. Here it is an option of its own.

    Args:
        colour_spaces: of the segments and of their histograms: hsv, lab, rgi (normalised red and green, intensity), h
            (the hue of hsv) and i (intensity).
        scales: k of the initial segments (Felzenszwalb and Huttenlocher, 2004), on a canvas of 224 px.
        similarities: terms of the sum by which neighbours are compared, joined by "+": colour, texture, size and fill.
        sigma: standard deviation in pixels of the smoothing before the segmentation.
        min_size: pixels of the smallest initial segment, on a canvas of 224 px.
        most_boxes: boxes of an image at most, the first ones; None keeps all.
        least_side: the shorter side of a box in pixels, on a canvas of 224 px; 0 keeps all. SoCo: 32, on its images.
        largest_aspect: the longer side over the shorter side; None keeps all. SoCo: 3.
        least_share, largest_share: square root of the box's area over the canvas's area. SoCo: 0.3 and 0.8.

    Raises:
        UsageError: an unknown name, an empty list or an impossible value.
    """

    provides = "boxes"

    def __init__(
        self,
        colour_spaces: Sequence[str] = ("hsv", "lab"),
        scales: Sequence[float] = (100.0, 200.0),
        similarities: Sequence[str] = ("colour+texture+size+fill", "texture+size+fill"),
        sigma: float = 0.8,
        min_size: float = 200.0,
        most_boxes: int | None = None,
        least_side: float = 0.0,
        largest_aspect: float | None = None,
        least_share: float = 0.0,
        largest_share: float = 1.0,
    ):
        lists = {"colour_spaces": colour_spaces, "scales": scales, "similarities": similarities}
        for name, values in lists.items():
            if isinstance(values, str) or not len(values):
                raise UsageError(f"selective_search: {name} is {values!r}, it must be a list of at least one entry")
        for name in colour_spaces:
            if name not in COLOUR_SPACES:
                raise unknown("colour space of selective_search", name, COLOUR_SPACES)
        for similarity in similarities:
            for term in similarity.split("+"):
                if term not in MEASURES:
                    raise unknown("term of a similarity of selective_search", term, MEASURES)
        for scale in scales:
            if scale <= 0:
                raise UsageError(f"selective_search: scales has {scale}, it must be positive")
        if min_size <= 0:
            raise UsageError(f"selective_search: min_size is {min_size}, it must be positive")
        for name, value in (("sigma", sigma), ("least_side", least_side)):
            if value < 0:
                raise UsageError(f"selective_search: {name} is {value}, it must be 0 or more")
        for name, value in (("most_boxes", most_boxes), ("largest_aspect", largest_aspect)):
            if value is not None and value < 1:
                raise UsageError(f"selective_search: {name} is {value}, it must be at least 1, or null for no limit")
        if not 0 <= least_share < largest_share <= 1:
            raise UsageError(
                f"selective_search: least_share is {least_share} and largest_share is {largest_share}, they must lie "
                "in [0, 1] and the first below the second"
            )
        self.colour_spaces = list(colour_spaces)
        self.scales = [float(scale) for scale in scales]
        self.similarities = list(similarities)
        self.sigma = float(sigma)
        self.min_size = float(min_size)
        self.most_boxes = most_boxes
        self.least_side = float(least_side)
        self.largest_aspect = largest_aspect
        self.least_share = float(least_share)
        self.largest_share = float(largest_share)
        # Part of the cache's key beside the options.
        self.reference = REFERENCE
        self.libraries = f"scikit-image {skimage.__version__}, scipy {scipy.__version__}"

    def __call__(self, images: Tensor, part: ImageSet) -> list[Tensor]:
        size = images.shape[-1]
        return [
            torch.from_numpy(self.filtered(self.proposals(image), size)).float() / size
            for image in images.permute(0, 2, 3, 1).numpy()
        ]

    def proposals(self, image: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) of an image (S, S, 3) uint8 in pixels, each once, ordered, before the filters."""
        area = (len(image) / self.reference) ** 2
        found = []
        for space in self.colour_spaces:
            values = COLOUR_SPACES[space](image / 255)
            features = {"colour": colour_bins(values), "texture": texture_bins(values)}
            for scale in self.scales:
                smallest = max(1, round(self.min_size * area))
                segments = felzenszwalb(values, scale=scale * area, sigma=self.sigma, min_size=smallest)
                histograms = {name: histograms_of(segments, *bins) for name, bins in features.items()}
                for similarity in self.similarities:
                    found.append(hierarchy(segments, histograms, similarity.split("+"))[::-1])
        random = generator(0, "selective search", hashlib.sha256(image.tobytes()).hexdigest())
        boxes = np.concatenate(found)
        positions = np.concatenate([np.arange(1, len(regions) + 1) for regions in found])
        values = torch.rand(len(boxes), generator=random, dtype=torch.float64).numpy() * positions
        boxes = boxes[np.argsort(values, kind="stable")]
        return boxes[np.sort(np.unique(boxes, axis=0, return_index=True)[1])]

    def filtered(self, boxes: np.ndarray, size: int) -> np.ndarray:
        """Those boxes (n, 4), in pixels of a canvas of this side, that pass the filters; one box at least."""
        sides = boxes[:, 2:] - boxes[:, :2]
        longer, shorter = sides.max(axis=1), sides.min(axis=1)
        share = np.sqrt(sides.prod(axis=1)) / size
        large = shorter >= self.least_side * size / self.reference
        shaped = large if self.largest_aspect is None else large & (longer <= self.largest_aspect * shorter)
        sized = shaped & (share >= self.least_share) & (share <= self.largest_share)
        for passed in (sized, shaped, large):
            if passed.any():
                return boxes[passed][: self.most_boxes]
        return np.array([[0, 0, size, size]])


# ---------------------------------------------------------------- colour and texture of segments


def normalised_red_green_intensity(image: np.ndarray) -> np.ndarray:
    """The paper's rgI: red and green over the sum of the channels, a third each on black, and the intensity."""
    total = image.sum(axis=2, keepdims=True)
    shares = np.divide(image[..., :2], total, out=np.full_like(image[..., :2], 1 / 3), where=total > 0)
    return np.concatenate([shares, rgb2gray(image)[..., None]], axis=2)


def scaled_lab(image: np.ndarray) -> np.ndarray:
    """CIE Lab, each channel in [0, 1] as in an image of 8 bits."""
    return (rgb2lab(image) + np.array([0, 128, 128])) / np.array([100, 255, 255])


COLOUR_SPACES: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # of images (S, S, 3) in [0, 1] to (S, S, C) in [0, 1]
    "hsv": rgb2hsv,
    "lab": scaled_lab,
    "rgi": normalised_red_green_intensity,
    "h": lambda image: rgb2hsv(image)[..., :1],
    "i": lambda image: rgb2gray(image)[..., None],
}


def colour_bins(values: np.ndarray) -> tuple[np.ndarray, int]:
    """The bin of each channel's value in [0, 1]: (S, S, C) integers below COLOUR_BINS, and COLOUR_BINS."""
    return np.clip((values * COLOUR_BINS).astype(int), 0, COLOUR_BINS - 1), COLOUR_BINS


def texture_bins(values: np.ndarray) -> tuple[np.ndarray, int]:
    """The bin of each channel's Gaussian derivatives (sigma 1) in eight orientations: (S, S, 8 C) integers below
    TEXTURE_BINS, and TEXTURE_BINS.

    NOTE: the paper names neither the filters nor the range of the bins. Here the orientations are 45 degrees apart, a
    derivative that is negative counts as 0, since the opposite orientation has it, and the bins of a channel reach from
    0 to its largest derivative in the image.
    """
    angles = 2 * np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS
    bins = []
    for channel in np.moveaxis(values, 2, 0):
        along_x, along_y = gaussian_filter(channel, 1.0, order=(0, 1)), gaussian_filter(channel, 1.0, order=(1, 0))
        derivatives = np.cos(angles) * along_x[..., None] + np.sin(angles) * along_y[..., None]  # (S, S, 8)
        largest = derivatives.max()
        if largest < 1e-9:  # one value everywhere
            bins.append(np.zeros(derivatives.shape, int))
        else:
            bins.append(np.clip((derivatives / largest * TEXTURE_BINS).astype(int), 0, TEXTURE_BINS - 1))
    return np.concatenate(bins, axis=2), TEXTURE_BINS


def histograms_of(segments: np.ndarray, bins: np.ndarray, count: int) -> np.ndarray:
    """One histogram a segment over all channels, with the sum 1.

    Args:
        segments: (S, S) integers from 0 to n - 1, each of which occurs.
        bins: (S, S, C) integers below ``count``.

    Returns:
        (n, C * count).
    """
    channels, n = bins.shape[2], int(segments.max()) + 1
    places = (segments[..., None] * channels + np.arange(channels)) * count + bins
    totals = np.bincount(places.ravel(), minlength=n * channels * count).reshape(n, channels * count)
    return totals / totals.sum(axis=1, keepdims=True)


# ---------------------------------------------------------------- grouping


class Regions:
    """The n segments of an image, and the regions that they are merged into: n to 2n - 2, in the order of merging.

    Args:
        segments: (S, S) integers from 0 to n - 1, each of which occurs.
        histograms: (n, D) for "colour" and "texture", with rows of sum 1.
        terms: of the similarity, from MEASURES.

    Attributes:
        sizes: (2n - 1,) pixels of each region.
        corners: (2n - 1, 4) x0, y0, -x1, -y1 of each region's box, so that the corners of a union are the minima.
        histograms: (2n - 1, D'), those that the similarity has, one after the other.
    """

    def __init__(self, segments: np.ndarray, histograms: Mapping[str, np.ndarray], terms: Collection[str]):
        n = int(segments.max()) + 1
        self.area, self.made = segments.size, n
        self.by_size, self.by_fill = "size" in terms, "fill" in terms
        self.sizes = np.zeros(2 * n - 1)
        self.sizes[:n] = np.bincount(segments.ravel())
        self.corners = np.zeros((2 * n - 1, 4))
        self.corners[:n] = [(x.start, y.start, -x.stop, -y.stop) for y, x in find_objects(segments + 1)]
        own = [np.zeros((n, 0)), *(histograms[name] for name in ("colour", "texture") if name in terms)]
        self.histograms = np.zeros((2 * n - 1, sum(each.shape[1] for each in own)))
        self.histograms[:n] = np.concatenate(own, axis=1)

    def similarities(self, first: np.ndarray | int, second: np.ndarray) -> np.ndarray:
        """The similarities (m,) of pairs of regions, sums of terms in [0, 1] (equations 1, 3, 4, 5 and 6)."""
        total = np.minimum(self.histograms[first], self.histograms[second]).sum(axis=1)
        pixels = self.sizes[first] + self.sizes[second]
        if self.by_size:
            total += 1 - pixels / self.area
        if self.by_fill:
            corners = np.minimum(self.corners[first], self.corners[second])
            around = (corners[:, 0] + corners[:, 2]) * (corners[:, 1] + corners[:, 3])
            total += 1 - (around - pixels) / self.area
        return total

    def merge(self, first: int, second: int) -> int:
        """Make the union of two regions and return its number; its histograms follow from theirs (equation 2)."""
        union, sizes = self.made, self.sizes
        self.made += 1
        sizes[union] = sizes[first] + sizes[second]
        self.corners[union] = np.minimum(self.corners[first], self.corners[second])
        share = sizes[first] / sizes[union]
        self.histograms[union] = share * self.histograms[first] + (1 - share) * self.histograms[second]
        return union

    @property
    def boxes(self) -> np.ndarray:
        """(2n - 1, 4) integers x0, y0, x1, y1 in pixels."""
        return (self.corners * [1, 1, -1, -1]).astype(int)


def neighbouring_pairs(segments: np.ndarray) -> np.ndarray:
    """Pairs (m, 2) of segments that touch at a side or a corner of a pixel, each once, the smaller number first."""
    right, left, below, above = segments[:, 1:], segments[:, :-1], segments[1:], segments[:-1]
    touching = ((left, right), (above, below), (above[:, :-1], below[:, 1:]), (above[:, 1:], below[:, :-1]))
    pairs = np.concatenate([np.stack([one.ravel(), other.ravel()], axis=1) for one, other in touching])
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    count = int(segments.max()) + 1
    return np.stack(np.divmod(np.unique(pairs[:, 0] * count + pairs[:, 1]), count), axis=1)


def hierarchy(segments: np.ndarray, histograms: Mapping[str, np.ndarray], terms: Collection[str]) -> np.ndarray:
    """Boxes (2n - 1, 4) of all regions, in pixels: those of the segments, then in the order of merging (algorithm 1).

    Of pairs that are equally similar, the one of the smaller numbers is merged first. Arguments as of :class:`Regions`.
    """
    regions = Regions(segments, histograms, terms)
    pairs = neighbouring_pairs(segments)
    neighbours: list[set[int]] = [set() for _ in range(regions.made)]
    for first, second in pairs.tolist():
        neighbours[first].add(second)
        neighbours[second].add(first)
    values = np.round(-regions.similarities(*pairs.T), DIGITS)
    heap = list(zip(values.tolist(), *pairs.T.tolist(), strict=True))
    heapify(heap)
    merged: set[int] = set()
    while heap:
        _, first, second = heappop(heap)
        if first in merged or second in merged:
            continue
        merged |= {first, second}
        union = regions.merge(first, second)
        around = neighbours[first] | neighbours[second]
        around -= {first, second}
        neighbours.append(around)
        for each in around:
            neighbours[each] -= {first, second}
            neighbours[each].add(union)
        others = list(around)
        if others:
            values = np.round(-regions.similarities(union, np.array(others)), DIGITS)
            for value, other in zip(values.tolist(), others, strict=True):
                heappush(heap, (value, other, union))
    return regions.boxes
