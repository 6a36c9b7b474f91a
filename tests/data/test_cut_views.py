"""Views that a method cuts itself: against ViewMaker's, by the coordinate image, and rectangles inside boxes."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from view_images import batch_of, coordinate_images, random_boxes, random_images

from scd.data.crops import RECTANGLE_DRAWS, sample_rectangles
from scd.data.cut_views import cut, dilated, drawn_boxes, rectangles_inside, whole_images
from scd.data.recipes import build_recipe
from scd.data.views import ViewMaker
from scd.errors import UsageError
from scd.method import Batch
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD

COUNT, SIDE = 12, 64
BOXES = torch.tensor([[0.1, 0.2, 0.4, 0.9], [0.0, 0.0, 1.0, 1.0], [0.5, 0.55, 0.95, 0.6]]).repeat(4, 1)


def whole_batch(images, needs=(), seed=0, **annotations):
    """A batch of one view of whole images, about half of them mirrored."""
    recipe = build_recipe("single", images.shape[2], scale=[1.0, 1.0])
    return ViewMaker(recipe, seed, needs=frozenset(needs))(batch_of(images, **annotations), 0)


def colours(view):
    """The view's pixels in [0, 1]."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return view.images * std + mean


def test_whole_images_are_the_kept_ones_whatever_was_mirrored():
    images = random_images(COUNT)
    segments = torch.randint(0, 5, (COUNT, 48, 48))
    batch = whole_batch(images, ("masks", "segments", "boxes"), masks=(segments == 1).byte(), segments=segments,
                        boxes=random_boxes(COUNT))  # fmt: skip
    assert batch.views["v1"].flips.any() and not batch.views["v1"].flips.all()
    whole = whole_images(batch)
    assert torch.allclose(whole.images, images / 255, atol=1e-6)
    assert torch.equal(whole.segments, segments) and torch.equal(whole.masks, (segments == 1).float())
    for own, expected in zip(whole.boxes, random_boxes(COUNT), strict=True):
        assert torch.allclose(own, expected, atol=1e-6)


def test_a_cut_is_the_view_that_view_maker_makes_of_the_same_rectangle():
    images = random_images(COUNT)
    made = ViewMaker(build_recipe("mocov2", 24), 0)(batch_of(images), 0).views["v1"]
    whole = whole_images(whole_batch(images))
    plain = cut(whole, made.rectangles, 24, "none", "v1", flip=0.0)
    maker = ViewMaker(build_recipe("single", 24, scale=[0.2, 1.0]), 3)
    reference = maker(batch_of(images), 0).views["v1"]
    own = cut(whole, reference.rectangles, 24, "none", "v1", flip=0.0)
    expected = torch.where(reference.flips[:, None, None, None], reference.images.flip(3), reference.images)
    assert torch.allclose(own.images, expected, atol=1e-5)
    assert torch.equal(plain.rectangles, made.rectangles)


@pytest.mark.parametrize("size", [16, 24])
def test_pixels_masks_segments_and_boxes_of_a_cut_show_the_same_place(size):
    images = coordinate_images(COUNT, SIDE)
    columns = torch.arange(SIDE).expand(COUNT, SIDE, SIDE)
    masks, boxes = (columns < 20).byte(), [torch.tensor([[0.0, 0.0, 20 / SIDE, 1.0]])] * COUNT
    whole = whole_images(
        whole_batch(images, ("masks", "segments", "boxes"), masks=masks, segments=columns, boxes=boxes)
    )
    torch.manual_seed(1)
    view = cut(whole, BOXES, size, "none", "v1")
    assert view.flips.any() and not view.flips.all()
    shown = colours(view)[:, :2].permute(0, 2, 3, 1)
    inner = slice(1, -1)  # the outermost pixels see the border of the image
    assert torch.allclose(shown[:, inner, inner], view.grid(size, size)[:, inner, inner], atol=0.02)
    x = view.grid(size, size)[..., 0]
    assert ((view.segments - (x * SIDE - 0.5)).abs() <= 0.51).all()
    certain = (x * SIDE - 20).abs() > 1.5
    assert torch.equal(view.masks[certain] > 0, (x * SIDE < 20)[certain])
    for own, row in zip(view.boxes, range(COUNT), strict=True):
        inside = (view.segments[row] < 20).any(dim=0).nonzero()[:, 0]
        if len(inside) == 0:
            assert own[0, 0] == own[0, 2] or own[0, 2] - own[0, 0] < 1 / size
            continue
        assert own[0, 0] * size <= inside.min() + 1 and own[0, 2] * size >= inside.max()


def test_photometrics_are_drawn_from_the_global_generator():
    whole = whole_images(whole_batch(random_images(COUNT)))
    views = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        views.append(cut(whole, BOXES, 16, "mocov2", "v1").images)
    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])


def test_rectangles_inside_the_whole_image_are_those_of_the_recipes():
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(200, 1)
    torch.manual_seed(4)
    own = rectangles_inside(boxes, (0.08, 1.0))
    torch.manual_seed(4)
    expected = sample_rectangles(torch.rand(200, RECTANGLE_DRAWS), (0.08, 1.0), (3 / 4, 4 / 3))
    assert torch.allclose(own, expected, atol=1e-6)


def test_rectangles_lie_inside_their_boxes_with_the_asked_area_and_ratio():
    torch.manual_seed(5)
    boxes = BOXES.repeat(50, 1)
    own = rectangles_inside(boxes, (0.3, 0.6))
    assert (own[:, :2] >= boxes[:, :2] - 1e-6).all() and (own[:, 2:] <= boxes[:, 2:] + 1e-6).all()
    sides, box_sides = own[:, 2:] - own[:, :2], boxes[:, 2:] - boxes[:, :2]
    ratio = sides[:, 0] / sides[:, 1]
    assert (ratio > 0.749).all() and (ratio < 1.334).all()
    share = sides.prod(dim=1) / box_sides.prod(dim=1)
    usual = box_sides[:, 0] == box_sides[:, 1]
    assert (share[usual] > 0.299).all() and (share[usual] < 0.601).all()
    flat = box_sides[:, 0] > 5 * box_sides[:, 1]  # no ratio of the range fits: the central part, as high as the box
    assert torch.allclose(sides[flat, 1], box_sides[flat, 1]) and torch.allclose(ratio[flat], torch.tensor(4 / 3))


def test_a_box_is_drawn_of_those_with_an_area_and_the_whole_image_elsewhere():
    torch.manual_seed(6)
    empty, point = torch.zeros(0, 4), torch.tensor([[0.5, 0.5, 0.5, 0.9]])
    two = torch.tensor([[0.1, 0.1, 0.2, 0.2], [0.5, 0.5, 0.5, 0.9], [0.3, 0.3, 0.4, 0.4]])
    chosen, found = drawn_boxes([empty, point, *[two] * 20])
    assert found.tolist() == [False, False] + [True] * 20
    assert torch.equal(chosen[:2], torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2))
    assert {tuple(row) for row in chosen[2:].tolist()} == {tuple(two[0].tolist()), tuple(two[2].tolist())}


def test_dilation_is_relative_to_the_box_and_ends_at_the_image():
    boxes = torch.tensor([[0.2, 0.4, 0.4, 0.5], [0.0, 0.9, 1.0, 1.0]])
    expected = torch.tensor([[0.16, 0.38, 0.44, 0.52], [0.0, 0.88, 1.0, 1.0]])
    assert torch.allclose(dilated(boxes, 0.2), expected)


def test_on_the_meta_device_views_have_shapes_and_cost_nothing():
    images = random_images(COUNT).to("meta")
    masks, boxes = torch.zeros(COUNT, 48, 48, dtype=torch.uint8, device="meta"), torch.zeros(2, 4, device="meta")
    recipe = build_recipe("single", 48, scale=[1.0, 1.0])
    maker = ViewMaker(recipe, 0, "meta", needs=frozenset({"masks", "boxes"}))
    with FlopCounterMode(display=False) as made:
        batch = maker(batch_of(images, masks=masks, boxes=[boxes] * COUNT), 0)
    with FlopCounterMode(display=False) as counted:
        whole = whole_images(batch)
        chosen, _ = drawn_boxes(whole.boxes)
        view = cut(whole, rectangles_inside(dilated(chosen, 0.1), (0.2, 1.0)), 24, "mocov2", "v1")
    assert view.images.shape == (COUNT, 3, 24, 24) and view.masks.shape == (COUNT, 24, 24)
    assert view.rectangles.shape == (COUNT, 4) and view.flips.shape == (COUNT,) and len(view.boxes) == COUNT
    assert made.get_total_flops() > 0 == counted.get_total_flops()


def test_a_batch_of_other_views_is_refused():
    images = random_images(COUNT)
    text = "needs one view of whole images: views.recipe=single"
    with pytest.raises(UsageError, match=text):
        whole_images(ViewMaker(build_recipe("mocov2", 24), 0)(batch_of(images), 0))
    part = ViewMaker(build_recipe("single", 24), 0)(batch_of(images), 0)
    with pytest.raises(UsageError, match=text):
        whole_images(Batch(part.views))
