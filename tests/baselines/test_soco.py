"""SoCo against a second formula, its geometry by the coordinate image, its draws, and boxes that no view shows."""

import math

import pytest
import torch
from torch import nn

from baselines.soco import SoCo, draw, jittered, padded, read_boxes
from scd.data.loader import ImageBatch
from scd.data.recipes import build_recipe
from scd.data.view_boxes import boxes_in_view
from scd.data.views import CropSpec, Recipe, ViewMaker
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.backbone import build_backbone
from scd.nn.vit import vit

OPTIONS = {"dim": 6, "hidden": 12, "channels": 5, "roi": 3, "box_convs": 1, "head_width": 7, "momentum": 0.9}


def soco(**options) -> SoCo:
    torch.manual_seed(0)
    return SoCo(build_backbone("resnet_tiny", widths=(4, 6, 8), strides=(1, 2, 2)), **{**OPTIONS, **options}).train()


def views_of(boxes: list[torch.Tensor], size: int = 24, seed: int = 0, extra=None) -> Batch:
    """The views of a recipe of random images with these boxes."""
    images = torch.randint(256, (len(boxes), 3, 32, 32), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    made = ImageBatch(images, torch.arange(len(boxes)), slice(0, len(boxes)), len(boxes), None, {"boxes": boxes})
    recipe = build_recipe("byol", size, scale=(0.5, 1.0), extra=extra)
    return ViewMaker(recipe, seed, needs=frozenset({"boxes"}))(made, 0)


def random_boxes(*counts: int) -> list[torch.Tensor]:
    corners = torch.Generator().manual_seed(2)
    return [torch.rand(n, 2, 2, generator=corners).sort(dim=1).values.flatten(1) for n in counts]


def given(*boxes: list[list[list[float]]]) -> Batch:
    """Views v1, v2 of noise with these boxes of each image, in [0, 1] of each view."""
    draws = torch.Generator().manual_seed(3)
    rectangles, flips = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(boxes[0]), 4), torch.zeros(len(boxes[0])) > 0
    views = {}
    for name, each in zip(("v1", "v2"), boxes, strict=True):
        images = torch.randn(len(each), 3, 24, 24, generator=draws)
        tensors = [torch.tensor(box).reshape(-1, 4) for box in each]
        views[name] = View(name, "global", images, rectangles, flips, boxes=tensors)
    return Batch(views)


# -------------------------------------------------------------------- the loss


def plain_loss(method: SoCo, batch: Batch) -> float:
    """The loss by loops over pairs, images and all of their boxes, in evaluation mode and without jitter."""
    globals_ = [name for name, view in batch.views.items() if view.role == "global"]
    pairs = [tuple(globals_), tuple(reversed(globals_))]
    pairs += [(name, target) for name in batch.views if name not in globals_ for target in globals_]

    def vector(name: str, b: int, k: int, prefix: str) -> torch.Tensor:
        view = batch.views[name]
        x, stages = view.images[b : b + 1], []
        for number, part in enumerate(getattr(method, prefix + "backbone").trunk):
            x = part(x)
            stages += [x] if number >= 3 else []
        fpn = getattr(method, prefix + "fpn")
        levels = list(fpn({str(i): each for i, each in enumerate(stages)}).values())[: len(stages)]
        x0, y0, x1, y1 = view.boxes[b][k].tolist()
        size, level = math.sqrt((x1 - x0) * (y1 - y0)) * view.images.shape[3], 0
        while level < len(stages) - 1 and size > 12 * (method.roi / 7) * 2 ** (level + 1):
            level += 1
        maps = levels[level]
        region = torch.zeros(maps.shape[1], method.roi, method.roi)
        height, width = maps.shape[2:]
        cell_x, cell_y = (x1 - x0) * width / method.roi, (y1 - y0) * height / method.roi
        across, down = math.ceil(cell_x), math.ceil(cell_y)  # samples in a cell
        for row in range(method.roi):
            for column in range(method.roi):
                for i in range(down):
                    for j in range(across):
                        y = y0 * height + (row + (i + 0.5) / down) * cell_y - 0.5
                        x = x0 * width + (column + (j + 0.5) / across) * cell_x - 0.5
                        region[:, row, column] += bilinear(maps[0], y, x) / (down * across)
        return getattr(method, prefix + "projector")(getattr(method, prefix + "box_head")(region[None]))

    total = []
    for online, target in pairs:
        images = []
        for b in range(len(batch.views[online].boxes)):
            terms = []
            for k in range(len(batch.views[online].boxes[b])):
                shown = [batch.views[name].boxes[b][k] for name in (online, target)]
                if all(box[2] > box[0] and box[3] > box[1] for box in shown):
                    p = method.matcher.predictor(vector(online, b, k, ""))[0]
                    z = vector(target, b, k, "target_")[0]
                    terms.append(float(((p / p.norm() - z / z.norm()) ** 2).sum()))
            images += [sum(terms) / len(terms)] if terms else []
        total.append(sum(images) / len(images) if images else 0.0)
    return sum(total) / len(total)


def bilinear(maps: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """Maps (C, h, w) at a point in positions, the border's value outside the outermost centres."""
    height, width = maps.shape[1:]
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    above = maps[:, top, left] * (1 - (x - left)) + maps[:, top, right] * (x - left)
    below = maps[:, bottom, left] * (1 - (x - left)) + maps[:, bottom, right] * (x - left)
    return above * (1 - (y - top)) + below * (y - top)


@pytest.mark.parametrize("extra", [None, {"kind": "local", "count": 2, "size": 16, "scale": (0.3, 0.6)}])
@torch.no_grad()
def test_the_loss_is_that_of_plain_loops(extra):
    method = soco(jitter=0.0, roi=2).eval()
    for parameter in method.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    batch = views_of(random_boxes(3, 1, 4), extra=extra)
    levels = torch.cat([method.level_of(padded(view), 24).flatten() for view in batch.views.values()]).unique()
    assert len(levels) > 1
    assert float(method(batch)["loss"]) == pytest.approx(plain_loss(method, batch), abs=1e-5)


def test_weights_of_extra_views_are_those_of_their_pairs():
    method = soco(jitter=0.0).eval()
    extra = {"kind": "random", "count": 1, "weight": 1e-6}
    boxes = random_boxes(3, 3)
    alone, beside = method(views_of(boxes))["loss"], method(views_of(boxes, extra=extra))["loss"]
    assert beside.item() == pytest.approx(alone.item(), abs=1e-4)


def test_gradients_reach_the_online_branch_and_not_the_target():
    method = soco()
    method(views_of(random_boxes(3, 2, 4)))["loss"].backward()
    for name, parameter in method.named_parameters():
        if name.startswith("target_"):
            assert parameter.grad is None, name
    for part in (method.backbone, method.fpn, method.box_head, method.projector, method.matcher.predictor):
        assert any(parameter.grad.abs().sum() > 0 for parameter in part.parameters())


def test_double_precision_and_autocast():
    batch = views_of(random_boxes(3, 2))
    single = soco(jitter=0.0)(batch)["loss"]
    for view in batch.views.values():
        view.boxes = [box.double() for box in view.boxes]
        view.images = view.images.double()
    double = soco(jitter=0.0).double()(batch)["loss"]
    assert double.dtype == torch.float64 and double.item() == pytest.approx(single.item(), abs=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = soco()(views_of(random_boxes(3, 2)))["loss"]
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)


# -------------------------------------------------------------------- geometry


def coordinate_views(flips: tuple[bool, bool]) -> tuple[list[View], torch.Tensor]:
    """Two crops of an image whose red is x and whose green is y, and a box of it that both show whole."""
    size, boxes = 64, torch.tensor([[0.35, 0.4, 0.6, 0.7]])
    ramp = (torch.arange(size) * 4).to(torch.uint8)
    image = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.zeros(size, size)])
    crops = tuple(
        CropSpec(f"v{i}", 48, scale=(0.7, 1.0), photometric="none", flip=float(flip)) for i, flip in enumerate(flips)
    )
    maker = ViewMaker(Recipe("two", crops), 5, needs=frozenset({"boxes"}), mean=(0, 0, 0), std=(1, 1, 1))
    batch = ImageBatch(image[None].to(torch.uint8), torch.arange(1), slice(0, 1), 1, None, {"boxes": [boxes]})
    return list(maker(batch, 0).views.values()), boxes


def test_a_box_shows_the_same_places_in_flipped_and_unflipped_views():
    """The pooled coordinates of both views are those of the box in the source image, mirrored where the view is."""
    views, boxes = coordinate_views((False, True))
    assert views[0].flips.tolist() == [False] and views[1].flips.tolist() == [True]
    x0, y0, x1, y1 = boxes[0].tolist()
    places = (torch.arange(4) + 0.5) / 4
    for view in views:
        assert boxes_in_view(boxes, view.rectangles[0], view.flips[0])[1].item() == pytest.approx(1)
        read = read_boxes([view.images], view.boxes[0][None], torch.zeros(1, 1, dtype=torch.long), 4)[0]
        read = read.flip(2) if view.flips[0] else read
        # pixel i of 64 has its centre at (i + 0.5) / 64 and the value 4 i / 255
        x, y = ((read[axis] * 255 / 4 + 0.5) / 64 for axis in (0, 1))
        torch.testing.assert_close(x, (x0 + places * (x1 - x0)).expand(4, 4), atol=4e-3, rtol=0)
        torch.testing.assert_close(y, (y0 + places * (y1 - y0))[:, None].expand(4, 4), atol=4e-3, rtol=0)


def test_each_box_is_read_from_its_own_level_and_image():
    draws = torch.Generator().manual_seed(0)
    levels = [torch.full((2, 1, side, side), float(10 * n)) for n, side in enumerate((8, 4))]
    levels = [maps + torch.tensor([0.0, 1.0])[:, None, None, None] for maps in levels]
    boxes = torch.rand(2, 3, 2, 2, generator=draws).sort(dim=2).values.flatten(2)
    read = read_boxes(levels, boxes, torch.tensor([[0, 1, 1], [1, 0, 0]]), 2)
    assert read.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0, 10, 10, 11, 1, 1])


def test_levels_go_by_the_root_of_the_area_in_pixels():
    """The paper's numbers: up to 48, 96 and 192 px on the levels of strides 4, 8 and 16."""
    method = soco(roi=7)
    method.strides = [4, 8, 16, 32]
    sides = torch.tensor([[10.0, 47.0, 49.0, 95.0, 97.0, 191.0, 193.0, 224.0]]) / 224
    boxes = torch.stack([torch.zeros_like(sides), torch.zeros_like(sides), sides, sides], dim=2)
    assert method.level_of(boxes, 224).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
    oblong = torch.tensor([[[0.0, 0.0, 200 / 224, 10 / 224]]])
    assert method.level_of(oblong, 224).item() == 0
    assert method.level_of(boxes, 112).tolist() == [[0, 0, 0, 0, 1, 1, 2, 2]]  # half as many pixels


def test_levels_are_the_strides_of_the_backbone():
    assert soco().strides == [2, 4, 8]
    with torch.device("meta"):
        assert SoCo(build_backbone("resnet50"), **OPTIONS).strides == [4, 8, 16, 32]
    torch.manual_seed(0)
    small = vit("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=12, depth=1, num_heads=2)
    single = SoCo(small, **OPTIONS)
    assert single.strides == [8]
    loss = single(views_of(random_boxes(2, 2), size=32))["loss"]
    assert torch.isfinite(loss)


# -------------------------------------------------------------------- what is drawn


def test_both_views_draw_the_same_boxes_anew_each_step(monkeypatch):
    seen = []
    method = soco(jitter=0.0, proposals=2)
    monkeypatch.setattr(method, "embed", lambda features, boxes, *rest: seen.append(boxes) or torch.rand(1, 2, 6))
    monkeypatch.setattr(method.matcher.predictor, "forward", lambda x: x)
    edges = torch.linspace(0.1, 0.8, 8)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0])
    boxes = torch.stack([edges, edges, edges + 0.1, edges + 0.15], dim=1)
    views = {
        name: View(name, "global", torch.rand(1, 3, 24, 24), whole[None], torch.tensor([flip]), boxes=[shown])
        for name, flip, shown in (("v1", False, boxes), ("v2", True, boxes_in_view(boxes, whole, True)[0]))
    }
    numbers = []
    for step in range(6):
        seen.clear()
        torch.manual_seed(step)
        method(Batch(views))
        plain, mirrored = seen[0], seen[1]  # online view 1, target view 2
        torch.testing.assert_close(mirrored[..., [0, 2]], 1 - plain[..., [2, 0]])
        torch.testing.assert_close(mirrored[..., [1, 3]], plain[..., [1, 3]])
        torch.testing.assert_close(seen[3], plain)  # the other direction: target view 1
        numbers.append(tuple(((plain[0, :, 0] - 0.1) * 10).round().int().tolist()))
    assert len(set(numbers)) > 3 and all(len(set(each)) == 2 for each in numbers)


def test_usable_boxes_are_drawn_first_each_once_and_uniformly():
    draws = torch.Generator().manual_seed(0)
    usable = torch.tensor([[True, False, True, True, True, False]]).expand(4000, 6)
    rows, counted = draw(usable, torch.rand(4000, 6, generator=draws), 2)
    assert counted.all() and (rows[:, 0] != rows[:, 1]).all()
    shares = torch.bincount(rows.flatten(), minlength=6) / 8000
    assert shares[[1, 5]].tolist() == [0, 0] and shares[[0, 2, 3, 4]].tolist() == pytest.approx([0.25] * 4, abs=0.02)


def test_too_few_boxes_are_repeated_and_count_once():
    usable = torch.tensor([[False, True, False, True, False], [False] * 5, [True] * 5])
    rows, counted = draw(usable, torch.tensor([0.5, 0.4, 0.3, 0.2, 0.1]).expand(3, 5), 4)
    assert rows[0].tolist() == [3, 1, 3, 1] and counted[0].tolist() == [True, True, False, False]
    assert not counted[1].any()
    assert rows[2].tolist() == [4, 3, 2, 1] and counted[2].all()


def test_jitter_moves_a_corner_and_sides_by_a_share_of_the_side():
    boxes = torch.tensor([[[0.2, 0.4, 0.6, 0.6], [0.5, 0.0, 1.0, 0.2]]])
    draws = torch.tensor([[[0.4, 1.0, 0.0, 0.5, 1.0], [0.6, 1.0, 1.0, 1.0, 1.0]]])
    moved = jittered(boxes, draws, 0.1, 0.5)  # the second box is not jittered: 0.6 is not below 0.5
    torch.testing.assert_close(moved, torch.tensor([[[0.24, 0.38, 0.64, 0.6], [0.5, 0.0, 1.0, 0.2]]]))
    moved = jittered(boxes, draws, 0.1, 1.0)[0, 1]  # 0.55 to 1.1, clipped; 0.02 to 0.24
    torch.testing.assert_close(moved, torch.tensor([0.55, 0.02, 1.0, 0.24]))
    many = torch.rand(500, 1, 2, 2, generator=torch.Generator().manual_seed(0)).sort(dim=2).values.flatten(2)
    some = torch.rand(500, 1, 5, generator=torch.Generator().manual_seed(1))
    moved = jittered(many, some, 0.49, 1.0)
    assert (moved[..., 2:] > moved[..., :2]).all() and moved.min() >= 0 and moved.max() <= 1


# -------------------------------------------------------------------- boxes that are not shown

SHOWN, ANOTHER, OUTSIDE, FLAT = [0.1, 0.2, 0.6, 0.8], [0.3, 0.3, 0.9, 0.7], [1.0, 0.2, 1.0, 0.6], [0.2, 0.5, 0.7, 0.5]


def test_images_without_a_common_box_contribute_nothing():
    method = soco(jitter=0.0).eval()  # where batch norm has no part
    with_others = given([[SHOWN, ANOTHER], [SHOWN, OUTSIDE], [FLAT]], [[SHOWN, ANOTHER], [OUTSIDE, SHOWN], [SHOWN]])
    alone = Batch({name: view.part(slice(0, 1)) for name, view in with_others.views.items()})
    outputs = method(with_others)
    assert outputs["loss"].item() == pytest.approx(method(alone)["loss"].item(), abs=1e-6)
    assert outputs["usable_boxes"].item() == pytest.approx(2 / 5)
    assert outputs["usable_images"].item() == pytest.approx(1 / 3)


def test_a_batch_without_any_common_box_has_a_loss_of_0_with_gradients():
    method = soco()
    outputs = method(given([[SHOWN], [OUTSIDE]], [[OUTSIDE], [FLAT]]))
    outputs["loss"].backward()
    assert outputs["loss"].item() == 0 and outputs["usable_boxes"].item() == 0 == outputs["usable_images"].item()
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in trained)


def test_an_image_without_boxes_has_its_whole_as_one():
    method = soco(jitter=0.0).eval()
    none, whole = given([[], [SHOWN]], [[], [SHOWN]]), [0.0, 0.0, 1.0, 1.0]
    expected = method(given([[whole], [SHOWN]], [[whole], [SHOWN]]))
    for key, value in method(none).items():
        assert value.item() == pytest.approx(expected[key].item(), abs=1e-6)
    assert torch.isfinite(method(given([[], []], [[], []]))["loss"])


def test_wrong_options_and_views_are_refused():
    for option, value, words in [
        ("proposals", 0, "SoCo's proposals is 1 or more, not 0"),
        ("roi", 0, "SoCo's roi is 1 or more, not 0"),
        ("jitter", 0.5, r"SoCo's jitter is a share of a box's side in \[0, 0.5\), not 0.5"),
        ("jitter_probability", 1.5, r"SoCo's jitter_probability is a share in \[0, 1\], not 1.5"),
    ]:
        with pytest.raises(UsageError, match=words):
            soco(**{option: value})
    batch = views_of(random_boxes(2, 2))
    batch.views["v1"].boxes = None
    with pytest.raises(UsageError, match="SoCo needs images with boxes: name what makes them, annotations.boxes="):
        soco()(batch)


def test_heads_are_the_official_ones():
    with torch.device("meta"):
        method = SoCo(build_backbone("resnet_tiny", widths=(4, 4, 4)))
    convs = [part for part in method.box_head.modules() if isinstance(part, nn.Conv2d)]
    assert len(convs) == 4 and all(conv.bias is None and conv.out_channels == 256 for conv in convs)
    assert method.box_head[5].in_features == 256 * 49 and method.box_head[5].out_features == 1024
    for head, width in ((method.projector, 1024), (method.matcher.predictor, 256)):
        first, norm, relu, last = head.layers
        assert (first.in_features, first.out_features, last.out_features) == (width, 4096, 256)
        assert isinstance(norm, nn.BatchNorm1d) and isinstance(relu, nn.ReLU) and last.bias is not None
    assert not any("predictor" in name for name, _ in method.named_modules() if name.startswith("target_"))
