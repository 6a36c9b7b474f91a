"""Linear probe: multinomial logistic regression on frozen features, solved to its optimum.

The only setting, the l2 penalty, is chosen on a held-out part of the training images, see
:mod:`scd.evaluation.logistic`.

NOTE: the papers train the linear layer by SGD on augmented crops (MoCo: learning rate 30, 100 epochs). Here features
are computed once, from un-augmented views, and standardised. Compare accuracies between arms, not with published ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from scd.errors import UsageError
from scd.evaluation.labels import HELD_OUT, MIN_PER_CLASS, accuracy, balanced_accuracy, stratified_part
from scd.evaluation.logistic import L2_GRID, OneClass, Regression, choose_and_fit
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.probe import LEARNS_FROM, ClassProbe
from scd.evaluation.protocol import N_TEST, N_TRAIN, Context, Part


@dataclass(kw_only=True)
class Linear(ClassProbe):
    """Accuracy of a linear probe.

    Args:
        l2: penalties to choose from; nothing is chosen from a single one.
        learns_from: see :class:`scd.evaluation.probe.ClassProbe`.

    Raises:
        UsageError: no penalty, one that is not above 0, or no such images.
    """

    l2: Sequence[float] = L2_GRID
    least = MIN_PER_CLASS
    title = "a linear probe"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_penalties(self.l2)

    def definitions(self) -> dict[str, Metric]:
        chosen = "l2 chosen on a held-out 20 % of the images, then refitted on all of them"
        fit = (
            "multinomial logistic regression on standardised, frozen, un-augmented pooled backbone features, solved to "
            f"its optimum; {chosen if len(self.l2) > 1 else f'l2 = {self.l2[0]:g}, fixed'}; learned from "
            f"{LEARNS_FROM[self.learns_from]}"
        )
        grid = ", ".join(f"{value:g}" for value in sorted(self.l2, reverse=True))
        return {
            "linear_top1": Metric(self.label("linear top-1"), SHARE, "higher", fit),
            "linear_balanced": Metric(
                self.label("linear balanced accuracy"),
                SHARE,
                "higher",
                "the linear probe's accuracy in each test class, mean over classes",
            ),
            "linear_l2": Metric(
                self.label("l2 penalty"),
                "weight of |W|^2 / 2 beside the mean cross-entropy",
                None,
                f"the linear probe's penalty, chosen from {grid}; at either end the choice may be too narrow"
                if len(self.l2) > 1
                else "the linear probe's penalty, fixed",
            ),
            "linear_converged": Metric(
                self.label("linear probe converged"),
                "1 or 0",
                None,
                "1 where every fit of the linear probe, for each penalty and the last one, reached its optimum",
            ),
            "n_train": N_TRAIN,
            "n_test": N_TEST,
        }

    def measure(self, context: Context) -> dict[str, float]:
        probe, labels = class_probe(context, self.l2, self.learns_from), context.data.test.labels
        predicted = probe.predict(context.features("test"))
        return {
            "linear_top1": accuracy(predicted, labels),
            "linear_balanced": balanced_accuracy(predicted, labels),
            "linear_l2": probe.fit.l2,
            "linear_converged": int(probe.fit.converged),
            "n_train": len(self.learned(context.data)),
            "n_test": len(labels),
        }


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        fit: the regression, and how its penalty was chosen: ``held_out`` has accuracies in [0, 1].
        classes: (C,) the label of each output.
    """

    fit: Regression
    classes: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """Labels (M,) int64 of features (M, d)."""
        return self.classes[self.fit.scores(features).argmax(dim=1)]


def class_probe(context: Context, grid: Sequence[float], learns_from: Part) -> LinearProbe:
    """The probe of the labels of these images, fitted once for all protocols that use it."""
    part = context.data.origin(learns_from)
    labels = getattr(context.data, part).labels
    return context.once(
        ("linear probe", tuple(grid), part),
        lambda: fit_linear_probe(context.features(part), labels, context.seed, grid),
    )


def fit_linear_probe(features: Tensor, labels: Tensor, seed: int, grid: Sequence[float] = L2_GRID) -> LinearProbe:
    """Choose the l2 penalty on a held-out fifth of the images, then solve on all of them.

    The fifth is drawn once per seed, class by class. The penalty with the highest held-out accuracy wins; of equal ones
    the strongest.

    Args:
        features: (N, d). labels: (N,) int64; any label values, each with at least 5 images.
        seed: draws the held-out images and nothing else.
        grid: penalties, see :func:`scd.evaluation.logistic.solve`.
    """
    classes, y = labels.to(features.device).unique(return_inverse=True)
    held = stratified_part(y.cpu(), HELD_OUT, seed).to(y.device)

    def held_out_accuracy(fit: Regression) -> float:
        return accuracy(fit.scores(features[held]).argmax(dim=1), y[held])

    return LinearProbe(choose_and_fit(features, OneClass(y, len(classes)), held, held_out_accuracy, grid), classes)


def check_penalties(grid: Sequence[float]) -> None:
    """Check the penalties to choose from.

    Raises:
        UsageError: none, or one that is not above 0.
    """
    if not len(grid) or not all(value > 0 for value in grid):
        raise UsageError(f"l2 needs one penalty or more, all above 0, not {list(grid)}")
