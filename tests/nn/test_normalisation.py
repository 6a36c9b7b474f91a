"""Normalisation of the three channels against its formula."""

import torch

from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise


def test_each_channel_is_shifted_and_scaled():
    images = torch.rand(2, 3, 4, 4)
    found = normalise(images.clone())
    for channel in range(3):
        expected = (images[:, channel] - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        torch.testing.assert_close(found[:, channel], expected)


def test_it_works_in_place_and_with_other_numbers():
    images = torch.full((1, 3, 2, 2), 0.5)
    assert normalise(images, (0.5, 0.25, 0.0), (1.0, 0.5, 2.0)) is images
    assert images[0, :, 0, 0].tolist() == [0.0, 0.5, 0.25]
