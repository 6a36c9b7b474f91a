"""What every map source promises, for every file of ``studies/conf/map``: a new file needs no change here."""

import copy
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from scd.maps.source import MapSource
from scd.method import NEEDS, SUPERVISION, View, whole_view
from studies.suite.planning.assembly import instantiate
from studies.suite.planning.command_line import choices, resolve_settings
from studies.suite.planning.study import Arm

SETTINGS = resolve_settings("contract", ["tier=smoke"])
BATCH, SIDE = 6, 16

every_source = pytest.mark.parametrize("name", choices("map"))


@cache
def prototype(name: str, seed: int = 0) -> tuple[MapSource, nn.Module]:
    """The source, built for its backbone, and the backbone of its recipe."""
    wrapper = {"preset": "scd", "saliency": name}
    config = SETTINGS.configure(Arm("", "", {"wrapper": wrapper}, "", ""), seed)
    torch.manual_seed(seed)
    backbone = instantiate(config["backbone"])
    return instantiate(config["wrapper"]["saliency"])(dim=backbone.dim), backbone


def build(name: str, seed: int = 0) -> tuple[MapSource, nn.Module]:
    source, backbone = prototype(name, seed)
    return copy.deepcopy(source).train(), copy.deepcopy(backbone).train()


def view(seed: int = 0) -> View:
    """A view with geometry and everything that a source may need."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(BATCH, 3, 4, 4, generator=draw)
    images = nn.functional.interpolate(coarse, size=SIDE) + 0.3 * torch.randn(BATCH, 3, SIDE, SIDE, generator=draw)
    low, high = 0.4 * torch.rand(BATCH, 2, generator=draw), 0.6 + 0.4 * torch.rand(BATCH, 2, generator=draw)
    return View(
        "v1",
        "global",
        images,
        torch.cat([low, high], dim=1),
        torch.arange(BATCH) % 2 == 0,
        masks=(images.mean(dim=1) > 0).float(),
        segments=(images.mean(dim=1) > 0).long(),
        boxes=[torch.tensor([[0.1, 0.2, 0.6, 0.9]])] * BATCH,
    )


def features(backbone: nn.Module, seen: View) -> Tensor:
    output = backbone(seen.images)
    return output[0] if isinstance(output, tuple) else output


@every_source
def test_it_declares_what_it_needs_and_what_it_learns_from(name):
    source, _ = build(name)
    assert isinstance(source, MapSource)
    assert isinstance(source.needs, frozenset) and source.needs <= set(NEEDS)
    assert source.supervision in SUPERVISION
    assert set(source.shared_buffers) <= {key for key, _ in source.named_buffers()}


@every_source
def test_its_maps_lie_in_0_1_at_the_resolution_of_the_features(name):
    source, backbone = build(name)
    maps = features(backbone, view())
    saliency = source(maps, view())
    assert saliency.shape in ((BATCH, 4, 4), (BATCH, saliency.shape[1], 4, 4))
    assert saliency.min() >= 0 and saliency.max() <= 1


@every_source
def test_in_evaluation_one_map_or_none_where_the_whole_image_lacks_what_it_needs(name):
    source, backbone = build(name)
    source.eval()
    whole = whole_view(view().images)
    saliency = source.scored(features(backbone, whole), whole)
    if saliency is None:
        assert source.needs
        return
    assert saliency.shape == (BATCH, 4, 4)
    assert saliency.min() >= 0 and saliency.max() <= 1


@every_source
def test_gradients_reach_every_trainable_parameter_and_the_features_of_a_map_that_learns(name):
    source, backbone = build(name)
    maps = features(backbone, view())
    saliency = source(maps, view())
    trainable = [parameter for parameter in source.parameters() if parameter.requires_grad]
    if not trainable:
        return
    (saliency * torch.rand(saliency.shape)).sum().backward()
    assert all(parameter.grad is not None for parameter in trainable)
    assert any(parameter.grad.abs().sum() > 0 for parameter in backbone.parameters())


@every_source
def test_a_step_changes_buffers_only_and_the_copy_takes_the_shared_ones_over(name):
    source, backbone = build(name)
    target = copy.deepcopy(source).requires_grad_(False)
    weights = copy.deepcopy(dict(source.named_parameters()))
    for i in range(3):
        saliency = source(features(backbone, view(i)), view(i))
        with torch.no_grad():
            assert torch.equal(target(features(backbone, view(i)), view(i)), saliency.detach())  # one rule in a step
            source.after_step()
            source.share_buffers(target)
    for key, parameter in source.named_parameters():
        assert torch.equal(parameter, weights[key]), key
    for key in source.shared_buffers:
        assert torch.equal(target.get_buffer(key), source.get_buffer(key)), key


@every_source
def test_the_state_dict_carries_everything(name):
    source, backbone = build(name)
    other, _ = build(name, seed=1)
    source(features(backbone, view()), view())
    source.after_step()
    other.load_state_dict(copy.deepcopy(source.state_dict()))
    maps = features(backbone, view(1))
    assert torch.equal(other(maps, view(1)), source(maps, view(1)))


@every_source
def test_it_works_on_the_meta_device(name):
    source, backbone = build(name)
    source.to("meta"), backbone.to("meta")
    seen = View(
        "v1",
        "global",
        torch.empty(BATCH, 3, SIDE, SIDE, device="meta"),
        torch.empty(BATCH, 4, device="meta"),
        torch.empty(BATCH, dtype=torch.bool, device="meta"),
        masks=torch.empty(BATCH, SIDE, SIDE, device="meta"),
    )
    saliency = source(features(backbone, seen), seen)
    with torch.no_grad():
        source.after_step()
    assert saliency.is_meta and saliency.shape[-2:] == (4, 4)
