"""The maps of a backbone's stages are those of its ordinary forward pass."""

import pytest
import torch
from torch import nn

from scd.nn.backbone import build_backbone
from scd.nn.features import maps_and_vector
from scd.nn.stages import maps_of_stages, outputs_of


@pytest.mark.parametrize("normalisation", ["imagenet", "cifar10"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_stages_see_what_the_backbone_sees(normalisation, channels_last):
    """The detector ran the stages by themselves, without the backbone's own normalisation of the colours."""
    torch.manual_seed(0)
    backbone = build_backbone("resnet_tiny", normalisation=normalisation, channels_last=channels_last).eval()
    images = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        maps, vector = maps_of_stages(backbone, images)
        last, pooled = maps_and_vector(backbone(images))
    assert [each.shape[2] for each in maps] == [12, 6, 6]
    torch.testing.assert_close(maps[-1], last, rtol=0, atol=0)
    torch.testing.assert_close(vector, pooled, rtol=0, atol=0)


def test_a_backbone_without_stages_has_its_last_map():
    backbone = nn.Conv2d(3, 5, 4, stride=4)
    images = torch.randn(2, 3, 16, 16)
    maps, vector = maps_of_stages(backbone, images)
    assert len(maps) == 1 and torch.equal(maps[0], backbone(images)) and vector.shape == (2, 5)


def test_hooks_are_removed_when_the_forward_pass_fails():
    module = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), outputs_of([module]):
        module(torch.zeros(1, 3))
    assert not module._forward_hooks
