"""Proposed boxes and segments against masks, by hand and by loops."""

import numpy as np
import pytest
import torch

from scd.data.annotators.annotator import Annotations
from scd.data.images import ImageSet
from scd.data.masks import UNKNOWN
from scd.errors import DataError
from scd.evaluation.proposals import mask_overlap, object_cover, overlaps, proposal_scores


def masks_of(*rectangles, size=8):
    """One mask per rectangle x0, y0, x1, y1 in pixels; None is an image without an object."""
    masks = torch.zeros(len(rectangles), size, size, dtype=torch.uint8)
    for mask, rectangle in zip(masks, rectangles, strict=True):
        if rectangle:
            x0, y0, x1, y1 = rectangle
            mask[y0:y1, x0:x1] = 1
    return masks


def test_the_most_similar_box_counts_for_each_object():
    masks = masks_of((0, 0, 4, 4), (2, 2, 4, 4), None, (0, 0, 8, 8))
    masks[0, 6:8, 6:8] = 1  # a second object
    boxes = [
        torch.tensor([[0.0, 0.0, 0.5, 0.25], [0.0, 0.0, 0.5, 1.0], [0.75, 0.75, 1.0, 1.0]]),
        torch.zeros(0, 4),  # no proposal
        torch.tensor([[0.0, 0.0, 1.0, 1.0]]),  # no object
        torch.tensor([[0.0, 0.0, 0.5, 0.5]]),
    ]
    best, mean = overlaps(boxes, masks)
    assert best.tolist() == [0.5, 1.0, 0.0, 0.25]
    assert mean.tolist() == [0.5, 0.5, 1.0, 0.25]  # without those of an image that has no object


def test_cover_by_a_loop_over_segments():
    draw = np.random.default_rng(0)
    segments = torch.from_numpy(draw.integers(-1, 6, (20, 8, 8)))
    masks = torch.from_numpy(draw.choice([0, 1, UNKNOWN], (20, 8, 8), p=[0.45, 0.5, 0.05]).astype(np.uint8))
    expected = []
    for ids, mask in zip(segments.numpy(), masks.numpy(), strict=True):
        covered = 0
        for k in range(6):
            held = mask[(ids == k) & (mask != UNKNOWN)]
            covered += (held == 1).sum() if (held == 1).sum() > (held == 0).sum() else 0
        expected.append(covered / (mask == 1).sum())
    assert 0.1 < np.mean(expected) < 0.95
    assert object_cover(segments, masks).tolist() == pytest.approx(expected)


def test_true_segments_cover_the_object_and_one_segment_for_all_does_not():
    masks = masks_of((1, 1, 4, 4), None)
    assert object_cover(masks.long(), masks).tolist() == [1.0]
    assert object_cover(torch.zeros(2, 8, 8, dtype=torch.int64), masks).tolist() == [0.0]
    assert object_cover(torch.full((2, 8, 8), -1), masks).tolist() == [0.0]


def test_scores_are_of_the_first_images_of_all_parts():
    masks = masks_of((0, 0, 4, 4), (0, 0, 4, 4), (0, 0, 4, 4))
    parts = [ImageSet(torch.zeros(n, 3, 8, 8, dtype=torch.uint8), masks=masks[:n]) for n in (2, 1)]
    values = np.array([[0, 0, 0.5, 0.5], [0, 0, 1, 1], [0, 0, 0.5, 1], [0, 0, 1, 1]], dtype=np.float32)
    boxes = Annotations(values, np.array([2, 3, 4]))
    scores = proposal_scores(boxes, "boxes", parts, 10)
    assert scores == pytest.approx({"proposals": 4 / 3, "best_overlap": 1.75 / 3, "mean_overlap": 2 / 4})
    assert proposal_scores(boxes, "boxes", parts, 2) == pytest.approx(
        {"proposals": 1.5, "best_overlap": 1.5 / 2, "mean_overlap": 1.75 / 3}
    )
    segments = Annotations(np.stack([masks[0].numpy(), masks[1].numpy(), np.zeros((8, 8))]).astype(np.int16))
    assert proposal_scores(segments, "segments", parts, 10) == {"proposals": 5 / 3, "cover": pytest.approx(2 / 3)}


def test_masks_are_scored_by_their_overlap_over_known_pixels():
    truth = masks_of((0, 0, 4, 4), None, (0, 0, 8, 5))
    truth[2, :4] = UNKNOWN
    proposed = torch.zeros(3, 8, 8, dtype=torch.uint8)
    proposed[0, :4, :2] = 1
    proposed[2] = 1
    parts = [ImageSet(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), masks=truth)]
    scores = proposal_scores(Annotations(proposed.numpy()), "masks", parts, 10)
    assert scores == pytest.approx({"proposals": 2 / 3, "mask_overlap": (8 / 16 + 8 / 32) / 2})
    assert mask_overlap(truth[:1], truth[:1]).tolist() == [1.0]


def test_images_without_any_object_are_refused():
    parts = [ImageSet(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), masks=masks_of(None))]
    with pytest.raises(DataError, match="no image has an object that proposals could be compared with"):
        proposal_scores(Annotations(np.zeros((1, 8, 8), np.int16)), "segments", parts, 5)
