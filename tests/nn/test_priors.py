"""The rungs around the learned map: what each shows, what it needs, what it refuses."""

import math

import pytest
import torch

from baselines.moco import MoCo
from scd.data.recipes import build_recipe
from scd.data.views import View, ViewMaker
from scd.errors import UsageError
from scd.maps.border_prior import SettledMap, border_contrast
from scd.maps.controls import CentrePrior, FrozenMLP, OracleMask, OtherImage
from scd.maps.source import SaliencyMLP
from scd.nn.backbone import build_backbone
from scd.scd import SCD


def view(masks=None, box=(0.0, 0.0, 1.0, 1.0), flip=False, count=2, side=16):
    images = torch.zeros(count, 3, side, side)
    return View("v1", "global", images, torch.tensor(box).expand(count, 4), torch.full((count,), flip), masks)


def test_frozen_mlp_is_the_learned_maps_network_and_never_moves():
    torch.manual_seed(0)
    learned = SaliencyMLP(6)
    torch.manual_seed(0)
    frozen = FrozenMLP(6)
    maps = torch.randn(2, 6, 3, 4, requires_grad=True)
    assert torch.equal(frozen(maps), learned(maps))
    frozen(maps).sum().backward()
    assert maps.grad.abs().sum() > 0 and not any(p.requires_grad for p in frozen.parameters())


def test_frozen_mlps_gain_is_that_of_the_last_layer():
    torch.manual_seed(0)
    plain = FrozenMLP(6)
    torch.manual_seed(0)
    strong = FrozenMLP(6, gain=5.0)
    maps = torch.randn(2, 6, 3, 4)
    bias = plain.mlp.layers[-1].bias
    torch.testing.assert_close(strong(maps).logit() - bias, 5 * (plain(maps).logit() - bias), rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="FrozenMLP's gain is a number above 0, not 0"):
        FrozenMLP(6, gain=0)


def test_centre_prior_of_a_whole_image_by_hand():
    found = CentrePrior(sigma=0.3)(torch.zeros(2, 6, 4, 5))
    assert found.shape == (2, 4, 5)
    for y, x in [(0, 0), (1, 2), (3, 4)]:
        squared = ((x + 0.5) / 5 - 0.5) ** 2 + ((y + 0.5) / 4 - 0.5) ** 2
        assert found[1, y, x].item() == pytest.approx(math.exp(-squared / 0.18), rel=1e-5)


def test_centre_prior_of_a_crop_shows_the_images_centre_through_rectangle_and_flip():
    source = CentrePrior(sigma=0.1)
    left = source(torch.zeros(2, 6, 8, 8), view(box=(0.5, 0.5, 1.0, 1.0)))[0]
    assert left.flatten().argmax() == 0  # the image's centre is the crop's upper left corner
    mirrored = source(torch.zeros(2, 6, 8, 8), view(box=(0.5, 0.5, 1.0, 1.0), flip=True))[0]
    torch.testing.assert_close(mirrored, left.flip(1))


def test_other_images_map_is_the_next_ones():
    torch.manual_seed(0)
    other = OtherImage(6)
    maps = torch.randn(3, 6, 4, 4)
    own = SaliencyMLP.forward(other, maps)
    assert torch.equal(other(maps, view(count=3)), own[[2, 0, 1]])
    assert torch.equal(other(maps), own)  # scored: each image's own
    with pytest.raises(UsageError, match="needs a batch of at least 2 images"):
        other(maps[:1], view(count=1))


def test_oracle_is_the_share_of_the_mask_and_leaves_two_regions():
    masks = torch.zeros(2, 16, 16)
    masks[0, :8, :4] = 1
    found = OracleMask()(torch.zeros(2, 6, 4, 4), view(masks))
    assert found[0, 0, 0].item() == pytest.approx(0.98) and found[0, 3, 3].item() == pytest.approx(0.02)
    assert 0 < found.min() and found.max() < 1
    masks[1, :2, :4] = 1
    assert OracleMask()(torch.zeros(2, 6, 4, 4), view(masks))[1, 0, 0].item() == pytest.approx(0.5)


def test_oracle_says_what_it_is_and_what_it_misses():
    assert (OracleMask.needs, OracleMask.supervision) == ("masks", "oracle")
    assert OracleMask()(torch.zeros(1, 6, 4, 4)) is None
    with pytest.raises(UsageError, match="the oracle map needs images with masks; this data set has none"):
        OracleMask()(torch.zeros(2, 6, 4, 4), view())


def test_scd_with_an_oracle_takes_the_crops_own_masks_and_has_no_map_of_its_own():
    """The masks that the view maker cuts are those that the triplets use, at every position of the feature map."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=random, dtype=torch.uint8)
    masks = (torch.rand(4, 32, 32, generator=random) > 0.5).to(torch.uint8)
    method = SCD(MoCo(build_backbone("resnet_tiny"), dim=8, queue_size=16, bn_groups=1), OracleMask())
    views = ViewMaker(build_recipe("mocov2", 24), 0, masks=method.needs == "masks")(images, 0, masks=masks)
    regions = method.online_regions(method.siamese.encode(views).online["v1"], views["v1"])
    expected = torch.nn.functional.avg_pool2d(views["v1"].masks[:, None], 4)[:, 0].clamp(0.02, 0.98)
    torch.testing.assert_close(regions.map, expected)
    assert method.saliency(views["v1"].images) is None
    assert torch.isfinite(method(views)["loss"])


# ---------------------------------------------------------------- polarity


def test_border_contrast_by_hand():
    bump = torch.zeros(1, 4, 4)
    bump[0, 1:3, 1:3] = 1
    assert border_contrast(bump).item() == 1.0 and border_contrast(1 - bump).item() == -1.0
    assert border_contrast(torch.rand(3, 2, 2)).tolist() == [0, 0, 0]


def test_settled_map_turns_when_the_border_is_high_and_stays_so_in_evaluation():
    torch.manual_seed(0)
    source = SettledMap(6, momentum=0.5).train()
    places = torch.zeros(2, 6, 5, 5)
    places[:, 0, 1:4, 1:4] = 3.0
    raw = source.source(places)
    high_inside = border_contrast(raw.detach()).mean() > 0
    first = source(places, view())
    expected = raw if high_inside else 1 - raw
    torch.testing.assert_close(first, expected)
    assert border_contrast(first.detach()).mean() > 0  # whichever it was, the inside is the foreground now
    source.eval()
    before = source.inside_minus_border.clone()
    torch.testing.assert_close(source(places), expected)
    assert torch.equal(source.inside_minus_border, before)


def test_settled_map_decides_by_the_mean_of_many_and_not_by_one_image():
    torch.manual_seed(0)
    source = SettledMap(6, momentum=0.9).train()
    source.inside_minus_border.fill_(-0.5)
    bump = torch.zeros(2, 6, 5, 5)
    bump[:, :, 1:4, 1:4] = 3.0
    torch.testing.assert_close(source(bump, view()), 1 - source.source(bump))
