"""BYOL against its formula, its heads, its target's mode and its momentum."""

import pytest
import torch
from torch import nn

from baselines.byol import BYOL
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.backbone import build_backbone


def byol(**options) -> BYOL:
    torch.manual_seed(0)
    return BYOL(build_backbone("resnet_tiny", widths=(4, 6, 8)), **{"dim": 6, "hidden": 32, **options}).train()


def views(rows: int = 8) -> dict[str, View]:
    draw = torch.Generator().manual_seed(0)
    rectangles, flips = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(rows, 4), torch.zeros(rows, dtype=torch.bool)
    return {
        name: View(name, "global", torch.randn(rows, 3, 16, 16, generator=draw), rectangles, flips)
        for name in ("v1", "v2")
    }


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("symmetric", [True, False])
def test_loss_is_the_mean_over_directions_of_the_regression(symmetric):
    method, batch = byol(symmetric=symmetric), views()
    with torch.no_grad():
        for parameter in method.target_projector.parameters():
            parameter.add_(0.2)
    terms = []
    for i, j in [("v1", "v2"), ("v2", "v1")][: 1 + symmetric]:
        prediction = method.matcher.predictor(method.projector(method.backbone(batch[i].images).mean(dim=(2, 3))))
        target = method.target_projector(method.target_backbone(batch[j].images).mean(dim=(2, 3)))
        terms.append((unit(prediction) - unit(target)).square().sum(dim=1).mean())
    torch.testing.assert_close(method(Batch(batch))["loss"], sum(terms) / len(terms))


def test_heads_are_the_official_ones():
    method = byol()
    assert method.symmetric and method.momentum_schedule == "cosine"
    for head, width in ((method.projector, 8), (method.matcher.predictor, 6)):
        first, norm, relu, last = head.layers
        assert (first.in_features, first.out_features, last.out_features) == (width, 32, 6)
        assert isinstance(norm, nn.BatchNorm1d) and isinstance(relu, nn.ReLU)
        assert first.bias is not None and last.bias is None
    official = BYOL(build_backbone("resnet_tiny", widths=(4, 4, 4)))
    assert official.projector.layers[0].out_features == 4096 and official.projector.dim == 256


def test_without_a_predictor_the_online_embedding_itself_is_compared():
    method, batch = byol(has_predictor=False, symmetric=False), views()
    online = method.projector(method.backbone(batch["v1"].images).mean(dim=(2, 3)))
    target = method.target_projector(method.target_backbone(batch["v2"].images).mean(dim=(2, 3)))
    expected = (unit(online) - unit(target)).square().sum(dim=1).mean()
    torch.testing.assert_close(method(Batch(batch))["loss"], expected)
    for matcher in (method.matcher, method.new_matcher()):
        assert not list(matcher.parameters())
    assert list(byol().new_matcher().parameters())


def test_the_predictor_has_no_momentum_copy():
    targets = [name for name, _ in byol().named_modules() if name.startswith("target_")]
    assert targets and not any("predictor" in name for name in targets)


def test_the_target_is_in_train_mode_and_keeps_running_statistics_of_its_own():
    method = byol(momentum=0.0, momentum_schedule="constant")
    assert all(module.training for module in method.target_backbone.modules())
    before = method.target_backbone.trunk[1].running_mean.clone()
    method(Batch(views()))
    after = method.target_backbone.trunk[1].running_mean.clone()
    assert not torch.equal(after, before)
    with torch.no_grad():
        method.backbone.trunk[1].running_mean.add_(5.0)
    method.after_step(0.5)  # m = 0 copies the parameters and nothing else
    assert torch.equal(method.target_backbone.trunk[1].running_mean, after)
    assert torch.equal(method.target_backbone.trunk[0].weight, method.backbone.trunk[0].weight)


def test_momentum_rises_from_base_to_one():
    method = byol(momentum=0.99)
    assert method.momentum(0.0) == pytest.approx(0.99)
    assert method.momentum(0.5) == pytest.approx(0.995)
    assert method.momentum(1.0) == 1.0
    before = [parameter.clone() for parameter in method.target_backbone.parameters()]
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(1.0)
    method.after_step(1.0)  # the first step's m is that of its start
    for old, new in zip(before, method.target_backbone.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.01)
    with pytest.raises(UsageError, match="momentum_schedule is 'constant' or 'cosine', not 'linear'"):
        byol(momentum_schedule="linear")


def test_a_second_matcher_has_a_predictor_of_its_own():
    method = byol()
    other = method.new_matcher().predictor
    assert [type(layer) for layer in other.layers] == [type(layer) for layer in method.matcher.predictor.layers]
    assert not torch.equal(other.layers[0].weight, method.matcher.predictor.layers[0].weight)
