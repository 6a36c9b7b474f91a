"""DenseCL against loops over positions, the content of its second queue, and its known pitfalls one by one."""

import math

import numpy as np
import pytest
import torch
from small_moco import BATCH, DIM, HIDDEN, QUEUE, SIDE, Patches, moco
from torch import nn

from baselines.byol import BYOL
from baselines.densecl import DenseCL, correspondence
from scd.data.views import CropSpec, Recipe
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.backbone import build_backbone
from scd.profiling.flops import training_flops


def densecl(symmetric=False, **options):
    """A DenseCL whose target networks differ from their online ones."""
    method = DenseCL(moco(symmetric, bn_groups=2), **options)
    method.siamese.shuffles = True  # as with a backbone that has batch norm
    for parameter in method.parameters():
        if not parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def make_views(extras=()):
    draw = torch.Generator().manual_seed(1)
    rectangles, flips = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(BATCH, 1), torch.zeros(BATCH, dtype=torch.bool)
    sides = {"v1": SIDE, "v2": SIDE, **dict.fromkeys(extras, SIDE // 2)}
    return {
        name: View(
            name,
            "extra" if name in extras else "global",
            torch.randn(BATCH, 3, s, s, generator=draw),
            rectangles,
            flips,
        )
        for name, s in sides.items()
    }


# -------------------------------------------------------------------- the equations, written a second time


def numbers(tensor):
    return tensor.detach().double().numpy()


def head_by_hand(head, vector):
    first, last = (layer for layer in head.layers if isinstance(layer, nn.Linear))
    hidden = np.maximum(numbers(first.weight) @ vector + numbers(first.bias), 0)
    return numbers(last.weight) @ hidden + numbers(last.bias)


def contrast_by_hand(q, k, negatives, temperature):
    q, k = q / np.linalg.norm(q), k / np.linalg.norm(k)
    scores = [math.exp(q @ other / temperature) for other in (k, *negatives)]
    return -math.log(scores[0] / sum(scores))


def dense_term_by_hand(method, view, other):
    """L_d of one pair: one image and one position at a time."""
    queue, temperature = numbers(method.dense_matcher.queue.keys), method.dense_matcher.temperature
    query, key = method.siamese.backbone(view.images), method.siamese.target_backbone(other.images)
    terms = []
    for image in range(BATCH):
        ours = numbers(query[image].flatten(1)).T  # (hw, C)
        theirs = numbers(key[image].flatten(1)).T
        for f in ours:
            cosines = [f @ g / np.linalg.norm(f) / np.linalg.norm(g) for g in theirs]
            match = theirs[int(np.argmax(cosines))]
            r, t = head_by_hand(method.dense_projector, f), head_by_hand(method.target_dense_projector, match)
            terms.append(contrast_by_hand(r, t, queue, temperature))
    return sum(terms) / len(terms)


def image_term_by_hand(method, view, other):
    host = method.siamese
    queue = numbers(host.matcher.queue.keys)
    query = numbers(host.backbone(view.images).mean(dim=(2, 3)))
    key = numbers(host.target_backbone(other.images).mean(dim=(2, 3)))
    pairs = [
        (head_by_hand(host.projector, a), head_by_hand(host.target_projector, b))
        for a, b in zip(query, key, strict=True)
    ]
    return sum(contrast_by_hand(q, k, queue, host.matcher.temperature) for q, k in pairs) / BATCH


@pytest.mark.parametrize(
    "symmetric, extras, pairs",
    [
        (False, (), [("v1", "v2")]),
        (True, (), [("v1", "v2"), ("v2", "v1")]),
        (False, ("local0",), [("v1", "v2"), ("local0", "v2")]),  # of another size
    ],
)
def test_a_whole_step_equals_the_equations_although_keys_are_computed_in_another_order(symmetric, extras, pairs):
    method, views = densecl(symmetric, weight=0.3), make_views(extras)
    orders = []
    method.siamese.target_backbone.register_forward_pre_hook(lambda _, args: orders.append(args[0]))
    logs = method(Batch(views))
    assert not torch.equal(orders[0], views["v2"].images)  # shuffled: dense and backbone keys have to be put back
    dense = sum(dense_term_by_hand(method, views[i], views[j]) for i, j in pairs) / len(pairs)
    image = sum(image_term_by_hand(method, views[i], views[j]) for i, j in pairs) / len(pairs)
    assert logs["dense_loss"].item() == pytest.approx(dense, rel=1e-5)
    assert logs["image_loss"].item() == pytest.approx(image, rel=1e-5)
    assert logs["loss"].item() == pytest.approx(0.7 * image + 0.3 * dense, rel=1e-5)


# -------------------------------------------------------------------- correspondence


def test_correspondence_finds_a_permutation_whatever_the_lengths_of_the_features():
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 8, 3, 4, generator=draw)
    order = torch.randperm(12, generator=draw)
    lengths = 10 ** torch.randn(2, 1, 12, generator=draw)  # a long feature must not win by its length
    shuffled = (maps.flatten(2)[:, :, order] * lengths).unflatten(2, (3, 4))
    cosine, match = correspondence(maps, shuffled)
    assert torch.equal(order[match], torch.arange(12).expand(2, 12))
    assert torch.allclose(cosine, torch.ones(2, 12), atol=1e-5)


def test_correspondence_passes_no_gradient_and_has_no_ties_under_bfloat16():
    maps = torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    other = maps.detach() + 0.01 * torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = correspondence(maps, other)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cosine, match = correspondence(maps, other)
    assert not cosine.requires_grad
    assert torch.equal(cosine, expected[0]) and torch.equal(match, expected[1])


def test_the_matches_come_from_backbone_features_not_from_the_dense_head():
    method, views = densecl(), make_views()
    before = method(Batch(views))["match_cosine"]
    with torch.no_grad():
        for head in (method.dense_projector, method.target_dense_projector):
            for parameter in head.parameters():
                parameter.copy_(torch.randn_like(parameter))
    assert torch.equal(method(Batch(views))["match_cosine"], before)


# -------------------------------------------------------------------- the second queue


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_dense_queue_takes_each_key_images_averaged_dense_vector_after_the_step(symmetric):
    method, views = densecl(symmetric), make_views()
    own, before = method.dense_matcher.queue, method.dense_matcher.queue.keys.clone()
    assert own is not method.siamese.matcher.queue
    method(Batch(views))
    assert torch.equal(own.keys, before)  # no query meets its own step's keys
    expected = []
    for name in ("v2", "v1") if symmetric else ("v2",):
        for maps in method.siamese.target_backbone(views[name].images):
            vectors = [head_by_hand(method.target_dense_projector, f) for f in numbers(maps.flatten(1)).T]
            mean = sum(vectors) / len(vectors)  # after the head, before the unit length
            expected.append(mean / np.linalg.norm(mean))
    method.after_step(0.1)
    assert np.allclose(numbers(own.keys[: len(expected)]), np.stack(expected), atol=1e-5)
    assert torch.equal(own.keys[len(expected) :], before[len(expected) :])


# -------------------------------------------------------------------- beside its host


def test_weight_0_is_the_host():
    views = make_views()
    alone = moco()(Batch(views))["loss"]
    assert DenseCL(moco(), weight=0.0)(Batch(views))["loss"].item() == pytest.approx(alone.item(), rel=1e-6)


def test_the_dense_head_is_a_second_one_of_the_hosts_shape_with_a_momentum_copy():
    method = DenseCL(moco())
    host, own = list(method.siamese.projector.parameters()), list(method.dense_projector.parameters())
    assert [p.shape for p in host] == [p.shape for p in own] and not torch.equal(host[0], own[0])
    copies = list(method.target_dense_projector.parameters())
    assert all(torch.equal(a, b) and not b.requires_grad for a, b in zip(own, copies, strict=True))
    assert [p.shape for p in DenseCL(moco(hidden=0)).dense_projector.parameters()] == [(DIM, 16), (DIM,)]
    other = DenseCL(moco(), dim=5, hidden=7)
    assert [tuple(p.shape) for p in other.dense_projector.parameters()] == [(7, 16), (7,), (5, 7), (5,)]
    assert other.dense_matcher.queue.keys.shape == (QUEUE, 5)
    assert torch.isfinite(other(Batch(make_views()))["loss"])


def test_gradients_reach_the_backbone_through_the_dense_loss_alone():
    method = densecl(weight=1.0)
    method(Batch(make_views()))["loss"].backward()
    assert method.backbone.conv.weight.grad.abs().sum() > 0
    frozen = (method.target_dense_projector, method.siamese.target_backbone)
    assert all(p.grad is None for module in frozen for p in module.parameters())


def test_cost_of_a_step_is_the_hosts_plus_the_closed_form_without_another_backbone_pass():
    recipe = Recipe("test", (CropSpec("v1", SIDE), CropSpec("v2", SIDE)))
    host, wrapped = moco(), DenseCL(moco())
    positions, channels = 16, 16
    head = 2 * BATCH * positions * (channels * HIDDEN + HIDDEN * DIM)
    matching = 2 * BATCH * positions * positions * channels
    contrast = 2 * BATCH * positions * DIM * QUEUE
    difference = training_flops(wrapped, recipe, BATCH).forward - training_flops(host, recipe, BATCH).forward
    assert difference == 2 * head + matching + contrast


def test_the_loss_falls_on_one_batch():
    method, views = DenseCL(moco(backbone=build_backbone("resnet_tiny", widths=(8, 16), strides=(1, 2)))), make_views()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    losses = []
    for _ in range(8):
        logs = method(Batch(views))
        optimizer.zero_grad()
        logs["loss"].backward()
        optimizer.step()
        losses.append((logs["image_loss"].item(), logs["dense_loss"].item()))
    assert losses[-1][0] < losses[0][0] and losses[-1][1] < losses[0][1] - 0.01


def test_it_makes_no_map():
    assert DenseCL(moco()).eval().saliency(make_views()["v1"]) is None


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="needs MoCo as its host, not BYOL"):
        DenseCL(BYOL(Patches(), dim=DIM, hidden=HIDDEN))
    with pytest.raises(UsageError, match="share in \\[0, 1\\], not 1.5"):
        DenseCL(moco(), weight=1.5)
