"""Operations and activations by part: closed forms by hand, sums against the whole, hooks that are removed."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from baselines.byol import BYOL
from baselines.lewel import LEWEL
from baselines.moco import MoCo
from baselines.simsiam import SimSiam
from scd.data.recipes import build_recipe
from scd.data.views import CropSpec, Recipe
from scd.method import Batch, Method, Parts, whole_view
from scd.nn.backbone import build_backbone
from scd.profiling.flops import training_flops
from scd.profiling.parts import PartTracker, count_step, part_names, tensors_in
from scd.scd import SCD

ONLINE, TARGET, HEADS, LOSS, ADDED = "backbone, online", "backbone, target", "heads", "loss", SCD.addition


class Pixels(nn.Module):
    """A backbone whose cost is easy to count: one 1 x 1 convolution to 8 channels."""

    dim = 8

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1, bias=False)

    def forward(self, images):
        return self.conv(images)


def moco(symmetric=False):
    return MoCo(Pixels(), dim=4, hidden=16, queue_size=32, symmetric=symmetric, bn_groups=1)


def byol():
    return BYOL(build_backbone("resnet_tiny"), dim=16, hidden=32)


TWO = Recipe("two", (CropSpec("v1", 6), CropSpec("v2", 6)))
HOSTS = {
    "moco": moco,
    "moco symmetric": lambda: moco(True),
    "byol": byol,
    "scd": lambda: SCD(moco(), projection_dim=4),
    "scd byol": lambda: SCD(byol(), projection_dim=4),
    "scd simsiam": lambda: SCD(SimSiam(Pixels(), dim=16), projection_dim=4),
    "lewel": lambda: LEWEL(byol(), heads=4),
}


def test_mocos_parts_by_hand():
    """B = 8 images of 6 x 6 pixels, C = 8, hidden 16, embedding 4, 32 keys in the queue; 2 per multiply-add."""
    count = count_step(moco(), TWO, 8)
    convolution, head = 2 * 8 * 36 * 3 * 8, 2 * 8 * (8 * 16 + 16 * 4)
    positives, negatives = 2 * 8 * 4, 2 * 8 * 4 * 32
    assert count.forward[ONLINE] == count.forward[TARGET] == convolution
    assert count.backward[ONLINE] == convolution  # the weight's gradient; pixels need none
    assert count.backward[TARGET] == 0
    assert count.forward[HEADS] == 2 * head and count.backward[HEADS] == 2 * head
    assert count.forward[LOSS] in (negatives, negatives + positives)  # an einsum may be a product and a sum
    assert count.backward[LOSS] in (negatives, negatives + positives)  # the queue and the key need none
    assert count.parts == (ONLINE, TARGET, HEADS, LOSS)
    assert set(count.forward) <= set(count.parts)


def test_what_scd_adds_by_hand():
    """Saliency MLP 8-8-1 on 36 positions in both branches, pooling of two regions, projection 8-8-4 of two vectors."""
    host, count = count_step(moco(), TWO, 8), count_step(SCD(moco(), projection_dim=4), TWO, 8)
    mlp, pooling, projection = 2 * 8 * 36 * (8 * 8 + 8 * 1), 2 * 8 * 2 * 36 * 8, 2 * 8 * 2 * (8 * 8 + 8 * 4)
    assert count.forward[ADDED] == 2 * (mlp + pooling + projection)
    assert count.backward[ADDED] == 2 * (mlp + pooling + projection)
    for part in (ONLINE, TARGET, HEADS, LOSS):
        assert (count.forward[part], count.backward[part]) == (host.forward[part], host.backward[part])
    assert count.parts == (*host.parts, ADDED)


@pytest.mark.parametrize("name", HOSTS)
def test_parts_add_up_to_the_whole_step(name):
    method = HOSTS[name]()
    recipe = build_recipe("mocov2", 24, extra={"kind": "local", "count": 2})
    count, whole = count_step(method, recipe, 8), training_flops(method, recipe, 8)
    assert sum(count.forward.values()) == whole.forward
    assert sum(count.backward.values()) == whole.backward
    assert set(count.forward) | set(count.backward) | set(count.activations) <= set(count.parts)


def test_extra_views_are_passes_of_their_own_size():
    recipe = build_recipe("mocov2", 24, extra={"kind": "local", "count": 4})
    count, full = count_step(moco(), recipe, 8), 2 * 8 * 24 * 24 * 3 * 8
    assert count.forward[TARGET] == full
    assert count.forward[ONLINE] == full + 4 * full * (12 / 24) ** 2


def test_activations_are_what_autograd_keeps():
    """One convolution keeps its input: a view, which is not the method's own, or the copy that joins extra views."""
    narrow, wide = (
        count_step(MoCo(Pixels(), dim=4, hidden=hidden, queue_size=32, bn_groups=1), TWO, 8) for hidden in (16, 64)
    )
    assert narrow.activations[ONLINE] == 0
    extra = (CropSpec("e0", 6, role="extra"), CropSpec("e1", 6, role="extra"))
    joined = count_step(moco(), Recipe("four", (*TWO.crops, *extra)), 8)
    assert joined.activations[ONLINE] == 4 * 2 * 8 * 3 * 36
    assert narrow.activations[TARGET] == 0  # it runs without gradient
    assert wide.activations[HEADS] - narrow.activations[HEADS] == 4 * 8 * (64 - 16)  # the hidden layer after its ReLU


def test_the_method_and_the_random_state_stay_as_they_are():
    method = SCD(moco())
    before, state = {k: v.clone() for k, v in method.state_dict().items()}, torch.get_rng_state()
    attributes = set(vars(method.siamese))
    count_step(method, TWO, 8)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in method.modules())
    assert set(vars(method.siamese)) == attributes


class Plain(Method):
    """A method without branches: a backbone and a decoder, which runs in a function."""

    def __init__(self):
        super().__init__()
        self.backbone, self.decoder = nn.Linear(3 * 36, 8), nn.Linear(8, 5)

    def forward(self, batch):
        features = self.backbone(batch.views["v1"].images.flatten(1))
        return {"loss": self.decode(features).square().mean()}

    def decode(self, features):
        return features @ self.decoder.weight.T

    def parts(self):
        return Parts("loss", {self.backbone: "backbone, online"}, {(self, "decode"): "decoder"})


def test_a_method_without_branches_has_its_own_parts():
    count = count_step(Plain(), TWO, 8)
    assert count.parts == part_names(Plain()) == (ONLINE, "decoder", LOSS)
    assert count.forward == {ONLINE: 2 * 8 * 108 * 8, "decoder": 2 * 8 * 8 * 5, LOSS: 0}
    assert (count.backward[ONLINE], count.backward["decoder"]) == (2 * 8 * 108 * 8, 2 * 2 * 8 * 8 * 5)


def test_borders_follow_the_forward_pass():
    method, borders = Plain(), []
    tracker = PartTracker(method, lambda part, value: borders.append((part, len(list(tensors_in(value))))))
    batch = Batch({"v1": whole_view(torch.zeros(2, 3, 6, 6))})
    with tracker.watching():
        method(batch)
    assert borders == [(LOSS, 1), (ONLINE, 1), (LOSS, 1), ("decoder", 1)]
    assert tracker.current == LOSS and "decode" not in vars(method)


class OnlyMeta(TorchDispatchMode):
    """Counts the elements of results that are not on the device "meta"."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        real = [tensor for tensor in tensors_in(result) if tensor.device.type != "meta"]
        self.elements += sum(tensor.numel() for tensor in real)
        return result


def test_counting_a_method_without_values_allocates_nothing():
    with torch.device("meta"):
        method = SCD(moco(), projection_dim=4)
    with OnlyMeta() as seen:
        count_step(method, TWO, 8)
    assert seen.elements <= 32  # MoCo draws the order of its keys on the CPU
