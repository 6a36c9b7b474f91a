"""What every method promises to the training loop, the studies and the statistics.

The methods are those of ``studies/conf``: each file of ``method/`` alone, each file of ``wrapper/`` around every host
that it accepts, and each file of ``map/`` as SCD's saliency. A new file needs no change here. The views are those of
the method's recipe. By convention the parts of a momentum branch are attributes called ``target_x``, the copy of ``x``.
"""

import copy
import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from scd.data.loader import ImageBatch
from scd.data.views import Recipe, ViewMaker
from scd.errors import UsageError
from scd.method import NEEDS, SUPERVISION, Batch, Method, View, whole_view
from scd.nn.queue import Queue
from scd.profiling.flops import meta_batch
from scd.siamese import JointEmbedding, MomentumSiamese
from scd.training.optimizers import build_optimizer
from scd.training.step import take_step
from scd.wrapper import Wrapper
from studies.suite.planning.assembly import build_method, build_views
from studies.suite.planning.command_line import choices, resolve_settings
from studies.suite.planning.resolve import with_classes
from studies.suite.planning.study import Arm

CLASSES, CANVAS = 4, 24
SETTINGS = resolve_settings("contract", ["tier=smoke"])


# -------------------------------------------------------------------- discovery


def wrapped(wrapper: Any, method: str) -> dict[str, Any]:
    return {"method": method, "wrapper": wrapper}


ALONE = {name: {"method": name} for name in choices("method")}
AROUND = {name: {host: wrapped(name, host) for host in choices("method")} for name in choices("wrapper")}
MAPS = {f"scd on moco, map {name}": wrapped({"preset": "scd", "saliency": name}, "moco") for name in choices("map")}
CANDIDATES = {**MAPS, **ALONE, **{f"{name} on {host}": AROUND[name][host] for name in AROUND for host in AROUND[name]}}
REFUSED: dict[str, str] = {}


@cache
def configuration(name: str) -> dict[str, Any]:
    config = SETTINGS.configure(Arm("", "", CANDIDATES[name], "", ""), seed=0)
    return {**config, "method": with_classes(config["method"], CLASSES, "the test's images")}


@cache
def prototype(name: str) -> Method:
    return build_method(configuration(name))


def discover() -> list[str]:
    """Names of the methods, one for each configuration; wrappers that refuse a host are kept in ``REFUSED``."""
    different = {json.dumps(configuration(name), sort_keys=True): name for name in CANDIDATES}
    found = []
    for name in different.values():
        try:
            prototype(name)
            found.append(name)
        except UsageError as error:
            if "wrapper" not in CANDIDATES[name] or name in MAPS:
                raise
            REFUSED[name] = str(error)
    return found


METHODS = discover()


def build(name: str) -> Method:
    return copy.deepcopy(prototype(name)).train()


def with_other_numbers(method: Method) -> Method:
    """The method with another number at every place of its state."""
    draw = torch.Generator().manual_seed(1)
    for value in method.state_dict().values():
        if value.is_floating_point():
            value += 0.1 * torch.rand(value.shape, generator=draw)
    return method


def host(name: str) -> Method:
    """The method itself, or the host inside a wrapper."""
    method = prototype(name)
    return method.siamese if isinstance(method, Wrapper) else method


def has_queue(name: str) -> bool:
    return any(isinstance(module, Queue) for module in prototype(name).modules())


every_method = pytest.mark.parametrize("name", METHODS)
every_pair_method = pytest.mark.parametrize("name", [n for n in METHODS if isinstance(host(n), JointEmbedding)])
every_momentum_method = pytest.mark.parametrize("name", [n for n in METHODS if isinstance(host(n), MomentumSiamese)])
every_method_with_a_queue = pytest.mark.parametrize("name", [n for n in METHODS if has_queue(n)])


# -------------------------------------------------------------------- batches and steps


def batch(name: str, seed: int = 0) -> Batch:
    """One step's views by the method's own recipe, of images that differ in colour and layout, and what it needs."""
    config = configuration(name)
    return made(build_views(config), prototype(name).needs, config["training"]["batch_size"], seed)


@cache
def made(recipe: Recipe, needs: frozenset[str], size: int, seed: int) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(size, 3, 4, 4, generator=draw)
    images = nn.functional.interpolate(coarse, size=CANVAS, mode="bilinear").mul(255).to(torch.uint8)
    regions = nn.functional.interpolate(coarse[:, :1], size=CANVAS)[:, 0]
    corners = torch.rand(size, 2, 2, 2, generator=draw).sort(dim=2).values  # (B, n, low and high, x and y)
    annotations = {
        "masks": (regions > 0.5).to(torch.uint8),
        "segments": (regions * 5).long(),
        "boxes": list(corners.flatten(2)),
    }
    labels = torch.randint(CLASSES, (size,), generator=draw)
    source = ImageBatch(images, torch.arange(size), slice(0, size), size, labels, annotations)
    return ViewMaker(recipe, seed, needs=needs)(source, seed)


def identical(name: str, extras: int = 0) -> Batch:
    """A view of the method's recipe as both global views, and as extra views."""
    view = batch(name).views["v1"]
    names = ["v1", "v2", *(f"same{i}" for i in range(extras))]
    return Batch({each: replace(view, name=each, role="extra" if "same" in each else "global") for each in names})


def smaller(view: View, name: str, side: int) -> View:
    """The same crop at another size, as an extra view."""
    images = nn.functional.interpolate(view.images, size=side)
    masks, segments = (
        None if values is None else nn.functional.interpolate(values[:, None].float(), size=side)[:, 0].to(values.dtype)
        for values in (view.masks, view.segments)
    )
    return replace(view, name=name, role="extra", images=images, masks=masks, segments=segments)


def loss_of(method: Method, views: Batch) -> Tensor:
    """The loss under a fixed random state: methods may shuffle or draw."""
    torch.manual_seed(0)
    return method(views)["loss"]


def own_optimizer(name: str, method: Method) -> Optimizer:
    options = {key: value for key, value in configuration(name)["optimizer"].items() if key != "clip"}
    return build_optimizer(method, **options)


def step(method: Method, optimizer: Optimizer, views: Batch, progress: float = 0.5) -> Tensor:
    torch.manual_seed(0)
    return take_step(method, method, views, optimizer, progress)["loss"].detach()


def is_target(name: str) -> bool:
    return any(part.startswith("target_") for part in name.split("."))


def online_name(name: str) -> str:
    return ".".join(part.removeprefix("target_") for part in name.split("."))


# -------------------------------------------------------------------- any method


@pytest.mark.parametrize("wrapper", AROUND)
def test_a_wrapper_accepts_a_host_and_refuses_others_in_one_line(wrapper):
    refused = {host: REFUSED[f"{wrapper} on {host}"] for host in AROUND[wrapper] if f"{wrapper} on {host}" in REFUSED}
    assert len(refused) < len(AROUND[wrapper]), refused
    assert all(text and "\n" not in text for text in refused.values())


@every_method
def test_it_declares_what_it_needs_and_what_it_learns_from(name):
    method = build(name)
    assert isinstance(method, Method)
    assert method.needs <= set(NEEDS) and isinstance(method.needs, frozenset)
    assert method.supervision in SUPERVISION
    assert isinstance(method.backbone.dim, int)
    assert any(parameter.requires_grad for parameter in method.backbone.parameters())
    named = set(configuration(name)["annotations"])
    assert method.needs - {"labels"} <= named, "its recipe names no annotator for what it needs"


@every_method
def test_three_steps_of_its_own_optimiser_stay_finite_and_log_detached_scalars(name):
    method = build(name)
    optimizer = own_optimizer(name, method)
    clip = configuration(name)["optimizer"].get("clip")
    for i in range(3):
        outputs = take_step(method, method, batch(name, i), optimizer, (i + 1) / 3, clip=clip)
        assert all(value.ndim == 0 and torch.isfinite(value) for value in outputs.values())
        assert outputs["loss"].requires_grad
        assert not any(value.requires_grad for key, value in outputs.items() if key != "loss")
    assert all(torch.isfinite(parameter).all() for parameter in method.parameters())
    assert all(isinstance(value, float) for value in method.scheduled_values(0.5).values())


@every_method
def test_the_loss_falls_on_a_fixed_batch(name):
    method, views = build(name), batch(name)
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(8):  # no after_step: with a queue that takes in this very batch the task would become harder
        optimizer.zero_grad()
        loss = loss_of(method, views)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < losses[0] - 0.01 * abs(losses[0])


@every_method
def test_gradients_reach_every_trainable_parameter_and_no_other(name):
    method = build(name)
    loss_of(method, batch(name)).backward()
    for key, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
        else:
            assert parameter.grad is None, key
    assert any(parameter.grad.abs().sum() > 0 for parameter in method.backbone.parameters() if parameter.requires_grad)


@every_method
def test_parameter_groups_hold_each_trainable_parameter_once(name):
    method = build(name)
    held = [id(parameter) for group in method.parameter_groups() for parameter in group.parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in method.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", [name for name in METHODS if name in ALONE or name.endswith(" on moco")])
def test_it_works_on_the_meta_device(name):
    method = build(name).to("meta")
    views = meta_batch(build_views(configuration(name)), 8, method.needs)
    loss = method(views)["loss"]
    loss.backward()
    method.after_backward()
    with torch.no_grad():
        method.after_step(0.5)
    assert loss.is_meta and loss.shape == ()


@every_method
def test_parts_are_modules_and_functions_of_the_method(name):
    method = build(name)
    parts = method.parts()
    assert parts.root and set(parts.modules) <= set(method.modules())
    assert all(callable(getattr(owner, function)) for owner, function in parts.functions)


@every_method
def test_the_state_dict_carries_everything(name):
    method, other = build(name), with_other_numbers(build(name))
    step(method, own_optimizer(name, method), batch(name), progress=0.3)
    assert loss_of(copy.deepcopy(other), batch(name, 1)) != loss_of(copy.deepcopy(method), batch(name, 1))
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    for i in (1, 2):  # optimisers without a past, which does not belong to the method
        one, two = own_optimizer(name, method), own_optimizer(name, other)
        assert torch.equal(step(method, one, batch(name, i)), step(other, two, batch(name, i)))
    for key, value in method.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


@every_method
def test_the_same_seed_gives_the_same_step_and_a_copy_is_independent(name):
    method, twin = build(name), copy.deepcopy(build(name))
    before = copy.deepcopy(method.state_dict())
    step(twin, own_optimizer(name, twin), batch(name))
    for key, value in method.state_dict().items():
        assert torch.equal(value, before[key]), key
    again = build_method(configuration(name)).train()
    step(again, own_optimizer(name, again), batch(name))
    for key, value in again.state_dict().items():
        assert torch.equal(value, twin.state_dict()[key]), key


@every_method
def test_the_evaluated_state_gives_the_same_features_and_maps(name):
    method, other = build(name), with_other_numbers(build(name))
    step(method, own_optimizer(name, method), batch(name))
    state = method.evaluated_state()
    assert all(isinstance(value, Tensor) for value in state.values()) and not any(map(is_target, state))
    other.load_evaluated_state(copy.deepcopy(state))
    method.eval()
    other.eval()
    view = whole_view(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        features, expected = other.backbone(view.images), method.backbone(view.images)
    torch.testing.assert_close(features, expected, rtol=0, atol=0)
    maps = method.saliency(view)
    assert maps is None or torch.equal(other.saliency(view), maps)


@every_method
def test_saliency_is_none_or_a_map_in_0_1_and_changes_nothing(name):
    method = build(name).eval()
    view = whole_view(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    before = copy.deepcopy(method.state_dict())
    saliency = method.saliency(view)
    for key, value in method.state_dict().items():
        assert torch.equal(value, before[key]), key
    if saliency is not None:
        assert saliency.shape == (8, 4, 4) and saliency.dtype == torch.float32 and not saliency.requires_grad
        assert saliency.min() >= 0 and saliency.max() <= 1


# -------------------------------------------------------------------- pairs of views


@every_pair_method
def test_the_loss_does_not_depend_on_the_number_of_identical_views(name):
    alone, together = loss_of(build(name), identical(name)), loss_of(build(name), identical(name, extras=3))
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@every_pair_method
def test_extra_views_of_another_size_are_taken(name):
    method, views = build(name), identical(name)
    views.views |= {each: smaller(views.views["v1"], each, side=8) for each in ("local0", "local1")}
    assert torch.isfinite(step(method, own_optimizer(name, method), views))


@every_pair_method
@pytest.mark.parametrize("count", [1, 3])
def test_other_than_two_global_views_are_refused(name, count):
    view = batch(name).views["v1"]
    views = Batch({f"v{i}": replace(view, name=f"v{i}") for i in range(count)})
    with pytest.raises(UsageError, match=f"pairs two global views, the recipe gives {count}"):
        build(name)(views)


# -------------------------------------------------------------------- a momentum branch


@every_momentum_method
def test_the_target_equals_the_online_branch_at_step_0(name):
    state = build(name).state_dict()
    targets = [key for key in state if is_target(key)]
    assert any("backbone" in key for key in targets)
    assert any("backbone" not in key for key in targets)  # the heads too
    for key in targets:
        assert torch.equal(state[key], state[online_name(key)]), key


@every_momentum_method
def test_the_target_is_not_trained(name):
    method = build(name)
    assert not any(parameter.requires_grad for key, parameter in method.named_parameters() if is_target(key))


@every_momentum_method
def test_only_after_step_moves_the_target_and_towards_the_online_branch(name):
    method = build(name)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    loss_of(method, batch(name)).backward()
    before = {key: value.clone() for key, value in method.named_parameters()}
    optimizer.step()
    for key, parameter in method.named_parameters():
        if is_target(key):
            assert torch.equal(parameter, before[key]), key
    m = host(name).momentum(0.5)
    assert 0 < m < 1
    with torch.no_grad():
        method.after_step(0.5)
    online = dict(method.named_parameters())
    for key, parameter in online.items():
        if is_target(key):
            expected = m * before[key] + (1 - m) * online[online_name(key)]
            assert torch.allclose(parameter, expected, atol=1e-6), key


@every_method_with_a_queue
def test_no_query_meets_its_own_key_among_the_negatives(name):
    method = build(name)
    optimizer = own_optimizer(name, method)
    queues = [module for module in method.modules() if isinstance(module, Queue)]
    for i in range(2):
        views = batch(name, i)
        before = [queue.keys.clone() for queue in queues]
        loss_of(method, views)
        assert all(torch.equal(queue.keys, old) for queue, old in zip(queues, before, strict=True))
        step(method, optimizer, views)
        for queue, old in zip(queues, before, strict=True):
            new = queue.keys[(queue.keys != old).any(dim=1)]
            assert len(new) >= len(views.indices)
            assert (new @ old.T).max() < 1 - 1e-6  # the negatives of this step held none of its keys
