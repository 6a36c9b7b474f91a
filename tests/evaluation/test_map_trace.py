"""Maps over training: which weights are scored, what is kept, and agreement of known maps."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_evaluation import Evaluated, With, context_of, object_source, source_of
from torch import nn

from baselines.moco import MoCo
from scd.data.images import ImageSet
from scd.data.recipes import centre_view
from scd.errors import UsageError
from scd.evaluation.emergence import Emergence, read
from scd.evaluation.map_trace import (
    CORNERS,
    SIDE,
    MapsOverTraining,
    correlation,
    methods_over_training,
    part_of_maps,
    part_view,
    share_text,
    view_agreement,
)
from scd.evaluation.saliency import Saliency
from scd.maps.attention import rescaled
from scd.maps.controls import CentrePrior
from scd.method import whole_view
from scd.nn.vit import vit
from scd.scd import SCD


def brightness(view):
    """A map that says how bright the image is there: the same place gets the same value in every view."""
    return torch.sigmoid(nn.functional.adaptive_avg_pool2d(view.images.mean(dim=1), 8))


def centre(view):
    """A map of the view's own centre, whatever it shows."""
    line = torch.linspace(-1, 1, 8)
    return torch.exp(-(line[:, None] ** 2 + line**2)).expand(len(view.images), 8, 8)


class Scaled(nn.Module):
    """A 'backbone' with one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, images):
        return self.weight * images


class Learning(Evaluated):
    """A method whose map is bright where the image is, if its weight is positive, and inverted if it is negative."""

    def __init__(self):
        super().__init__()
        self.backbone = Scaled()

    def saliency(self, view):
        return torch.sigmoid(5 * nn.functional.avg_pool2d(self.backbone(view.images).mean(dim=1), 4))


def states(method, *weights):
    """Snapshots of a method: (share, value of all its weights) each."""
    for share, weight in weights:
        yield share, {name: torch.full_like(value, weight) for name, value in method.evaluated_state().items()}


@pytest.fixture
def smooth():
    """Smooth random images whose bright half is the object."""
    coarse = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, 32, mode="bicubic", align_corners=False).clamp(0, 1)
    images = (smooth * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    return ImageSet(images, masks=(smooth[:, 0] > 0.5).to(torch.uint8))


# ---------------------------------------------------------------- the protocol


def test_every_snapshot_and_the_trained_method_are_scored(smooth):
    method = Learning().train()
    snapshots = dict(states(method, (0.5, 0.0), (0.0, -1.0)))
    context = context_of(method, source_of(train=smooth, test=smooth), 32, snapshots=snapshots)
    numbers = MapsOverTraining()(context)
    assert {name.split("@")[1] for name in numbers} == {"0.00", "0.50", "1.00"}
    assert numbers["saliency_iou@0.00"] < 0.1 < 0.6 < numbers["saliency_iou@1.00"]
    assert numbers["map_std@0.50"] == 0 and numbers["map_area@0.50"] == 0.5
    assert "view_agreement@1.00" in numbers and "view_agreement@0.50" not in numbers  # a constant map has none
    final = Saliency()(context)
    for name in ("saliency_iou", "saliency_maxf_inverted", "saliency_inverted_share"):
        assert numbers[f"{name}@1.00"] == final[name]
    assert {name.split("@")[0] for name in numbers} <= set(MapsOverTraining().metrics)
    assert method.backbone.weight == 1 and method.training  # left as it was found


DEVICES = ["meta", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")
@pytest.mark.parametrize("device", DEVICES)
def test_snapshots_are_scored_where_the_trained_method_is(device, smooth):
    method = Learning()
    snapshots = dict(states(method, (0.0, -1.0), (0.5, 0.0)))  # on the CPU, as they are read from the disk
    context = context_of(method.to(device), source_of(train=smooth, test=smooth), 32, snapshots=snapshots)
    found = [{weight.device.type for weight in scored.parameters()} for _, scored in methods_over_training(context)]
    assert found == [{device}] * 3


def test_the_first_maps_are_kept_in_the_folder(smooth, tmp_path):
    method = Learning()
    context = context_of(
        method, source_of(train=smooth, test=smooth), 32, snapshots=dict(states(method, (0.25, 1.0))), folder=tmp_path
    )
    MapsOverTraining(images=10, kept=3)(context)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.25.safetensors", "1.00.safetensors"]
    maps = load_file(tmp_path / "1.00.safetensors")["learned"]
    with torch.no_grad():
        torch.testing.assert_close(maps, method.saliency(whole_view(centre_view(smooth.images[:3], 32))))
    none = tmp_path / "none"
    none.mkdir()
    MapsOverTraining(kept=0)(context.for_protocol(MapsOverTraining(), none))
    assert not list(none.iterdir())


def test_the_number_of_images_is_that_of_the_first_ones(smooth):
    method = Learning()
    source = source_of(train=smooth, test=smooth)
    context = context_of(method, source, 32, snapshots=dict(states(method, (0.0, 1.0))))
    first = context_of(method, source_of(train=smooth, test=smooth.subset(range(5))), 32)
    numbers = MapsOverTraining(images=5)(context)
    assert numbers["saliency_iou@1.00"] == Saliency()(first)["saliency_iou"]
    assert numbers["saliency_iou@1.00"] != Saliency()(context)["saliency_iou"]


def test_no_snapshots_no_map_no_masks(smooth):
    method = Learning()
    assert MapsOverTraining()(context_of(method, source_of(train=smooth, test=smooth), 32)) == {}
    mapless = With(Scaled())
    context = context_of(mapless, object_source(), 16, snapshots=dict(states(mapless, (0.0, 1.0))))
    assert MapsOverTraining()(context) == {}
    bare = source_of(("mask",), train=smooth, test=smooth)
    numbers = MapsOverTraining()(context_of(method, bare, 32, snapshots=dict(states(method, (0.0, 1.0)))))
    assert {"map_area@0.00", "map_place_share@1.00", "view_agreement@1.00"} <= set(numbers)
    assert not any(name.startswith("saliency") for name in numbers)


def test_extractors_are_scored_for_methods_with_and_without_a_map(tmp_path):
    torch.manual_seed(0)
    moco = MoCo(
        vit("vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=48, depth=1, num_heads=3),
        dim=8, queue_size=16, bn_groups=1,
    )  # fmt: skip
    source = object_source(train=12, test=10)
    snapshots = {0.0: copy.deepcopy(moco.evaluated_state())}
    context = context_of(moco, source, 16, snapshots=snapshots, folder=tmp_path)
    numbers = MapsOverTraining(extractors=True)(context)
    kinds = {name.split("_")[0] for name in numbers}
    assert kinds == {"attention", "tokencut"} and MapsOverTraining()(context) == {}
    kept = load_file(tmp_path / "0.00.safetensors")
    readings = read(moco, context.data.test.images[:8], 16, tau=0.2)
    assert set(kept) == {"attention", "tokencut"}
    torch.testing.assert_close(kept["attention"], rescaled(readings.heads.mean(dim=1)))
    assert torch.equal(kept["tokencut"], readings.object.float())

    method = SCD(moco)
    context = context_of(method, source, 16, snapshots={0.5: copy.deepcopy(method.evaluated_state())})
    numbers = MapsOverTraining(extractors=True)(context)
    final = Emergence()(context)
    for name in ("learned_jaccard", "inverted_maxf", "attention_corloc", "tokencut_jaccard"):
        assert numbers[f"{name}@1.00"] == numbers[f"{name}@0.50"] == pytest.approx(final[name])
    plain = MapsOverTraining()(context)
    assert plain.items() <= numbers.items() and "saliency_iou@1.00" in plain
    assert {name.split("@")[0] for name in numbers} <= set(MapsOverTraining(extractors=True).metrics)


def test_a_snapshot_of_another_method_is_an_error(smooth):
    method = Learning()
    context = context_of(method, source_of(train=smooth, test=smooth), 32, snapshots={0.0: {"other": torch.zeros(1)}})
    with pytest.raises(RuntimeError, match="other"):
        MapsOverTraining()(context)


@pytest.mark.parametrize(("share", "text"), [(0, "0.00"), (0.25, "0.25"), (1, "1.00"), (1 / 3, "0.333333")])
def test_shares_in_names(share, text):
    assert share_text(share) == text


def test_impossible_numbers_are_refused():
    with pytest.raises(UsageError, match="images is 0, it must be at least 1"):
        MapsOverTraining(images=0)
    with pytest.raises(UsageError, match="kept is -1, it must be 0 or more"):
        MapsOverTraining(kept=-1)


# ---------------------------------------------------------------- agreement between views


def test_a_map_of_the_place_agrees_and_one_of_the_view_does_not(smooth):
    of_place, of_view = (
        view_agreement(With(Scaled(), function), smooth.images, function(whole_view(images)), 24, "cpu")
        for images in (centre_view(smooth.images, 24),)
        for function in (brightness, centre)
    )
    assert of_place > 0.97
    assert of_view < 0.6


def test_a_source_that_uses_the_views_geometry_agrees(smooth):
    prior = CentrePrior(sigma=0.3)
    method = With(Scaled(), lambda view: prior(nn.functional.avg_pool2d(view.images, 2), view))
    maps = method.saliency(whole_view(centre_view(smooth.images, 24)))
    assert view_agreement(method, smooth.images, maps, 24, "cpu") > 0.99


def test_constant_maps_have_no_agreement(smooth):
    method = With(Scaled(), lambda view: torch.full((len(view.images), 8, 8), 0.5))
    assert view_agreement(method, smooth.images, torch.full((12, 8, 8), 0.5), 24, "cpu") is None


def test_correlation_is_numpys():
    random = torch.Generator().manual_seed(1)
    a, b = torch.rand(5, 4, 4, generator=random), torch.rand(5, 4, 4, generator=random)
    expected = [np.corrcoef(x.flatten(), y.flatten())[0, 1] for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    np.testing.assert_allclose(correlation(a, b).numpy(), expected, atol=1e-6)


def test_part_view_and_part_of_maps_show_the_same_coordinates():
    """Red is x and green is y: the view's pixels, its grid and the maps' parts must name the same places."""
    line = (torch.arange(64) + 0.5) / 64
    red, green = line.expand(64, 64), line[:, None].expand(64, 64)
    images = (torch.stack([red, green, red]) * 255).round().to(torch.uint8).expand(4, -1, -1, -1)
    view = part_view(images, CORNERS, SIDE, 16)
    mean, std = torch.tensor([0.485, 0.456]).view(2, 1, 1), torch.tensor([0.229, 0.224]).view(2, 1, 1)
    for channel, whole in ((0, red), (1, green)):
        shown = (view.images[:, :2] * std + mean)[:, channel]
        cut = part_of_maps(whole.expand(4, 64, 64), CORNERS, (16, 16))
        torch.testing.assert_close(shown, cut, atol=0.01, rtol=0)
        torch.testing.assert_close(view.grid(16, 16)[..., channel], cut, atol=0.01, rtol=0)
