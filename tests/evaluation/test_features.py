"""Feature and map extraction: what is pooled, and that the network is left as it was found."""

import pytest
import torch
from tiny_evaluation import Evaluated
from torch import nn

from scd.data.recipes import centre_view
from scd.errors import UsageError
from scd.evaluation.features import evaluation_views, extract, extract_maps, extract_saliency


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.still = nn.BatchNorm2d(6).eval()
        self.dim = 6

    def forward(self, images):
        return self.still(self.norm(self.conv(images)))


class Mapped(Evaluated):
    def __init__(self, scale=1.0):
        super().__init__()
        self.backbone = Backbone()
        self.scale = scale

    def saliency(self, view):
        return None if self.scale is None else self.scale * self.backbone(view.images).mean(dim=1).sigmoid()


@pytest.fixture
def images():
    return torch.randint(0, 256, (10, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_features_are_pooled_maps_of_the_centre_view(images):
    backbone = Backbone()
    features = extract(backbone, images, size=12)
    with torch.no_grad():
        expected = backbone.eval()(centre_view(images, 12)).flatten(2).mean(dim=2)
    assert features.shape == (10, 6) and features.dtype == torch.float32
    torch.testing.assert_close(features, expected)


def test_batches_do_not_matter_and_the_network_is_left_as_it_was(images):
    backbone = Backbone().train()
    backbone.still.eval()
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    whole = extract(backbone, images, size=12)
    torch.testing.assert_close(extract(backbone, images, size=12, batch=3), whole)
    assert not whole.requires_grad
    assert backbone.training and backbone.norm.training and not backbone.still.training
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())


def test_modes_come_back_after_an_error(images):
    method = Mapped(scale=2.0).train()
    with pytest.raises(UsageError, match=r"Mapped.saliency gave values outside \[0, 1\]"):
        extract_saliency(method, images, size=12)
    assert method.training and method.backbone.norm.training


def test_maps_or_none(images):
    maps = extract_saliency(Mapped(), images, size=12, batch=4)
    assert maps.shape == (10, 5, 5)
    assert extract_saliency(Mapped(scale=None), images, size=12) is None


def test_non_finite_features_and_maps_are_refused(images):
    method = Mapped()
    with torch.no_grad():
        method.backbone.conv.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(UsageError, match="not finite"):
        extract(method.backbone, images, size=12)
    with pytest.raises(UsageError, match="outside"):
        extract_saliency(method, images, size=12)


def test_no_images_are_refused(images):
    with pytest.raises(UsageError, match="there are no images to evaluate"):
        extract(Backbone(), images[:0], size=12)


def test_views_are_whole_images_without_masks(images):
    views = list(evaluation_views(images, 12, batch=4))
    assert [len(view.images) for view in views] == [4, 4, 2]
    assert torch.equal(torch.cat([view.images for view in views]), centre_view(images, 12))
    for view in views:
        assert view.rectangles.tolist() == [[0, 0, 1, 1]] * len(view.images)
        assert not view.flips.any() and view.masks is None


def test_maps_are_those_of_the_test_time_view_for_any_output_of_a_backbone(images):
    class Both(nn.Module):
        def forward(self, views):
            maps = nn.functional.avg_pool2d(views, 3)
            return maps, 2 * maps.mean(dim=(2, 3))

    maps = extract_maps(nn.AvgPool2d(3), images, 12, batch=3)
    assert maps.shape == (10, 3, 4, 4)
    torch.testing.assert_close(maps, nn.functional.avg_pool2d(centre_view(images, 12), 3))
    assert torch.equal(maps, extract_maps(Both(), images, 12, batch=3))
    torch.testing.assert_close(extract(Both(), images, 12), 2 * extract(nn.AvgPool2d(3), images, 12))


def test_a_batch_of_one_image_is_no_error_for_a_map_of_the_batch(images):
    class Batchwise(Evaluated):
        def saliency(self, view):
            return view.images.mean(dim=1).sigmoid()

    assert extract_saliency(Batchwise(), images[:9], size=12, batch=4).shape == (9, 12, 12)
