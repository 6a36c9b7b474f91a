"""SGCL: its loss by loops, where its crops lie, its saliency and warm-up, and what several processes make of it."""

import copy
import math
import os
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_moco import BATCH, ONE, SIDE, WHOLE, Patches, moco, views_at, with_moved_targets
from torch import nn
from two_processes import assert_two_processes_equal_one
from view_images import batch_of, coordinate_images, random_images

from baselines.byol import BYOL
from baselines.moco import MoCo
from baselines.sgcl import SGCL, around, drawn_places, info_nce_rows, mean_inside, over_the_mean
from scd.data.cut_views import rectangles_inside, whole_images
from scd.data.recipes import build_recipe
from scd.data.views import ViewMaker
from scd.errors import UsageError
from scd.method import Batch
from scd.nn.backbone import build_backbone
from scd.nn.losses import info_nce
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD
from scd.profiling.flops import forward_flops, training_flops

COUNT = 8


def whole_batch(images):
    return ViewMaker(build_recipe("single", images.shape[2], scale=[1.0, 1.0]), 0)(batch_of(images), 0)


def small_sgcl(bn_groups=1, symmetric=False, **options):
    torch.manual_seed(0)
    net = build_backbone("resnet_tiny", widths=(8, 8), strides=(1, 2))
    host = MoCo(net, 8, 12, 32, 0.9, symmetric=symmetric, bn_groups=bn_groups)
    options = {"photometric": "none", "warmup": 0.0, "uniform_share": 0.0, **options}
    return SGCL(host, size=SIDE, **options).train()


def seen_by(method, batch, seed=0):
    """The views and weights of a step, and its outputs."""
    seen = {}
    whole_loss = method.weighted_loss

    def weighted_loss(views, weights):
        seen.update(views=views, weights=weights)
        return whole_loss(views, weights)

    method.weighted_loss = weighted_loss
    torch.manual_seed(seed)
    found = method(batch)
    del method.weighted_loss
    return seen["views"], seen["weights"], found


# -------------------------------------------------------------------- the loss


def rows_by_hand(host, view, other):
    """-log of the softmax of the positive, for each image, by loops."""
    numpy = [
        head(net(images.images).mean(dim=(2, 3))).detach().double().numpy()
        for net, head, images in (
            (host.backbone, host.projector, view),
            (host.target_backbone, host.target_projector, other),
        )
    ]
    queue, found = host.matcher.queue.keys.double().numpy(), []
    for q, k in zip(*numpy, strict=True):
        q, k = q / np.linalg.norm(q), k / np.linalg.norm(k)
        scores = [math.exp(q @ n / host.matcher.temperature) for n in (k, *queue)]
        found.append(-math.log(scores[0] / sum(scores)))
    return found


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_is_the_weighted_mean_of_each_images_infonce(symmetric):
    method, views = SGCL(moco(symmetric), size=SIDE), views_at(ONE, ONE)
    with torch.no_grad():
        with_moved_targets(method)
    weights = torch.tensor([0.2, 0.0, 1.8, 2.0])
    loss = method.weighted_loss(views, weights)
    pairs = [("v1", "v2")] + ([("v2", "v1")] if symmetric else [])
    rows = [rows_by_hand(method.siamese, views[i], views[j]) for i, j in pairs]
    expected = np.mean([[w * row for w, row in zip(weights.tolist(), own, strict=True)] for own in rows])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize("symmetric", [False, True])
def test_equal_weights_give_the_hosts_loss_and_queue(symmetric):
    method, host, views = SGCL(moco(symmetric), size=SIDE), moco(symmetric), views_at(ONE, ONE)
    loss = method.weighted_loss(views, torch.ones(BATCH))
    torch.testing.assert_close(loss, host(Batch(views))["loss"])
    method.after_step(0.5)
    host.after_step(0.5)
    for name, value in host.state_dict().items():
        assert torch.equal(method.siamese.state_dict()[name], value), name


def test_rows_have_the_mean_of_infonce():
    torch.manual_seed(1)
    q, k, n = (nn.functional.normalize(torch.randn(count, 5, dtype=torch.float64), dim=1) for count in (6, 6, 9))
    torch.testing.assert_close(info_nce_rows(q, k, n, 0.2).mean(), info_nce(q, k, n, 0.2))


def mean_by_hand(saliency, rectangle, points=400):
    """Mean of a map inside a rectangle, at many points of it."""
    h, w = saliency.shape
    shares = (np.arange(points) + 0.5) / points
    x0, y0, x1, y1 = rectangle.tolist()
    rows = ((y0 + shares * (y1 - y0)) * h).astype(int)
    columns = ((x0 + shares * (x1 - x0)) * w).astype(int)
    return saliency.numpy()[np.ix_(rows, columns)].mean()


def test_weights_are_the_saliency_inside_both_crops_over_its_mean():
    method, batch = small_sgcl(uniform_share=0.5), whole_batch(random_images(COUNT))
    saliency = method.target_saliency(whole_images(batch).images)
    views, weights, found = seen_by(method, batch)
    inside = [
        np.mean([mean_by_hand(saliency[b], view.rectangles[b].clamp(max=1 - 1e-6)) for view in views.values()])
        for b in range(COUNT)
    ]
    np.testing.assert_allclose(weights.numpy(), inside / np.mean(inside), atol=5e-3)
    assert weights.mean().item() == pytest.approx(1.0, abs=1e-5) and weights.std() > 0.01
    assert found["saliency_inside"].item() == pytest.approx(np.mean(inside), abs=5e-3)
    assert not any(value.requires_grad for name, value in found.items() if name != "loss")
    assert not weights.requires_grad


def test_without_any_saliency_the_weights_are_1():
    assert torch.equal(over_the_mean(torch.zeros(3)), torch.ones(3))
    assert torch.allclose(over_the_mean(torch.tensor([1.0, 3.0])), torch.tensor([0.5, 1.5]))


# -------------------------------------------------------------------- crops


def test_places_are_drawn_in_proportion_to_the_map():
    torch.manual_seed(1)
    saliency = torch.tensor([[0.0, 0.2, 0.0], [0.5, 0.0, 1.0]])
    places = drawn_places(saliency.expand(6000, 2, 3), torch.rand(6000, 3))
    columns, rows = (places * torch.tensor([3.0, 2.0])).long().unbind(dim=1)
    counted = torch.zeros(2, 3).index_put((rows, columns), torch.tensor(1.0), accumulate=True)
    assert not counted[saliency == 0].any()
    torch.testing.assert_close(counted / 6000, saliency / 1.7, atol=0.02, rtol=0)
    inside = places * torch.tensor([3.0, 2.0]) % 1  # in the cell
    assert torch.allclose(inside.mean(dim=0), torch.tensor(0.5), atol=0.02)
    ends = drawn_places(saliency.expand(2, 2, 3), torch.tensor([[0.0, 0.0, 0.0], [1 - 1e-7, 0.0, 0.0]]))
    torch.testing.assert_close(ends, torch.tensor([[1 / 3, 0.0], [2 / 3, 0.5]]))


def test_crops_are_centred_on_the_salient_cell_and_show_it():
    """One salient cell, left of the middle and far up: a mirrored or transposed map would send the crops elsewhere."""
    method, images = small_sgcl(scale=(0.2, 0.25)), coordinate_images(40)
    saliency = torch.zeros(40, 8, 8)
    saliency[:, 0, 3] = 1
    method.target_saliency = lambda images: saliency
    views, weights, found = seen_by(method, whole_batch(images))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    assert found["guided"] == 1
    for view in views.values():
        centre = (view.rectangles[:, :2] + view.rectangles[:, 2:]) / 2
        sides = view.rectangles[:, 2:] - view.rectangles[:, :2]
        assert (centre[:, 0] > 3 / 8 - 1e-5).all() and (centre[:, 0] < 4 / 8 + 1e-5).all()
        assert torch.allclose(view.rectangles[:, 1], torch.zeros(40))  # moved into the image
        assert (sides.prod(dim=1) > 0.199).all() and (sides.prod(dim=1) < 0.251).all()
        shown = (view.images * std + mean)[:, :2].permute(0, 2, 3, 1)[:, 1:-1, 1:-1]
        assert torch.allclose(shown, view.grid(SIDE, SIDE)[:, 1:-1, 1:-1], atol=0.02)


def test_the_uniform_share_of_crops_are_the_hosts():
    method = small_sgcl(uniform_share=0.5)
    saliency = torch.zeros(400, 8, 8)
    saliency[:, 7, 7] = 1
    whole = whole_images(whole_batch(random_images(400, SIDE)))
    torch.manual_seed(2)
    views, guided = method.views(whole, saliency, 0.5)
    torch.manual_seed(2)
    uniform = rectangles_inside(torch.tensor([WHOLE]).expand(400, 4), method.scale)
    same = (views["v1"].rectangles == uniform).all(dim=1)
    assert guided.item() == pytest.approx(0.5, abs=0.06) and same.float().mean().item() == pytest.approx(0.5, abs=0.08)
    corner = views["v1"].rectangles[~same][:, 2:]
    assert torch.allclose(corner, torch.ones_like(corner))


def test_rectangles_around_a_place_keep_their_sides_and_stay_inside():
    rectangles = torch.tensor([[0.0, 0.0, 0.5, 0.25]]).expand(3, 4)
    places = torch.tensor([[0.5, 0.5], [0.1, 0.95], [0.99, 0.0]])
    expected = torch.tensor([[0.25, 0.375, 0.75, 0.625], [0.0, 0.75, 0.5, 1.0], [0.5, 0.0, 1.0, 0.25]])
    torch.testing.assert_close(around(places, rectangles), expected)


def test_means_inside_rectangles_are_those_of_many_points():
    torch.manual_seed(3)
    maps, corners = torch.rand(20, 5, 7), torch.rand(20, 2, 2)
    rectangles = torch.cat([corners.amin(dim=1) * 0.5, 0.5 + corners.amax(dim=1) * 0.499], dim=1)
    expected = [mean_by_hand(own, rectangle) for own, rectangle in zip(maps, rectangles, strict=True)]
    np.testing.assert_allclose(mean_inside(maps, rectangles).numpy(), expected, atol=5e-3)
    assert mean_inside(maps, torch.tensor([WHOLE]).expand(20, 4)).allclose(maps.mean(dim=(1, 2)))


# -------------------------------------------------------------------- saliency


def test_saliency_is_the_momentum_backbones_channel_mean_in_eval_mode_and_leaves_it_as_it_is():
    method = small_sgcl(bn_groups=2)
    with torch.no_grad():
        with_moved_targets(method)
        method.siamese.target_backbone(torch.randn(8, 3, 32, 32))  # running statistics that are not the first ones
    method.siamese.target_backbone.trunk[0].eval()  # a part with a mode of its own
    before = copy.deepcopy(method.state_dict())
    modes = [part.training for part in method.modules()]
    images = torch.rand(COUNT, 3, 48, 48)
    found = method.target_saliency(images)
    assert [part.training for part in method.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    network = copy.deepcopy(method.siamese.target_backbone).eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    maps = network((images - mean) / std).mean(dim=1)
    for own, expected in zip(found, maps, strict=True):
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        torch.testing.assert_close(own, expected.detach(), rtol=1e-4, atol=1e-5)
    assert not found.requires_grad
    torch.testing.assert_close(method.target_saliency(images[2:3]), found[2:3], rtol=1e-4, atol=1e-5)
    nn.init.zeros_(method.siamese.backbone.trunk[0].weight)  # the online network has no part in it
    assert torch.equal(method.target_saliency(images), found)


def test_a_constant_map_counts_as_a_half():
    method = SGCL(moco(), size=SIDE)
    nn.init.zeros_(method.siamese.target_backbone.conv.weight)
    assert (method.target_saliency(torch.rand(2, 3, SIDE, SIDE)) == 0.5).all()


# -------------------------------------------------------------------- warm-up


def test_in_the_warm_up_it_is_the_host_on_uniform_crops():
    method, batch = small_sgcl(warmup=0.25), whole_batch(random_images(COUNT))
    views, weights, found = seen_by(method, batch)
    assert found["guided"] == 0 and (weights == 1).all()
    torch.testing.assert_close(found["loss"], small_sgcl().siamese(Batch(views))["loss"])
    for progress, guided in [(0.2, 0), (0.25, 1), (0.9, 1)]:
        with torch.no_grad():
            method.after_step(progress)
        resumed = small_sgcl(warmup=0.25)
        resumed.load_state_dict(method.state_dict())
        for each in (method, resumed):
            _, weights, found = seen_by(each, batch)
            assert found["guided"] == guided and (weights != 1).any() == bool(guided)


def test_a_step_costs_the_hosts_and_one_pass_of_whole_images():
    method = small_sgcl()
    plain = training_flops(method.siamese, build_recipe("mocov2", SIDE), 8)
    whole = forward_flops(method.siamese.target_backbone, (8, 3, 48, 48))
    found = training_flops(method, build_recipe("single", 48, scale=[1.0, 1.0]), 8)
    assert found.backward == plain.backward and found.forward == plain.forward + whole


# -------------------------------------------------------------------- several processes


class Images:
    """Whole images in float64, one set for each step; a process's rows are those of the whole batch in one process."""

    steps_at_once = 1
    steps_per_epoch = 4

    def iterate(self, start, stop, rank=0, world=1):
        for step in range(start, stop):
            yield SimpleNamespace(step=step, total=8, rows=slice(rank * 8 // world, (rank + 1) * 8 // world))

    def several(self, batches, steps):
        return [self.make(batch) for batch in batches]

    def make(self, batch):
        whole = whole_batch(random_images(8 * (batch.step + 1))[-8:]).views["v1"]
        return Batch({"v1": replace(whole, images=whole.images.double()).part(batch.rows)})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="two processes without a second import of torch need fork")
def test_two_processes_equal_one_with_two_groups(tmp_path):
    """Weights are relative to the mean over both processes."""
    assert_two_processes_equal_one(partial(small_sgcl, warmup=0.2, uniform_share=0.5), Images(), tmp_path, 1e-6)


# -------------------------------------------------------------------- settings


def test_wrong_settings_and_views_are_refused():
    with pytest.raises(UsageError, match="SGCL weights the rows of MoCo's loss and needs MoCo, not BYOL"):
        SGCL(BYOL(Patches(), 6, 10))
    for option, value, words in [
        ("size", 0, "the size of SGCL's views is 1 pixel or more, not 0"),
        ("scale", (0.5, 0.2), r"two ascending shares in \(0, 1\], not \[0.5, 0.2\]"),
        ("uniform_share", 1.5, r"SGCL's uniform_share is a share in \[0, 1\], not 1.5"),
        ("warmup", -0.1, r"SGCL's warmup is a share in \[0, 1\], not -0.1"),
        ("photometric", "moco", "unknown photometric"),
    ]:
        with pytest.raises(UsageError, match=words):
            SGCL(moco(), **{option: value})
    with pytest.raises(UsageError, match="needs one view of whole images: views.recipe=single"):
        small_sgcl()(Batch(views_at(ONE, ONE)))
    assert SGCL.needs == SGCL(moco()).needs == frozenset() and SGCL(moco()).supervision == "none"
