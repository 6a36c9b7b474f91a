"""Weighted k-nearest-neighbour classification on frozen features."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.errors import UsageError, unknown
from scd.evaluation.features import BATCH, finite, frozen
from scd.evaluation.labels import accuracy
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.probe import LEARNS_FROM, ClassProbe
from scd.evaluation.protocol import N_TEST, N_TRAIN, Context
from scd.method import Method
from scd.wrapper import Wrapper

FEATURES = {"pooled": "pooled backbone features", "projection": "outputs of the projector"}


@dataclass(kw_only=True)
class KNN(ClassProbe):
    """Top-1 accuracy of weighted kNN on frozen features. The settings are fixed and not chosen on any images.

    Args:
        k: neighbours; 20 is DINO's best.
        temperature: T of the votes' weights.
        features: "pooled", the backbone's, or "projection", what the projector makes of them (MoCo's CIFAR-10 demo).
        learns_from: see :class:`scd.evaluation.probe.ClassProbe`.

    Raises:
        UsageError: k or T not above 0, unknown features, or no such images.
    """

    k: int = 20
    temperature: float = 0.07
    features: str = "pooled"
    least = 1
    title = "kNN"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1 or not self.temperature > 0:
            raise UsageError(
                f"kNN needs k of at least 1 and a temperature above 0, not k={self.k}, T={self.temperature}"
            )
        if self.features not in FEATURES:
            raise unknown("features of kNN", self.features, FEATURES)

    def definitions(self) -> dict[str, Metric]:
        metric = Metric(self.label("kNN top-1"), SHARE, "higher", self.words)
        return {"knn_top1": metric, "n_train": N_TRAIN, "n_test": N_TEST}

    @property
    def words(self) -> str:
        """What is measured, with its settings."""
        return (
            f"weighted kNN on l2-normalised {FEATURES[self.features]} of un-augmented views, "
            f"k = {self.k}, T = {self.temperature:g}, both fixed; neighbours are {LEARNS_FROM[self.learns_from]}"
        )

    def measure(self, context: Context) -> dict[str, float]:
        return {
            "knn_top1": self.accuracy(context),
            "n_train": len(self.learned(context.data)),
            "n_test": len(context.data.test),
        }

    def accuracy(self, context: Context) -> float:
        """Share of the test images whose label is predicted.

        Raises:
            UsageError: the projection of a method that has none.
        """
        bank, queries = context.features(self.learns_from), context.features("test")
        if self.features == "projection":
            bank, queries = projections(context.method, bank), projections(context.method, queries)
        labels = self.learned(context.data).labels, context.data.test.labels
        return knn_top1(bank, labels[0], queries, labels[1], self.k, self.temperature)


def projections(method: Method, pooled: Tensor) -> Tensor:
    """Embeddings (N, D), float32, of pooled features (N, C): the projector's output in evaluation mode.

    Raises:
        UsageError: a method without a projector.
    """
    host = method.siamese if isinstance(method, Wrapper) else method
    projector = getattr(host, "projector", None)
    if projector is None:
        raise UsageError(f"{type(method).__name__} has no projector: kNN needs features=pooled here")
    with frozen(projector):
        return finite(torch.cat([projector(part).float() for part in pooled.split(BATCH)]))


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
