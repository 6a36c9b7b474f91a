"""The learned map against its formula."""

import copy
import math

import pytest
import torch

from scd.errors import UsageError
from scd.maps.controls import OtherImage
from scd.maps.learned import SaliencyMLP


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_mlp_map_is_the_same_function_of_every_position(depth):
    torch.manual_seed(0)
    source = SaliencyMLP(6, depth=depth, hidden=5)
    maps = torch.randn(2, 6, 3, 4)
    saliency = source(maps, None)
    assert saliency.shape == (2, 3, 4)
    linears = [layer for layer in source.mlp.layers if isinstance(layer, torch.nn.Linear)]
    assert len(linears) == depth
    for b, y, x in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
        vector = maps[b, :, y, x]
        for i, layer in enumerate(linears):
            vector = layer.weight @ vector + layer.bias
            vector = vector.clamp_min(0) if i < depth - 1 else vector
        assert saliency[b, y, x].item() == pytest.approx(1 / (1 + math.exp(-vector.item())), rel=1e-5)


def test_mlp_passes_the_gradient_on_and_reads_channels_last():
    source = SaliencyMLP(6)
    maps = torch.randn(2, 6, 3, 4, requires_grad=True)
    source(maps, None).sum().backward()
    assert maps.grad.abs().sum() > 0
    torch.testing.assert_close(source(maps.contiguous(memory_format=torch.channels_last), None), source(maps, None))


def test_mlp_needs_a_layer():
    with pytest.raises(UsageError, match="at least one layer, not depth=0"):
        SaliencyMLP(6, depth=0)


def logits_of(source: SaliencyMLP, maps: torch.Tensor) -> torch.Tensor:
    return source.mlp(maps.permute(0, 2, 3, 1)).squeeze(3)


# ---------------------------------------------------------------- softmax over positions


def test_softmax_weights_the_foreground_and_leaves_the_rest_to_the_background():
    torch.manual_seed(0)
    source, maps = SaliencyMLP(6, normalisation="softmax"), torch.randn(2, 6, 3, 4)
    logits, saliency = logits_of(source, maps), source(maps, None)
    for b in range(2):
        total = sum(math.exp(logit) for logit in logits[b].flatten().tolist())
        weights = [math.exp(logit) / total for logit in logits[b].flatten().tolist()]
        values = [weight / max(weights) for weight in weights]
        assert saliency[b].flatten().tolist() == pytest.approx(values, rel=1e-4)
        shares = (saliency[b] / saliency[b].sum()).flatten().tolist()
        assert shares == pytest.approx(weights, rel=1e-4)  # of a weighted mean under M
        assert (1 - saliency[b]).flatten()[weights.index(max(weights))] == 0  # nothing of it is background


def test_softmax_does_not_overflow_and_passes_the_gradient_on():
    source, maps = SaliencyMLP(6, normalisation="softmax"), torch.randn(2, 6, 3, 4, requires_grad=True)
    with torch.no_grad():
        source.mlp.layers[-1].weight.mul_(1e4)
    saliency = source(maps, None)
    (saliency * torch.rand(2, 3, 4)).sum().backward()
    assert torch.isfinite(saliency).all() and torch.isfinite(maps.grad).all() and maps.grad.abs().sum() > 0


# ---------------------------------------------------------------- logits centred per position


def centred(seed: int = 0, **options) -> SaliencyMLP:
    torch.manual_seed(seed)
    return SaliencyMLP(6, normalisation="centred", **options).train()


def test_centred_logits_lose_what_all_images_of_the_batch_share_at_a_position():
    source, maps = centred(), torch.randn(5, 6, 3, 4)
    logits, saliency = logits_of(source, maps).tolist(), source(maps, None)
    for y, x in [(0, 0), (2, 3), (1, 2)]:
        mean = sum(logits[b][y][x] for b in range(5)) / 5
        for b in range(5):
            assert saliency[b, y, x].item() == pytest.approx(1 / (1 + math.exp(mean - logits[b][y][x])), rel=1e-4)


def test_a_map_of_position_alone_is_flat_once_it_is_centred():
    place = torch.randn(1, 6, 3, 4).expand(5, 6, 3, 4)  # the same features in every image, different at each position
    assert SaliencyMLP(6)(place, None).flatten(1).std(dim=1).min() > 0.01
    torch.testing.assert_close(centred()(place, None), torch.full((5, 3, 4), 0.5))
    content = place + torch.randn(5, 6, 1, 1)
    assert centred()(content, None).std(dim=0).min() > 0.01


def test_no_gradient_of_the_loss_moves_the_part_that_is_position_alone():
    source, maps = centred(), torch.randn(5, 6, 3, 4)
    shift = torch.zeros(3, 4, requires_grad=True)
    torch.sigmoid(source.centred(logits_of(source, maps) + shift)).square().sum().backward()
    torch.testing.assert_close(shift.grad, torch.zeros(3, 4), atol=1e-6, rtol=0)


def test_evaluation_subtracts_the_running_mean_of_the_online_branch():
    source, whole = centred(momentum=0.75), torch.randn(3, 6, 3, 4)
    torch.testing.assert_close(source.eval()(whole, None), torch.sigmoid(logits_of(source, whole)))  # before any step
    running = None
    for seed in range(3):
        source.train()
        views = [torch.randn(4, 6, 3, 4, generator=torch.Generator().manual_seed(10 * seed + i)) for i in range(2)]
        for maps in views:
            source(maps, None)
            mean = logits_of(source, maps).mean(dim=0)
            running = mean if running is None else 0.75 * running + 0.25 * mean
        with torch.no_grad():
            source(torch.randn(4, 6, 3, 4), None)  # as the momentum branch: not counted
            source.after_step()
    expected = torch.sigmoid(logits_of(source, whole) - running)
    torch.testing.assert_close(source.eval()(whole, None), expected)
    torch.testing.assert_close(source(whole[:1], None), expected[:1])  # an image's map does not depend on the others
    source.train()(torch.randn(4, 6, 5, 5), None)
    source.after_step()  # a view of another size
    torch.testing.assert_close(source.eval()(whole, None), expected)
    assert source(torch.randn(2, 6, 6, 8), None).shape == (2, 6, 8)


def test_the_running_mean_is_saved_in_its_size():
    source = centred()
    source(torch.randn(4, 6, 3, 4), None)
    source.after_step()
    other, maps = centred(seed=1), torch.randn(2, 6, 3, 4)
    other.load_state_dict(copy.deepcopy(source.state_dict()))
    assert torch.equal(other.eval()(maps, None), source.eval()(maps, None))
    assert "position_mean" not in SaliencyMLP(6).state_dict()


def test_another_images_map_is_normalised_in_the_same_way():
    for normalisation in ("sigmoid", "softmax", "centred"):
        torch.manual_seed(0)
        own = SaliencyMLP(6, normalisation=normalisation).train()
        other = OtherImage(6, normalisation=normalisation).train()
        other.load_state_dict(own.state_dict())
        maps = torch.randn(3, 6, 3, 4)
        torch.testing.assert_close(other(maps, None), own(maps, None)[[2, 0, 1]])


def test_normalisation_errors_say_what_to_do():
    with pytest.raises(UsageError, match="unknown normalisation 'sigmod'; did you mean 'sigmoid'"):
        SaliencyMLP(6, normalisation="sigmod")
    with pytest.raises(UsageError, match="centred logits need a batch of at least 2 images"):
        centred()(torch.randn(1, 6, 3, 4), None)
