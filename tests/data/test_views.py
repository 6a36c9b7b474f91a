"""Geometry and pairing of views, guarded by images whose red is x and whose green is y."""

from dataclasses import replace

import pytest
import torch
from view_images import batch_of, coordinate_images, random_boxes, random_images

from scd.data.recipes import build_recipe
from scd.data.views import CropSpec, Recipe, ViewMaker
from scd.errors import UsageError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
SIDE = 64
EXTRAS = [
    {"kind": "none"},
    {"kind": "same_rectangle", "count": 2},
    {"kind": "random", "count": 2},
    {"kind": "local", "count": 3, "size": 16},
]
ALL_RECIPES = [("single", EXTRAS[0]), *((name, extra) for name in ("mocov2", "byol") for extra in EXTRAS)]


def views_of(recipe: Recipe, images: torch.Tensor, step: int, seed: int = 0, **options):
    return ViewMaker(recipe, seed, **options)(batch_of(images), step).views


def without_photometrics(recipe: Recipe) -> Recipe:
    return Recipe(recipe.name, tuple(replace(crop, photometric="none") for crop in recipe.crops))


# ---------------------------------------------------------------- geometry


@pytest.mark.parametrize(
    ("name", "extra"), ALL_RECIPES, ids=lambda value: value["kind"] if isinstance(value, dict) else value
)
def test_pixels_masks_segments_boxes_and_grid_show_the_same_place(name, extra):
    """In every view of every recipe, flipped or not, everything lies at the source position that View.grid names.

    Pixels show their position as a colour. The mask is the left upper part of the image. A segment is one source pixel,
    so its number says where it comes from. Boxes are tested position by position.
    """
    count = 40
    recipe = without_photometrics(build_recipe(name, 32, extra=extra))
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.uint8)
    masks[:, :40, :24] = 1
    segments = torch.arange(SIDE * SIDE, dtype=torch.int16).view(1, SIDE, SIDE).expand(count, -1, -1)
    boxes = random_boxes(count)
    maker = ViewMaker(recipe, seed=3, needs=frozenset({"masks", "segments", "boxes"}), **PLAIN)
    batch = maker(batch_of(coordinate_images(count), masks=masks, segments=segments, boxes=boxes), step=7)
    assert list(batch.views) == [crop.name for crop in recipe.crops]
    for view in batch.views.values():
        size = view.images.shape[-1]
        grid = view.grid(size, size)
        assert view.flips.any() and not view.flips.all()
        corners = view.rectangles[:, None, None]
        assert (corners[..., :2] <= grid).all() and (grid <= corners[..., 2:]).all()
        # pixels; the filter is cut off at the image's border
        away = ((grid > 2 / SIDE) & (grid < 1 - 2 / SIDE)).all(dim=3)
        seen = view.images[:, :2].permute(0, 2, 3, 1)
        assert (seen - grid)[away].abs().max() < 1 / 255 and away.float().mean() > 0.7
        # masks
        edge = ((grid - torch.tensor([24, 40]) / SIDE).abs() < 0.5 / SIDE).any(dim=3)
        expected = ((grid[..., 0] < 24 / SIDE) & (grid[..., 1] < 40 / SIDE)).float()
        assert torch.equal(view.masks[~edge], expected[~edge]) and set(view.masks.unique().tolist()) == {0.0, 1.0}
        # segments; exact but where rounding moves a position over the border of two pixels
        pixel = (grid * SIDE).long()
        border = ((grid * SIDE - (grid * SIDE).round()).abs() < 1e-3).any(dim=3)
        assert view.segments.dtype == torch.int64 and border.float().mean() < 0.02
        assert torch.equal(view.segments[~border], (pixel[..., 1] * SIDE + pixel[..., 0])[~border])
        # boxes, in their order
        v, u = torch.meshgrid(*[(torch.arange(size) + 0.5) / size] * 2, indexing="ij")
        for places, here, there in zip(grid, view.boxes, boxes, strict=True):
            assert here.shape == there.shape
            for box, origin in zip(here, there, strict=True):
                inside_view = (u > box[0]) & (u < box[2]) & (v > box[1]) & (v < box[3])
                inside_image = ((places > origin[:2]) & (places < origin[2:])).all(dim=2)
                near = ((places - origin[:2]).abs().minimum((places - origin[2:]).abs()) < 1e-5).any(dim=2)
                assert torch.equal(inside_view[~near], inside_image[~near])


def test_grid_of_features_is_the_mean_of_its_pixels():
    recipe = Recipe("one", (CropSpec("v1", 32, photometric="none"),))
    view = views_of(recipe, coordinate_images(16), 0, **PLAIN)["v1"]
    fine = view.grid(32, 32).view(16, 8, 4, 8, 4, 2).mean(dim=(2, 4))
    torch.testing.assert_close(view.grid(8, 8), fine, rtol=0, atol=1e-5)


def test_unknown_segments_stay_unknown():
    segments = torch.full((4, 48, 48), -1, dtype=torch.int16)
    maker = ViewMaker(build_recipe("mocov2", 16), 0, needs=frozenset({"segments"}))
    views = maker(batch_of(random_images(4), segments=segments), 0).views
    assert all((view.segments == -1).all() for view in views.values())


def test_same_rectangle_is_the_same_rectangle_with_a_fresh_flip():
    recipe = build_recipe("mocov2", 32, extra={"kind": "same_rectangle", "count": 2})
    views = views_of(recipe, coordinate_images(64), 5)
    for name in ("same0", "same1"):
        assert torch.equal(views[name].rectangles, views["v1"].rectangles)
        assert not torch.equal(views[name].flips, views["v1"].flips)
        assert not torch.equal(views[name].images, views["v1"].images)
        assert views[name].role == "extra"
    assert not torch.equal(views["v2"].rectangles, views["v1"].rectangles)
    assert not torch.equal(views["same0"].flips, views["same1"].flips)


# ---------------------------------------------------------------- pairing


def test_rectangles_and_flips_are_fixed_by_seed_step_and_name():
    """The layout of the random numbers: another one would give every arm other crops."""
    views = views_of(build_recipe("mocov2", 24, extra={"kind": "local", "count": 1}), random_images(2), 7, seed=5)
    expected = {
        "v1": (
            [[0.0998124, 0.1377264, 0.9032467, 0.7841069], [0.0104594, 0.024329, 0.8115214, 0.9995208]],
            [True, True],
        ),
        "v2": (
            [[0.0161164, 0.227069, 0.9206458, 0.9987754], [0.0916568, 0.0281222, 0.5755563, 0.4464565]],
            [False, True],
        ),
        "local0": (
            [[0.1608896, 0.3155304, 0.5008658, 0.7651381], [0.6075183, 0.2626699, 0.9155757, 0.5519673]],
            [False, True],
        ),
    }
    assert list(views) == list(expected)
    for name, (rectangles, flips) in expected.items():
        torch.testing.assert_close(views[name].rectangles, torch.tensor(rectangles), rtol=0, atol=1e-6)
        assert views[name].flips.tolist() == flips


@pytest.mark.parametrize("extra", EXTRAS[1:], ids=lambda extra: extra["kind"])
def test_a_view_has_the_same_pixels_whatever_other_views_exist(extra):
    images = random_images(16)
    plain = views_of(build_recipe("mocov2", 32), images, 3, seed=11)
    more = views_of(build_recipe("mocov2", 32, extra=extra), images, 3, seed=11)
    for name in ("v1", "v2"):
        assert torch.equal(plain[name].images, more[name].images)
        assert torch.equal(plain[name].rectangles, more[name].rectangles)
    other_step = views_of(build_recipe("mocov2", 32), images, 4, seed=11)
    other_seed = views_of(build_recipe("mocov2", 32), images, 3, seed=12)
    assert not torch.equal(plain["v1"].rectangles, other_step["v1"].rectangles)
    assert not torch.equal(plain["v1"].rectangles, other_seed["v1"].rectangles)
    alone = views_of(build_recipe("single", 32, photometric="mocov2"), images, 3, seed=11)["v1"]
    assert torch.equal(alone.images, plain["v1"].images)


def test_pixels_do_not_depend_on_what_else_is_needed():
    images, recipe = random_images(8), build_recipe("byol", 24)
    plain = ViewMaker(recipe, 1)(batch_of(images), 2).views
    masks = torch.ones(8, 48, 48, dtype=torch.uint8)
    given = {"masks": masks, "segments": masks.short(), "boxes": [torch.zeros(0, 4)] * 8}
    full = ViewMaker(recipe, 1, needs=frozenset(given))(batch_of(images, **given), 2).views
    for name, view in plain.items():
        assert torch.equal(view.images, full[name].images) and view.masks is view.segments is view.boxes is None
        assert [len(boxes) for boxes in full[name].boxes] == [0] * 8 and full[name].masks.all()


def test_rows_of_one_process_among_several_equal_slices_of_one_process():
    images = random_images(24)
    masks, boxes = (images[:, 0] > 127).to(torch.uint8), random_boxes(24)
    recipe = build_recipe("byol", 32, extra={"kind": "local", "count": 1})
    maker = ViewMaker(recipe, 5, needs=frozenset({"masks", "segments", "boxes"}))
    whole = maker(batch_of(images, masks=masks, segments=masks.short(), boxes=boxes), 9)
    for rows in (slice(0, 8), slice(8, 16), slice(16, 24)):
        given = {"masks": masks[rows], "segments": masks[rows].short(), "boxes": boxes[rows]}
        part = maker(batch_of(images[rows], rows, 24, **given), 9)
        assert torch.equal(part.indices, whole.indices[rows])
        for name, view in part.views.items():
            torch.testing.assert_close(view.images, whole.views[name].images[rows], rtol=0, atol=1e-5)
            for field in ("rectangles", "flips", "masks", "segments"):
                assert torch.equal(getattr(view, field), getattr(whole.views[name], field)[rows])
            for own, expected in zip(view.boxes, whole.views[name].boxes[rows], strict=True):
                assert torch.equal(own, expected)


def test_views_of_several_steps_are_those_of_each_step():
    """Made together or apart, to the last bit; all kinds of crops and annotations, and rows of a larger batch."""
    images = random_images(18).split(6)
    masks, boxes = (
        [(part[:, 0] > 127).to(torch.uint8) for part in images],
        [random_boxes(6), random_boxes(7)[1:], random_boxes(6)],
    )
    for recipe, extra in (("mocov2", {"kind": "local", "count": 2}), ("byol", {"kind": "same_rectangle", "count": 3})):
        make = ViewMaker(
            build_recipe(recipe, 24, extra=extra), 5, needs=frozenset({"masks", "segments", "boxes", "labels"})
        )
        batches = [
            batch_of(image, slice(6, 12), 18, masks=mask, segments=mask.short(), boxes=box)
            for image, mask, box in zip(images, masks, boxes, strict=True)
        ]
        for number, batch in enumerate(batches):
            batch.labels = torch.arange(6) + number
        together = make.several(batches, [7, 8, 9])
        for batch, step, joint in zip(batches, (7, 8, 9), together, strict=True):
            apart = make(batch, step)
            assert torch.equal(apart.labels, batch.labels) and torch.equal(joint.labels, batch.labels)
            assert torch.equal(joint.indices, batch.indices) and list(apart.views) == list(joint.views)
            for name, view in apart.views.items():
                for field in ("images", "rectangles", "flips", "masks", "segments"):
                    assert torch.equal(getattr(view, field), getattr(joint.views[name], field)), (name, field)
                assert all(torch.equal(a, b) for a, b in zip(view.boxes, joint.views[name].boxes, strict=True))


def test_labels_are_passed_on_only_where_they_are_needed():
    batch = batch_of(random_images(4))
    batch.labels = torch.tensor([3, 1, 0, 2])
    recipe = build_recipe("single", 16)
    assert ViewMaker(recipe, 0)(batch, 0).labels is None
    assert ViewMaker(recipe, 0, needs=frozenset({"labels"}))(batch, 0).labels.tolist() == [3, 1, 0, 2]


# ---------------------------------------------------------------- values


def test_views_are_normalised_images():
    images, recipe = random_images(32), build_recipe("byol", 32)
    raw = views_of(recipe, images, 0, **PLAIN)["v2"].images
    normal = views_of(recipe, images, 0)["v2"].images
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    assert raw.min() >= 0 and raw.max() <= 1 and raw.dtype == torch.float32
    torch.testing.assert_close(normal, (raw - mean) / std)


def test_inputs_stay_as_they_are():
    images = random_images(8)
    masks, segments, boxes = torch.ones(8, 48, 48, dtype=torch.uint8), torch.ones(8, 48, 48).short(), random_boxes(8)
    before = [value.clone() for value in (images, masks, segments, *boxes)]
    maker = ViewMaker(build_recipe("byol", 48), 0, needs=frozenset({"masks", "segments", "boxes"}))
    maker(batch_of(images, masks=masks, segments=segments, boxes=boxes), 0)
    assert all(torch.equal(a, b) for a, b in zip(before, (images, masks, segments, *boxes), strict=True))


def test_meta_device_gives_shapes():
    recipe = build_recipe("mocov2", 32, extra={"kind": "local", "count": 1, "size": 16})
    maker = ViewMaker(recipe, 0, device="meta", needs=frozenset({"masks", "segments", "boxes"}))
    masks = torch.zeros(8, 48, 48, dtype=torch.uint8)
    batch = maker(batch_of(random_images(8), masks=masks, segments=masks.short(), boxes=random_boxes(8)), 0)
    assert batch.views["v1"].images.device.type == "meta"
    for name, size in (("v1", 32), ("v2", 32), ("local0", 16)):
        view = batch.views[name]
        assert view.images.shape == (8, 3, size, size) and view.masks.shape == view.segments.shape == (8, size, size)
        assert [len(boxes) for boxes in view.boxes] == [0, 1, 2, 3, 4, 0, 1, 2]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: CropSpec("v1", 32, photometric="mocov1"),
            "unknown photometric augmentation 'mocov1'; did you mean 'mocov2'",
        ),
        (lambda: CropSpec("v1", 32, scale=(0.5, 1.5)), "scale ends at 1.5"),
        (lambda: CropSpec("v1", 32, scale=(0.5, 0.2)), r"scale is \(0.5, 0.2\), it needs 0 < low <= high"),
        (lambda: CropSpec("v1", 0), "size is 0, it must be at least 1 pixel"),
        (lambda: CropSpec("v1", 32, flip=2.0), "flip is 2.0"),
        (lambda: CropSpec("v1", 32, role="key"), "unknown role of a view 'key'"),
        (lambda: Recipe("r", (CropSpec("v1", 32), CropSpec("v1", 32))), "two views have the same name"),
        (lambda: Recipe("r", (CropSpec("a", 32, rectangle_of="b"),)), "unknown view .rectangle_of 'a'. 'b'"),
        (
            lambda: ViewMaker(build_recipe("mocov2", 32), 0, needs=frozenset({"mask"})),
            "unknown need of a method 'mask'; did you mean 'masks'",
        ),
    ],
)
def test_bad_recipes_say_so(make, text):
    with pytest.raises(UsageError, match=text):
        make()


def test_bad_batches_say_so():
    images = torch.zeros(4, 3, 48, 48, dtype=torch.uint8)
    recipe = build_recipe("mocov2", 32)

    def refused(text: str, batch, *needs: str) -> None:
        with pytest.raises(ValueError, match=text):
            ViewMaker(recipe, 0, needs=frozenset(needs))(batch, 0)

    refused(r"images must be uint8 \(B, 3, S, S\), not torch.float32", batch_of(images.float()))
    refused("images must be uint8", batch_of(images[:, :, :40]))
    refused("are not the 4 images given", batch_of(images, slice(0, 3), 8))
    refused("the method needs masks, but the batch has none", batch_of(images), "masks")
    refused("the method needs labels, but the batch has none", batch_of(images), "labels")
    refused(
        r"masks are \(4, 24, 24\), images \(4, 3, 48, 48\)", batch_of(images, masks=torch.zeros(4, 24, 24)), "masks"
    )
    refused(r"segments are \(3, 48, 48\)", batch_of(images, segments=torch.zeros(3, 48, 48)), "segments")
    refused("there are boxes of 3 images, but 4 images", batch_of(images, boxes=random_boxes(3)), "boxes")
