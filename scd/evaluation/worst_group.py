"""Accuracy by groups of class and background: what an average over test images hides where the background misleads.

The linear probe learns from the images of pretraining. A group is a class of objects on its usual background, the one
that most of its training images have, or on another one. The worst group is the one with the lowest accuracy.

Source of the measure: Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020, section 4;
its groups are class and background as here (Waterbirds).

NOTE: the worst group is the minimum over groups, each weighted alike whatever its size. The mean that is weighted by
the groups' shares of the training images is the accuracy on test images that are as correlated as those of training,
as WILDS reports it; the plain mean over the test images is ``shift_linear_top1``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scd.errors import UsageError
from scd.evaluation.labels import check_classes
from scd.evaluation.linear import check_penalties, class_probe
from scd.evaluation.logistic import L2_GRID
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.protocol import Context, EvaluationData, Protocol


@dataclass(kw_only=True)
class WorstGroup(Protocol):
    """Accuracy of the linear probe in groups of class and background; needs labels and background classes.

    Args:
        l2: penalties to choose from, see :class:`scd.evaluation.linear.Linear`.
        least: groups with fewer test images do not count.

    Raises:
        UsageError: no penalty, one that is not above 0, or ``least`` below 1.
    """

    l2: Sequence[float] = L2_GRID
    least: int = 20

    def __post_init__(self) -> None:
        check_penalties(self.l2)
        if self.least < 1:
            raise UsageError(f"worst group: least is {self.least}, a group has at least 1 image")

    def definitions(self) -> dict[str, Metric]:
        probe = "of a linear probe on frozen pooled features that learns from the images of pretraining"
        usual = "the background class that most training images of the class have"
        return {
            "worst_group_top1": Metric(
                "worst-group top-1",
                SHARE,
                "higher",
                f"lowest accuracy {probe} over groups of test images: each class on its usual background, {usual}, and "
                f"on all others; groups weigh alike, those of fewer than {self.least} images do not count",
            ),
            "usual_background_top1": Metric(
                "top-1 on usual backgrounds",
                SHARE,
                "higher",
                f"accuracy {probe} on the test images whose background is their class's usual one",
            ),
            "other_background_top1": Metric(
                "top-1 on other backgrounds",
                SHARE,
                "higher",
                f"accuracy {probe} on the test images whose background is not their class's usual one",
            ),
            "group_weighted_top1": Metric(
                "top-1, groups weighted as in training",
                SHARE,
                "higher",
                f"mean accuracy {probe} over the groups that count, weighted by their shares of the training images",
            ),
            "groups": Metric("groups", "groups", None, "groups of test images that count"),
        }

    def applies(self, data: EvaluationData) -> bool:
        return data.has("label") and data.has("background")

    def check(self, data: EvaluationData) -> None:
        check_classes(data.train.labels, data.test.labels, data.train.class_names)

    def measure(self, context: Context) -> dict[str, float]:
        train, test = context.data.train, context.data.test
        predicted = class_probe(context, self.l2, "train").predict(context.features("test")).cpu()
        usual = usual_backgrounds(train.labels, train.backgrounds)
        is_usual = on_usual(test.labels, test.backgrounds, usual)
        right = (predicted == test.labels).double()
        shares = group_shares(train.labels, on_usual(train.labels, train.backgrounds, usual))
        scores = {
            group: float(right[rows].mean())
            for group, rows in groups_of(test.labels, is_usual).items()
            if len(rows) >= self.least
        }
        numbers: dict[str, float] = {"groups": len(scores)}
        if scores:
            weight = sum(shares.get(group, 0.0) for group in scores)
            numbers["worst_group_top1"] = min(scores.values())
            if weight > 0:
                weighted = sum(score * shares.get(group, 0.0) for group, score in scores.items())
                numbers["group_weighted_top1"] = weighted / weight
        for name, rows in (("usual", is_usual), ("other", ~is_usual)):
            if rows.any():
                numbers[f"{name}_background_top1"] = float(right[rows].mean())
        return numbers


def usual_backgrounds(labels: Tensor, backgrounds: Tensor) -> dict[int, int]:
    """The background class that most images of a class have, of equally many the lowest; by class."""
    return {int(c): int(backgrounds[labels == c].bincount().argmax()) for c in labels.unique()}


def on_usual(labels: Tensor, backgrounds: Tensor, usual: dict[int, int]) -> Tensor:
    """Whether each image (N,) has its class's usual background; False for a class without one."""
    expected = torch.tensor([usual.get(int(label), -1) for label in labels], dtype=backgrounds.dtype)
    return backgrounds == expected


def groups_of(labels: Tensor, is_usual: Tensor) -> dict[tuple[int, bool], Tensor]:
    """Rows of the images in each group that has any, by class and whether the background is the usual one."""
    found = {}
    for label in labels.unique().tolist():
        for flag in (True, False):
            rows = ((labels == label) & (is_usual == flag)).nonzero()[:, 0]
            if len(rows):
                found[label, flag] = rows
    return found


def group_shares(labels: Tensor, is_usual: Tensor) -> dict[tuple[int, bool], float]:
    """The share of the images in each group."""
    return {group: len(rows) / len(labels) for group, rows in groups_of(labels, is_usual).items()}
