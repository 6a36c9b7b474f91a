"""The border rule: what it measures, and one sign for both branches of a step."""

import torch

from baselines.byol import BYOL
from scd.maps.border_prior import SettledMap, border_contrast
from scd.method import Batch, View, whole_view
from scd.nn.backbone import build_backbone
from scd.scd import SCD


def view(count: int = 2, side: int = 16) -> View:
    return whole_view(torch.zeros(count, 3, side, side))


def square(value: float, count: int = 2) -> torch.Tensor:
    """Features (count, 6, 5, 5) whose channels are ``value`` inside and 0 at the border."""
    maps = torch.zeros(count, 6, 5, 5)
    maps[:, :, 1:4, 1:4] = value
    return maps


def test_border_contrast_by_hand():
    bump = torch.zeros(1, 4, 4)
    bump[0, 1:3, 1:3] = 1
    assert border_contrast(bump).item() == 1.0 and border_contrast(1 - bump).item() == -1.0
    assert border_contrast(torch.rand(3, 2, 2)).tolist() == [0, 0, 0]


def test_the_sign_changes_after_the_step_and_stays_in_evaluation():
    torch.manual_seed(0)
    source = SettledMap(6, momentum=0.5).train()
    places = square(3.0)
    raw = source.source(places, view())
    if border_contrast(raw.detach()).mean() > 0:  # exchange the sides, so that the rule has something to turn
        with torch.no_grad():
            for parameter in source.source.mlp.layers[-1].parameters():
                parameter.neg_()
        raw = source.source(places, view())
    torch.testing.assert_close(source(places, view()), raw)  # before the first step there is no sign yet
    source.after_step()
    torch.testing.assert_close(source(places, view()), 1 - raw)
    assert border_contrast((1 - raw).detach()).mean() > 0  # the inside is the foreground now
    source.eval()
    before = source.inside_minus_border.clone()
    torch.testing.assert_close(source(places, view()), 1 - raw)
    source.after_step()
    assert torch.equal(source.inside_minus_border, before.lerp(border_contrast(raw.detach()).mean(), 0.5))
    source.after_step()  # without a further training view nothing moves
    assert not source.waiting


def test_the_sign_follows_the_mean_of_many_images():
    torch.manual_seed(0)
    source = SettledMap(6, momentum=0.9).train()
    source.inside_minus_border.fill_(-0.5)
    torch.testing.assert_close(source(square(3.0), view()), 1 - source.source(square(3.0), view()))


def test_the_running_mean_moves_once_for_each_view():
    torch.manual_seed(0)
    source = SettledMap(6, momentum=0.8).train()
    expected = torch.zeros(())
    for value in (1.0, -2.0):
        source(square(value), view())
        contrast = border_contrast(source.source(square(value), view()).detach()).mean()
        expected = 0.8 * expected + 0.2 * contrast
    source.after_step()
    torch.testing.assert_close(source.inside_minus_border, expected)


def test_both_branches_of_a_step_have_the_same_sign():
    torch.manual_seed(0)
    host = BYOL(build_backbone("resnet_tiny", widths=(8, 16), strides=(1, 2)), dim=8, hidden=16, momentum=0.5)
    method = SCD(host, SettledMap).train()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    online, target = method.saliency_head, method.target_saliency_head
    signs = []
    for step in range(6):
        with torch.no_grad():  # exchange the sides before every step, so that the sign has to change
            for parameter in online.source.mlp.layers[-1].parameters():
                parameter.neg_()
        draw = torch.Generator().manual_seed(step)
        images = {name: torch.randn(4, 3, 32, 32, generator=draw) for name in ("v1", "v2")}
        loss = method(Batch({name: whole_view(value, name) for name, value in images.items()}))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        during = online.inside_minus_border.clone()
        assert torch.equal(during, target.inside_minus_border)
        method.after_step((step + 1) / 6)
        assert torch.equal(online.inside_minus_border, target.inside_minus_border)
        assert not torch.equal(online.inside_minus_border, during)
        assert not target.waiting
        signs.append(online.inside_minus_border.sign().item())
    assert len(set(signs)) > 1
