"""Weighted k-nearest-neighbour classification on frozen features."""

import torch
import torch.nn.functional as F
from torch import Tensor


def knn_predict(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
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
        chunk: queries per block, which bounds the memory (chunk x N similarities) and nothing else.
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
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Share in [0, 1] of test images whose label the weighted kNN gets right; higher is better.

    k = 20 and T = 0.07 are fixed (DINO's best k), never chosen on the test set; see :func:`knn_predict`.
    """
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    predicted = knn_predict(train_features, train_labels, test_features, classes, k, temperature)
    return float((predicted == test_labels.to(predicted.device)).double().mean())
