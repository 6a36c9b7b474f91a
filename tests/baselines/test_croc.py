"""CrOC against loops over images, heads and patches, against its official code, and its edge cases."""

import math

import numpy as np
import pytest
import torch
from golden_numbers import assert_same, begin, follow, golden
from torch import Tensor, nn

from baselines.byol import BYOL
from baselines.croc import ClusterDistillation, CrOC, JointClustering, cluster_vectors, merged, patches_and_cosines
from baselines.dino import DINO, Temperatures
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.backbone import build_backbone
from scd.nn.vit import Tokens, vit
from scd.siamese import Features

BATCH, SIDE, CHANNELS = 4, 12, 6
WHOLE, LEFT, RIGHT = [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]
PLACES = ([WHOLE, [0.1, 0.0, 0.9, 0.6], [0.0, 0.0, 0.5, 0.5], LEFT], [[0.2, 0.1, 0.7, 0.9], WHOLE, WHOLE, RIGHT])
FLIPS = ([False, True, False, True], [True, True, False, False])


class WithKeys(nn.Module):
    """A 1 x 1 convolution whose maps carry the keys of two heads, products of the positions, as a ViT's do."""

    dim = CHANNELS

    def __init__(self, mix: Tensor):
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 1, bias=False)
        self.register_buffer("mix", mix)

    def forward(self, images):
        maps = self.conv(images)
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        keys = (tokens @ self.mix).unflatten(2, (2, -1)).transpose(1, 2)  # (B, 2, 1 + hw, d)
        maps.tokens = Tokens(keys[:, :, 0], keys.detach(), tuple(maps.shape[2:]), 1.0)
        return maps, tokens[:, 0]


class Patches(nn.Module):
    """Maps of 3 x 3 positions without attention."""

    dim = CHANNELS

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 4, stride=4)

    def forward(self, images):
        return self.conv(images)


def dino(backbone=None, **options):
    torch.manual_seed(0)
    options = {"prototypes": 12, "hidden": 10, "bottleneck": 5, "momentum": 0.9, **options}
    return DINO(Patches() if backbone is None else backbone, **options)


def croc(backbone=None, **options):
    """A CrOC in float64 whose target networks differ from their online ones."""
    method = CrOC(dino(backbone), **{"prototypes": 9, "seeds": 5, **options}).double()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def make_views(places=PLACES, extras=()):
    draw = torch.Generator().manual_seed(1)
    sides = {"v1": SIDE, "v2": SIDE, **dict.fromkeys(extras, 8)}
    return {
        name: View(
            name, "extra" if name in extras else "global",
            torch.randn(BATCH, 3, side, side, generator=draw, dtype=torch.float64),
            torch.tensor(places[i % 2], dtype=torch.float64), torch.tensor(FLIPS[i % 2]),
        )
        for i, (name, side) in enumerate(sides.items())
    }  # fmt: skip


def outputs(method, views, seed=5):
    torch.manual_seed(seed)
    return method(Batch(views))


# -------------------------------------------------------------------- the equations, written a second time


def unit(x):
    return x / np.linalg.norm(x)


def softmax(x):
    weights = np.exp(np.asarray(x) - max(x))
    return weights / weights.sum()


def transport_by_hand(cost, r, c, settings):
    plan = np.exp(-settings.sharpness * cost)
    for _ in range(settings.iterations):
        for n in range(len(r)):
            plan[n] *= r[n] / sum(plan[n])
        for k in range(len(c)):
            plan[:, k] *= c[k] / sum(plan[:, k])
    return plan


def clusters_by_hand(patches, whole, places, seeds, settings, first):
    """Weights (n, K_max) of both views' patches and K of each row: an image and a head; ``first``: those of view 1."""
    rows = range(len(patches))
    x = [[unit(p) for p in patches[row]] for row in rows]
    cosines = [[p @ unit(whole[row][int(n >= first)]) for n, p in enumerate(x[row])] for row in rows]
    r = [softmax(np.array(cosines[row]) / settings.patch_temperature) for row in rows]
    c = [softmax([cosines[row][s] / settings.centroid_temperature for s in seeds[row]]) for row in rows]
    centroids = [[x[row][s] for s in seeds[row]] for row in rows]
    middles = [[places[row][s] for s in seeds[row]] for row in rows]
    found = [[] for _ in rows]
    for k in range(settings.seeds, 1, -1):
        costs = []
        for row in rows:
            far = np.array([[math.dist(place, middle) for middle in middles[row]] for place in places[row]])
            near = np.array([[p @ unit(centroid) for centroid in centroids[row]] for p in x[row]])
            costs.append(settings.position_weight * far / far.max() - near)
        low, high = min(cost.min() for cost in costs), max(cost.max() for cost in costs)
        for row in rows:
            cost = (costs[row] - low) / (high - low)
            plan = transport_by_hand(cost, r[row], c[row], settings)
            found[row].append((float((plan * cost).sum()), k, plan))
            means = [sum(plan[n, m] * x[row][n] for n in range(len(x[row]))) / sum(plan[:, m]) for m in range(k)]
            pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
            i, j = max(pairs, key=lambda pair: means[pair[0]] @ means[pair[1]])
            kept = [plan[:, m] for m in range(k) if m not in (i, j)] + [plan[:, i] + plan[:, j]]
            shares = [column / column.sum() for column in kept]
            centroids[row] = [sum(s * p for s, p in zip(share, x[row], strict=True)) for share in shares]
            middles[row] = [sum(s * np.array(p) for s, p in zip(share, places[row], strict=True)) for share in shares]
            masses = np.array([share @ r[row] for share in shares])
            c[row] = masses / masses.sum()
    weights, chosen = [], []
    for row in rows:
        _, k, plan = min((stage for stage in found[row] if stage[1] <= settings.most), key=lambda stage: stage[0])
        hard = np.zeros((len(plan), settings.most))
        for view in (range(first), range(first, len(plan))):
            columns = np.array([[plan[n, m] / sum(plan[i, m] for i in view) for m in range(k)] for n in view])
            for n, line in zip(view, columns, strict=True):
                hard[n, line.argmax()] = line.max()
        weights.append(hard)
        chosen.append(k)
    return np.stack(weights), chosen


def places_by_hand(view, image, side):
    x0, y0, x1, y1 = view.rectangles[image].tolist()
    found = []
    for row in range(side):
        for column in range(side):
            u = (column + 0.5) / side
            u = 1 - u if view.flips[image] else u
            found.append((x0 + u * (x1 - x0), y0 + (row + 0.5) / side * (y1 - y0)))
    return found


@pytest.mark.parametrize("kind", ["a map", "keys of two heads"])
def test_the_clusters_equal_loops_over_rows_patches_and_centroids(kind, monkeypatch):
    two = kind != "a map"
    torch.manual_seed(3)
    method = croc(WithKeys(torch.randn(CHANNELS, 8)) if two else None, position_weight=1.0, centroid_temperature=0.7)
    places, heads, side = (PLACES, 2, 4) if two else (PLACES, 1, 3)
    views = make_views(places)
    if two:
        for view in views.values():
            view.images = view.images[:, :, ::3, ::3].clone()
    seeds = []
    draw = JointClustering.draw
    monkeypatch.setattr(JointClustering, "draw", lambda self, x: seeds.append(draw(self, x)) or seeds[-1])
    encoded = method.siamese.encode(views)
    with torch.no_grad():
        found, chosen = method.clusters(encoded, ("v1", "v2"))
    rows = [(image, head) for image in range(BATCH) for head in range(heads)]
    patches, whole = [], []
    for image, head in rows:
        both = [encoded.target[name] for name in ("v1", "v2")]
        if two:
            keys = [each.maps.tokens.key[image, head].numpy() for each in both]
            patches.append(np.concatenate([key[1:] for key in keys]))
            whole.append([key[0] for key in keys])
        else:
            patches.append(np.concatenate([each.maps[image].flatten(1).T.numpy() for each in both]))
            whole.append([each.pooled[image].numpy() for each in both])
    where = [sum((places_by_hand(view, image, side) for view in views.values()), []) for image, _ in rows]
    weights, counts = clusters_by_hand(patches, whole, where, seeds[0].tolist(), method.clustering, side**2)
    assert np.allclose(torch.cat(found, dim=2).flatten(0, 1).numpy(), weights, atol=1e-10)
    assert chosen.tolist() == counts and len(set(counts)) > 1


def test_the_loss_equals_loops_over_clusters():
    method, views = croc(weight=0.3), make_views()
    method.cluster_matcher.centre.copy_(torch.linspace(-0.1, 0.2, 9))
    logs = outputs(method, views)
    torch.manual_seed(5)
    encoded = method.siamese.encode(views)
    with torch.no_grad():
        weights, chosen = method.clusters(encoded, ("v1", "v2"))

    def logits(features, mlp, prototypes):
        length = np.mean([np.linalg.norm(v) for view in features.values() for v in view.pooled.detach().numpy()])
        found = {}
        for v, view in enumerate(features.values()):
            for b in range(BATCH):
                maps, w = view.maps[b].detach().flatten(1).numpy(), weights[v][b, 0].numpy()
                for k in range(w.shape[1]):
                    if w[:, k].any():
                        vector = length * unit(sum(w[n, k] * maps[:, n] for n in range(len(w))))
                        hidden = mlp(torch.tensor(vector)[None])[0].detach().numpy()
                        found[v, b, k] = [unit(hidden) @ unit(row) for row in prototypes.weight.detach().numpy()]
        return found

    order = {name: encoded.target[name] for name in ("v1", "v2")}
    student = logits(encoded.online, method.siamese.projector.mlp, method.prototypes)
    teacher = logits(order, method.siamese.target_projector.mlp, method.target_prototypes)
    centre, terms = method.cluster_matcher.centre.numpy(), {0: [], 1: []}
    shared = [key[1:] for key in student if key[0] == 0 and (1, *key[1:]) in student]
    for b, k in shared:
        for v in (0, 1):
            wanted = softmax((np.array(teacher[1 - v, b, k]) - centre) / 0.04)
            given = np.array(student[v, b, k]) / 0.1
            terms[v].append(-wanted @ (given - np.log(np.exp(given).sum())))
    expected = (np.mean(terms[0]) + np.mean(terms[1])) / 2
    assert logs["cluster_loss"].item() == pytest.approx(expected, rel=1e-10)
    host = method.siamese(Batch(views))["loss"].item()
    assert logs["loss"].item() == pytest.approx(host + 0.3 * expected, rel=1e-10)
    assert logs["shared_clusters"].item() == pytest.approx(len(shared) / BATCH)
    assert logs["clusters"].item() == pytest.approx(chosen.double().mean().item())
    assert logs["overlap"].item() == 0.75
    before = method.cluster_matcher.centre.clone()
    assert outputs(method, views)["cluster_loss"] == logs["cluster_loss"]  # the centre moves after the step
    method.after_step(0.1)
    mean = np.mean([teacher[v, b, k] for b, k in shared for v in (0, 1)], axis=0)
    assert np.allclose(method.cluster_matcher.centre.numpy(), 0.9 * before.numpy() + 0.1 * mean, atol=1e-12)


def test_steps_equal_the_official_code(monkeypatch):
    """Two epochs with keys of two heads, the last layers frozen in the first; the official seeds are taken over."""
    numbers = golden("croc")
    temperatures = {"student_temperature": 0.3, "teacher_temperature": 0.15}
    host = dino(WithKeys(numbers["mix"]), freeze_last=0.5, **temperatures)
    options = {"prototypes": 9, "seeds": 6, "position_weight": 2.5, "centroid_temperature": 1.5, "weight": 0.7}
    method = CrOC(host, **options).double()
    begin(method, numbers)
    seeds = iter(numbers["seeds"])
    monkeypatch.setattr(JointClustering, "draw", lambda self, cosines: next(seeds))
    logs = []
    combine = method.combine
    monkeypatch.setattr(method, "combine", lambda *a: logs.append(combine(*a)) or logs[-1])
    assigned = []
    clusters = method.clusters
    monkeypatch.setattr(method, "clusters", lambda *a: assigned.append(clusters(*a)) or assigned[-1])

    def views(numbers, step):
        rectangles, flips = numbers["rectangles"][:, step], numbers["flips"][:, step]
        views = [View(n, "global", numbers[n][step], rectangles[v], flips[v]) for v, n in enumerate(("v1", "v2"))]
        return Batch({view.name: view for view in views})

    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.2)
    steps = 0
    for step in follow(method, optimizer, numbers, views):
        found = logs[step][1]
        assert_same(torch.stack(assigned[step][0]).flatten(1, 2), numbers["assignments"][step], f"clusters of {step}")
        assert_same(found["cluster_loss"], numbers["cluster_loss"][step], f"clusters' loss of step {step}")
        assert found["shared_clusters"].item() * 5 == pytest.approx(numbers["valid"][step].item() / 2)
        assert found["clusters"].item() == pytest.approx(numbers["regions"][step].item(), abs=1e-6)
        assert_same(method.cluster_matcher.centre, numbers["cluster_centre"][step], f"clusters' centre after {step}")
        assert_same(method.siamese.matcher.centre, numbers["centre"][step], f"DINO's centre after {step}")
        assert_same(method.prototypes.weight, numbers["last_layer"][step], f"last layer after {step}")
        steps += 1
    assert steps == 6 and numbers["regions"].min() < 4  # not all clusterings are of one size


# -------------------------------------------------------------------- geometry


def test_the_same_place_is_in_the_same_cluster_whatever_the_view_and_the_flip():
    """Features that say nothing: the place alone decides. Both views show the whole image, some of them mirrored."""
    settings = JointClustering(seeds=4, most=4)
    view, other = make_views(([WHOLE] * BATCH, [WHOLE] * BATCH)).values()
    grids = [each.grid(4, 4) for each in (view, other)]
    patches = torch.ones(BATCH, 32, 1, dtype=torch.float64)
    seeds = torch.tensor([[0, 3, 12, 15]]).expand(BATCH, -1)  # the corners of the first view
    places = torch.cat([grid.flatten(1, 2) for grid in grids], dim=1)
    stages = settings.stages(patches, torch.zeros(BATCH, 32, dtype=torch.float64), places, seeds)
    (one, two), _ = settings.assign(stages[:1] * 3, (16, 16))
    for b in range(BATCH):
        one_map, two_map = (w[b].argmax(dim=1).view(4, 4) for w in (one, two))
        assert len(one_map.unique()) == 4
        assert torch.equal(two_map.flip(1) if FLIPS[0][b] != FLIPS[1][b] else two_map, one_map)


def test_without_the_position_term_places_do_not_matter():
    method = croc(position_weight=0.0)
    assert outputs(method, make_views())["loss"] == outputs(method, make_views(PLACES[::-1]))["loss"]
    method = croc(position_weight=4.0)
    assert outputs(method, make_views())["loss"] != outputs(method, make_views(PLACES[::-1]))["loss"]


def test_views_that_do_not_overlap_are_clustered_as_others_are():
    logs = outputs(croc(), make_views(([LEFT] * BATCH, [RIGHT] * BATCH)))
    assert logs["overlap"] == 0 and logs["without_clusters"] == 0 and logs["cluster_loss"] > 0


# -------------------------------------------------------------------- clusters that do not count


def test_a_cluster_in_one_view_only_does_not_count_and_leaves_no_gradient(monkeypatch):
    method, views = croc(), make_views()
    clusters = method.clusters

    def apart(*arguments):
        (one, two), chosen = clusters(*arguments)
        one[:, :, :, 2:], two[:, :, :, :2] = 0.0, 0.0
        one[0, :, 0], two[0, :, 0] = torch.eye(4)[0], torch.eye(4)[0]  # the first image: cluster 0 in both
        return [one, two], chosen

    monkeypatch.setattr(method, "clusters", apart)
    logs = outputs(method, views)
    assert logs["shared_clusters"] == 0.25 and logs["without_clusters"] == 0.75 and logs["cluster_loss"] > 0
    with torch.no_grad():
        before = logs["cluster_loss"]
        weights, _ = apart(method.siamese.encode(views), ("v1", "v2"))
        vectors = cluster_vectors(list(method.siamese.encode(views).online.values()), weights)
        assert torch.equal(vectors[0][4 + 2], torch.zeros(CHANNELS))  # an empty cluster
    assert outputs(method, views)["cluster_loss"] == before


def test_without_any_cluster_in_both_views_the_loss_is_dinos_and_the_centre_stays(monkeypatch):
    method, views = croc(), make_views()
    method.cluster_matcher.centre.copy_(torch.linspace(-0.1, 0.2, 9))
    clusters = method.clusters

    def apart(*arguments):
        (one, two), chosen = clusters(*arguments)
        one[:, :, :, 1:], two[:, :, :, :1] = 0.0, 0.0
        return [one, two], chosen

    monkeypatch.setattr(method, "clusters", apart)
    logs = outputs(method, views)
    assert logs["cluster_loss"] == 0 and logs["without_clusters"] == 1
    assert torch.equal(logs["loss"], logs["image_loss"])
    logs["loss"].backward()
    assert torch.equal(method.prototypes.weight.grad, torch.zeros_like(method.prototypes.weight))
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.requires_grad)
    assert method.backbone.conv.weight.grad.abs().sum() > 0
    before = method.cluster_matcher.centre.clone()
    method.after_step(0.1)
    assert torch.equal(method.cluster_matcher.centre, before)


def test_the_distillation_counts_rows_and_not_their_number():
    draw = torch.Generator().manual_seed(0)
    matcher = ClusterDistillation(9, Temperatures(), 0.9).double()
    online, target = torch.randn(2, 6, 9, generator=draw, dtype=torch.float64)
    counted = torch.tensor([True, False, True, False, False, True])
    loss = matcher(online, target, counted)
    assert loss.item() == pytest.approx(matcher(online[counted], target[counted], torch.ones(3) > 0).item(), rel=1e-12)


# -------------------------------------------------------------------- parts


def test_seeds_are_drawn_without_replacement_by_the_patches_masses():
    settings = JointClustering(seeds=2, most=2, patch_temperature=0.5)
    cosines = torch.tensor([0.5, 0.0, -0.2, 0.9]).expand(20000, 4)
    torch.manual_seed(0)
    seeds = settings.draw(cosines)
    assert (seeds[:, 0] != seeds[:, 1]).all()
    p = softmax(np.array([1.0, 0.0, -0.4, 1.8]))
    assert np.allclose(np.bincount(seeds[:, 0], minlength=4) / 20000, p, atol=0.012)
    second = [sum(p[i] * p[j] / (1 - p[i]) for i in range(4) if i != j) for j in range(4)]
    assert np.allclose(np.bincount(seeds[:, 1], minlength=4) / 20000, second, atol=0.012)


def test_the_pair_with_the_largest_product_is_merged_and_comes_last():
    plan = torch.arange(1.0, 11.0).view(1, 2, 5)
    centroids = torch.eye(5)[None].clone()
    centroids[0, 3, 1] = 0.5
    assert torch.equal(merged(plan, centroids)[0], torch.tensor([[1.0, 3.0, 5.0, 2.0 + 4.0], [6.0, 8.0, 10.0, 16.0]]))


def test_a_plan_has_the_masses_of_patches_and_centroids():
    draw = torch.Generator().manual_seed(0)
    cost = torch.rand(2, 7, 3, generator=draw)
    masses, shares = torch.rand(2, 7, 1, generator=draw), torch.rand(2, 1, 3, generator=draw)
    masses, shares = masses / masses.sum(1, keepdim=True), shares / shares.sum(2, keepdim=True)
    plan = JointClustering(iterations=300, sharpness=5.0).transport(cost, masses, shares)
    assert torch.allclose(plan.sum(2, keepdim=True), masses, atol=1e-5)
    assert torch.allclose(plan.sum(1, keepdim=True), shares, atol=1e-5)


def test_heads_are_clustered_by_their_keys_and_the_class_tokens_key_comes_first():
    torch.manual_seed(0)
    key = torch.randn(2, 3, 2 + 4, 5)  # class token and a register before four patches
    maps = torch.randn(2, 15, 2, 2)
    maps.tokens = Tokens(key[:, :, 0], key, (2, 2), 1.0)
    patches, cosines = patches_and_cosines(Features(maps, torch.randn(2, 15)))
    assert patches.shape == (2, 3, 4, 5) and torch.allclose(patches.norm(dim=3), torch.ones(2, 3, 4))
    expected = torch.cosine_similarity(key[:, :, 2:], key[:, :, :1], dim=3)
    assert torch.allclose(cosines, expected, atol=1e-6)


def backbone_of(kind):
    torch.manual_seed(0)
    if kind == "cnn":
        return build_backbone("resnet_tiny", widths=(8, CHANNELS), strides=(1, 2))
    return vit("vit_tiny_patch16_224", img_size=SIDE, patch_size=4, embed_dim=8, depth=2, num_heads=2)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_cnn_and_a_vit_take_steps_and_local_views_do_not_change_the_clusters(kind, device):
    method = CrOC(dino(backbone_of(kind)), prototypes=9).to(device)
    views = {name: view.part(slice(0, 4)) for name, view in make_views(extras=("local",)).items()}
    for view in views.values():
        view.images, view.rectangles = view.images.float().to(device), view.rectangles.float().to(device)
        view.flips = view.flips.to(device)
    logs = outputs(method, views)
    logs["loss"].backward()
    assert all(value.shape == () for value in logs.values())
    method.after_backward()
    with torch.no_grad():
        method.after_step(0.5)
    if device == "cpu":
        assert all(torch.isfinite(value) for value in logs.values())
        assert 2 <= logs["clusters"] <= 4 and logs["shared_clusters"] > 0
        method = CrOC(dino(backbone_of(kind)), prototypes=9)
        alone = outputs(method, {name: views[name] for name in ("v1", "v2")})
        assert alone["cluster_loss"].item() == pytest.approx(logs["cluster_loss"].item(), rel=1e-5)


def test_the_clusters_last_layer_is_frozen_as_dinos_is():
    for progress, frozen in ((0.0, True), (0.02, False)):
        method = croc()
        method.siamese.matcher.progress = progress
        outputs(method, make_views())["loss"].backward()
        method.after_backward()
        assert (method.prototypes.weight.grad is None) == frozen == (method.siamese.projector.weight.grad is None)


def test_weight_0_is_dino():
    views = make_views()
    wrapped = CrOC(dino(), weight=0.0).double()
    assert outputs(wrapped, views)["loss"].item() == pytest.approx(outputs(dino().double(), views)["loss"].item())


def test_the_teacher_alone_assigns_and_gets_no_gradient():
    method, views = croc(), make_views()
    outputs(method, views)["cluster_loss"]
    assert not any(value.requires_grad for value in method.cluster_matcher.waiting[None])
    encoded = method.siamese.encode(views)
    torch.manual_seed(0)
    weights, _ = method.clusters(encoded, ("v1", "v2"))
    with torch.no_grad():
        method.backbone.conv.weight.mul_(-2.0)
    torch.manual_seed(0)
    again, _ = method.clusters(method.siamese.encode(views), ("v1", "v2"))
    assert torch.equal(weights[0], again[0]) and torch.equal(weights[1], again[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"most_clusters": 1}, "keeps 2 clusters or more, and at most its 5 seeds, not 1"),
        ({"most_clusters": 6}, "at most its 5 seeds, not 6"),
        ({"iterations": 0}, "1 iteration and 2 prototypes at least, not 0"),
        ({"sharpness": 0.0}, "sharpness is a number above 0, not 0.0"),
        ({"patch_temperature": 0.0}, "patch_temperature is a number above 0"),
        ({"centroid_temperature": -1.0}, "centroid_temperature is a number above 0"),
        ({"weight": -1.0}, "weight is 0 or more, not -1.0"),
        ({"position_weight": -1.0}, "position_weight is 0 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        croc(**options)


def test_another_host_and_maps_that_are_too_small_are_refused():
    with pytest.raises(UsageError, match="needs DINO, not BYOL"):
        CrOC(BYOL(Patches(), dim=8, hidden=10))
    with pytest.raises(
        UsageError, match="20 seeds among the 18 positions of two views; use larger maps or fewer seeds"
    ):
        outputs(croc(seeds=20), make_views())
