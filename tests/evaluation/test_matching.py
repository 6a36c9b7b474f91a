"""Matching of clusters with classes: the official code's numbers, every permutation, and edges."""

from itertools import permutations

import numpy as np
import pytest
import torch
from golden_numbers import golden

from scd.errors import DataError
from scd.evaluation.matching import matched_iou, matched_miou, pixel_counts


def test_matching_and_iou_are_those_of_the_official_code():
    numbers = golden("comus")
    counts = pixel_counts(numbers["predicted"], numbers["truth"], 6, 6, ignored=255)
    iou, cluster = matched_iou(counts)
    assert cluster.tolist() == numbers["cluster"].tolist()
    np.testing.assert_allclose(iou, numbers["iou"].numpy(), rtol=1e-12)
    assert matched_miou(counts) == pytest.approx(float(numbers["miou"]), rel=1e-12)


def test_counts_by_a_loop():
    draw = torch.Generator().manual_seed(0)
    predicted, truth = torch.randint(0, 3, (2, 4, 5), generator=draw), torch.randint(0, 4, (2, 4, 5), generator=draw)
    truth[0, 0] = 255
    expected = torch.zeros(3, 4, dtype=torch.int64)
    for p, t in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if t != 255:
            expected[p, t] += 1
    found = pixel_counts(predicted.to(torch.uint8), truth.to(torch.uint8), 3, 4, ignored=255)
    assert torch.equal(found, expected)


def test_the_matching_is_the_best_of_all_permutations():
    for seed in range(5):
        counts = torch.randint(1, 40, (4, 4), generator=torch.Generator().manual_seed(seed))
        best = max(
            sum(
                float(counts[p, t] / (counts[p].sum() + counts[:, t].sum() - counts[p, t])) for t, p in enumerate(order)
            )
            for order in permutations(range(4))
        )
        assert matched_miou(counts) == pytest.approx(best / 4)


def test_it_is_iou_that_is_matched_and_not_the_number_of_pixels():
    counts = torch.tensor([[50, 9], [60, 0]])  # most pixels: cluster 0 with class 1; IoU: too, but by its own sum
    iou, cluster = matched_iou(counts)
    assert cluster.tolist() == [1, 0] and iou.tolist() == pytest.approx([60 / 110, 9 / 59])
    counts = torch.tensor(
        [[100, 12], [90, 1]]
    )  # pixels: 101 against 102; IoUs: 100/202 + 1/103 against 90/191 + 12/112
    assert matched_iou(counts)[1].tolist() == [1, 0]
    counts = torch.tensor([[100, 10], [89, 0]])  # pixels: 100 against 99; IoUs: 0.503 against 0.471 + 0.091
    assert matched_iou(counts)[1].tolist() == [1, 0]


def test_fewer_clusters_than_classes():
    iou, cluster = matched_iou(torch.tensor([[8, 0, 2], [0, 0, 10]]))
    assert cluster.tolist() == [0, -1, 1] and iou.tolist() == pytest.approx([0.8, 0, 10 / 12])


def test_a_class_that_is_not_shown_is_left_out():
    counts = torch.tensor([[8, 0, 0], [0, 6, 0], [0, 2, 0]])
    assert matched_miou(counts) == pytest.approx((1 + 6 / 8) / 2)


def test_no_known_pixel_is_an_error():
    with pytest.raises(DataError, match="no image has a pixel of a known class"):
        matched_miou(torch.zeros(2, 2, dtype=torch.int64))
