"""Reverse attention against the official code, against loops, and what a refinement may and may not change."""

import math

import pytest
import torch
from golden_numbers import assert_same, golden, part
from torch import nn

from scd.errors import UsageError
from scd.maps.learned import SaliencyMLP
from scd.maps.reverse_attention import Refinement, ReverseAttention, mask_loss


def source(**options) -> ReverseAttention:
    torch.manual_seed(0)
    made = ReverseAttention(6, **{"width": 5, **options})
    for refinement in made.refinements:
        nn.init.normal_(refinement.convs[-1].weight, std=0.3)  # it starts at 0, and so do the biases
        nn.init.normal_(refinement.convert.bias)
    return made


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- the official code


def test_two_refinements_and_the_cross_entropy_are_the_official_ones():
    numbers = golden("reverse_attention")
    own = ReverseAttention(6, refinements=2, width=5).double()
    parameters = dict(own.refinements.named_parameters(prefix="refinements"))
    assert set(parameters) == set(part(numbers, "weight."))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(numbers[f"weight.{name}"])
    features, coarse = numbers["maps"].requires_grad_(), numbers["coarse"].requires_grad_()
    logits = [coarse]
    for refinement in own.refinements:
        logits.append(refinement(features, logits[-1]))
    loss = mask_loss(logits, numbers["masks"])
    loss.backward()
    for i in (1, 2):
        assert_same(logits[i], numbers[f"logits{i}"], f"logits {i}")
    assert_same(loss, numbers["loss"], "loss")
    assert_same(features.grad, numbers["gradient_maps"], "gradient of the maps")
    assert_same(coarse.grad, numbers["gradient_coarse"], "gradient of the coarse logits")
    for name, parameter in parameters.items():
        assert_same(parameter.grad, numbers[f"gradient.{name}"], f"gradient of {name}")


# ---------------------------------------------------------------- the formula


def convolved(image: list, layer: nn.Conv2d) -> list:
    """A convolution of [channel][row][column], number by number, with zeros beyond the border."""
    weight, bias, side = layer.weight.tolist(), layer.bias.tolist(), layer.kernel_size[0] // 2
    height, width = len(image[0]), len(image[0][0])

    def at(c: int, y: int, x: int) -> float:
        return image[c][y][x] if 0 <= y < height and 0 <= x < width else 0.0

    window = range(-side, side + 1)
    return [
        [
            [
                bias[o] + sum(weight[o][c][dy + side][dx + side] * at(c, y + dy, x + dx)
                              for c in range(len(image)) for dy in window for dx in window)
                for x in range(width)
            ]
            for y in range(height)
        ]
        for o in range(len(weight))
    ]  # fmt: skip


def test_a_refinement_number_by_number():
    own, features = source().double(), maps(1, 6, 3, 4).double()
    logits = own.logits(features)
    refinement, coarse = own.refinements[0], logits[0][0].tolist()
    x = convolved(features[0].tolist(), refinement.convert)
    x = [[[v * (1 - 1 / (1 + math.exp(-s))) for v, s in zip(*rows, strict=True)]
          for rows in zip(channel, coarse, strict=True)] for channel in x]  # fmt: skip
    for layer in refinement.convs:
        convolution = isinstance(layer, nn.Conv2d)
        x = convolved(x, layer) if convolution else [[[max(v, 0.0) for v in row] for row in c] for c in x]
    for y in range(3):
        for column in range(4):
            expected = coarse[y][column] + x[0][y][column]
            assert logits[1][0, y, column].item() == pytest.approx(expected, rel=1e-9)
            found = own(features, None)[0, y, column].item()
            assert found == pytest.approx(1 / (1 + math.exp(-expected)), rel=1e-9)


def test_the_cross_entropy_number_by_number():
    logits, masks = [maps(2, 3, 3), maps(2, 3, 3).flip(0)], (maps(2, 3, 3) > 0).float()
    expected = 0.0
    for each in logits:
        terms = [
            -math.log(1 / (1 + math.exp(-s if m else s)))
            for s, m in zip(each.flatten().tolist(), masks.flatten().tolist(), strict=True)
        ]
        expected += sum(terms) / len(terms)
    assert mask_loss(logits, masks).item() == pytest.approx(expected, rel=1e-5)


def test_logits_are_upsampled_to_the_masks_with_aligned_corners():
    """A ramp over the columns, the coordinate image of a map, stays the same ramp from corner to corner."""
    ramp = torch.linspace(-3, 3, 4).expand(1, 4, 4)
    wide = torch.linspace(-3, 3, 7).expand(1, 7, 7)
    masks = torch.zeros(1, 7, 7)
    masks[:, :, 4:] = 1
    torch.testing.assert_close(mask_loss([ramp], masks), mask_loss([wide], masks))
    assert mask_loss([ramp], masks) < mask_loss([-ramp], masks)


# ---------------------------------------------------------------- what it promises


def test_a_fresh_map_is_the_coarse_one():
    torch.manual_seed(0)
    own, features = ReverseAttention(6, hidden=7), maps(2, 6, 4, 4)
    plain = SaliencyMLP(6, hidden=7)
    plain.load_state_dict({name: value for name, value in own.state_dict().items() if name.startswith("mlp.")})
    assert torch.equal(own(features, None), plain(features, None))


def test_what_the_map_holds_is_erased_from_the_features():
    refinement, features = source().refinements[0], maps(1, 6, 4, 4)
    found, missing = torch.full((1, 4, 4), 90.0), torch.full((1, 4, 4), -90.0)
    other = features + maps(1, 6, 4, 4).flip(2)
    torch.testing.assert_close(refinement(features, found), refinement(other, found))  # nothing is left to see
    assert not torch.allclose(refinement(features, missing), refinement(other, missing))


def test_gradients_pass_through_the_attention():
    refinement, logits = source().refinements[0], maps(1, 4, 4).requires_grad_()
    refinement(maps(1, 6, 4, 4), logits).sum().backward()
    assert not torch.allclose(logits.grad, torch.ones_like(logits))  # 1 is the sum's alone


def test_every_refinement_adds_to_the_one_before():
    own, features = source(refinements=3), maps(2, 6, 4, 4)
    logits = own.logits(features)
    assert len(logits) == 4 and len({id(each) for each in own.refinements}) == 3
    for before, after, refinement in zip(logits[:-1], logits[1:], own.refinements, strict=True):
        assert torch.equal(after, refinement(features, before)) and not torch.equal(after, before)


def test_reads_channels_last():
    own, features = source(), maps(2, 6, 4, 4)
    torch.testing.assert_close(own(features.to(memory_format=torch.channels_last), None), own(features, None))


def test_its_convolutions_have_the_official_form():
    layers = list(Refinement(32, 64).convs)
    assert [type(layer).__name__ for layer in layers] == ["Conv2d", "ReLU"] * 3 + ["Conv2d"]
    assert [layer.out_channels for layer in layers[::2]] == [64, 64, 64, 1]


@pytest.mark.parametrize("name", ["depth", "refinements", "width"])
def test_refuses_numbers_below_1(name):
    with pytest.raises(UsageError, match=f"ReverseAttention's {name} is 1 or more, not 0"):
        ReverseAttention(6, **{name: 0})
