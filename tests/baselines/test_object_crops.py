"""Object-aware cropping: where the crops lie, by their rectangles and by the coordinate image; which view is which."""

import pytest
import torch
from view_images import batch_of, coordinate_images, random_images

from baselines.moco import MoCo
from baselines.object_crops import ObjectAwareCropping, extended
from scd.data.recipes import build_recipe
from scd.data.views import ViewMaker
from scd.errors import UsageError
from scd.nn.backbone import build_backbone
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD

BOX = torch.tensor([[0.3, 0.4, 0.7, 0.8]])
COUNT = 40


def cropping(**options) -> ObjectAwareCropping:
    torch.manual_seed(0)
    host = MoCo(build_backbone("resnet_tiny", widths=(4, 6), strides=(1, 2)), dim=6, hidden=8, queue_size=COUNT)
    return ObjectAwareCropping(host, **{"size": 16, "photometrics": ("none", "none"), **options}).train()


def batch(images: torch.Tensor, boxes: list[torch.Tensor] | None):
    given = {} if boxes is None else {"boxes": boxes}
    maker = ViewMaker(build_recipe("single", images.shape[2], scale=[1.0, 1.0]), 0, needs=frozenset(given))
    return maker(batch_of(images, **given), 0)


def rectangles(method: ObjectAwareCropping, boxes: list[torch.Tensor], seed: int = 0) -> list[torch.Tensor]:
    """Rectangles (B, 4) of the first and the second view."""
    torch.manual_seed(seed)
    views, _ = method.views(batch(random_images(len(boxes)), boxes))
    assert list(views) == ["v1", "v2"] and all(view.role == "global" for view in views.values())
    return [view.rectangles for view in views.values()]


def inside(rectangles: torch.Tensor, box: list[float]) -> torch.Tensor:
    box = torch.tensor(box)
    return ((rectangles[:, :2] >= box[:2] - 1e-6) & (rectangles[:, 2:] <= box[2:] + 1e-6)).all(dim=1)


# -------------------------------------------------------------------- where the crops lie


def test_one_view_is_the_box_and_the_other_the_dilated_box():
    """Crops of all of their box: rectangles are known, and which one comes first is a fair draw."""
    first, second = rectangles(cropping(scale=(1.0, 1.0), dilation=0.25), [BOX] * 200)
    larger = torch.tensor([0.2, 0.3, 0.8, 0.9])  # a quarter of 0.4 on each side
    is_box = [(each - BOX).abs().amax(dim=1) < 1e-5 for each in (first, second)]
    is_larger = [(each - larger).abs().amax(dim=1) < 1e-5 for each in (first, second)]
    assert torch.equal(is_box[0], is_larger[1]) and torch.equal(is_box[1], is_larger[0])
    assert (is_box[0] ^ is_box[1]).all()
    assert is_box[0].float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_crops_lie_inside_their_boxes_and_cover_the_asked_share():
    method = cropping(scale=(0.2, 0.5), dilation=0.1)
    found = rectangles(method, [BOX] * 300)
    small, large = [0.3, 0.4, 0.7, 0.8], [0.26, 0.36, 0.74, 0.84]
    within = [inside(each, small) for each in found]
    assert (within[0] | within[1]).all()
    assert all(inside(each, large).all() for each in found)
    assert all((~each).any() for each in within)  # some reach beyond the box
    for each in found:
        share = (each[:, 2:] - each[:, :2]).prod(dim=1)
        assert (share > 0.2 * 0.4**2 - 1e-5).all() and (share < 0.5 * 0.48**2 + 1e-5).all()


def test_the_smallest_crop_has_several_pixels():
    """A point-like box with the default options, in images of 48 px, and in a box at the image's corner."""
    boxes = [torch.tensor([[0.5, 0.5, 0.501, 0.501]]), torch.tensor([[0.99, 0.0, 1.0, 0.02]])] * 150
    for each in rectangles(cropping(), boxes):
        assert (each >= 0).all() and (each <= 1).all()
        assert ((each[:, 2:] - each[:, :2]) * 48).min() > 5


def test_small_boxes_are_extended_around_their_centre_and_moved_into_the_image():
    boxes = torch.tensor([[0.4, 0.4, 0.5, 0.6], [0.0, 0.9, 0.1, 1.0], [0.1, 0.1, 0.9, 0.8], [0.45, 0.2, 0.55, 0.9]])
    expected = torch.tensor(
        [[0.3, 0.35, 0.6, 0.65], [0.0, 0.7, 0.3, 1.0], [0.1, 0.1, 0.9, 0.8], [0.35, 0.2, 0.65, 0.9]]
    )
    torch.testing.assert_close(extended(boxes, 0.3), expected)


def test_the_pixels_are_those_of_the_rectangles():
    torch.manual_seed(1)
    images = coordinate_images(COUNT)
    views, _ = cropping(size=24).views(batch(images, [BOX] * COUNT))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    for view in views.values():
        assert view.flips.any() and not view.flips.all()
        shown = (view.images * std + mean)[:, :2].permute(0, 2, 3, 1)
        assert torch.allclose(shown, view.grid(24, 24), atol=0.02)


def test_both_views_are_of_the_same_box():
    left, right = torch.tensor([[0.0, 0.0, 0.4, 0.4]]), torch.tensor([[0.6, 0.6, 1.0, 1.0]])
    first, second = rectangles(cropping(dilation=0.1), [torch.cat([left, right])] * 200)
    is_left = [each[:, 2] < 0.5 for each in (first, second)]
    assert torch.equal(*is_left) and is_left[0].float().mean().item() == pytest.approx(0.5, abs=0.12)


def test_an_image_without_boxes_is_its_own_box():
    none = torch.zeros(0, 4)
    method = cropping(scale=(1.0, 1.0))
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(COUNT, 4)
    for each in rectangles(method, [none] * COUNT):
        torch.testing.assert_close(each, whole)
    outputs = method(batch(random_images(COUNT), [none, BOX, BOX, BOX] * (COUNT // 4)))
    assert outputs["with_box"].item() == pytest.approx(0.75) and not outputs["with_box"].requires_grad


# -------------------------------------------------------------------- the host


def test_the_loss_is_the_hosts_on_these_views():
    method, images = cropping(), random_images(COUNT)
    given = batch(images, [BOX] * COUNT)
    torch.manual_seed(2)
    loss = method(given)["loss"]
    torch.manual_seed(2)
    views, _ = method.views(given)
    given.views = views
    assert torch.equal(method.siamese(given)["loss"], loss)


def test_each_view_has_its_own_photometrics():
    torch.manual_seed(3)
    grey = torch.full((COUNT, 3, 32, 32), 128, dtype=torch.uint8)
    views, _ = cropping(photometrics=("none", "mocov2")).views(batch(grey, [BOX] * COUNT))
    spreads = [view.images.flatten(1).mean(dim=1).std() for view in views.values()]
    assert spreads[0] < 1e-5 and spreads[1] > 0.1


def test_needs_are_the_hosts_and_boxes():
    assert cropping().needs == {"boxes"} and cropping().supervision == "none"


def test_wrong_options_and_views_are_refused():
    for option, value, words in [
        ("size", 0, "the size of object-aware crops is 1 pixel or more, not 0"),
        ("scale", (0.0, 1.0), r"the scale of object-aware crops is two ascending shares in \(0, 1\], not \[0.0, 1.0\]"),
        ("dilation", -0.1, "the dilation of object-aware crops is a share of 0 or more, not -0.1"),
        ("smallest_box", 0.0, r"the smallest_box of object-aware crops is a share in \(0, 1\], not 0.0"),
        ("photometrics", ("mocov2",), "object-aware crops have two photometrics, one for each view"),
        ("photometrics", ("mocov2", "mocov3"), "mocov3"),
    ]:
        with pytest.raises(UsageError, match=words):
            cropping(**{option: value})
    images = random_images(COUNT)
    with pytest.raises(UsageError, match="object-aware crops need images with boxes: name what makes them"):
        cropping()(batch(images, None))
    with pytest.raises(UsageError, match="needs one view of whole images: views.recipe=single"):
        cropping()(ViewMaker(build_recipe("mocov2", 16), 0)(batch_of(images), 0))
