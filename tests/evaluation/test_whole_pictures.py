"""Maps of whole pictures of any shape: what networks take, TokenCut, attention, and where a map lies."""

import pytest
import torch
from torch import nn

from scd.errors import UsageError
from scd.evaluation.whole_pictures import Network, at_size, backbone_maps, network_of, own_map
from scd.maps.attention import AttentionMap
from scd.maps.tokencut import bipartition
from scd.method import Method, whole_view
from scd.nn.backbone import build_backbone
from scd.nn.vit import vit


def small_vit():
    torch.manual_seed(0)
    return vit("vit_tiny_patch16_224", img_size=24, patch_size=4, depth=1, embed_dim=24, num_heads=3).eval()


def small_resnet():
    torch.manual_seed(0)
    return build_backbone("resnet_tiny", widths=[8, 8], strides=[1, 2]).eval()


class Squares(nn.Module):
    """Takes squares alone, as networks with a fixed number of positions do."""

    def forward(self, images):
        assert images.shape[2] == images.shape[3], "height does not match"
        return nn.functional.avg_pool2d(images, 8)


class Bright(Method):
    """Its map is the brightness of 4 x 4 pixels, times a factor."""

    def __init__(self, factor=1.0, gives=True):
        super().__init__()
        self.backbone, self.factor, self.gives = nn.Conv2d(3, 4, 4, 4), factor, gives

    def forward(self, batch):
        raise NotImplementedError

    def saliency(self, view):
        return nn.functional.avg_pool2d(view.images.mean(dim=1), 4) * self.factor if self.gives else None


# ---------------------------------------------------------------- what a network takes


def test_the_step_of_a_network_is_found():
    assert network_of(small_vit(), 24) == Network(24, 4, square=False)
    assert network_of(small_resnet(), 16) == Network(16, 4, square=False)
    assert network_of(build_backbone("resnet18"), 64) == Network(64, 32, square=False)
    seen = network_of(small_vit(), 24).seen((640, 427))
    assert (seen.width, seen.height) == (36, 24)


def test_a_network_of_squares_is_found():
    backbone = Squares()
    assert network_of(backbone, 32) == Network(32, 8, square=True)
    assert network_of(backbone, 32).seen((640, 427)).is_squeezed


def test_a_side_that_the_network_does_not_take_is_one_line():
    with pytest.raises(UsageError, match="its backbone does not take images of 30 px: views of 30 px do not split"):
        network_of(small_vit(), 30)


# ---------------------------------------------------------------- maps


def test_a_methods_own_map():
    view = whole_view(torch.rand(1, 3, 8, 16))
    found = own_map(Bright(), view)
    assert torch.equal(found, nn.functional.avg_pool2d(view.images.mean(dim=1), 4)[0])
    assert own_map(Bright(gives=False), view) is None
    with pytest.raises(UsageError, match="Bright.saliency gave values outside"):
        own_map(Bright(3.0), whole_view(torch.ones(1, 3, 8, 16)))
    with pytest.raises(UsageError, match="outside"):
        own_map(Bright(float("nan")), view)


def test_a_vit_gives_a_cut_of_its_keys_and_its_attention():
    backbone, view = small_vit(), whole_view(torch.randn(1, 3, 24, 36, generator=torch.Generator().manual_seed(1)))
    found = backbone_maps(backbone, view)
    with torch.no_grad():
        maps, _ = backbone(view.images)
        expected = AttentionMap()(maps, view)[0]
        cut = bipartition(maps.tokens.keys, 0.2).foreground[0]
    assert found.source == "keys of the last block" and found.positions == 54
    assert torch.allclose(found.attention, expected) and found.attention.shape == (6, 9)
    assert torch.equal(found.foreground, cut.float())


def test_a_cnn_gives_a_cut_of_its_features_and_no_attention():
    backbone, view = small_resnet(), whole_view(torch.randn(1, 3, 24, 16, generator=torch.Generator().manual_seed(1)))
    backbone.train()
    found = backbone_maps(backbone, view)
    assert backbone.training  # left as it was
    with torch.no_grad():
        cut = bipartition(backbone.eval()(view.images), 0.2).foreground[0]
    assert found.source == "feature maps" and found.attention is None and torch.equal(found.foreground, cut.float())


def test_too_many_positions_are_not_cut(monkeypatch):
    monkeypatch.setattr("scd.evaluation.whole_pictures.MOST_POSITIONS", 53)
    found = backbone_maps(small_vit(), whole_view(torch.rand(1, 3, 24, 36)))
    assert found.foreground is None and found.positions == 54 and found.attention is not None


def test_a_map_covers_the_picture_corner_on_corner():
    values = torch.zeros(2, 4)
    values[1, 3] = 1
    drawn = at_size(values, 40, 20)
    assert drawn.shape == (20, 40)
    assert drawn[-1, -1] == 1 and drawn[0, 0] == 0 and drawn[0, -1] == 0 and drawn[-1, 0] == 0
    weight = drawn / drawn.sum()
    x = ((torch.arange(40) + 0.5) / 40 * weight.sum(dim=0)).sum()
    y = ((torch.arange(20) + 0.5) / 20 * weight.sum(dim=1)).sum()
    assert x > 0.8 and y > 0.7
    torch.testing.assert_close(at_size(torch.full((3, 5), 0.25), 7, 9), torch.full((9, 7), 0.25))
