"""Selective search: similarities and merging against pixel sets, objects are found, order, filters and options."""

import inspect
from itertools import combinations

import numpy as np
import pytest
import torch
from skimage.color import hsv2rgb
from torchvision.ops import box_iou

from scd.data.annotators.annotator import annotate, identity
from scd.data.annotators.selective_search import (
    COLOUR_SPACES,
    MEASURES,
    Regions,
    SelectiveSearch,
    colour_bins,
    hierarchy,
    histograms_of,
    neighbouring_pairs,
    texture_bins,
)
from scd.data.images import ImageSet
from scd.data.sources.shapes import Shapes
from scd.errors import UsageError

TERMS = [("colour", "texture", "size", "fill"), ("texture", "size", "fill"), ("colour",), ("fill",), ("size",)]


def small_image(seed: int) -> tuple[np.ndarray, dict]:
    """Nine segments (12, 12) of different sizes, and the bins of an image of theirs by name."""
    rng = np.random.default_rng(seed)
    edges = [np.sort(rng.choice(np.arange(2, 10), 2, replace=False)) for _ in range(2)]
    row, column = (np.searchsorted(each, np.arange(12), side="right") for each in edges)
    segments = 3 * row[:, None] + column
    values = np.clip(rng.random((9, 3))[segments] + 0.2 * rng.random((12, 12, 3)), 0, 1)
    return segments, {"colour": colour_bins(values), "texture": texture_bins(values)}


def by_pixels(one: np.ndarray, other: np.ndarray, bins: dict, terms) -> float:
    """The similarity of two regions (S, S) bool, from their pixels alone."""
    total = 0.0
    for name in {"colour", "texture"} & set(terms):
        channels, count = np.moveaxis(bins[name][0], 2, 0), bins[name][1]
        for channel in channels:
            first, second = (np.histogram(channel[where], count, (0, count))[0] / where.sum() for where in (one, other))
            total += np.minimum(first, second).sum() / len(channels)
    union = one | other
    if "size" in terms:
        total += 1 - union.mean()
    if "fill" in terms:
        y, x = np.nonzero(union)
        total += 1 - ((np.ptp(x) + 1) * (np.ptp(y) + 1) - union.sum()) / union.size
    return total


def touch(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether a pixel of one region is among the eight neighbours of a pixel of the other one."""
    gaps = np.abs(np.argwhere(one)[:, None] - np.argwhere(other)[None]).max(axis=2)
    return gaps.min() == 1


def box_of(region: np.ndarray) -> tuple[int, ...]:
    y, x = np.nonzero(region)
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1


@pytest.mark.parametrize("terms", TERMS, ids="+".join)
def test_regions_are_merged_as_their_pixels_say(terms):
    """All of algorithm 1 on sets of pixels, every similarity computed anew at every step."""
    segments, bins = small_image(0)
    regions = [segments == number for number in range(9)]
    boxes, left = [box_of(region) for region in regions], list(range(9))
    while len(left) > 1:
        pairs = [(i, j) for i, j in combinations(left, 2) if touch(regions[i], regions[j])]
        i, j = min(
            pairs, key=lambda pair: (-round(by_pixels(regions[pair[0]], regions[pair[1]], bins, terms), 9), pair)
        )
        left = [each for each in left if each not in (i, j)] + [len(regions)]
        regions.append(regions[i] | regions[j])
        boxes.append(box_of(regions[-1]))
    histograms = {name: histograms_of(segments, *each) for name, each in bins.items()}
    found = hierarchy(segments, histograms, terms)
    assert len(found) == 2 * 9 - 1 and found.tolist() == [list(box) for box in boxes]


def test_merging_gives_the_histograms_and_similarities_of_the_union():
    segments, bins = small_image(2)
    histograms = {name: histograms_of(segments, *each) for name, each in bins.items()}
    regions = Regions(segments, histograms, MEASURES)
    assert regions.merge(regions.merge(0, 1), 4) == 10
    joined = segments.copy()
    joined[np.isin(segments, (0, 1, 4))] = 0
    joined = np.unique(joined, return_inverse=True)[1].reshape(joined.shape)
    expected = np.concatenate([histograms_of(joined, *bins[name])[0] for name in ("colour", "texture")])
    np.testing.assert_allclose(regions.histograms[10], expected, rtol=1e-12)
    assert regions.sizes[10] == (joined == 0).sum() and tuple(regions.boxes[10]) == box_of(joined == 0)
    others = np.array([2, 3, 8])
    expected = [by_pixels(joined == 0, segments == other, bins, MEASURES) for other in others]
    np.testing.assert_allclose(regions.similarities(10, others), expected, rtol=1e-12)


def test_histograms_have_the_sum_1_and_regions_of_one_colour_are_alike():
    values = np.zeros((6, 6, 3))
    values[:, 2:4] = 0.99
    segments = np.repeat([0, 0, 1, 1, 2, 2], 6).reshape(6, 6).T
    histograms = histograms_of(segments, *colour_bins(values))
    assert histograms.shape == (3, 75) and np.allclose(histograms.sum(axis=1), 1)
    regions = Regions(segments, {"colour": histograms}, ["colour"])
    np.testing.assert_allclose(regions.similarities(0, np.array([1, 2])), [0, 1])


def test_texture_of_a_ramp():
    """A ramp to the right has its largest derivative to the right, cos 45° of it on the diagonals, and none to the
    left."""
    values = np.broadcast_to(np.linspace(0, 1, 32)[None, :, None], (32, 32, 1))
    bins, count = texture_bins(values)
    assert bins.shape == (32, 32, 8) and count == 10
    assert bins[16, 16].tolist() == [9, 7, 0, 0, 0, 0, 0, 7]
    assert not texture_bins(np.full((8, 8, 3), 0.3))[0].any()


def test_colour_spaces():
    image = np.array([[[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0.5, 0]]], float)
    red = COLOUR_SPACES["rgi"](image)[0]
    np.testing.assert_allclose(red[:, :2], [[1 / 3, 1 / 3], [1 / 3, 1 / 3], [1, 0], [0, 1]])
    np.testing.assert_allclose(red[:, 2:], COLOUR_SPACES["i"](image)[0])
    np.testing.assert_allclose(COLOUR_SPACES["h"](hsv2rgb([[[0.3, 1, 1]]]))[0, 0], [0.3])
    np.testing.assert_allclose(
        COLOUR_SPACES["lab"](image)[0, :2], [[0, 128 / 255, 128 / 255], [1, 128 / 255, 128 / 255]], atol=1e-3
    )
    rng = np.random.default_rng(0)
    for name, convert in COLOUR_SPACES.items():
        values = convert(rng.random((16, 16, 3)))
        assert values.min() >= 0 and values.max() <= 1 and values.shape[2] == (1 if name in "hi" else 3)


def test_neighbours_touch_at_a_side_or_a_corner():
    segments = np.array([[0, 0, 1], [2, 3, 3], [2, 3, 4]])
    assert neighbouring_pairs(segments).tolist() == [[0, 1], [0, 2], [0, 3], [1, 3], [2, 3], [3, 4]]
    assert neighbouring_pairs(np.zeros((3, 3), int)).shape == (0, 2)


# ---------------------------------------------------------------- boxes of images


def textured(size: int = 64, seed: int = 0) -> torch.Tensor:
    """A background (3, S, S) uint8 of grey noise and two broad stripes."""
    rng = np.random.default_rng(seed)
    image = rng.normal(110, 25, (1, size, size)) + 30 * (np.arange(size) // 16 % 2)
    return torch.from_numpy(np.repeat(np.clip(image, 0, 255), 3, axis=0).astype(np.uint8))


def rectangle_and_disk(size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """A red rectangle and a blue disk on texture, and their boxes in [0, 1]."""
    image = textured(size)
    y, x = np.mgrid[:size, :size]
    rectangle = (x >= 6) & (x < 26) & (y >= 8) & (y < 38)
    disk = (x - 44) ** 2 + (y - 42) ** 2 <= 12**2
    for where, colour in ((rectangle, (220, 30, 30)), (disk, (30, 60, 220))):
        image[:, torch.from_numpy(where)] = torch.tensor(colour, dtype=torch.uint8)[:, None]
    return image[None], torch.tensor([box_of(rectangle), box_of(disk)]) / size


def boxes_of_one(images: torch.Tensor, **options) -> torch.Tensor:
    (boxes,) = SelectiveSearch(**options)(images, ImageSet(images))
    return boxes


def test_objects_of_one_colour_are_hit():
    images, objects = rectangle_and_disk()
    boxes = boxes_of_one(images)
    assert box_iou(objects, boxes).amax(dim=1).min() > 0.8
    assert len(boxes.unique(dim=0)) == len(boxes) and (boxes[:, 2:] > boxes[:, :2]).all()
    assert [0, 0, 1, 1] in boxes.tolist()


def test_a_mirrored_image_has_mirrored_boxes():
    """Ties of edges and of similarities go by the order of pixels, so that a few boxes may differ: 5 percent."""
    images, _ = rectangle_and_disk()
    boxes, mirrored = boxes_of_one(images), boxes_of_one(images.flip(3))
    mirrored = torch.stack([1 - mirrored[:, 2], mirrored[:, 1], 1 - mirrored[:, 0], mirrored[:, 3]], dim=1)
    for one, other in ((boxes, mirrored), (mirrored, boxes)):
        assert (box_iou(one, other).amax(dim=1) > 0.99).float().mean() >= 0.95


def test_the_order_is_the_images_own_and_no_global_state_is_used():
    images = torch.stack([textured(32, seed) for seed in (1, 2)])
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = SelectiveSearch()(images, ImageSet(images))
    assert torch.equal(torch.get_rng_state(), before[0]) and np.array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(2)
    np.random.seed(2)
    again = SelectiveSearch()(images.flip(0), ImageSet(images))
    assert torch.equal(first[0], again[1]) and torch.equal(first[1], again[0])


def test_regions_near_the_top_of_a_hierarchy_come_first():
    images = torch.stack([textured(32, seed) for seed in range(5)])
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in SelectiveSearch()(images, ImageSet(images))]
    assert np.mean([each[:5].mean() > 2 * each[5:].mean() for each in areas]) >= 0.8
    whole = [int((each == 1).nonzero()[0]) / len(each) for each in areas]
    assert np.mean(whole) < 0.1


def test_most_boxes_keeps_the_first():
    images, _ = rectangle_and_disk()
    assert torch.equal(boxes_of_one(images, most_boxes=7), boxes_of_one(images)[:7])


@pytest.mark.parametrize("size", [1, 16, 48])
def test_an_image_of_one_colour_is_one_box(size):
    images = torch.full((1, 3, size, size), 90, dtype=torch.uint8)
    assert boxes_of_one(images).tolist() == [[0, 0, 1, 1]]
    assert boxes_of_one(images, largest_share=0.8).tolist() == [[0, 0, 1, 1]]


def test_filters_and_what_is_left_out_where_no_box_passes():
    search = SelectiveSearch(least_side=32, largest_aspect=3, least_share=0.3, largest_share=0.8)
    good, large, long, small = (10, 10, 110, 110), (0, 0, 224, 200), (0, 0, 224, 40), (0, 0, 100, 31)
    for given, kept in (
        ((large, good, long, small), [good]),
        ((large, long, small), [large]),
        ((long, small), [long]),
        ((small,), [(0, 0, 224, 224)]),
    ):
        assert search.filtered(np.array(given), 224).tolist() == [list(box) for box in kept]
    at_48 = search.filtered(np.array([(0, 0, 20, 6), (0, 0, 20, 7)]), 48)  # 32 px of 224 are 6.9 px of 48
    assert at_48.tolist() == [[0, 0, 20, 7]]


def test_filters_apply_to_an_image():
    images, objects = rectangle_and_disk()
    boxes = boxes_of_one(images, least_side=32, largest_aspect=3, least_share=0.3, largest_share=0.8)
    sides = boxes[:, 2:] - boxes[:, :2]
    share = sides.prod(dim=1).sqrt()
    assert share.min() >= 0.3 - 1e-6 and share.max() <= 0.8 + 1e-6
    assert (sides.amax(dim=1) / sides.amin(dim=1)).max() <= 3 + 1e-6
    assert box_iou(objects, boxes).amax(dim=1).min() > 0.8


# ---------------------------------------------------------------- options


CHANGED = {
    "colour_spaces": ["hsv"],
    "scales": [100],
    "similarities": ["size"],
    "sigma": 0.5,
    "min_size": 50,
    "most_boxes": 5,
    "least_side": 10,
    "largest_aspect": 2,
    "least_share": 0.1,
    "largest_share": 0.9,
}


def test_the_caches_key_covers_every_option_and_what_it_imports(monkeypatch, tmp_path):
    assert set(CHANGED) == set(inspect.signature(SelectiveSearch).parameters)
    default = identity(SelectiveSearch())
    assert default["options"]["reference"] == 224 and "scikit-image" in default["options"]["libraries"]
    for name, value in CHANGED.items():
        assert identity(SelectiveSearch(**{name: value})) != default, name
    monkeypatch.setenv("SCD_CACHE", str(tmp_path))
    source = Shapes(classes=3, size=24, train=4, test=4)
    many, few = (annotate(SelectiveSearch(most_boxes=most), source, "train", 24) for most in (None, 3))
    for all_boxes, first in zip(many.rows(range(4)), few.rows(range(4)), strict=True):
        assert torch.equal(all_boxes[:3], first)


def test_impossible_options_say_so():
    for options, text in (
        ({"colour_spaces": ["hvs"]}, "unknown colour space of selective_search 'hvs'; did you mean 'hsv'"),
        ({"colour_spaces": "hsv"}, "colour_spaces is 'hsv', it must be a list of at least one entry"),
        ({"scales": []}, r"scales is \[\], it must be a list of at least one entry"),
        ({"scales": [100, 0]}, "scales has 0, it must be positive"),
        ({"similarities": ["size+color"]}, "unknown term of a similarity of selective_search 'color'"),
        ({"sigma": -1}, "sigma is -1, it must be 0 or more"),
        ({"min_size": 0}, "min_size is 0, it must be positive"),
        ({"most_boxes": 0}, "most_boxes is 0, it must be at least 1, or null for no limit"),
        ({"least_side": -2}, "least_side is -2, it must be 0 or more"),
        ({"largest_aspect": 0.5}, "largest_aspect is 0.5, it must be at least 1, or null for no limit"),
        ({"least_share": 0.9, "largest_share": 0.8}, "least_share is 0.9 and largest_share is 0.8, they must lie in"),
    ):
        with pytest.raises(UsageError, match=text):
            SelectiveSearch(**options)
