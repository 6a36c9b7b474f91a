"""Clusters of images: representations and k-means by second formulas, and the random partition."""

import numpy as np
import pytest
import torch
from small_moco import Patches, moco
from torch import nn

from scd.data.annotators.annotator import annotate, check_values, identity
from scd.data.annotators.clusters import Clusters, first_centroids, spherical_k_means
from scd.data.images import load_images
from scd.data.recipes import centre_view
from scd.data.sources.shapes import Shapes
from scd.errors import UsageError
from scd.nn.backbone import build_backbone
from scd.seeds import generator

SIZE = 24


@pytest.fixture(scope="module")
def source() -> Shapes:
    return Shapes(classes=3, size=SIZE, train=40, test=4)


@pytest.fixture(scope="module")
def images(source):
    return load_images(source, "train", SIZE)


def unit(points):
    return points / np.linalg.norm(points, axis=1, keepdims=True)


# -------------------------------------------------------------------- k-means


def planted(spread=0.05, counts=(30, 20, 5, 5)):
    draw = np.random.default_rng(0)
    members = np.repeat(np.arange(len(counts)), counts)
    centres = np.linalg.qr(draw.normal(size=(8, 8)))[0][: len(counts)]
    return torch.from_numpy(unit(centres[members] + spread * draw.normal(size=(len(members), 8)))), members


def test_planted_clusters_of_unequal_sizes_are_found():
    points, members = planted()
    centroids = spherical_k_means(points, 4, iterations=50, restarts=5, seed=0)
    found = (points @ centroids.T).argmax(dim=1).numpy()
    assert len({(a, b) for a, b in zip(found, members, strict=True)}) == 4
    torch.testing.assert_close(centroids.norm(dim=1), torch.ones(4, dtype=torch.float64))
    for k in range(4):  # the direction of the sum of its points
        own = points[torch.from_numpy(found) == k].sum(dim=0)
        torch.testing.assert_close(centroids[k], own / own.norm())


def test_the_best_of_several_trials_counts():
    points, _ = planted(spread=0.6)

    def mean(restarts):
        return float((points @ spherical_k_means(points, 4, 50, restarts, 0).T).amax(dim=1).mean())

    values = [mean(restarts) for restarts in (1, 2, 5, 20)]
    assert values == sorted(values) and values[-1] > values[0]


def test_a_further_centroid_is_another_point():
    points = torch.eye(3, dtype=torch.float64)[[0] * 50 + [1, 2]]
    for seed in range(5):
        found = first_centroids(points, 3, generator(seed, "x"))
        assert len({tuple(row) for row in found.tolist()}) == 3
    same = first_centroids(points[:4], 3, generator(0, "x"))  # no other point is there
    assert torch.equal(same, points[:3])


def test_fewer_images_than_clusters_are_refused():
    with pytest.raises(UsageError, match="2 images do not make 3 clusters"):
        spherical_k_means(torch.eye(2, dtype=torch.float64), 3, 5, 1, 0)


# -------------------------------------------------------------------- representations


def test_the_hidden_layer_and_the_nearest_centroid_by_a_second_formula(source, images):
    network = moco()
    annotator = Clusters(network, source, clusters=3, size=16)
    values = annotator(images.images, images)
    check_values(annotator, values, images.images)
    views = centre_view(images.images, 16)
    with torch.no_grad():
        pooled = network.backbone(views).mean(dim=(2, 3)).double().numpy()
    first = network.projector.layers[0]
    weight, bias = first.weight.detach().double().numpy(), first.bias.detach().double().numpy()
    hidden = unit(np.maximum(pooled @ weight.T + bias, 0))
    np.testing.assert_allclose(annotator.trained.of(images.images).numpy(), hidden, atol=1e-5)
    expected = (hidden @ annotator.trained.centroids.numpy().T).argmax(axis=1)
    assert values[:, 0, 0].tolist() == expected.tolist() and len(set(expected)) == 3
    assert (values == values[:, :1, :1]).all()


def test_a_head_of_one_layer_leaves_the_pooled_features(source, images):
    annotator = Clusters(moco(hidden=0), source, clusters=2)
    assert annotator.trained.of(images.images).shape[1] == Patches.dim


def test_the_network_is_seen_in_evaluation_mode_and_left_as_it_was(source, images):
    network = moco(backbone=build_backbone("resnet_tiny", widths=(4, 6), strides=(1, 2))).train()
    annotator = Clusters(network, source, clusters=2)
    together = annotator(images.images, images)
    alone = images.subset([3])
    assert torch.equal(annotator(alone.images, alone)[0], together[3])
    assert all(part.training for part in network.modules())
    assert all(parameter.requires_grad for parameter in network.backbone.parameters())


def test_annotations_depend_on_network_images_and_options(source):
    first = identity(Clusters(moco(), source))
    assert first == identity(Clusters(moco(), source))
    other = moco()
    nn.init.normal_(other.backbone.conv.weight)
    changed = [
        Clusters(other, source), Clusters(moco(), source, clusters=4), Clusters(moco(), source, size=12),
        Clusters(moco(), source, seed=1), Clusters(moco(), source, limit=20), Clusters(moco(), source, restarts=2),
        Clusters(moco(), Shapes(classes=3, size=SIZE, train=41, test=4)), Clusters(moco(), source, partition="random"),
    ]  # fmt: skip
    assert len({str(identity(each)) for each in changed} | {str(first)}) == len(changed) + 1
    used = Clusters(moco(), source)
    annotate(used, source, "train", SIZE)
    assert identity(used) == first  # also after centroids were computed


# -------------------------------------------------------------------- the control, and what is refused


def test_a_random_partition_has_equal_parts_that_follow_from_the_pixels(images):
    draw = torch.Generator().manual_seed(0)
    many = torch.randint(0, 256, (2000, 3, 4, 4), dtype=torch.uint8, generator=draw)
    annotator = Clusters(partition="random", clusters=5)
    numbers = annotator.numbers(many)
    assert (numbers.bincount(minlength=5) - 400).abs().max() < 80
    assert torch.equal(annotator.numbers(many[10:20]), numbers[10:20])
    other = Clusters(partition="random", clusters=5, seed=1).numbers(many)
    assert 0.1 < (numbers == other).float().mean() < 0.3
    assert annotator(images.images, images).shape == (40, SIZE, SIZE) and annotator.supervision == "none"


def test_what_is_missing_is_said_in_one_line(images):
    with pytest.raises(UsageError, match="needs the images from which centroids are computed"):
        Clusters(moco())(images.images, images)
    with pytest.raises(UsageError, match="trained network of an earlier run"):
        Clusters(None)
    with pytest.raises(UsageError, match="clusters is 0"):
        Clusters(moco(), clusters=0)
    with pytest.raises(UsageError, match="unknown partition of clusters 'radom'"):
        Clusters(moco(), partition="radom")
