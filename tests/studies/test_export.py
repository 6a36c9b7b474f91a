"""The command that exports the backbone of a run."""

import json

import torch
from safetensors.torch import load_file, save_file

from scd.nn.backbone import build_backbone
from scd.nn.vit import vit
from studies.export import main

RESNET = {"_target_": "scd.nn.backbone.build_backbone", "name": "resnet18", "small_stem": True, "channels_last": True}


def run_folder(tmp_path, backbone, config):
    (tmp_path / "config.json").write_text(json.dumps({"seed": 0, "backbone": config}), encoding="utf-8")
    state = {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    save_file(state, tmp_path / "backbone.safetensors")
    return str(tmp_path)


def backbone_of(config):
    torch.manual_seed(0)
    return build_backbone(**{key: value for key, value in config.items() if key != "_target_"})


def test_the_command_exports_and_checks_a_run(tmp_path, capsys):
    folder = run_folder(tmp_path, backbone_of(RESNET), RESNET)
    assert main([folder]) == 0
    said = capsys.readouterr().out
    assert "torchvision.safetensors: resnet18 under the names of torchvision; features differ" in said
    assert "layer4.1.bn2.running_var" in load_file(tmp_path / "torchvision.safetensors")
    assert main([folder, "--naming", "detectron2"]) == 2
    assert "7x7 convolution" in capsys.readouterr().err


def test_the_command_takes_any_backbone(tmp_path, capsys):
    options = {"name": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 8, "depth": 1}
    folder = run_folder(tmp_path, vit(**options), {"_target_": "scd.nn.vit.vit", **options})
    out = tmp_path / "mine.pth"
    assert main([folder, "--naming", "timm", "--out", str(out)]) == 0 and out.is_file()
    assert "mine.pth" in capsys.readouterr().out


def test_the_command_names_what_is_wrong_in_one_line(tmp_path, capsys):
    def said(*words):
        assert main(list(words)) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    assert "is not a run" in said(str(tmp_path / "none"))
    tiny = {"_target_": "scd.nn.backbone.build_backbone", "name": "resnet_tiny", "widths": [8, 8, 8]}
    folder = run_folder(tmp_path, build_backbone("resnet_tiny"), tiny)
    assert "backbone.safetensors is not the backbone of its config.json" in said(folder, "--naming", "suite")
    folder = run_folder(tmp_path, backbone_of(RESNET), RESNET)
    assert "there is no folder" in said(folder, "--out", str(tmp_path / "missing" / "weights.safetensors"))
