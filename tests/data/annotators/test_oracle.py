"""The data's own masks, and the boxes and segments of their components."""

import pytest
import torch

from scd.data.annotators.oracle import OracleAnnotator
from scd.data.images import ImageSet
from scd.data.masks import UNKNOWN
from scd.errors import UsageError


@pytest.fixture
def part() -> ImageSet:
    """Two objects that touch at a corner only; nothing."""
    masks = torch.zeros(2, 8, 8, dtype=torch.uint8)
    masks[0, 1:3, 2:6], masks[0, 3:8, 6:7] = 1, 1
    return ImageSet(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), masks=masks)


def test_masks_are_the_datas_own(part):
    oracle = OracleAnnotator()
    assert oracle.provides == "masks" and torch.equal(oracle(part.images, part), part.masks)


def test_unknown_pixels_are_background(part):
    expected = [OracleAnnotator(kind)(part.images, part) for kind in ("masks", "boxes", "segments")]
    part.masks[0, 0] = UNKNOWN
    part.masks[0, 5:, 7] = UNKNOWN
    masks, boxes, segments = (OracleAnnotator(kind)(part.images, part) for kind in ("masks", "boxes", "segments"))
    assert torch.equal(masks, expected[0]) and torch.equal(segments, expected[2])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(boxes, expected[1], strict=True))


def test_boxes_surround_the_components(part):
    first, second = OracleAnnotator("boxes")(part.images, part)
    assert (first * 8).tolist() == [[2, 1, 6, 3], [6, 3, 7, 8]] and second.shape == (0, 4)


def test_segments_number_the_components(part):
    segments = OracleAnnotator("segments")(part.images, part)
    assert (segments[0] == 1).nonzero().tolist() == [[y, x] for y in (1, 2) for x in (2, 3, 4, 5)]
    assert torch.equal(segments > 0, part.masks > 0) and segments.max() == 2


def test_an_unknown_kind_says_so():
    with pytest.raises(UsageError, match="unknown kind of annotation 'mask'; did you mean 'masks'"):
        OracleAnnotator("mask")
