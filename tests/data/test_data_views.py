"""Geometry and pairing of views, guarded by images whose red is x and whose green is y."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate
from torchvision.transforms import RandomResizedCrop

from scd.data.crops import RECTANGLE_DRAWS, interpolation_matrix, resample, row_layout, sample_rectangles
from scd.data.recipes import build_recipe, centre_view
from scd.data.views import CropSpec, Recipe, ViewMaker
from scd.errors import UsageError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
SIDE = 64


def coordinate_images(count: int, side: int = SIDE) -> torch.Tensor:
    """(count, 3, side, side) uint8: red is x and green is y of the pixel's centre, times 255; blue is 0."""
    centres = (torch.arange(side) + 0.5) / side * 255
    red = centres.expand(side, side)
    image = torch.stack([red, red.T, torch.zeros(side, side)]).round().to(torch.uint8)
    return image.expand(count, -1, -1, -1).contiguous()


def without_photometrics(recipe: Recipe) -> Recipe:
    return Recipe(recipe.name, tuple(replace(crop, photometric="none") for crop in recipe.crops))


EXTRAS = [
    {"kind": "none"},
    {"kind": "same_rectangle", "count": 2},
    {"kind": "random", "count": 2},
    {"kind": "local", "count": 3, "size": 16},
]


@pytest.mark.parametrize("name", ["mocov2", "byol"])
@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra["kind"])
def test_pixels_lie_where_the_grid_says(name, extra):
    """In every view of every recipe, flipped or not, a pixel shows the source position that View.grid names."""
    recipe = without_photometrics(build_recipe(name, 32, extra=extra))
    views = ViewMaker(recipe, seed=3, **PLAIN)(coordinate_images(48), step=7)
    assert list(views) == [crop.name for crop in recipe.crops]
    for view in views.values():
        size = view.images.shape[-1]
        grid = view.grid(size, size)
        assert view.flips.any() and not view.flips.all()
        away = ((grid > 2 / SIDE) & (grid < 1 - 2 / SIDE)).all(dim=3)  # the filter is cut off at the image's border
        seen = view.images[:, :2].permute(0, 2, 3, 1)
        assert (seen - grid)[away].abs().max() < 1 / 255
        assert away.float().mean() > 0.7
        inside = (view.boxes[:, None, None, :2] <= grid).all() and (grid <= view.boxes[:, None, None, 2:]).all()
        assert inside


def test_grid_of_features_is_the_mean_of_its_pixels():
    recipe = Recipe("one", (CropSpec("v1", 32, photometric="none"),))
    view = ViewMaker(recipe, 0, **PLAIN)(coordinate_images(16), 0)["v1"]
    fine = view.grid(32, 32).view(16, 8, 4, 8, 4, 2).mean(dim=(2, 4))
    torch.testing.assert_close(view.grid(8, 8), fine, rtol=0, atol=1e-5)


def test_masks_follow_the_pixels():
    """The mask of the left-upper part of the image is 1 in a view exactly where the grid lies there."""
    images = coordinate_images(32)
    masks = torch.zeros(32, SIDE, SIDE, dtype=torch.uint8)
    masks[:, :40, :24] = 1
    recipe = build_recipe("mocov2", 32, extra={"kind": "local", "count": 1})
    views = ViewMaker(recipe, 0, masks=True)(images, 1, masks=masks)
    for view in views.values():
        assert set(view.masks.unique().tolist()) <= {0.0, 1.0}
        size = view.images.shape[-1]
        grid = view.grid(size, size)
        expected = ((grid[..., 0] < 24 / SIDE) & (grid[..., 1] < 40 / SIDE)).float()
        edge = ((grid - torch.tensor([24, 40]) / SIDE).abs() < 0.5 / SIDE).any(dim=3)
        assert torch.equal(view.masks[~edge], expected[~edge])
        assert 0 < view.masks.mean() < 1


def test_same_rectangle_is_the_same_rectangle_with_a_fresh_flip():
    recipe = build_recipe("mocov2", 32, extra={"kind": "same_rectangle", "count": 2})
    views = ViewMaker(recipe, 0)(coordinate_images(64), 5)
    for name in ("same0", "same1"):
        assert torch.equal(views[name].boxes, views["v1"].boxes)
        assert not torch.equal(views[name].flips, views["v1"].flips)
        assert not torch.equal(views[name].images, views["v1"].images)
        assert views[name].role == "extra"
    assert not torch.equal(views["v2"].boxes, views["v1"].boxes)
    assert not torch.equal(views["same0"].flips, views["same1"].flips)


@pytest.mark.parametrize("extra", EXTRAS[1:], ids=lambda extra: extra["kind"])
def test_a_view_has_the_same_pixels_whatever_other_views_exist(extra):
    images = torch.randint(0, 256, (16, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = ViewMaker(build_recipe("mocov2", 32), 11)(images, 3)
    more = ViewMaker(build_recipe("mocov2", 32, extra=extra), 11)(images, 3)
    for name in ("v1", "v2"):
        assert torch.equal(plain[name].images, more[name].images)
        assert torch.equal(plain[name].boxes, more[name].boxes)
    other_step = ViewMaker(build_recipe("mocov2", 32), 11)(images, 4)
    other_seed = ViewMaker(build_recipe("mocov2", 32), 12)(images, 3)
    assert not torch.equal(plain["v1"].boxes, other_step["v1"].boxes)
    assert not torch.equal(plain["v1"].boxes, other_seed["v1"].boxes)


def test_rows_of_one_process_among_several_equal_slices_of_one_process():
    images = torch.randint(0, 256, (24, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks = (images[:, 0] > 127).to(torch.uint8)
    maker = ViewMaker(build_recipe("byol", 32, extra={"kind": "local", "count": 1}), 5, masks=True)
    whole = maker(images, 9, masks=masks)
    for rows in (slice(0, 8), slice(8, 16), slice(16, 24)):
        part = maker(images[rows], 9, masks=masks[rows], rows=rows, total=24)
        for name, view in part.items():
            torch.testing.assert_close(view.images, whole[name].images[rows], rtol=0, atol=1e-5)
            assert torch.equal(view.boxes, whole[name].boxes[rows])
            assert torch.equal(view.flips, whole[name].flips[rows])
            assert torch.equal(view.masks, whole[name].masks[rows])


def test_boxes_have_the_areas_and_ratios_of_random_resized_crop():
    boxes = sample_rectangles(torch.rand(20000, RECTANGLE_DRAWS), (0.2, 1.0), (3 / 4, 4 / 3))
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, ratio = width * height, width / height
    assert boxes.min() >= 0 and boxes.max() <= 1
    assert area.min() > 0.2 - 1e-4 and area.max() <= 1
    assert ratio.min() > 3 / 4 - 1e-4 and ratio.max() < 4 / 3 + 1e-4
    # torchvision's own draws on a 1000 px image, where rounding does not matter
    torch.manual_seed(0)
    theirs = torch.tensor([RandomResizedCrop.get_params(torch.empty(1, 1000, 1000), [0.2, 1.0], [3 / 4, 4 / 3])
                           for _ in range(3000)]) / 1000  # fmt: skip
    assert area.mean() == pytest.approx(float((theirs[:, 2] * theirs[:, 3]).mean()), abs=0.01)
    assert boxes[:, 1].mean() == pytest.approx(float(theirs[:, 0].mean()), abs=0.01)
    assert boxes[:, 0].std() == pytest.approx(float(theirs[:, 1].std()), abs=0.01)
    assert ratio.log().std() == pytest.approx(float((theirs[:, 3] / theirs[:, 2]).log().std()), abs=0.01)


def test_impossible_rectangles_fall_back_to_the_central_one():
    """Areas of 0.99 with ratio 4 never fit; the fallback is the largest central rectangle of an allowed ratio."""
    boxes = sample_rectangles(torch.rand(4, RECTANGLE_DRAWS), (0.99, 1.0), (4.0, 4.5))
    torch.testing.assert_close(boxes, torch.tensor([[0, 0.375, 1, 0.625]]).expand(4, -1))
    whole = sample_rectangles(torch.full((2, RECTANGLE_DRAWS), 0.999), (1.0, 1.0), (3 / 4, 4 / 3))
    torch.testing.assert_close(whole, torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, -1))


@pytest.mark.parametrize("size", [16, 33, 48, 80])
def test_resampling_the_whole_image_is_the_antialiased_resize(size):
    images = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    weights = interpolation_matrix(torch.zeros(3), torch.ones(3), 48, size)[:, None]
    ours = resample(row_layout(images), weights, weights)[0]
    theirs = interpolate(images.float() / 255, size=(size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    torch.testing.assert_close(centre_view(images, size, **PLAIN), theirs, rtol=0, atol=1e-5)


def test_centre_view_is_normalised():
    images = torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(centre_view(images, 32).mean(dim=(0, 2, 3)), expected)
    torch.testing.assert_close(centre_view(images, 24).mean(dim=(0, 2, 3)), expected)


def test_views_are_normalised_images():
    images = torch.randint(0, 256, (32, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    recipe = build_recipe("byol", 32)
    raw = ViewMaker(recipe, 0, **PLAIN)(images, 0)["v2"].images
    normal = ViewMaker(recipe, 0)(images, 0)["v2"].images
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    assert raw.min() >= 0 and raw.max() <= 1 and raw.dtype == torch.float32
    torch.testing.assert_close(normal, (raw - mean) / std)


def test_inputs_stay_as_they_are():
    images = torch.randint(0, 256, (8, 3, 48, 48), dtype=torch.uint8)
    before = images.clone()
    ViewMaker(build_recipe("byol", 48), 0)(images, 0)
    assert torch.equal(images, before)


def test_meta_device_gives_shapes():
    recipe = build_recipe("mocov2", 32, extra={"kind": "local", "count": 1, "size": 16})
    views = ViewMaker(recipe, 0, device="meta")(torch.zeros(8, 3, 48, 48, dtype=torch.uint8), 0)
    assert views["v1"].images.device.type == "meta"
    assert {name: tuple(view.images.shape) for name, view in views.items()} == {
        "v1": (8, 3, 32, 32),
        "v2": (8, 3, 32, 32),
        "local0": (8, 3, 16, 16),
    }


def test_recipe_details():
    local = build_recipe("mocov2", 224, extra={"kind": "local", "count": 6})
    assert [crop.size for crop in local.crops] == [224, 224] + [96] * 6
    assert local.crops[0].scale == (0.2, 1.0) and local.crops[2].scale == (0.05, 0.2)
    assert local.name == "mocov2+6local"
    byol = build_recipe("byol", 32, scale=[0.2, 1])
    assert [(crop.photometric, crop.scale) for crop in byol.crops] == [("byol1", (0.2, 1.0)), ("byol2", (0.2, 1.0))]
    assert build_recipe("byol", 32).crops[0].scale == (0.08, 1.0)
    assert [crop.role for crop in local.crops[:3]] == ["global", "global", "extra"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: build_recipe("mocov3", 32),
            r"unknown view recipe 'mocov3'; did you mean 'mocov2'\? valid: byol, mocov2",
        ),
        (lambda: build_recipe("byol", 32, extra={"kind": "locl", "count": 1}), "unknown kind of extra views 'locl'"),
        (lambda: build_recipe("byol", 32, extra={"kind": "local"}), "needs a count of at least 1, not 0"),
        (lambda: build_recipe("byol", 32, extra={"count": 2}), "kind is 'none' but count is 2"),
        (lambda: build_recipe("byol", 32, scale=[0.5]), r"views.scale needs two numbers \(low, high\)"),
        (
            lambda: CropSpec("v1", 32, photometric="mocov1"),
            "photometric recipe 'mocov1'; did you mean 'mocov2'",
        ),
        (lambda: CropSpec("v1", 32, scale=(0.5, 1.5)), "scale ends at 1.5"),
        (lambda: CropSpec("v1", 32, scale=(0.5, 0.2)), r"scale is \(0.5, 0.2\), it needs 0 < low <= high"),
        (lambda: CropSpec("v1", 0), "size is 0, it must be at least 1 pixel"),
        (lambda: CropSpec("v1", 32, flip=2.0), "flip is 2.0"),
        (lambda: CropSpec("v1", 32, role="key"), "unknown role of a view 'key'"),
        (lambda: Recipe("r", (CropSpec("v1", 32), CropSpec("v1", 32))), "two views have the same name"),
        (lambda: Recipe("r", (CropSpec("a", 32, rectangle_of="b"),)), "unknown view .rectangle_of 'a'. 'b'"),
    ],
)
def test_bad_recipes_say_so(make, text):
    with pytest.raises(UsageError, match=text):
        make()


def test_bad_batches_say_so():
    maker = ViewMaker(build_recipe("mocov2", 32), 0)
    with_masks = ViewMaker(build_recipe("mocov2", 32), 0, masks=True)
    images = torch.zeros(4, 3, 48, 48, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"images must be uint8 \(B, 3, S, S\), not torch.float32"):
        maker(images.float(), 0)
    with pytest.raises(ValueError, match="images must be uint8"):
        maker(images[:, :, :40], 0)
    with pytest.raises(ValueError, match="are not the 4 images given"):
        maker(images, 0, rows=slice(0, 3), total=8)
    with pytest.raises(ValueError, match="the data has no masks"):
        with_masks(images, 0)
    with pytest.raises(ValueError, match=r"masks are \(4, 24, 24\), images \(4, 3, 48, 48\)"):
        with_masks(images, 0, masks=torch.zeros(4, 24, 24))


def test_views_of_several_steps_are_those_of_each_step():
    """Made together or apart, to the last bit; all kinds of crops, masks, and a process's rows of a larger batch."""
    random = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (6, 3, 48, 48), dtype=torch.uint8, generator=random) for _ in range(3)]
    masks = [torch.randint(0, 2, (6, 48, 48), dtype=torch.uint8, generator=random) for _ in range(3)]
    for recipe, extra in (("mocov2", {"kind": "local", "count": 2}), ("byol", {"kind": "same_rectangle", "count": 3})):
        make = ViewMaker(build_recipe(recipe, 24, extra=extra), 5, masks=True)
        together = make.several(images, [7, 8, 9], masks, rows=slice(6, 12), total=18)
        for i, step in enumerate((7, 8, 9)):
            apart = make(images[i], step, masks[i], rows=slice(6, 12), total=18)
            assert list(apart) == list(together[i])
            for name, view in apart.items():
                for field in ("images", "boxes", "flips", "masks"):
                    assert torch.equal(getattr(view, field), getattr(together[i][name], field)), (name, field)
