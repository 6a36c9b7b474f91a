"""CAST: the official numbers, Grad-CAM and its loss by hand, the crops, and what mixed precision and DDP make of it."""

import math
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden_numbers import Convolution, assert_same, begin, follow, golden
from golden_numbers import batch as golden_batch
from scipy.stats import truncnorm
from small_moco import BATCH, ONE, SIDE, Patches, moco, views_at, with_moved_targets
from torch import nn
from two_processes import assert_two_processes_equal_one
from view_images import batch_of, coordinate_images, random_images

from baselines.byol import BYOL
from baselines.cast import (
    CAST,
    CONSTRAINED_DRAWS,
    constrained_rectangles,
    containing,
    grad_cam,
    mass_inside,
    min_max,
    reduced,
    truncated_gaussian,
)
from baselines.moco import MoCo
from scd.data.recipes import build_recipe
from scd.data.views import ViewMaker
from scd.errors import UsageError
from scd.method import Batch
from scd.nn.backbone import build_backbone
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD

CANVAS, COUNT = 48, 40


def boxes_of_masks(count=COUNT, side=CANVAS):
    """Masks of one rectangle each, anywhere; 0 beyond."""
    draw, masks = np.random.default_rng(0), torch.zeros(count, side, side)
    for mask in masks:
        x, y = draw.integers(0, side - 8, 2)
        mask[y : y + draw.integers(4, side - y + 1), x : x + draw.integers(4, side - x + 1)] = 1
    return masks


def whole_batch(images, masks):
    given = {} if masks is None else {"masks": masks.to(torch.uint8)}
    maker = ViewMaker(build_recipe("single", images.shape[2], scale=[1.0, 1.0]), 0, needs=frozenset(given))
    return maker(batch_of(images, **given), 0)


def masked_views(dtype=torch.float64):
    """Two views with masks: in image 1 view 1 has none, in image 2 view 2, both in image 0 and 3."""
    masks = torch.zeros(2, BATCH, SIDE, SIDE, dtype=dtype)
    masks[:, 0, 2:9, 5:12] = masks[:, 3, :, 9:] = masks[1, 1, 4:, :7] = masks[0, 2, :6] = 1
    pairs = zip(views_at(ONE, ONE).items(), masks, strict=True)
    return {name: replace(view, images=view.images.to(dtype), masks=own) for (name, view), own in pairs}


# -------------------------------------------------------------------- official code


def golden_views(numbers, step):
    batch = golden_batch(numbers, step)
    for view, masks in (("v1", "m1"), ("v2", "m2")):
        batch.views[view].masks = numbers[masks][step]
    return batch


def test_official_steps_with_the_cosine_over_the_batch():
    numbers = golden("cast")
    method = CAST(MoCo(Convolution(), dim=8, queue_size=12, momentum=0.7, temperature=0.2), cosine="batch").double()
    method.views = lambda batch: batch.views
    begin(method, numbers)
    method.siamese.matcher.queue.keys.copy_(numbers["queue"])
    logs = method(golden_views(numbers, 0))
    assert_same(logs["image_loss"], numbers["image_loss"][0], "InfoNCE")
    assert_same(logs["attention_loss"], numbers["attention_loss"][0], "1 - cosine")
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.5)
    assert len(list(follow(method, optimizer, numbers, golden_views))) == 4


def test_official_reduction_of_masks():
    numbers = golden("cast")
    assert_same(reduced(numbers["reduced.masks"], (7, 7)), numbers["reduced.to"], "masks of the map's size", 1e-6)


def test_official_crops_up_to_their_whole_pixels():
    """From the same random numbers. The official crops are of whole pixels of 240, in each step of their making."""
    numbers = golden("cast")
    masks, draws = numbers["crops.masks"].float(), numbers["crops.draws"].float()
    found = constrained_rectangles(masks, draws, (0.2, 1.0), cover=0.5)
    assert numbers["crops.resort"].sum() >= 5 and not numbers["crops.resort"].all()
    assert (found - numbers["crops.rectangles"]).abs().max() * 240 < 2


# -------------------------------------------------------------------- the loss


def attention_by_hand(method, views):
    """Per image: Grad-CAM by the chain rule, the mask at points, and 1 - cos; None where it does not count."""
    host = method.siamese
    numpy = {name: value.detach().numpy() for name, value in host.named_parameters()}
    w1, b1, w2, b2 = (numpy[f"projector.layers.{name}"] for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    v1, v2 = views.values()
    found = []
    for b in range(BATCH):
        if v1.masks[b].sum() == 0 or v2.masks[b].sum() == 0:
            found.append(None)
            continue
        key = host.target_backbone((v2.images[b] * v2.masks[b])[None]).mean(dim=(2, 3))
        k = host.target_projector(key).detach().numpy()[0]
        k = k / np.linalg.norm(k)
        maps = host.backbone(v1.images[b : b + 1]).detach().numpy()[0]
        hidden = w1 @ maps.mean(axis=(1, 2)) + b1
        q = w2 @ np.maximum(hidden, 0) + b2
        length = np.linalg.norm(q)
        to_q = (k - (q @ k) * q / length**2) / length / host.matcher.temperature
        to_pooled = w1.T @ ((hidden > 0) * (w2.T @ to_q))
        h, w = maps.shape[1:]
        cam = np.array([[sum(to_pooled / (h * w) * maps[:, r, c]) for c in range(w)] for r in range(h)])
        cam = (cam - cam.min()) / (cam.max() - cam.min())
        mask = np.zeros((h, w))
        for r in range(h):
            for c in range(w):
                y, x = r * (SIDE - 1) / (h - 1), c * (SIDE - 1) / (w - 1)
                mask[r, c] = sum(
                    v1.masks[b, i, j] * max(0, 1 - abs(i - y)) * max(0, 1 - abs(j - x))
                    for i in range(SIDE)
                    for j in range(SIDE)
                )
        found.append(1 - (cam * mask).sum() / np.linalg.norm(cam) / np.linalg.norm(mask))
    return found


def test_the_loss_equals_the_chain_rule_and_loops():
    method, views = with_moved_targets_cast(attention_weight=2.0, image_weight=0.5), masked_views()
    found = method.compare(views)
    terms = attention_by_hand(method, views)
    assert [term is None for term in terms] == [False, True, True, False]
    image = method.siamese(Batch(views))["loss"].item()
    attention = (terms[0] + terms[3]) / 2
    assert found["attention_loss"].item() == pytest.approx(attention, rel=1e-9)
    assert found["image_loss"].item() == pytest.approx(image, rel=1e-12)
    assert found["loss"].item() == pytest.approx((0.5 * image + 2.0 * attention) / 2.5, rel=1e-9)
    assert found["with_mask"] == 0.5 and not found["with_mask"].requires_grad


def with_moved_targets_cast(**options):
    torch.manual_seed(3)
    method = CAST(moco(), **options).double()
    with torch.no_grad():
        return with_moved_targets(method)


@pytest.mark.parametrize("cosine", ["image", "batch"])
def test_the_gradient_is_that_of_differences_and_goes_through_grad_cam(cosine):
    """With attention alone, the last layer has a gradient through the gradient only: its bias would have none."""
    method, views = with_moved_targets_cast(cosine=cosine, image_weight=0.0), masked_views()
    method.compare(views)["loss"].backward()
    weights = {
        "backbone": method.siamese.backbone.conv.weight,
        "first": method.siamese.projector.layers[0].weight,
        "last": method.siamese.projector.layers[2].bias,
    }
    for name, weight in weights.items():
        place = weight.grad.flatten().abs().argmax()
        values, losses = weight.data.view(-1), []
        before = values[place].item()
        for step in (-1e-5, 1e-5):
            values[place] = before + step
            losses.append(method.compare(views)["loss"].item())
        values[place] = before
        slope = (losses[1] - losses[0]) / 2e-5
        assert abs(slope) > 1e-6 and weight.grad.flatten()[place].item() == pytest.approx(slope, rel=1e-4), name


def test_without_masks_the_loss_is_the_hosts_share():
    method, views = CAST(moco()).double(), masked_views()
    views = {name: replace(view, masks=torch.zeros_like(view.masks)) for name, view in views.items()}
    found = method.compare(views)
    assert found["attention_loss"] == 0 and found["with_mask"] == 0
    assert torch.equal(found["loss"], method.siamese(Batch(views))["loss"] / 4)
    found["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.requires_grad)


def test_a_constant_map_is_0_and_passes_no_gradient_on():
    maps = torch.stack([torch.full((3, 3), 2.0), torch.zeros(3, 3), torch.arange(9.0).view(3, 3)]).requires_grad_()
    found = min_max(maps)
    assert not found[:2].any() and torch.equal(found[2].flatten(), torch.arange(9.0) / 8)
    found.square().sum().backward()
    assert torch.isfinite(maps.grad).all() and not maps.grad[:2].any() and maps.grad[2].any()


def test_a_network_with_constant_maps_takes_a_finite_step():
    method, views = CAST(moco()).double(), masked_views()
    nn.init.zeros_(method.siamese.backbone.conv.weight)
    found = method.compare(views)
    assert found["attention_loss"] == 1
    found["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.requires_grad)


def test_masked_keys_never_enter_the_queue():
    method, views = CAST(moco()), masked_views(torch.float32)
    before = method.siamese.matcher.queue.keys.clone()
    method.compare(views)
    key = nn.functional.normalize(
        method.siamese.target_projector(method.siamese.encode_target(views["v2"].images).pooled)
    )
    method.after_step(0.5)
    queue = method.siamese.matcher.queue.keys
    assert torch.allclose(queue[:BATCH], key) and torch.equal(queue[BATCH:], before[BATCH:])


def test_the_masked_key_has_the_mean_colour_where_the_mask_is_0():
    method, views, seen = CAST(moco()), masked_views(torch.float32), []
    method.siamese.encode_target = lambda images: seen.append(images) or MoCo.encode_target(method.siamese, images)
    method.masked_key(views["v2"])
    inside = views["v2"].masks[:, None].expand(-1, 3, -1, -1) > 0
    assert torch.equal(seen[0][inside], views["v2"].images[inside])
    assert not seen[0][[0, 1, 3]][~inside[[0, 1, 3]]].any()
    assert torch.equal(seen[0][2], views["v2"].images[2])  # no mask is seen there


# -------------------------------------------------------------------- crops


def test_pixels_and_masks_of_the_views_show_the_same_place():
    torch.manual_seed(1)
    masks = torch.zeros(COUNT, 64, 64)
    masks[:, 10:40, 20:44] = 1
    method = CAST(moco(), size=24, photometric="none")
    views = method.views(whole_batch(coordinate_images(COUNT, 64), masks))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    assert list(views) == ["v1", "v2"] and not torch.equal(views["v1"].rectangles, views["v2"].rectangles)
    for view in views.values():
        shown, grid = (view.images * std + mean)[:, :2].permute(0, 2, 3, 1), view.grid(24, 24)
        assert torch.allclose(shown[:, 1:-1, 1:-1], grid[:, 1:-1, 1:-1], atol=0.02)
        x, y = grid.unbind(dim=3)
        inside = (x * 64 > 20) & (x * 64 < 44) & (y * 64 > 10) & (y * 64 < 40)
        far = ((x * 64 - 20).abs() > 1.5) & ((x * 64 - 44).abs() > 1.5) & ((y * 64 - 10).abs() > 1.5)
        far &= (y * 64 - 40).abs() > 1.5
        assert torch.equal(view.masks[far] > 0, inside[far])


def test_crops_cover_the_asked_share_of_the_mask_and_have_the_asked_sides():
    masks = boxes_of_masks()
    torch.manual_seed(2)
    for _ in range(5):
        found = CAST(moco(), cover=0.6).rectangles(masks)
        x0, y0, x1, y1 = found.unbind(dim=1)
        assert (found >= 0).all() and (found <= 1).all() and (x1 > x0).all() and (y1 > y0).all()
        share = mass_inside(masks, found[:, None])[:, 0] / masks.mean(dim=(1, 2))
        wanted = (0.2 / masks.mean(dim=(1, 2))).clamp(max=0.6)
        area, ratio = (x1 - x0) * (y1 - y0), (x1 - x0) / (y1 - y0)
        resort = area < 0.2 - 1e-4  # around a small mask
        assert resort.float().mean() < 0.2 and (share[~resort] > wanted[~resort] - 1e-4).all()
        assert (ratio > 0.749).all() and (ratio < 1.334).all()


def test_an_image_without_a_mask_has_crops_anywhere():
    torch.manual_seed(4)
    found = CAST(moco()).rectangles(torch.zeros(400, 8, 8))
    centre = (found[:, :2] + found[:, 2:]) / 2
    area = (found[:, 2:] - found[:, :2]).prod(dim=1)
    assert torch.allclose(centre.mean(dim=0), torch.tensor(0.5), atol=0.05) and area.min() > 0.19
    assert area.mean().item() == pytest.approx(0.55, abs=0.06)


def test_centres_have_the_truncated_gaussians_quantiles():
    draws = torch.linspace(0.01, 0.99, 25)
    mean, low, high = torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0.3, 0.2, 0.5]), torch.tensor([0.7, 0.8, 0.5])
    found = truncated_gaussian(draws[:, None], mean, low, high)
    for column in range(2):
        ends = ((x[column] - mean[column]).item() for x in (low, high))
        expected = truncnorm.ppf(draws.numpy(), *ends, loc=mean[column].item(), scale=1)
        np.testing.assert_allclose(found[:, column].numpy(), expected, atol=1e-5)
    assert (found[:, 2] == 0.5).all()


def test_mass_inside_equals_loops_over_pixels():
    draw = torch.Generator().manual_seed(0)
    masks = (torch.rand(3, 7, 7, generator=draw) > 0.5).float()
    corners = torch.rand(3, 4, 2, 2, generator=draw).sort(dim=2).values.flatten(2)
    found = mass_inside(masks, corners)
    for b in range(3):
        for t in range(4):
            x0, y0, x1, y1 = (7 * corners[b, t]).tolist()
            area = sum(
                masks[b, r, c].item() * max(0, min(x1, c + 1) - max(x0, c)) * max(0, min(y1, r + 1) - max(y0, r))
                for r in range(7)
                for c in range(7)
            )
            assert found[b, t].item() == pytest.approx(area / 49, abs=1e-5)


def test_the_last_resort_contains_the_box_where_its_ratio_allows():
    torch.manual_seed(5)
    corner = torch.rand(300, 2) * 0.6
    boxes = torch.cat([corner, corner + 0.1 + torch.rand(300, 2) * 0.3], dim=1)
    found = containing(boxes, torch.rand(300, 4))
    ratio = (boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])
    allowed = (ratio > 3 / 4) & (ratio < 4 / 3)
    holds = (found[:, :2] <= boxes[:, :2] + 1e-6).all(dim=1) & (found[:, 2:] >= boxes[:, 2:] - 1e-6).all(dim=1)
    assert allowed.sum() > 50 and holds[allowed].all()
    assert (found >= -1e-6).all() and (found <= 1 + 1e-6).all()
    own = (found[:, 2] - found[:, 0]) / (found[:, 3] - found[:, 1])
    assert (own > 0.749).all() and (own < 1.334).all()
    still = containing(torch.tensor([[0.2, 0.3, 0.5, 0.6]]), torch.zeros(1, 4))
    assert torch.allclose(still, torch.tensor([[0.2, 0.3, 0.5, 0.6]]))


# -------------------------------------------------------------------- mixed precision and several processes


def small_cast(bn_groups=1, **options):
    torch.manual_seed(0)
    host = MoCo(build_backbone("resnet_tiny", widths=(8, 8), strides=(1, 2)), 8, 12, 32, 0.9, bn_groups=bn_groups)
    return CAST(host, size=SIDE, photometric="none", **options).train()


def test_bfloat16_gives_nearly_the_loss_and_gradients_of_float32():
    method, batch = small_cast(), whole_batch(random_images(32), boxes_of_masks(32))
    gradients, losses = [], []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(method(batch)["attention_loss"].item())
            torch.manual_seed(1)
            loss = method(batch)["loss"]
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in method.parameters() if p.requires_grad]))
        method.zero_grad()
    assert losses[1] == pytest.approx(losses[0], abs=0.02)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.95


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
        images, masks = random_images(8 * (batch.step + 1))[-8:], boxes_of_masks(8)
        masks[[1, 2, 6]] = 0  # images that do not count, more of them on the first process
        whole = whole_batch(images, masks).views["v1"]
        whole = replace(whole, images=whole.images.double(), masks=whole.masks.double())
        return Batch({"v1": whole.part(batch.rows)})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="two processes without a second import of torch need fork")
def test_two_processes_equal_one_with_two_groups(tmp_path):
    """DDP sums gradients that went through Grad-CAM as any others."""
    assert_two_processes_equal_one(small_cast, Images(), tmp_path, 1e-8)


# -------------------------------------------------------------------- settings


class ClassToken(Patches):
    """A backbone whose vector does not come from its maps."""

    def forward(self, images):
        return super().forward(images), self.conv(images).amax(dim=(2, 3))


def test_wrong_settings_and_views_are_refused():
    for host, words in [
        (BYOL(Patches(), 6, 10), "CAST differentiates MoCo's positive logit and needs MoCo, not BYOL"),
        (moco(symmetric=True), "use MoCo with symmetric=false"),
    ]:
        with pytest.raises(UsageError, match=words):
            CAST(host)
    for option, value, words in [
        ("size", 0, "the size of CAST's views is 1 pixel or more, not 0"),
        ("scale", (0.0, 1.0), r"two ascending shares in \(0, 1\], not \[0.0, 1.0\]"),
        ("cover", 1.5, r"cover is a share of the mask in \[0, 1\], not 1.5"),
        ("attention_weight", -1.0, "weights are 0 or more and not both 0, not -1.0 and 1.0"),
        ("cosine", "images", "unknown cosine 'images'; did you mean 'image'"),
        ("photometric", "moco", "unknown photometric"),
    ]:
        with pytest.raises(UsageError, match=words):
            CAST(moco(), **{option: value})
    with pytest.raises(UsageError, match="CAST needs images with masks: name what makes them, annotations.masks=NAME"):
        CAST(moco(), size=SIDE)(whole_batch(random_images(BATCH), None))
    with pytest.raises(UsageError, match="vector is the mean of its last map.* comes from a class token"):
        CAST(moco(backbone=ClassToken())).compare(masked_views(torch.float32))
    assert CAST.needs == CAST(moco()).needs == {"masks"} and CAST(moco()).supervision == "none"


def test_draws_are_as_many_as_are_used():
    assert CONSTRAINED_DRAWS == 44
    maps = torch.ones(1, 2, 3, 3, requires_grad=True)
    cam = grad_cam((maps * torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)).mean(dim=(1, 2, 3)), maps)
    assert torch.allclose(cam, torch.full((1, 3, 3), 4 / 18)) and math.isclose(cam.sum().item(), 2.0, rel_tol=1e-6)
