"""View recipes by name, extra views with their defaults, and the view for evaluation."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from scd.data.photometric import photometric
from scd.data.recipes import RECIPES, build_recipe, centre_view, extra_crops, extra_views
from scd.data.views import CropSpec
from scd.errors import UsageError


def test_recipe_details():
    local = build_recipe("mocov2", 224, extra={"kind": "local", "count": 6})
    assert [crop.size for crop in local.crops] == [224, 224] + [96] * 6
    assert local.crops[0].scale == (0.2, 1.0) and local.crops[2].scale == (0.05, 0.2)
    assert local.name == "mocov2+6local"
    byol = build_recipe("byol", 32, scale=[0.2, 1])
    assert [(crop.photometric, crop.scale) for crop in byol.crops] == [("byol1", (0.2, 1.0)), ("byol2", (0.2, 1.0))]
    assert build_recipe("byol", 32).crops[0].scale == (0.08, 1.0)
    assert [crop.role for crop in local.crops[:3]] == ["global", "global", "extra"]


def test_mocos_cifar10_demo_has_mocov2s_views_without_blur():
    crops = build_recipe("moco_cifar10", 32).crops
    assert [(crop.name, crop.scale, crop.share_blurred) for crop in crops] == [
        ("v1", (0.08, 1), 0),
        ("v2", (0.08, 1), 0),
    ]
    ours, theirs = (photometric(name) for name in ("moco_cifar10", "mocov2"))
    assert replace(ours, blur_p=0.5) == theirs


def test_a_single_view_is_cropped_and_flipped_only():
    (crop,) = build_recipe("single", 32).crops
    assert crop == CropSpec("v1", 32, scale=(0.2, 1.0), photometric="none")
    (crop,) = build_recipe("single", 16, scale=[0.08, 1], photometric="mocov2").crops
    assert (crop.size, crop.scale, crop.photometric) == (16, (0.08, 1.0), "mocov2")


def test_every_recipe_begins_with_v1():
    """Arms of different recipes share the rectangles of v1: its random numbers depend on its name."""
    assert {build_recipe(name, 32).crops[0].name for name in RECIPES} == {"v1"}
    assert all(build_recipe(name, 32).name == name for name in RECIPES)


@pytest.mark.parametrize(
    ("kind", "size", "scale", "expected"),
    [
        ("local", 224, (0.2, 1.0), {"kind": "local", "count": 2, "size": 96, "scale": [0.05, 0.2]}),
        ("local", 32, (0.2, 1.0), {"kind": "local", "count": 2, "size": 12, "scale": [0.05, 0.2]}),
        ("random", 224, (0.08, 1.0), {"kind": "random", "count": 2, "size": 224, "scale": [0.08, 1.0]}),
        ("same_rectangle", 64, (0.2, 1.0), {"kind": "same_rectangle", "count": 2, "size": 64, "scale": [0.2, 1.0]}),
    ],
)
def test_extra_views_written_out_are_the_same_views(kind, size, scale, expected):
    written = extra_views(kind, size, scale, 2)
    assert written == expected
    v1 = CropSpec("v1", size, scale=scale)
    assert extra_crops(v1, **written) == extra_crops(v1, kind=kind, count=2)


def test_no_extra_views_written_out():
    assert extra_views("none", 32, (0.2, 1.0), 0) == {"kind": "none", "count": 0}


def test_extra_views_follow_the_first_view():
    v1 = CropSpec("v1", 32, photometric="byol1", flip=0.3, ratio=(0.9, 1.1))
    for kind, name in (("random", "random0"), ("same_rectangle", "same0"), ("local", "local0")):
        (crop,) = extra_crops(v1, kind, 1)
        assert (crop.name, crop.role, crop.photometric, crop.flip, crop.ratio) == (
            name,
            "extra",
            "byol1",
            0.3,
            v1.ratio,
        )
        assert (crop.rectangle_of == "v1") == (kind == "same_rectangle")


def test_the_blur_of_local_views_is_in_pixels_of_a_96_px_view():
    """DINO and SwAV blur local views of 96 px by 0.1 to 2 px; it was scaled by 96/224."""
    recipe = build_recipe("byol", 224, extra={"kind": "local", "count": 1, "photometric": "local"})
    assert [crop.sigma_scale for crop in recipe.crops] == pytest.approx([1, 1, 1])
    shares = [crop.share_blurred for crop in recipe.crops]
    assert shares == pytest.approx([1.75 / 1.9, 0.175 / 1.9, 0.875 / 1.9])
    cifar = build_recipe("byol", 32, extra={"kind": "local", "count": 1, "photometric": "local"})
    assert [crop.sigma_scale for crop in cifar.crops] == pytest.approx([32 / 224, 32 / 224, 12 / 96])


def test_no_view_of_the_cpu_tier_is_blurred_unless_the_blur_is_asked_for():
    local = {"kind": "local", "count": 1}
    assert [crop.share_blurred for crop in build_recipe("mocov2", 24, extra=local).crops] == [0, 0, 0]
    asked = build_recipe("mocov2", 24, extra=local, blur_reference=96)
    assert [crop.sigma_scale for crop in asked.crops] == pytest.approx([24 / 96, 24 / 96, 12 / (96 * 96 / 224)])
    assert all(crop.share_blurred > 0.25 for crop in asked.crops)


@pytest.mark.parametrize("option", ["blur_reference", "weight"])
def test_a_blur_reference_or_weight_of_0_is_refused(option):
    with pytest.raises(UsageError, match=f"view 'v1': {option} is 0, it must be above 0"):
        CropSpec("v1", 32, **{option: 0})


def test_extra_views_have_the_weight_that_is_asked_for():
    """Asym-Siam: six small views together weigh as much as the large one."""
    recipe = build_recipe("mocov2", 32, extra={"kind": "local", "count": 6, "weight": 1 / 6})
    weights = [crop.weight for crop in recipe.crops]
    assert weights[:2] == [1, 1] and sum(weights[2:]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: build_recipe("mocov3", 32),
            r"unknown view recipe 'mocov3'; did you mean 'mocov2'\? valid: byol, moco_cifar10, mocov2, single",
        ),
        (lambda: build_recipe("byol", 32, extra={"kind": "locl", "count": 1}), "unknown kind of extra views 'locl'"),
        (lambda: build_recipe("byol", 32, extra={"kind": "local"}), "needs a count of at least 1, not 0"),
        (lambda: build_recipe("byol", 32, extra={"count": 2}), "kind is 'none' but count is 2"),
        (lambda: build_recipe("byol", 32, scale=[0.5]), r"views.scale needs two numbers \[low, high\]"),
        (
            lambda: build_recipe("byol", 32, photometric="none"),
            "views.photometric is an option of the recipe 'single'; 'byol' has its own photometrics",
        ),
        (lambda: build_recipe("single", 32, photometric="mocov1"), "unknown photometric augmentation 'mocov1'"),
    ],
)
def test_bad_recipes_say_so(make, text):
    with pytest.raises(UsageError, match=text):
        make()


# ---------------------------------------------------------------- the view for evaluation


def test_centre_view_is_normalised():
    images = torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(centre_view(images, 32).mean(dim=(0, 2, 3)), expected)
    torch.testing.assert_close(centre_view(images, 24).mean(dim=(0, 2, 3)), expected)


@pytest.mark.parametrize("size", [16, 33, 48, 80])
def test_centre_view_is_the_antialiased_resize(size):
    images = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    ours = centre_view(images, size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    theirs = interpolate(images.float() / 255, size=(size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
