"""Region trees: merges against sets of pixels, the ultrametric, cuts with ties, and images with few regions."""

import numpy as np
import pytest
import torch

from scd.data.annotators.annotator import identity
from scd.data.annotators.region_tree import RegionTree, borders, contour_strength, merges, tree_ids
from scd.data.images import ImageSet, load_images
from scd.data.sources.shapes import Shapes
from scd.errors import UsageError
from scd.nn.region_tree import MODULI, MOST, tree_distances


def small_tree(seed: int, largest: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Leaves (12, 12) of a grid of 16 with different sizes, and strengths below ``largest``: few of them, many ties."""
    rng = np.random.default_rng(seed)
    edges = [np.sort(rng.choice(np.arange(1, 12), 3, replace=False)) for _ in range(2)]
    row, column = (np.searchsorted(each, np.arange(12), side="right") for each in edges)
    return 4 * row[:, None] + column, rng.integers(0, largest, (12, 12))


def border_by_pixels(one: np.ndarray, other: np.ndarray, strength: np.ndarray) -> list[int]:
    """The strength at each pair of pixels that touch at a side, one pixel in each of two regions (S, S) bool."""
    found = []
    for y, x in np.argwhere(one):
        for v, u in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if 0 <= v < len(one) and 0 <= u < len(one) and other[v, u]:
                found.append(max(strength[y, x], strength[v, u]))
    return found


def ultrametric(tree: np.ndarray) -> np.ndarray:
    """The height (n, n) at which two leaves come into one region, from the merges alone."""
    n = len(tree) + 1
    members = [{leaf} for leaf in range(n)]
    heights = np.zeros((n, n))
    for first, second, height, _ in tree:
        for a in members[int(first)]:
            for b in members[int(second)]:
                heights[a, b] = heights[b, a] = height
        members.append(members[int(first)] | members[int(second)])
    return heights


@pytest.mark.parametrize("seed, largest", [(0, 50), (1, 50), (2, 3)])
def test_regions_are_merged_as_their_pixels_say(seed, largest):
    """Every border is measured anew at every step, on sets of pixels."""
    leaves, strength = small_tree(seed, largest)
    regions = {number: leaves == number for number in range(16)}
    for made, (first, second, height, size) in enumerate(merges(leaves, strength), start=16):
        means = {}
        for a in regions:
            for b in regions:
                if a < b and (values := border_by_pixels(regions[a], regions[b], strength)):
                    means[a, b] = sum(values) / len(values)
        assert (first, second) == min(means, key=lambda pair: (means[pair], pair))
        assert height == means[first, second]
        union = regions.pop(first) | regions.pop(second)
        assert size == len(np.unique(leaves[union]))
        regions[made] = union
    assert list(regions) == [30] and regions[30].all()


def test_the_height_of_the_common_region_is_an_ultrametric_on_real_trees():
    images = load_images(Shapes(classes=3, size=48, train=6, test=2), "train", 48).images.permute(0, 2, 3, 1).numpy()
    for image, ids in zip(images, map(RegionTree().segments, images), strict=True):
        leaves = np.unique(ids, return_inverse=True)[1].reshape(ids.shape)
        tree = merges(leaves, contour_strength(image, 1.0))
        assert (np.diff(tree[:, 2]) >= 0).all() and len(tree) == leaves.max() > 10
        d = ultrametric(tree)
        assert (d[:, None, :] <= np.maximum(d[:, :, None], d[None])).all() and len(np.unique(d)) == len(tree) + 1
        numbers = torch.from_numpy(np.unique(ids))[None]
        cuts = tree_distances(numbers, numbers)[0]
        assert (cuts[:, None, :] <= torch.maximum(cuts[:, :, None], cuts[None])).all()
        assert set(cuts.unique().tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("seed, largest", [(0, 50), (1, 50), (2, 3), (3, 2), (4, 1)])
@pytest.mark.parametrize("regions", [(12, 5, 2), (16, 9, 9), (3, 3, 3), (2, 1, 1)])
def test_a_cut_is_made_at_the_lowest_height_that_leaves_no_more_regions(seed, largest, regions):
    tree = merges(*small_tree(seed, largest))
    d, ids = ultrametric(tree), tree_ids(tree, regions)
    heights = np.unique([0.0, *tree[:, 2]])
    for most, modulus in zip(regions, MODULI, strict=True):
        same = next(d <= height for height in heights if len(np.unique(d <= height, axis=0)) <= most)
        np.fill_diagonal(same, True)
        assert np.array_equal(ids[:, None] % modulus == ids % modulus, same)
    assert ids.min() == 0 and ids.max() < MODULI[0]


def test_borders_between_pixels_of_different_leaves_by_hand():
    leaves = np.array([[0, 0, 1], [2, 2, 1], [2, 2, 2]])
    strength = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    pairs, sums, lengths = borders(leaves, strength)
    found = {tuple(pair): (total, length) for pair, total, length in zip(pairs.tolist(), sums, lengths, strict=True)}
    assert found == {(0, 1): (3, 1), (0, 2): (9, 2), (1, 2): (15, 2)}


# -------------------------------------------------------------------- images


def painted(size, colours):
    """An image (1, 3, size, size) with a colour in each quarter: upper left, upper right, lower left, lower right."""
    images = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    half = size // 2
    for colour, rows, columns in zip(
        colours,
        [slice(half), slice(half), slice(half, size), slice(half, size)],
        [slice(half), slice(half, size), slice(half), slice(half, size)],
        strict=True,
    ):
        images[0, :, rows, columns] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return images


def tree_of(images, **options):
    options = {"sigma": 0.0, "min_size": 5000.0, **options}
    return RegionTree(**options)(images, ImageSet(images))[0]


@pytest.mark.parametrize("size", [48, 224])
def test_weak_contours_are_merged_before_strong_ones_at_any_size_of_the_canvas(size):
    ids = tree_of(painted(size, [(250, 40, 40), (20, 30, 180), (225, 40, 40), (20, 70, 200)]), regions=(4, 3, 2))
    half = size // 2
    quarters = [ids[:half, :half], ids[:half, half:], ids[half:, :half], ids[half:, half:]]
    assert all(len(quarter.unique()) == 1 for quarter in quarters)
    upper_red, upper_blue, lower_red, lower_blue = (quarter[0, 0].view(1, 1).long() for quarter in quarters)
    assert tree_distances(upper_red, lower_red).item() == 1  # the weakest contour
    assert tree_distances(upper_blue, lower_blue).item() == 2
    assert tree_distances(upper_red, upper_blue).item() == tree_distances(lower_red, lower_blue).item() == 3


def test_contours_lie_where_the_colour_changes_and_are_as_strong_as_it_does():
    weak, strong = (
        contour_strength(painted(16, [(0, 0, 0), (level,) * 3] * 2)[0].permute(1, 2, 0).numpy(), 1.0)
        for level in (50, 200)
    )
    for strength in (weak, strong):
        assert strength.argmax(axis=1).tolist() in ([7] * 16, [8] * 16) and not strength[:, :3].any()
    assert 0 < weak.max() < strong.max() and weak.dtype == np.int64


def test_an_image_of_one_colour_is_one_region():
    ids = tree_of(painted(48, [(90, 20, 200)] * 4), min_size=1.0)
    assert ids.unique().tolist() == [0]
    assert merges(np.zeros((4, 4), int), np.ones((4, 4), int)).shape == (0, 4)


def test_fewer_leaves_than_regions_are_all_of_the_regions():
    ids = tree_of(painted(48, [(0, 0, 0), (250, 0, 0)] * 2))
    assert ids.unique().tolist() == [0, 1]  # flat: apart in all cuts


def test_a_cut_has_fewer_regions_where_pairs_merge_at_the_same_height():
    """Three stripes with equal contours: no height leaves two of them. Without any contour they are one region."""
    leaves = np.repeat([[0, 1, 2]], 3, axis=0)
    tree = merges(leaves, np.full((3, 3), 7))
    assert tree_ids(tree, (3, 2, 1)).tolist() == [0, 1024, 2048]
    assert tree_ids(tree, (3, 3, 3)).tolist() == [0, 1, 2]
    assert tree_ids(merges(leaves, np.zeros((3, 3), int)), (3, 3, 3)).tolist() == [0, 0, 0]


def test_three_equal_numbers_of_regions_are_a_flat_tree():
    images = load_images(Shapes(classes=3, size=48, train=3, test=2), "train", 48)
    ids = RegionTree(regions=(12, 12, 12))(images.images, images)
    assert [each.unique().tolist() for each in ids] == [list(range(12))] * 3


def test_impossible_options_say_so():
    for options, text in (
        ({"regions": (12, 4)}, "regions are 3 falling numbers from 1, not \\[12, 4\\]"),
        ({"regions": (4, 12, 32)}, "regions are 3 falling numbers from 1"),
        ({"regions": (4, 2, 0)}, "regions are 3 falling numbers from 1"),
        ({"regions": (33, 4, 4)}, "ids hold \\[32, 16, 64\\] at most"),
        ({"regions": (32, 17, 4)}, "ids hold \\[32, 16, 64\\] at most"),
        ({"scale": 0}, "scale is 0, it must be positive"),
        ({"min_size": -1}, "min_size is -1, it must be positive"),
        ({"contour_sigma": 0}, "contour_sigma is 0, it must be positive"),
        ({"sigma": -0.1}, "sigma is -0.1, it must be 0 or more"),
    ):
        with pytest.raises(UsageError, match=text):
            RegionTree(**options)


def test_the_form_of_the_ids_is_part_of_the_caches_key():
    assert identity(RegionTree())["options"]["moduli"] == list(MODULI) and len(MOST) == len(MODULI)
