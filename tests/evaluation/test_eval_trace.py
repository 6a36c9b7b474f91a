"""Maps while a method learns: where it looks, what it keeps, that looking changes nothing, agreement of known maps."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from scd.data.images import ImageSet
from scd.data.recipes import centre_view
from scd.errors import UsageError
from scd.evaluation.map_trace import CORNERS, SIDE, MapTrace, correlation, part_of_maps, part_view, view_agreement


class Brightness(nn.Module):
    """A map that says how bright the image is there: the same place gets the same value in every view."""

    def saliency(self, images):
        return torch.sigmoid(nn.functional.adaptive_avg_pool2d(images.mean(dim=1), 8))


class Centre(nn.Module):
    """A map of the view's own centre, whatever it shows."""

    def saliency(self, images):
        line = torch.linspace(-1, 1, 8)
        return torch.exp(-(line[:, None] ** 2 + line**2)).expand(len(images), 8, 8)


class Nothing(nn.Module):
    def saliency(self, images):
        return None


@pytest.fixture
def test_set():
    """Smooth random images whose bright half is the object."""
    coarse = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, 32, mode="bicubic", align_corners=False).clamp(0, 1)
    images = (smooth * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    return ImageSet(images, masks=(smooth[:, 0] > 0.5).to(torch.uint8))


def test_it_looks_evenly_and_once_before(test_set, tmp_path):
    trace = MapTrace(test_set, 24, "cpu", tmp_path, points=4)
    assert trace.observer(Brightness(), 90).steps == (0, 22, 45, 68, 90)
    assert MapTrace(test_set, 24, "cpu", tmp_path, points=4).observer(Brightness(), 2).steps == (0, 1, 2)


def test_what_a_look_leaves_and_how_it_is_named(test_set, tmp_path):
    trace = MapTrace(test_set, 24, "cpu", tmp_path, points=2, images=10, kept=3)
    observer = trace.observer(Brightness(), 10)
    for step in observer.steps:
        observer.look(step)
    observer.look(5)  # a run that resumes may look twice
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{step:08d}.{end}" for step in (0, 5, 10) for end in ("json", "safetensors")
    ]
    assert load_file(tmp_path / "00000005.safetensors")["maps"].shape == (3, 8, 8)
    numbers = trace.numbers()
    assert numbers["saliency_iou@0.50"] == json.loads((tmp_path / "00000005.json").read_text())["saliency_iou"]
    assert {name.split("@")[1] for name in numbers} == {"0.00", "0.50", "1.00"}
    assert {name.split("@")[0] for name in numbers} >= {"saliency_maxf_inverted", "map_entropy", "view_agreement"}
    assert numbers["saliency_iou@1.00"] > numbers["saliency_iou_inverted@1.00"]


@pytest.mark.parametrize(("points", "steps", "method"), [(0, 10, Brightness), (4, None, Brightness), (4, 10, Nothing)])
def test_nothing_to_look_at(test_set, tmp_path, points, steps, method):
    trace = MapTrace(test_set, 24, "cpu", tmp_path, points=points)
    assert trace.observer(method(), steps) is None
    assert trace.numbers() == {}


def test_a_map_of_the_place_agrees_and_one_of_the_view_does_not(test_set):
    of_place, of_view = (
        view_agreement(method, test_set.images, method.saliency(centre_view(test_set.images, 24)), 24, "cpu")
        for method in (Brightness(), Centre())
    )
    assert of_place > 0.97
    assert of_view < 0.6


def test_constant_maps_have_no_agreement(test_set):
    class Constant(nn.Module):
        def saliency(self, images):
            return torch.full((len(images), 8, 8), 0.5)

    assert view_agreement(Constant(), test_set.images, torch.full((12, 8, 8), 0.5), 24, "cpu") is None


def test_correlation_is_numpys():
    random = torch.Generator().manual_seed(1)
    a, b = torch.rand(5, 4, 4, generator=random), torch.rand(5, 4, 4, generator=random)
    expected = [np.corrcoef(x.flatten(), y.flatten())[0, 1] for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    np.testing.assert_allclose(correlation(a, b).numpy(), expected, atol=1e-6)


def test_part_view_and_part_of_maps_show_the_same_coordinates():
    """Red is x and green is y: the views' pixels and the maps' parts must name the same places."""
    line = (torch.arange(64) + 0.5) / 64
    red, green = line.expand(64, 64), line[:, None].expand(64, 64)
    images = (torch.stack([red, green, red]) * 255).round().to(torch.uint8).expand(4, -1, -1, -1)
    views = part_view(images, CORNERS, SIDE, 16)
    mean, std = torch.tensor([0.485, 0.456]).view(2, 1, 1), torch.tensor([0.229, 0.224]).view(2, 1, 1)
    for channel, whole in ((0, red), (1, green)):
        shown = (views[:, :2] * std + mean)[:, channel]
        cut = part_of_maps(whole.expand(4, 64, 64), CORNERS, (16, 16))
        torch.testing.assert_close(shown, cut, atol=0.01, rtol=0)


def test_a_negative_number_is_refused(test_set, tmp_path):
    with pytest.raises(UsageError, match="evaluation.trace.images is 0 or more, not -1"):
        MapTrace(test_set, 24, "cpu", tmp_path, images=-1)
