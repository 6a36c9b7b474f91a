"""MaskContrast beside its official code and loops over pixels; empty masks, the queue, and its saliency head."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_numbers import Convolution, assert_same, begin, follow, golden
from golden_numbers import batch as golden_batch
from small_moco import BATCH, LEFT, ONE, RIGHT, SIDE, WHOLE, Patches, moco, outputs, views_at, with_moved_targets

from baselines.byol import BYOL
from baselines.mask_contrast import (
    MaskContrast,
    PrototypeContrast,
    balanced_cross_entropy,
    mask_prototypes,
    on_grid,
)
from baselines.moco import MoCo
from scd.errors import UsageError
from scd.method import Batch, whole_view

DIM, TAU, CELL = 5, 0.5, 4  # CELL: pixels along a side of a position of the map
EMPTY = {"v1": 1, "v2": 2, "extra": 0}  # the image whose mask is empty in this view


def mask_contrast(symmetric=False, **options):
    """A MaskContrast whose target networks differ from their online ones."""
    options = {"dim": DIM, "hidden": 7, "queue_size": 16, "temperature": TAU, **options}
    return with_moved_targets(MaskContrast(moco(symmetric), **options))


def masked_views(extra=False, empty=None):
    """Views with random rectangles as masks; in each view one image has none, or those named in ``empty``."""
    draw = np.random.default_rng(0)
    views = views_at(ONE, [RIGHT, WHOLE, LEFT, WHOLE], [WHOLE] * BATCH if extra else None)
    for name, view in views.items():
        view.masks = torch.zeros(BATCH, SIDE, SIDE)
        for image in range(BATCH):
            x, y = draw.integers(0, SIDE - 8, 2)
            if image not in ((EMPTY[name],) if empty is None else empty):
                view.masks[image, y : y + draw.integers(6, 15), x : x + draw.integers(6, 15)] = 1
    return views


# -------------------------------------------------------------------- the official code


def test_five_steps_of_the_official_code():
    """Both losses, gradients of the first step, and the state after the last; the queue runs over its end."""
    numbers = golden("mask_contrast")
    host = MoCo(Convolution(), dim=4, hidden=0, queue_size=12, momentum=0.7)
    method = MaskContrast(host, dim=5, hidden=10, queue_size=12, image_weight=0.0).double()
    begin(method, numbers, without=("siamese.projector.layers.0.weight", "siamese.projector.layers.0.bias"))
    method.pixel_matcher.queue.keys.copy_(numbers["queue"])

    def views(numbers, step):
        batch = golden_batch(numbers, step)
        for view, masks in (("v1", "m1"), ("v2", "m2")):
            batch.views[view].masks = numbers[masks][step].float()
        for name, value in method(batch).items():
            if name in ("pixel_loss", "saliency_loss"):
                assert_same(value, numbers[name][step], f"{name} of step {step}")
        return batch

    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5)
    assert len(list(follow(method, optimizer, numbers, views))) == 5


# -------------------------------------------------------------------- the equations, written a second time


def numbers_of(tensor):
    return tensor.detach().double().numpy()


def unit(x):
    return x / np.linalg.norm(x)


def pixels_by_hand(backbone, head, view):
    """For each image {(row, column): (unit vector, logit)}, and the positions that the mask covers by half or more."""
    weights = {name: numbers_of(value) for name, value in head.named_parameters()}
    found, inside = [], []
    for maps, mask in zip(numbers_of(backbone(view.images)), numbers_of(view.masks), strict=True):
        image, covered = {}, []
        for r in range(maps.shape[1]):
            for c in range(maps.shape[2]):
                hidden = np.maximum(weights["decoder.weight"] @ maps[:, r, c] + weights["decoder.bias"], 0)
                vector = unit(weights["embedding.weight"] @ hidden + weights["embedding.bias"])
                image[r, c] = vector, float(weights["saliency.weight"][0] @ hidden)
                if mask[r * CELL : (r + 1) * CELL, c * CELL : (c + 1) * CELL].mean() >= 0.5:
                    covered.append((r, c))
        found.append(image)
        inside.append(covered)
    return found, inside


def prototypes_by_hand(method, view):
    found, inside = pixels_by_hand(method.siamese.target_backbone, method.target_pixel_head, view)
    pairs = zip(found, inside, strict=True)
    return [unit(sum(image[place][0] for place in places)) if places else None for image, places in pairs]


def contrast_by_hand(found, inside, prototypes, queue):
    own = [image for image in range(BATCH) if inside[image] and prototypes[image] is not None]
    number = sum(len(inside[image]) for image in own)
    keys = [p for p in prototypes if p is not None] + [key for key in queue if np.linalg.norm(key) > 0]
    above = below = 0.0
    for image in own:
        weight = 1 / math.log(1.02 + len(inside[image]) / number)
        for place in inside[image]:
            q = found[image][place][0]
            scores = [math.exp(q @ key / TAU) for key in keys]
            above += weight * (math.log(sum(scores)) - q @ prototypes[image] / TAU)
            below += weight
    return above / below if own else 0.0, 1 - len(own) / BATCH


def saliency_by_hand(found, inside):
    logits = {True: [], False: []}
    for image, places in zip(found, inside, strict=True):
        for place, (_, logit) in image.items() if places else ():
            logits[place in places].append(logit)
    number = len(logits[True]) + len(logits[False])
    share = len(logits[False]) / number
    inner = sum(math.log(1 + math.exp(-a)) for a in logits[True])
    return (share * inner + (1 - share) * sum(math.log(1 + math.exp(a)) for a in logits[False])) / number


@pytest.mark.parametrize(
    "symmetric, extra, pairs",
    [
        (False, False, [("v1", "v2")]),
        (True, False, [("v1", "v2"), ("v2", "v1")]),
        (False, True, [("v1", "v2"), ("extra", "v2")]),
    ],
)
def test_two_steps_equal_loops_over_images_and_pixels(symmetric, extra, pairs):
    """In the second step the queue holds prototypes of length 0, which count for nothing."""
    method, views = mask_contrast(symmetric, image_weight=0.7, saliency_weight=0.3), masked_views(extra)
    for _ in range(2):
        queue = numbers_of(method.pixel_matcher.queue.keys)
        logs = outputs(method, views)
        contrasts, missing, saliencies, kept = [], [], [], {}
        for i, j in pairs:
            found, inside = pixels_by_hand(method.siamese.backbone, method.pixel_head, views[i])
            kept[j] = prototypes_by_hand(method, views[j])
            contrast, share = contrast_by_hand(found, inside, kept[j], queue)
            contrasts.append(contrast)
            missing.append(share)
            saliencies.append(saliency_by_hand(found, inside))
        assert logs["pixel_loss"].item() == pytest.approx(np.mean(contrasts), rel=1e-5)
        assert logs["saliency_loss"].item() == pytest.approx(np.mean(saliencies), rel=1e-5)
        assert logs["without_mask"].item() == pytest.approx(np.mean(missing)) and 0.25 < np.mean(missing) < 1
        total = 0.7 * logs["image_loss"].item() + np.mean(contrasts) + 0.3 * np.mean(saliencies)
        assert logs["loss"].item() == pytest.approx(total, rel=1e-5)
        assert torch.equal(logs["image_loss"], method.siamese(Batch(views))["image_loss"])
        assert np.array_equal(numbers_of(method.pixel_matcher.queue.keys), queue)
        start = int(method.pixel_matcher.queue.pointer)
        method.after_step(0.1)
        expected = [np.zeros(DIM) if p is None else p for prototypes in kept.values() for p in prototypes]
        new = numbers_of(method.pixel_matcher.queue.keys)
        assert np.allclose(new[start : start + len(expected)], expected, atol=1e-6)
        others = np.delete(np.arange(16), np.arange(start, start + len(expected)))
        assert np.array_equal(new[others], queue[others])
    assert (new == 0).all(axis=1).sum() == 2 * len(kept)


def test_a_pixel_prefers_its_own_prototype_to_others_and_rare_masks_weigh_more():
    """Of two images with 1 and 3 pixels the loss is the mean, weighted by 1 / ln(1.02 + 1/4) and 1 / ln(1.02 + 3/4)."""
    matcher = PrototypeContrast(2, 1, 1.0)
    matcher.queue.keys.zero_()
    prototypes = torch.eye(2)
    vectors = torch.tensor([1.0, 0.0]).expand(2, 4, 2)  # right in image 0, wrong in image 1
    masks = torch.tensor([[False, True, False, False], [True, True, False, True]])
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    weights = 1 / math.log(1.27), 3 / math.log(1.77)
    expected = (weights[0] * right + weights[1] * wrong) / sum(weights)
    assert matcher(vectors, prototypes, masks).item() == pytest.approx(expected, rel=1e-6)


# -------------------------------------------------------------------- masks


def test_positions_belong_to_the_mask_where_it_covers_half_of_them():
    view = whole_view(torch.zeros(1, 3, 12, 8))
    view.masks = torch.zeros(1, 12, 8)
    view.masks[0, :2, :4] = view.masks[0, 4:6, 4:6] = view.masks[0, 8:, 5:] = 1  # a half, a quarter, three quarters
    assert on_grid(view, torch.zeros(1, 3, 2))[0].tolist() == [[True, False], [False, False], [False, True]]


def test_prototypes_do_not_depend_on_the_lengths_of_vectors_and_are_0_without_a_mask():
    vectors = torch.tensor([[[3.0, 0.0], [0.0, 0.1], [-5.0, 0.0]]]).expand(2, 3, 2)
    masks = torch.tensor([[True, True, False], [False, False, False]])
    found = mask_prototypes(vectors, masks)
    torch.testing.assert_close(found, torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 0.0]]))


@pytest.mark.parametrize("view, image", [("v1", 1), ("v2", 1), ("v1", 2), ("v2", 2)])
def test_an_image_whose_mask_is_empty_in_one_of_its_views_has_no_part_in_its_terms(view, image):
    """Image 1 has no mask in view 1, image 2 none in view 2: neither changes as query or as key, but for one case.

    The prototype of image 1 is whole, and stays a negative of the others.
    """
    method, views = mask_contrast(), masked_views()
    before = outputs(method, views)["pixel_loss"]
    views[view].images[image] = 10 * torch.randn(3, SIDE, SIDE)
    assert torch.equal(outputs(method, views)["pixel_loss"], before) == ((view, image) != ("v2", 1))


def test_views_without_a_mask_do_not_teach_the_saliency_head():
    method, views = mask_contrast(), masked_views()
    before = outputs(method, views)["saliency_loss"]
    views["v1"].images[EMPTY["v1"]] = 10 * torch.randn(3, SIDE, SIDE)
    assert torch.equal(outputs(method, views)["saliency_loss"], before)
    views["v1"].images[EMPTY["v1"] + 1] = 10 * torch.randn(3, SIDE, SIDE)
    assert not torch.equal(outputs(method, views)["saliency_loss"], before)


def test_a_batch_without_any_mask_has_losses_and_gradients_of_0_and_the_hosts_stay():
    method, views = mask_contrast(), masked_views(empty=range(BATCH))
    for _ in range(5):  # at last the queue holds nothing but zeros
        logs = outputs(method, views)
        assert logs["pixel_loss"] == 0 and logs["saliency_loss"] == 0 and logs["without_mask"] == 1
        assert torch.equal(logs["loss"], logs["image_loss"])
        method.zero_grad()
        logs["loss"].backward()
        for parameter in method.pixel_head.parameters():
            assert torch.equal(parameter.grad, torch.zeros_like(parameter))
        assert method.siamese.backbone.conv.weight.grad.abs().sum() > 0
        method.after_step(0.5)
    assert not method.pixel_matcher.queue.keys.any()
    assert 0 < outputs(method, masked_views())["pixel_loss"].item() < math.log(BATCH) + 2 / TAU


def test_both_classes_weigh_alike_in_the_saliency_loss():
    """9 of 10 pixels outside: each class has 0.09 of the loss of its mean pixel."""
    masks = torch.zeros(2, 2, 5, dtype=torch.bool)
    masks[0, 1, 2] = True  # image 1 has none, and does not count
    logits = torch.full((2, 2, 5), 2.0)
    expected = 0.09 * (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2)))
    assert balanced_cross_entropy(logits, masks).item() == pytest.approx(expected, rel=1e-6)


# -------------------------------------------------------------------- the saliency head


def test_the_saliency_head_learns_the_masks():
    method, views = mask_contrast(image_weight=0.0), masked_views()
    for view in views.values():
        view.images += 3 * view.masks[:, None]
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        outputs(method, views)["loss"].backward()
        optimizer.step()
    view = replace(views["v1"], masks=None)
    maps, masks = method.eval().saliency(view), on_grid(views["v1"], torch.zeros(1, 4, 4))
    assert maps.shape == (BATCH, 4, 4) and maps.min() >= 0 and maps.max() <= 1 and not maps.requires_grad
    known = masks.flatten(1).any(dim=1)
    assert maps[known][masks[known]].mean() > 0.8 and maps[known][~masks[known]].mean() < 0.2


def test_no_gradient_reaches_the_targets_and_one_reaches_each_layer():
    method = mask_contrast(image_weight=0.0)
    outputs(method, masked_views())["loss"].backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is None) == ("target_" in name), name
    assert all(p.grad.abs().sum() > 0 for p in (*method.pixel_head.parameters(), method.siamese.backbone.conv.weight))
    assert method.siamese.projector.layers[0].weight.grad.abs().sum() == 0


# -------------------------------------------------------------------- precision, settings


def test_a_step_in_bfloat16_stays_close_to_float32():
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses.append(outputs(mask_contrast(), masked_views()))
    for name in ("pixel_loss", "saliency_loss"):
        assert losses[1][name].dtype == torch.float32
        assert losses[1][name].item() == pytest.approx(losses[0][name].item(), rel=0.02)


def test_wrong_settings_and_views_are_refused():
    with pytest.raises(UsageError, match="needs MoCo as its host, not BYOL"):
        MaskContrast(BYOL(Patches(), 6, 10))
    for option, value, words in [
        ("dim", 0, "the widths of MaskContrast's head are 1 or more, not dim 0 and hidden 7"),
        ("hidden", 0, "not dim 5 and hidden 0"),
        ("image_weight", -1.0, "weights are 0 or more, not -1.0 and 1.0"),
        ("saliency_weight", -0.5, "weights are 0 or more, not 1.0 and -0.5"),
        ("queue_size", 0, "queue_size is at least 1 key, not 0"),
        ("temperature", 0.0, "temperature is above 0, not 0.0"),
    ]:
        with pytest.raises(UsageError, match=words):
            mask_contrast(**{option: value})
    with pytest.raises(UsageError, match="needs images with masks: name what makes them, annotations.masks=NAME"):
        outputs(mask_contrast(), views_at(ONE, ONE))
    defaults = MaskContrast(moco())
    assert MaskContrast.needs == defaults.needs == {"masks"} and defaults.supervision == "none"
    assert defaults.pixel_matcher.temperature == 0.5 and defaults.pixel_matcher.queue.keys.shape == (256, 32)
