"""Detectors over any backbone: levels, anchors, pooling levels, and that every weight learns."""

import pytest
import torch

from scd.errors import UsageError
from scd.nn.backbone import build_backbone
from scd.nn.detector import Pyramid, build_detector
from scd.nn.features import maps_and_vector
from scd.nn.stages import maps_of_stages

SIZE = 32
SMALL = {"channels": 8, "hidden": 16, "regions": 16, "proposals": 16, "detections": 10}


def backbone(name="resnet_tiny", **options):
    torch.manual_seed(0)
    if name == "resnet_tiny":
        options = {"widths": (8, 8, 16), "channels_last": True, **options}
    return build_backbone(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "size", "strides", "widths"),
    [
        ("resnet_tiny", {"widths": (8, 8, 16), "channels_last": True}, 48, [2, 4], [8, 16]),
        ("resnet18", {}, 64, [4, 8, 16, 32], [64, 128, 256, 512]),
        ("resnet18", {"small_stem": True}, 32, [2, 4, 8], [128, 256, 512]),
        ("timm/vit_tiny_patch16_224", {"img_size": 32, "patch_size": 4, "depth": 1}, 32, [4], [192]),
    ],
)
def test_levels_are_the_last_maps_of_each_resolution(name, options, size, strides, widths):
    own = backbone(name, **{"channels_last": False, **options})
    pyramid = Pyramid(own, size, 8).eval()
    assert pyramid.strides == strides
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        maps, _ = maps_of_stages(pyramid.backbone, images)
        assert [maps[i].shape[1] for i in pyramid.kept] == widths
        assert torch.equal(maps[-1], maps_and_vector(own.eval()(images))[0])
        levels = pyramid(images)
    assert [level.shape[2] for level in levels.values()] == [size // s for s in (*strides, 2 * strides[-1])]


def test_every_weight_of_a_detector_learns_even_over_a_frozen_backbone():
    detector = build_detector(backbone().requires_grad_(False), 3, SIZE, masks=True, **SMALL)
    assert all(parameter.requires_grad for parameter in detector.parameters())
    with pytest.raises(UsageError, match="unknown norm of the heads"):
        build_detector(backbone(), 3, SIZE, head_norm="layer")


def test_a_stride_that_is_no_power_of_two_is_refused():
    own = backbone("timm/vit_tiny_patch16_224", img_size=30, patch_size=6, depth=1)
    with pytest.raises(UsageError, match="powers of two; the backbone has maps of 5 x 5 at 30 px"):
        Pyramid(own, 30, 8)


def test_images_keep_their_size_and_get_the_suites_normalisation():
    detector = build_detector(backbone(), 3, 36, **SMALL).eval()
    image = torch.rand(3, 36, 36)
    given, _ = detector.transform([image])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(given.tensors[0], (image - mean[:, None, None]) / std[:, None, None])


def test_an_object_is_read_from_the_level_of_the_papers_rule():
    detector = build_detector(backbone("resnet18"), 3, 800, anchor=32, **SMALL)
    pooler = detector.roi_heads.box_roi_pool
    levels = {str(i): torch.zeros(1, 1, 800 // s, 800 // s) for i, s in enumerate((4, 8, 16, 32))}
    pooler(levels, [torch.tensor([[0.0, 0.0, 9.0, 9.0]])], [(800, 800)])
    sides = [20.0, 111.0, 113.0, 223.0, 225.0, 447.0, 449.0, 790.0]
    boxes = torch.tensor([[0.0, 0.0, side, side] for side in sides])
    assert (pooler.map_levels([boxes]) + 2).tolist() == [2, 2, 3, 3, 4, 4, 5, 5]  # floor(4 + log2(s / 224)) in [2, 5]
    assert [size[0] for size in detector.rpn.anchor_generator.sizes] == [32, 64, 128, 256, 512]
