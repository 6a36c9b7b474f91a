"""Maps and vector of the two kinds of backbone output."""

import torch

from scd.nn.features import maps_and_vector


def test_the_vector_of_maps_alone_is_their_mean():
    output = torch.randn(2, 4, 3, 5)
    maps, vector = maps_and_vector(output)
    assert maps is output
    torch.testing.assert_close(vector[1, 2], output[1, 2].mean())


def test_a_backbone_with_a_vector_of_its_own_keeps_it():
    output = (torch.randn(2, 4, 3, 3), torch.randn(2, 4))
    assert maps_and_vector(output) is output
