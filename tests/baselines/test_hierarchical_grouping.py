"""Hierarchical Grouping beside loops over images and pixels; flat trees, missing regions, views without an overlap."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_moco import BATCH, LEFT, ONE, RIGHT, SIDE, WHOLE, Patches, moco, outputs, views_at, with_moved_targets
from torch import nn

from baselines.byol import BYOL
from baselines.hierarchical_grouping import HierarchicalGrouping, TreeContrast
from scd.errors import UsageError
from scd.method import Batch
from scd.nn.region_tree import tree_distances

POINTS, CELL, GRID = 6, 4, 4  # CELL: pixels along a side of a position of the map
FAR = 63  # a coarse region that the other view does not show


def grouping(symmetric=False, **options):
    """The method with target networks that differ from its online ones."""
    return with_moved_targets(HierarchicalGrouping(moco(symmetric), **{"points": POINTS, **options}))


def tree_views(extra=False, one=ONE, other=(RIGHT, WHOLE, LEFT, WHOLE)):
    """Views with random trees of regions; image 1 has one region, image 2 no common one, image 3 unknown pixels."""
    draw = np.random.default_rng(0)
    views = views_at(one, list(other), [WHOLE] * BATCH if extra else None)
    for name, view in views.items():
        cells = [draw.integers(0, most, (BATCH, GRID, GRID)) for most in (3, 2, 2)]  # coarse, middle, fine
        ids = torch.from_numpy(cells[0] + 64 * cells[1] + 1024 * cells[2])
        ids[1] = 7
        ids[2] += 0 if name == "v2" else FAR - 2
        ids[3, :2, 1:] = -1
        view.segments = ids.repeat_interleave(CELL, dim=1).repeat_interleave(CELL, dim=2)
        view.segments[:, 1::4, 2:] = 5  # a part of each position, and not the largest one
    return views


def same_regions(views, ids):
    """The views with the same plain segments at each position: ids (B, GRID, GRID)."""
    whole = ids.repeat_interleave(CELL, dim=1).repeat_interleave(CELL, dim=2)
    return {name: replace(view, segments=whole) for name, view in views.items()}


# -------------------------------------------------------------------- the equations, written a second time


def numbers(tensor):
    return tensor.detach().double().numpy()


def unit(x):
    return x / np.linalg.norm(x)


def pixels_by_hand(backbone, head, view):
    """For each image the unit vectors of its positions, row by row."""
    first, last = (
        (numbers(layer.weight), numbers(layer.bias)) for layer in head.layers if isinstance(layer, nn.Linear)
    )
    return [
        [
            unit(last[0] @ np.maximum(first[0] @ maps[:, r, c] + first[1], 0) + last[1])
            for r in range(GRID)
            for c in range(GRID)
        ]
        for maps in numbers(backbone(view.images))
    ]


def regions_by_hand(view):
    """For each image the (coarse, middle, fine) numbers of its positions, row by row; None where most is unknown."""
    found = []
    for ids in view.segments.numpy():
        cells = [
            Counter(ids[r * CELL : (r + 1) * CELL, c * CELL : (c + 1) * CELL].ravel().tolist())
            for r in range(GRID)
            for c in range(GRID)
        ]
        most = [max(cell, key=cell.get) for cell in cells]
        found.append([None if i < 0 else (i % 64, i // 64 % 16, i // 1024) for i in most])
    return found


def distance_by_hand(p, q):
    if p is None or q is None:
        return None
    return 0 if p == q else 1 if p[:2] == q[:2] else 2 if p[0] == q[0] else 3


def pair_by_hand(method, view, other, shares):
    """L_1 + L_2 of one pair of views, and the share of pixels with a positive in L_1."""
    queue, tau = numbers(method.tree_matcher.queue.keys), method.tree_matcher.temperature
    query = pixels_by_hand(method.siamese.backbone, method.pixel_projector, view)
    key = pixels_by_hand(method.siamese.target_backbone, method.target_pixel_projector, other)
    regions, others = regions_by_hand(view), regions_by_hand(other)
    terms, matched = {1: [], 2: []}, []
    for b in range(BATCH):
        for share in shares[b]:
            place = int(share * GRID * GRID)
            q, region = query[b][place], regions[b][place]
            scores = [
                (distance_by_hand(region, r), math.exp(q @ k / tau)) for r, k in zip(others[b], key[b], strict=True)
            ]
            outside = sum(math.exp(q @ k / tau) for k in queue)
            for level, found in terms.items():
                near = sum(score for d, score in scores if d is not None and d < level)
                far = sum(score for d, score in scores if d is not None and d > level)
                if near:
                    found.append(-math.log(near / (near + far + outside)))
            matched.append(any(d == 0 for d, _ in scores))
    return sum(sum(found) / len(found) for found in terms.values()), np.mean(matched)


@pytest.mark.parametrize(
    "symmetric, extra, pairs",
    [
        (False, False, [("v1", "v2")]),
        (True, False, [("v1", "v2"), ("v2", "v1")]),
        (False, True, [("v1", "v2"), ("extra", "v2")]),
    ],
)
def test_two_steps_equal_loops_over_images_and_pixels(symmetric, extra, pairs):
    method, views = grouping(symmetric, image_weight=0.7, tree_weight=0.3), tree_views(extra)
    for _ in range(2):
        before = method.tree_matcher.queue.keys.clone()
        start = int(method.tree_matcher.queue.pointer)
        logs = outputs(method, views)
        torch.manual_seed(5)
        draws = torch.rand(BATCH, POINTS + 1).tolist()  # once for all pairs; the first one is for the queue
        found = [pair_by_hand(method, views[i], views[j], [row[1:] for row in draws]) for i, j in pairs]
        tree, matched = (np.mean(values) for values in zip(*found, strict=True))
        assert logs["tree_loss"].item() == pytest.approx(tree, rel=1e-5)
        assert logs["matched_pixels"].item() == pytest.approx(matched) and 0 < matched < 1
        assert logs["loss"].item() == pytest.approx(0.7 * logs["image_loss"].item() + 0.3 * tree, rel=1e-5)
        assert torch.equal(logs["image_loss"], method.siamese(Batch(views))["image_loss"])
        assert torch.equal(method.tree_matcher.queue.keys, before)
        expected = []
        for j in dict.fromkeys(j for _, j in pairs):
            keys = pixels_by_hand(method.siamese.target_backbone, method.target_pixel_projector, views[j])
            expected += [keys[b][int(draws[b][0] * GRID * GRID)] for b in range(BATCH)]
        method.after_step(0.1)
        after = method.tree_matcher.queue.keys
        rows = torch.arange(start, start + len(expected))
        assert np.allclose(numbers(after[rows]), expected, atol=1e-6)
        others = [row for row in range(len(after)) if row not in rows.tolist()]
        assert torch.equal(after[others], before[others])
    assert method.tree_matcher.queue is not method.siamese.matcher.queue


def test_pixels_attract_or_repel_each_other_by_their_distance():
    """One pixel, and one key for each distance, unknown ones and the queue; all have the same similarity at first."""
    matcher = TreeContrast(8, 2, 0.5)
    matcher.queue.keys.copy_(torch.eye(8)[6:])
    q = torch.zeros(1, 1, 8, requires_grad=True)
    with torch.no_grad():
        q[0, 0, 7] = 1e-3  # nearly the same angle to all keys
        q[0, 0, :6] = q[0, 0, 6] = 1e-3
    keys = torch.eye(8)[None, :5]
    matcher(q, keys, torch.tensor([[[0, 1, 2, 3, -1]]])).backward()
    pull = -q.grad[0, 0] * q.detach().norm() * 0.5  # the logits' own gradients, plus a constant of the normalisation
    level_1, level_2 = [1 - 1 / 5, 0, -1 / 5, -1 / 5, 0], [1 / 2 - 1 / 5, 1 / 2 - 1 / 5, 0, -1 / 5, 0]
    expected = [a + b for a, b in zip(level_1, level_2, strict=True)]
    assert torch.allclose(pull[:5] - pull[4], torch.tensor(expected), atol=1e-4)


def test_nearer_pixels_are_pulled_at_least_as_much_and_farther_ones_pushed():
    torch.manual_seed(0)
    vectors = nn.Parameter(torch.randn(1, 8, 4))
    ids = torch.tensor([[0, 0, 1024, 1024, 64, 64, 1, 1]])  # pairs; each next pair is farther from the first one
    matcher, d = TreeContrast(4, 8, 0.2), tree_distances(ids, ids)
    optimizer = torch.optim.Adam([vectors], lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        matcher(vectors, vectors, d).backward()
        optimizer.step()
    unit_vectors = nn.functional.normalize(vectors.detach()[0], dim=1)
    cosines = unit_vectors @ unit_vectors.T
    means = [cosines[d[0] == k].mean().item() for k in range(4)]
    assert means[0] > means[1] > means[2] > means[3]


# -------------------------------------------------------------------- trees that are flat or small


def test_a_flat_tree_is_the_plain_contrast_of_regions_in_both_terms():
    method, views = grouping(), tree_views()
    ids = torch.randint(0, 5, (BATCH, GRID, GRID), generator=torch.Generator().manual_seed(3))
    views = same_regions(views, ids)
    logs = outputs(method, views)
    torch.manual_seed(5)
    places = (torch.rand(BATCH, POINTS + 1)[:, 1:] * GRID**2).long()
    q, k = (
        torch.tensor(np.array(pixels_by_hand(*networks, views[name])))
        for name, networks in (
            ("v1", (method.siamese.backbone, method.pixel_projector)),
            ("v2", (method.siamese.target_backbone, method.target_pixel_projector)),
        )
    )
    q = q.take_along_dim(places[:, :, None], dim=1)
    same = ids.flatten(1).gather(1, places)[:, :, None] == ids.flatten(1)[:, None]
    weights = (torch.cat([q @ k.mT, q @ method.tree_matcher.queue.keys.double().T], dim=2) / 0.2).softmax(dim=2)
    plain = -(weights[:, :, : GRID**2] * same).sum(dim=2).log().mean()
    assert logs["tree_loss"].item() == pytest.approx(2 * plain.item(), rel=1e-5)
    assert logs["matched_pixels"] == 1


def test_in_an_image_of_one_region_all_pixels_are_positives_of_each_other():
    method = grouping()
    views = same_regions(tree_views(), torch.full((BATCH, GRID, GRID), 9))
    before = outputs(method, views)["tree_loss"]
    method.tree_matcher.queue.keys.zero_()  # without a direction: exp(0) each
    q, k = torch.randn(2, 1, 3, 6, generator=torch.Generator().manual_seed(0))
    loss = method.tree_matcher(q, k, torch.zeros(1, 3, 3, dtype=torch.long))
    q, k = (nn.functional.normalize(x, dim=2) for x in (q, k))
    near = (q @ k.mT / 0.2).exp().sum(dim=2)
    assert loss.item() == pytest.approx(2 * -(near / (near + 32)).log().mean().item(), rel=1e-5)
    assert torch.isfinite(before) and before > 0


def test_a_region_in_one_view_only_has_no_term_and_its_image_stays_a_negative():
    """Image 2 has no region in both views: its first view counts for nothing, and neither do its keys."""
    method, views = grouping(), tree_views()
    before = outputs(method, views)["tree_loss"]
    for view in views.values():
        view.images[2] = 10 * torch.randn(3, SIDE, SIDE)
    assert torch.equal(outputs(method, views)["tree_loss"], before)
    method.after_step(0.1)
    assert not torch.equal(outputs(method, views)["tree_loss"], before)  # in the queue it is a negative of others


def test_pixels_of_no_region_count_for_nothing():
    method, views = grouping(), tree_views()
    before = outputs(method, views)["tree_loss"]
    for view in views.values():
        view.images[3, :, :8, 4:] = 10 * torch.randn(3, 8, 12)  # the unknown positions
    assert torch.equal(outputs(method, views)["tree_loss"], before)
    views["v2"].images[3, :, 8:] = 10 * torch.randn(3, 8, SIDE)
    assert not torch.equal(outputs(method, views)["tree_loss"], before)


def test_views_that_do_not_overlap_are_compared_by_their_regions_alone():
    method = grouping()
    near, apart = tree_views(one=[WHOLE] * BATCH), tree_views(one=[LEFT] * BATCH, other=[RIGHT] * BATCH)
    assert torch.equal(outputs(method, near)["tree_loss"], outputs(method, apart)["tree_loss"])


def test_without_any_common_region_the_loss_and_its_gradients_are_0_and_the_hosts_stay():
    method, views = grouping(image_weight=0.7), tree_views()
    views["v1"].segments = torch.full_like(views["v1"].segments, FAR)
    logs = outputs(method, views)
    assert logs["tree_loss"] == 0 and logs["matched_pixels"] == 0
    assert torch.equal(logs["loss"], 0.7 * logs["image_loss"])
    logs["loss"].backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in method.pixel_projector.parameters())
    assert method.backbone.conv.weight.grad.abs().sum() > 0
    method.after_step(0.1)
    assert torch.isfinite(method.tree_matcher.queue.keys).all()


# -------------------------------------------------------------------- networks, precision, settings


def test_no_gradient_reaches_the_targets_and_one_reaches_each_layer():
    method = grouping(image_weight=0.0)
    outputs(method, tree_views())["loss"].backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is None) == ("target_" in name), name
    parts = (*method.pixel_projector.parameters(), method.siamese.backbone.conv.weight)
    assert all(p.grad.abs().sum() > 0 for p in parts)
    assert method.siamese.projector.layers[0].weight.grad.abs().sum() == 0


def test_the_target_head_moves_towards_the_online_head_after_the_step():
    method = grouping()
    online, target = method.pixel_projector.layers[0].weight, method.target_pixel_projector.layers[0].weight
    expected = 0.9 * target + 0.1 * online.detach()
    outputs(method, tree_views())
    method.after_step(0.1)
    assert torch.allclose(target, expected, atol=1e-6)


def test_tree_weight_0_is_the_host():
    views = tree_views()
    assert torch.equal(outputs(grouping(tree_weight=0.0), views)["loss"], outputs(grouping(), views)["image_loss"])


def test_a_step_in_bfloat16_stays_close_to_float32():
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses.append(outputs(grouping(), tree_views())["tree_loss"])
    assert losses[1].dtype == torch.float32 and losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)


def test_the_head_has_the_hosts_shape_unless_it_is_given():
    shapes = [tuple(p.shape) for p in grouping().pixel_projector.parameters()]
    assert shapes == [tuple(p.shape) for p in moco().projector.parameters()]
    assert [tuple(p.shape) for p in grouping(dim=5, hidden=0).pixel_projector.parameters()] == [(5, 16), (5,)]


def test_wrong_settings_and_views_are_refused():
    with pytest.raises(UsageError, match="needs MoCo as its host, not BYOL"):
        HierarchicalGrouping(BYOL(Patches(), 6, 10))
    for option, value, words in [
        ("points", 0, "draws at least 1 pixel of each view, not 0"),
        ("image_weight", -1.0, "weights are 0 or more, not -1.0 and 0.5"),
        ("tree_weight", -0.5, "weights are 0 or more, not 1.0 and -0.5"),
    ]:
        with pytest.raises(UsageError, match=words):
            grouping(**{option: value})
    with pytest.raises(UsageError, match="needs images with segments: name what makes them, annotations.segments=NAME"):
        outputs(grouping(), views_at(ONE, ONE))
    method = grouping()
    assert HierarchicalGrouping.needs == method.needs == {"segments"} and method.supervision == "none"
