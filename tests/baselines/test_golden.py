"""Steps of our methods beside the numbers of their official code, in float64.

Where a test says nothing else, it compares losses, the gradients of the first step, the state of both networks after
the last one, and what a method keeps: queues, centres. MAE's numbers are in ``test_mae.py``, TokenCut's in
``tests/maps/test_tokencut.py``.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from golden_numbers import Convolution, assert_gradients, assert_same, assert_state, batch, begin, follow, golden
from lightning_fabric import Fabric
from torch import Tensor, nn

from baselines.barlow_twins import BarlowTwins
from baselines.byol import BYOL
from baselines.densecl import DenseCL
from baselines.dino import DINO
from baselines.lewel import LEWEL
from baselines.moco import MoCo
from baselines.simsiam import SimSiam
from baselines.slotcon import SlotCon
from baselines.soco import SoCo
from scd.method import Batch, Method, View, whole_view
from scd.nn.backbone import FeatureMaps
from scd.nn.norm import GroupedBatchNorm2d
from scd.training.loop import pretrain
from scd.training.optimizers import build_optimizer, set_learning_rate, set_weight_decay


class Normalised(nn.Sequential):
    """A 1 x 1 convolution, batch norm and ReLU."""

    dim = 6

    def __init__(self):
        super().__init__(Convolution(), nn.BatchNorm2d(self.dim), nn.ReLU())


def sgd(method: Method, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD([parameter for parameter in method.parameters() if parameter.requires_grad], lr)


def test_moco():
    """The queue runs over its end; the key network moves before the keys, which enter the queue after the loss."""
    numbers = golden("moco")
    method = MoCo(Convolution(), dim=8, queue_size=12, momentum=0.7, temperature=0.2).double()
    begin(method, numbers)
    method.matcher.queue.keys.copy_(numbers["queue"])
    assert len(list(follow(method, sgd(method, 0.5), numbers))) == 5


def test_moco_symmetric_with_split_batch_norm_and_shuffled_keys(monkeypatch):
    """The official CIFAR-10 demo. It enqueues view 1 before view 2, ours the other way round.

    Its parts of the batch are the even and the odd images, ours the first and the second half.
    """
    numbers = golden("moco_cifar_demo")
    halves = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])  # the official number of each of our images
    numbers |= {name: numbers[name][:, halves] for name in ("v1", "v2")}
    queue = numbers["final.matcher.queue.keys"].unflatten(0, (-1, 2, 8))  # (K / 2B, view, B, D)
    numbers["final.matcher.queue.keys"] = queue.flip(1)[:, :, halves].flatten(0, 2)
    orders = iter(halves.argsort()[numbers["orders"][:, halves]])
    monkeypatch.setattr(torch, "randperm", lambda n, **options: next(orders))

    method = MoCo(Normalised(), 8, hidden=0, queue_size=32, momentum=0.7, temperature=0.1, symmetric=True, bn_groups=2)
    method.double()
    assert isinstance(method.backbone[1], GroupedBatchNorm2d)
    begin(method, numbers)
    method.matcher.queue.keys.copy_(numbers["queue"])
    assert len(list(follow(method, sgd(method, 2 * 0.5), numbers, directions=2))) == 5


def test_mocos_cifar_demo_through_the_whole_loop(tmp_path, monkeypatch):
    """Three of five epochs of the demo, written plainly in PyTorch: SGD, schedule, EMA, BN groups, shuffles and queue.

    As above, its parts of the batch are the even and the odd images.
    """
    numbers = golden("moco_cifar_loop")
    halves = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])  # the plain loop's number of each of our images
    numbers |= {name: numbers[name][:, halves] for name in ("v1", "v2")}
    numbers["final.matcher.queue.keys"] = (
        numbers["final.matcher.queue.keys"].unflatten(0, (-1, 8))[:, halves].flatten(0, 1)
    )
    orders = iter(halves.argsort()[numbers["orders"][:, halves]])
    monkeypatch.setattr(torch, "randperm", lambda n, **options: next(orders))
    method = MoCo(Normalised(), 8, hidden=0, queue_size=32, momentum=0.7, temperature=0.1, bn_groups=2).double()
    begin(method, numbers)
    method.matcher.queue.keys.copy_(numbers["queue"])

    class Batches:
        steps_per_epoch = 2

        def iterate(self, start, stop, rank, world):
            yield from (SimpleNamespace(total=8) for _ in range(start, stop))

    views = SimpleNamespace(steps_at_once=1, several=lambda _, steps: [batch(numbers, step) for step in steps])
    pretrain(
        method, Batches(), views, steps=6, seed=0, fabric=Fabric(accelerator="cpu", devices=1),
        optimizer={"name": "sgd", "lr": 0.3, "momentum": 0.9, "weight_decay": 1e-2},
        schedule={"name": "cosine", "per": "epoch", "total_epochs": 5}, run_dir=tmp_path, log_every=1,
    )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["lr"] for line in lines] == pytest.approx(numbers["lr"].tolist(), rel=1e-12)
    assert [line["loss"] for line in lines] == pytest.approx(numbers["loss"].tolist(), rel=1e-6)  # logged in float32
    assert_state(method, numbers)


def test_byol():
    """The target moves after the step, by a momentum on a cosine."""
    numbers = golden("byol")
    method = BYOL(Convolution(), dim=8, hidden=10, momentum=0.8).double()
    begin(method, numbers)
    assert [method.momentum(step / 5) for step in range(5)] == pytest.approx(numbers["momentum"].tolist(), rel=1e-12)
    assert len(list(follow(method, sgd(method, 2 * 0.3), numbers, directions=2))) == 5


def test_dino():
    """Two epochs of three steps: multi-crop through shared batch norm, clipping, AdamW with schedules.

    The last layer is frozen in the first epoch, so that its first step of AdamW is the fourth of the run.
    """
    numbers = golden("dino")
    temperatures = {"student_temperature": 0.3, "teacher_temperature": 0.15}
    method = DINO(Normalised(), 12, hidden=10, bottleneck=5, momentum=0.9, freeze_last=0.5, **temperatures).double()
    begin(method, numbers)
    assert [method.momentum(step / 6) for step in range(6)] == pytest.approx(numbers["momentum"].tolist(), rel=1e-12)
    optimizer = build_optimizer(method, "adamw", lr=1.0, weight_decay=1.0, exclude_bias_norm=True)

    def views(numbers: dict[str, Tensor], step: int) -> Batch:
        set_learning_rate(optimizer, float(numbers["lr"][step]))
        set_weight_decay(optimizer, float(numbers["weight_decay"][step]))
        return batch(numbers, step, extras=("local0", "local1"))

    steps = 0
    for step in follow(method, optimizer, numbers, views, clip=0.1):
        assert_same(method.matcher.centre, numbers["centre"][step], f"centre after step {step}")
        assert_same(method.projector.weight, numbers["last_layer"][step], f"last layer after step {step}")
        steps += 1
    assert steps == 6


def test_slotcon():
    """Some slots are no queries. The target moves before the forward pass, by the momentum of that step."""
    numbers = golden("slotcon")
    options = {"dim": 5, "hidden": 10, "prototypes": 8, "momentum": 0.8, "weight": 0.4}
    method = SlotCon(Convolution(), **options).double()
    begin(method, numbers)

    def views(numbers: dict[str, Tensor], step: int) -> Batch:
        rectangles, flips = numbers["rectangles"][:, step], numbers["flips"][:, step]
        views = [View(n, "global", numbers[n][step], rectangles[v], flips[v]) for v, n in enumerate(("v1", "v2"))]
        return Batch({view.name: view for view in views})

    steps = 0
    for step in follow(method, sgd(method, 2 * 0.3), numbers, views, directions=2):
        assert_same(method.grouping_matcher.centre, numbers["centre"][step], f"centre after step {step}")
        steps += 1
    assert steps == 5


@pytest.mark.parametrize("levels", ["several", "one"])
def test_soco(levels):
    """Its loss of views 1 and 2 alone; the target moves before the forward pass, by the momentum of that step.

    First the boxes lie on several levels, and batch norm has its running statistics: those of a batch differ, since the
    official code reads every box from every level. Then all boxes lie on the finest level, and batch norm has those of
    the batch.
    """
    numbers = golden("soco")
    if levels == "one":
        numbers |= golden("soco_one_level")
    widths = ((3, 4), (4, 5), (5, 6), (6, 7))
    trunk = nn.Sequential(*(nn.Sequential(nn.Conv2d(*pair, 2, 2, bias=False), nn.ReLU()) for pair in widths))
    options = {"dim": 5, "hidden": 8, "channels": 4, "roi": 2, "head_width": 6, "jitter": 0.0, "momentum": 0.8}
    method = SoCo(FeatureMaps("golden", trunk, 7), **options).double().train(levels == "one")
    begin(method, numbers)
    directions = 2 * 4 / (4 + 1e-6)  # of 4 boxes an image, each; the official mean has this in its denominator
    numbers["loss"] = numbers["loss"] + 2 * directions  # the official loss has no constant

    def views(numbers: dict[str, Tensor], step: int) -> Batch:
        both = batch(numbers, step).views.values()
        boxes = numbers["boxes"][:, step]
        return Batch({view.name: replace(view, boxes=list(each)) for view, each in zip(both, boxes, strict=True)})

    assert len(list(follow(method, sgd(method, 0.3 * directions), numbers, views, directions=directions))) == 3


def test_lewel_around_byol():
    """The official form with synchronised BN; its heads have no biases, ours those of the host."""
    numbers = golden("lewel")
    method = LEWEL(BYOL(Convolution(), dim=8, hidden=10, momentum=0.8), heads=2, scale=0.5, weight=0.3).double()
    heads = ("siamese.projector", "object_projector", "siamese.matcher.predictor", "object_matcher.predictor")
    begin(method, numbers, without=tuple(f"{head}.layers.0.bias" for head in heads))
    assert len(list(follow(method, sgd(method, 2 * 0.3), numbers, directions=2))) == 5


def test_densecl_around_moco():
    """Both queues run over their end."""
    numbers = golden("densecl")
    method = DenseCL(MoCo(Convolution(), 8, hidden=10, queue_size=12, momentum=0.7), weight=0.3).double()
    begin(method, numbers)
    method.siamese.matcher.queue.keys.copy_(numbers["queue"])
    method.dense_matcher.queue.keys.copy_(numbers["dense_queue"])
    assert len(list(follow(method, sgd(method, 0.5), numbers))) == 5


WITHOUT_MOMENTUM = {
    "simsiam": lambda: SimSiam(Convolution(), dim=8, bottleneck=4),
    "barlow_twins": lambda: BarlowTwins(Convolution(), width=8),
}


@pytest.mark.parametrize("name", WITHOUT_MOMENTUM)
def test_one_step_without_a_momentum_branch(name):
    """The loss, and its gradients, which these files hold in float32."""
    numbers, method = golden(name), WITHOUT_MOMENTUM[name]().double()
    begin(method, numbers)
    loss = method(Batch({view: whole_view(numbers[view], view) for view in ("v1", "v2")}))["loss"]
    loss.backward()
    assert_same(loss, numbers["loss"], "loss")
    assert_gradients(method, numbers, precision=1e-6)
