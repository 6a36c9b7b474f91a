"""Mean average precision against a loop over ranks, and of features whose worth is known."""

import pytest
import torch

from scd.errors import DataError
from scd.evaluation.multilabel import mean_average_precision, multilabel_map


def slow_average_precision(scores, present):
    """Mean, over the positives, of the precision among all that score at least as high."""
    found = []
    for score, inside in zip(scores, present, strict=True):
        if inside:
            above = [p for s, p in zip(scores, present, strict=True) if s >= score]
            found.append(sum(above) / len(above))
    return sum(found) / len(found)


def labels(n, classes=4, seed=0):
    return torch.rand(n, classes, generator=torch.Generator().manual_seed(seed)) < 0.4


def perfect(present):
    """Features from which every class can be read off, mixed so that no dimension is one class."""
    mix = torch.randn(present.shape[1], 6, generator=torch.Generator().manual_seed(9))
    return present.float() @ mix


def test_equals_a_loop_over_positives():
    present = labels(40)
    scores = torch.rand(40, 4, generator=torch.Generator().manual_seed(1))
    expected = [slow_average_precision(scores[:, c].tolist(), present[:, c].tolist()) for c in range(4)]
    assert mean_average_precision(scores, present) == pytest.approx(sum(expected) / 4, abs=1e-12)


def test_equal_scores_count_together():
    """The order in which equal scores come must not matter: AP of no information is the share of positives."""
    present = torch.tensor([[True], [False], [False], [True], [False]])
    assert mean_average_precision(torch.zeros(5, 1), present) == pytest.approx(0.4)


def test_a_class_that_no_image_shows_is_left_out():
    present = labels(30)
    present[:, 2] = False
    scores = torch.rand(30, 4, generator=torch.Generator().manual_seed(1))
    kept = [0, 1, 3]
    assert mean_average_precision(scores, present) == mean_average_precision(scores[:, kept], present[:, kept])


def test_features_that_hold_the_classes_score_nearly_one():
    """Of the penalties that are perfect on the held-out part the strongest wins, which can misplace a test image."""
    train, test = labels(200), labels(100, seed=1)
    assert multilabel_map(perfect(train), train, perfect(test), test, seed=0) > 0.99


def test_shuffled_features_score_about_the_share_of_positives():
    train, test = labels(300), labels(300, seed=1)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    found = multilabel_map(perfect(train)[order], train, perfect(test)[order], test, seed=0)
    assert found == pytest.approx(float(test.double().mean()), abs=0.08)


def test_a_class_without_variation_in_training_scores_its_share_of_positives():
    train, test = labels(200, classes=2), labels(100, classes=2, seed=1)
    features, unseen = perfect(train), perfect(test)
    train[:, 1] = False
    expected = (1 + float(test[:, 1].double().mean())) / 2
    assert multilabel_map(features, train, unseen, test, seed=0) == pytest.approx(expected, abs=0.005)


def test_the_same_call_gives_the_same_number():
    train, test = labels(100), labels(60, seed=1)
    noise = torch.Generator().manual_seed(4)
    features = perfect(train) + torch.randn(100, 6, generator=noise)
    unseen = perfect(test) + torch.randn(60, 6, generator=noise)
    first = multilabel_map(features, train, unseen, test, seed=0)
    assert first == multilabel_map(features, train, unseen, test, seed=0)
    assert 0.5 < first < 0.99


def test_no_object_in_any_test_image_is_an_error():
    train = labels(40)
    with pytest.raises(DataError, match="needs a test image with an object"):
        multilabel_map(perfect(train), train, perfect(train), torch.zeros_like(train), seed=0)
