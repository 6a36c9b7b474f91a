"""Backbones: shape and place of their feature maps, options, and what an unknown name says."""

import pytest
import torch
from torch import nn

from scd.errors import UsageError
from scd.nn.backbone import build_backbone
from scd.nn.normalisation import normalise

MAPS = [
    ("resnet_tiny", {}, 32, 64, (8, 8)),
    ("resnet_tiny", {"widths": (8, 16), "strides": (1, 1)}, 32, 16, (16, 16)),
    ("resnet18", {}, 64, 512, (2, 2)),
    ("resnet18", {"small_stem": True}, 32, 512, (4, 4)),
    ("timm/resnet10t", {}, 64, 512, (2, 2)),
    ("timm/vit_tiny_patch16_224", {"img_size": 32, "patch_size": 4, "depth": 1}, 32, 192, (8, 8)),
]


@pytest.mark.parametrize(("name", "options", "side", "dim", "grid"), MAPS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_gives_a_feature_map(name, options, side, dim, grid, channels_last):
    backbone = build_backbone(name, channels_last=channels_last, **options).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(2, 3, side, side))
    assert backbone.dim == dim and backbone.name == name
    assert maps.shape == (2, dim, *grid)


def test_channels_last_changes_the_memory_format_alone():
    plain = build_backbone("resnet_tiny")
    fast = build_backbone("resnet_tiny", channels_last=True)
    fast.load_state_dict(plain.state_dict())
    images = torch.randn(4, 3, 32, 32)
    maps = fast(images)
    assert maps.is_contiguous(memory_format=torch.channels_last)
    assert fast.trunk[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(maps, plain(images), atol=1e-4, rtol=1e-4)


def test_the_seed_decides_the_weights():
    nets = []
    for channels_last in (False, True):
        torch.manual_seed(5)
        nets.append(build_backbone("resnet_tiny", channels_last=channels_last).state_dict())
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])


def test_tiny_resnet_uses_every_parameter():
    backbone = build_backbone("resnet_tiny")
    backbone(torch.randn(4, 3, 32, 32)).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in backbone.parameters())


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "timm/vit_medium_patch16_reg4_gap_256"])
def test_vit_patches_lie_where_they_come_from(name):
    torch.manual_seed(0)
    vit = build_backbone(name, img_size=16, patch_size=4, depth=0).eval()  # without attention
    images = torch.randn(1, 3, 16, 16)
    changed = images.clone()
    changed[:, :, 4:8, 8:12] += 1.0  # patch in row 1, column 2
    with torch.no_grad():
        difference = (vit(changed) - vit(images)).abs().sum(dim=1)[0]
    assert difference.shape == (4, 4)
    assert (difference > 1e-3).nonzero().tolist() == [[1, 2]]


def test_vit_takes_crops_of_several_sizes():
    vit = build_backbone("timm/vit_tiny_patch16_224", img_size=32, patch_size=4, depth=1).eval()
    with torch.no_grad():
        assert vit(torch.randn(1, 3, 16, 16)).shape == (1, 192, 4, 4)


def test_maps_with_channels_at_the_end_are_turned():
    options = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 12}
    swin = build_backbone("timm/swin_tiny_patch4_window7_224", depths=(1, 1), num_heads=(2, 2), **options).eval()
    with torch.no_grad():
        maps, raw = swin(torch.zeros(1, 3, 32, 32)), swin.trunk.model.forward_features(torch.zeros(1, 3, 32, 32))
    assert maps.shape == (1, 24, 8, 8) and raw.shape == (1, 8, 8, 24)


def test_small_stem_keeps_the_resolution():
    stem = build_backbone("resnet18", small_stem=True).trunk[0]
    assert isinstance(stem, nn.Conv2d) and stem.stride == (1, 1) and stem.kernel_size == (3, 3)


def test_small_stem_has_pytorchs_own_initial_weights():
    """As in MoCo's CIFAR-10 demo: uniform up to one over the root of the fan-in, 27. He-normal ones have 0.059."""
    torch.manual_seed(0)
    weights = build_backbone("resnet18", small_stem=True).trunk[0].weight.detach()
    assert float(weights.abs().max()) <= 27**-0.5 and float(weights.std()) == pytest.approx(1 / 9, rel=0.05)


def test_another_normalisation_is_that_of_the_pixels_and_keeps_the_weights_names():
    pixels = torch.rand(2, 3, 32, 32)
    torch.manual_seed(0)
    usual = build_backbone("resnet18", small_stem=True).eval()
    torch.manual_seed(0)
    other = build_backbone("resnet18", small_stem=True, normalisation="cifar10").eval()
    expected = normalise(pixels.clone(), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    with torch.no_grad():
        torch.testing.assert_close(other(normalise(pixels.clone())), usual(expected), rtol=1e-4, atol=1e-4)
    assert list(other.state_dict()) == list(usual.state_dict())
    with pytest.raises(UsageError, match="unknown normalisation 'cifar'; did you mean 'cifar10'"):
        build_backbone("resnet18", normalisation="cifar")


def padded_by_hand(image: list[list[float]], kind: str) -> list[list[float]]:
    """One more pixel on each side of a square image: zeros, the second pixel from the border, or the border's own."""
    side = len(image)
    beyond = {"zeros": None, "reflect": (1, side - 2), "replicate": (0, side - 1)}[kind]
    rows = []
    for y in range(-1, side + 1):
        row = []
        for x in range(-1, side + 1):
            inside = 0 <= y < side and 0 <= x < side
            if beyond is None:
                row.append(image[y][x] if inside else 0.0)
                continue
            at = [beyond[0] if i < 0 else beyond[1] if i >= side else i for i in (y, x)]
            row.append(image[at[0]][at[1]])
        rows.append(row)
    return rows


@pytest.mark.parametrize("padding", ["zeros", "reflect", "replicate"])
def test_padding_of_the_stem_by_hand(padding):
    torch.manual_seed(0)
    stem = build_backbone("resnet_tiny", padding=padding).trunk[0]
    image = torch.randn(6, 6)
    wide = torch.tensor(padded_by_hand(image.tolist(), padding))
    found = stem(image.expand(1, 3, 6, 6))[0, 4]
    kernel = stem.weight[4].sum(dim=0)  # all three channels show the same
    for y in range(3):
        for x in range(3):
            expected = (kernel * wide[2 * y : 2 * y + 3, 2 * x : 2 * x + 3]).sum()
            torch.testing.assert_close(found[y, x], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet_tiny", {}),
        ("resnet_tiny", {"channels_last": True}),
        ("resnet18", {"small_stem": True}),
        ("resnet18", {}),
    ],
)
def test_an_image_of_one_colour_shows_its_border_with_zeros_only(name, options):
    spreads = {}
    for padding in ("zeros", "reflect", "replicate"):
        torch.manual_seed(0)
        backbone = build_backbone(name, padding=padding, **options).eval()
        with torch.no_grad():
            maps = backbone(torch.ones(1, 3, 64, 64))
        spreads[padding] = maps.flatten(2).std(dim=2).mean().item() / maps.std().item()
    assert spreads["zeros"] > 0.1
    assert spreads["reflect"] < 1e-4 and spreads["replicate"] < 1e-4


ERRORS = [
    ("resnet_tny", {}, "unknown backbone 'resnet_tny'; did you mean 'resnet_tiny'\\? valid: .*resnet50.*timm/<model>"),
    ("resnet_tiny", {"width": 3}, "unknown option of backbone 'resnet_tiny' 'width'; did you mean 'widths'\\?"),
    ("resnet_tiny", {"widths": (8,)}, "resnet_tiny has 1 widths and 3 strides; give one stride per width"),
    ("resnet_tiny", {"padding": "mirror"}, "unknown padding 'mirror'; .*valid: reflect, replicate, zeros"),
    (
        "resnet18",
        {"depth": 3},
        "unknown option of backbone 'resnet18' 'depth'; valid: channels_last, normalisation, padding, small_stem",
    ),
    ("timm/resnt18", {}, "unknown timm backbone 'resnt18'; nearest: .*resnet18"),
    ("timm/qqqqqqqq", {}, "unknown timm backbone 'qqqqqqqq'; timm.list_models\\(\\) names all of them"),
    ("timm/resnet10t", {"foo": 1}, "timm backbone 'resnet10t' does not take these options: .*'foo'"),
]


@pytest.mark.parametrize(("name", "options", "text"), ERRORS)
def test_errors_name_what_would_have_worked(name, options, text):
    with pytest.raises(UsageError, match=text):
        build_backbone(name, **options)
