"""Weighted k-nearest-neighbour classification on frozen features."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.errors import UsageError
from scd.evaluation.labels import accuracy
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.probe import LEARNS_FROM, ClassProbe
from scd.evaluation.protocol import N_TEST, N_TRAIN, Context


@dataclass(kw_only=True)
class KNN(ClassProbe):
    """Top-1 accuracy of weighted kNN on pooled features. The settings are fixed and not chosen on any images.

    Args:
        k: neighbours; 20 is DINO's best.
        temperature: T of the votes' weights.
        learns_from: see :class:`scd.evaluation.probe.ClassProbe`.

    Raises:
        UsageError: k or T not above 0, or no such images.
    """

    k: int = 20
    temperature: float = 0.07
    least = 1
    title = "kNN"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1 or not self.temperature > 0:
            raise UsageError(
                f"kNN needs k of at least 1 and a temperature above 0, not k={self.k}, T={self.temperature}"
            )

    def definitions(self) -> dict[str, Metric]:
        text = (
            "weighted kNN on l2-normalised pooled backbone features of un-augmented views, "
            f"k = {self.k}, T = {self.temperature:g}, both fixed; neighbours are {LEARNS_FROM[self.learns_from]}"
        )
        return {"knn_top1": Metric("kNN top-1", SHARE, "higher", text), "n_train": N_TRAIN, "n_test": N_TEST}

    def measure(self, context: Context) -> dict[str, float]:
        train, test = self.learned(context.data), context.data.test
        features = context.features(self.learns_from), train.labels, context.features("test"), test.labels
        return {
            "knn_top1": knn_top1(*features, self.k, self.temperature),
            "n_train": len(train),
            "n_test": len(test),
        }


def knn_predict(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    classes: int,
    k: int,
    temperature: float,
    chunk: int = 1024,
) -> Tensor:
    """Labels (M,) int64 of the test features by a weighted vote of their k nearest training features.

    Score of class c for a query x: S_c = sum over the k nearest f_n of 1[y_n = c] exp(cos(x, f_n) / T); the prediction
    is argmax S_c (Wu et al. 2018, section 3.4; Caron et al. 2021, DINO, appendix). Features are l2-normalised here.

    Args:
        train_features: (N, d). train_labels: (N,) int64 in [0, classes). test_features: (M, d).
        classes: number of classes, those included that no test image shows.
        k: neighbours; more than N means all N.
        temperature: T.
        chunk: queries per block; it bounds the memory (chunk x N similarities) and does not change the result.
    """
    bank = F.normalize(train_features.float(), dim=1)
    labels = train_labels.to(bank.device)
    k = min(k, len(bank))
    predictions = []
    for queries in test_features.to(bank.device).float().split(chunk):
        similarity, index = (F.normalize(queries, dim=1) @ bank.T).topk(k, dim=1)  # (m, k)
        # exp((s - s_max) / T) gives the same argmax as exp(s / T) and cannot overflow at a small T
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = weights.new_zeros(len(queries), classes).scatter_add_(1, labels[index], weights)
        predictions.append(votes.argmax(dim=1))
    return torch.cat(predictions)


def knn_top1(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int,
    temperature: float,
) -> float:
    """Share in [0, 1] of test images whose label the weighted kNN predicts; see :func:`knn_predict`."""
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    return accuracy(knn_predict(train_features, train_labels, test_features, classes, k, temperature), test_labels)
