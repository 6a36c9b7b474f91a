"""Divide and Contrast: which expert learns from what, what a step changes, and the distillation by a second formula."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from baselines.divide_and_contrast import DivideAndContrast, Experts, next_batch
from baselines.moco import MoCo
from scd.data.recipes import build_recipe
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.backbone import build_backbone
from scd.profiling.flops import forward_flops, training_flops
from scd.training.optimizers import build_optimizer
from scd.training.step import take_step

K, B, SIDE = 3, 8, 8
OPTIONS = {"dim": 4, "hidden": 6, "queue_size": 16, "momentum": 0.9, "bn_groups": 2}


def small_backbone(width=6) -> nn.Module:
    return build_backbone("resnet_tiny", widths=(4, width), strides=(1, 2))


def experts(**options) -> Experts:
    torch.manual_seed(0)
    return Experts(small_backbone(), K, **{**OPTIONS, **options}).train()


def batch_of(numbers, seed=0) -> Batch:
    """Two views of images, whose pixels say which image and view they are, with these clusters."""
    draw, ids = torch.Generator().manual_seed(seed), torch.tensor(numbers)
    segments = ids[:, None, None].expand(-1, SIDE, SIDE).clone()
    shape, places = (len(ids), 3, SIDE, SIDE), torch.rand(len(ids), 4, generator=draw)
    flips = torch.zeros(len(ids), dtype=torch.bool)
    views = {
        name: View(name, "global", torch.randn(shape, generator=draw), places, flips, segments=segments)
        for name in ("v1", "v2")
    }
    return Batch(views, torch.arange(len(ids)))


def some_numbers(seed):
    weights = torch.tensor([0.6, 0.3, 0.1])
    return torch.multinomial(weights, B, replacement=True, generator=torch.Generator().manual_seed(seed)).tolist()


def sgd(method):
    return build_optimizer(method, name="sgd", lr=0.1, momentum=0.9, weight_decay=0.1)


def step_of(method, batch, progress=0.5, optimizer=None):
    optimizer = sgd(method) if optimizer is None else optimizer
    torch.manual_seed(3)
    return take_step(method, method, batch, optimizer, progress)


# -------------------------------------------------------------------- stage 2


def test_the_fullest_cluster_is_next_with_its_oldest_views_by_lists():
    """Beside a queue per cluster as lists: every view is used once and in its turn, and few are repeated."""
    draw = torch.Generator().manual_seed(0)
    lists, waiting, ids, repeated, used = {k: [] for k in range(K)}, torch.zeros(0, dtype=torch.long), [], 0, []
    for step in range(60):
        new = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), B, replacement=True, generator=draw)
        for place, number in enumerate(new.tolist()):
            lists[number].append((step, place))
        ids, waiting = ids + [(step, place) for place in range(B)], torch.cat([waiting, new])
        expert, rows, staying = next_batch(waiting, B, K)
        assert expert == max(range(K), key=lambda k: (len(lists[k]), -k))
        own, lists[expert] = lists[expert][:B], lists[expert][B:]
        assert [ids[row] for row in rows.tolist()] == [own[i % len(own)] for i in range(B)]
        repeated += B - len(own)
        used += own
        ids, waiting = [each for each, stays in zip(ids, staying.tolist(), strict=True) if stays], waiting[staying]
        assert len(waiting) <= K * (B - 1)
    assert len(set(used)) == len(used) == 60 * B - len(waiting) and 0 < repeated <= K * B


def test_a_step_trains_one_expert_as_moco_and_leaves_the_others_as_they_are():
    method = experts()
    optimizer = sgd(method)
    for seed in range(4):
        batch = batch_of(some_numbers(seed), seed)
        before, room = copy.deepcopy(method), method.room
        images = torch.cat([room.images_like(batch.views["v1"]), torch.stack(_pixels(batch), dim=1)])
        chosen, rows, _ = next_batch(torch.cat([room.clusters, batch.views["v1"].segments[:, 0, 0]]), B, K)
        outputs = step_of(method, batch, optimizer=optimizer)

        alone = before.experts[chosen]  # MoCo by itself, on the very views
        views = {
            name: replace(view, images=images[rows][:, i], segments=None)
            for i, (name, view) in enumerate(batch.views.items())
        }
        torch.manual_seed(3)
        expected = alone(Batch(views))["loss"]
        torch.testing.assert_close(outputs["loss"], expected)
        for number, (one, other) in enumerate(zip(method.experts, before.experts, strict=True)):
            same = [torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)]
            assert (not any(same)) if number == chosen else all(same)
            assert torch.equal(one.matcher.queue.keys, other.matcher.queue.keys) == (number != chosen)


def _pixels(batch):
    return [view.images for view in batch.views.values()]


def test_experts_start_from_one_backbone_and_have_heads_and_targets_of_their_own():
    first, second, _ = experts().experts
    for a, b in zip(first.backbone.parameters(), second.backbone.parameters(), strict=True):
        assert torch.equal(a, b) and a is not b
    assert not torch.equal(first.projector.layers[0].weight, second.projector.layers[0].weight)
    assert not torch.equal(first.matcher.queue.keys, second.matcher.queue.keys)


def test_a_resumed_training_goes_on_with_the_views_that_wait():
    method = experts()
    for seed in range(3):
        step_of(method, batch_of(some_numbers(seed), seed))
    assert len(method.room.clusters) > 0
    other = experts()
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    assert torch.equal(other.room.images, method.room.images)
    for seed in range(3, 6):
        batch = batch_of(some_numbers(seed), seed)
        assert torch.equal(step_of(method, batch)["loss"], step_of(other, batch)["loss"])
    assert not any(name.startswith("room") for name in method.evaluated_state())


def test_the_backbones_are_evaluated_side_by_side():
    method = experts().eval()
    images = torch.randn(5, 3, SIDE, SIDE)
    maps, vectors = method.backbone(images)
    assert maps.shape == (5, 18, 2, 2) and method.backbone.dim == 18
    for k, expert in enumerate(method.experts):
        torch.testing.assert_close(vectors[:, 6 * k : 6 * k + 6], expert.backbone(images).mean(dim=(2, 3)))


def test_a_step_costs_as_much_as_mocos():
    recipe = build_recipe("mocov2", SIDE)
    found = training_flops(experts(), recipe, B)
    moco = training_flops(MoCo(small_backbone(), **OPTIONS), recipe, B)
    assert (found.forward, found.backward) == (moco.forward, moco.backward)


# -------------------------------------------------------------------- stage 3


def distillation(**options) -> DivideAndContrast:
    """A student of trained networks whose running statistics differ from those of any batch."""
    torch.manual_seed(1)
    base = MoCo(small_backbone(width=5), dim=3, hidden=7, queue_size=16, bn_groups=1)
    trained = experts()
    for network in (base, *trained.experts):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight)
    return DivideAndContrast(small_backbone(), base, trained, dim=5, hidden=9, **options).double().train()


def in_double(batch):
    return Batch({name: replace(view, images=view.images.double()) for name, view in batch.views.items()})


@pytest.mark.parametrize("base_weight", [0.5, 0.2])
def test_the_loss_by_a_loop_over_images(base_weight):
    method, batch = distillation(base_weight=base_weight), in_double(batch_of([2, 0, 0, 1, 2, 0, 0, 0]))
    found = method(batch)
    total = 0.0
    for view in batch.views.values():
        pooled = method.backbone(view.images).mean(dim=(2, 3))
        for i, k in enumerate(view.segments[:, 0, 0].tolist()):
            z = mlp(method.projector, pooled[i])
            for weight, frozen, regressor in (
                (base_weight, method.base_matcher, method.base_regressor),
                (1 - base_weight, method.experts_matcher[k], method.expert_regressors[k]),
            ):
                target = mlp(frozen.projector, frozen.backbone(view.images[i : i + 1]).mean(dim=(2, 3))[0])
                unit = target / target.square().sum().sqrt()
                total += weight * (mlp(regressor, z) - unit).square().sum() / (2 * B)
    torch.testing.assert_close(found["loss"], total, rtol=1e-10, atol=0)
    assert found["base_loss"] > 0 and not found["expert_loss"].requires_grad


def mlp(head, x):
    first, last = (layer for layer in head.layers if isinstance(layer, nn.Linear))
    return last.weight @ (first.weight @ x + first.bias).clamp_min(0) + last.bias


def test_the_earlier_networks_are_copies_that_no_step_changes():
    method, base = distillation(), MoCo(small_backbone(), **OPTIONS)
    frozen = [copy.deepcopy(each.state_dict()) for each in (method.base_matcher, *method.experts_matcher)]
    step_of(method, in_double(batch_of([0, 1, 2, 0, 0, 0, 1, 2])))
    for each, before in zip((method.base_matcher, *method.experts_matcher), frozen, strict=True):
        assert all(torch.equal(value, before[name]) for name, value in each.state_dict().items())
        assert not any(part.training for part in each.modules())
        assert not any(parameter.requires_grad for parameter in each.parameters())
    alone = DivideAndContrast(small_backbone(), base, experts())
    assert alone.base_matcher.backbone is not base.backbone and base.backbone.training
    assert not any("matcher" in name for name in alone.evaluated_state())
    assert alone.supervision == "none"


def test_each_image_goes_through_the_base_and_one_expert():
    method = DivideAndContrast(small_backbone(), clusters=4, dim=4, hidden=6)
    recipe, image = build_recipe("mocov2", SIDE), (B, 3, SIDE, SIDE)
    found = training_flops(method, recipe, B)
    passes = 3 * forward_flops(method.backbone, image)  # student, base model, expert
    heads = 3 * forward_flops(method.projector, (B, 6)) + 5 * forward_flops(method.base_regressor, (B, 4))
    assert found.forward == 2 * (passes + heads)


def test_a_cluster_without_images_and_a_head_of_one_layer_are_taken():
    method = DivideAndContrast(small_backbone(), clusters=3, dim=4, hidden=0)
    loss = method(batch_of([2] * B))["loss"]
    loss.backward()
    assert all(parameter.grad is not None for parameter in method.parameters() if parameter.requires_grad)
    assert method.expert_regressors[0].layers[0].weight.grad.abs().sum() == 0
    assert method.expert_regressors[2].layers[0].weight.grad.abs().sum() > 0


# -------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("method", [experts(), DivideAndContrast(small_backbone(), clusters=K)])
def test_views_without_clusters_are_refused(method):
    batch = batch_of([0] * B)
    with pytest.raises(UsageError, match="has 3 clusters, and its annotations the numbers 1 to 3"):
        method(batch_of([3] + [1] * (B - 1)))
    extra = {**batch.views, "v3": replace(batch.views["v1"], name="v3", role="extra")}
    with pytest.raises(UsageError, match="two global views and no others, the recipe gives 3"):
        method(Batch(extra))
    bare = {name: replace(view, segments=None) for name, view in batch.views.items()}
    with pytest.raises(UsageError, match="annotations.segments=clusters"):
        method(Batch(bare))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"clusters": 0}, "clusters of Divide and Contrast are 1 or more, not 0"),
        ({"base_weight": 1.5}, "a share in"),
        ({"base": nn.Linear(1, 1)}, "base is a trained MoCo or the like, not Linear"),
        ({"experts": nn.Linear(1, 1)}, "experts are a trained second stage, not Linear"),
    ],
)
def test_impossible_arguments_are_refused(options, text):
    with pytest.raises(UsageError, match=text):
        DivideAndContrast(small_backbone(), **options)
    if "clusters" in options:
        with pytest.raises(UsageError, match=text):
            Experts(small_backbone(), 0)
