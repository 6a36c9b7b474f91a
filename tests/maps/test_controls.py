"""The control maps: what each shows, what it needs, what it refuses."""

import math

import pytest
import torch

from baselines.moco import MoCo
from scd.errors import UsageError
from scd.maps.controls import CentrePrior, ConstantMap, FrozenMLP, OracleMask, OtherImage
from scd.maps.learned import SaliencyMLP
from scd.method import Batch, View, whole_view
from scd.nn.backbone import build_backbone
from scd.scd import SCD


def view(masks=None, rectangle=(0.0, 0.0, 1.0, 1.0), flip=False, count=2, side=16):
    images = torch.zeros(count, 3, side, side)
    return View("v1", "global", images, torch.tensor(rectangle).expand(count, 4), torch.full((count,), flip), masks)


def test_constant_map_is_constant_and_learns_nothing():
    source = ConstantMap(value=0.25)
    saliency = source(torch.randn(2, 6, 3, 4), view())
    assert saliency.shape == (2, 3, 4) and (saliency == 0.25).all()
    assert not list(source.parameters())


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, float("nan")])
def test_constant_map_leaves_no_region_empty(value):
    with pytest.raises(UsageError, match=f"strictly between 0 and 1, not at {value}"):
        ConstantMap(value=value)


def test_frozen_mlp_is_the_learned_maps_network_and_never_moves():
    torch.manual_seed(0)
    learned = SaliencyMLP(6)
    torch.manual_seed(0)
    frozen = FrozenMLP(6)
    maps = torch.randn(2, 6, 3, 4, requires_grad=True)
    assert torch.equal(frozen(maps, view()), learned(maps, view()))
    frozen(maps, view()).sum().backward()
    assert maps.grad.abs().sum() > 0 and not any(p.requires_grad for p in frozen.parameters())


def test_frozen_mlps_gain_is_that_of_the_last_layer():
    torch.manual_seed(0)
    plain = FrozenMLP(6)
    torch.manual_seed(0)
    strong = FrozenMLP(6, gain=5.0)
    maps = torch.randn(2, 6, 3, 4)
    bias = plain.mlp.layers[-1].bias
    found, expected = (source(maps, view()).logit() - bias for source in (strong, plain))
    torch.testing.assert_close(found, 5 * expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="FrozenMLP's gain is a number above 0, not 0"):
        FrozenMLP(6, gain=0)


def test_centre_prior_of_a_whole_image_by_hand():
    found = CentrePrior(sigma=0.3)(torch.zeros(2, 6, 4, 5), view())
    assert found.shape == (2, 4, 5)
    for y, x in [(0, 0), (1, 2), (3, 4)]:
        squared = ((x + 0.5) / 5 - 0.5) ** 2 + ((y + 0.5) / 4 - 0.5) ** 2
        assert found[1, y, x].item() == pytest.approx(math.exp(-squared / 0.18), rel=1e-5)
    with pytest.raises(UsageError, match="CentrePrior's sigma is a share of the image's side above 0, not 0"):
        CentrePrior(sigma=0)


def test_centre_prior_of_a_crop_shows_the_images_centre_through_rectangle_and_flip():
    source = CentrePrior(sigma=0.1)
    left = source(torch.zeros(2, 6, 8, 8), view(rectangle=(0.5, 0.5, 1.0, 1.0)))[0]
    assert left.flatten().argmax() == 0  # the image's centre is the crop's upper left corner
    mirrored = source(torch.zeros(2, 6, 8, 8), view(rectangle=(0.5, 0.5, 1.0, 1.0), flip=True))[0]
    torch.testing.assert_close(mirrored, left.flip(1))


def test_other_images_map_is_the_previous_ones_in_training_and_its_own_in_evaluation():
    torch.manual_seed(0)
    other = OtherImage(6).train()
    maps = torch.randn(3, 6, 4, 4)
    own = SaliencyMLP.forward(other, maps, view(count=3))
    assert torch.equal(other(maps, view(count=3)), own[[2, 0, 1]])
    with pytest.raises(UsageError, match="needs a batch of at least 2 images"):
        other(maps[:1], view(count=1))
    assert torch.equal(other.eval()(maps, view(count=3)), own)


def test_oracle_is_the_share_of_the_mask_and_leaves_two_regions():
    masks = torch.zeros(2, 16, 16)
    masks[0, :8, :4] = 1
    found = OracleMask()(torch.zeros(2, 6, 4, 4), view(masks))
    assert found[0, 0, 0].item() == pytest.approx(0.98) and found[0, 3, 3].item() == pytest.approx(0.02)
    assert 0 < found.min() and found.max() < 1
    masks[1, :2, :4] = 1
    assert OracleMask()(torch.zeros(2, 6, 4, 4), view(masks))[1, 0, 0].item() == pytest.approx(0.5)


def test_oracle_declares_its_supervision_and_refuses_to_train_without_masks():
    assert (OracleMask.needs, OracleMask.supervision) == ({"masks"}, "oracle")
    assert OracleMask().eval()(torch.zeros(2, 6, 4, 4), view()) is None
    with pytest.raises(UsageError, match="the oracle map needs images with masks; this data set has none"):
        OracleMask().train()(torch.zeros(2, 6, 4, 4), view())


def test_scd_with_an_oracle_uses_the_masks_of_the_views_and_is_not_scored():
    random = torch.Generator().manual_seed(0)
    method = SCD(MoCo(build_backbone("resnet_tiny"), dim=8, queue_size=16, bn_groups=1), OracleMask())
    assert (method.needs, method.supervision) == ({"masks"}, "oracle")
    views = {}
    for name in ("v1", "v2"):
        views[name] = whole_view(torch.randn(4, 3, 24, 24, generator=random), name)
        views[name].masks = (torch.rand(4, 24, 24, generator=random) > 0.5).float()
    regions = method.online_regions(method.siamese.encode(views).online["v1"], views["v1"])
    expected = torch.nn.functional.avg_pool2d(views["v1"].masks[:, None], 4)[:, 0].clamp(0.02, 0.98)
    torch.testing.assert_close(regions.maps, expected)
    assert torch.isfinite(method(Batch(views))["loss"])
    assert method.eval().saliency(whole_view(views["v1"].images)) is None
