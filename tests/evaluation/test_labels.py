"""Held-out images, classes that a probe cannot use, and accuracies by hand."""

import pytest
import torch

from scd.errors import DataError
from scd.evaluation.labels import accuracy, balanced_accuracy, check_classes, held_out_part, stratified_part


def test_the_seed_decides_the_held_out_part_and_repeats():
    labels = torch.arange(10).repeat_interleave(torch.tensor([5, 10, 15, 20, 100, 53, 7, 8, 9, 40]))
    part = stratified_part(labels, 0.2, seed=0)
    assert torch.equal(part, stratified_part(labels, 0.2, seed=0))
    assert not torch.equal(part, stratified_part(labels, 0.2, seed=1))
    assert torch.bincount(labels[part]).tolist() == [1, 2, 3, 4, 20, 11, 1, 2, 2, 8]


def test_held_out_part_is_a_fifth_and_follows_the_seed():
    part = held_out_part(50, seed=1)
    assert part.sum() == 10
    assert torch.equal(part, held_out_part(50, seed=1)) and not torch.equal(part, held_out_part(50, seed=2))
    assert held_out_part(2, seed=0).sum() == 1
    with pytest.raises(DataError, match="at least 2 training images, there are 1"):
        held_out_part(1, seed=0)


def test_balanced_accuracy_by_hand():
    labels = torch.tensor([0, 0, 0, 0, 2, 2])
    predicted = torch.tensor([0, 0, 0, 1, 2, 0])
    assert accuracy(predicted, labels) == pytest.approx(4 / 6)
    assert balanced_accuracy(predicted, labels) == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_a_class_absent_from_both_sets_is_fine():
    check_classes(torch.tensor([0] * 5 + [2] * 5), torch.tensor([0, 2]))


def test_a_class_with_too_few_images_is_named_with_its_count():
    train, test = torch.tensor([0] * 9 + [1] * 3), torch.tensor([0, 1])
    with pytest.raises(DataError, match=r"class 'cat' has 3 training images and 1 test images.*at least 5"):
        check_classes(train, test, ["dog", "cat"])
    with pytest.raises(DataError, match="background class 1 has 3 training images"):
        check_classes(train, test, kind="background class")


def test_a_test_class_without_training_images_is_named():
    with pytest.raises(DataError, match=r"class 'emu' has 0 training images and 1 test images"):
        check_classes(torch.tensor([0] * 5 + [1] * 5), torch.tensor([0, 2]), ["dog", "cat", "emu"])


def test_a_single_class_is_refused():
    with pytest.raises(DataError, match="needs two classes, the training set shows 1"):
        check_classes(torch.zeros(20, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
