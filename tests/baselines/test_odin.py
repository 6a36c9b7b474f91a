"""Odin: k-means against loops, regions in two views by colour and geometry, and DetCon's loss on them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from view_images import batch_of, coordinate_images, random_images

from baselines import odin as odin_module
from baselines.detcon import DetCon
from baselines.odin import Odin, carried, first_centroids, k_means
from scd.data.cut_views import WHOLE, cut, rectangles_inside, whole_images
from scd.data.recipes import build_recipe
from scd.data.views import ViewMaker
from scd.errors import UsageError
from scd.method import Batch, View, whole_view
from scd.nn.backbone import build_backbone
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD
from scd.training.step import take_step

COUNT, SIDE = 6, 16
OPTIONS = {"size": SIDE, "whole_size": SIDE, "clusters": 4, "dim": 6, "hidden": 10, "regions": 5, "momentum": 0.9}


def odin(backbone=None, **options) -> Odin:
    """An Odin whose target networks differ from their online ones."""
    torch.manual_seed(0)
    backbone = build_backbone("resnet_tiny", widths=(4, 6), strides=(1, 2)) if backbone is None else backbone
    method = Odin(backbone, **{**OPTIONS, **options}).train()
    for parameter in method.parameters():
        if not parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def whole_batch(images: Tensor) -> Batch:
    return ViewMaker(build_recipe("single", images.shape[2], scale=[1.0, 1.0]), 0)(batch_of(images), 0)


def some_batch() -> Batch:
    return whole_batch(random_images(COUNT))


def outputs(method, batch=None, seed=5):
    torch.manual_seed(seed)
    return method(some_batch() if batch is None else batch)


def views_of(method, batch=None, seed=5):
    torch.manual_seed(seed)
    return method.views(whole_images(some_batch() if batch is None else batch))


class Colours(nn.Module):
    """A backbone that shows each position the colours of its 2 x 2 pixels."""

    dim = 3

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.scale * nn.functional.avg_pool2d(images, 2)


def colours(images: Tensor) -> Tensor:
    """Normalised images in [0, 1]."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return images * std + mean


# -------------------------------------------------------------------- k-means


def distance(a, b):
    return float(((a - b) ** 2).sum())


def k_means_by_loops(points, numbers, iterations):
    """Labels of one image, and whether a cluster was without points before a centroid moved."""
    centroids = [points[int(numbers[0] * len(points))]]
    for number in numbers[1:]:
        weights = [min(distance(p, c) for c in centroids) for p in points]
        reached, target, chosen = 0.0, number * sum(weights), len(points) - 1
        for place, weight in enumerate(weights):
            reached += weight
            if reached > target:
                chosen = place
                break
        centroids.append(points[chosen])
    empty = False
    for _ in range(iterations):
        labels = [int(np.argmin([distance(p, c) for c in centroids])) for p in points]
        for k in range(len(centroids)):
            members = [p for p, label in zip(points, labels, strict=True) if label == k]
            empty = empty or not members
            centroids[k] = sum(members) / len(members) if members else centroids[k]
    return [int(np.argmin([distance(p, c) for c in centroids])) for p in points], empty


@pytest.mark.parametrize("iterations", [1, 4])
@pytest.mark.parametrize("whole_numbers", [False, True])
def test_k_means_equals_loops(iterations, whole_numbers):
    """Whole numbers give equal points, ties and clusters without points."""
    draw = torch.Generator().manual_seed(1)
    points = torch.randn(30, 12, 2, generator=draw, dtype=torch.float64)
    points = points.round() if whole_numbers else points
    numbers = torch.rand(30, 7, generator=draw, dtype=torch.float64)
    found = k_means(points, numbers, iterations)
    expected = [k_means_by_loops(*image, iterations) for image in zip(points.numpy(), numbers.tolist(), strict=True)]
    assert found.tolist() == [labels for labels, _ in expected]
    assert any(empty for _, empty in expected) == whole_numbers


def test_k_means_finds_groups_that_lie_apart():
    """In almost all images: a start without one of the groups may end in another minimum."""
    draw = torch.Generator().manual_seed(2)
    truth = torch.arange(4).repeat_interleave(10)
    centres = torch.tensor([[9.0, 0.0], [0.0, 9.0], [-9.0, 0.0], [0.0, -9.0]])
    points = centres[truth] + torch.randn(50, 40, 2, generator=draw)
    found = k_means(points, torch.rand(50, 4, generator=draw), 10)
    same = (found[:, :, None] == found[:, None]) == (truth[:, None] == truth)  # pairs of points, together or apart
    assert same.flatten(1).all(dim=1).float().mean() > 0.95


def test_fewer_different_points_than_clusters_leave_clusters_empty():
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    found = k_means(torch.stack([points, points[:1].expand(4, 2)]), torch.full((2, 6), 0.99), 5)
    assert len(set(found[0].tolist())) == 3 and found[0, 0] == found[0, 2]
    assert len(set(found[1].tolist())) == 1


def test_first_centroids_are_drawn_by_squared_distance():
    points = torch.tensor([[0.0], [1.0], [3.0]]).expand(1000, 3, 1)
    numbers = torch.stack([torch.zeros(1000), (torch.arange(1000) + 0.5) / 1000], dim=1)
    drawn = first_centroids(points, numbers)[:, :, 0]
    assert (drawn[:, 0] == 0).all() and (drawn[:, 1] == 1).sum() == 100 and (drawn[:, 1] == 3).sum() == 900


# -------------------------------------------------------------------- regions


def test_a_pixel_has_the_region_of_its_place_in_the_image():
    """Red and green are x and y of the image; the grid has 4 rows and 5 columns, and views are mirrored or not."""
    whole = whole_images(whole_batch(coordinate_images(20)))
    torch.manual_seed(1)
    rectangles = rectangles_inside(torch.tensor(WHOLE).expand(20, 4), (0.1, 0.8))
    view = cut(whole, rectangles, 24, "none", "v1")
    assert 0 < view.flips.sum() < 20
    found = carried(torch.arange(20).view(1, 4, 5).expand(20, -1, -1), view, 24)
    x, y = colours(view.images)[:, :2].unbind(dim=1)
    near = [(places * cells - (places * cells).round()).abs() < 0.08 for places, cells in ((x, 5), (y, 4))]
    expected = (y * 4).floor() * 5 + (x * 5).floor()
    clear = ~(near[0] | near[1])
    assert clear.float().mean() > 0.6 and torch.equal(found[clear], expected[clear].long())


def test_the_same_region_is_the_same_part_of_the_image_in_both_views(monkeypatch):
    """Images of four colours have four regions, which both views show with the same ids."""
    monkeypatch.setattr(odin_module, "PHOTOMETRICS", {"v1": "none", "v2": "none"})
    parts = torch.arange(4).view(2, 2).repeat_interleave(24, 0).repeat_interleave(24, 1)
    palette = torch.tensor([[250, 20, 20], [20, 250, 20], [20, 20, 250], [240, 240, 240]], dtype=torch.uint8)
    images = palette[parts].permute(2, 0, 1).expand(COUNT, -1, -1, -1).contiguous()
    batch = whole_batch(images)
    assert 0 < batch.views["v1"].flips.sum() < COUNT
    views = views_of(odin(Colours(), scale=(0.3, 1.0)), batch)
    for image in range(COUNT):
        regions = {}
        for view in views.values():
            shown = colours(view.images)[image].permute(1, 2, 0)
            clear = (shown[:, :, None] - palette / 255).abs().amax(dim=3) < 0.02  # (s, s, 4)
            for k in range(4):
                regions.setdefault(k, set()).update(view.segments[image][clear[:, :, k]].tolist())
        assert all(len(ids) == 1 for ids in regions.values()) and len(set.union(*regions.values())) == 4


def test_regions_come_from_the_momentum_network_without_changing_it():
    method = odin()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    segments = torch.stack([view.segments for view in views_of(method).values()])
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(module.training for module in method.modules())
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert torch.equal(segments, torch.stack([view.segments for view in views_of(method).values()]))
    with torch.no_grad():
        for parameter in method.target_backbone.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert not torch.equal(segments, torch.stack([view.segments for view in views_of(method).values()]))


def test_an_images_regions_do_not_depend_on_the_colours_of_its_views_nor_on_other_images(monkeypatch):
    method, batch = odin(), some_batch()
    found = {}

    def recorded(found_by, view, side):
        found[view.name] = found_by
        return carried(found_by, view, side)

    monkeypatch.setattr(odin_module, "carried", recorded)
    views_of(method, batch)
    first = found["v1"].clone()
    assert torch.equal(found["v1"], found["v2"]) and first.shape == (COUNT, 4, 4)
    monkeypatch.setattr(odin_module, "PHOTOMETRICS", {"v1": "none", "v2": "none"})
    batch.views["v1"].images[1:] += torch.randn(COUNT - 1, 3, 1, 1)
    views_of(method, batch)
    assert torch.equal(found["v1"][0], first[0]) and not torch.equal(found["v1"][1:], first[1:])


def test_regions_and_loss_depend_on_the_generator_alone():
    losses = [outputs(odin(), seed=seed)["loss"].item() for seed in (5, 5, 6)]
    assert losses[0] == losses[1] != losses[2]
    segments = [views_of(odin(), seed=seed)["v1"].segments for seed in (5, 5, 6)]
    assert torch.equal(segments[0], segments[1]) and not torch.equal(segments[0], segments[2])


# -------------------------------------------------------------------- the loss


def test_the_loss_is_detcons_on_the_views_with_these_regions():
    method = odin()
    reference = DetCon(
        build_backbone("resnet_tiny", widths=(4, 6), strides=(1, 2)), dim=6, hidden=10, regions=5, momentum=0.9
    ).train()
    reference.load_state_dict(method.state_dict())
    torch.manual_seed(5)
    views = method.views(whole_images(some_batch()))
    expected = reference(Batch(views))
    found = outputs(method)
    assert found["loss"] > 0 and torch.equal(found["loss"], expected["loss"])
    shares = [
        max((image == own).float().mean().item() for own in range(4))
        for view in views.values()
        for image in view.segments
    ]
    assert found["largest_region"].item() == pytest.approx(np.mean(shares), rel=1e-6)
    assert set(found) == {*expected, "largest_region"} and list(views) == ["v1", "v2"]


def test_maps_without_any_contrast_have_one_region_and_a_finite_step():
    class Constant(Colours):
        def forward(self, images):
            return super().forward(images) * 0 + self.scale

    method = odin(Constant())
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    found = take_step(method, method, some_batch(), optimizer, 0.5)
    assert found["regions"] == 1 and found["largest_region"] == 1 and found["matched_regions"] == 1
    assert torch.isfinite(found["loss"]) and all(torch.isfinite(p).all() for p in method.parameters())


def test_views_have_byols_photometrics_and_the_asked_sizes(monkeypatch):
    seen = []

    def recorded(whole, rectangles, size, distribution, name, **options):
        seen.append((name, size, distribution, options.get("flip", 0.5), options.get("blur_reference")))
        return cut(whole, rectangles, size, distribution, name, **options)

    monkeypatch.setattr(odin_module, "cut", recorded)
    views = views_of(odin(whole_size=20, scale=(0.2, 0.4), blur_reference=32.0))
    assert seen == [
        ("whole", 20, "none", 0.0, None), ("v1", SIDE, "byol1", 0.5, 32.0), ("v2", SIDE, "byol2", 0.5, 32.0)
    ]  # fmt: skip
    for view in views.values():
        assert view.images.shape == (COUNT, 3, SIDE, SIDE) and view.segments.shape == (COUNT, SIDE, SIDE)
        areas = (view.rectangles[:, 2:] - view.rectangles[:, :2]).prod(dim=1)
        assert areas.min() >= 0.2 - 1e-4 and areas.max() <= 0.4 + 1e-4
    assert not torch.equal(views["v1"].rectangles, views["v2"].rectangles)


def test_a_step_in_bfloat16_stays_close_to_float32():
    """The same images may have other regions at their borders."""
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses.append(outputs(odin())["loss"])
    assert losses[1].dtype == torch.float32
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.15)


# -------------------------------------------------------------------- settings


def test_settings_are_detcons_where_it_has_them():
    method, reference = (kind(Colours()) for kind in (Odin, DetCon))
    for name in ("regions", "base_momentum", "momentum_schedule", "symmetric"):
        assert getattr(method, name) == getattr(reference, name)
    assert method.matcher.temperature == reference.matcher.temperature == 0.1
    assert [p.shape for p in method.parameters()] == [p.shape for p in reference.parameters()]
    assert Odin.needs == method.needs == frozenset() and method.supervision == "none"
    assert method.saliency(whole_view(torch.zeros(2, 3, 8, 8))) is None


def test_wrong_settings_and_views_are_refused():
    for option, value, words in [
        ("size", 0, "Odin's size is 1 or more, not 0"),
        ("whole_size", 0, "Odin's whole_size is 1 or more, not 0"),
        ("iterations", 0, "Odin's iterations is 1 or more, not 0"),
        ("scale", (0.5, 0.2), r"Odin's scale is two ascending shares in \(0, 1\], not \[0.5, 0.2\]"),
        ("clusters", 1, "Odin divides an image into 2 clusters or more, not 1"),
        ("regions", 0, "DetCon draws 1 region or more from each view, not 0"),
    ]:
        with pytest.raises(UsageError, match=words):
            odin(**{option: value})
    views = {name: whole_view(torch.randn(COUNT, 3, SIDE, SIDE), name) for name in ("v1", "v2")}
    with pytest.raises(UsageError, match="needs one view of whole images"):
        odin()(Batch(views))
    part: View = replace(views["v1"], rectangles=views["v1"].rectangles * 0.9)
    with pytest.raises(UsageError, match="needs one view of whole images"):
        odin()(Batch({"v1": part}))
