"""Boxes in views: where the coordinate grid says they are, and where cut masks show them."""

import torch

from scd.data.loader import ImageBatch
from scd.data.recipes import build_recipe
from scd.data.view_boxes import boxes_in_view
from scd.data.views import ViewMaker
from scd.method import View

SIDE = 64


def random_boxes(count: int) -> torch.Tensor:
    ends = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(5)).sort(dim=1).values
    return torch.cat([ends[:, 0], ends[:, 1]], dim=1)


def test_a_box_by_hand():
    rectangle = torch.tensor([0.2, 0.0, 0.6, 0.5])
    box = torch.tensor([[0.3, 0.25, 0.7, 0.75]])
    seen, share = boxes_in_view(box, rectangle, False)
    torch.testing.assert_close(seen, torch.tensor([[0.25, 0.5, 1.0, 1.0]]))
    torch.testing.assert_close(share, torch.tensor([0.375]))
    torch.testing.assert_close(boxes_in_view(box, rectangle, True)[0], torch.tensor([[0.0, 0.5, 0.75, 1.0]]))


def test_grid_positions_of_a_view_lie_in_the_box_there_and_here():
    """A position of the view lies in the view's box exactly if its place in the image lies in the image's box."""
    boxes, fine = random_boxes(40), 200
    rectangles = random_boxes(41)[1:].clone()
    rectangles[:, 2:] = torch.maximum(rectangles[:, 2:], rectangles[:, :2] + 0.1)
    flips = torch.arange(40) % 2 == 0
    grid = View("v", "global", torch.zeros(40, 3, 1, 1), rectangles, flips).grid(fine, fine)
    inside = ((grid > boxes[:, None, None, :2]) & (grid < boxes[:, None, None, 2:])).all(dim=3)
    seen, share = boxes_in_view(boxes, rectangles, flips)
    here = (torch.arange(fine) + 0.5) / fine
    u, v = here.expand(fine, fine), here[:, None].expand(fine, fine)
    there = (u > seen[:, None, None, 0]) & (u < seen[:, None, None, 2])
    there &= (v > seen[:, None, None, 1]) & (v < seen[:, None, None, 3])
    assert (inside != there).float().mean() < 1e-5 and 0.02 < there.float().mean() < 0.9
    area = (rectangles[:, 2:] - rectangles[:, :2]).prod(dim=1) * inside.float().mean(dim=(1, 2))
    torch.testing.assert_close(share, area / (boxes[:, 2:] - boxes[:, :2]).prod(dim=1), rtol=0, atol=0.03)
    one, _ = boxes_in_view(boxes[3:4], rectangles[3], flips[3])
    torch.testing.assert_close(one[0], seen[3])


def test_boxes_frame_the_masks_that_a_view_maker_cuts():
    """A filled box cut as a mask extends, within a pixel, as far as the box in the view; unseen boxes leave nothing."""
    boxes = (random_boxes(64) * SIDE).round() / SIDE
    pixels = torch.zeros(64, SIDE, SIDE, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(pixels, (boxes * SIDE).int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = 1
    images = torch.zeros(64, 3, SIDE, SIDE, dtype=torch.uint8)
    recipe = build_recipe("mocov2", 32, extra={"kind": "local", "count": 1, "size": 16})
    compared = unseen = 0
    batch = ImageBatch(images, torch.arange(64), slice(0, 64), 64, annotations={"masks": pixels})
    for view in ViewMaker(recipe, 0, needs=frozenset({"masks"}))(batch, 0).views.values():
        size = view.masks.shape[-1]
        seen, share = boxes_in_view(boxes, view.rectangles, view.flips)
        for mask, box, part in zip(view.masks, seen * size, share, strict=True):
            if part == 0:
                assert (mask.any(dim=0).sum() <= 1) or (mask.any(dim=1).sum() <= 1)  # what the filter sees beyond
                unseen += 1
            elif (box[2:] - box[:2]).min() > 2:
                y, x = mask.nonzero().unbind(dim=1)
                extent = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
                assert (extent - box).abs().max() < 1
                compared += 1
    assert compared > 80 and unseen > 5


def test_boxes_without_area_or_outside_have_share_zero():
    boxes = torch.tensor([[0.1, 0.1, 0.1, 0.4], [0.7, 0.7, 0.9, 0.9], [0.5, 0.0, 0.6, 0.5]])
    seen, share = boxes_in_view(boxes, torch.tensor([0.0, 0.0, 0.5, 0.5]), False)
    assert share.tolist() == [0.0, 0.0, 0.0]
    assert ((seen[:, 2:] - seen[:, :2]).prod(dim=1) == 0).all() and seen.min() >= 0 and seen.max() <= 1
    assert boxes_in_view(torch.zeros(0, 4), torch.tensor([0.0, 0.0, 1.0, 1.0]), True)[0].shape == (0, 4)
