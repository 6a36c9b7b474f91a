"""Asym-Siam: its switches against loops and the official code's numbers, the views they take, and settings refused."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_numbers import Convolution, assert_same, batch, begin, follow, golden, part
from PIL import Image
from small_moco import BATCH, DIM, HIDDEN, ONE, QUEUE, SIDE, WHOLE, Patches, moco, outputs, views_at, with_moved_targets
from timm.data.auto_augment import rand_augment_transform
from torch import nn

from baselines.asym_siam import AsymSiam, box_pixels, rand_augmented, scale_mixed
from scd.data.cut_views import uniform
from scd.data.recipes import build_recipe
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.norm import GroupedBatchNorm1d
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from scd.profiling.flops import training_flops


def asym(backbone=None, **options):
    torch.manual_seed(0)
    options = {"dim": DIM, "hidden": HIDDEN, "queue_size": QUEUE, "momentum": 0.9, **options}
    return with_moved_targets(AsymSiam(Patches() if backbone is None else backbone, **options))


def views(extras=0, side=SIDE):
    """v1, v2 and extra views of noise."""
    draw = torch.Generator().manual_seed(3)
    made = views_at(ONE, [WHOLE] * BATCH)
    for i in range(extras):
        images = torch.randn(BATCH, 3, side, side, generator=draw)
        made[f"random{i}"] = replace(made["v1"], name=f"random{i}", role="extra", images=images)
    return made


# -------------------------------------------------------------------- the official code


def test_the_official_steps_with_mean_enc_and_small_views():
    """In two processes there, which are two BN groups here. Two small views of different sizes are further queries."""
    numbers = golden("asym_siam")
    place = torch.arange(16).view(2, 2, 4).transpose(0, 1).flatten()  # the official number of each target image of ours
    orders = iter(place.argsort()[numbers["orders"]])

    class Normalised(nn.Sequential):
        dim = 6

        def __init__(self):
            super().__init__(Convolution(), nn.BatchNorm2d(6), nn.ReLU())

    method = AsymSiam(Normalised(), dim=8, queue_size=24, momentum=0.7, bn_groups=2, mean_enc=True).double()
    begin(method, numbers)
    method.matcher.queue.keys.copy_(numbers["queue"])

    def weighted(numbers, step):
        made = batch(numbers, step, extras=("random0", "local0", "local1")).views
        return Batch({name: replace(view, weight=0.5 if "local" in name else 1.0) for name, view in made.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randperm", lambda n, **options: next(orders))
        optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 2 * 0.5)
        assert len(list(follow(method, optimizer, numbers, weighted, directions=2))) == 5


def test_scale_mix_is_that_of_the_official_code(monkeypatch):
    numbers = part(golden("asym_siam"), "mix.")
    rectangles, flips = torch.tensor(WHOLE).expand(len(numbers["a"]), 4), torch.zeros(len(numbers["a"])) > 0
    one, other = (View(n, "global", numbers[n], rectangles, flips) for n in ("a", "b"))
    monkeypatch.setattr("baselines.asym_siam.uniform", lambda rows, columns: numbers["draws"])
    assert_same(scale_mixed(one, other).images, numbers["result"], "mixed views", precision=0)


# -------------------------------------------------------------------- a whole step, written a second time


def numbers_of(tensor):
    return tensor.detach().double().numpy()


def head_by_hand(head, rows, groups):
    """The three-layer head on (n, C), with BN over each of some equal groups of rows."""
    first, norm, _, second, _, last = head.layers
    rows = rows @ numbers_of(first.weight).T + numbers_of(first.bias)
    parts = [(part - part.mean(0)) / np.sqrt(part.var(0) + norm.eps) for part in np.split(rows, groups)]
    rows = np.maximum(np.concatenate(parts) * numbers_of(norm.weight) + numbers_of(norm.bias), 0)
    rows = np.maximum(rows @ numbers_of(second.weight).T + numbers_of(second.bias), 0)
    return rows @ numbers_of(last.weight).T + numbers_of(last.bias)


def features(backbone, images):
    return numbers_of(backbone(images).mean(dim=(2, 3)))


def loss_by_hand(method, queries, keys):
    """Mean InfoNCE of embeddings (B, D) against the queue, image by image."""
    losses = []
    for q, k in zip(queries, keys, strict=True):
        q, k = q / np.linalg.norm(q), k / np.linalg.norm(k)
        scores = [math.exp(q @ n / method.matcher.temperature) for n in (k, *numbers_of(method.matcher.queue.keys))]
        losses.append(-math.log(scores[0] / sum(scores)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("asym_bn", [False, True])
@pytest.mark.parametrize("mean_enc", [False, True])
def test_a_step_with_groups_of_batch_norm_equals_loops(asym_bn, mean_enc):
    """The target's head is normalised over the shuffled groups of two images, or with asym_bn over all."""
    method, made = asym(bn_groups=2, asym_bn=asym_bn, mean_enc=mean_enc), views(1 if mean_enc else 0)
    loss = outputs(method, made)["loss"].item()
    torch.manual_seed(5)
    targets = [made["v2"].images, *([made["random0"].images] if mean_enc else [])]
    order = torch.randperm(BATCH * len(targets)).numpy()
    pooled = features(method.target_backbone, torch.cat(targets))[order]
    shuffled = head_by_hand(method.target_projector, pooled, 1 if asym_bn else 2)
    embeddings = np.empty_like(shuffled)
    embeddings[order] = shuffled
    keys = sum(np.split(embeddings, len(targets))) / len(targets)  # before normalisation
    queries = head_by_hand(method.projector, features(method.backbone, made["v1"].images), 2)
    assert loss == pytest.approx(loss_by_hand(method, queries, keys), rel=1e-5)


def test_the_query_of_scale_mix_is_a_box_of_the_extra_view_in_the_first_one():
    method, made = asym(scale_mix=True, three_layers=False), views(2)
    encoded = method.encode(made)  # one extra view is left: a query
    assert encoded.pairs == [("v1", "v2"), ("random1", "v2")]
    torch.manual_seed(7)
    mixed = method.encode(made).views["v1"].images
    torch.manual_seed(7)
    for b, (share, y, x) in enumerate(torch.rand(BATCH, 3).tolist()):
        half = int(SIDE * math.sqrt(1 - share)) // 2
        for row in range(SIDE):
            for column in range(SIDE):
                inside = all(int(SIDE * c) - half <= at < int(SIDE * c) + half for c, at in ((y, row), (x, column)))
                expected = made["random0" if inside else "v1"].images[b, :, row, column]
                assert torch.equal(mixed[b, :, row, column], expected)
    assert torch.equal(encoded.views["v2"].images, made["v2"].images)


def test_masks_are_mixed_as_the_pixels_and_the_given_views_stay():
    one, other = (replace(view, masks=torch.full((BATCH, SIDE, SIDE), value)) for view, value in
                  zip(views().values(), (0.0, 1.0), strict=True))  # fmt: skip
    before = one.images.clone()
    torch.manual_seed(1)
    mixed = scale_mixed(one, other)
    pasted = mixed.masks == 1
    assert 0 < pasted.sum() < pasted.numel() and torch.equal(one.images, before)
    assert torch.equal(mixed.images, torch.where(pasted[:, None], other.images, one.images))
    assert torch.equal(mixed.rectangles, one.rectangles)


def test_the_box_has_the_drawn_share_of_the_area_and_is_cut_at_the_borders():
    area = (
        box_pixels(torch.tensor([[0.75, 0.5, 0.5], [0.0, 0.0, 0.5], [0.99999, 0.5, 0.5]]), 16).float().mean(dim=(1, 2))
    )
    assert area.tolist() == [0.25, 0.5, 0.0]  # a half-sided box; the lower half of a whole one; none
    top = box_pixels(torch.tensor([[0.75, 0.0, 0.99]]), 16)[0].nonzero()
    assert top.min(dim=0).values.tolist() == [0, 11] and top.max(dim=0).values.tolist() == [3, 15]  # row, then column


# -------------------------------------------------------------------- which view is used where


@pytest.mark.parametrize(
    "switches, extras, source, mixed, targets, queries",
    [
        ({}, 2, "v1", None, ["v2"], ["random0", "random1"]),
        ({"mean_enc": True}, 1, "v1", None, ["v2", "random0"], []),
        ({"scale_mix": True, "mean_enc": True}, 2, "v1", "random0", ["v2", "random1"], []),
        ({"asym_aug": True}, 1, "v1", None, ["random0"], []),
        ({"asym_aug": True, "scale_mix": True}, 1, "v1", "v2", ["random0"], []),
        ({"asym_aug": True, "scale_mix": True, "mean_enc": True}, 3, "v1", "v2", ["random0", "random1"], ["random2"]),
    ],
)
def test_each_switch_takes_its_views(switches, extras, source, mixed, targets, queries, monkeypatch):
    taken = []
    monkeypatch.setattr("baselines.asym_siam.rand_augmented", lambda images, transform: images)
    monkeypatch.setattr("baselines.asym_siam.scale_mixed", lambda view, other: taken.append(other.name) or view)
    method, made = asym(**switches), views(extras)
    by_name, found = method.by_branch(made)
    assert list(by_name) == ["v1", "v2", *queries] and method.extra_views == extras - len(queries)
    assert torch.equal(by_name["v1"].images, made[source].images) and taken == ([mixed] if mixed else [])
    assert [view.name for view in found] == targets
    assert torch.equal(by_name["v2"].images, made[targets[0]].images) and by_name["v2"].role == "global"


def test_asym_aug_augments_the_source_alone():
    method, made = asym(asym_aug=True), views(2)
    by_name, targets = method.by_branch(made)
    assert not torch.equal(by_name["v1"].images, made["v1"].images)
    for name, view in (("random0", targets[0]), ("random0", by_name["v2"]), ("random1", by_name["random1"])):
        assert torch.equal(view.images, made[name].images)


def test_wrappers_see_the_features_of_the_first_target_view():
    method, made = asym(mean_enc=True), views(1)
    (name, found), *others = method.encode(made).target.items()
    assert name == "v2" and not others
    maps = method.target_backbone(made["v2"].images)
    assert torch.allclose(found.maps, maps, atol=1e-6)
    assert torch.allclose(found.pooled, maps.mean(dim=(2, 3)), atol=1e-6)


def test_without_switches_and_with_its_head_it_is_moco():
    plain = with_moved_targets(moco())
    assert torch.equal(outputs(asym(three_layers=False), views(1))["loss"], outputs(plain, views(1))["loss"])


# -------------------------------------------------------------------- RandAugment


def test_each_image_gets_timms_rand_augment_by_a_seed_of_its_own():
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (12, 3, 20, 20), generator=draw).to(torch.uint8)
    policy = rand_augment_transform("rand-m10-n2-mstd0.5", {"translate_const": 100})  # as in the official code
    torch.manual_seed(2)
    found = rand_augmented(normalise(pixels.float() / 255), policy)
    torch.manual_seed(2)
    seeds = (uniform(12, 1)[:, 0].double() * 2**24).long().tolist()
    changed = 0
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    for image, result, seed in zip(pixels, found, seeds, strict=True):
        random.seed(seed)
        np.random.seed(seed)
        expected = torch.from_numpy(np.array(policy(Image.fromarray(image.permute(1, 2, 0).numpy())))).permute(2, 0, 1)
        assert torch.allclose((result * std + mean) * 255, expected.float(), atol=1e-3)
        changed += int(not torch.equal(expected, image))
    assert len(set(seeds)) == 12 and 4 <= changed < 12  # an operation is applied with probability 1/2


def test_rand_augment_leaves_the_other_random_numbers_and_the_views_alone():
    images = views()["v1"].images
    before, python, numpy = images.clone(), random.getstate(), np.random.get_state()[1].copy()
    rand_augmented(images, asym().rand_augment)
    assert random.getstate() == python and np.array_equal(np.random.get_state()[1], numpy)
    assert torch.equal(images, before)


# -------------------------------------------------------------------- parts


def test_the_head_has_batch_norm_after_its_first_layer_alone():
    kinds = [type(layer) for layer in asym().projector.layers]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert not any(isinstance(layer, nn.BatchNorm1d) for layer in asym(three_layers=False).projector.layers)


def test_the_heads_batch_norm_is_split_in_both_branches_or_in_the_source_alone():
    for asym_bn in (False, True):
        method = asym(bn_groups=2, asym_bn=asym_bn)
        assert isinstance(method.projector.layers[1], GroupedBatchNorm1d)
        assert isinstance(method.target_projector.layers[1], GroupedBatchNorm1d) is not asym_bn
        online, target = method.projector.layers[1].weight, method.target_projector.layers[1].weight
        expected = 0.9 * target + 0.1 * online.detach()
        outputs(method, views())
        method.after_step(0.1)
        assert torch.allclose(target, expected, atol=1e-6)  # grouping has not cut the head off its moving average


def test_keys_of_two_views_enter_the_queue_once_each():
    method = asym(mean_enc=True)
    before = method.matcher.queue.keys.clone()
    outputs(method, views(1))
    assert torch.equal(method.matcher.queue.keys, before)
    method.after_step(0.1)
    changed = (method.matcher.queue.keys != before).any(dim=1)
    assert changed.tolist() == [True] * BATCH + [False] * (QUEUE - BATCH)


def test_mean_enc_costs_one_more_forward_pass_of_the_target_and_scale_mix_none():
    recipe = build_recipe("mocov2", SIDE, extra={"kind": "random", "count": 1})
    plain = training_flops(asym(), build_recipe("mocov2", SIDE), 8)
    assert training_flops(asym(scale_mix=True), recipe, 8) == plain
    assert training_flops(asym(asym_aug=True, asym_bn=True), recipe, 8) == plain
    more = training_flops(asym(mean_enc=True), recipe, 8)
    assert more.backward == plain.backward and 1.4 < more.forward / plain.forward <= 1.5


def test_gradients_reach_the_source_alone():
    method = asym(scale_mix=True, mean_enc=True, asym_aug=True, asym_bn=True)
    outputs(method, views(2))["loss"].backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is None) is name.startswith("target_")


def test_settings_and_views_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="asym_bn needs a head with batch norm; set three_layers=true"):
        asym(asym_bn=True, three_layers=False)
    with pytest.raises(UsageError, match="take 2 extra views .* views.extra={kind: random, count: 2}"):
        outputs(asym(scale_mix=True, mean_enc=True), views(1))
    with pytest.raises(UsageError, match="count: 1, photometric: none, scale: \\[0.08, 1.0\\]}"):
        outputs(asym(asym_aug=True), views())
    with pytest.raises(UsageError, match="of the global views' size"):
        outputs(asym(mean_enc=True), views(1, side=8))
