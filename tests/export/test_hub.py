"""Exported folders in Hugging Face's mixin, timm and torchvision, loaded by the code of their card."""

import json
import re

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from unlike_fresh import disturb

from scd.errors import DataError, UsageError
from scd.export.backbone import export, load_check
from scd.export.hub import BUILDERS, CONFIGURATION, WEIGHTS, ExportedBackbone, configuration, difference
from scd.export.loading import FOLDER, how_to_load
from scd.nn.features import maps_and_vector
from scd.nn.normalisation import NORMALISATIONS, normalise

VIT = {"name": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 2, "depth": 2,
       "vector": "cls", "weights": None, "fixed_patches": False}  # fmt: skip
CASES = {
    "torchvision": ("build_backbone", {"name": "resnet18", "channels_last": True}, "torchvision"),
    "small stem in torchvision": ("build_backbone", {"name": "resnet18", "small_stem": True}, "torchvision"),
    "other colours": (
        "build_backbone", {"name": "resnet18", "small_stem": True, "normalisation": "cifar10"}, "torchvision",
    ),
    "timm": ("build_backbone", {"name": "resnet18", "channels_last": True}, "timm"),
    "small stem in timm": ("build_backbone", {"name": "resnet18", "small_stem": True}, "timm"),
    "vit": ("vit", VIT, "timm"),
    "timm's own name": ("build_backbone", {"name": "timm/vit_tiny_patch16_224", "img_size": 32, "depth": 1}, "timm"),
    "suite": ("build_backbone", {"name": "resnet_tiny", "widths": [8, 16], "strides": [1, 2]}, "suite"),
}  # fmt: skip


def exported(folder, case):
    """The backbone of a case with weights of its own, exported to a folder."""
    builder, options, naming = CASES[case]
    torch.manual_seed(0)
    backbone = BUILDERS[builder](**options)
    disturb(backbone)
    export(backbone, folder / WEIGHTS, naming)
    (folder / CONFIGURATION).write_text(configuration(backbone, builder, options, naming, 32))
    return backbone.eval()


def loaded(folder, case):
    """The models that the code blocks of the card make."""
    builder, options, naming = CASES[case]
    text = how_to_load(naming, builder, options, options.get("small_stem", False), [WEIGHTS, CONFIGURATION])
    models = []
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        names: dict = {}
        exec(block.replace(FOLDER, str(folder)), names)
        models.append(names["model"])
    return models


@pytest.mark.parametrize("case", CASES)
def test_the_code_of_the_card_loads_a_model_with_equal_features(case, tmp_path):
    backbone = exported(tmp_path, case)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    usual = normalise(images.clone())
    colours = CASES[case][1].get("normalisation", "imagenet")
    own = normalise(images.clone(), *NORMALISATIONS[colours])
    *of_library, of_mixin = loaded(tmp_path, case)
    assert isinstance(of_mixin, ExportedBackbone) and not of_mixin.training
    with torch.no_grad():
        maps, vector = maps_and_vector(backbone(usual))
        assert maps.abs().max() > 0.1
        for found, expected in zip(maps_and_vector(of_mixin(usual)), (maps, vector), strict=True):
            torch.testing.assert_close(found, expected)
        assert len(of_library) == (CASES[case][2] != "suite")
        for model in of_library:
            assert isinstance(model, nn.Module) and not model.training
            if case == "timm's own name":  # timm's vector is the class token, the suite's the mean of the map
                maps_of_timm = model.forward_features(own)[:, 1:].transpose(1, 2).unflatten(2, maps.shape[2:])
                torch.testing.assert_close(maps_of_timm, maps)
            else:
                torch.testing.assert_close(model(own), vector, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_the_checks_of_the_export_pass(case, tmp_path):
    backbone = exported(tmp_path, case)
    assert load_check(tmp_path / WEIGHTS, backbone, CASES[case][2], 32) < 1e-3
    assert difference(tmp_path, backbone, 32) == 0


@pytest.mark.parametrize("case", ["torchvision", "vit", "suite"])
def test_the_mixin_saves_the_same_folder_again(case, tmp_path):
    exported(tmp_path, case)
    ExportedBackbone.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    old, new = (load_file(folder / WEIGHTS) for folder in (tmp_path, tmp_path / "again"))
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    model = ExportedBackbone.from_pretrained(tmp_path / "again")
    assert torch.equal(model.state_dict()[next(iter(old))], next(iter(old.values())))


def test_timm_reads_size_and_colours_from_the_folder(tmp_path):
    exported(tmp_path, "vit")
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    found = timm.data.resolve_model_data_config(model)
    assert found["input_size"] == [3, 32, 32] or found["input_size"] == (3, 32, 32)
    assert tuple(found["mean"]) == NORMALISATIONS["imagenet"][0] and model.num_classes == 0


def test_a_vit_in_timm_takes_images_of_another_size_as_the_suites_does(tmp_path):
    backbone = exported(tmp_path, "vit")
    image = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(loaded(tmp_path, "vit")[0](image), backbone(image)[1])


def test_a_folder_that_does_not_fit_is_found(tmp_path):
    backbone = exported(tmp_path, "torchvision")
    state = load_file(tmp_path / WEIGHTS)
    save_file({**state, "bn1.weight": state["bn1.weight"] + 0.5}, tmp_path / WEIGHTS)
    with pytest.raises(DataError, match="features of the loaded network differ"):
        difference(tmp_path, backbone, 32)
    save_file({name: tensor for name, tensor in state.items() if name != "bn1.weight"}, tmp_path / WEIGHTS)
    with pytest.raises(DataError, match="does not load: .*bn1.weight|does not load: .*Missing"):
        difference(tmp_path, backbone, 32)
    save_file(state, tmp_path / WEIGHTS)
    config = json.loads((tmp_path / CONFIGURATION).read_text())
    (tmp_path / CONFIGURATION).write_text(json.dumps({**config, "options": {"name": "resnet34"}}))
    with pytest.raises(DataError, match="does not load"):
        difference(tmp_path, backbone, 32)


def test_initial_weights_are_not_asked_for_again(tmp_path):
    builder, options, naming = CASES["vit"]
    backbone = exported(tmp_path, "vit")
    text = configuration(backbone, builder, {**options, "weights": "timm/none-of-that-name"}, naming, 32)
    assert "none-of-that-name" not in text
    ExportedBackbone(builder, {**options, "weights": "timm/none-of-that-name"}, naming)


def test_wrong_words_are_named():
    with pytest.raises(UsageError, match="unknown builder of a backbone 'vitt'; did you mean 'vit'"):
        ExportedBackbone("vitt", {})
    with pytest.raises(UsageError, match="unknown naming of a loadable backbone 'detectron2'"):
        ExportedBackbone("build_backbone", {"name": "resnet18"}, "detectron2")
    with pytest.raises(UsageError, match="cannot be written as JSON"):
        configuration(nn.Identity(), "vit", {"depth": {1, 2}}, "suite", 32)


def test_building_leaves_the_random_numbers_as_they_were():
    state = torch.get_rng_state()
    ExportedBackbone("build_backbone", {"name": "resnet_tiny", "widths": [8], "strides": [1]})
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("case", "colours"), [("torchvision", "imagenet"), ("other colours", "cifar10")])
def test_the_card_names_the_colours_of_the_model(case, colours, tmp_path):
    builder, options, naming = CASES[case]
    mean, deviation = NORMALISATIONS[colours]
    assert f"normalised by mean {mean} and deviation {deviation}" in how_to_load(naming, builder, options, True, [])
    backbone = BUILDERS[builder](**{**options, "small_stem": False})
    assert json.loads(configuration(backbone, builder, options, "timm", 32))["pretrained_cfg"]["mean"] == list(mean)


def test_detectron2_gets_its_colours_in_bytes():
    text = how_to_load("detectron2", "build_backbone", {"name": "resnet50"}, False, [WEIGHTS, "model.pth"])
    assert "PIXEL_MEAN = [123.675, 116.28, 103.53]" in text and "PIXEL_STD = [58.395, 57.12, 57.375]" in text
    assert "STRIDE_IN_1X1 = False" in text and "it was not run itself" in text and "from_pretrained" not in text
