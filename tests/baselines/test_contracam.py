"""ContraCAM's crops by the coordinate image, its backgrounds against loops and the official code, and its mixtures."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_numbers import assert_same, golden
from small_moco import BATCH, ONE, SIDE, Patches, moco, outputs, views_at
from view_images import batch_of, coordinate_images, random_images

from baselines.contracam import BackgroundMixup, ObjectAwareRandomCrop, backgrounds, drawn_partners, tight_boxes
from baselines.supervised import Supervised
from scd.data.recipes import build_recipe
from scd.data.views import ViewMaker
from scd.errors import UsageError
from scd.method import Batch
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD
from scd.profiling.flops import training_flops

CANVAS, COUNT = 64, 8
BOXES = [
    torch.tensor([[0.1, 0.2, 0.5, 0.9], [0.6, 0.0, 1.0, 0.3]]),
    torch.zeros(0, 4),
    torch.tensor([[0.3, 0.3, 0.3, 0.8]]),  # without area
    torch.tensor([[0.5, 0.5, 1.0, 1.0]]),
] * 2


def whole_batch(images, boxes, size=CANVAS):
    maker = ViewMaker(build_recipe("single", size, scale=[1.0, 1.0]), 0, needs=frozenset({"boxes"}))
    return maker(batch_of(images, boxes=boxes), 0)


def seen_by(method, batch, seed=0):
    """The views that the host of a method gets, and the outputs of the method."""
    seen = {}
    hook = method.siamese.register_forward_pre_hook(lambda module, given: seen.update(given[0].views))
    torch.manual_seed(seed)
    found = method(batch)
    hook.remove()
    return seen, found


# -------------------------------------------------------------------- views inside a box


def test_both_views_show_the_inside_of_one_box_of_the_image():
    method = ObjectAwareRandomCrop(moco(), size=SIDE, photometric="none")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    used = Counter()
    for seed in range(12):
        views, found = seen_by(method, whole_batch(coordinate_images(COUNT, CANVAS), BOXES), seed)
        assert list(views) == ["v1", "v2"] and found["with_box"] == 0.5 and not found["with_box"].requires_grad
        for row, boxes in enumerate(BOXES):
            options = boxes[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)].tolist() or [[0.0, 0.0, 1.0, 1.0]]
            fits = [number for number, box in enumerate(options) if all(inside(v, row, box) for v in views.values())]
            assert fits, "the two views lie in no common box"
            used[row, fits[0]] += 1
            for view in views.values():
                shown = (view.images * std + mean)[row, :2].permute(1, 2, 0)
                part = slice(1, -1)  # the outermost pixels see the border of the image
                assert torch.allclose(shown[part, part], view.grid(SIDE, SIDE)[row, part, part], atol=0.02)
                share = area(view.rectangles[row]) / max(area(options[number]) for number in fits)
                assert 0.079 < share <= 1.001
    assert used[0, 0] and used[0, 1]  # each box at times


def inside(view, row, box):
    x0, y0, x1, y1 = view.rectangles[row].tolist()
    return x0 >= box[0] - 1e-5 and y0 >= box[1] - 1e-5 and x1 <= box[2] + 1e-5 and y1 <= box[3] + 1e-5


def area(box):
    x0, y0, x1, y1 = box
    return float((x1 - x0) * (y1 - y0))


def test_an_image_without_boxes_has_crops_of_the_whole_image():
    method = ObjectAwareRandomCrop(moco(), size=SIDE)
    views, found = seen_by(method, whole_batch(random_images(COUNT), [torch.zeros(0, 4)] * COUNT, 48))
    assert found["with_box"] == 0 and torch.isfinite(found["loss"])
    assert max(area(rectangle) for view in views.values() for rectangle in view.rectangles) > 0.5
    assert all(view.images.shape == (COUNT, 3, SIDE, SIDE) for view in views.values())
    assert not torch.equal(views["v1"].rectangles, views["v2"].rectangles)


def test_the_loss_is_the_hosts_on_these_views():
    method = ObjectAwareRandomCrop(moco(), size=SIDE)
    views, found = seen_by(method, whole_batch(random_images(COUNT), BOXES, 48))
    assert torch.equal(found["loss"], moco()(Batch(views))["loss"])


def test_views_that_are_cut_already_are_refused():
    batch = whole_batch(random_images(COUNT), BOXES, 48)
    batch.views["v2"] = batch.views["v1"]
    with pytest.raises(UsageError, match="needs one view of whole images"):
        ObjectAwareRandomCrop(moco(), size=SIDE)(batch)


def test_operations_are_those_of_the_host_on_views_of_this_size():
    plain = training_flops(moco(), build_recipe("mocov2", SIDE), 8).total
    crop = training_flops(ObjectAwareRandomCrop(moco(), size=SIDE), build_recipe("single", 48, scale=[1.0, 1.0]), 8)
    mixup = training_flops(BackgroundMixup(moco()), build_recipe("mocov2", SIDE), 8)
    assert crop.total == plain == mixup.total


# -------------------------------------------------------------------- backgrounds


def background_by_hand(image, mask):
    """numpy (3, h, w) and (h, w): pixel by pixel; None where there is no background."""
    ys, xs = np.nonzero(mask)
    if len(ys) == 0:
        return None
    height, width = mask.shape
    top, bottom, left, right = ys.min(), ys.max(), xs.min(), xs.max()  # the last row and column belong to the box
    bands = [
        (top * width, range(top), range(width)),
        (left * height, range(height), range(left)),
        ((width - 1 - right) * height, range(height), range(right + 1, width)),
        ((height - 1 - bottom) * width, range(bottom + 1, height), range(width)),
    ]
    size, rows, columns = max(bands, key=lambda band: band[0])
    if size == 0:
        return None
    out = image.copy()
    for y in range(top, bottom + 1):
        for x in range(left, right + 1):
            source_y = rows[y % len(rows)] if len(rows) < height else y
            source_x = columns[x % len(columns)] if len(columns) < width else x
            out[:, y, x] = image[:, source_y, source_x]
    return out


def masks_by_hand():
    """Boxes below, right of, left of and above most background; full; empty; two parts; one pixel in the middle."""
    masks = torch.zeros(8, 12, 10)
    masks[0, 6:11, 2:9] = masks[1, 2:10, 5:9] = masks[2, 1:11, 1:4] = masks[3, 1:4, 2:9] = masks[4] = 1
    masks[6, 7:9, 3] = masks[6, 5, 6] = masks[7, 5, 5] = 1
    return masks


def test_backgrounds_are_those_of_the_loops():
    masks, images = masks_by_hand(), torch.randn(8, 3, 12, 10, dtype=torch.float64)
    boxes, found = tight_boxes(masks)
    assert boxes[0].tolist() == [2, 6, 9, 11] and boxes[6].tolist() == [3, 5, 7, 9]
    assert found.tolist() == [True] * 5 + [False, True, True]
    covered, has = backgrounds(images, boxes, found)
    for image, mask, own, there in zip(images, masks, covered, has, strict=True):
        expected = background_by_hand(image.numpy(), mask.numpy())
        assert there == (expected is not None)
        np.testing.assert_array_equal(own.numpy(), image.numpy() if expected is None else expected)


@pytest.mark.parametrize("seed", range(4))
def test_backgrounds_of_random_masks_show_no_pixel_of_the_box(seed):
    draw = torch.Generator().manual_seed(seed)
    masks = (torch.rand(20, 9, 11, generator=draw) > 0.97).float()
    images = torch.arange(9 * 11.0).view(1, 1, 9, 11).expand(20, 3, -1, -1)  # each pixel's own number
    boxes, found = tight_boxes(masks)
    covered, has = backgrounds(images, boxes, found)
    for own, mask, box, there in zip(covered, masks, boxes.tolist(), has.tolist(), strict=True):
        if there:
            x0, y0, x1, y1 = box
            assert not set(own[0].flatten().tolist()) & set(images[0, 0, y0:y1, x0:x1].flatten().tolist())
            np.testing.assert_array_equal(own.numpy(), background_by_hand(images[0].numpy(), mask.numpy()))


def test_the_official_code_makes_the_same_backgrounds_of_boxes_without_their_last_row_and_column():
    numbers = golden("contracam")
    boxes, found = tight_boxes(numbers["mix.masks"])
    low_y, high_y, low_x, high_x = numbers["mix.boxes"].unbind(dim=1)  # of the official code; the last ones included
    assert torch.equal(boxes, torch.stack([low_x, low_y, high_x + 1, high_y + 1], dim=1))
    assert torch.equal(backgrounds(numbers["mix.images"], boxes, found)[1], numbers["mix.has"])
    trimmed = boxes - torch.tensor([0, 0, 1, 1])
    has = numbers["mix.has"]
    covered, _ = backgrounds(numbers["mix.images"], trimmed, has)
    assert_same(covered, numbers["mix.backgrounds"], "background-only images")
    weights = numbers["mix.weights"][:, None]
    mixed = weights * numbers["mix.images"] + (1 - weights) * covered.roll(-1, 0)
    assert_same(mixed, numbers["mix.mixed"], "mixed images")


def test_partners_are_other_images_with_a_background_each_as_often():
    has = torch.tensor([True, False, True, True, False])
    draws = torch.arange(600).add(0.5) / 600
    for image, expected in enumerate([{2, 3}, {0, 2, 3}, {0, 3}, {0, 2}, {0, 2, 3}]):
        counted = Counter(int(drawn_partners(has, draw.expand(5))[0][image]) for draw in draws)
        assert set(counted) == expected and len(set(counted.values())) == 1
    assert drawn_partners(has, draws[:5])[1].all()
    alone = torch.tensor([False, True, False])
    assert drawn_partners(alone, draws[:3])[1].tolist() == [True, False, True]
    assert not drawn_partners(~alone[:1] & False, draws[:1])[1].any()


# -------------------------------------------------------------------- mixtures


def masked_views(masks):
    views = views_at(ONE, ONE, ONE)
    return {name: replace(view, masks=masks.clone()) for name, view in views.items()}


def squares():
    """A square in each of the images but the last, which is full."""
    masks = torch.zeros(BATCH, SIDE, SIDE)
    for row in range(BATCH - 1):
        masks[row, 4 : 9 + row, 5:10] = 1
    masks[-1] = 1
    return masks


def test_view_1_alone_keeps_its_object_and_gets_another_images_background():
    masks = squares()
    views = masked_views(masks)
    seen, found = seen_by(BackgroundMixup(moco(), probability=1.0), Batch(views))
    covered, has = backgrounds(views["v1"].images, *tight_boxes(masks))
    assert has.tolist() == [True] * (BATCH - 1) + [False]
    assert found["mixed"] == found["with_background"] == (BATCH - 1) / BATCH and not found["mixed"].requires_grad
    for row in range(BATCH - 1):
        own, object_there = seen["v1"].images[row], masks[row] > 0
        assert torch.equal(own[:, object_there], views["v1"].images[row][:, object_there])
        others = [other for other in range(BATCH - 1) if other != row]
        assert sum(torch.equal(own[:, ~object_there], covered[other][:, ~object_there]) for other in others) == 1
    assert torch.equal(seen["v1"].images[-1], views["v1"].images[-1])
    for name in ("v2", "extra"):
        assert seen[name] is views[name]
    assert torch.equal(found["loss"], moco()(Batch(seen))["loss"])


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_nothing_is_mixed_where_no_mask_leaves_a_background(fill):
    views = masked_views(torch.full((BATCH, SIDE, SIDE), fill))
    found = outputs(BackgroundMixup(moco(), probability=1.0), views)
    assert found["mixed"] == found["with_background"] == 0
    assert torch.equal(found["loss"], outputs(moco(), views)["loss"])


def test_an_image_is_mixed_with_the_given_probability():
    views = masked_views(squares())
    assert outputs(BackgroundMixup(moco(), probability=0.0), views)["mixed"] == 0
    method = BackgroundMixup(moco())
    with torch.no_grad():
        shares = torch.stack([outputs(method, views, seed)["mixed"] for seed in range(300)])
    assert shares.mean() == pytest.approx(0.4 * (BATCH - 1) / BATCH, abs=0.05)


# -------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda: ObjectAwareRandomCrop(moco(), size=0), "size is 1 pixel or more, not 0"),
        (
            lambda: ObjectAwareRandomCrop(moco(), scale=(0.5, 0.2)),
            r"two ascending shares in \(0, 1\], not \[0.5, 0.2\]",
        ),
        (lambda: ObjectAwareRandomCrop(moco(), photometric="moco"), "unknown photometric"),
        (lambda: BackgroundMixup(moco(), probability=1.5), "probability is a share in .* not 1.5"),
        (lambda: BackgroundMixup(Supervised(Patches(), classes=3)), "needs a method that compares pairs of views"),
    ],
)
def test_bad_settings_are_refused(made, text):
    with pytest.raises(UsageError, match=text):
        made()


def test_it_needs_what_it_places_its_views_by_beside_what_the_host_needs():
    host = moco()
    host.needs = frozenset({"segments"})
    assert ObjectAwareRandomCrop(host).needs == {"boxes", "segments"}
    assert BackgroundMixup(host).needs == {"masks", "segments"}
    assert ObjectAwareRandomCrop.needs == {"boxes"} and BackgroundMixup.needs == {"masks"}
