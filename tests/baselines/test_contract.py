"""What every method promises to the training loop, the studies and the statistics; see ``contract_methods``."""

import copy

import pytest
import torch
from contract_methods import (
    ALONE,
    AROUND,
    METHODS,
    REFUSED,
    batch,
    build,
    configuration,
    is_target,
    loss_of,
    own_optimizer,
    prototype,
    step,
    with_other_numbers,
)
from torch import Tensor

from scd.method import NEEDS, SUPERVISION, Method, whole_view
from scd.profiling.flops import meta_batch
from scd.training.step import take_step
from studies.suite.planning.assembly import build_method, build_views

every_method = pytest.mark.parametrize("name", METHODS)


@pytest.mark.parametrize("wrapper", AROUND)
def test_a_wrapper_accepts_a_host_and_refuses_others_in_one_line(wrapper):
    refused = {host: REFUSED[f"{wrapper} on {host}"] for host in AROUND[wrapper] if f"{wrapper} on {host}" in REFUSED}
    assert len(refused) < len(AROUND[wrapper]), refused
    assert all(text and "\n" not in text for text in refused.values())


@every_method
def test_it_declares_what_it_needs_and_what_it_learns_from(name):
    method = prototype(name)
    assert isinstance(method, Method)
    assert method.needs <= set(NEEDS) and isinstance(method.needs, frozenset)
    assert method.supervision in SUPERVISION
    assert isinstance(method.backbone.dim, int)
    assert any(parameter.requires_grad for parameter in method.backbone.parameters())
    named = set(configuration(name)["annotations"])
    assert method.needs - {"labels"} <= named, "its recipe names no annotator for what it needs"


@every_method
def test_two_steps_of_its_own_optimiser_stay_finite_and_log_detached_scalars(name):
    method = build(name)
    optimizer = own_optimizer(name, method)
    clip = configuration(name)["optimizer"].get("clip")
    for i in range(2):
        outputs = take_step(method, method, batch(name, i), optimizer, (i + 1) / 2, clip=clip)
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
    for _ in range(5):  # no after_step: with a queue that takes in this very batch the task would become harder
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
    method = prototype(name)
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
    method = prototype(name)
    parts = method.parts()
    assert parts.root and set(parts.modules) <= set(method.modules())
    assert all(callable(getattr(owner, function)) for owner, function in parts.functions)


@every_method
def test_the_state_dict_carries_everything(name):
    method, other = build(name), with_other_numbers(build(name))
    step(method, own_optimizer(name, method), batch(name), progress=0.3)
    with torch.no_grad():
        before = loss_of(other, batch(name, 1))
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    one, two = own_optimizer(name, method), own_optimizer(name, other)  # whose past does not belong to the method
    loss = step(method, one, batch(name, 1))
    assert loss != before and torch.equal(loss, step(other, two, batch(name, 1)))
    found = other.state_dict()
    for key, value in method.state_dict().items():
        assert torch.equal(value, found[key]), key


@every_method
def test_the_same_seed_gives_the_same_step_and_a_copy_is_independent(name):
    method, twin = prototype(name), build(name)
    before = copy.deepcopy(method.state_dict())
    step(twin, own_optimizer(name, twin), batch(name))
    for key, value in method.state_dict().items():
        assert torch.equal(value, before[key]), key
    again = build_method(configuration(name)).train()
    step(again, own_optimizer(name, again), batch(name))
    found = twin.state_dict()
    for key, value in again.state_dict().items():
        assert torch.equal(value, found[key]), key


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
    method = prototype(name).eval()
    view = whole_view(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    before = copy.deepcopy(method.state_dict())
    saliency = method.saliency(view)
    for key, value in method.state_dict().items():
        assert torch.equal(value, before[key]), key
    if saliency is not None:
        assert saliency.shape == (8, 4, 4) and saliency.dtype == torch.float32 and not saliency.requires_grad
        assert saliency.min() >= 0 and saliency.max() <= 1
