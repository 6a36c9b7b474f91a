"""The maps that are read off a ViT's tokens: no parameters, no gradient, and a whole step of SCD with them."""

import copy

import pytest
import torch

from baselines.moco import MoCo
from scd.data.recipes import build_recipe
from scd.errors import UsageError
from scd.maps.attention import AttentionMap, TokenCutMap, rescaled
from scd.maps.tokencut import bipartition
from scd.method import Batch, whole_view
from scd.nn.vit import tokens_of, vit
from scd.profiling.flops import training_flops
from scd.scd import SCD


def tiny_vit():
    torch.manual_seed(0)
    return vit("vit_tiny_patch16_224", img_size=24, patch_size=4, embed_dim=48, depth=2, num_heads=3)


@pytest.fixture(scope="module")
def maps():
    return tiny_vit()(torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(1)))[0]


def test_attention_map_is_the_rescaled_mean_or_one_head(maps):
    attention = tokens_of(maps).attention
    for source, chosen in [(AttentionMap(), attention.mean(dim=1)), (AttentionMap(head=2), attention[:, 2])]:
        found = source(maps, None)
        assert found.shape == (3, 6, 6) and not found.requires_grad and maps.requires_grad
        for one, a in zip(found, chosen, strict=True):
            torch.testing.assert_close(one, (a - a.min()) / (a.max() - a.min()))
            assert one.min() == 0 and one.max() == 1


def test_token_cut_map_is_the_foreground_a_little_off_its_ends(maps):
    source = TokenCutMap(tau=0.3)
    found = source(maps, None)
    foreground = bipartition(tokens_of(maps).keys, tau=0.3).foreground
    torch.testing.assert_close(found, torch.where(foreground, 0.98, 0.02))
    assert not found.requires_grad
    assert 0 < foreground.float().mean() < 1


def test_neither_has_parameters_and_both_take_dim_first():
    for source in (AttentionMap(48), TokenCutMap(48)):
        assert not list(source.parameters()) and not source.state_dict()
        assert (source.needs, source.supervision) == (frozenset(), "none")


def test_on_meta_the_shapes_are_there():
    model = copy.deepcopy(tiny_vit()).to("meta")
    maps, _ = model(torch.empty(2, 3, 24, 24, device="meta"))
    for source in (AttentionMap(), TokenCutMap()):
        found = source(maps, None)
        assert found.is_meta and found.shape == (2, 6, 6)


@pytest.mark.parametrize("source", [AttentionMap, TokenCutMap])
def test_scd_trains_on_them_and_shows_them(source):
    torch.manual_seed(0)
    method = SCD(MoCo(tiny_vit(), dim=8, queue_size=16, bn_groups=1), source)
    random = torch.Generator().manual_seed(0)
    views = {name: whole_view(torch.randn(4, 3, 24, 24, generator=random), name) for name in ("v1", "v2")}
    out = method(Batch(views))
    out["loss"].backward()
    assert torch.isfinite(out["loss"]) and out["triplet_loss"] > 0
    assert method.backbone.model.patch_embed.proj.weight.grad.abs().sum() > 0
    method.after_step(0.5)
    with torch.no_grad():
        expected = source()(method.backbone(views["v1"].images)[0], None)
    torch.testing.assert_close(method.saliency(views["v1"]), expected)
    assert training_flops(method, build_recipe("mocov2", 24), 4).total > 0


def test_rescaled_by_hand_and_flat_maps():
    maps = torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[7.0, 7.0], [7.0, 7.0]]])
    assert rescaled(maps).tolist() == [[[0, 0.25], [0.5, 1]], [[0.5, 0.5], [0.5, 0.5]]]


def test_what_is_refused(maps):
    with pytest.raises(UsageError, match="AttentionMap's head is 0 or more, not -1"):
        AttentionMap(head=-1)
    with pytest.raises(UsageError, match="AttentionMap's head is 3; the last block has heads 0 to 2"):
        AttentionMap(head=3)(maps, None)
    for source in (AttentionMap(), TokenCutMap()):
        with pytest.raises(UsageError, match="carry no attention"):
            source(torch.zeros(2, 6, 4, 4), None)
