"""InsLoc beside its official code and a second formula; its composites by the coordinate image; anchors and draws."""

import math
from types import SimpleNamespace

import pytest
import torch
from golden_numbers import Convolution, assert_same, begin, follow, golden
from torch import nn
from view_images import batch_of, coordinate_images, random_images

from baselines.insloc import Composites, InsLoc, all_anchors, anchors_near, embed, paste, places, two_others
from scd.data.recipes import build_recipe
from scd.data.views import ViewMaker
from scd.errors import UsageError
from scd.nn.backbone import build_backbone
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD

OPTIONS = {
    "size": 24, "dim": 6, "channels": 5, "roi": 3, "box_convs": 1, "head_width": 7, "queue_size": 24, "momentum": 0.9,
}  # fmt: skip
COUNT = 12


def insloc(**options) -> InsLoc:
    torch.manual_seed(0)
    return InsLoc(build_backbone("resnet_tiny", widths=(4, 6), strides=(1, 2)), **{**OPTIONS, **options}).train()


def whole_batch(images: torch.Tensor):
    return ViewMaker(build_recipe("single", images.shape[2], scale=[1.0, 1.0]), 0)(batch_of(images), 0)


def colours(images: torch.Tensor) -> torch.Tensor:
    """Normalised images in [0, 1]."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return images * std + mean


# -------------------------------------------------------------------- the official code


class Normalised(nn.Sequential):
    """A 1 x 1 convolution, batch norm and ReLU."""

    dim = 6

    def __init__(self):
        super().__init__(Convolution(), nn.BatchNorm2d(self.dim), nn.ReLU())


def test_steps_of_the_official_code_in_two_processes(monkeypatch):
    """Loss, gradients, both networks, BN statistics and queue, with images and boxes shuffled over two BN groups.

    The official code ran with one level, in two processes of four images each. Convolutions with batch norm, RoIAlign
    and NMS, which it takes from other packages, were torch's and torchvision's.
    """
    numbers = golden("insloc")
    method = InsLoc(Normalised(), 8, dim=4, channels=3, roi=3, box_convs=1, head_width=5, queue_size=24, momentum=0.7,
                    bn_groups=2).double()  # fmt: skip
    begin(method, numbers)
    for name in ("backbone", "box_head", "projector"):
        getattr(method, f"target_{name}").load_state_dict(getattr(method, name).state_dict())
    method.matcher.queue.keys.copy_(numbers["queue"])
    orders = iter(numbers["orders"])
    monkeypatch.setattr(torch, "randperm", lambda n, **options: next(orders))
    monkeypatch.setattr(method, "composites", lambda batch: batch)
    monkeypatch.setattr(method, "moved", lambda boxes: (boxes, torch.ones(len(boxes))))

    def composites(numbers, step):
        return tuple(Composites(numbers[name][step], numbers[f"{name}_boxes"][step]) for name in ("query", "key"))

    optimizer = torch.optim.SGD([parameter for parameter in method.parameters() if parameter.requires_grad], 0.5)
    assert len(list(follow(method, optimizer, numbers, composites))) == 5


def test_anchors_are_the_official_ones_and_so_are_those_that_may_be_drawn():
    numbers = golden("insloc")
    anchors = all_anchors().double()
    assert_same(anchors[:20] * 256, numbers["anchors.all.first"], "first position", precision=1e-4)
    assert_same(anchors[-20:] * 256, numbers["anchors.all.last"], "last position", precision=1e-4)
    boxes, count = numbers["anchors.boxes"] / 256, len(numbers["anchors.boxes"])
    scores = (
        (torch.arange(len(anchors))[None] * 7919 + torch.arange(count)[:, None] * 104729) % 10007
    ).double() / 10007
    expected = numbers["anchors.kept"].split(numbers["anchors.counts"].tolist())
    for drawn in range(int(numbers["anchors.counts"].max())):
        last = (drawn % numbers["anchors.counts"] + 0.5) / numbers["anchors.counts"]
        moved, found = anchors_near(boxes, anchors, torch.cat([scores, last[:, None]], dim=1), 0.5)
        chosen = torch.stack([anchors[kept[drawn % len(kept)]] for kept in expected])
        assert found.all() and torch.equal(moved, chosen)


# -------------------------------------------------------------------- the loss


@torch.no_grad()
def test_the_loss_is_that_of_plain_loops():
    method = insloc().double().eval()
    composites = [Composites(torch.randn(4, 3, 24, 24).double(), boxes_of(4, seed)) for seed in (1, 2)]
    method.composites = lambda batch: composites
    torch.manual_seed(3)
    moved, _ = method.moved(composites[0].boxes)
    vectors = []
    for prefix, made, boxes in (("", composites[0], moved), ("target_", composites[1], composites[1].boxes)):
        rows = []
        for b in range(4):
            maps = getattr(method, prefix + "backbone")(made.images[b : b + 1])
            region = plain_region(maps[0], boxes[b].tolist(), 3)[None]
            rows.append(getattr(method, prefix + "projector")(getattr(method, prefix + "box_head")(region))[0])
        vectors.append([row / row.norm() for row in rows])
    total = 0.0
    for q, k in zip(*vectors, strict=True):
        positive = math.exp(float(q @ k) / 0.2)
        negatives = sum(math.exp(float(q @ n) / 0.2) for n in method.matcher.queue.keys)
        total -= math.log(positive / (positive + negatives)) / 4
    torch.manual_seed(3)
    outputs = method(SimpleNamespace())
    assert outputs["loss"].item() == pytest.approx(total, abs=1e-10)
    assert outputs["with_anchor"] == 1 and 0.5 < outputs["box_overlap"] < 1


def boxes_of(count: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=draw) * 0.4
    return torch.cat([low, low + 0.4 + 0.2 * torch.rand(count, 2, generator=draw)], dim=1).double()


def plain_region(maps: torch.Tensor, box: list[float], cells: int) -> torch.Tensor:
    """RoIAlign (C, cells, cells) of maps (C, h, w): means over samples, 0 beyond a position outside the map."""
    channels, height, width = maps.shape
    x0, y0, x1, y1 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    cell_x, cell_y = (x1 - x0) / cells, (y1 - y0) / cells
    across, down = math.ceil(cell_x), math.ceil(cell_y)
    region = torch.zeros(channels, cells, cells, dtype=maps.dtype)
    for row in range(cells):
        for column in range(cells):
            for i in range(down):
                for j in range(across):
                    y = y0 + (row + (i + 0.5) / down) * cell_y - 0.5
                    x = x0 + (column + (j + 0.5) / across) * cell_x - 0.5
                    if not (-1 <= y <= height and -1 <= x <= width):
                        continue
                    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
                    top, left = min(int(y), height - 2), min(int(x), width - 2)
                    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
                        weight = (1 - abs(y - top - dy)) * (1 - abs(x - left - dx)) / (down * across)
                        region[:, row, column] += weight * maps[:, top + dy, left + dx]
    return region


def test_keys_are_shuffled_with_their_boxes_and_come_back_in_order(monkeypatch):
    method, boxes = insloc(bn_groups=2), boxes_of(8, 0).float()
    images = torch.randn(8, 3, 24, 24)
    order = torch.tensor([3, 0, 7, 4, 2, 6, 1, 5])
    monkeypatch.setattr(torch, "randperm", lambda n, **options: order)
    found = method.keys(Composites(images, boxes))
    modules = (method.target_backbone, method.target_box_head, method.target_projector)
    expected = torch.empty_like(found)
    for half in (order[:4], order[4:]):
        own = [module.train() for module in insloc(bn_groups=1).children()]  # the same weights, BN over the four rows
        expected[half] = embed(images[half], boxes[half], 3, own[0], own[1], own[2]).detach()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, embed(images, boxes, 3, *modules), atol=1e-3)
    method.eval()
    torch.testing.assert_close(method.keys(Composites(images, boxes)), embed(images, boxes, 3, *modules))


def test_gradients_ema_and_queue():
    method = insloc()
    outputs = method(whole_batch(random_images(COUNT)))
    outputs["loss"].backward()
    parameters = dict(method.named_parameters())
    assert all((value.grad is None) == name.startswith("target_") for name, value in parameters.items())
    with torch.no_grad():
        for name, value in parameters.items():
            if not name.startswith("target_"):
                value.add_(1.0)
    before = {name: value.detach().clone() for name, value in parameters.items()}
    keys, queue = method.matcher.waiting[0], method.matcher.queue.keys.clone()
    method.after_step(0.5)
    for name, value in parameters.items():
        if name.startswith("target_"):
            expected = 0.9 * before[name] + 0.1 * before[name.removeprefix("target_")]
            torch.testing.assert_close(value, expected, msg=name)
    assert torch.equal(method.matcher.queue.keys[:COUNT], keys)
    assert torch.equal(method.matcher.queue.keys[COUNT:], queue[COUNT:])
    assert method.scheduled_values(0.5) == {"momentum": 0.9}


# -------------------------------------------------------------------- composites


def test_a_box_shows_the_crop_and_the_rest_shows_the_background():
    """Red and green are x and y of the image, blue marks the background."""
    torch.manual_seed(0)
    images = coordinate_images(COUNT).float() / 255
    backgrounds = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(COUNT, 3, 64, 64)
    crops = torch.cat([torch.rand(COUNT, 2) * 0.4, 0.6 + torch.rand(COUNT, 2) * 0.4], dim=1)
    boxes = places(crops, torch.rand(COUNT, 4), 40, (0.5, 1.0))
    pasted = paste(images, backgrounds, crops, boxes, 40)
    assert torch.isfinite(pasted).all()
    for b in range(COUNT):
        x0, y0, x1, y1 = boxes[b].int().tolist()
        inside = torch.zeros(40, 40, dtype=torch.bool)
        inside[y0:y1, x0:x1] = True
        assert torch.allclose(pasted[b][:, ~inside], backgrounds[b][:, :1, 0], atol=1e-6)
        left, top, right, bottom = crops[b].tolist()
        x = left + (torch.arange(x1 - x0) + 0.5) / (x1 - x0) * (right - left)
        y = top + (torch.arange(y1 - y0) + 0.5) / (y1 - y0) * (bottom - top)
        shown = pasted[b][:, y0:y1, x0:x1]
        assert torch.allclose(shown[0], x.expand(y1 - y0, -1), atol=0.01)
        assert torch.allclose(shown[1], y[:, None].expand(-1, x1 - x0), atol=0.01)
        assert (shown[2].abs() < 1e-6).all()


def test_boxes_are_mirrored_with_their_images():
    torch.manual_seed(1)
    method = insloc(size=40, photometric="none")
    images = coordinate_images(COUNT).float() / 255
    made = method.composite(images, torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(COUNT, 3, 64, 64))
    shown, mirrored = colours(made.images), []
    for b in range(COUNT):
        x0, y0, x1, y1 = (made.boxes[b] * 40).round().int().tolist()
        inside = torch.zeros(40, 40, dtype=torch.bool)
        inside[y0:y1, x0:x1] = True
        assert torch.equal(shown[b, 2] < 0.5, inside)
        mirrored.append(bool(shown[b, 0, y0, x0] > shown[b, 0, y0, x1 - 1]))
        assert shown[b, 1, y0, x0] < shown[b, 1, y1 - 1, x0]
    assert any(mirrored) and not all(mirrored)


def test_two_backgrounds_are_different_other_images():
    """Images of one colour each: what lies outside the box is never the image itself, nor the same in query and key."""
    levels = torch.arange(COUNT) / COUNT
    images = (levels[:, None, None, None] * 255).round().to(torch.uint8).expand(COUNT, 3, 32, 32).contiguous()
    method = insloc(photometric="none")
    for seed in range(3):
        torch.manual_seed(seed)
        seen = []
        for made in method.composites(whole_batch(images)):
            shown = colours(made.images)[:, 0]
            columns = (torch.arange(24) + 0.5) / 24
            x0, y0, x1, y1 = made.boxes[:, :, None, None].unbind(dim=1)
            inside = (columns > x0) & (columns < x1) & (columns[:, None] > y0) & (columns[:, None] < y1)
            for b in range(COUNT):
                assert torch.allclose(shown[b][inside[b]], levels[b], atol=0.01)
            seen.append(torch.stack([shown[b][~inside[b]].mean() for b in range(COUNT)]))
            assert ((seen[-1] - levels).abs() > 0.05).all()
        assert ((seen[0] - seen[1]).abs() > 0.05).all()


def test_other_rows_are_uniform():
    for count in (3, 4, 7):
        draws = torch.rand(1000, count, 2, generator=torch.Generator().manual_seed(count))
        drawn = torch.stack([two_others(each) for each in draws])  # (1000, B, 2)
        own = torch.arange(count)[None, :, None]
        assert (drawn != own).all() and (drawn[..., 0] != drawn[..., 1]).all()
        for column in range(2):
            shares = torch.stack([(drawn[..., column] == j).float().mean(dim=0) for j in range(count)], dim=1)
            expected = (1 - torch.eye(count)) / (count - 1)
            assert torch.allclose(shares, expected, atol=0.08)


def test_a_crop_is_fitted_into_the_drawn_sides():
    """Longer side to longer side, by the official rule, in whole pixels."""
    torch.manual_seed(2)
    crops = torch.cat([torch.rand(500, 2) * 0.3, 0.5 + torch.rand(500, 2) * 0.5], dim=1)
    draws = torch.rand(500, 4)
    boxes = places(crops, draws, 32, (0.5, 1.0))
    for crop, draw, box in zip(crops.double(), draws.double(), boxes.tolist(), strict=True):
        width, height = (crop[2] - crop[0]).item(), (crop[3] - crop[1]).item()
        room = [16 + int(16 * draw[i].item()) for i in (0, 1)]
        factor = min(max(room) / max(width, height), min(room) / min(width, height))
        sides = [min(31, int(length * factor + 0.5)) for length in (width, height)]
        assert [box[2] - box[0], box[3] - box[1]] == sides
        assert [box[0], box[1]] == [int(draw[2 + i].item() * (32 - sides[i])) for i in (0, 1)]
        assert 0 <= box[0] < box[2] <= 31 and 0 <= box[1] < box[3] <= 31


def test_foreground_and_background_change_colour_together():
    """Greyscale, where it is drawn, covers the whole composite."""
    torch.manual_seed(3)
    made = insloc().composites(whole_batch(random_images(COUNT)))[0]
    spread = colours(made.images).std(dim=1).amax(dim=(1, 2))  # largest difference of the channels in each composite
    grey = spread < 1e-3
    assert grey.any() and not grey.all() and (spread[~grey] > 0.02).all()


# -------------------------------------------------------------------- anchors


def test_the_drawn_anchor_overlaps_enough_or_the_box_is_kept():
    torch.manual_seed(4)
    boxes = torch.tensor([[0.1, 0.2, 0.6, 0.8], [0.5, 0.5, 0.52, 0.52], [0.0, 0.0, 0.9, 0.5]])
    anchors, drawn = all_anchors(), set()
    for _ in range(20):
        moved, found = anchors_near(boxes, anchors, torch.rand(3, len(anchors) + 1), 0.5)
        assert found.tolist() == [True, False, True] and torch.equal(moved[1], boxes[1])
        for one, other in ((moved[0], boxes[0]), (moved[2], boxes[2])):
            sides = (torch.minimum(one[2:], other[2:]) - torch.maximum(one[:2], other[:2])).clamp_min(0)
            areas = [(box[2:] - box[:2]).prod() for box in (one, other)]
            assert sides.prod() / (sum(areas) - sides.prod()) > 0.5
        drawn.add(tuple(moved[0].tolist()))
    assert len(drawn) > 5


def test_no_anchor_at_all_and_exact_boxes():
    tiny = torch.tensor([[0.5, 0.5, 0.51, 0.51]]).repeat(2, 1)
    moved, found = anchors_near(tiny, all_anchors(), torch.rand(2, 5121), 0.5)
    assert torch.equal(moved, tiny) and not found.any()
    outputs = insloc(overlap=1.0)(whole_batch(random_images(COUNT)))
    assert outputs["box_overlap"] == 1 and outputs["with_anchor"] == 0


# -------------------------------------------------------------------- options


def test_wrong_options_and_batches_are_refused():
    for option, value, words in [
        ("size", 1, "InsLoc's size is 2 pixels or more, not 1"),
        ("roi", 0, "InsLoc's roi is 1 or more, not 0"),
        ("sides", (0.5, 1.5), r"InsLoc's sides is two ascending shares in \(0, 1\], not \[0.5, 1.5\]"),
        ("scale", (0.0, 1.0), r"InsLoc's scale is two ascending shares in \(0, 1\], not \[0.0, 1.0\]"),
        ("ratio", (2.0, 0.5), r"InsLoc's ratio is two ascending numbers above 0, not \[2.0, 0.5\]"),
        ("overlap", 1.5, r"InsLoc's overlap is a share in \[0, 1\], not 1.5"),
        ("photometric", "mocov3", "mocov3"),
    ]:
        with pytest.raises(UsageError, match=words):
            insloc(**{option: value})
    with pytest.raises(UsageError, match="InsLoc pastes each image onto two others: 3 images or more in a process"):
        insloc()(whole_batch(random_images(2)))
    views = ViewMaker(build_recipe("mocov2", 24), 0)(batch_of(random_images(4)), 0)
    with pytest.raises(UsageError, match="needs one view of whole images: views.recipe=single"):
        insloc()(views)


def test_autocast_and_a_head_of_the_official_widths():
    with torch.autocast("cpu", torch.bfloat16):
        loss = insloc()(whole_batch(random_images(COUNT)))["loss"]
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    with torch.device("meta"):
        method = InsLoc(build_backbone("resnet_tiny", widths=(4, 4), strides=(1, 2)))
    convs = [part for part in method.box_head.modules() if isinstance(part, nn.Conv2d)]
    linears = [part for part in method.box_head.modules() if isinstance(part, nn.Linear)]
    assert len(convs) == 4 and all(conv.bias is None and conv.out_channels == 256 for conv in convs)
    assert [(part.in_features, part.out_features) for part in linears] == [(256 * 49, 1024), (1024, 1024)]
    assert [part.out_features for part in method.projector.layers] == [128]
