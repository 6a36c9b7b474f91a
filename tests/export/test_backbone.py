"""Exported weights in fresh models of the libraries, and what is refused."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import resnet18
from unlike_fresh import disturb

from scd.errors import DataError, UsageError
from scd.export.backbone import export, load_check, renamed
from scd.export.detectron2 import detectron2_shapes
from scd.nn.backbone import RESNETS, build_backbone
from scd.nn.vit import vit


def trained(name, **options):
    """A backbone whose weights and running statistics are unlike those of a fresh one."""
    torch.manual_seed(0)
    backbone = build_backbone(name, **options)
    disturb(backbone)
    return backbone


@pytest.mark.parametrize("naming", ["torchvision", "timm", "suite"])
@pytest.mark.parametrize("small_stem", [False, True])
def test_a_fresh_model_with_the_file_has_the_same_features(naming, small_stem, tmp_path):
    backbone = trained("resnet18", small_stem=small_stem, channels_last=True)
    backbone.train()
    path = export(backbone, tmp_path / "weights.safetensors", naming)
    assert load_check(path, backbone, naming, size=32) < 1e-3
    assert backbone.training  # left as it was


def test_torchvision_takes_the_file_by_itself(tmp_path):
    backbone = trained("resnet18")
    state = load_file(export(backbone, tmp_path / "weights.safetensors"))
    model = resnet18()
    missing = model.load_state_dict(state, strict=False)
    assert missing.missing_keys == ["fc.weight", "fc.bias"] and missing.unexpected_keys == []
    model.fc = nn.Identity()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(image), backbone.eval()(image).mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)


def test_a_timm_model_gets_its_own_names_back(tmp_path):
    options = {"img_size": 32, "patch_size": 8, "depth": 1}
    for i, backbone in enumerate(
        [build_backbone("timm/vit_tiny_patch16_224", **options), vit("vit_tiny_patch16_224", **options)]
    ):
        path = export(backbone, tmp_path / f"{i}.pth", "timm")
        model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **options)
        model.load_state_dict(torch.load(path, weights_only=True))
        assert load_check(path, backbone, "timm", size=32) == 0


@pytest.mark.parametrize("name", RESNETS)
def test_detectron2_gets_the_names_and_shapes_of_its_plan(name):
    with torch.device("meta"):
        backbone = build_backbone(name)
    state = renamed(backbone, "detectron2")
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == detectron2_shapes(name)


def test_detectron2_file_has_what_its_checkpointer_reads(tmp_path):
    backbone = trained("resnet18")
    path = export(backbone, tmp_path / "weights.pth", "detectron2")
    content = torch.load(path, weights_only=True)
    assert content["matching_heuristics"] is True and content["__author__"] != "Caffe2"
    assert set(content["model"]) == set(detectron2_shapes("resnet18"))
    assert torch.equal(content["model"]["res3.0.shortcut.weight"], backbone.trunk[5][0].downsample[0].weight)
    assert load_check(path, backbone, "detectron2") == 0


@pytest.mark.parametrize("naming", ["torchvision", "timm", "detectron2"])
def test_a_file_that_does_not_fit_is_found(naming, tmp_path):
    backbone = trained("resnet18")
    path = export(backbone, tmp_path / "weights.safetensors", naming)
    state = load_file(path)
    weight = "res2.0.conv1.weight" if naming == "detectron2" else "layer1.0.conv1.weight"
    save_file({**state, weight: state[weight] + 0.1}, path)
    with pytest.raises(DataError, match="differ"):
        load_check(path, backbone, naming, size=32)
    save_file({("other." + name if name == weight else name): tensor for name, tensor in state.items()}, path)
    with pytest.raises(DataError, match=weight):
        load_check(path, backbone, naming, size=32)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as weights"):
        load_check(path, backbone, naming, size=32)


def test_what_has_no_names_is_refused(tmp_path):
    tiny, path = build_backbone("resnet_tiny"), tmp_path / "weights.safetensors"
    for naming in ("torchvision", "timm", "detectron2"):
        with pytest.raises(
            UsageError, match=f"{naming} has no names for the weights of 'resnet_tiny'; use naming suite"
        ):
            export(tiny, path, naming)
    assert load_check(export(tiny, path, "suite"), tiny, "suite", size=32) == 0
    with pytest.raises(UsageError, match="use naming timm or suite"):
        export(build_backbone("timm/vit_tiny_patch16_224", depth=1), path, "torchvision")
    with pytest.raises(UsageError, match="7x7 convolution"):
        export(build_backbone("resnet18", small_stem=True), path, "detectron2")
    for naming in ("torchvision", "detectron2"):  # Detectron2's check compares weights alone, which would be equal
        with pytest.raises(UsageError, match="ResNets pad with zeros; a backbone with padding=reflect does not fit"):
            export(build_backbone("resnet18", padding="reflect"), path, naming)
    with pytest.raises(UsageError, match="unknown naming 'torch'; did you mean 'torchvision'"):
        export(tiny, path, "torch")
    with pytest.raises(UsageError, match="must end in .safetensors or .pth"):
        export(tiny, tmp_path / "weights.bin", "suite")


def test_features_that_are_zero_everywhere_prove_nothing(tmp_path):
    backbone = trained("resnet18")
    with torch.no_grad():
        backbone.trunk[7][1].bn2.bias.fill_(-1e6)
    path = export(backbone, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="features are 0 everywhere"):
        load_check(path, backbone, "torchvision", size=32)


def test_a_folder_that_does_not_exist_or_cannot_be_written_is_named_in_one_line(tmp_path):
    tiny = build_backbone("resnet_tiny")
    for ending in ("safetensors", "pth"):
        with pytest.raises(UsageError, match="cannot be written: there is no folder '.*missing'") as caught:
            export(tiny, tmp_path / "missing" / f"weights.{ending}", "suite")
        assert "\n" not in str(caught.value)
        (tmp_path / f"taken.{ending}").mkdir()
        with pytest.raises(UsageError, match=f"taken.{ending}' cannot be written"):
            export(tiny, tmp_path / f"taken.{ending}", "suite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken.pth", "taken.safetensors"]
