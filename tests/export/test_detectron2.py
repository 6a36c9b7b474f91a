"""Detectron2's names of ResNet weights."""

import pytest

from scd.export.detectron2 import detectron2_name, detectron2_shapes


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_var", "stem.conv1.norm.running_var"),
        ("layer1.0.conv1.weight", "res2.0.conv1.weight"),
        ("layer1.0.downsample.0.weight", "res2.0.shortcut.weight"),
        ("layer2.3.downsample.1.bias", "res3.3.shortcut.norm.bias"),
        ("layer4.2.bn3.running_mean", "res5.2.conv3.norm.running_mean"),
    ],
)
def test_names_of_detectron2(theirs, ours):
    assert detectron2_name(theirs) == ours


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("resnet50", 16), ("wide_resnet50_2", 16)])
def test_the_plan_has_every_block_once(name, blocks):
    shapes = detectron2_shapes(name)
    assert len({key.rsplit(".conv1.", 1)[0] for key in shapes if ".conv1." in key and key.startswith("res")}) == blocks
    assert shapes["stem.conv1.weight"] == (64, 3, 7, 7)
