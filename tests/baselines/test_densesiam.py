"""DenseSiam against loops over images, places and regions, against its official code, and views without an overlap."""

import math

import numpy as np
import pytest
import torch
from golden_numbers import Convolution, assert_same, begin, follow, golden
from small_moco import BATCH, FLIPS, LEFT, ONE, RIGHT, SIDE, WHOLE, Patches, outputs, views_at
from torch import nn

from baselines.byol import BYOL
from baselines.densesiam import DenseSiam, PixelPrediction, RegionPrediction, regions_used, values_at
from baselines.simsiam import SimSiam
from scd.errors import UsageError
from scd.method import Batch, View, whole_view
from scd.nn.points import coordinates_in, grid_points, overlap

REGIONS, HIDDEN = 5, 7
OTHER = [[0.2, 0.1, 0.7, 0.9], [0.3, 0.2, 1.0, 1.0], [0.4, 0.3, 1.0, 0.9], RIGHT]


def simsiam(backbone=None):
    torch.manual_seed(0)
    return SimSiam(Patches() if backbone is None else backbone, dim=8, hidden=6, bottleneck=4)


def densesiam(backbone=None, **options):
    method = DenseSiam(simsiam(backbone), **{"regions": REGIONS, "hidden": HIDDEN, **options}).double()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return method


def make_views(one=ONE, other=OTHER, extra=None):
    views = views_at(one, other, extra)
    for view in views.values():
        view.images, view.rectangles = view.images.double(), view.rectangles.double()
    return views


# -------------------------------------------------------------------- the equations, written a second time


def numbers(tensor):
    return tensor.detach().double().numpy()


def softmax(x):
    weights = np.exp(x - np.max(x))
    return weights / weights.sum()


def head_by_hand(head, rows):
    """An MLP with batch statistics on rows (n, C), one column of the batch norm at a time."""
    for layer in head.layers:
        if isinstance(layer, nn.Linear):
            bias = 0 if layer.bias is None else numbers(layer.bias)
            rows = np.stack([numbers(layer.weight) @ row + bias for row in rows])
        elif isinstance(layer, nn.BatchNorm1d):
            columns = [(c - c.mean()) / math.sqrt(np.mean((c - c.mean()) ** 2) + layer.eps) for c in rows.T]
            scale, shift = (numbers(layer.weight), numbers(layer.bias)) if layer.affine else (1.0, 0.0)
            rows = np.stack(columns, axis=1) * scale + shift
        else:
            rows = np.maximum(rows, 0)
    return rows


def value_by_hand(maps, u, v):
    height, width = maps.shape[1:]
    column, row = min(max(u * width - 0.5, 0), width - 1), min(max(v * height - 0.5, 0), height - 1)
    return sum(
        maps[:, r, c] * max(0, 1 - abs(row - r)) * max(0, 1 - abs(column - c))
        for r in range(height)
        for c in range(width)
    )


def common_by_hand(p, q):
    box = [max(p[0], q[0]), max(p[1], q[1]), min(p[2], q[2]), min(p[3], q[3])]
    return box if box[0] < box[2] and box[1] < box[3] else None


def values_by_hand(maps, view, other, side):
    """x (B, P, C): at a grid of the common rectangle, or of the whole view."""
    found = []
    for b in range(BATCH):
        own = view.rectangles[b].tolist()
        common = common_by_hand(own, other.rectangles[b].tolist())
        rows = []
        for i in range(side):
            for j in range(side):
                u, v = (j + 0.5) / side, (i + 0.5) / side
                if common:
                    x, y = common[0] + u * (common[2] - common[0]), common[1] + v * (common[3] - common[1])
                    u, v = (x - own[0]) / (own[2] - own[0]), (y - own[1]) / (own[3] - own[1])
                    u = 1 - u if view.flips[b] else u
                rows.append(value_by_hand(maps[b], u, v))
        found.append(rows)
    return np.array(found)


def pair_by_hand(method, view, other, side=4):
    """L_p and L_r of one direction."""
    x, z, r = {}, {}, {}
    for name, one, two in (("online", view, other), ("target", other, view)):
        x[name] = values_by_hand(numbers(method.backbone(one.images)), one, two, side)
        z[name] = head_by_hand(method.pixel_projector, x[name].reshape(-1, x[name].shape[2])).reshape(
            BATCH, -1, REGIONS
        )
        vectors = [
            sum(softmax(z[name][b, u])[n] * x[name][b, u] for u in range(side**2))
            for b in range(BATCH)
            for n in range(REGIONS)
        ]
        r[name] = head_by_hand(method.region_projector, np.stack(vectors)).reshape(BATCH, REGIONS, HIDDEN)
    p = head_by_hand(method.pixel_matcher.predictor, z["online"].reshape(-1, REGIONS)).reshape(z["online"].shape)
    q = head_by_hand(method.region_matcher.predictor, r["online"].reshape(-1, HIDDEN)).reshape(r["online"].shape)
    pixels, regions = [], []
    for b in range(BATCH):
        if not common_by_hand(view.rectangles[b].tolist(), other.rectangles[b].tolist()):
            continue
        for u in range(side**2):
            wanted, given = softmax(z["target"][b, u]), softmax(p[b, u])
            pixels.append(-sum(w * math.log(g) for w, g in zip(wanted, given, strict=True)))
        for n in range(REGIONS):
            cosines = [a @ q[b, n] / np.linalg.norm(a) / np.linalg.norm(q[b, n]) for a in r["target"][b]]
            regions.append(-math.log(softmax(np.array(cosines) / method.region_matcher.temperature)[n]))
    return np.mean(pixels), np.mean(regions)


@pytest.mark.parametrize("extra", [None, [WHOLE] * BATCH])
def test_a_whole_step_equals_loops_over_images_places_and_regions(extra):
    method = densesiam(image_weight=0.4, pixel_weight=0.7, region_weight=0.3, temperature=0.2)
    views = make_views(extra=extra)
    logs = outputs(method, views)
    pairs = [("v1", "v2"), ("v2", "v1")] + ([("extra", "v2"), ("extra", "v1")] if extra else [])
    found = [pair_by_hand(method, views[i], views[j]) for i, j in pairs]
    pixel, region = np.mean(found, axis=0)
    image = method.siamese(Batch(views))["loss"].item()
    assert logs["pixel_loss"].item() == pytest.approx(pixel, rel=1e-9)
    assert logs["region_loss"].item() == pytest.approx(region, rel=1e-9)
    assert logs["image_loss"].item() == pytest.approx(image, rel=1e-9)
    assert logs["loss"].item() == pytest.approx(0.4 * image + 0.7 * pixel + 0.3 * region, rel=1e-9)
    assert logs["overlap"].item() == pytest.approx(0.875 if extra else 0.75)
    assert 1 <= logs["regions_used"] <= REGIONS


def test_steps_equal_the_official_code():
    """View 1 is a crop of view 2, mirrored in some images, and both maps have its places in common."""
    numbers = golden("densesiam")
    options = {"image_weight": 0.0, "pixel_weight": 0.8, "region_weight": 0.3, "temperature": 0.2}
    method = DenseSiam(simsiam(Convolution()), regions=5, hidden=6, **options).double()
    begin_with = {f"weight.siamese.{name}": p.detach() for name, p in method.siamese.named_parameters()}
    begin(method, {**begin_with, **numbers})  # the official code has no image-level loss here
    logs = []
    combine = method.combine
    method.combine = lambda *a: logs.append(combine(*a)) or logs[-1]

    def views(numbers, step):
        whole = whole_view(numbers["v2"][step], "v2")
        whole.rectangles = whole.rectangles.double()
        crop = View("v1", "global", numbers["v1"][step], numbers["rectangles"][step], numbers["flips"][step])
        return Batch({"v1": crop, "v2": whole})

    optimizer = torch.optim.SGD(method.parameters(), 0.5)
    steps = 0
    for step in follow(method, optimizer, numbers, views):
        assert_same(logs[step][1]["pixel_loss"], numbers["pixel_loss"][step], f"pixel loss of step {step}")
        assert_same(logs[step][1]["region_loss"], numbers["region_loss"][step], f"region loss of step {step}")
        steps += 1
    assert steps == 4 and 0 < numbers["flips"].sum() < numbers["flips"].numel()


# -------------------------------------------------------------------- geometry


def test_values_are_those_of_the_same_place_in_both_views():
    """Maps of the coordinates themselves: red is x and green is y of the source image."""
    views = make_views()
    rectangles, found = overlap(views["v1"], views["v2"])
    places = grid_points(rectangles, 3)
    inner = None
    for view in views.values():
        maps = view.grid(16, 16).permute(0, 3, 1, 2)
        values = values_at(maps, view, places, found)
        at = coordinates_in(view, places)
        inner = ((at > 0.5 / 16) & (at < 1 - 0.5 / 16)).all(dim=2) & found[:, None]  # not at the map's border
        assert inner.sum() > 10 and torch.allclose(values[inner], places[inner], atol=1e-6)
        own = values[~found]  # without an overlap: a grid over the view itself
        middle = view.rectangles[~found].unflatten(1, (2, 2)).mean(dim=1)
        assert torch.allclose(own.mean(dim=1), middle, atol=1e-6)


def test_views_that_show_the_same_read_the_same_vectors_whatever_the_flip():
    method = densesiam(Convolution())
    views = make_views([WHOLE] * BATCH, [WHOLE] * BATCH)
    images = torch.randn(BATCH, 3, SIDE, SIDE, dtype=torch.float64)
    for view in views.values():
        view.images = torch.where(view.flips[:, None, None, None], images.flip(3), images)
    seen = []
    method.pixel_matcher.register_forward_pre_hook(lambda _, args: seen.append(args))
    outputs(method, views)
    assert FLIPS[0] != FLIPS[1] and len(seen) == 2
    assert all(torch.allclose(online, target, atol=1e-9) for online, target, _ in seen)


# -------------------------------------------------------------------- views without an overlap


def test_images_whose_views_do_not_overlap_have_no_term():
    """Batch norm sees their features; with its running statistics an image's pixels change nothing elsewhere."""
    method, views = densesiam().eval(), make_views()
    whole = outputs(method, views)
    views["v2"].images[3] = 10 * torch.randn(3, SIDE, SIDE)
    changed = outputs(method, views)
    assert changed["pixel_loss"].item() == pytest.approx(whole["pixel_loss"].item(), rel=1e-12)
    assert changed["region_loss"].item() == pytest.approx(whole["region_loss"].item(), rel=1e-12)
    assert not torch.equal(changed["image_loss"], whole["image_loss"])


def test_without_any_overlap_both_losses_are_0_with_gradients_and_the_image_loss_stays():
    method, views = densesiam(), make_views([LEFT] * BATCH, [RIGHT] * BATCH)  # the views touch
    logs = outputs(method, views)
    assert logs["pixel_loss"] == 0 and logs["region_loss"] == 0 and logs["overlap"] == 0
    assert torch.equal(logs["loss"], logs["image_loss"])
    logs["loss"].backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in method.pixel_projector.parameters())
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in method.region_matcher.parameters())
    assert method.backbone.conv.weight.grad.abs().sum() > 0


# -------------------------------------------------------------------- parts


def test_the_pixel_loss_stops_the_targets_gradient_and_the_region_loss_does_not():
    draw = torch.Generator().manual_seed(0)
    counted = torch.ones(3) > 0
    for matcher, reaches in ((PixelPrediction(4, 6), False), (RegionPrediction(4, 6, 0.1), True)):
        online, target = (torch.randn(3, 5, 4, generator=draw).requires_grad_() for _ in range(2))
        matcher(online, target, counted).backward()
        assert online.grad.abs().sum() > 0
        assert (target.grad is not None and target.grad.abs().sum() > 0) == reaches


def test_a_region_that_no_place_prefers_has_a_small_vector_and_a_finite_loss():
    method = densesiam()
    maps = torch.randn(BATCH, 16, method.backbone.dim, dtype=torch.float64)
    far = torch.zeros(BATCH, 16, REGIONS, dtype=torch.float64)
    far[:, :, 0] = 1e3  # the softmax of all other regions is 0 in float64
    method.pixel_projector.register_forward_hook(lambda *_: far)
    _, vectors = method.regions(maps)
    loss = method.region_matcher(vectors, vectors, torch.ones(BATCH) > 0)
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in method.region_projector.parameters())
    assert regions_used(far) == 1
    assert regions_used(torch.eye(REGIONS)[None, :3]) == 3


def test_both_predictors_keep_their_learning_rate_as_simsiams_does():
    method = densesiam()
    constant = {id(p) for group in method.parameter_groups() if group.constant_lr for p in group.parameters}
    for matcher in (method.siamese.matcher, method.pixel_matcher, method.region_matcher):
        assert all(id(parameter) in constant for parameter in matcher.parameters())
    assert not any(id(p) in constant for p in method.pixel_projector.parameters())


def test_the_heads_have_the_official_layers_and_are_not_evaluated():
    method = DenseSiam(simsiam())
    widths = [layer.out_features for layer in method.pixel_projector.layers if isinstance(layer, nn.Linear)]
    assert widths == [16, 16, 27] and not method.pixel_projector.layers[-1].affine
    regions = [layer.out_features for layer in method.region_projector.layers if isinstance(layer, nn.Linear)]
    assert regions == [16, 16, 16] and not method.region_projector.layers[-1].affine
    assert not any("matcher" in name for name in method.evaluated_state())


def test_only_the_weights_0_0_leave_simsiam():
    views = make_views()
    wrapped = DenseSiam(simsiam(), pixel_weight=0.0, region_weight=0.0).double()
    alone = outputs(simsiam().double(), views)["loss"]
    assert outputs(wrapped, views)["loss"].item() == pytest.approx(alone.item(), rel=1e-12)


def test_it_works_on_the_meta_device():
    method, views = densesiam().float().to("meta"), make_views()
    for view in views.values():
        view.images, view.rectangles = view.images.float().to("meta"), view.rectangles.float().to("meta")
        view.flips = view.flips.to("meta")
    loss = outputs(method, views)["loss"]
    loss.backward()
    assert loss.is_meta and loss.shape == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regions": 1}, "at least 2 regions, not 1: a single one is the whole view"),
        ({"temperature": 0.0}, "temperature is a number above 0, not 0.0"),
        ({"image_weight": -1.0}, "image_weight is 0 or more, not -1.0"),
        ({"pixel_weight": -1.0}, "pixel_weight is 0 or more"),
        ({"region_weight": -0.1}, "region_weight is 0 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        densesiam(**options)


def test_another_host_is_refused():
    with pytest.raises(UsageError, match="needs SimSiam, not BYOL"):
        DenseSiam(BYOL(Patches(), dim=8, hidden=10))
