"""Which classes an image shows: linear one-vs-rest classification of frozen pooled features.

The counterpart of the linear probe for scenes, similar to VOC07 classification: one linear classifier per class on one
vector per image, scored by mean average precision.

NOTE: VOC07's protocol is a linear SVM per class on l2-normalised features, with a cost per class and VOC's own average
precision. Here it is logistic regression on standardised features with one penalty for all classes, and average
precision is the sum over recalls of (R_n - R_(n-1)) P_n. Compare values between arms, not with published ones.
"""

import numpy as np
from sklearn.metrics import average_precision_score
from torch import Tensor

from scd.errors import DataError
from scd.evaluation.labels import held_out_part
from scd.evaluation.logistic import Regression, Shares, choose_and_fit


def multilabel_map(
    train_features: Tensor, train_present: Tensor, test_features: Tensor, test_present: Tensor, seed: int
) -> float:
    """Mean average precision in [0, 1] of a linear classifier per class; higher is better.

    Logistic regressions of all classes at once, solved to their optimum. The l2 penalty, one for all classes, is the
    one with the highest mean average precision on a fifth of the training images; then all are fitted again on the
    whole training set. A class that every training image or none shows has the same score everywhere.

    Args:
        train_features: (N, d). train_present: (N, C) bool, which classes an image shows.
        test_features: (M, d). test_present: (M, C) bool.
        seed: draws the held-out images and nothing else.

    Raises:
        DataError: no class to learn, or no class in any test image.
    """
    if not test_present.any():
        raise DataError("mean average precision needs a test image with an object of a known class; there is none")
    held = held_out_part(len(train_features), seed).to(train_features.device)
    targets = train_present.to(train_features.device)

    def held_out_score(fit: Regression) -> float:
        return mean_average_precision(class_scores(fit, train_features[held], targets.shape[1]), targets[held])

    fit = choose_and_fit(train_features, Shares(targets.double(), "sigmoid"), held, held_out_score)
    return mean_average_precision(class_scores(fit, test_features, targets.shape[1]), test_present)


def class_scores(fit: Regression, features: Tensor, classes: int) -> Tensor:
    """Scores (N, C) of features (N, d); 0 for the classes that could not be learned."""
    scores = fit.scores(features).float()
    return scores.new_zeros(len(scores), classes).index_copy_(1, fit.classes, scores)


def mean_average_precision(scores: Tensor, present: Tensor) -> float:
    """Mean over the classes that any image shows of the average precision in [0, 1]; 0 where no image shows any.

    Args:
        scores: (N, C). present: (N, C) bool.
    """
    truth, ranked = present.cpu().numpy().astype(bool), scores.double().cpu().numpy()
    shown = truth.any(axis=0)
    if not shown.any():
        return 0.0
    return float(np.mean([average_precision_score(truth[:, c], ranked[:, c]) for c in shown.nonzero()[0]]))
