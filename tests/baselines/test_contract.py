"""One contract for every method: what the loop, the studies and the statistics take for granted.

A new method is one line in METHODS. By convention the parts of a momentum branch are attributes called ``target_x``,
the copy of ``x`` beside them.
"""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from baselines.byol import BYOL
from baselines.densecl import DenseCL
from baselines.dino import DINO
from baselines.hybrids import AlignmentInSCD, AlignmentMaps, SaliencyInLEWEL
from baselines.lewel import LEWEL
from baselines.moco import MoCo
from baselines.slotcon import SlotCon
from scd.data.views import View
from scd.maps.border_prior import SettledMap
from scd.maps.controls import CentrePrior, FrozenMLP, OracleMask, OtherImage
from scd.maps.source import ConstantMap, SaliencyMLP
from scd.nn.backbone import build_backbone
from scd.nn.queue import Queue
from scd.scd import SCD

BATCH = 8

moco = partial(MoCo, dim=16, queue_size=64, momentum=0.9, bn_groups=2)
byol = partial(BYOL, dim=16, hidden=32, momentum=0.9)
dino = partial(DINO, prototypes=32, hidden=32, bottleneck=16, momentum=0.9, teacher_temperature=0.07, freeze_last=0.0)

METHODS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "moco": lambda backbone: moco(backbone, bn_groups=1),
    "moco_symmetric": lambda backbone: moco(backbone, symmetric=True),
    "byol": lambda backbone: byol(backbone),
    "scd_moco": lambda backbone: SCD(moco(backbone)),
    "scd_moco_symmetric": lambda backbone: SCD(moco(backbone, symmetric=True), partial(SaliencyMLP, depth=3)),
    "scd_byol": lambda backbone: SCD(byol(backbone), anchors="both"),
    "scd_byol_online_positive": lambda backbone: SCD(byol(backbone), positive_branch="online", triplet_views="all"),
    "dino": lambda backbone: dino(backbone),
    "scd_dino": lambda backbone: SCD(dino(backbone)),
    "densecl_moco": lambda backbone: DenseCL(moco(backbone)),
    "densecl_moco_symmetric": lambda backbone: DenseCL(moco(backbone, symmetric=True)),
    "slotcon": lambda backbone: SlotCon(backbone, dim=16, hidden=32, prototypes=12, momentum=0.9),
    "scd_slotcon": lambda backbone: SCD(SlotCon(backbone, dim=16, hidden=32, prototypes=12, momentum=0.9)),
    "constant_map_moco": lambda backbone: SCD(moco(backbone), ConstantMap()),
    "lewel_moco": lambda backbone: LEWEL(moco(backbone)),
    "lewel_byol": lambda backbone: LEWEL(byol(backbone)),
    "frozen_map_moco": lambda backbone: SCD(moco(backbone), partial(FrozenMLP, gain=4.0)),
    "centre_prior_moco": lambda backbone: SCD(moco(backbone), CentrePrior()),
    "other_images_map_moco": lambda backbone: SCD(moco(backbone), OtherImage),
    "oracle_map_moco": lambda backbone: SCD(moco(backbone), OracleMask()),
    "settled_map_byol": lambda backbone: SCD(byol(backbone), SettledMap),
    "lewels_maps_in_scd": lambda backbone: AlignmentInSCD(moco(backbone), partial(AlignmentMaps, maps=4)),
    "scds_map_in_lewel_moco": lambda backbone: SaliencyInLEWEL(moco(backbone)),
    "scds_map_in_lewel_byol": lambda backbone: SaliencyInLEWEL(byol(backbone)),
}


def build(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return METHODS[name](build_backbone("resnet_tiny", widths=(8, 16), strides=(1, 2), channels_last=True)).train()


def view(name: str, images: Tensor, role: str = "global") -> View:
    boxes = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(images), 4)
    masks = (images.mean(dim=1) > 0).float()  # for those that declare that they need them
    return View(name, role, images, boxes, torch.zeros(len(images), dtype=torch.bool), masks)


def batch(seed: int, sides: dict[str, int] | None = None) -> dict[str, View]:
    """Views of images that differ in colour and layout; the views of one image differ by noise."""
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(BATCH, 3, 4, 4, generator=draw)
    views = {}
    for name, side in (sides or {"v1": 16, "v2": 16}).items():
        images = nn.functional.interpolate(base, size=side) + 0.3 * torch.randn(BATCH, 3, side, side, generator=draw)
        views[name] = view(name, images, "global" if name in ("v1", "v2") else "extra")
    return views


def loss_of(method: nn.Module, views: dict[str, View], seed: int = 0) -> Tensor:
    """The loss under a fixed random state: methods may shuffle or draw."""
    torch.manual_seed(seed)
    return method(views)["loss"]


def step(method: nn.Module, optimizer: torch.optim.Optimizer, views: dict[str, View], progress: float = 0.5) -> Tensor:
    optimizer.zero_grad()
    loss = loss_of(method, views)
    loss.backward()
    optimizer.step()
    method.after_step(progress)
    return loss.detach()


def sgd(method: nn.Module, lr: float = 0.02) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=lr, momentum=0.9)


def is_target(name: str) -> bool:
    return any(part.startswith("target_") for part in name.split("."))


def online_name(name: str) -> str:
    return ".".join(part.removeprefix("target_") for part in name.split("."))


every_method = pytest.mark.parametrize("name", METHODS)
methods_with_a_queue = [name for name in METHODS if any(isinstance(m, Queue) for m in build(name).modules())]


@every_method
def test_declares_what_it_needs_and_what_it_trains(name):
    method = build(name)
    assert method.needs in ("none", "masks", "boxes")
    assert method.supervision in ("unsupervised", "supervised", "oracle")
    assert method.backbone.dim == 16
    assert any(parameter.requires_grad for parameter in method.backbone.parameters())


@every_method
def test_three_steps_stay_finite_and_log_detached_scalars(name):
    method = build(name)
    optimizer = sgd(method)
    for i in range(3):
        assert torch.isfinite(step(method, optimizer, batch(i), progress=(i + 1) / 3))
    outputs = method(batch(3))
    assert all(value.ndim == 0 and torch.isfinite(value) for value in outputs.values())
    assert outputs["loss"].requires_grad
    assert not any(value.requires_grad for key, value in outputs.items() if key != "loss")


@every_method
def test_the_loss_falls_on_a_fixed_batch(name):
    method, views = build(name), batch(0)
    optimizer = sgd(method)
    losses = []
    for _ in range(8):  # optimiser only: a queue that takes this very batch in would rightly make the task harder
        optimizer.zero_grad()
        loss = loss_of(method, views)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < losses[0] - 0.01 * abs(losses[0])


@every_method
def test_the_target_equals_the_online_branch_at_step_0(name):
    state = build(name).state_dict()
    targets = [key for key in state if is_target(key)]
    assert any("backbone" in key for key in targets)
    assert any("backbone" not in key for key in targets)  # the heads too
    for key in targets:
        assert torch.equal(state[key], state[online_name(key)]), key


@every_method
def test_gradients_reach_every_online_parameter_and_no_target_parameter(name):
    method = build(name)
    loss_of(method, batch(0)).backward()
    for key, parameter in method.named_parameters():
        if is_target(key):
            assert not parameter.requires_grad and parameter.grad is None, key
        elif name == "frozen_map_moco" and key.startswith("saliency_head."):
            assert not parameter.requires_grad and parameter.grad is None, key  # the arm that says so
        else:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


@every_method
def test_only_after_step_moves_the_target_and_towards_the_online_branch(name):
    method = build(name)
    loss_of(method, batch(0)).backward()
    before = {key: value.clone() for key, value in method.named_parameters()}
    sgd(method).step()
    for key, parameter in method.named_parameters():
        if is_target(key):
            assert torch.equal(parameter, before[key]), key
    host = getattr(method, "siamese", method)
    m = host.momentum(0.5)
    method.after_step(0.5)
    online = dict(method.named_parameters())
    assert 0 < m < 1
    for key, parameter in online.items():
        if is_target(key):
            expected = m * before[key] + (1 - m) * online[online_name(key)]
            assert torch.allclose(parameter, expected, atol=1e-7), key


@pytest.mark.parametrize("name", methods_with_a_queue)
def test_no_query_meets_its_own_key_among_the_negatives(name):
    method = build(name)
    optimizer = sgd(method)
    queues = [module for module in method.modules() if isinstance(module, Queue)]
    for i in range(3):
        before = [queue.keys.clone() for queue in queues]
        method(batch(i))
        assert all(torch.equal(queue.keys, old) for queue, old in zip(queues, before, strict=True))
        step(method, optimizer, batch(i))
        for queue, old in zip(queues, before, strict=True):
            new = queue.keys[(queue.keys != old).any(dim=1)]
            assert len(new) >= BATCH
            assert (new @ old.T).max() < 1 - 1e-6  # the negatives of this step held none of its keys


@every_method
def test_the_loss_does_not_depend_on_the_number_of_identical_crops(name):
    images = batch(0)["v1"].images
    two = {"v1": view("v1", images), "v2": view("v2", images)}
    more = {**two, **{f"same{i}": view(f"same{i}", images, "extra") for i in range(3)}}
    torch.testing.assert_close(loss_of(build(name), more), loss_of(build(name), two), rtol=1e-5, atol=1e-5)


@every_method
def test_extra_views_of_another_size_are_taken(name):
    method = build(name)
    loss = step(method, sgd(method), batch(0, {"v1": 16, "v2": 16, "local0": 8, "local1": 8}))
    assert torch.isfinite(loss)


@every_method
def test_works_on_the_meta_device(name):
    method = build(name).to("meta")
    views = {key: view(key, torch.empty(BATCH, 3, 16, 16, device="meta")) for key in ("v1", "v2")}
    loss = method(views)["loss"]
    loss.backward()
    method.after_step(0.5)
    assert loss.is_meta and loss.shape == ()


@every_method
def test_a_state_dict_carries_everything(name):
    method = build(name)
    optimizer = sgd(method)
    for i in range(2):
        step(method, optimizer, batch(i))
    other = build(name, seed=1)
    assert loss_of(other, batch(2)) != loss_of(copy.deepcopy(method), batch(2))
    other = build(name, seed=1)
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    one, two = sgd(method), sgd(other)
    for i in range(2, 4):
        assert torch.equal(step(method, one, batch(i)), step(other, two, batch(i)))
    for key, value in method.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


@every_method
def test_the_same_seed_gives_the_same_steps(name):
    runs = []
    for _ in range(2):
        method = build(name)
        optimizer = sgd(method)
        runs.append([step(method, optimizer, batch(i)).item() for i in range(2)])
    assert runs[0] == runs[1]


@every_method
def test_saliency_is_none_or_a_map_in_0_1(name):
    method = build(name).eval()
    images = batch(0)["v1"].images
    saliency = method.saliency(images)
    if name.startswith(("moco", "byol", "dino", "densecl", "slotcon", "oracle")):
        assert saliency is None
    else:
        assert saliency.shape == (BATCH, 4, 4) and not saliency.requires_grad
        assert saliency.min() >= 0 and saliency.max() <= 1


def test_missing_or_too_many_global_views_are_refused():
    views = batch(0)
    with pytest.raises(ValueError, match="pairs two global views, the recipe gives 1"):
        build("moco")({"v1": views["v1"]})
    with pytest.raises(ValueError, match="pairs two global views, the recipe gives 3"):
        build("byol")({**views, "v3": view("v3", views["v1"].images)})
