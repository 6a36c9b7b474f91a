"""Segmentation from frozen feature maps: by a linear classifier, and by retrieval.

Linear: multinomial logistic regression from a position's features to the shares of classes among its pixels. Retrieval
(Balazevic et al. 2023, arXiv 2306.01667, with the settings of the open re-implementation): a test position x gathers
the labels of its k nearest training positions m_j in a memory,

    y(x) = sum_j w_j y_j        w = softmax_j( cos(x, m_j) / T )        y_j = shares of classes in m_j's pixels

In both, the scores of positions are resized bilinearly to the mask, and the highest one is the pixel's class.

NOTE: one un-augmented view per image; positions are drawn uniformly, rare classes are not favoured; ignored pixels do
not count in a position's shares, where the re-implementation counts them as background.
NOTE: the retrieval score depends on the size of the memory: compare at equal sizes only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from scd.errors import DataError, UsageError
from scd.evaluation.labels import held_out_part
from scd.evaluation.logistic import Regression, Shares, choose_and_fit
from scd.seeds import generator

IGNORED = 255  # of a SceneSet's semantic maps
POSITIONS = 10_000
MEMORY = 20_000
NEIGHBOURS = 30
TEMPERATURE = 0.02
CHUNK_VALUES = 1 << 22  # of an intermediate result
CHUNK_QUERIES = 256


def linear_miou(
    train_maps: Tensor,
    train_semantic: Tensor,
    test_maps: Tensor,
    test_semantic: Tensor,
    classes: int,
    seed: int,
    positions: int = POSITIONS,
) -> float:
    """Mean IoU of multinomial logistic regression on standardised position features, solved to its optimum.

    The l2 penalty is the one with the highest mean IoU on a fifth of the training images; then the regression is fitted
    again on the drawn positions of all of them.

    Args:
        train_maps: (N, C, h, w). train_semantic: (N, S, S) uint8 in [0, classes), 255 is ignored.
        test_maps: (M, C, h, w). test_semantic: (M, S, S).
        seed: draws the held-out images, and the positions where there are more than ``positions``.

    Raises:
        DataError: masks that ignore every pixel.
    """
    held = held_out_part(len(train_maps), seed)
    image, features, targets = labelled_positions(train_maps, train_semantic, classes, positions, seed)
    row_held = held.to(image.device)[image]
    held_maps, held_semantic = train_maps[held.to(train_maps.device)], train_semantic[held.to(train_semantic.device)]
    if row_held.all() or not labelled(held_semantic):
        raise DataError("too few training images have labelled pixels: a fifth of the images is held out")

    def score(fit: Regression) -> float:
        return mean_iou(position_scores(fit, held_maps), held_semantic, classes, fit.classes)

    fit = choose_and_fit(features, Shares(targets, "softmax"), row_held, score)
    return mean_iou(position_scores(fit, test_maps), test_semantic, classes, fit.classes)


def knn_miou(
    train_maps: Tensor,
    train_semantic: Tensor,
    test_maps: Tensor,
    test_semantic: Tensor,
    classes: int,
    seed: int,
    memory: int = MEMORY,
    k: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> float:
    """Mean IoU of the labels that test positions retrieve from a memory of training positions.

    Args:
        memory: at most this many training positions, drawn from ``seed``.
        k: neighbours; more than the memory holds means all of it.
        temperature: T.
        The others as in :func:`linear_miou`.

    Raises:
        UsageError: k or T not above 0.
        DataError: masks that ignore every pixel.
    """
    if k < 1 or not temperature > 0:
        raise UsageError(f"retrieval needs k of at least 1 and a temperature above 0, not k={k}, T={temperature}")
    _, features, targets = labelled_positions(train_maps, train_semantic, classes, memory, seed)
    bank = F.normalize(features.float(), dim=1).T.contiguous()  # (C, n)
    k = min(k, len(features))
    n, channels, h, w = test_maps.shape
    retrieved = []
    for queries in as_rows(test_maps).to(bank.device).split(CHUNK_QUERIES):
        similarity, index = (F.normalize(queries.float(), dim=1) @ bank).topk(k, dim=1)  # (q, k)
        weights = (similarity / temperature).softmax(dim=1)
        retrieved.append((weights[:, :, None] * targets[index]).sum(dim=1))
    labels = torch.cat(retrieved).view(n, h, w, classes).permute(0, 3, 1, 2)
    return mean_iou(labels, test_semantic, classes)


# ---------------------------------------------------------------- positions and their labels


def labelled_positions(
    maps: Tensor, semantic: Tensor, classes: int, most: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Image index (n,), features (n, C) and class shares (n, K) of positions with a labelled pixel, at most ``most``.

    Raises:
        DataError: there is none.
    """
    shares = class_shares(semantic, classes, tuple(maps.shape[2:])).to(maps.device).flatten(0, 2)  # (N·h·w, K)
    rows = (shares.sum(dim=1) > 0).nonzero()[:, 0]
    if not len(rows):
        raise DataError("no training image has a labelled pixel to learn segmentation from")
    if len(rows) > most:
        drawn = torch.randperm(len(rows), generator=generator(seed, "probe", "positions"))[:most].sort().values
        rows = rows[drawn.to(rows.device)]
    return rows // (maps.shape[2] * maps.shape[3]), as_rows(maps)[rows], shares[rows]


def class_shares(semantic: Tensor, classes: int, shape: tuple[int, int]) -> Tensor:
    """Shares (N, h, w, K) float32 of the classes among each position's pixels that are not ignored; all 0 without any.

    A position is the cell of an h x w grid over the image; where cells do not end between pixels they overlap.

    Args:
        semantic: (N, S, S) uint8 in [0, classes), 255 is ignored.

    Raises:
        DataError: a value that is neither a class nor 255.
    """
    bad = semantic[(semantic >= classes) & (semantic != IGNORED)]
    if len(bad):
        raise DataError(f"the masks hold the value {int(bad[0])}, but there are {classes} segment classes")
    parts = []
    for part in semantic.split(max(1, CHUNK_VALUES // (semantic[0].numel() * classes))):
        shown = torch.stack([part == c for c in range(classes)], dim=1).float()  # (n, K, S, S)
        parts.append(F.adaptive_avg_pool2d(shown, shape))
    shares = torch.cat(parts)
    total = shares.sum(dim=1, keepdim=True)
    return torch.where(total > 0, shares / total.clamp_min(1e-12), 0.0).permute(0, 2, 3, 1)


def as_rows(maps: Tensor) -> Tensor:
    """Maps (N, C, h, w) as one row per position (N·h·w, C)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def position_scores(fit: Regression, maps: Tensor) -> Tensor:
    """The regression's scores as maps (N, K, h, w)."""
    n, _, h, w = maps.shape
    return fit.scores(as_rows(maps)).float().view(n, h, w, -1).permute(0, 3, 1, 2)


def labelled(semantic: Tensor) -> bool:
    """Whether any pixel of masks (N, S, S) has a class."""
    return bool((semantic != IGNORED).any())


def mean_iou(scores: Tensor, semantic: Tensor, classes: int, names: Tensor | None = None) -> float:
    """Mean over classes of the IoU in [0, 1] over all pixels of all images; higher is better.

    Classes that neither the masks nor the predictions hold are left out; ignored pixels count for nothing.

    Args:
        scores: (N, K, h, w), resized bilinearly to the masks. semantic: (N, S, S), 255 is ignored.
        classes: number of classes.
        names: (K,) int64, the class of each score; 0 ... K - 1 when None.

    Raises:
        DataError: masks that ignore every pixel.
    """
    if not labelled(semantic):
        raise DataError("no image has a labelled pixel to score segmentation on")
    metric = MulticlassJaccardIndex(classes, average="macro", ignore_index=IGNORED, validate_args=False)
    metric = metric.to(scores.device)
    chunk = max(1, CHUNK_VALUES // (semantic[0].numel() * scores.shape[1]))
    for part, truth in zip(scores.split(chunk), semantic.split(chunk), strict=True):
        full = F.interpolate(part.float().contiguous(), truth.shape[1:], mode="bilinear", align_corners=False)
        predicted = full.max(dim=1).indices  # on the CPU several times faster than argmax
        metric.update(predicted if names is None else names[predicted], truth.to(scores.device).long())
    return float(metric.compute())
