"""Linear probe: multinomial logistic regression on frozen features, solved to its optimum.

A convex problem with one minimum has no learning rate, batch size or number of epochs to tune per method; the only knob
left, the l2 penalty, is chosen on a held-out part of the training set.

NOTE: the papers train the linear layer by SGD on augmented crops (MoCo: learning rate 30, 100 epochs). Here features
are taken once, from un-augmented views, and standardised; accuracies compare between arms, not with published ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from scd.errors import DataError
from scd.seeds import generator

L2_GRID = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # strongest first: each solution starts the next
HELD_OUT = 0.2
MIN_PER_CLASS = 5  # the smallest class of which a held-out fifth is one image
TOLERANCE = 1e-3  # relative error of the weights at which a solution counts as the optimum
PATH_TOLERANCE = 1e-2  # the same on the way, where a solution only ranks penalties
FLOOR = 0.1  # norm of the weights below which the tolerance stays absolute: features without information
CONSTANT = 1e-6  # a dimension whose standard deviation is below this share of its magnitude carries rounding only


@dataclass(frozen=True)
class Solution:
    """A minimum of the penalised loss: ``weight`` (d, C) and ``bias`` (C,), float64, the norm of the gradient there,
    the steps taken, and whether it is within the tolerance of the optimum."""

    weight: Tensor
    bias: Tensor
    gradient: float
    steps: int
    converged: bool


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe: predicts labels from features, and tells how its penalty was chosen.

    Args:
        mean, scale: (d,) standardisation, from the training features.
        solution: the optimum on the whole training set.
        classes: (C,) label of each output.
        l2: the chosen penalty.
        held_out: accuracy in [0, 1] on the held-out part of the training set, by penalty.
        converged: True where every solution, on the way and at the end, reached its optimum.
    """

    mean: Tensor
    scale: Tensor
    solution: Solution
    classes: Tensor
    l2: float
    held_out: dict[float, float]
    converged: bool

    def predict(self, features: Tensor) -> Tensor:
        """Labels (M,) int64 of features (M, d)."""
        x = standardise(features.to(self.mean.device), self.mean, self.scale)
        return self.classes[(x @ self.solution.weight + self.solution.bias).argmax(dim=1)]


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    seed: int,
    grid: Sequence[float] = L2_GRID,
    class_names: Sequence[str] | None = None,
) -> dict:
    """Fit on the training features, score on the test features.

    Returns:
        ``top1`` (share of test images right, in [0, 1], higher is better), ``balanced`` (mean over the test set's
        classes of the share right in each, same scale), ``l2`` (chosen penalty), ``held_out`` (accuracy by penalty),
        ``converged`` (bool).

    Raises:
        DataError: a class with fewer than 5 training images, a test class without any, or a single class.
    """
    check_classes(train_labels, test_labels, class_names)
    probe = fit_linear_probe(train_features, train_labels, seed, grid)
    predicted = probe.predict(test_features)
    return {
        "top1": accuracy(predicted, test_labels),
        "balanced": balanced_accuracy(predicted, test_labels),
        "l2": probe.l2,
        "held_out": probe.held_out,
        "converged": probe.converged,
    }


def fit_linear_probe(features: Tensor, labels: Tensor, seed: int, grid: Sequence[float] = L2_GRID) -> LinearProbe:
    """Choose the l2 penalty on a held-out fifth of the data, then solve on all of it.

    The fifth is drawn once per seed, class by class. The penalty with the highest held-out accuracy wins; of equal ones
    the strongest. Dimensions are standardised to mean 0 and variance 1, anew for each of the two fits.

    Args:
        features: (N, d). labels: (N,) int64; any label values, each with at least 5 images.
        seed: the run's seed; it decides the held-out images and nothing else.
        grid: penalties lambda, see :func:`solve`.
    """
    grid = sorted(grid, reverse=True)
    classes, y = labels.to(features.device).unique(return_inverse=True)
    held = stratified_part(y.cpu(), HELD_OUT, seed).to(y.device)
    mean, scale = standardisation(features[~held])
    path = regularisation_path(standardise(features[~held], mean, scale), y[~held], len(classes), grid)
    x_held = standardise(features[held], mean, scale)
    held_out = {l2: accuracy((x_held @ s.weight + s.bias).argmax(dim=1), y[held]) for l2, s in path.items()}
    l2 = max(grid, key=lambda value: held_out[value])  # max keeps the first, strongest one of equals
    mean, scale = standardisation(features)
    solution = solve(standardise(features, mean, scale), y, len(classes), l2, start=path[l2])
    converged = solution.converged and all(s.converged for s in path.values())
    return LinearProbe(mean, scale, solution, classes, l2, held_out, converged)


def regularisation_path(x: Tensor, y: Tensor, classes: int, grid: Sequence[float]) -> dict[float, Solution]:
    """Solutions by penalty, each started from the one before; ``grid`` goes from strong to weak.

    In float32, which is twice as fast, and in float64 from where rounding ends the descent too early.
    """
    basis = Basis.of(x.float())
    path: dict[float, Solution] = {}
    start = None
    for l2 in grid:
        start = solve(x.float(), y, classes, l2, start, basis, PATH_TOLERANCE)
        if not start.converged:
            start = solve(x, y, classes, l2, start, tolerance=PATH_TOLERANCE)
        path[l2] = start
    return path


@dataclass(frozen=True)
class Basis:
    """Principal axes of standardised features: ``rotated`` (N, r), ``axes`` (d, r), ``variance`` (r,)."""

    rotated: Tensor
    axes: Tensor
    variance: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Basis":
        """Axes of x (N, d) without those of no variance, on which an l2-penalised optimum has no weight."""
        variance, axes = torch.linalg.eigh((x.T @ x / len(x)).double())
        keep = variance > 1e-12 * variance.max().clamp_min(1e-300)
        axes = axes[:, keep]
        return cls(x @ axes.to(x.dtype), axes, variance[keep])


def solve(
    x: Tensor,
    y: Tensor,
    classes: int,
    l2: float,
    start: Solution | None = None,
    basis: Basis | None = None,
    tolerance: float = TOLERANCE,
    max_steps: int = 1000,
) -> Solution:
    """Minimise mean_n CE(x_n W + b, y_n) + l2/2 |W|^2 over W (d, C) and b (C,), the bias without penalty.

    L-BFGS in the coordinates V = diag(v/2 + l2)^(1/2) U^T W, where U and v are the features' principal axes and
    variances: v/2 bounds the loss' curvature (Boehning 1992), so the problem is well conditioned however correlated the
    features are, and its optimum is reached in tens of steps. It ends where |gradient| <= tolerance * l2 * |W|, norms
    over all entries, which bounds the distance to the optimal W by tolerance * |W| since the loss is l2-strongly convex
    in W. Products with x run in x's precision, all the rest in float64.

    Args:
        x: (N, d) float32 or float64, standardised. y: (N,) int64 in [0, classes).
        start: a solution to start from; zeros otherwise.
        basis: the principal axes of x where they are known already.
        tolerance: see above.
    """
    basis = basis or Basis.of(x)
    rank = basis.axes.shape[1]
    stretch = (basis.variance / 2 + l2).rsqrt()[:, None]  # (r, 1)
    z = torch.cat([basis.rotated * stretch.T.to(x.dtype), x.new_ones(len(x), 1)], dim=1)  # (N, r + 1)
    penalty = torch.cat([l2 * stretch**2, stretch.new_zeros(1, 1)])  # (r + 1, 1)
    rows = torch.arange(len(y), device=y.device)
    v = penalty.new_zeros(rank + 1, classes)
    if start is not None:
        v[:rank] = (basis.axes.T @ start.weight) / stretch
        v[rank] = start.bias
    at: dict[str, float] = {}  # of the latest evaluation: |gradient| and the distance from the optimum that it bounds

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        v = torch.from_numpy(flat).to(penalty).view(rank + 1, classes)
        logp = F.log_softmax((z @ v.to(z.dtype)).double(), dim=1)  # (N, C)
        loss = -logp[rows, y].mean() + (penalty * v**2).sum() / 2
        residual = logp.exp_()
        residual[rows, y] -= 1
        gradient = (z.T @ residual.to(z.dtype)).double() / len(y) + penalty * v
        size = torch.cat([gradient[:rank] / stretch, gradient[rank:]]).norm()  # U has no part in the norm
        at["gradient"] = float(size)
        at["error"] = float(size / (l2 * (stretch * v[:rank]).norm().clamp_min(FLOOR)))
        return float(loss), gradient.flatten().cpu().numpy()

    def stop_at_optimum(_: np.ndarray) -> None:
        if at["error"] <= tolerance:
            raise StopIteration

    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "ftol": 0.0, "gtol": 0.0, "maxcor": 20}
    found = minimize(
        loss_and_gradient,
        v.flatten().cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        callback=stop_at_optimum,
        options=options,
    )
    loss_and_gradient(found.x)
    v = torch.from_numpy(found.x).to(penalty).view(rank + 1, classes)
    weight = basis.axes @ (stretch * v[:rank])
    return Solution(weight, v[rank], at["gradient"], int(found.nit), at["error"] <= tolerance)


def standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (d,), float64; 1 in place of the deviation of a dimension that is constant."""
    deviation, mean = torch.std_mean(features.double(), dim=0, correction=0)
    return mean, torch.where(deviation > CONSTANT * mean.abs(), deviation, torch.ones_like(deviation))


def standardise(features: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Features (N, d) with mean 0 and variance 1 per dimension, float64."""
    return (features.double() - mean) / scale


def stratified_part(labels: Tensor, share: float, seed: int) -> Tensor:
    """Mask (N,), True for a share of each class (at least one image of it), drawn from the seed."""
    order = torch.randperm(len(labels), generator=generator(seed, "probe", "held-out"))
    part = torch.zeros(len(labels), dtype=torch.bool)
    for c in labels.unique():
        members = order[labels[order] == c]
        part[members[: max(1, round(share * len(members)))]] = True
    return part


def check_classes(
    train_labels: Tensor, test_labels: Tensor, class_names: Sequence[str] | None = None, kind: str = "class"
) -> None:
    """Raise a DataError where a probe cannot be trained or scored fairly; a class absent from both sets is fine."""
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    in_train, in_test = (torch.bincount(labels.cpu(), minlength=classes) for labels in (train_labels, test_labels))
    for c in range(classes):
        if 0 < in_train[c] < MIN_PER_CLASS or (in_train[c] == 0 and in_test[c] > 0):
            name = f"'{class_names[c]}'" if class_names else c
            raise DataError(
                f"{kind} {name} has {int(in_train[c])} training images and {int(in_test[c])} test images; "
                f"a linear probe needs at least {MIN_PER_CLASS} training images of it (raise the limit on training "
                f"images or leave the {kind} out)"
            )
    if int((in_train > 0).sum()) < 2:
        raise DataError(f"a linear probe needs two {kind}es, the training set shows {int((in_train > 0).sum())}")


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share in [0, 1] of labels (N,) predicted right."""
    return float((predicted == labels.to(predicted.device)).double().mean())


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Mean over the classes in ``labels`` of the share in [0, 1] of each that is predicted right."""
    labels = labels.to(predicted.device)
    return sum(accuracy(predicted[labels == c], labels[labels == c]) for c in labels.unique()) / len(labels.unique())
