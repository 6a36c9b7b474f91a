"""The controls without saliency: what an extra view may touch, what it costs, and that it is the only difference."""

import copy

import pytest
import torch

from baselines.byol import BYOL
from baselines.moco import MoCo
from baselines.multicrop import CONTROLS, EXTRA_VECTORS_OF_SCD, control, extra_views, image_forwards
from scd.data.recipes import build_recipe
from scd.data.views import View, ViewMaker
from scd.errors import UsageError
from scd.nn.backbone import build_backbone
from scd.profiling.flops import forward_flops, training_flops

BATCH, SIZE, DIM, QUEUE = 8, 32, 16, 64


def tiny():
    torch.manual_seed(0)
    return build_backbone("resnet_tiny", widths=(8, 8, 16), strides=(1, 2, 1))


def moco(symmetric=False, bn_groups=1):
    return MoCo(tiny(), dim=DIM, hidden=24, queue_size=QUEUE, symmetric=symmetric, bn_groups=bn_groups)


def byol():
    return BYOL(tiny(), dim=DIM, hidden=24)


HOSTS = {"moco": moco, "moco_grouped": lambda: moco(bn_groups=2), "moco_symmetric": lambda: moco(True), "byol": byol}


def recipe_with(name=None, **options):
    extra = extra_views(name, SIZE) if name else None
    return build_recipe("mocov2", SIZE, extra={**extra, **options} if extra else None)


def views_of(recipe):
    images = torch.randint(0, 256, (BATCH, 3, 40, 40), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    return ViewMaker(recipe, seed=0)(images, step=3)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_adds_as_many_views_as_scd_adds_vectors_and_leaves_the_global_views_alone(name):
    plain, views = views_of(recipe_with()), views_of(recipe_with(name))
    extras = [view for view in views.values() if view.role == "extra"]
    assert len(extras) == CONTROLS[name].count == EXTRA_VECTORS_OF_SCD == 2
    for view in ("v1", "v2"):
        assert torch.equal(plain[view].images, views[view].images) and views[view].role == "global"
    assert all(not torch.equal(extra.images.mean(dim=(2, 3)), views["v1"].images.mean(dim=(2, 3))) for extra in extras)
    assert not torch.equal(extras[0].images, extras[1].images)


def test_each_control_differs_from_the_others_in_what_it_says():
    views = {name: views_of(recipe_with(name)) for name in CONTROLS}
    same, random, local = (views[name] for name in ("same_rectangle", "random", "local"))
    assert torch.equal(same["same0"].boxes, same["v1"].boxes) and torch.equal(same["same1"].boxes, same["v1"].boxes)
    assert not torch.equal(random["random0"].boxes, random["v1"].boxes)
    assert not torch.equal(random["random0"].boxes, random["v2"].boxes)

    def area(view):
        return (view.boxes[:, 2] - view.boxes[:, 0]) * (view.boxes[:, 3] - view.boxes[:, 1])

    assert area(random["random0"]).min() >= 0.2 - 0.02  # v1's range
    assert area(local["local0"]).max() <= 0.2 + 0.02 and area(local["local0"]).min() >= 0.05 - 0.02
    assert local["local0"].images.shape[-1] == 12 and random["random0"].images.shape[-1] == SIZE


def test_sizes_and_scales_follow_the_global_views():
    assert extra_views("local", 224) == {"kind": "local", "count": 2, "size": 96, "scale": [0.05, 0.2]}
    assert extra_views("random", 224, (0.08, 1.0)) == {"kind": "random", "count": 2, "size": 224, "scale": [0.08, 1.0]}
    assert extra_views("same_rectangle", 64)["size"] == 64
    assert extra_views("local", 32, count=4) == {"kind": "local", "count": 4, "size": 12, "scale": [0.05, 0.2]}


def test_an_unknown_control_names_the_valid_ones():
    with pytest.raises(UsageError, match="did you mean 'local'.*local, random, same_rectangle"):
        control("locals")


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", CONTROLS)
def test_the_target_branch_never_sees_an_extra_view(host, name):
    method, views = HOSTS[host](), views_of(recipe_with(name))
    seen = {"online": [], "target": []}
    method.backbone.register_forward_hook(lambda m, args, out: seen["online"].append(args[0]))
    method.target_backbone.register_forward_hook(lambda m, args, out: seen["target"].append(args[0]))
    encoded = method.encode(views)
    expected = image_forwards(name, SIZE, method.symmetric)
    batch = len(views["v1"].images)
    forwards = tuple(sum(len(images) for images in seen[branch]) / batch for branch in ("online", "target"))
    assert forwards == (expected.online, expected.target)
    assert set(encoded.target) <= {"v1", "v2"} and set(encoded.online) >= {v for v in views if v not in ("v1", "v2")}
    globals_ = torch.cat([views["v1"].images, views["v2"].images])
    for images in seen["target"]:  # a shuffled target is still made of global views
        assert all(any(torch.equal(image, other) for other in globals_) for image in images)


@pytest.mark.parametrize("host", ["moco", "moco_grouped"])
def test_extra_views_equal_to_the_first_view_change_neither_loss_nor_gradient(host):
    views = views_of(recipe_with())
    v1 = views["v1"]
    copies = {f"same{i}": View(f"same{i}", "extra", v1.images, v1.boxes, v1.flips) for i in range(2)}
    results = []
    for batch in (views, {**views, **copies}):
        method = HOSTS[host]()
        torch.manual_seed(5)  # the order in which grouped keys are shuffled
        loss = method(batch)["loss"]
        loss.backward()
        results.append((loss.item(), [p.grad for p in method.parameters() if p.requires_grad]))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-6)
    for alone, together in zip(results[0][1], results[1][1], strict=True):
        assert torch.allclose(alone, together, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", CONTROLS)
def test_loss_is_the_plain_mean_over_pairs(host, name):
    method, views = HOSTS[host](), views_of(recipe_with(name))
    torch.manual_seed(5)
    loss = copy.deepcopy(method)(views)["loss"].item()
    targets = ["v2", "v1"] if method.symmetric else ["v2"]
    extras = [v for v in views if v not in ("v1", "v2")]
    pairs = [("v1", "v2")] + [("v2", "v1")] * method.symmetric + [(e, t) for e in extras for t in targets]
    torch.manual_seed(5)
    encoded = method.encode(views)
    terms = [
        method.matcher(
            method.projector(encoded.online[i].pooled), method.target_projector(encoded.target[j].pooled)
        ).item()
        for i, j in pairs
    ]
    assert len(pairs) == (6 if method.symmetric else 3)
    assert loss == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_keys_of_extra_views_do_not_enter_the_queue():
    method, views = moco(), views_of(recipe_with("random"))
    before = method.matcher.queue.keys.clone()
    method(views)
    method.after_step(0.1)
    changed = (method.matcher.queue.keys != before).any(dim=1)
    assert changed[:BATCH].all() and not changed[BATCH:].any()


def test_cost_in_image_forwards():
    assert image_forwards(None, 224, symmetric=False).full_size == 2
    assert image_forwards(None, 224, symmetric=True).full_size == 4
    assert image_forwards("random", 224, symmetric=False).full_size == 4
    local = image_forwards("local", 224, symmetric=True)
    assert (local.online, local.target) == (4, 2)
    assert local.full_size == pytest.approx(4 + 2 * (96 / 224) ** 2)
    assert image_forwards("local", 32, symmetric=False, count=4).full_size == 2 + 4 * (12 / 32) ** 2


@pytest.mark.parametrize("name, symmetric", [("same_rectangle", False), ("local", False), ("random", True)])
def test_counted_operations_of_an_extra_view_are_the_closed_form(name, symmetric):
    method = moco(symmetric)
    none, one, two = (
        training_flops(method, recipe_with(name, count=count) if count else recipe_with(), BATCH) for count in (0, 1, 2)
    )
    assert two.total - one.total == one.total - none.total > 0  # each view costs the same
    assert two.backward - one.backward == one.backward - none.backward
    side = CONTROLS[name].crop(SIZE).size
    head = 2 * BATCH * (16 * 24 + 24 * DIM)
    contrast = 2 * BATCH * DIM * QUEUE * (2 if symmetric else 1)  # against one or two targets
    online = forward_flops(method.backbone, (BATCH, 3, side, side))
    assert one.forward - none.forward == online + head + contrast
    stem = 2 * BATCH * (side // 2) ** 2 * 9 * 3 * 8  # stride 2; the pixels need no gradient
    assert one.backward - none.backward == 2 * online - stem + 2 * head + contrast  # the queue needs none either
