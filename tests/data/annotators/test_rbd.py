"""Robust Background Detection: each step against a second formula, and what the masks show."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from scd.data.annotators import rbd as module
from scd.data.annotators.annotator import identity
from scd.data.annotators.rbd import (
    RBD,
    background_probability,
    boundary_connectivity,
    describe_superpixels,
    find_superpixels,
    geodesic_distances,
    is_empty_or_full,
    optimised_saliency,
    stretched,
    weighted_contrast,
)
from scd.data.images import ImageSet
from scd.errors import UsageError
from scd.evaluation.saliency import iou

GRID = np.arange(9).reshape(3, 3).repeat(4, axis=0).repeat(4, axis=1)  # 3 x 3 superpixels of 4 x 4 pixels
INNER = 4  # the superpixel in the middle


def disk(size: int, row: float, column: float, radius: float) -> torch.Tensor:
    """A disk (S, S) bool; its centre and radius are in sides."""
    at = (torch.arange(size) + 0.5) / size
    return (at[:, None] - row).square() + (at - column).square() <= radius**2


def picture(mask: torch.Tensor, noise: int = 6) -> torch.Tensor:
    """A bright object on a plain dark background, with some noise: (1, 3, S, S) uint8."""
    colours = torch.where(mask, torch.tensor([220, 190, 60])[:, None, None], torch.tensor([40, 70, 110])[:, None, None])
    return (colours + torch.randint(-noise, noise + 1, colours.shape, generator=torch.manual_seed(0)))[None].byte()


def masks(images: torch.Tensor, **options) -> torch.Tensor:
    return RBD(**options)(images, ImageSet(images))


# ---------------------------------------------------------------- the steps


def test_superpixels_are_described():
    image = np.zeros((12, 12, 3), np.uint8)
    image[4:8, 4:8] = 255
    found = describe_superpixels(image, GRID)
    assert found.boundary.tolist() == [number != INNER for number in range(9)]
    assert found.adjacent.sum() == 24 and np.flatnonzero(found.adjacent[INNER]).tolist() == [1, 3, 5, 7]
    lightness = [100.0 if number == INNER else 0.0 for number in range(9)]
    np.testing.assert_allclose(found.colours[:, 0], lightness, atol=1e-3)
    np.testing.assert_allclose(found.centres[5], [1 / 2, 5 / 6])


def test_the_number_of_superpixels_follows_the_canvas():
    noise = np.random.default_rng(0)
    counts = {}
    for size in (12, 24, 48, 96):
        labels = find_superpixels(noise.integers(0, 256, (size, size, 3), np.uint8), 200, 100.0).labels
        assert set(np.unique(labels)) == set(range(labels.max() + 1))
        counts[size] = labels.max() + 1
    assert counts[12] <= 50 and 100 <= counts[24] <= 190
    assert all(130 <= counts[size] <= 270 for size in (48, 96))
    assert find_superpixels(np.zeros((2, 2, 3), np.uint8), 200, 20.0).labels.tolist() == [[0, 0], [0, 0]]


def test_geodesic_distances_are_the_shortest_of_all_paths():
    """On a path graph 0-1-2-3-4-5 with a side branch, 0 and 5 at the border; some neighbours have equal colours."""
    colours = np.array([0.0, 3.0, 3.0, 9.0, 4.0, 1.0])
    colour = np.abs(colours[:, None] - colours)
    adjacent = np.zeros((6, 6), dtype=bool)
    for first, second in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (1, 4)):
        adjacent[first, second] = adjacent[second, first] = True
    boundary = np.array([True, False, False, False, False, True])
    linked = adjacent | np.outer(boundary, boundary)
    expected = np.zeros((6, 6))
    for start, end in itertools.permutations(range(6), 2):
        others = [node for node in range(6) if node not in (start, end)]
        walks = [
            (start, *inner, end) for length in range(5) for inner in itertools.permutations(others, length)
        ]  # every path that visits nothing twice
        expected[start, end] = min(
            sum(colour[a, b] for a, b in itertools.pairwise(walk))
            for walk in walks
            if all(linked[a, b] for a, b in itertools.pairwise(walk))
        )
    np.testing.assert_allclose(geodesic_distances(colour, adjacent, boundary), expected)
    assert expected[1, 2] == 0 and expected[0, 5] == 1  # over an edge of length 0, and along the border


def test_boundary_connectivity_by_hand():
    """3 x 3 superpixels, the inner one very different: 8 of 8 lie at the border, and 0 of 1."""
    colour = np.zeros((9, 9))
    colour[INNER, :] = colour[:, INNER] = 1000.0
    colour[INNER, INNER] = 0.0
    found = describe_superpixels(np.zeros((12, 12, 3), np.uint8), GRID)
    geodesic = geodesic_distances(colour, found.adjacent, found.boundary)
    connectivity = boundary_connectivity(geodesic, found.boundary, 10.0)
    np.testing.assert_allclose(connectivity, [0.0 if i == INNER else 8 / 8**0.5 for i in range(9)], atol=1e-12)
    np.testing.assert_allclose(
        background_probability(connectivity, 1.0), [0.0 if i == INNER else 1 - np.exp(-4) for i in range(9)], atol=1e-12
    )
    colour[INNER, :] = colour[:, INNER] = 10.0  # one sigma away: a weight of exp(-1/2) of every other
    colour[INNER, INNER] = 0.0
    near = boundary_connectivity(geodesic_distances(colour, found.adjacent, found.boundary), found.boundary, 10.0)
    weight = np.exp(-0.5)
    np.testing.assert_allclose(near[INNER], 8 * weight / (1 + 8 * weight) ** 0.5)
    np.testing.assert_allclose(near[0], 8 / (8 + weight) ** 0.5)


def test_contrast_is_a_sum_over_the_background():
    draw = np.random.default_rng(0)
    colour, space, background = draw.random((5, 5)), draw.random((5, 5)), draw.random(5)
    expected = [
        sum(colour[i, j] * np.exp(-(space[i, j] ** 2) / (2 * 0.25**2)) * background[j] for j in range(5))
        for i in range(5)
    ]
    np.testing.assert_allclose(weighted_contrast(colour, space, background, 0.25), expected)


def test_the_optimum_is_that_of_a_numerical_minimiser():
    draw = np.random.default_rng(1)
    background, foreground = draw.random(6), draw.random(6)
    smoothness = np.triu(draw.random((6, 6)) * (draw.random((6, 6)) < 0.5), 1)
    pairs = [(i, j, smoothness[i, j]) for i in range(6) for j in range(i + 1, 6)]
    smoothness += smoothness.T

    def cost(s):
        unary = sum(background * s**2) + sum(foreground * (s - 1) ** 2)
        return unary + sum(weight * (s[i] - s[j]) ** 2 for i, j, weight in pairs)

    found = optimised_saliency(background, foreground, smoothness)
    np.testing.assert_allclose(found, minimize(cost, np.full(6, 0.5), tol=1e-12).x, atol=1e-5)
    assert found.min() > 0 and found.max() < 1


def test_rounding_errors_are_not_stretched():
    np.testing.assert_allclose(stretched(np.array([2.0, 4.0, 3.0])), [0, 1, 0.5])
    assert stretched(np.array([0.3, 0.1 + 0.2])).tolist() == [0, 0]


# ---------------------------------------------------------------- maps and masks


@pytest.mark.parametrize("size", [24, 48, 128])
@pytest.mark.parametrize("otsu", [True, False])
def test_a_bright_disk_is_found(size, otsu):
    truth = disk(size, 0.45, 0.6, 0.25)
    images = picture(truth)
    assert iou(masks(images, otsu=otsu).bool(), truth[None]) > 0.9
    (soft,) = RBD(otsu=otsu).maps(images)
    assert soft.shape == (size, size) and soft.dtype == torch.float32 and soft.min() == 0 and soft.max() == 1
    assert soft[truth].mean() > 0.8 and soft[~truth].mean() < 0.1


def test_an_object_that_touches_the_border_is_found():
    truth = disk(64, 0.85, 0.5, 0.25)
    assert truth[-1].any()
    assert iou(masks(picture(truth)).bool(), truth[None]) > 0.9


def test_a_mirrored_image_has_the_mirrored_mask():
    images = picture(disk(48, 0.4, 0.35, 0.22))
    for axis in (2, 3):
        there, back = masks(images), masks(images.flip(axis)).flip(axis - 1)
        assert (there != back).sum() <= 0.1 * there.sum()


def test_the_mask_is_where_the_map_is_high():
    images = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.manual_seed(0)).byte()
    soft, hard = RBD().maps(images), masks(images).bool()
    assert hard.dtype == torch.bool and not is_empty_or_full(hard).any()
    for one, mask in zip(soft, hard, strict=True):
        assert one[mask].min() > one[~mask].max()


@pytest.mark.parametrize("size", [1, 3, 48])
def test_an_image_of_one_colour_has_no_object(size):
    images = torch.tensor([90, 130, 70], dtype=torch.uint8)[None, :, None, None].repeat(2, 1, size, size)
    assert not RBD().maps(images).any() and not masks(images).any()
    found = is_empty_or_full(torch.cat([masks(images), torch.ones(1, size, size)]))
    assert found.tolist() == [True, True, True]


def test_empty_and_full_masks_are_counted():
    some = torch.zeros(3, 4, 4, dtype=torch.uint8)
    some[1, 2, 2], some[2] = 1, 1
    assert is_empty_or_full(some).tolist() == [True, False, True] and int(is_empty_or_full(some).sum()) == 2


# ---------------------------------------------------------------- options


def test_the_cache_knows_options_and_library(monkeypatch):
    usual = identity(RBD())
    for options in (
        {"superpixels": 100},
        {"compactness": 10},
        {"sigma_colour": 5},
        {"sigma_boundary": 2},
        {"sigma_space": 0.5},
        {"mu": 0.2},
        {"otsu": False},
    ):
        assert identity(RBD(**options)) != usual
    assert identity(RBD(sigma_colour=10)) == usual
    monkeypatch.setattr(module.skimage, "__version__", "another")
    assert identity(RBD()) != usual


def test_options_matter():
    images = torch.nn.functional.interpolate(
        torch.rand(1, 3, 6, 6, generator=torch.manual_seed(3)) * 255, size=48, mode="bilinear"
    ).byte()
    usual = RBD().maps(images)
    for options in (
        {"superpixels": 60},
        {"compactness": 1},
        {"sigma_colour": 40},
        {"sigma_boundary": 4},
        {"sigma_space": 0.1},
        {"mu": 2},
        {"otsu": False},
    ):
        assert (RBD(**options).maps(images) - usual).abs().max() > 0.02, options


def test_impossible_options_say_so():
    for options, text in (
        ({"superpixels": 0}, "rbd: superpixels is 0, it must be positive"),
        ({"compactness": 0}, "rbd: compactness is 0, it must be positive"),
        ({"sigma_colour": -1}, "rbd: sigma_colour is -1, it must be positive"),
        ({"sigma_boundary": 0}, "rbd: sigma_boundary is 0, it must be positive"),
        ({"sigma_space": -0.5}, "rbd: sigma_space is -0.5, it must be positive"),
        ({"mu": 0}, "rbd: mu is 0, it must be positive"),
    ):
        with pytest.raises(UsageError, match=text):
            RBD(**options)
