"""A wrapper keeps its host as it is, adds its loss, and follows what it adds."""

import pytest
import torch
from torch import Tensor, nn

from baselines.barlow_twins import BarlowTwins
from baselines.byol import BYOL
from baselines.dino import DINO
from baselines.lewel import LEWEL
from baselines.moco import MoCo
from baselines.simsiam import SimSiam
from scd.errors import UsageError
from scd.maps.source import MapSource
from scd.method import Batch, Method, View, whole_view
from scd.nn.backbone import build_backbone
from scd.siamese import Encoded
from scd.wrapper import Wrapper


class Stepped(MapSource):
    """Needs masks, and counts its steps in a buffer that both branches share."""

    needs = frozenset({"masks"})
    supervision = "oracle"
    shared_buffers = ("steps",)

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, maps: Tensor, view: View) -> Tensor:
        return torch.einsum("c,bchw->bhw", self.weight, maps).sigmoid()

    def after_step(self) -> None:
        self.steps += 1


class Mean(Wrapper):
    """Adds the mean of a head's output on the first view."""

    addition = "the mean"

    def __init__(self, siamese, source: MapSource | None = None):
        super().__init__(siamese)
        self.head = nn.Linear(siamese.backbone.dim, 1)
        self.target_head = siamese.target_of(self.head)
        if source is not None:
            self.source = source
            self.target_source = self.add_source(source)

    def combine(self, image_loss: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        mean = self.head(encoded.online["v1"].pooled).mean()
        return image_loss + mean, {"mean": mean.detach()}


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return build_backbone("resnet_tiny", widths=(4, 8), strides=(1, 2))


def moco(**options) -> MoCo:
    return MoCo(tiny(), dim=8, queue_size=16, momentum=0.5, **options)


def batch(seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    return Batch({name: whole_view(torch.randn(4, 3, 16, 16, generator=draw), name) for name in ("v1", "v2")})


def test_the_loss_is_the_hosts_and_the_addition():
    alone, wrapped = moco(), Mean(moco())
    logs = wrapped(batch())
    assert torch.equal(logs["image_loss"], alone(batch())["image_loss"])
    torch.testing.assert_close(logs["loss"].detach(), logs["image_loss"] + logs["mean"])
    assert wrapped.backbone is wrapped.siamese.backbone


def test_the_backbone_runs_once_for_each_view_and_branch():
    method, calls = Mean(moco(symmetric=True)), []
    method.backbone.register_forward_hook(lambda *_: calls.append("online"))
    method.siamese.target_backbone.register_forward_hook(lambda *_: calls.append("target"))
    method(batch())
    assert sorted(calls) == ["online", "online", "target", "target"]


def test_copies_move_with_the_hosts_momentum():
    method = Mean(moco())
    before = method.target_head.weight.clone()
    with torch.no_grad():
        method.head.weight.add_(1.0)
    assert torch.equal(method.target_head.weight, before)
    method.after_step(0.5)
    torch.testing.assert_close(method.target_head.weight, before + 0.5)
    assert Mean(SimSiam(tiny(), dim=8)).target_head.weight.requires_grad  # the head itself


@pytest.mark.parametrize("host", [moco, lambda: SimSiam(tiny(), dim=8)])
def test_a_map_source_is_declared_and_followed(host):
    method = Mean(host(), Stepped(8))
    assert (method.needs, method.supervision) == ({"masks"}, "oracle")
    assert Mean(host()).needs == frozenset() and Mean(host()).supervision == "none"
    method.after_step(0.5)
    assert (method.source.steps, method.target_source.steps) == (1, 1)


def test_what_the_host_declares_stays():
    host = moco()
    host.needs, host.supervision = frozenset({"boxes"}), "supervised teacher"
    method = Mean(host)
    assert (method.needs, method.supervision) == ({"boxes"}, "supervised teacher")
    method = Mean(host, Stepped(8))
    assert (method.needs, method.supervision) == ({"boxes", "masks"}, "oracle")


def test_the_hosts_hooks_and_schedules_are_called():
    host = DINO(tiny(), prototypes=8, hidden=8, bottleneck=4, freeze_last=0.5)
    method = Mean(host)
    method(batch())["loss"].backward()
    assert host.projector.weight.grad is not None
    method.after_backward()
    assert host.projector.weight.grad is None
    assert method.scheduled_values(1.0) == {"momentum": 1.0}


def test_what_is_added_is_trained_by_the_hosts_rules():
    """SimSiam's second predictor keeps its learning rate too; Barlow Twins' biases have a rate of their own."""
    method = LEWEL(SimSiam(tiny(), dim=8), heads=2)
    encoder, predictors = method.parameter_groups()
    assert (encoder.constant_lr, predictors.constant_lr) == (False, True)
    both = [*method.siamese.matcher.parameters(), *method.object_matcher.parameters()]
    assert {id(p) for p in predictors.parameters} == {id(p) for p in both}
    assert {id(p) for p in method.object_projector.parameters()} <= {id(p) for p in encoder.parameters}

    method = Mean(BarlowTwins(tiny(), width=8, bias_lr=0.25))
    weights, vectors = method.parameter_groups()
    assert (weights.lr_multiplier, vectors.lr_multiplier) == (1.0, 0.25)
    assert any(p is method.head.weight for p in weights.parameters)
    assert any(p is method.head.bias for p in vectors.parameters)

    (group,) = Mean(moco()).parameter_groups()
    assert group.lr_multiplier == 1.0 and not group.constant_lr


def test_everything_outside_the_hosts_modules_is_the_addition():
    method = Mean(BYOL(tiny(), dim=8, hidden=16))
    parts = method.parts()
    assert parts.root == "the mean"
    assert parts.modules == method.siamese.parts().modules
    assert parts.functions == {(method.siamese, "encode"): "loss", (method.siamese, "image_loss"): "loss"}


class Alone(Method):
    """A method without pairs of views."""

    def __init__(self):
        super().__init__()
        self.backbone = tiny()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.backbone(batch.views["v1"].images).mean()}


def test_a_host_without_pairs_of_views_is_refused_in_one_line():
    with pytest.raises(UsageError, match="Mean needs a method that compares pairs of views as its host, not Alone"):
        Mean(Alone())
