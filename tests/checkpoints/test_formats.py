"""Every layout, from the names that its official code saves: the features are those of the network that was saved."""

import argparse

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18

from scd.checkpoints.fitting import load_checkpoint
from scd.checkpoints.formats import FORMATS, unwrapped
from scd.errors import UsageError
from scd.export.backbone import export
from scd.nn.backbone import build_backbone
from scd.nn.features import maps_and_vector
from scd.nn.vit import vit

SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}


def unlike_fresh(network, seed):
    """The network with weights and running statistics of a seed, none of them the usual initial values."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if "running_var" in name:
                tensor.copy_(torch.rand(tensor.shape, generator=draws) + 0.5)
            elif tensor.is_floating_point():
                scale = 0.5 if tensor.ndim == 1 else tensor[0].numel() ** -0.5
                tensor.copy_(torch.randn(tensor.shape, generator=draws) * scale + (tensor.ndim == 1))
    return network.eval()


def narrow(network):
    """The same ResNet with an eighth of its channels, so that files are small."""
    for name, part in list(network.named_modules()):
        at, _, last = name.rpartition(".")
        if isinstance(part, nn.Conv2d):
            inside = part.in_channels if part.in_channels == 3 else part.in_channels // 8
            new = nn.Conv2d(inside, part.out_channels // 8, part.kernel_size, part.stride, part.padding, bias=False)
        elif isinstance(part, nn.BatchNorm2d):
            new = nn.BatchNorm2d(part.num_features // 8)
        else:
            continue
        setattr(network.get_submodule(at), last, new)
    return network


def source_resnet(seed):
    return unlike_fresh(narrow(resnet18()), seed)


def fresh_resnet():
    """The suite's resnet18 with an eighth of its channels."""
    return narrow(build_backbone("resnet18"))


def source_vit(seed):
    return unlike_fresh(timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL_VIT), seed)


def state(network, prefix="", without=("fc.",)):
    """Its tensors under a prefix, without its classifier."""
    return {prefix + name: value for name, value in network.state_dict().items() if not name.startswith(without)}


def headless(network):
    """The ``nn.Sequential`` of a ResNet's children but the last, as BYOL's ports and lightly's examples make it."""
    return nn.Sequential(*list(network.children())[:-1])


def head(prefix):
    return {
        f"{prefix}0.weight": torch.ones(2, 64),
        f"{prefix}0.bias": torch.ones(2),
        f"{prefix}2.weight": torch.ones(2),
    }


IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(7))


def resnet_maps(network):
    with torch.no_grad():
        return nn.Sequential(*list(network.children())[:-2])(IMAGES)


def vit_tokens(network):
    with torch.no_grad():
        return network.forward_features(IMAGES)


def loaded(content, path, fresh, **chosen):
    """The features of a backbone with the weights of a file that is written first, and what was read."""
    if content is not None:
        (save_file if path.suffix == ".safetensors" else torch.save)(content, path)
    fitted = load_checkpoint(path, fresh, **chosen)
    with torch.no_grad():
        return maps_and_vector(fresh.eval()(IMAGES)), fitted


def moco_v2(online, momentum):
    """facebookresearch/moco: DataParallel, a projection head in the place of fc, a queue."""
    both = state(online, "module.encoder_q.") | state(momentum, "module.encoder_k.")
    further = head("module.encoder_q.fc.") | head("module.encoder_k.fc.") | {"module.queue": torch.ones(2, 4)}
    return {"epoch": 200, "arch": "resnet18", "state_dict": both | further, "optimizer": {"state": {}}}


def moco_v3(online, momentum):
    """facebookresearch/moco-v3: a predictor beside, the head under fc of a ResNet."""
    both = state(online, "module.base_encoder.") | state(momentum, "module.momentum_encoder.")
    further = head("module.base_encoder.fc.") | head("module.predictor.")
    return {"epoch": 300, "state_dict": both | further, "scaler": {"scale": 1.0}}


def lewel(online, momentum):
    """LayneH/LEWEL: the ResNet inside an encoder, with necks."""
    both = state(online, "module.online_net.backbone.") | state(momentum, "module.target_net.backbone.")
    further = head("module.online_net.neck.proj.mlp.") | head("module.predictor.mlp.")
    return {"epoch": 100, "state_dict": both | further, "best_acc": np.float64(0.5)}


def slotcon(online, momentum):
    """CVMI-Lab/SlotCon: under "model"; the official transfer takes encoder_k."""
    both = state(online, "module.encoder_q.") | state(momentum, "module.encoder_k.")
    further = {
        "module.grouping_q.slot_embed.weight": torch.ones(3, 2),
        "module.grouping_k.slot_embed.weight": torch.ones(3, 2),
    }
    return {"args": argparse.Namespace(arch="resnet18"), "model": both | further | head("module.projector_q.mlp.")}


def densecl(online, momentum):
    """WXinlong/DenseCL (OpenSelfSup): backbone is encoder_q[0], registered twice; mmcv removes "module."."""
    both = state(online, "encoder_q.0.") | state(online, "backbone.") | state(momentum, "encoder_k.0.")
    further = head("encoder_q.1.mlp.") | {"queue": torch.ones(2, 4), "queue2": torch.ones(2, 4)}
    return {"meta": {"epoch": 200}, "state_dict": both | further}


def openselfsup_moco(online, momentum):
    """The same package's MoCo: no second queue."""
    content = densecl(online, momentum)
    del content["state_dict"]["queue2"]
    return content


def byol_sthalles(online, momentum):
    """sthalles/PyTorch-BYOL: an nn.Sequential of torchvision's children, in two mappings."""
    return {
        "online_network_state_dict": state(headless(online), "encoder.", ()) | head("projetion.net."),
        "target_network_state_dict": state(headless(momentum), "encoder.", ()) | head("projetion.net."),
        "optimizer_state_dict": {},
    }


def byol_yaox12(online, momentum):
    """yaox12/BYOL-PyTorch: the same inside one model, under DistributedDataParallel."""
    both = state(headless(online), "module.online_network.encoder.", ())
    both |= state(headless(momentum), "module.target_network.encoder.", ())
    return {"config": {"a": 1}, "epoch": 1, "steps": 9, "model": both | head("module.predictor.predictor.l"), "amp": {}}


def byol_lucidrains(online, momentum):
    """lucidrains/byol-pytorch: a learner's state dict; the network is there three times, "net." is the online one."""
    both = state(online, "net.", ()) | state(online, "online_encoder.net.", ())
    return both | state(momentum, "target_encoder.net.", ()) | head("online_encoder.projector.")


def solo_learn(online, momentum):
    """vturrisi/solo-learn: a Lightning file with its hydra configuration."""
    both = state(online, "backbone.") | state(momentum, "momentum_backbone.")
    further = {"classifier.weight": torch.ones(3, 64), "classifier.bias": torch.ones(3)} | head("projector.")
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.2.0",
        "state_dict": both | further,
        "callbacks": {"ModelCheckpoint": {"best_model_score": None}},
        "hyper_parameters": {"method": "byol", "data": {"num_classes": 3}},
        "optimizer_states": [],
    }


def lightly_moco(online, momentum):
    """lightly-ai/lightly, benchmarks/imagenet/resnet50/mocov2.py."""
    both = state(online, "backbone.") | state(momentum, "key_backbone.") | head("projection_head.layers.")
    return {"state_dict": both, "hyper_parameters": {"batch_size": 4}, "loops": {}}


def lightly_byol(online, momentum):
    """lightly-ai/lightly, benchmarks/imagenet/resnet50/byol.py."""
    return {"state_dict": state(online, "backbone.") | state(momentum, "teacher_backbone.") | head("prediction_head.")}


def lightly_dino(online, momentum):
    """lightly-ai/lightly, benchmarks/imagenet/resnet50/dino.py: "backbone" is the teacher."""
    return {"state_dict": state(online, "student_backbone.") | state(momentum, "backbone.") | head("head.")}


def lightly_teacher(online, momentum):
    """lightly-ai/lightly, examples/pytorch_lightning/dino.py: an nn.Sequential."""
    both = state(headless(online), "student_backbone.", ()) | state(headless(momentum), "teacher_backbone.", ())
    return {"state_dict": both | head("student_head.layers.")}


def lightly_example(online, momentum):
    """lightly-ai/lightly, examples/pytorch_lightning/moco.py: an nn.Sequential."""
    both = state(headless(online), "backbone.", ()) | state(headless(momentum), "backbone_momentum.", ())
    return {"state_dict": both | head("projection_head.layers.")}


RESNET_PAIRS = {  # name of the format -> (its content, the branch that is taken by default)
    "MoCo v1 or v2": (moco_v2, "online"),
    "MoCo v3": (moco_v3, "online"),
    "LEWEL": (lewel, "online"),
    "SlotCon": (slotcon, "momentum"),
    "DenseCL": (densecl, "online"),
    "MoCo in OpenSelfSup": (openselfsup_moco, "online"),
    "BYOL (sthalles/PyTorch-BYOL)": (byol_sthalles, "online"),
    "BYOL (yaox12/BYOL-PyTorch)": (byol_yaox12, "online"),
    "BYOL (lucidrains/byol-pytorch)": (byol_lucidrains, "online"),
    "solo-learn, with a momentum copy": (solo_learn, "online"),
    "lightly, MoCo": (lightly_moco, "online"),
    "lightly, BYOL": (lightly_byol, "online"),
    "lightly, DINO": (lightly_dino, "momentum"),
    "lightly, student and teacher": (lightly_teacher, "momentum"),
    "lightly, with a momentum copy": (lightly_example, "online"),
}


@pytest.fixture(scope="module")
def resnets():
    """An online network, its momentum copy, and the maps of each."""
    pair = {"online": source_resnet(1), "momentum": source_resnet(2)}
    return pair, {name: resnet_maps(network) for name, network in pair.items()}


@pytest.mark.parametrize("name", RESNET_PAIRS)
def test_each_branch_of_a_resnet_has_the_features_of_the_saved_network(name, resnets, tmp_path):
    (pair, maps), (content, default) = resnets, RESNET_PAIRS[name]
    torch.save(content(pair["online"], pair["momentum"]), tmp_path / "weights.pth")
    for branch in ("", "momentum" if default == "online" else "online"):
        (found, _), fitted = loaded(None, tmp_path / "weights.pth", fresh_resnet(), branch=branch)
        expected = maps[branch or default]
        assert torch.equal(found, expected)
        assert not torch.allclose(found, maps["momentum" if (branch or default) == "online" else "online"], atol=0.1)
        assert fitted.format == name
        assert fitted.branch == (branch or default)
        assert len(fitted.used) == len(state(pair["online"]))


ALONE = {
    "plain": ("a plain state dict", lambda net: state(net, "", ())),
    "state_dict": ("a plain state dict", lambda net: {"state_dict": state(net, "module.", ()), "epoch": 1}),
    "compiled": ("a plain state dict", lambda net: {"model": state(net, "_orig_mod.", ())}),
    "sequential": ("a plain state dict", lambda net: state(headless(net), "", ())),
    "nested": ("a plain state dict under 'net.trunk_of_mine.'", lambda net: state(net, "net.trunk_of_mine.")),
    "moco query": ("MoCo v1 or v2, the query alone", lambda net: {"state_dict": state(net, "module.encoder_q.")}),
    "solo-learn": ("solo-learn", lambda net: {"state_dict": state(net, "backbone.") | head("classifier.")}),
    "solo-learn, older": ("solo-learn, older", lambda net: state(net, "encoder.") | head("classifier.")),
    "lightly": ("a module with a backbone", lambda net: {"state_dict": state(net, "backbone.") | head("projector.")}),
    "older LEWEL": ("LEWEL, older", lambda net: {"state_dict": state(net, "module.encoder_q.backbone.")}),
    "DenseCL, extracted": ("a plain state dict", lambda net: {"state_dict": state(net), "author": "DenseCL"}),
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
def test_files_with_one_network(name, resnets, tmp_path):
    (pair, maps), (title, content) = resnets, ALONE[name]
    (found, _), fitted = loaded(content(pair["online"]), tmp_path / "weights.tar", fresh_resnet())
    assert torch.equal(found, maps["online"])
    assert (fitted.format, fitted.branch) == (title, "")


@pytest.mark.parametrize(("naming", "ending"), [
    ("suite", ".safetensors"), ("torchvision", ".safetensors"), ("timm", ".pth"), ("detectron2", ".pth"),
])  # fmt: skip
def test_what_this_suite_exports_is_read(naming, ending, tmp_path):
    backbone, fresh = unlike_fresh(fresh_resnet(), 3), fresh_resnet()
    load_checkpoint(export(backbone, tmp_path / f"exported{ending}", naming), fresh)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(IMAGES), backbone(IMAGES))


@pytest.mark.parametrize("name", ["resnet18", "resnet_tiny"])
def test_own_backbones_and_methods_are_read(name, tmp_path):
    options = {"small_stem": True} if name == "resnet18" else {}
    backbone = unlike_fresh(narrow(build_backbone(name, **options)), 4)
    for prefix in ("", "backbone.", "siamese.backbone."):
        content = {prefix + key: value for key, value in backbone.state_dict().items()}
        (found, _), _ = loaded(content, tmp_path / "backbone.safetensors", narrow(build_backbone(name, **options)))
        with torch.no_grad():
            assert torch.equal(found, backbone(IMAGES))


# ---------------------------------------------------------------- vision transformers


def dino(online, momentum):
    """facebookresearch/dino: student under DistributedDataParallel, teacher without; args of argparse."""
    heads = {"head.mlp.0.weight": torch.ones(2), "head.last_layer.weight_g": torch.ones(2)}
    student = state(online, "module.backbone.") | {f"module.{name}": value for name, value in heads.items()}
    return {
        "student": student,
        "teacher": state(momentum, "backbone.") | heads,
        "optimizer": {"state": {}},
        "epoch": 9,
        "args": argparse.Namespace(arch="vit_small"),
        "dino_loss": {"center": torch.ones(1, 4)},
    }


def ibot(online, momentum):
    """bytedance/ibot: as DINO's, with an embedding for hidden patches in the student."""
    content = dino(online, momentum)
    content["student"]["module.backbone.masked_embed"] = torch.ones(1, 24)
    content["ibot_loss"] = content.pop("dino_loss")
    return content


def lightly_vit(online, momentum):
    """lightly-ai/lightly, benchmarks/imagenet/vitb16: timm's ViT inside MaskedVisionTransformerTIMM."""
    both = state(online, "student_backbone.vit.") | state(momentum, "teacher_backbone.vit.")
    return {"state_dict": both | {"student_backbone.mask_token": torch.ones(1, 1, 24)}}


VIT_PAIRS = {"DINO": dino, "iBOT": ibot, "lightly, student and teacher": lightly_vit}


@pytest.mark.parametrize("name", VIT_PAIRS)
@pytest.mark.parametrize("branch", ["", "student", "teacher"])
def test_each_branch_of_a_vit_has_the_features_of_the_saved_network(name, branch, tmp_path):
    pair = {"student": source_vit(1), "teacher": source_vit(2)}
    content = VIT_PAIRS[name](pair["student"], pair["teacher"])
    (maps, vector), fitted = loaded(
        content, tmp_path / "weights.pth", vit("vit_tiny_patch16_224", **SMALL_VIT), branch=branch
    )
    tokens = vit_tokens(pair[branch or "teacher"])
    assert fitted.format == name
    assert torch.equal(vector, tokens[:, 0])
    assert torch.equal(maps.flatten(2).transpose(1, 2), tokens[:, 1:])


def test_mae_gives_its_encoder(tmp_path):
    network = source_vit(5)
    decoder = {
        "mask_token": torch.ones(1, 1, 8), "decoder_pos_embed": torch.ones(1, 17, 8),
        "decoder_embed.weight": torch.ones(8, 24), "decoder_blocks.0.norm1.weight": torch.ones(8),
        "decoder_norm.weight": torch.ones(8), "decoder_pred.weight": torch.ones(3, 8),
    }  # fmt: skip
    content = {"model": state(network) | decoder, "args": argparse.Namespace(model="mae_vit"), "epoch": 8}
    (_, vector), fitted = loaded(content, tmp_path / "mae.pth", vit("vit_tiny_patch16_224", **SMALL_VIT))
    assert fitted.format == "MAE"
    assert torch.equal(vector, vit_tokens(network)[:, 0])
    assert set(fitted.unused) == set(decoder)


def test_dinov2_teacher_in_chunks(tmp_path):
    """facebookresearch/dinov2 saves {"teacher": ...} with blocks as blocks.CHUNK.BLOCK and a mask token."""
    network = source_vit(6)
    chunked = {
        name.replace("blocks.0.", "blocks.0.0.").replace("blocks.1.", "blocks.1.1."): value
        for name, value in state(network, "backbone.").items()
    }
    content = {"teacher": chunked | {"backbone.mask_token": torch.ones(1, 24), "dino_head.mlp.0.weight": torch.ones(2)}}
    (_, vector), fitted = loaded(content, tmp_path / "teacher.pth", vit("vit_tiny_patch16_224", **SMALL_VIT))
    assert (fitted.format, fitted.branch) == ("DINOv2, teacher", "")
    assert torch.equal(vector, vit_tokens(network)[:, 0])
    with pytest.raises(UsageError, match="has only momentum"):
        loaded(content, tmp_path / "teacher.pth", vit("vit_tiny_patch16_224", **SMALL_VIT), branch="student")


def test_timm_vits_as_plain_maps(tmp_path):
    network = source_vit(8)
    (maps, _), fitted = loaded(
        state(network), tmp_path / "weights.safetensors", build_backbone("timm/vit_tiny_patch16_224", **SMALL_VIT)
    )
    assert fitted.naming == "timm"
    assert torch.equal(maps.flatten(2).transpose(1, 2), vit_tokens(network)[:, 1:])


# ---------------------------------------------------------------- what is chosen


def test_every_layout_is_tested():
    tested = {*RESNET_PAIRS, *VIT_PAIRS, *(title for title, _ in ALONE.values()), "MAE", "DINOv2, teacher"}
    assert {layout.title for layout in FORMATS} <= tested


def test_wrappers_are_removed_wherever_they_stand():
    assert unwrapped("module._orig_mod.backbone.conv1.weight") == "backbone.conv1.weight"
    assert unwrapped("student.module.backbone.conv1.weight") == "student.backbone.conv1.weight"
    assert unwrapped("my_module.conv1.weight") == "my_module.conv1.weight"


def test_several_networks_of_no_known_layout_are_not_guessed(resnets, tmp_path):
    (pair, maps) = resnets
    content = {"one": state(pair["online"]), "two": state(pair["momentum"], "inner.")}
    with pytest.raises(UsageError, match="prefix=one:, prefix=two:inner[.]"):
        loaded(content, tmp_path / "two.pth", fresh_resnet())
    (found, _), fitted = loaded(content, tmp_path / "two.pth", fresh_resnet(), prefix="two:inner.")
    assert torch.equal(found, maps["momentum"])
    assert fitted.place == "two"


def test_a_prefix_is_taken_as_it_is_given(resnets, tmp_path):
    (pair, maps) = resnets
    content = moco_v2(pair["online"], pair["momentum"])
    (found, _), _ = loaded(content, tmp_path / "m.pth", fresh_resnet(), prefix="module.encoder_k.")
    assert torch.equal(found, maps["momentum"])
    (found, _), _ = loaded(content, tmp_path / "m.pth", fresh_resnet(), prefix="encoder_k")
    assert torch.equal(found, maps["momentum"])  # a prefix without its dot
    with pytest.raises(UsageError, match="no name of 'm.pth' begins with it"):
        loaded(content, tmp_path / "m.pth", fresh_resnet(), prefix="encoder_x.")


@pytest.mark.parametrize(("branch", "message"), [("techer", "did you mean 'teacher'"), ("momentum", "has one network")])
def test_branches_that_are_not_there(branch, message, resnets, tmp_path):
    with pytest.raises(UsageError, match=message):
        loaded(state(resnets[0]["online"]), tmp_path / "w.pth", fresh_resnet(), branch=branch)
