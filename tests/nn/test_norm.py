"""Batch norm of groups and of counted rows against plain batch norm on these parts of the batch."""

import pytest
import timm.layers
import torch
from torch import Tensor, nn

from scd.errors import UsageError
from scd.nn.backbone import build_backbone
from scd.nn.norm import (
    GroupedBatchNorm1d,
    GroupedBatchNorm2d,
    batch_norm_groups,
    batch_norm_of,
    group_batch_norm,
    has_batch_norm,
)

CASES = [(GroupedBatchNorm1d, nn.BatchNorm1d, (12, 5)), (GroupedBatchNorm2d, nn.BatchNorm2d, (12, 5, 3, 4))]


def randomised(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
        norm.bias.normal_()
    return norm


def pair(grouped: type, plain: type, groups: int, **options) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    one, other = randomised(grouped(5, groups, **options)), plain(5, **options)
    other.load_state_dict(one.state_dict())
    return one, other


def inputs(shape: tuple[int, ...]) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3 + 1).requires_grad_()


@pytest.mark.parametrize(("grouped", "plain", "shape"), CASES)
@pytest.mark.parametrize("groups", [2, 3])
def test_each_group_is_normalised_alone(grouped, plain, shape, groups):
    norm, reference = pair(grouped, plain, groups)
    x, x_reference = inputs(shape), inputs(shape)
    out = norm(x)
    expected = torch.cat([reference(part) for part in x_reference.split(shape[0] // groups)])
    torch.testing.assert_close(out, expected)
    weight = torch.randn(shape)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(x.grad, x_reference.grad)
    torch.testing.assert_close(norm.weight.grad, reference.weight.grad)
    torch.testing.assert_close(norm.bias.grad, reference.bias.grad)


@pytest.mark.parametrize(("grouped", "plain", "shape"), CASES)
@pytest.mark.parametrize("momentum", [0.1, 0.4, None])
def test_running_statistics_are_the_mean_over_groups(grouped, plain, shape, momentum):
    groups = 3
    norm, _ = pair(grouped, plain, groups, momentum=momentum)
    singles = [plain(5, momentum=momentum) for _ in range(groups)]  # one per group, as on so many GPUs
    for i in range(3):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(i)) + i
        norm(x)
        for single, part in zip(singles, x.chunk(groups), strict=True):
            single(part)
    mean = torch.stack([single.running_mean for single in singles]).mean(dim=0)
    variance = torch.stack([single.running_var for single in singles]).mean(dim=0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert norm.num_batches_tracked == 3


@pytest.mark.parametrize(("grouped", "plain", "shape"), CASES)
def test_eval_mode_and_one_group_are_plain_batch_norm(grouped, plain, shape):
    x = inputs(shape)
    norm, reference = pair(grouped, plain, 1)
    assert torch.equal(norm(x), reference(x))
    assert torch.equal(norm.running_var, reference.running_var)
    norm, reference = pair(grouped, plain, 4)
    assert torch.equal(norm.eval()(x), reference.eval()(x))


def test_memory_format_is_kept():
    x = torch.randn(8, 6, 4, 4).contiguous(memory_format=torch.channels_last)
    assert GroupedBatchNorm2d(6, 2)(x).is_contiguous(memory_format=torch.channels_last)


def test_conversion_keeps_tensors_settings_and_state():
    torch.manual_seed(0)
    net = build_backbone("resnet_tiny", widths=(4, 8), strides=(1, 2))
    before = dict(net.named_parameters())
    keys = list(net.state_dict())
    assert group_batch_norm(net, 2) is net
    assert not any(type(module) in (nn.BatchNorm1d, nn.BatchNorm2d) for module in net.modules())
    assert list(net.state_dict()) == keys
    assert all(parameter is before[name] for name, parameter in net.named_parameters())
    assert group_batch_norm(nn.BatchNorm1d(3, eps=0.1, momentum=0.2), 2).eps == 0.1


def test_conversion_with_one_group_changes_nothing():
    net = nn.Sequential(nn.BatchNorm2d(3))
    assert type(group_batch_norm(net, 1)[0]) is nn.BatchNorm2d


def test_conversion_of_a_converted_module_sets_the_groups():
    net = group_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), 2)
    norm = net[0]
    assert group_batch_norm(net, 4)[0] is norm and norm.groups == 4


def test_errors_say_what_to_do():
    with pytest.raises(UsageError, match="a batch of 10 does not split into 4 batch-norm groups; choose a batch size"):
        GroupedBatchNorm2d(3, 4)(torch.randn(10, 3, 2, 2))
    with pytest.raises(UsageError, match="bn_groups is at least 1, not 0"):
        group_batch_norm(nn.BatchNorm2d(3), 0)
    with pytest.raises(UsageError, match="bn_groups=2 cannot split a BatchNormAct2d; use bn_groups=1 here"):
        group_batch_norm(nn.Sequential(timm.layers.BatchNormAct2d(3)), 2)
    with pytest.raises(ValueError, match="expected 4D input"):
        GroupedBatchNorm2d(3, 2)(torch.randn(4, 3))


def test_batch_norm_is_found_in_any_part():
    assert has_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2))))
    assert has_batch_norm(group_batch_norm(build_backbone("resnet_tiny", widths=(4, 4, 4)), 2))
    assert not has_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))


def test_batch_norm_of_counted_rows_is_plain_batch_norm_of_these_alone():
    norm, reference = pair(GroupedBatchNorm1d, nn.BatchNorm1d, groups=1)
    x, x_reference = inputs((12, 5)), inputs((12, 5))
    counted = torch.tensor([True, False, True] * 4)
    weights = torch.randn(8, 5)
    out, expected = batch_norm_of(norm, x, counted), reference(x_reference[counted])
    torch.testing.assert_close(out[counted], expected)
    (out[counted] * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, x_reference.grad)
    torch.testing.assert_close(norm.weight.grad, reference.weight.grad)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name], value, msg=name)


@pytest.mark.parametrize("kept", [0, 1])
def test_batch_norm_of_no_row_or_one_is_finite(kept):
    norm = nn.BatchNorm1d(5)
    x = inputs((4, 5))
    out = batch_norm_of(norm, x, torch.arange(4) < kept)
    out.sum().backward()
    assert torch.isfinite(out).all() and torch.isfinite(x.grad).all()
    assert torch.isfinite(norm.running_var).all()
    assert torch.equal(norm.running_mean, torch.zeros(5) if kept == 0 else 0.1 * x[0].detach())


def test_batch_norm_of_counted_rows_is_plain_in_eval_mode():
    norm = nn.BatchNorm1d(5).eval()
    norm.running_mean.fill_(2.0)
    x = inputs((4, 5))
    assert torch.equal(batch_norm_of(norm, x, torch.arange(4) < 2), norm(x))


def test_groups_are_counted():
    assert batch_norm_groups(nn.Linear(2, 2)) is None
    assert batch_norm_groups(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))) == 1
    assert batch_norm_groups(group_batch_norm(nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm2d(2)), 4)) == 4


def test_float64_stays_float64():
    norm = GroupedBatchNorm1d(3, 2).double()
    x = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([part.var(dim=0) for part in x.chunk(2)]).mean(dim=0)
    assert norm(x).dtype == torch.float64
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * expected, rtol=1e-12, atol=0)
