"""Odin: DetCon on regions that a momentum network finds (O. Henaff et al., ECCV 2022, arXiv 2203.08777).

    F0     = l2-normalised features of the whole image, by the momentum network      no colours changed, not mirrored
    s      = K-means of the positions of F0, for each image by itself                its K clusters are the regions
    s_v    = s at the pixels of view v: the nearest position of F0                   v = 1, 2
    loss   = DetCon's, with the regions s_1 and s_2 in the place of superpixels      see :mod:`baselines.detcon`

"Object discovery and representation networks". Nothing comes from outside: as the features become better, the regions
do. At the start they follow colours and edges. SCD has one learned soft map of two regions; its map has a gradient,
clusters have none.

No official code is known, and of the paper only the abstract and the introduction were at hand. This is a
reconstruction: its settings are DetCon's where they have a counterpart there, and own choices elsewhere.

NOTE: the paper has two momentum networks, one that finds regions and one that makes the targets, each with a momentum
of its own. Here one network does both, with BYOL's schedule.
NOTE: regions are sought in the whole image; in the paper in a view that spans both crops.
NOTE: the network that finds regions runs in evaluation mode, with the running statistics of its passes over the views.
An image's regions then do not depend on the other images of the batch, and the search changes no statistics.
NOTE: own choices are K, the number of iterations, the first centroids of k-means++ and a single start of the
clustering.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.detcon import DetCon
from baselines.orl import evaluating
from scd.data.cut_views import WHOLE, WholeImages, cut, rectangles_inside, uniform, whole_images
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.precision import at_least_float32, no_autocast
from scd.siamese import Encoded

PHOTOMETRICS = {"v1": "byol1", "v2": "byol2"}


class Odin(DetCon):
    """DetCon that finds the regions itself, anew in each step.

    The recipe gives one view of whole images.

    Args:
        backbone: feature maps, on whose grid regions are found and told apart; the paper's have 7 x 7 positions.
        size: side of the two views in pixels.
        scale: range of a view's area as a share of the image's.
        whole_size: side of the whole image in pixels where regions are sought.
        clusters: K, regions of an image at most.
        iterations: of k-means.
        blur_reference: see :class:`scd.data.views.CropSpec`.
        dim, hidden, regions, temperature, momentum, momentum_schedule: see :class:`baselines.detcon.DetCon`.

    Clusters whose region lies outside a view are not drawn there, and count for nothing in the other view, as in
    DetCon. What is drawn and found depends on the seed and the step alone.

    Raises:
        UsageError: a size below 1, an impossible scale, fewer than 2 clusters, no iterations, or what DetCon refuses.
    """

    needs = frozenset()

    def __init__(
        self,
        backbone: nn.Module,
        size: int = 224,
        scale: Sequence[float] = (0.08, 1.0),
        whole_size: int = 224,
        clusters: int = 8,
        iterations: int = 10,
        blur_reference: float = 224.0,
        dim: int = 256,
        hidden: int = 4096,
        regions: int = 16,
        temperature: float = 0.1,
        momentum: float = 0.996,
        momentum_schedule: str = "cosine",
    ):
        for name, value in {"size": size, "whole_size": whole_size, "iterations": iterations}.items():
            if value < 1:
                raise UsageError(f"Odin's {name} is 1 or more, not {value}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise UsageError(f"Odin's scale is two ascending shares in (0, 1], not {list(scale)}")
        if clusters < 2:
            raise UsageError(f"Odin divides an image into 2 clusters or more, not {clusters}")
        super().__init__(backbone, dim, hidden, regions, temperature, momentum, momentum_schedule)
        self.size = size
        self.scale = tuple(scale)
        self.whole_size = whole_size
        self.clusters = clusters
        self.iterations = iterations
        self.blur_reference = blur_reference

    def encode(self, views: dict[str, View]) -> Encoded:
        """The features of two views that are cut here; wrappers around Odin see these views.

        Args:
            views: one, of whole images.

        Raises:
            UsageError: other views.
        """
        return super().encode(self.views(whole_images(Batch(views))))

    def image_loss(self, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """DetCon's loss.

        Logs, beside what DetCon logs, the share of a view that its largest region has, a mean over images and views: at
        1 nothing is told apart.
        """
        loss, logs = super().image_loss(encoded)
        segments = torch.cat([view.segments for view in encoded.views.values()]).flatten(1)
        ids = torch.arange(self.clusters, device=segments.device)
        shares = torch.stack([(segments == own).float().mean(dim=1) for own in ids])  # (K, 2·B)
        return loss, {**logs, "largest_region": shares.amax(dim=0).mean()}

    @torch.no_grad()
    def views(self, whole: WholeImages) -> dict[str, View]:
        """The two views of each image with the regions that were found."""
        everything = whole.images.new_tensor(WHOLE).expand(len(whole.images), 4)
        found = self.discovered(whole, everything)
        views = {}
        for name, photometric in PHOTOMETRICS.items():
            rectangles = rectangles_inside(everything, self.scale)
            view = cut(whole, rectangles, self.size, photometric, name, blur_reference=self.blur_reference)
            views[name] = replace(view, segments=carried(found, view, self.size))
        return views

    def discovered(self, whole: WholeImages, everything: Tensor) -> Tensor:
        """The cluster (B, h, w) of each position of the whole images' feature maps, int64 in [0, K)."""
        images = cut(whole, everything, self.whole_size, "none", "whole", flip=0.0).images
        with evaluating(self.target_backbone):
            maps = self.encode_target(images).maps
        numbers = uniform(len(images), self.clusters)
        with no_autocast(maps):
            points = F.normalize(at_least_float32(maps).flatten(2).transpose(1, 2), dim=2)  # (B, hw, C)
            return k_means(points, numbers.to(points), self.iterations).unflatten(1, maps.shape[2:])


def carried(found: Tensor, view: View, side: int) -> Tensor:
    """Ids (B, h, w) on a grid over the whole images at the pixels (B, side, side) of a view of them.

    Each pixel has the id of the cell in which its centre lies.
    """
    height, width = found.shape[1:]
    x, y = view.grid(side, side).unbind(dim=3)  # (B, side, side) in [0, 1] of the image
    columns, rows = ((x * width).long().clamp(0, width - 1), (y * height).long().clamp(0, height - 1))
    return found.flatten(1).gather(1, (rows * width + columns).flatten(1)).view_as(rows)


# -------------------------------------------------------------------- k-means


def k_means(points: Tensor, numbers: Tensor, iterations: int) -> Tensor:
    """The cluster of each point after a fixed number of Lloyd's iterations, for each image by itself.

    A point belongs to the centroid at the smallest Euclidean distance, of several to the first. A cluster that loses
    all its points keeps its centroid, and may win points later. Where an image has fewer different points than
    clusters, the others stay without points.

    Args:
        points: (B, n, C).
        numbers: (B, K) in [0, 1), one for each first centroid, see :func:`first_centroids`.
        iterations: how often centroids move to the means of their points.

    Returns:
        (B, n) int64 in [0, K).
    """
    centroids = first_centroids(points, numbers)
    ids = torch.arange(numbers.shape[1], device=points.device)
    for _ in range(iterations):
        members = (nearest_centroids(points, centroids)[:, :, None] == ids).to(points.dtype)  # (B, n, K)
        counts = members.sum(dim=1)[:, :, None]
        means = members.transpose(1, 2) @ points / counts.clamp_min(1)
        centroids = torch.where(counts > 0, means, centroids)
    return nearest_centroids(points, centroids)


def nearest_centroids(points: Tensor, centroids: Tensor) -> Tensor:
    """The centroid (B, n) of centroids (B, K, C) at the smallest distance from each point (B, n, C)."""
    squares = centroids.square().sum(dim=2)[:, None]  # the points' own are the same for all centroids
    return (squares - 2 * points @ centroids.transpose(1, 2)).argmin(dim=2)


def first_centroids(points: Tensor, numbers: Tensor) -> Tensor:
    """Points that k-means begins with, as k-means++ draws them (Arthur and Vassilvitskii, SODA 2007).

    The first is any point with the same probability, each further one a point with a probability in proportion to its
    squared distance from the nearest of those that are drawn. Where all distances are 0 it is the last point.

    Args:
        points: (B, n, C).
        numbers: (B, K) in [0, 1).

    Returns:
        (B, K, C).
    """
    last = points.shape[1] - 1
    place = (numbers[:, :1] * points.shape[1]).long().clamp_max(last)  # (B, 1)
    drawn = [points.take_along_dim(place[:, :, None], dim=1)]  # (B, 1, C) each
    distances = (points - drawn[0]).square().sum(dim=2)
    for number in numbers[:, 1:].split(1, dim=1):
        sums = distances.cumsum(dim=1)
        place = torch.searchsorted(sums, number * sums[:, -1:], right=True).clamp_max(last)
        drawn.append(points.take_along_dim(place[:, :, None], dim=1))
        distances = torch.minimum(distances, (points - drawn[-1]).square().sum(dim=2))
    return torch.cat(drawn, dim=1)
