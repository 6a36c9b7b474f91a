"""Spectral clustering against the official code, a dense second computation, and at its edges."""

import warnings

import numpy as np
import pytest
import scipy.linalg
from golden_numbers import golden
from scipy.spatial.distance import cdist, cosine
from sklearn.metrics import adjusted_rand_score

from scd.evaluation.spectral import core_members, spectral_clusters, spectral_vectors


def groups(n=120, count=4, distance=1.0, dim=5, seed=0):
    """Vectors around ``count`` centres, in turn, and the centre of each."""
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % count
    return distance * draw.normal(size=(count, dim))[labels] + draw.normal(size=(n, dim)), labels


def test_clusters_and_cores_are_those_of_the_official_code():
    numbers = golden("comus")
    found = spectral_clusters(numbers["features"].numpy(), 5, seed=0)
    assert found.count == 5
    assert adjusted_rand_score(numbers["labels"].numpy(), found.labels) == 1
    assert np.array_equal(found.core, numbers["core"].numpy().astype(bool))


def test_vectors_are_those_of_a_dense_solver():
    features, _ = groups(60)
    n, neighbours = len(features), 8
    affinity = np.zeros((n, n))
    for i, row in enumerate(cdist(features, features)):
        for j in np.argsort(row)[:neighbours]:  # i is its own nearest neighbour
            affinity[i, j] += 0.5
            affinity[j, i] += 0.5
    np.fill_diagonal(affinity, 0)  # a Laplacian has no loops
    degree = affinity.sum(axis=1)
    normalised = np.eye(n) - affinity / np.sqrt(np.outer(degree, degree))
    values, vectors = scipy.linalg.eigh(normalised)
    assert (np.diff(values[:5]) > 1e-3).all()  # each vector is one and no other
    found = spectral_vectors(features, 4, neighbours, state=0)
    np.testing.assert_allclose(np.abs(found), np.abs(vectors[:, :4] / np.sqrt(degree)[:, None]), atol=1e-8)
    assert np.ptp(found[:, 0]) < 1e-8  # the first one is constant, and is kept


@pytest.mark.parametrize(("neighbours", "core"), [(60, 40), (30, 50)])  # one graph; a graph in four parts
def test_groups_that_lie_apart_are_found_without_a_warning(neighbours, core):
    """A core is 80 % of a group; where a group is a part of its own, all its members are equally near to its centre."""
    features, labels = groups(200, distance=6.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = spectral_clusters(features, 4, seed=1, neighbours=neighbours)
    assert adjusted_rand_score(labels, found.labels) == 1
    for label in range(4):
        assert core - 2 <= (found.core & (found.labels == label)).sum() <= core  # members at one distance fall together


def test_the_seed_determines_the_clusters_and_no_global_state_is_used():
    features, _ = groups(150, distance=0.3)
    state = np.random.get_state()[1].tolist()
    first, again = (spectral_clusters(features, 4, seed=2) for _ in range(2))
    assert np.array_equal(first.labels, again.labels) and np.array_equal(first.core, again.core)
    assert np.random.get_state()[1].tolist() == state


def test_as_many_vectors_as_clusters_are_a_cluster_each():
    for n in (1, 3, 4):
        found = spectral_clusters(np.ones((n, 2)), 4, seed=0)
        assert found.count == n and found.labels.tolist() == list(range(n)) and found.core.all()
    found = spectral_clusters(groups(5)[0], 4, seed=0)  # fewer than 30 neighbours
    assert found.count == 4 and len(found.labels) == 5


def test_equal_vectors_are_clustered_all_the_same():
    found = spectral_clusters(np.ones((50, 3)), 4, seed=0)
    assert len(found.labels) == 50 and set(found.labels) <= set(range(4)) and found.core.any()


def test_one_cluster_is_everything():
    found = spectral_clusters(groups(40)[0], 1, seed=0)
    assert set(found.labels) == {0} and found.core.all()  # the one vector is constant


def test_cores_by_a_loop():
    draw = np.random.default_rng(3)
    vectors, centres, labels = draw.normal(size=(37, 3)), draw.normal(size=(4, 3)), draw.integers(0, 4, 37)
    expected = np.zeros(37, bool)
    for label in range(4):
        rows = np.nonzero(labels == label)[0]
        distances = [cosine(vectors[row], centres[label]) for row in rows]
        expected[rows] = distances < np.percentile(distances, 70)
    assert np.array_equal(core_members(vectors, centres, labels, 0.7), expected)
    assert core_members(vectors, centres, labels, 1.0).all()


def test_a_cluster_always_has_a_core_and_rounding_does_not_choose_it():
    vectors, centres = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 2.0]])
    assert core_members(vectors, centres, np.array([0, 1, 1]), 0.8).all()
    nearly = np.array([[1.0, 1.0]] * 9) + 1e-12 * np.arange(18).reshape(9, 2)
    assert core_members(nearly, np.array([[1.0, 1.0]]), np.zeros(9, int), 0.8).all()
