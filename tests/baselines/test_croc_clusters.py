"""CrOC's clusters against loops over images, heads, patches and centroids, and by the geometry of the views."""

import math

import numpy as np
import pytest
import torch
from small_croc import BATCH, CHANNELS, FLIPS, WHOLE, WithKeys, croc, make_views, softmax, unit

from baselines.croc import JointClustering, merged, patches_and_cosines
from scd.nn.vit import Tokens
from scd.siamese import Features

# -------------------------------------------------------------------- the equations, written a second time


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
    views, heads, side = make_views(), 2 if two else 1, 4 if two else 3
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
