"""The counter against closed forms worked out by hand, on a single layer, a whole step, and two known networks."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scd.data.views import CropSpec, Recipe
from scd.method import Method
from scd.profiling.flops import BOXES, StepFlops, counter, forward_flops, meta_batch, training_flops


def counted(module, shape, input_gradient=True):
    """(forward, backward) of one module on a meta input, and the output's shape."""
    inputs = torch.empty(shape, device="meta", requires_grad=input_gradient)
    module = module.to("meta")
    with counter() as forward:
        output = module(inputs)
    with counter() as backward:
        output.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops(), tuple(output.shape)


def convolution_by_loop(batch, c_in, c_out, kernel, side, stride, padding, groups):
    """Multiply-adds of a convolution, counted one output number at a time."""
    macs, out = 0, (side + 2 * padding - kernel) // stride + 1
    for _ in range(batch * c_out):
        for _ in range(out * out):
            macs += (c_in // groups) * kernel * kernel
    return macs


@pytest.mark.parametrize("stride, groups", [(1, 1), (2, 1), (1, 2), (2, 4), (1, 8)])
def test_convolution_counts_two_per_multiply_add_and_each_gradient_as_one_forward(stride, groups):
    macs = convolution_by_loop(2, 8, 16, 3, 12, stride, 1, groups)
    layer = nn.Conv2d(8, 16, 3, stride=stride, padding=1, groups=groups)
    forward, backward, _ = counted(layer, (2, 8, 12, 12))
    assert forward == 2 * macs
    assert backward == 2 * forward
    first_layer = counted(nn.Conv2d(8, 16, 3, stride=stride, padding=1, groups=groups), (2, 8, 12, 12), False)
    assert first_layer[1] == forward  # images need no gradient


def test_depthwise_backward_is_two_forwards_where_torch_215_counts_one_plus_groups():
    inputs = torch.empty(2, 8, 12, 12, device="meta", requires_grad=True)
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8, device="meta")
    with FlopCounterMode(display=False) as theirs:
        layer(inputs).sum().backward()
    with counter() as ours:
        layer(inputs).sum().backward()
    macs = convolution_by_loop(2, 8, 8, 3, 12, 1, 1, 8)
    assert ours.get_total_flops() == 3 * 2 * macs
    assert theirs.get_total_flops() in (3 * 2 * macs, (2 + 8) * 2 * macs)  # the first where torch has mended it


def test_a_module_without_gradient_on_an_input_with_gradient_is_counted():
    layer, inputs = nn.Linear(7, 5, device="meta"), torch.empty(3, 7, device="meta", requires_grad=True)
    with counter() as forward, torch.no_grad():
        layer(inputs)
    assert forward.get_total_flops() == 2 * 3 * 7 * 5


@pytest.mark.parametrize("groups", [1, 4])
def test_transposed_convolution_pays_per_input_position(groups):
    forward, backward, _ = counted(nn.ConvTranspose2d(8, 16, 3, stride=2, groups=groups), (2, 8, 12, 12))
    assert forward == 2 * 2 * 12 * 12 * 8 * (16 // groups) * 3 * 3
    assert backward == 2 * forward


def test_linear_layer_on_vectors_and_on_tokens():
    assert counted(nn.Linear(7, 5), (3, 7))[:2] == (2 * 3 * 7 * 5, 2 * 2 * 3 * 7 * 5)
    assert counted(nn.Linear(7, 5), (3, 4, 7))[:2] == (2 * 3 * 4 * 7 * 5, 2 * 2 * 3 * 4 * 7 * 5)
    assert counted(nn.Linear(7, 5), (3, 7), False)[1] == 2 * 3 * 7 * 5


def test_attention_is_two_products_forward_and_four_backward():
    batch, heads, queries, keys, width, value_width = 2, 3, 5, 7, 8, 4

    def tensor(tokens, channels):
        return torch.empty(batch, heads, tokens, channels, device="meta", requires_grad=True)

    with counter() as forward:
        args = tensor(queries, width), tensor(keys, width), tensor(keys, value_width)
        output = nn.functional.scaled_dot_product_attention(*args)
    with counter() as backward:
        output.sum().backward()
    logits = batch * heads * queries * keys * width
    values = batch * heads * queries * keys * value_width
    assert forward.get_total_flops() == 2 * (logits + values)
    assert backward.get_total_flops() == 2 * 2 * (logits + values)


def test_known_networks_in_gflop_and_not_in_macs():
    with torch.device("meta"):
        resnet = torchvision.models.resnet50(weights=None)
        vit = timm.create_model("vit_small_patch16_224", pretrained=False)
    assert forward_flops(resnet, (1, 3, 224, 224)) / 1e9 == pytest.approx(8.17, abs=0.02)
    assert forward_flops(vit, (1, 3, 224, 224)) / 1e9 == pytest.approx(9.20, abs=0.02)
    # ViT-S/16 by hand: 196 patches, 197 tokens, 12 blocks of width 384, a head of 1000 classes.
    tokens, width = 197, 384
    block = 2 * tokens * width * (3 * width) + 2 * 2 * tokens**2 * width + 2 * tokens * width * width
    block += 2 * 2 * tokens * width * (4 * width)
    assert forward_flops(vit, (1, 3, 224, 224)) == 2 * 196 * (3 * 16 * 16) * width + 12 * block + 2 * width * 1000
    assert forward_flops(vit, (4, 3, 224, 224)) == 4 * forward_flops(vit, (1, 3, 224, 224))


class PlainPair(Method):
    """A method whose step can be counted by hand: conv -> mean -> linear, a frozen target, a dot product of both."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8, 4, bias=False)
        self.target = copy.deepcopy(self.backbone).requires_grad_(False)
        self.register_buffer("bank", torch.randn(8, 16))

    def forward(self, batch):
        views = batch.views
        with torch.no_grad():
            key = self.target(views["v2"].images).mean(dim=(2, 3)) @ self.bank  # (B, 16)
        queries = [view.images for name, view in views.items() if name != "v2"]
        vectors = [self.head(self.backbone(images).mean(dim=(2, 3))) for images in queries]
        noise = torch.rand(()).to(key.device)
        losses = [(vector.mean(dim=1) * key.mean(dim=1)).mean() for vector in vectors]
        return {"loss": torch.stack(losses).mean() * noise}


def recipe_of(*sizes):
    globals_ = (CropSpec("v1", sizes[0]), CropSpec("v2", sizes[0]))
    return Recipe("test", globals_ + tuple(CropSpec(f"x{i}", s, role="extra") for i, s in enumerate(sizes[1:])))


def step_by_hand(batch, side, extras):
    """(forward, backward) of one PlainPair step; the images need no gradient, the head's input does."""

    def conv(size):
        return 2 * batch * size * size * 3 * 3 * 3 * 8

    head, bank = 2 * batch * 8 * 4, 2 * batch * 8 * 16
    online = [side, *extras]
    forward = sum(conv(s) + head for s in online) + conv(side) + bank
    return forward, sum(conv(s) + 2 * head for s in online)


@pytest.mark.parametrize("extras", [(), (8,), (8, 8), (4, 4), (8, 4, 2)])
def test_a_whole_step_equals_the_closed_form_with_and_without_extra_views(extras):
    counted_step = training_flops(PlainPair(), recipe_of(8, *extras), batch_size=6)
    assert (counted_step.forward, counted_step.backward) == step_by_hand(6, 8, extras)
    assert counted_step.total == counted_step.forward + counted_step.backward
    assert counted_step.per_image == pytest.approx(counted_step.total / 6)


def test_operations_are_proportional_to_the_batch():
    small, large = (training_flops(PlainPair(), recipe_of(8, 8), batch_size=b) for b in (2, 10))
    assert large.total == 5 * small.total and large.per_image == small.per_image


def test_counting_leaves_the_method_and_the_random_state_alone():
    method = PlainPair().eval()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    state = torch.get_rng_state()
    assert isinstance(training_flops(method, recipe_of(8), batch_size=2), StepFlops)
    assert forward_flops(method.backbone, (1, 3, 8, 8)) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert not method.training
    assert all(p.grad is None for p in method.parameters())
    after = method.state_dict()
    assert all(after[name].device.type == "cpu" and torch.equal(after[name], before[name]) for name in before)


def test_a_batch_without_values_carries_what_a_method_needs_and_no_more():
    plain = meta_batch(recipe_of(8, 4), 2)
    view = plain.views["x0"]
    assert (view.role, view.images.shape, view.rectangles.shape) == ("extra", (2, 3, 4, 4), (2, 4))
    assert view.masks is view.segments is view.boxes is plain.labels is None
    full = meta_batch(recipe_of(8, 4), 2, frozenset({"masks", "segments", "boxes", "labels"}))
    view = full.views["x0"]
    assert view.masks.shape == view.segments.shape == (2, 4, 4) and view.segments.dtype == torch.int64
    assert [boxes.shape for boxes in view.boxes] == [(BOXES, 4)] * 2
    assert full.labels.shape == (2,) and full.labels.dtype == torch.int64
    assert {tensor.device.type for tensor in (view.masks, view.boxes[0], full.labels, full.indices)} == {"meta"}


class Classifier(Method):
    """A method that needs labels."""

    needs = frozenset({"labels"})

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(3 * 8 * 8, 5), nn.Linear(5, 4)

    def forward(self, batch):
        scores = self.head(self.backbone(batch.views["v1"].images.flatten(1)))
        return {"loss": nn.functional.cross_entropy(scores, batch.labels)}


def test_a_method_that_needs_labels_is_counted():
    counted_step = training_flops(Classifier(), Recipe("one", (CropSpec("v1", 8),)), batch_size=6)
    assert counted_step.forward == 2 * 6 * (3 * 64 * 5 + 5 * 4)
