"""PointCL against loops over images, regions and points, the official losses in float64, and views that lie apart."""

import math

import numpy as np
import pytest
import torch
from golden_numbers import assert_same, golden
from torch import nn

from baselines.byol import BYOL
from baselines.moco import MoCo
from baselines.pointcl import AffinityDistillation, PointCL, grid_cells, multi_positive_contrast
from scd.errors import UsageError
from scd.method import Batch, View

BATCH, SIDE, DIM, HIDDEN, QUEUE = 4, 16, 6, 10, 32
GRID, POINTS, PLACES = 3, 2, 4  # regions and affinities along a side
WHOLE, LEFT, RIGHT = [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]  # LEFT only touches RIGHT
ONE = [WHOLE, [0.1, 0.0, 0.9, 0.6], [0.0, 0.0, 0.5, 0.5], LEFT]  # whole, partly, in a corner, not at all
OTHER = [[0.2, 0.1, 0.6, 0.9], [0.4, 0.2, 1.0, 1.0], [0.4, 0.3, 1.0, 0.9], RIGHT]
FLIPS = ([False, True, False, True], [True, True, False, False])


class Patches(nn.Module):
    """A backbone without BN: 4 x 4 patches, one Linear each."""

    dim = 16

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, self.dim, 4, stride=4)

    def forward(self, images):
        return self.conv(images).relu()


def moco(symmetric=False, **options):
    torch.manual_seed(0)
    options = {"dim": DIM, "hidden": HIDDEN, "queue_size": QUEUE, "momentum": 0.9, "symmetric": symmetric, **options}
    return MoCo(Patches(), **options)


def pointcl(symmetric=False, **options):
    """A PointCL whose target networks differ from their online ones, and whose centre is not 0."""
    method = PointCL(moco(symmetric), **{"grid": GRID, "points": POINTS, "affinity_side": PLACES, **options})
    for parameter in method.parameters():
        if not parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    method.affinity_matcher.centre.add_(0.1 * torch.randn(PLACES**2))
    return method


def make_views(one=ONE, other=OTHER):
    draw = torch.Generator().manual_seed(1)
    return {
        name: View(
            name,
            "global",
            torch.randn(BATCH, 3, SIDE, SIDE, generator=draw),
            torch.tensor(rectangles),
            torch.tensor(flips),
        )
        for name, rectangles, flips in (("v1", one, FLIPS[0]), ("v2", other, FLIPS[1]))
    }


def outputs(method, views, seed=5):
    torch.manual_seed(seed)
    return method(Batch(views))


# -------------------------------------------------------------------- the equations, written a second time


def numbers(tensor):
    return tensor.detach().double().numpy()


def unit(vector):
    return vector / np.linalg.norm(vector)


def dense_by_hand(head, maps):
    """A head's output (h, w, D) on a map (C, h, w)."""
    first, last = (layer for layer in head.layers if isinstance(layer, nn.Linear))
    hidden = np.maximum(np.einsum("oc,chw->hwo", numbers(first.weight), maps) + numbers(first.bias), 0)
    return hidden @ numbers(last.weight).T + numbers(last.bias)


def value_by_hand(dense, rectangle, flip, x, y):
    """The unit vector that a view has at a place of the source image."""
    height, width = dense.shape[:2]
    u, v = (x - rectangle[0]) / (rectangle[2] - rectangle[0]), (y - rectangle[1]) / (rectangle[3] - rectangle[1])
    u = 1 - u if flip else u
    column, row = min(max(u * width - 0.5, 0), width - 1), min(max(v * height - 0.5, 0), height - 1)
    return unit(
        sum(
            dense[r, c] * max(0, 1 - abs(row - r)) * max(0, 1 - abs(column - c))
            for r in range(height)
            for c in range(width)
        )
    )


def common_by_hand(p, q):
    box = [max(p[0], q[0]), max(p[1], q[1]), min(p[2], q[2]), min(p[3], q[3])]
    return box if box[0] < box[2] and box[1] < box[3] else None


def at(box, shares):
    return box[0] + shares[0] * (box[2] - box[0]), box[1] + shares[1] * (box[3] - box[1])


def cell(region):
    row, column = divmod(region, GRID)
    edge = numbers(torch.linspace(0, 1, GRID + 1))
    return [edge[column], edge[row], edge[column + 1], edge[row + 1]]


def softmax(scores):
    weights = [math.exp(score) for score in scores]
    return [weight / sum(weights) for weight in weights]


def draw():
    """Uniform numbers: which region, where in it, where in each region; once for all pairs."""
    return torch.rand(BATCH, GRID**2), torch.rand(BATCH, POINTS, 2), torch.rand(BATCH, GRID**2, POINTS, 2)


def pair_by_hand(method, view, other, draws):
    """L_p and L_a of one pair, one image, region and point at a time, and the teacher's affinities for the centre."""
    choice, anchor_draws, key_draws = (values.tolist() for values in draws)
    host, matcher = method.siamese, method.affinity_matcher
    query, key = numbers(host.backbone(view.images)), numbers(host.target_backbone(other.images))
    dense = [dense_by_hand(host.projector, maps) for maps in query]
    target = [dense_by_hand(host.target_projector, maps) for maps in key]
    ones, others = view.rectangles.tolist(), other.rectangles.tolist()
    overlapping = [b for b in range(BATCH) if common_by_hand(ones[b], others[b])]

    def online(b, place):
        return value_by_hand(dense[b], ones[b], bool(view.flips[b]), *place)

    def momentum(b, place):
        return value_by_hand(target[b], others[b], bool(other.flips[b]), *place)

    keys = []  # (image, region, vector)
    for b in overlapping:
        for region in range(GRID**2):
            if part := common_by_hand(cell(region), others[b]):
                keys += [(b, region, momentum(b, at(part, shares))) for shares in key_draws[b][region]]
    point_terms, affinity_terms, teachers = [], [], []
    for b in overlapping:
        seen = [
            region
            for region in range(GRID**2)
            if common_by_hand(cell(region), ones[b]) and common_by_hand(cell(region), others[b])
        ]
        region = max(seen, key=lambda r: choice[b][r])
        terms = []
        for shares in anchor_draws[b]:
            q = online(b, at(common_by_hand(cell(region), ones[b]), shares))
            weights = softmax([q @ k / host.matcher.temperature for _, _, k in keys])
            own = [i for i, (image, r, _) in enumerate(keys) if image == b and r == region]
            assert len(own) == POINTS
            terms.append(-sum(math.log(weights[i]) for i in own) / len(own))
        point_terms.append(sum(terms) / len(terms))

        positions = []  # of the other view, row by row in the view itself
        for row in range(PLACES):
            for column in range(PLACES):
                u = (column + 0.5) / PLACES
                u = 1 - u if other.flips[b] else u
                positions.append(momentum(b, at(others[b], (u, (row + 0.5) / PLACES))))
        terms, common = [], common_by_hand(ones[b], others[b])
        for row in range(PLACES):
            for column in range(PLACES):
                place = at(common, ((column + 0.5) / PLACES, (row + 0.5) / PLACES))
                teacher = np.array([momentum(b, place) @ k for k in positions])
                student = [online(b, place) @ k / matcher.student_temperature for k in positions]
                wanted = softmax((teacher - numbers(matcher.centre)) / matcher.teacher_temperature)
                terms.append(-sum(w * math.log(s) for w, s in zip(wanted, softmax(student), strict=True)))
                teachers.append(teacher)
        affinity_terms.append(sum(terms) / len(terms))
    return np.mean(point_terms), np.mean(affinity_terms), np.mean(teachers, axis=0)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_whole_step_equals_loops_over_images_regions_and_points(symmetric):
    method, views = pointcl(symmetric, image_weight=0.5, point_weight=0.2, affinity_weight=0.9), make_views()
    logs = outputs(method, views)
    torch.manual_seed(5)
    pairs = [("v1", "v2"), ("v2", "v1")] if symmetric else [("v1", "v2")]
    draws = draw()
    found = [pair_by_hand(method, views[i], views[j], draws) for i, j in pairs]
    points, affinities, teachers = zip(*found, strict=True)
    assert logs["point_loss"].item() == pytest.approx(np.mean(points), rel=1e-5)
    assert logs["affinity_loss"].item() == pytest.approx(np.mean(affinities), rel=1e-5)
    image = method.siamese(Batch(views))["loss"].item()
    assert logs["image_loss"].item() == pytest.approx(image, rel=1e-6)
    expected = 0.5 * image + 0.2 * np.mean(points) + 0.9 * np.mean(affinities)
    assert logs["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert logs["overlap"] == 0.75
    centre = numbers(method.affinity_matcher.centre)
    assert outputs(method, views)["affinity_loss"] == logs["affinity_loss"]  # the centre moves after the step
    method.after_step(0.1)
    moved = 0.9 * centre + 0.1 * np.mean(teachers, axis=0)
    assert np.allclose(numbers(method.affinity_matcher.centre), moved, atol=1e-6)


# -------------------------------------------------------------------- the official code


def test_the_point_loss_equals_the_official_supervised_contrast():
    """There every point is a query, its own image's points are positives, and a factor of 0.2 / 0.07 is applied."""
    given = golden("pointcl")
    queries, keys = given["queries"].requires_grad_(), given["keys"].requires_grad_()  # (B, P, D)
    everything = torch.cat([keys, queries], dim=1).flatten(0, 1)
    image = torch.arange(len(queries)).repeat_interleave(2 * queries.shape[1])
    positive, other = image[:, None] == image, ~torch.eye(len(image), dtype=torch.bool)
    loss = 0.2 / 0.07 * multi_positive_contrast(everything, everything, positive, other, temperature=0.2).mean()
    assert_same(loss, given["point_loss"], "loss")
    loss.backward()
    assert_same(queries.grad, given["gradient.queries"], "gradient of the queries")
    assert_same(keys.grad, given["gradient.keys"], "gradient of the keys")


def test_the_affinity_loss_and_its_centre_equal_the_official_distillation():
    """Three steps, from the official warm-up's end on."""
    given = golden("pointcl")
    student = given["student"].requires_grad_()  # (steps, B, places, D)
    matcher = AffinityDistillation(given["positions"].shape[2], 0.1, 0.07, 0.9).double()
    everyone = torch.ones(student.shape[1], dtype=torch.bool)
    losses = []
    for step, positions in enumerate(given["positions"]):
        affinities = [(positions @ x[step].transpose(1, 2))[..., None] for x in (student, given["teacher"])]
        losses.append(matcher(*affinities, everyone))
        matcher.remember(affinities[1:], [everyone])
        matcher.after_step(0.5)
        assert_same(matcher.centre, given["centre"][step], f"centre after step {step}")
    assert_same(torch.stack(losses), given["affinity_loss"], "losses")
    sum(losses).backward()
    assert_same(student.grad, given["gradient.student"], "gradient of the student")


# -------------------------------------------------------------------- overlap


def test_images_whose_views_do_not_overlap_contribute_nothing_not_even_negatives():
    method, views = pointcl(), make_views()
    whole = outputs(method, views)
    with torch.no_grad():
        for view in views.values():
            view.images[3] = 10 * torch.randn(3, SIDE, SIDE)  # the image without overlap
    changed = outputs(method, views)
    assert torch.equal(changed["point_loss"], whole["point_loss"])
    assert torch.equal(changed["affinity_loss"], whole["affinity_loss"])
    assert not torch.equal(changed["image_loss"], whole["image_loss"])


def test_without_any_overlap_both_losses_are_0_with_gradients_and_the_image_loss_stays():
    views = make_views([LEFT] * BATCH, [RIGHT] * BATCH)  # the views touch
    method, alone = pointcl(image_weight=0.0), pointcl()
    logs = outputs(method, views)
    assert logs["loss"] == 0 and logs["overlap"] == 0
    logs["loss"].backward()
    assert all(p.grad is not None and not p.grad.any() for p in method.backbone.parameters())
    before = method.affinity_matcher.centre.clone()
    method.after_step(0.1)
    assert torch.allclose(method.affinity_matcher.centre, before, atol=1e-7)
    logs = outputs(alone, views)
    assert torch.equal(logs["loss"], 0.7 * logs["image_loss"])


# -------------------------------------------------------------------- parts


def test_regions_are_cells_row_by_row():
    cells = grid_cells(2, torch.zeros(1))
    assert cells.tolist() == [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]


def test_the_contrast_of_one_positive_is_a_cross_entropy_and_of_none_is_0_with_gradients():
    draw = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(3, DIM, generator=draw, requires_grad=True), torch.randn(5, DIM, generator=draw)
    positive = torch.eye(3, 5, dtype=torch.bool)
    everyone = torch.ones(5, dtype=torch.bool)
    losses = multi_positive_contrast(queries, keys, positive, everyone, 0.5)
    expected = nn.functional.cross_entropy(queries @ keys.T / 0.5, torch.arange(3), reduction="none")
    assert torch.allclose(losses, expected, atol=1e-5)
    nobody = multi_positive_contrast(queries, keys, positive, ~everyone, 0.5)
    nobody.sum().backward()
    assert not nobody.any() and not queries.grad.any()


def test_the_points_go_through_the_hosts_own_head():
    method, host = pointcl(), moco()
    assert sum(p.numel() for p in method.parameters()) == sum(p.numel() for p in host.parameters())


@pytest.mark.parametrize("weights", [{"affinity_weight": 0.0}, {"point_weight": 0.0}])
def test_gradients_reach_the_backbone_through_each_added_loss_alone_and_no_target(weights):
    method = pointcl(image_weight=0.0, **weights)
    outputs(method, make_views())["loss"].backward()
    assert method.backbone.conv.weight.grad.abs().sum() > 0
    assert method.siamese.projector.layers[0].weight.grad.abs().sum() > 0
    frozen = (method.siamese.target_projector, method.siamese.target_backbone)
    assert all(p.grad is None for module in frozen for p in module.parameters())


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="needs MoCo, not BYOL"):
        PointCL(BYOL(Patches(), dim=DIM, hidden=HIDDEN))
    for options, text in (
        ({"grid": 1}, "grid is 2 or more, not 1"),
        ({"points": 0}, "points is 1 or more, not 0"),
        ({"affinity_side": 1}, "affinity_side is 2 or more, not 1"),
        ({"teacher_temperature": 0.0}, "teacher_temperature is a number above 0, not 0.0"),
        ({"centre_momentum": 1.1}, "centre_momentum is a share in \\[0, 1\\], not 1.1"),
        ({"point_weight": -1.0}, "point_weight is 0 or more, not -1.0"),
    ):
        with pytest.raises(UsageError, match=text):
            PointCL(moco(), **options)
