"""Superpixels: regions of one colour are found, at any size of the canvas."""

import pytest
import torch

from scd.data.annotators.felzenszwalb import Felzenszwalb
from scd.data.images import ImageSet
from scd.errors import UsageError


@pytest.mark.parametrize("size", [48, 224])
def test_three_regions_of_one_colour_are_three_segments(size):
    images = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    images[0, 0, :, size // 3 :] = 200
    images[0, 2, size // 2 :, size // 3 :] = 250
    (segments,) = Felzenszwalb(sigma=0.0)(images, ImageSet(images))
    assert segments.shape == (size, size) and len(segments.unique()) == 3
    inside = [segments[:, : size // 3], segments[: size // 2, size // 3 :], segments[size // 2 :, size // 3 :]]
    assert all(len(region.unique()) == 1 for region in inside)


def test_small_regions_join_a_neighbour():
    images = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
    images[0, :, 100:110, 100:110] = 255
    assert len(Felzenszwalb()(images, ImageSet(images)).unique()) == 1
    assert len(Felzenszwalb(sigma=0.0, min_size=50, scale=50)(images, ImageSet(images)).unique()) == 2


def test_impossible_options_say_so():
    for options, text in (
        ({"scale": 0}, "scale is 0, it must be positive"),
        ({"min_size": -1}, "min_size is -1, it must be positive"),
        ({"sigma": -0.1}, "sigma is -0.1, it must be 0 or more"),
    ):
        with pytest.raises(UsageError, match=text):
            Felzenszwalb(**options)
