"""Exported backbones as networks again: from the config.json beside the file, and from the name that the file keeps."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from scd.errors import DataError
from scd.export.backbone import export
from scd.nn.backbone import build_backbone
from scd.nn.vit import vit
from studies.suite.pages.exported_backbones import load_exported

VIT = {"name": "vit_tiny_patch16_224", "img_size": 24, "patch_size": 4, "depth": 1, "embed_dim": 24, "num_heads": 3}


def trained(build, **options):
    """A backbone whose weights and running statistics are unlike those of a fresh one."""
    torch.manual_seed(3)
    backbone = build(**options)
    with torch.no_grad():
        for value in backbone.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value))
    return backbone.eval()


def config(folder, **backbone):
    (folder / "config.json").write_text(
        json.dumps({"backbone": backbone, "evaluation": {"size": 24}}), encoding="utf-8"
    )


@pytest.mark.parametrize("naming", ["torchvision", "timm", "suite"])
@pytest.mark.parametrize("small_stem", [False, True])
def test_a_resnet_is_built_from_the_name_in_the_file(naming, small_stem, tmp_path):
    backbone = trained(build_backbone, name="resnet18", small_stem=small_stem)
    found = load_exported(export(backbone, tmp_path / "weights.safetensors", naming))
    assert found.name == "resnet18" and found.side == (32 if small_stem else 224)
    assert {naming, found.naming} in ({"torchvision", "timm"}, {naming})  # both have the same names
    image = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(found.backbone(image), backbone(image))


def test_detectron2s_file_is_read_as_well(tmp_path):
    backbone = trained(build_backbone, name="resnet18")
    path = export(backbone, tmp_path / "detectron2.pth", "detectron2")
    config(tmp_path, _target_="scd.nn.backbone.build_backbone", name="resnet18")
    found = load_exported(path)
    assert (found.naming, found.side) == ("detectron2", 24)
    with torch.no_grad():
        image = torch.rand(1, 3, 32, 32)
        assert torch.equal(found.backbone(image), backbone(image))


@pytest.mark.parametrize("naming", ["timm", "suite"])
def test_a_vit_is_built_from_the_configuration_beside_the_file(naming, tmp_path):
    backbone = trained(vit, **VIT)
    path = export(backbone, tmp_path / "weights.pth", naming)
    config(tmp_path, _target_="scd.nn.vit.vit", **VIT)
    found = load_exported(path)
    with torch.no_grad():
        image = torch.rand(1, 3, 24, 24)
        assert torch.equal(found.backbone(image)[0], backbone(image)[0])
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(path, alone)
    with pytest.raises(DataError, match="its weights have no name of a network beside them; put it beside the config"):
        load_exported(alone / path.name)


def test_what_is_no_exported_backbone_ends_in_one_line(tmp_path):
    path = export(trained(build_backbone, name="resnet18"), tmp_path / "weights.safetensors")
    config(tmp_path, _target_="scd.nn.backbone.build_backbone", name="resnet18", small_stem=True)
    with pytest.raises(DataError, match="its weights do not fit resnet18; put it beside the config.json of its run"):
        load_exported(path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="config.json' is not the config.json of a run"):
        load_exported(path)
    (tmp_path / "config.json").unlink()
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="have no name of a network beside them"):
        load_exported(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    with pytest.raises(DataError, match="cannot be read as weights"):
        load_exported(tmp_path / "broken.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match="holds more than weights"):
        load_exported(tmp_path / "list.pth")
    (tmp_path / "text.txt").write_text("text")
    with pytest.raises(DataError, match="its name must end in .safetensors or .pth"):
        load_exported(tmp_path / "text.txt")
