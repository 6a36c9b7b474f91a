"""A file and a backbone that do not fit: nothing is loaded, and one line says what is wrong and what to do."""

import pytest
import timm
import torch
from torchvision.models import resnet18

from scd.checkpoints.architecture import described
from scd.checkpoints.fitting import load_checkpoint, namings_of
from scd.errors import DataError, UsageError
from scd.nn.backbone import build_backbone
from scd.nn.vit import vit

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
TINY = {"widths": (4, 8), "strides": (1, 2)}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(7))


def small_vit(seed=0, **options):
    torch.manual_seed(seed)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, **{**SMALL, **options})
    with torch.no_grad():
        network.cls_token.normal_()
        for value in network.parameters():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.3)
    return network.eval()


def fit(content, backbone, tmp_path, **chosen):
    torch.save(content, tmp_path / "w.pth")
    return load_checkpoint(tmp_path / "w.pth", backbone, **chosen)


def refused(content, backbone, tmp_path, kind=DataError):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(kind) as caught:
        fit(content, backbone, tmp_path)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tiny(**changes):
    return {**build_backbone("resnet_tiny", **TINY).state_dict(), **changes}


# ---------------------------------------------------------------- every tensor, or nothing


@pytest.mark.parametrize("name", ["trunk.0.weight", "trunk.3.bn2.running_var", "trunk.4.conv1.weight"])
def test_a_missing_tensor_is_named(name, tmp_path):
    content = tiny()
    del content[name]
    text = refused(content, build_backbone("resnet_tiny", **TINY), tmp_path)
    assert f"lacks '{name}' of 'resnet_tiny'" in text and "choose another backbone=" in text


def test_counts_of_batches_may_be_missing(tmp_path):
    content = {name: value for name, value in tiny().items() if not name.endswith("num_batches_tracked")}
    fresh = build_backbone("resnet_tiny", **TINY)
    fitted = fit(content, fresh, tmp_path)
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in content.items())
    assert set(fitted.used) == set(content)


def test_another_shape_is_named(tmp_path):
    content = tiny(**{"trunk.0.weight": torch.ones(4, 3, 7, 7)})
    text = refused(content, build_backbone("resnet_tiny", **TINY), tmp_path)
    assert "'trunk.0.weight' is 4x3x7x7 in the file, 4x3x3x3 in the backbone" in text


def test_a_layer_that_the_backbone_lacks_is_no_head(tmp_path):
    content = small_vit(depth=3).state_dict()
    text = refused(content, vit("vit_tiny_patch16_224", **SMALL), tmp_path)
    assert "'blocks.2.norm1.weight', which 'vit_tiny_patch16_224' has no layer for (and 11 more)" in text
    assert "a ViT of width 24, depth 3 and patches of 8 px" in text


def test_a_head_beside_the_backbone_is_no_layer(tmp_path):
    content = {**small_vit().state_dict(), "head.weight": torch.ones(3, 24), "fc_norm.weight": torch.ones(24)}
    fitted = fit(content, vit("vit_tiny_patch16_224", **SMALL), tmp_path)
    assert set(fitted.unused) == {"head.weight", "fc_norm.weight"}


def test_values_that_are_not_finite(tmp_path):
    content = tiny()
    content["trunk.0.weight"] = torch.full_like(content["trunk.0.weight"], torch.nan)
    text = refused(content, build_backbone("resnet_tiny", **TINY), tmp_path)
    assert "not finite in 'trunk.0.weight'; its training diverged" in text


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(kind, tmp_path):
    content = {name: value.to(kind) if value.is_floating_point() else value for name, value in tiny().items()}
    fresh = build_backbone("resnet_tiny", **TINY)
    fitted = fit(content, fresh, tmp_path)
    assert torch.equal(fresh.trunk[0].weight, content["trunk.0.weight"].float())
    assert [str(kind).removeprefix("torch.") in note for note in fitted.notes] == [True]


# ---------------------------------------------------------------- another architecture


def names_and_shapes(name, **options):
    """A library's state dict without its values."""
    with torch.device("meta"):
        return timm.create_model(name, num_classes=0, **options).state_dict()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet18", {}, "a resnet18"),
        ("resnet50", {}, "a resnet50"),
        ("wide_resnet50_2", {}, "a resnet50 of another width (wide or grouped)"),
        ("resnet101", {}, "a resnet101"),
        ("vit_small_patch16_224", {}, "a ViT of width 384, depth 12 and patches of 16 px"),
        ("convnext_atto", {}, ""),
    ],
)
def test_what_a_file_looks_like(name, options, words):
    assert described(names_and_shapes(name, **options)) == words


def test_a_small_stem_is_seen():
    with torch.device("meta"):
        assert described(build_backbone("resnet18", small_stem=True).state_dict()) == ""
        plain = {names: 0 for names in namings_of(build_backbone("resnet18"))["torchvision and timm"]}
    assert "conv1.weight" in plain


def test_a_vit_is_no_resnet(tmp_path):
    text = refused(small_vit().state_dict(), build_backbone("resnet_tiny", **TINY), tmp_path)
    assert "has no tensor of 'resnet_tiny'" in text and "a ViT of width 24" in text


def test_a_resnet_is_no_vit(tmp_path):
    text = refused(tiny(), vit("vit_tiny_patch16_224", **SMALL), tmp_path)
    assert "has no tensor of 'vit_tiny_patch16_224'" in text


# ---------------------------------------------------------------- vision transformers


def test_another_grid_is_resampled_as_timm_does_it(tmp_path):
    network = small_vit(dynamic_img_size=True)
    fresh = vit("vit_tiny_patch16_224", **{**SMALL, "img_size": 64})
    fitted = fit(network.state_dict(), fresh, tmp_path)
    assert fitted.notes == ("Position embeddings are resampled from 17 to 65 (timm, bicubic).",)
    larger = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():  # timm resamples them in the forward pass, too
        assert torch.allclose(fresh.eval()(larger)[1], network.forward_features(larger)[:, 0], atol=1e-4)


def test_another_patch_size_is_refused(tmp_path):
    text = refused(small_vit(patch_size=16).state_dict(), vit("vit_tiny_patch16_224", **SMALL), tmp_path)
    assert "patches of 16 px, and the backbone's are 8 px" in text and "backbone.patch_size=16" in text


def test_registers_are_refused_where_the_backbone_has_none(tmp_path):
    content = {**small_vit().state_dict(), "register_tokens": torch.ones(1, 4, 24)}
    assert "4 register tokens, which the backbone lacks" in refused(
        content, vit("vit_tiny_patch16_224", **SMALL), tmp_path
    )


def test_registers_of_dinov2_are_read(tmp_path):
    """Official: class token + its position embedding, registers without one; timm keeps them apart."""
    options = {**SMALL, "reg_tokens": 4, "no_embed_class": True, "init_values": 1.0}
    source = small_vit(reg_tokens=4, no_embed_class=True, init_values=1.0)
    official = dict(source.state_dict())
    position = torch.randn(1, 1, 24, generator=torch.Generator().manual_seed(2))
    official["pos_embed"] = torch.cat([position, official["pos_embed"]], dim=1)
    official["cls_token"] = official["cls_token"] - position
    official["register_tokens"] = official.pop("reg_token")
    official["mask_token"] = torch.ones(1, 24)
    fresh = vit("vit_tiny_patch16_224", **options)
    fitted = fit(official, fresh, tmp_path)
    with torch.no_grad():
        assert torch.allclose(fresh.eval()(IMAGES)[1], source.forward_features(IMAGES)[:, 0], atol=1e-5)
    assert "register_tokens" in fitted.used and fitted.unused == ("mask_token",)


def test_separate_queries_keys_and_values(tmp_path):
    """BEiT has biases of queries and values; others have three layers."""
    source = small_vit()
    with torch.no_grad():
        for block in source.blocks:
            block.attn.qkv.bias[24:48] = 0
    expected = source.forward_features(IMAGES)[:, 0]
    for split in ("biases", "layers"):
        content = dict(source.state_dict())
        for number in range(2):
            at = f"blocks.{number}.attn"
            bias = content.pop(f"{at}.qkv.bias").chunk(3)
            if split == "biases":
                content |= {f"{at}.q_bias": bias[0], f"{at}.v_bias": bias[2]}
            else:
                weights = content.pop(f"{at}.qkv.weight").chunk(3)
                content |= {f"{at}.{part}.weight": value for part, value in zip("qkv", weights, strict=True)}
                content |= {f"{at}.{part}.bias": value for part, value in zip("qkv", bias, strict=True)}
        fresh = vit("vit_tiny_patch16_224", **SMALL)
        fitted = fit(content, fresh, tmp_path)
        with torch.no_grad():
            assert torch.equal(fresh.eval()(IMAGES)[1], expected)
        assert "side by side" in fitted.notes[0] and not fitted.unused


def test_layer_scales_of_ibot(tmp_path):
    source = small_vit(init_values=0.5)
    content = {name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): value
               for name, value in source.state_dict().items()}  # fmt: skip
    fresh = vit("vit_tiny_patch16_224", **SMALL, init_values=1.0)
    fitted = fit(content, fresh, tmp_path)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(IMAGES)[1], source.forward_features(IMAGES)[:, 0])
    assert not fitted.unused
    assert "no layer for" in refused(content, vit("vit_tiny_patch16_224", **SMALL), tmp_path)


def test_a_class_token_that_is_missing_or_has_no_place(tmp_path):
    content = dict(small_vit().state_dict())
    without = {"class_token": False, "global_pool": "avg", "fc_norm": False, "vector": "mean"}
    assert "17 position embeddings" in refused(content, vit("vit_tiny_patch16_224", **SMALL, **without), tmp_path)
    del content["cls_token"]
    assert "lacks 'cls_token'" in refused(content, vit("vit_tiny_patch16_224", **SMALL), tmp_path)
    with_place = {**content, "cls_token": torch.ones(1, 1, 24), "pos_embed": content["pos_embed"][:, 1:]}
    backbone = vit("vit_tiny_patch16_224", **SMALL, **without)
    assert "'cls_token'" in refused(with_place, backbone, tmp_path)


def test_the_heads_of_moco_v3(tmp_path):
    """Its ViT-S has 12 heads of 32, timm's 6 of 64; shapes are the same and features are not."""
    wide = {**SMALL, "embed_dim": 384, "depth": 1, "num_heads": 12}
    source = small_vit(**wide)
    state = {f"module.base_encoder.{name}": value for name, value in source.state_dict().items()}
    content = {"state_dict": state | {"module.momentum_encoder.cls_token": source.cls_token}}
    fresh = vit("vit_small_patch16_224", **wide)
    fit(content, fresh, tmp_path)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(IMAGES)[1], source.forward_features(IMAGES)[:, 0])
    text = refused(content, vit("vit_small_patch16_224", **{**wide, "num_heads": 6}), tmp_path, UsageError)
    assert "give backbone.num_heads=12" in text


def test_a_file_of_the_right_network_that_lacks_a_tensor_is_incomplete(tmp_path):
    content = resnet18().state_dict()
    del content["layer3.0.conv1.weight"]
    text = refused(content, build_backbone("resnet18"), tmp_path)
    assert "lacks 'layer3.0.conv1.weight' of 'resnet18'" in text
    assert text.endswith("the file looks like a resnet18; the file is incomplete, save the whole network or prefix=")
