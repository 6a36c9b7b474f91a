"""Clusters of images: every image is one segment, whose number is that of the cluster that the image belongs to.

    h_i = n(ReLU(W g_i))           of the hidden layer of the projection head of a trained network, unit length
    k_i = argmax over k of h_i . c_k                    c: centroids of spherical k-means, unit length

Divide and Contrast (Tian, Henaff, van den Oord, ICCV 2021, arXiv 2105.08054, section 3.2 and appendix C) divides the
training images so. A method that needs a number for each image declares the need "segments" and reads one pixel.
"""

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.data.annotators.annotator import Annotator
from scd.data.images import ImageSet, image_parts
from scd.data.recipes import centre_view
from scd.data.sources.source import Source
from scd.errors import UsageError, unknown
from scd.nn.ema import copy_without_grad
from scd.nn.features import maps_and_vector
from scd.nn.heads import MLP
from scd.seeds import derive_seed, generator
from scd.siamese import JointEmbedding
from scd.wrapper import Wrapper

PARTITIONS = ("clusters", "random")


class Clusters(Annotator):
    """The cluster of each image by k-means on representations of an earlier run's network, or a random partition.

    NOTE: the paper does not say how k-means begins and ends. Here it begins as k-means++ does and takes ``iterations``
    steps; of ``restarts`` trials the one with the highest mean similarity counts.
    NOTE: a random partition gives each image a number by a hash of its pixels, so that its parts have almost equal
    sizes and equal images have equal numbers. It needs neither network nor images.

    Args:
        network: a trained joint-embedding method, or a wrapper around one. It is not changed. The partition is as
            supervised as it is.
        images: a source with a split "train", from which the centroids are computed when an image is annotated first;
            the images that are annotated, or others like them. They are decoded onto the same canvas.
        size: side of the whole images that the network sees, in pixels; None: of the canvas.
        clusters: K. Paper: 5 and 10.
        limit: of the images that give centroids, see :func:`scd.data.images.load_images`. Paper: all of ImageNet, and
            1.5 million images of larger sets.
        partition: "clusters" or "random".
        iterations, restarts: of k-means.
        seed: of k-means and of the random partition.
        device: where representations are computed, "cpu" or "cuda".

    Raises:
        UsageError: a network of another kind, an unknown partition, or an impossible number.
    """

    provides = "segments"

    def __init__(
        self,
        network: nn.Module | None = None,
        images: Source | None = None,
        size: int | None = None,
        clusters: int = 5,
        limit: int | None = None,
        partition: str = "clusters",
        iterations: int = 50,
        restarts: int = 5,
        seed: int = 0,
        device: str = "cpu",
    ):
        if partition not in PARTITIONS:
            raise unknown("partition of clusters", partition, PARTITIONS)
        numbers = {"clusters": clusters, "iterations": iterations, "restarts": restarts, "size": size, "limit": limit}
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise UsageError(f"clusters: {name} is {value}, it must be at least 1")
        host = network.siamese if isinstance(network, Wrapper) else network
        if partition == "clusters" and not isinstance(host, JointEmbedding):
            raise UsageError(
                "clusters: it needs the trained network of an earlier run that compares pairs of views (MoCo, BYOL): a "
                f"study gives it as an input of the run; got {type(network).__name__}"
            )
        self.partition = partition
        self.clusters = clusters
        self.seed = seed
        self.options = [size, limit, iterations, restarts]
        self.fingerprint = None if images is None else images.fingerprints["train"]
        self.trained: Representations | None = None
        if partition == "clusters":
            self.supervision = network.supervision
            self.trained = Representations(host, images, size, limit).to(device)

    def __call__(self, images: Tensor, part: ImageSet) -> Tensor:
        numbers = self.numbers(images)
        return numbers[:, None, None].expand(-1, *images.shape[2:]).contiguous()

    def numbers(self, images: Tensor) -> Tensor:
        """The cluster (B,) int64 of each image (B, 3, S, S) uint8.

        Raises:
            UsageError: there are no images from which centroids can be computed, or fewer than clusters.
        """
        if self.trained is None:
            return torch.tensor([hashed(image, self.seed) % self.clusters for image in images.numpy()])
        if self.trained.centroids is None:
            points = self.trained.of_source(images.shape[2])
            self.trained.centroids = spherical_k_means(points, self.clusters, *self.options[2:], self.seed)
        return nearest(self.trained.of(images), self.trained.centroids)


class Representations(nn.Module):
    """The hidden layer of a trained network's projection head, and the images that give centroids.

    Of a head that is one linear layer, or no MLP, the layer is the pooled feature itself.

    Attributes:
        centroids: (K, H), or None as long as nothing was annotated. They are no part of the state: they follow from it.
    """

    def __init__(self, host: JointEmbedding, images: Source | None, size: int | None, limit: int | None):
        super().__init__()
        self.backbone = copy_without_grad(host.backbone)
        layers = list(host.projector.layers) if isinstance(host.projector, MLP) else []
        last = max((i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear)), default=0)
        self.head = copy_without_grad(nn.Sequential(*layers[:last]))
        self.images, self.size, self.limit = images, size, limit
        self.centroids: Tensor | None = None
        self.eval()

    def of(self, images: Tensor) -> Tensor:
        """Representations (B, H), float64 and of unit length, of images (B, 3, S, S) uint8."""
        device = next(self.parameters()).device
        with torch.no_grad():
            views = centre_view(images.to(device), self.size or images.shape[2])
            found = self.head(maps_and_vector(self.backbone(views))[1])
        return F.normalize(found.double().cpu(), dim=1)

    def of_source(self, canvas: int) -> Tensor:
        """Those (N, H) of the training images of the source, on a canvas of this side.

        Raises:
            UsageError: no source.
        """
        if self.images is None:
            raise UsageError("clusters: it needs the images from which centroids are computed; a study names them")
        return torch.cat([self.of(part.images) for part in image_parts(self.images, "train", canvas, self.limit)])


def hashed(image: np.ndarray, seed: int) -> int:
    """A number that follows from an image's pixels and a seed."""
    content = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8).hexdigest()
    return derive_seed(seed, "partition", content)


# -------------------------------------------------------------------- k-means


def spherical_k_means(points: Tensor, clusters: int, iterations: int, restarts: int, seed: int) -> Tensor:
    """Centroids (K, H) of unit length with the highest mean cosine similarity of a point to its centroid.

    Each step gives every point to the most similar centroid and moves the centroids to the directions of the sums of
    their points, until no point changes. A cluster without points keeps its centroid.

    Args:
        points: (N, H) of unit length.
        clusters: K.
        iterations: steps of each trial, at most.
        restarts: trials.
        seed: of the first centroids.

    Raises:
        UsageError: fewer points than clusters.
    """
    if len(points) < clusters:
        raise UsageError(f"clusters: {len(points)} images do not make {clusters} clusters")
    draw, best, highest = generator(seed, "k-means"), points[:clusters], -2.0
    for _ in range(restarts):
        centroids, before = first_centroids(points, clusters, draw), None
        for _ in range(iterations):
            members = nearest(points, centroids)
            if before is not None and torch.equal(members, before):
                break
            sums = torch.zeros_like(centroids).index_add_(0, members, points)
            lengths = sums.norm(dim=1, keepdim=True)
            centroids, before = torch.where(lengths > 0, sums / lengths.clamp_min(1e-12), centroids), members
        similarity = float((points @ centroids.T).amax(dim=1).mean())
        if similarity > highest:
            best, highest = centroids, similarity
    return best


def first_centroids(points: Tensor, clusters: int, draw: torch.Generator) -> Tensor:
    """Points that k-means begins with: each further one in proportion to 1 - its similarity to those that are drawn.

    For unit vectors this is half the squared distance, the weight of k-means++ (Arthur and Vassilvitskii, SODA 2007).
    """
    rows = [int(torch.randint(len(points), (1,), generator=draw))]
    while len(rows) < clusters:
        away = (1 - (points @ points[rows].T).amax(dim=1)).clamp_min(0)
        weights = away if float(away.sum()) > 1e-9 else torch.ones_like(away)
        rows.append(int(torch.multinomial(weights, 1, generator=draw)))
    return points[rows]


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """The most similar centroid (N,) of centroids (K, H) to each point (N, H), all of unit length."""
    return (points @ centroids.T).argmax(dim=1)
