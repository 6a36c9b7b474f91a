"""Weighted kNN against a loop over queries, and the cases that break other implementations."""

import math

import pytest
import torch
from tiny_evaluation import (
    ChannelMethod,
    context_of,
    moco,
    object_source,
    objects,
    source_of,
    source_with_random_labels,
)

from scd.errors import DataError, UsageError
from scd.evaluation.features import frozen
from scd.evaluation.knn import KNN, knn_predict, knn_top1, projections
from scd.evaluation.protocol import EvaluationData
from scd.scd import SCD


def clusters(per_class: int, classes: int = 4, dim: int = 8, spread: float = 0.3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat(per_class)
    return torch.eye(dim)[labels] + spread * torch.randn(len(labels), dim, generator=generator), labels


def slow_knn(bank, labels, queries, classes, k, temperature):
    predictions = []
    for x in queries.tolist():
        norm = math.sqrt(sum(a * a for a in x))
        neighbours = []
        for f, y in zip(bank.tolist(), labels.tolist(), strict=True):
            cosine = sum(a * b for a, b in zip(x, f, strict=True)) / norm / math.sqrt(sum(b * b for b in f))
            neighbours.append((cosine, y))
        scores = [0.0] * classes
        for cosine, y in sorted(neighbours, reverse=True)[:k]:
            scores[y] += math.exp(cosine / temperature)
        predictions.append(scores.index(max(scores)))
    return torch.tensor(predictions)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 1.0), (60, 0.5)])
def test_equals_a_loop(k, temperature):
    bank, labels = clusters(15, spread=0.8)
    queries, _ = clusters(10, spread=0.8, seed=1)
    expected = slow_knn(bank, labels, queries, 4, k, temperature)
    assert torch.equal(knn_predict(bank, labels, queries, 4, k, temperature), expected)
    assert len(expected.unique()) == 4


def test_training_set_as_query_is_perfect_with_one_neighbour():
    bank, labels = clusters(25, spread=2.0)
    assert knn_top1(bank, labels, bank, labels, k=1, temperature=0.07) == 1.0


def test_one_test_image_and_more_neighbours_than_images():
    bank, labels = clusters(3, spread=0.01)
    assert knn_top1(bank, labels, bank[:1], labels[:1], k=200, temperature=0.07) == 1.0


def test_classes_that_the_test_set_does_not_show():
    bank, labels = clusters(5, spread=0.01)
    queries = bank[labels == 1]
    assert knn_top1(bank, labels, queries, torch.ones(5, dtype=torch.int64), 20, 0.07) == 1.0
    assert knn_top1(bank, labels, queries, torch.full((5,), 7), 20, 0.07) == 0.0


def test_scale_of_features_and_chunks_do_not_matter():
    bank, labels = clusters(15, spread=0.8)
    queries, _ = clusters(10, spread=0.8, seed=1)
    expected = knn_predict(bank, labels, queries, 4, 20, 0.07)
    scales = torch.linspace(0.01, 100, len(bank))[:, None]
    assert torch.equal(knn_predict(bank * scales, labels, queries * 3, 4, 20, 0.07), expected)
    assert torch.equal(knn_predict(bank, labels, queries, 4, 20, 0.07, chunk=7), expected)


def test_a_small_temperature_does_not_overflow():
    bank, labels = clusters(15, spread=0.8)
    one_nearest = knn_predict(bank, labels, bank, 4, k=1, temperature=0.07)
    assert torch.equal(knn_predict(bank, labels, bank, 4, k=20, temperature=1e-4), one_nearest)


# ---------------------------------------------------------------- protocol


def test_the_protocol_scores_test_images_on_training_images():
    numbers = KNN()(context_of(ChannelMethod(0, 1), object_source(), 16))
    assert numbers == {"knn_top1": 1, "n_train": 200, "n_test": 80}
    background = KNN()(context_of(ChannelMethod(1, 2), object_source(correlated=False), 16))
    assert background["knn_top1"] < 0.6


def test_without_labels_there_are_no_numbers():
    assert KNN()(context_of(ChannelMethod(0), object_source(leave_out=("label",)), 16)) == {}


def test_the_definition_has_the_settings_and_impossible_ones_are_refused():
    assert "k = 5, T = 0.1" in KNN(k=5, temperature=0.1).metrics["knn_top1"].definition
    with pytest.raises(UsageError, match="k=0, T=0.07"):
        KNN(k=0)
    with pytest.raises(UsageError, match="k=20, T=0"):
        KNN(temperature=0)


def test_classes_that_no_training_image_shows_are_refused():
    """Their images counted as errors, without a word."""
    train, test = objects(12, 0, True), objects(8, 1, True)
    train.labels, test.labels = torch.arange(12) % 3, torch.arange(8) % 4
    with pytest.raises(DataError, match=r"class '.*' has 0 training images and 2 test images; kNN needs at least 1 tr"):
        KNN().check(EvaluationData(source_of(train=train, test=test), 16))
    KNN().check(EvaluationData(source_of(train=test, test=train), 16))
    train.labels = torch.zeros(12, dtype=torch.int64)
    with pytest.raises(DataError, match="kNN needs two classes, the training set shows 1"):
        KNN().check(EvaluationData(source_of(train=train, test=train), 16))


def test_neighbours_are_images_for_probes_where_there_are_such_images():
    """The background, beside noise all that this method sees, gives the class away in training and nowhere else."""
    splits = {"train": objects(200, 0, True), "test": objects(80, 1, True), "probe": objects(200, 2, False)}
    source = source_of(**splits)
    method = ChannelMethod(1, 2)
    assert KNN()(context_of(method, source, 16))["knn_top1"] < 0.6
    assert KNN(learns_from="train")(context_of(method, source, 16))["knn_top1"] > 0.95
    labels = {name: KNN(learns_from=name).metrics["knn_top1"].label for name in ("probe", "train")}
    assert labels == {"probe": "kNN top-1", "train": "kNN top-1 under shift"}
    only_train = source_of(train=splits["train"], test=splits["test"])
    assert KNN()(context_of(method, only_train, 16))["knn_top1"] > 0.95
    assert KNN(learns_from="train")(context_of(method, only_train, 16)) == {}  # it would repeat the other
    with pytest.raises(UsageError, match="learns_from of a probe 'tets'"):
        KNN(learns_from="tets")


# ---------------------------------------------------------------- the projection


def test_knn_on_the_projection_is_that_of_the_heads_output():
    method, source = moco(), source_with_random_labels()
    context = context_of(method, source, 16)
    with frozen(method):
        parts = [method.projector(context.features(part)) for part in ("train", "test")]
    train, test = context.data.train, context.data.test
    expected = knn_top1(parts[0], train.labels, parts[1], test.labels, 7, 0.1)
    found = KNN(k=7, temperature=0.1, features="projection")
    assert found(context)["knn_top1"] == expected
    assert found(context_of(SCD(method), source, 16))["knn_top1"] == expected  # of the host
    assert projections(method, context.features("test")).shape == (80, 3) and method.projector.training
    assert expected != KNN(k=7, temperature=0.1)(context)["knn_top1"]
    assert "outputs of the projector" in found.metrics["knn_top1"].definition


def test_unknown_features_and_a_method_without_projector_are_refused():
    with pytest.raises(UsageError, match="unknown features of kNN 'projector'; did you mean 'projection'"):
        KNN(features="projector")
    with pytest.raises(UsageError, match="ChannelMethod has no projector: kNN needs features=pooled here"):
        KNN(features="projection")(context_of(ChannelMethod(0), object_source(), 16))
