"""VADeR against loops over images and points, its queue, and views that overlap in part or not at all."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from baselines.byol import BYOL
from baselines.moco import MoCo
from baselines.vader import PointContrast, VADeR
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.backbone import build_backbone

BATCH, SIDE, DIM, HIDDEN, QUEUE, POINTS = 4, 16, 6, 10, 32, 5
WHOLE, LEFT, RIGHT = [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]  # LEFT only touches RIGHT
ONE = [WHOLE, [0.1, 0.0, 0.9, 0.6], [0.0, 0.0, 0.5, 0.5], LEFT]  # whole, partly, in a corner, not at all
OTHER = [[0.2, 0.1, 0.7, 0.9], [0.3, 0.2, 1.0, 1.0], [0.4, 0.3, 1.0, 0.9], RIGHT]
FLIPS = ([False, True, False, True], [True, True, False, False])


class Patches(nn.Module):
    """A backbone without BN: 4 x 4 patches, one Linear each."""

    dim = 16

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, self.dim, 4, stride=4)

    def forward(self, images):
        return self.conv(images).relu()


def moco(symmetric=False, backbone=None, **options):
    torch.manual_seed(0)
    options = {"dim": DIM, "hidden": HIDDEN, "queue_size": QUEUE, "momentum": 0.9, "symmetric": symmetric, **options}
    return MoCo(Patches() if backbone is None else backbone, **options)


def vader(symmetric=False, **options):
    """A VADeR whose target networks differ from their online ones."""
    method = VADeR(moco(symmetric), **{"points": POINTS, **options})
    for parameter in method.parameters():
        if not parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def make_views(one=ONE, other=OTHER, extra=None):
    draw = torch.Generator().manual_seed(1)
    places = {"v1": (one, FLIPS[0]), "v2": (other, FLIPS[1]), **({"extra": (extra, FLIPS[1])} if extra else {})}
    return {
        name: View(
            name,
            "extra" if name == "extra" else "global",
            torch.randn(BATCH, 3, SIDE, SIDE, generator=draw),
            torch.tensor(rectangles),
            torch.tensor(flips),
        )
        for name, (rectangles, flips) in places.items()
    }


def outputs(method, views, seed=5):
    torch.manual_seed(seed)
    return method(Batch(views))


# -------------------------------------------------------------------- the equations, written a second time


def numbers(tensor):
    return tensor.detach().double().numpy()


def head_by_hand(head, vector):
    first, last = (layer for layer in head.layers if isinstance(layer, nn.Linear))
    return numbers(last.weight) @ np.maximum(numbers(first.weight) @ vector + numbers(first.bias), 0) + numbers(
        last.bias
    )


def dense_by_hand(head, maps):
    """(h, w, D)."""
    return np.stack([[head_by_hand(head, maps[:, r, c]) for c in range(maps.shape[2])] for r in range(maps.shape[1])])


def value_by_hand(dense, rectangle, flip, x, y):
    """The dense vector that a view has at a place of the source image."""
    height, width = dense.shape[:2]
    u, v = (x - rectangle[0]) / (rectangle[2] - rectangle[0]), (y - rectangle[1]) / (rectangle[3] - rectangle[1])
    u = 1 - u if flip else u
    column, row = min(max(u * width - 0.5, 0), width - 1), min(max(v * height - 0.5, 0), height - 1)
    return sum(
        dense[r, c] * max(0, 1 - abs(row - r)) * max(0, 1 - abs(column - c))
        for r in range(height)
        for c in range(width)
    )


def common_by_hand(p, q):
    box = [max(p[0], q[0]), max(p[1], q[1]), min(p[2], q[2]), min(p[3], q[3])]
    return box if box[0] < box[2] and box[1] < box[3] else None


def pair_by_hand(method, view, other, draws):
    """L_d of one pair, and the keys (B, D) for the queue, from uniform numbers (B, P, 2)."""
    queue, temperature = numbers(method.dense_matcher.queue.keys), method.dense_matcher.temperature
    query, key = numbers(method.siamese.backbone(view.images)), numbers(method.siamese.target_backbone(other.images))
    per_image, keys = [], []
    for b in range(BATCH):
        mine, theirs = view.rectangles[b].tolist(), other.rectangles[b].tolist()
        common = common_by_hand(mine, theirs)
        x0, y0, x1, y1 = common or theirs
        r, t = dense_by_hand(method.dense_projector, query[b]), dense_by_hand(method.target_dense_projector, key[b])
        terms = []
        for share_x, share_y in draws[b].tolist():
            x, y = x0 + share_x * (x1 - x0), y0 + share_y * (y1 - y0)
            q = value_by_hand(r, mine, bool(view.flips[b]), x, y)
            k = value_by_hand(t, theirs, bool(other.flips[b]), x, y)
            q, k = q / np.linalg.norm(q), k / np.linalg.norm(k)
            if not terms:
                keys.append(k)
            scores = [math.exp(q @ n / temperature) for n in (k, *queue)]
            terms.append(-math.log(scores[0] / sum(scores)))
        per_image += [sum(terms) / len(terms)] if common else []
    return sum(per_image) / len(per_image), np.stack(keys)


@pytest.mark.parametrize(
    "symmetric, extra, pairs",
    [
        (False, None, [("v1", "v2")]),
        (True, None, [("v1", "v2"), ("v2", "v1")]),
        (False, [WHOLE] * 4, [("v1", "v2"), ("extra", "v2")]),
    ],
)
def test_a_whole_step_equals_loops_over_images_and_points(symmetric, extra, pairs):
    method, views = vader(symmetric, weight=0.3), make_views(extra=extra)
    logs = outputs(method, views)
    torch.manual_seed(5)
    draws = torch.rand(BATCH, POINTS, 2)  # once for all pairs
    found = [pair_by_hand(method, views[i], views[j], draws) for i, j in pairs]
    dense = sum(loss for loss, _ in found) / len(found)
    assert logs["dense_loss"].item() == pytest.approx(dense, rel=1e-5)
    assert logs["loss"].item() == pytest.approx(0.7 * logs["image_loss"].item() + 0.3 * dense, rel=1e-5)
    assert logs["image_loss"].item() == pytest.approx(method.siamese(Batch(views))["loss"].item(), rel=1e-6)
    assert logs["overlap"].item() == pytest.approx(0.875 if extra else 0.75)
    before = method.dense_matcher.queue.keys.clone()
    method.after_step(0.1)
    kept = {j: keys for (_, j), (_, keys) in reversed(list(zip(pairs, found, strict=True)))}  # the first pair's
    expected = np.concatenate([kept[j] for j in dict.fromkeys(j for _, j in pairs)])
    assert np.allclose(numbers(method.dense_matcher.queue.keys[: len(expected)]), expected, atol=1e-5)
    assert torch.equal(method.dense_matcher.queue.keys[len(expected) :], before[len(expected) :])


def test_keys_enter_the_queue_after_the_step_so_that_no_query_meets_its_own():
    method, views = vader(), make_views()
    before = method.dense_matcher.queue.keys.clone()
    first = outputs(method, views)["dense_loss"]
    assert torch.equal(method.dense_matcher.queue.keys, before)
    assert torch.equal(outputs(method, views)["dense_loss"], first)
    method.after_step(0.1)
    assert not torch.equal(method.dense_matcher.queue.keys[:BATCH], before[:BATCH])
    assert torch.equal(method.dense_matcher.queue.keys[BATCH:], before[BATCH:])
    assert method.dense_matcher.queue is not method.siamese.matcher.queue


# -------------------------------------------------------------------- overlap


def test_images_whose_views_do_not_overlap_contribute_nothing():
    method, views = vader(), make_views()
    whole = outputs(method, views)
    with torch.no_grad():
        for view in views.values():
            view.images[3] = 10 * torch.randn(3, SIDE, SIDE)  # the image without overlap
    changed = outputs(method, views)
    assert torch.equal(changed["dense_loss"], whole["dense_loss"])
    assert not torch.equal(changed["image_loss"], whole["image_loss"])


def test_without_any_overlap_the_dense_loss_is_0_with_gradients_and_the_image_loss_stays():
    method, views = vader(weight=0.3), make_views([LEFT] * BATCH, [RIGHT] * BATCH)  # the views touch
    logs = outputs(method, views)
    assert logs["dense_loss"] == 0 and logs["overlap"] == 0
    assert torch.equal(logs["loss"], 0.7 * logs["image_loss"])
    logs["loss"].backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in method.dense_projector.parameters())
    assert method.backbone.conv.weight.grad.abs().sum() > 0
    method.after_step(0.1)
    assert torch.isfinite(method.dense_matcher.queue.keys).all()


def test_the_same_place_of_two_equal_views_is_the_same_vector():
    """Both views show the whole image, one of them mirrored: matched points then have a cosine of 1."""
    torch.manual_seed(0)
    backbone = Patches()
    with torch.no_grad():
        backbone.conv.weight.copy_(backbone.conv.weight.mean(dim=3, keepdim=True).expand_as(backbone.conv.weight))
    method = VADeR(moco(backbone=backbone), points=POINTS, weight=1.0)  # patches whose mirror image is the same
    views = make_views([WHOLE] * BATCH, [WHOLE] * BATCH)
    images = torch.randn(BATCH, 3, SIDE, SIDE)
    for view in views.values():
        view.images = torch.where(view.flips[:, None, None, None], images.flip(3), images)
    seen = []
    method.dense_matcher.register_forward_pre_hook(lambda _, args: seen.extend(args))
    outputs(method, views)
    assert torch.allclose(seen[0], seen[1], atol=1e-5) and seen[2].all()


# -------------------------------------------------------------------- parts


def test_the_contrast_counts_images_and_not_lengths():
    draw = torch.Generator().manual_seed(0)
    matcher = PointContrast(DIM, 8, 0.2)
    q, k = torch.randn(3, 2, DIM, generator=draw), torch.randn(3, 2, DIM, generator=draw)
    counted = torch.tensor([True, False, True])
    loss = matcher(q, k, counted)
    assert torch.allclose(matcher(7 * q, 0.1 * k, counted), loss)
    single = [matcher(q[b : b + 1], k[b : b + 1], torch.tensor([True])) for b in (0, 2)]
    assert torch.allclose(sum(single) / 2, loss)
    assert matcher(k, k, counted) < loss  # the positive's score lowers it


def test_weight_0_is_the_host_whose_random_numbers_stay_its_own():
    views = make_views()
    torch.manual_seed(0)
    backbone = build_backbone("resnet_tiny", widths=(8, 16), strides=(1, 2))
    wrapped = VADeR(moco(backbone=copy.deepcopy(backbone), bn_groups=2), weight=0.0)
    alone = outputs(moco(backbone=backbone, bn_groups=2), views)["loss"]  # its keys are shuffled by random numbers
    assert outputs(wrapped, views)["loss"].item() == pytest.approx(alone.item(), rel=1e-6)


def test_gradients_reach_the_backbone_through_the_dense_loss_alone_and_no_target():
    method = vader(weight=1.0)
    outputs(method, make_views())["loss"].backward()
    assert method.backbone.conv.weight.grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in method.dense_projector.parameters())
    frozen = (method.target_dense_projector, method.siamese.target_backbone)
    assert all(p.grad is None for module in frozen for p in module.parameters())


def test_the_target_head_moves_towards_the_online_head_after_the_step():
    method = vader()
    online, target = method.dense_projector.layers[0].weight, method.target_dense_projector.layers[0].weight
    expected = 0.9 * target + 0.1 * online.detach()
    outputs(method, make_views())
    method.after_step(0.1)
    assert torch.allclose(target, expected, atol=1e-6)


def test_the_head_has_the_hosts_shape_unless_it_is_given():
    shapes = [tuple(p.shape) for p in vader().dense_projector.parameters()]
    assert shapes == [tuple(p.shape) for p in moco().projector.parameters()]
    assert [tuple(p.shape) for p in vader(dim=5, hidden=0).dense_projector.parameters()] == [(5, 16), (5,)]


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="needs MoCo as its host, not BYOL"):
        VADeR(BYOL(Patches(), dim=DIM, hidden=HIDDEN))
    with pytest.raises(UsageError, match="share in \\[0, 1\\], not 1.5"):
        VADeR(moco(), weight=1.5)
    with pytest.raises(UsageError, match="at least 1 point of each image, not 0"):
        VADeR(moco(), points=0)
