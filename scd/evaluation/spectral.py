"""Spectral clustering of feature vectors, and the members of a cluster that lie near its centre.

Source: COMUS (Zadaianchuk et al., ICLR 2023, arXiv 2207.05027, section 3.2), with the settings of its code:

    A   = (K + K^T) / 2                       K_ij = 1 if j is one of the nearest neighbours of i, i itself included
    y_i = entries of row i in the first eigenvectors of the normalised Laplacian of A, each divided by sqrt(degree i)
    clusters: k-means of the y_i
    core: members whose cosine distance to their centre lies below a quantile of those of their cluster
"""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import k_means
from sklearn.manifold import spectral_embedding
from sklearn.neighbors import kneighbors_graph

from scd.seeds import derive_seed

UNCONNECTED = "Graph is not fully connected"  # clusters that lie far apart are parts of their own: no fault here
DIGITS = 12  # of a cosine distance


@dataclass(frozen=True)
class Clusters:
    """A clustering of n vectors.

    Attributes:
        labels: (n,) int64 in [0, count).
        core: (n,) bool, the members near the centre of their cluster.
        count: number of clusters.
    """

    labels: np.ndarray
    core: np.ndarray
    count: int


def spectral_clusters(
    features: np.ndarray, count: int, seed: int, neighbours: int = 30, restarts: int = 10, core: float = 0.8
) -> Clusters:
    """Cluster vectors; the same seed gives the same clusters on one machine.

    Args:
        features: (n, d), compared by their Euclidean distance.
        count: number of clusters, and of eigenvectors; the first, constant one is among them.
        seed: draws the start of the eigensolver and the first centres of k-means.
        neighbours: of each vector, itself included; more than n means n.
        restarts: of k-means; the best one counts.
        core: share of each cluster that is its core, about.

    NOTE: the official code solves for the eigenvectors by LOBPCG with multigrid (pyamg), here they come from ARPACK.
    NOTE: as many vectors as clusters, or fewer, are a cluster each, all of them core: there is nothing to cluster then,
    and the official code fails.
    """
    n = len(features)
    if n <= count:
        return Clusters(np.arange(n), np.ones(n, bool), n)
    state = derive_seed(seed, "spectral clustering") % 2**32
    vectors = spectral_vectors(features, count, neighbours, state)
    centres, labels, _ = k_means(vectors, count, random_state=state, n_init=restarts)
    labels = labels.astype(np.int64)
    return Clusters(labels, core_members(vectors, centres, labels, core), count)


def spectral_vectors(features: np.ndarray, count: int, neighbours: int, state: int) -> np.ndarray:
    """The rows y (n, count) of the module's formula; each column is determined up to its sign.

    Args:
        features: (n, d), n above ``count``; the others as in :func:`spectral_clusters`.
        state: seed of the eigensolver.
    """
    nearest = kneighbors_graph(features, min(neighbours, len(features)), include_self=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", UNCONNECTED)
        return spectral_embedding(
            (nearest + nearest.T) / 2, n_components=count, eigen_solver="arpack", random_state=state, drop_first=False
        )


def core_members(vectors: np.ndarray, centres: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """Which vectors (n,) bool have a cosine distance to their centre below the quantile ``share`` of their cluster.

    NOTE: a cluster that is a part of the graph of its own has one vector for all its members, so that their distances
    differ by rounding errors alone. The official code keeps those that these errors choose, and no member of a cluster
    of one. Here distances this close are equal, and all members with the least distance are core.

    Args:
        vectors: (n, d). centres: (k, d). labels: (n,) in [0, k).
        share: in (0, 1]; 1: all members.
    """
    if share >= 1:
        return np.ones(len(vectors), bool)
    own = centres[labels]
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(own, axis=1)
    distance = 1 - (vectors * own).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    distance = distance.round(DIGITS)
    core = np.zeros(len(vectors), bool)
    for label in np.unique(labels):
        members = labels == label
        values = distance[members]
        core[members] = (values < np.quantile(values, share)) | (values <= values.min())
    return core
