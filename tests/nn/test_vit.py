"""ViTs as feature maps: layout of patches, class token, attention in every layer, other sizes, copies, errors."""

import copy

import pytest
import timm
import torch

from scd.errors import UsageError
from scd.nn.vit import tokens_of, vit

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}


def small(**options):
    torch.manual_seed(0)
    return vit("vit_tiny_patch16_224", **{**SMALL, **options}).eval()


def images(side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_maps_are_the_patch_tokens_in_their_places_and_the_vector_is_the_class_token():
    net = small()
    maps, vector = net(images())
    tokens = net.model.forward_features(images())
    assert maps.shape == (2, 24, 4, 4) and vector.shape == (2, 24) and net.dim == 24
    assert torch.equal(vector, tokens[:, 0])
    assert torch.equal(maps[:, :, 1, 2], tokens[:, 1 + 1 * 4 + 2])  # row 1, column 2
    assert torch.equal(small(vector="mean")(images())[1], maps.mean(dim=(2, 3)))


@pytest.mark.parametrize("fused", [True, False])
def test_a_map_per_layer_comes_back_with_and_without_fused_attention(fused):
    net = small()
    for block in net.model.blocks:
        block.attn.fused_attn = fused
    found = net.attentions(images())
    assert len(found) == 3
    for layer in found:
        assert layer.shape == (2, 3, 4, 4) and (layer > 0).all() and (layer.sum(dim=(2, 3)) < 1).all()


def test_attention_equals_what_timm_multiplies_with_fused_attention_off():
    net, seen = small(), []
    for block in net.model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    maps, _ = net(images())
    expected = [layer[:, :, 0, 1:].unflatten(2, (4, 4)) for layer in seen]
    assert torch.allclose(tokens_of(maps).attention, expected[-1], atol=1e-6)
    for ours, theirs in zip(net.attentions(images()), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_keys_are_the_last_blocks_with_the_heads_side_by_side():
    net = small()
    last = net.model.blocks[-1]
    normed = []
    last.norm1.register_forward_hook(lambda module, inputs, output: normed.append(output))
    keys = tokens_of(net(images())[0]).keys
    expected = last.attn.qkv(normed[0])[:, 1:, 24:48]  # of q, k, v the second third
    assert torch.allclose(keys.flatten(2).transpose(1, 2), expected, atol=1e-6)


def test_other_sizes_are_taken_by_resampled_position_embeddings():
    maps, _ = small()(images(8))
    assert maps.shape == (2, 24, 2, 2)
    with pytest.raises(UsageError, match="views of 18 px do not split into patches of 4 px"):
        small()(images(18))


def test_registers_are_no_patches():
    net = small(reg_tokens=2)
    maps, vector = net(images())
    assert maps.shape == (2, 24, 4, 4) and net.prefix == 3
    assert torch.equal(vector, net.model.forward_features(images())[:, 0])
    assert tokens_of(maps).attention.shape == (2, 3, 4, 4) and tokens_of(maps).keys.shape == (2, 24, 4, 4)


def test_a_copy_sees_its_own_attention():
    net = small()
    other = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    mine, its = tokens_of(net(images())[0]).keys, tokens_of(other(images())[0]).keys
    assert not torch.allclose(mine, its) and torch.equal(mine, tokens_of(net(images())[0]).keys)
    assert not any(module._forward_hooks for module in net.modules())


def test_what_has_no_attention_says_so():
    maps, _ = small()(images())
    for changed in (maps.detach(), maps[:1], torch.zeros(2, 24, 4, 4)):
        with pytest.raises(UsageError, match="carry no attention: use a ViT"):
            tokens_of(changed)


def test_wrong_names_and_options_are_refused_in_one_line(monkeypatch):
    with pytest.raises(UsageError, match="unknown timm ViT 'vit_tinny_patch16_224'; nearest: vit_tiny_patch16_224"):
        vit("vit_tinny_patch16_224")
    with pytest.raises(UsageError, match="timm ViT 'vit_tiny_patch16_224' does not take these options: .*wings"):
        vit("vit_tiny_patch16_224", wings=2)
    with pytest.raises(UsageError, match="unknown vector of a ViT 'mean_'"):
        small(vector="mean_")
    with pytest.raises(UsageError, match="backbone.weights is timm/TAG, for example timm/dino, not 'dino'"):
        small(weights="dino")
    with pytest.raises(UsageError, match="has no class token; set backbone.vector=mean"):
        small(class_token=False, global_pool="avg")
    with pytest.raises(UsageError, match="weights 'timm/nothing' of 'vit_tiny_patch16_224' are not available here: "):
        vit("vit_tiny_patch16_224", weights="timm/nothing")


def test_any_plain_vit_of_timm_is_taken():
    names = ("vit_small_patch16_224", "vit_small_patch14_reg4_dinov2", "deit_tiny_patch16_224")
    assert all(timm.is_model(name) for name in names)
    for name in names:
        net = vit(name, depth=1).to("meta")
        side = 2 * net.patch
        maps, vector = net(torch.empty(1, 3, side, side, device="meta"))
        assert maps.shape == (1, net.dim, 2, 2) and vector.shape == (1, net.dim)


def test_fixed_patches_do_not_train():
    net = small(fixed_patches=True)
    assert not any(parameter.requires_grad for parameter in net.model.patch_embed.parameters())
    assert net.model.pos_embed.requires_grad


def test_the_class_token_starts_as_in_the_code_of_dino_and_mae():
    torch.manual_seed(0)
    token = vit("vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=768, depth=1, num_heads=2).model.cls_token
    assert token.std().item() == pytest.approx(0.02, rel=0.1)  # timm: 1e-6
