"""What every method that compares pairs of views promises, and every method with a momentum branch or a queue.

By convention the parts of a momentum branch are attributes called ``target_x``, the copy of ``x``.
"""

from dataclasses import replace

import pytest
import torch
from contract_methods import (
    METHODS,
    batch,
    build,
    configuration,
    has_queue,
    host,
    is_target,
    loss_of,
    online_name,
    own_optimizer,
    prototype,
    step,
)
from torch import nn

from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.queue import Queue
from scd.siamese import JointEmbedding, MomentumSiamese

# Methods that cut their pairs of views themselves have a recipe of one view, and tests of their own.
PAIRED = [n for n in METHODS if isinstance(host(n), JointEmbedding) and configuration(n)["views"]["recipe"] != "single"]
every_pair_method = pytest.mark.parametrize("name", PAIRED)
# Methods that change views' pixels or patches at random: identical views do not stay identical.
MIXED = ("contracam_mixup", "dilo", "dinov2")
unchanged_views = pytest.mark.parametrize("name", [n for n in PAIRED if not set(n.split()) & set(MIXED)])
every_momentum_method = pytest.mark.parametrize("name", [n for n in METHODS if isinstance(host(n), MomentumSiamese)])
BY_TURNS = ("dnc_experts",)  # a step fills one of several queues
every_method_with_a_queue = pytest.mark.parametrize("name", [n for n in METHODS if has_queue(n) and n not in BY_TURNS])


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


# -------------------------------------------------------------------- pairs of views


@unchanged_views
def test_the_loss_does_not_depend_on_the_number_of_identical_views(name):
    method = build(name)
    with torch.no_grad():
        alone, together = (loss_of(method, identical(name, extras)) for extras in (0, 2))
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@every_pair_method
def test_extra_views_of_another_size_are_taken(name):
    method, views = build(name), identical(name)
    views.views |= {each: smaller(views.views["v1"], each, side=8) for each in ("local0", "local1")}
    assert torch.isfinite(step(method, own_optimizer(name, method), views))


@every_pair_method
def test_other_than_two_global_views_are_refused(name):
    method, view = prototype(name), batch(name).views["v1"]
    for count in (1, 3):
        views = Batch({f"v{i}": replace(view, name=f"v{i}") for i in range(count)})
        with pytest.raises(UsageError, match=f"pairs two global views, the recipe gives {count}"):
            method(views)


# -------------------------------------------------------------------- a momentum branch


@every_momentum_method
def test_the_target_equals_the_online_branch_at_step_0(name):
    state = prototype(name).state_dict()
    targets = [key for key in state if is_target(key)]
    assert any("backbone" in key for key in targets)
    assert any("backbone" not in key for key in targets)  # the heads too
    for key in targets:
        assert torch.equal(state[key], state[online_name(key)]), key


@every_momentum_method
def test_the_target_is_not_trained(name):
    method = prototype(name)
    assert not any(parameter.requires_grad for key, parameter in method.named_parameters() if is_target(key))


@every_momentum_method
def test_only_after_step_moves_the_target_and_towards_the_online_branch(name):
    method = build(name)
    method.after_step(0.5)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    loss_of(method, batch(name)).backward()
    before = {key: value.clone() for key, value in method.named_parameters()}
    optimizer.step()
    for key, parameter in method.named_parameters():
        if is_target(key):
            assert torch.equal(parameter, before[key]), key
    siamese = method if isinstance(method, MomentumSiamese) else method.siamese
    m = siamese.momentum_of_step(0.75)
    assert 0 < m < 1
    with torch.no_grad():
        method.after_step(0.75)
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
