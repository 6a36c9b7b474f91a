"""LEWEL against loops and against a whole step written out from the equations, and its known pitfalls one by one."""

import copy
import math

import pytest
import torch
from torch import nn

from baselines.byol import BYOL
from baselines.dino import DINO
from baselines.lewel import LEWEL, aligned_vectors, alignment_maps, one_per_image
from baselines.moco import MoCo
from baselines.simsiam import SimSiam
from baselines.slotcon import SlotCon
from scd.data.views import CropSpec, Recipe
from scd.errors import UsageError
from scd.method import Batch, View, whole_view
from scd.nn.backbone import build_backbone
from scd.profiling.flops import training_flops

BATCH, SIDE, DIM, HEADS, QUEUE = 8, 16, 16, 4, 64


def tiny(seed=0):
    torch.manual_seed(seed)
    return build_backbone("resnet_tiny", widths=(8, 8, 16), strides=(1, 2, 1))


def moco(symmetric=False):
    return MoCo(tiny(), dim=DIM, hidden=24, queue_size=QUEUE, momentum=0.9, symmetric=symmetric)


def byol():
    return BYOL(tiny(), dim=DIM, hidden=24, momentum=0.9)


HOSTS = {"moco": moco, "moco_symmetric": lambda: moco(True), "byol": byol}


def make_views(seed=1, batch=BATCH, extras=()):
    generator = torch.Generator().manual_seed(seed)
    rectangles, flips = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(batch, 1), torch.zeros(batch, dtype=torch.bool)
    roles = {"v1": "global", "v2": "global", **dict.fromkeys(extras, "extra")}
    return {
        name: View(name, role, torch.randn(batch, 3, SIDE, SIDE, generator=generator), rectangles, flips)
        for name, role in roles.items()
    }


# -------------------------------------------------------------------- the equations, written a second time


def maps_by_loop(tokens, scale):
    """A (B, K, hw) one number at a time from projected pixels (B, hw, K)."""
    batch, positions, count = tokens.shape
    logits = torch.empty(batch, count, positions, dtype=tokens.dtype)
    for b in range(batch):
        for p in range(positions):
            norm = math.sqrt(sum(float(tokens[b, p, k]) ** 2 for k in range(count)))
            for k in range(count):
                logits[b, k, p] = tokens[b, p, k] / norm / scale
    weights = logits.exp()
    return weights / weights.sum(dim=2, keepdim=True)


def vectors_by_loop(features, maps, heads):
    """a (B, J, C): channel c lies in head c // (C / n_H), which pools with map head * (K / n_H) + j."""
    batch, channels, positions = features.shape
    per_head = maps.shape[1] // heads
    out = torch.zeros(batch, per_head, channels, dtype=features.dtype)
    for b in range(batch):
        for j in range(per_head):
            for c in range(channels):
                head = c // (channels // heads)
                for p in range(positions):
                    out[b, j, c] += maps[b, head * per_head + j, p] * features[b, c, p]
    return out


def mlp_by_hand(mlp, rows):
    """Linear, optionally BN with the statistics of all these rows, ReLU, Linear, from the layers' weights alone."""
    first, last = (layer for layer in mlp.layers if isinstance(layer, nn.Linear))
    norms = [layer for layer in mlp.layers if isinstance(layer, nn.BatchNorm1d)]
    hidden = rows @ first.weight.T + (0 if first.bias is None else first.bias)
    for norm in norms:
        mean, variance = hidden.mean(dim=0), hidden.var(dim=0, unbiased=False)
        hidden = (hidden - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
    out = hidden.clamp(min=0) @ last.weight.T
    return out if last.bias is None else out + last.bias


def network_by_hand(features, projector, object_projector, scale, heads=HEADS):
    """z (B, K) and o (B, J, K) of feature maps (B, C, h, w)."""
    batch, channels, height, width = features.shape
    pixels = torch.einsum("bcyx->byxc", features).reshape(batch, height * width, channels)
    tokens = torch.cat([features.mean(dim=(2, 3))[:, None], pixels], dim=1)
    projected = mlp_by_hand(projector, tokens.reshape(-1, channels)).reshape(batch, 1 + height * width, -1)
    maps = maps_by_loop(projected[:, 1:], scale)
    aligned = vectors_by_loop(features.flatten(2), maps, heads)
    objects = mlp_by_hand(object_projector, aligned.reshape(-1, channels)).reshape(*aligned.shape[:2], -1)
    return projected[:, 0], objects


def regression_by_hand(predictor, online, target):
    prediction = mlp_by_hand(predictor, online)
    cosine = torch.einsum("bd,bd->b", prediction, target) / prediction.norm(dim=1) / target.norm(dim=1)
    return (2 - 2 * cosine).mean()


def contrast_by_hand(matcher, online, target):
    """(K + 1)-way cross-entropy with the positive first."""
    q, k = online / online.norm(dim=1, keepdim=True), target / target.norm(dim=1, keepdim=True)
    logits = torch.cat([torch.einsum("bd,bd->b", q, k)[:, None], q @ matcher.queue.keys.T], dim=1)
    labels = torch.zeros(len(q), dtype=torch.long)
    return nn.functional.cross_entropy(logits / matcher.temperature, labels)


@torch.no_grad()
def loss_by_hand(method, views):
    """The whole step's loss from the equations and the weights, with each pair of views weighing the same."""
    host, terms = method.siamese, []
    for i, j in [("v1", "v2"), ("v2", "v1")] if host.symmetric else [("v1", "v2")]:
        features, target_features = host.backbone(views[i].images), host.target_backbone(views[j].images)
        z, o = network_by_hand(features, host.projector, method.object_projector, method.scale)
        target_heads = host.target_projector, method.target_object_projector
        z_target, o_target = network_by_hand(target_features, *target_heads, method.scale)
        rows, target_rows = o.flatten(0, 1), o_target.flatten(0, 1)
        if isinstance(host, BYOL):
            image = regression_by_hand(host.matcher.predictor, z, z_target)
            aligned = regression_by_hand(method.object_matcher.predictor, rows, target_rows)
        else:
            image = contrast_by_hand(host.matcher, z, z_target)
            aligned = contrast_by_hand(method.object_matcher, rows, target_rows)
        terms.append(method.weight * image + (1 - method.weight) * aligned)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("scale, weight", [(1.0, 0.5), (0.25, 0.2)])
def test_a_whole_step_equals_the_equations(host, scale, weight):
    method = LEWEL(HOSTS[host](), heads=HEADS, scale=scale, weight=weight)
    for parameter in method.parameters():  # so that all target networks differ from their online ones
        if not parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    views = make_views(batch=4)
    twin = copy.deepcopy(method).double()
    for view in views.values():
        view.images = view.images.double()
    expected = loss_by_hand(twin, views)
    logs = copy.deepcopy(method).double()(Batch(views))
    assert logs["loss"].item() == pytest.approx(expected.item(), rel=1e-5)  # the losses themselves are float32
    together = weight * logs["image_loss"] + (1 - weight) * logs["aligned_loss"]
    assert logs["loss"].item() == pytest.approx(together.item(), rel=1e-6)


# -------------------------------------------------------------------- maps and pooling


def test_maps_are_softmax_over_positions_of_unit_pixels_divided_by_the_scale():
    tokens = torch.randn(2, 6, 8, dtype=torch.float64)
    for scale in (1.0, 0.2):
        maps = alignment_maps(tokens, scale)
        assert torch.allclose(maps, maps_by_loop(tokens, scale), atol=1e-12)
        assert torch.allclose(maps.sum(dim=2), torch.ones(2, 8, dtype=torch.float64), atol=1e-12)
    unit = tokens / tokens.norm(dim=2, keepdim=True)
    divided = alignment_maps(tokens, 0.2)
    wrong = {
        "no norm": (tokens / 0.2).softmax(dim=1),
        "scale as a multiplier": (unit * 0.2).softmax(dim=1),
        "softmax over channels": (unit / 0.2).softmax(dim=2),
        "norm over positions": (tokens / tokens.norm(dim=1, keepdim=True) / 0.2).softmax(dim=1),
    }
    for name, maps in wrong.items():
        assert (maps.transpose(1, 2).float() - divided).abs().max() > 1e-2, name


def test_maps_start_nearly_uniform_and_never_differ_by_more_than_e_squared():
    tokens = torch.randn(64, 49, 256, generator=torch.Generator().manual_seed(0))
    maps = alignment_maps(tokens, 1.0)
    assert maps.amax(dim=2).mean().item() == pytest.approx(0.023, abs=0.001)  # uniform is 1/49 = 0.0204
    opposite = torch.zeros(1, 4, 256)
    opposite[0, :, 0] = torch.tensor([1e6, -1e-3, 1e3, -1e6])  # one channel, both signs, any length
    extreme = alignment_maps(opposite, 1.0)[0, 0]
    assert (extreme.max() / extreme.min()).item() == pytest.approx(math.e**2, rel=1e-5)
    anything = alignment_maps(1e3 * torch.randn(8, 49, 3).exp(), 1.0)
    assert (anything.amax(dim=2) / anything.amin(dim=2)).max() <= math.e**2 * (1 + 1e-5)


def test_pooling_has_the_head_as_the_slow_index():
    maps = torch.rand(2, 12, 5, dtype=torch.float64)
    features = torch.randn(2, 8, 5, dtype=torch.float64)
    pooled = aligned_vectors(features.transpose(1, 2), maps, heads=4)
    assert pooled.shape == (2, 3, 8)  # K / n_H vectors of dimension C, not K
    assert torch.allclose(pooled, vectors_by_loop(features, maps, 4))
    swapped = maps.unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2)
    assert not torch.allclose(pooled, vectors_by_loop(features, swapped, 4), atol=1e-2)
    assert torch.allclose(
        aligned_vectors(features.transpose(1, 2), maps, heads=1), torch.einsum("bkp,bcp->bkc", maps, features)
    )


def test_uniform_maps_give_the_pooled_vector():
    features = torch.randn(3, 8, 9)
    pooled = aligned_vectors(features.transpose(1, 2), torch.full((3, 12, 9), 1 / 9), heads=4)
    assert torch.allclose(pooled, features.mean(dim=2)[:, None].expand(-1, 3, -1), atol=1e-6)


# -------------------------------------------------------------------- statistics, gradients, momentum


def test_projector_sees_pooled_and_pixel_tokens_in_one_call():
    method = LEWEL(byol(), heads=HEADS)
    norm = next(m for m in method.siamese.projector.modules() if isinstance(m, nn.BatchNorm1d))
    calls = []
    norm.register_forward_hook(lambda module, args, output: calls.append(args[0].shape[0]))
    positions = method.siamese.backbone(make_views()["v1"].images)[0, 0].numel()
    method(Batch(make_views()))
    assert calls == [BATCH * (1 + positions)] * 2  # one call for each of the two online views
    assert norm.num_batches_tracked.item() == 2


def test_gradients_reach_the_online_maps_and_never_the_target():
    method = LEWEL(byol(), heads=HEADS, weight=0.0)  # the projector acts through the maps alone
    method(Batch(make_views()))["loss"].backward()
    for name in ("projector", "backbone"):
        module = getattr(method.siamese, name)
        assert sum(p.grad.abs().sum().item() for p in module.parameters() if p.grad is not None) > 0, name
    frozen = (method.target_object_projector, method.siamese.target_projector, method.siamese.target_backbone)
    assert all(p.grad is None and not p.requires_grad for module in frozen for p in module.parameters())
    trained = (method.object_projector, method.object_matcher)
    assert all(p.grad is not None for module in trained for p in module.parameters())


def test_every_network_predicts_its_own_maps():
    method, views = LEWEL(byol(), heads=HEADS), make_views()
    with torch.no_grad():
        before = method(Batch(views))["aligned_loss"]
        host = method.siamese
        for parameter in host.target_projector.parameters():
            parameter.copy_(torch.randn_like(parameter))
        features = host.encode_target(views["v2"].images)
        ours = method.align(features, host.target_projector, method.target_object_projector).maps
        theirs = method.align(features, host.projector, method.target_object_projector).maps
    assert not torch.allclose(ours, theirs, atol=1e-4)
    assert method(Batch(views))["aligned_loss"].item() != pytest.approx(before.item(), rel=1e-6)


def test_second_projector_is_a_separate_one_with_a_momentum_copy():
    method = LEWEL(byol(), heads=HEADS)
    first, own = list(method.siamese.projector.parameters()), list(method.object_projector.parameters())
    assert [p.shape for p in first] == [p.shape for p in own]
    assert not torch.equal(first[0], own[0])
    copies = list(method.target_object_projector.parameters())
    assert all(torch.equal(a, b) for a, b in zip(own, copies, strict=True))
    method.after_step(0.5)
    old = copies[0].clone()
    with torch.no_grad():
        own[0].add_(1.0)
    method.after_step(1.0)
    m = method.siamese.momentum(0.5)
    assert 0.9 < m < 1.0  # on its way from 0.9 to 1
    assert torch.allclose(copies[0], m * old + (1 - m) * own[0], atol=1e-6)
    method.after_step(1.0)
    assert torch.allclose(copies[0], m * old + (1 - m) * own[0], atol=1e-6)  # m = 1 moves nothing


def test_what_is_added_starts_with_kaiming_weights_and_the_host_as_without_it():
    torch.manual_seed(0)
    host = BYOL(tiny(), dim=64, hidden=256)
    before = copy.deepcopy(host.state_dict())
    method = LEWEL(host, heads=HEADS)
    assert all(torch.equal(value, before[name]) for name, value in host.state_dict().items())
    for head in (method.object_projector, method.object_matcher.predictor):
        first, last = (layer for layer in head.layers if isinstance(layer, nn.Linear))
        for layer, outputs in ((first, 256), (last, 64)):
            assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / outputs), rel=0.05)
        assert not first.bias.any()


def test_predictors_are_two():
    method = LEWEL(byol(), heads=HEADS)
    first, second = method.siamese.matcher.predictor, method.object_matcher.predictor
    shapes = [[p.shape for p in module.parameters()] for module in (first, second)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


def test_weight_one_is_the_host_on_moco_whose_head_has_no_batch_norm():
    host, views = moco(), make_views()
    alone = copy.deepcopy(host)(Batch(views))["loss"]
    assert LEWEL(host, heads=HEADS, weight=1.0)(Batch(views))["loss"].item() == pytest.approx(alone.item(), rel=1e-5)


# -------------------------------------------------------------------- MoCo's second queue


@pytest.mark.parametrize("symmetric", [False, True])
def test_aligned_vectors_have_a_queue_of_their_own_that_takes_one_vector_per_image(symmetric):
    method, views = LEWEL(moco(symmetric), heads=HEADS), make_views()
    image_queue, own = method.siamese.matcher.queue, method.object_matcher.queue
    assert own is not image_queue and own.keys.shape == (QUEUE, DIM)
    before = own.keys.clone()
    method(Batch(views))
    assert torch.equal(own.keys, before)  # no query meets its own step's keys
    with torch.no_grad():
        host = method.siamese
        names = ("v2", "v1") if symmetric else ("v2",)
        sets = [
            method.align(host.encode_target(views[n].images), host.target_projector, method.target_object_projector)
            for n in names
        ]
    method.after_step(0.1)
    for place, aligned in enumerate(sets):
        keys = own.keys[place * BATCH : (place + 1) * BATCH]  # (B, K)
        objects = nn.functional.normalize(aligned.objects, dim=2)  # (B, J, K)
        likeness = torch.einsum("bk,ajk->baj", keys, objects)
        assert torch.allclose(likeness.diagonal().amax(dim=0), torch.ones(BATCH), atol=1e-4)
    assert torch.equal(own.keys[len(sets) * BATCH :], before[len(sets) * BATCH :])


def test_the_queue_takes_every_index_in_turn():
    torch.manual_seed(0)
    objects = torch.arange(4.0).repeat(400, 1)[:, :, None]  # the vector's value is its index
    counts = torch.bincount(one_per_image(objects).long().flatten(), minlength=4)
    assert counts.sum() == 400 and counts.min() > 60


# -------------------------------------------------------------------- as a method


@pytest.mark.parametrize("host", HOSTS)
def test_loss_is_finite_and_falls_on_one_batch(host):
    method, views = LEWEL(HOSTS[host](), heads=HEADS), make_views()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    losses = []
    for _ in range(6):
        logs = method(Batch(views))
        optimizer.zero_grad()
        logs["loss"].backward()
        optimizer.step()
        losses.append(logs["loss"].item())
    assert all(math.isfinite(loss) for loss in losses) and losses[-1] < losses[0] - 0.01
    assert all(not value.requires_grad for name, value in logs.items() if name != "loss")
    assert 0.9 < logs["alignment_entropy"] <= 1 and 1 <= logs["alignment_peak"] <= math.e**2


def test_extra_views_are_compared_by_index_even_where_their_maps_are_smaller():
    method, views = LEWEL(moco(), heads=HEADS), make_views(extras=("local0",))
    views["local0"].images = views["local0"].images[:, :, ::2, ::2]
    assert math.isfinite(method(Batch(views))["loss"].item())


@pytest.mark.parametrize("rule", ["mean", "sharpest"])
def test_saliency_is_one_map_between_zero_and_one(rule):
    method = LEWEL(moco(), heads=HEADS, saliency_rule=rule).eval()
    images = make_views()["v1"].images
    maps, saliency = method.maps(whole_view(images)), method.saliency(whole_view(images))
    assert maps.shape == (BATCH, DIM, *saliency.shape[1:]) and not saliency.requires_grad
    assert torch.allclose(maps.sum(dim=(2, 3)), torch.ones(BATCH, DIM), atol=1e-5)
    assert torch.equal(saliency.amin(dim=(1, 2)), torch.zeros(BATCH))
    assert torch.allclose(saliency.amax(dim=(1, 2)), torch.ones(BATCH))
    one = maps[3].mean(dim=0)
    if rule == "sharpest":
        entropies = [-sum(float(w) * math.log(float(w)) for w in maps[3, k].flatten()) for k in range(DIM)]
        one = maps[3, entropies.index(min(entropies))]
    assert torch.allclose(saliency[3], (one - one.min()) / (one.max() - one.min()), atol=1e-4)


def test_saliency_of_a_flat_feature_map_is_zero_and_not_nan():
    method = LEWEL(moco(), heads=HEADS).eval()
    with torch.no_grad():
        for parameter in method.siamese.projector.parameters():
            parameter.zero_()
    assert torch.equal(method.saliency(make_views()["v1"]), torch.zeros(BATCH, 4, 4))


@pytest.mark.parametrize(
    "options, text",
    [
        ({"heads": 3}, "heads=3 must divide its 16 maps and the map's 16 channels"),
        ({"heads": 0}, "heads=0 must divide"),
        ({"scale": 0.0}, "divisor above 0, not 0.0"),
        ({"weight": 1.5}, "share in \\[0, 1\\], not 1.5"),
        ({"saliency_rule": "means"}, "did you mean 'mean'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, text):
    with pytest.raises(UsageError, match=text):
        LEWEL(moco(), **options)


@pytest.mark.parametrize("host", [DINO, SlotCon])
def test_a_host_without_a_second_matcher_is_refused_in_one_line(host):
    options = {"prototypes": DIM, "hidden": 24, **({"bottleneck": 8} if host is DINO else {"dim": DIM})}
    with pytest.raises(UsageError, match=f"{host.__name__} has no second matcher, which this wrapper needs"):
        LEWEL(host(tiny(), **options), heads=HEADS)


def test_around_a_method_without_a_momentum_branch_the_target_is_the_online_result():
    method = LEWEL(SimSiam(tiny(), dim=DIM), heads=HEADS)
    calls = []
    method.siamese.projector.register_forward_hook(lambda module, args, output: calls.append(args[0].shape[0]))
    method.object_projector.register_forward_hook(lambda module, args, output: calls.append("objects"))
    logs = method(Batch(make_views()))
    assert calls == [BATCH, "objects"] * 2  # once for each view
    logs["loss"].backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    assert logs["aligned_loss"] >= -1  # SimSiam's own kind of loss


def test_cost_of_a_step_is_the_hosts_plus_the_closed_form():
    recipe = Recipe("test", (CropSpec("v1", SIDE), CropSpec("v2", SIDE)))
    host, wrapped = moco(), LEWEL(moco(), heads=HEADS)
    positions, channels, hidden, aligned = 16, 16, 24, DIM // HEADS
    head = 2 * BATCH * (channels * hidden + hidden * DIM)  # g on one token of each image
    each_network = positions * head + 2 * BATCH * aligned * positions * channels + aligned * head
    contrast = 2 * BATCH * aligned * DIM * QUEUE
    difference = training_flops(wrapped, recipe, BATCH).forward - training_flops(host, recipe, BATCH).forward
    assert difference == 2 * each_network + contrast
