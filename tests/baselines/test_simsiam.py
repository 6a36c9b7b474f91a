"""SimSiam against its formula; its heads, its stop-gradient, its parameter groups."""

import pytest
import torch
from torch import nn

from baselines.simsiam import SimSiam
from scd.method import Batch, whole_view
from scd.nn.backbone import build_backbone


def simsiam(**options) -> SimSiam:
    torch.manual_seed(0)
    return SimSiam(build_backbone("resnet_tiny", widths=(4, 6, 8)), **{"dim": 12, **options}).train()


def batch(rows: int = 8) -> Batch:
    draw = torch.Generator().manual_seed(0)
    return Batch({name: whole_view(torch.randn(rows, 3, 16, 16, generator=draw), name) for name in ("v1", "v2")})


def test_loss_is_the_mean_over_directions_of_half_the_squared_distance_minus_one():
    """-cos(p, z) = |n(p) - n(z)|^2 / 2 - 1."""
    method, data = simsiam(), batch()
    z = {name: method.projector(method.backbone(view.images).mean(dim=(2, 3))) for name, view in data.views.items()}
    p = {name: method.matcher.predictor(each) for name, each in z.items()}
    terms = []
    for i, j in (("v1", "v2"), ("v2", "v1")):
        prediction, target = (x / x.norm(dim=1, keepdim=True) for x in (p[i], z[j]))
        terms.append((prediction - target).square().sum(dim=1).mean() / 2 - 1)
    torch.testing.assert_close(method(data)["loss"], (terms[0] + terms[1]) / 2)


def test_no_gradient_flows_into_the_target():
    matcher = simsiam().matcher
    online, target = torch.randn(2, 6, 12).unbind(0)
    online.requires_grad_()
    target.requires_grad_()
    matcher(online, target).backward()
    assert online.grad.abs().sum() > 0 and target.grad is None


def test_the_length_of_an_embedding_does_not_matter():
    matcher = simsiam().matcher.eval()
    online, target = torch.randn(2, 6, 12).unbind(0)
    torch.testing.assert_close(matcher(online, 3 * target), matcher(online, target))


def test_equal_embeddings_of_all_images_reach_the_minimum():
    matcher = simsiam().matcher
    matcher.predictor = nn.Identity()
    collapsed = torch.randn(1, 12).expand(6, 12)
    torch.testing.assert_close(matcher(collapsed, 2 * collapsed), torch.tensor(-1.0))
    torch.testing.assert_close(matcher(collapsed, -collapsed), torch.tensor(1.0))


def test_heads_are_the_official_ones():
    method = simsiam()
    kinds = [type(layer) for layer in method.projector.layers]
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert kinds == [*hidden, *hidden, nn.Linear, nn.BatchNorm1d]
    assert not any(layer.bias is not None for layer in method.projector.layers if isinstance(layer, nn.Linear))
    affine = [layer.affine for layer in method.projector.layers if isinstance(layer, nn.BatchNorm1d)]
    assert affine == [True, True, False]
    first, norm, relu, last = method.matcher.predictor.layers
    assert (first.in_features, first.out_features, last.out_features) == (12, 3, 12)
    assert first.bias is None and last.bias is not None
    assert isinstance(norm, nn.BatchNorm1d) and isinstance(relu, nn.ReLU)
    official = SimSiam(build_backbone("resnet_tiny", widths=(4, 4, 8)))
    assert official.projector.dim == 2048 and official.matcher.predictor.layers[0].out_features == 512
    assert official.projector.layers[0].out_features == 8  # the backbone's C


def test_the_projector_takes_each_token_on_its_own():
    projector, tokens = simsiam().projector, torch.randn(4, 5, 8)
    torch.testing.assert_close(projector(tokens), projector(tokens.flatten(0, 1)).view(4, 5, 12))


def test_each_view_passes_through_the_backbone_once():
    method, sizes = simsiam(), []
    method.backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    method(batch())
    assert sizes == [8, 8]


@pytest.mark.parametrize("fixed", [True, False])
def test_only_the_predictor_keeps_its_learning_rate(fixed):
    method = simsiam(fix_predictor_lr=fixed)
    encoder, predictor = method.parameter_groups()
    assert not encoder.constant_lr and predictor.constant_lr is fixed
    assert [id(p) for p in predictor.parameters] == [id(p) for p in method.matcher.predictor.parameters()]
    grouped = [id(p) for group in (encoder, predictor) for p in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters())


def test_a_frozen_parameter_is_in_no_group():
    method = simsiam()
    frozen = next(method.backbone.parameters()).requires_grad_(False)
    assert not any(frozen is p for group in method.parameter_groups() for p in group.parameters)


def test_a_second_matcher_has_a_predictor_of_its_own():
    method = simsiam(bottleneck=5)
    other = method.new_matcher().predictor
    assert [type(layer) for layer in other.layers] == [type(layer) for layer in method.matcher.predictor.layers]
    assert other.layers[0].weight.shape == method.matcher.predictor.layers[0].weight.shape == (5, 12)
    assert not torch.equal(other.layers[0].weight, method.matcher.predictor.layers[0].weight)


def test_the_loss_is_computed_in_float32():
    matcher = simsiam().matcher
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert matcher(torch.randn(6, 12), torch.randn(6, 12).bfloat16()).dtype == torch.float32
