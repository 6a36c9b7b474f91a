"""Logistic regression with an l2 penalty, solved to its optimum; the penalty is chosen on held-out rows.

    minimise over W (d, K), b (K,)    mean_n [ A(s_n) - t_n . s_n ] + l2/2 |W|^2        s_n = x_n W + b

A = log sum exp gives the cross-entropy of a softmax, with targets t_n that sum to 1: one class per row
(:class:`OneClass`) or shares of classes (:class:`Shares`). A = sum_k log(1 + exp s_k) gives one logistic regression per
class, all classes at once, with targets in [0, 1]. The gradient in s is A'(s) - t in both.

The problem is convex with one minimum: there is no learning rate, batch size or number of epochs to tune per method.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from scd.errors import DataError, unknown

L2_GRID = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # strongest first: each solution starts the next
TOLERANCE = 1e-3  # relative error of the weights at which a solution counts as the optimum
PATH_TOLERANCE = 1e-2  # the same for solutions that only rank penalties
FLOOR = 0.1  # norm of the weights below which the tolerance is absolute: features without information
CONSTANT = 1e-6  # a dimension whose standard deviation is below this share of its magnitude carries rounding only

Loss = Callable[[Tensor], tuple[Tensor, Tensor]]  # coefficients -> loss without penalty, and its gradient

# ---------------------------------------------------------------- targets


@dataclass(frozen=True)
class OneClass:
    """One class per row.

    Args:
        labels: (N,) int64 in [0, count).
        count: number of classes.
    """

    labels: Tensor
    count: int
    curvature = 1 / 2  # bound of A's second derivative (Boehning 1992)

    def rows(self, chosen: Tensor) -> "OneClass":
        """The targets of some rows."""
        return replace(self, labels=self.labels[chosen])

    def learnable(self) -> Tensor:
        """The classes with a finite optimum: all of them."""
        return torch.arange(self.count, device=self.labels.device)

    def of_classes(self, classes: Tensor) -> "OneClass":
        """The targets of some classes: all of them."""
        return self

    def loss(self, z: Tensor) -> Loss:
        """The mean cross-entropy as a function of coefficients (r, K) of features z (N, r).

        Scores in z's precision, the rest in float64.
        """
        rows, y = torch.arange(len(self.labels), device=self.labels.device), self.labels

        def value_and_gradient(v: Tensor) -> tuple[Tensor, Tensor]:
            logp = F.log_softmax((z @ v.to(z.dtype)).double(), dim=1)  # (N, K)
            value = -logp[rows, y].mean()
            residual = logp.exp_()
            residual[rows, y] -= 1
            return value, (z.T @ residual.to(z.dtype)).double() / len(y)

        return value_and_gradient


class Link(NamedTuple):
    """A link: gives A(s) (N,) and A'(s) (N, K) of scores s (N, K), and a bound of A's second derivative."""

    partition: Callable[[Tensor], tuple[Tensor, Tensor]]
    curvature: float


def softmax_partition(s: Tensor) -> tuple[Tensor, Tensor]:
    """log sum exp s and its gradient, the softmax; one exponential for both."""
    highest = s.amax(dim=1, keepdim=True)
    powers = (s - highest).exp_()
    total = powers.sum(dim=1, keepdim=True)
    return (total.log() + highest)[:, 0], powers.div_(total)


def sigmoid_partition(s: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over classes of log(1 + exp s) and its gradient, the sigmoid."""
    return F.softplus(s).sum(dim=1), torch.sigmoid(s)


LINKS = {"softmax": Link(softmax_partition, 1 / 2), "sigmoid": Link(sigmoid_partition, 1 / 4)}


@dataclass(frozen=True)
class Shares:
    """Shares of classes per row.

    Args:
        shares: (N, K) in [0, 1].
        link: "softmax" or "sigmoid".

    Raises:
        UsageError: an unknown link.
    """

    shares: Tensor
    link: str

    def __post_init__(self) -> None:
        if self.link not in LINKS:
            raise unknown("link", self.link, LINKS)

    @property
    def curvature(self) -> float:
        """Bound of A's second derivative."""
        return LINKS[self.link].curvature

    @property
    def count(self) -> int:
        """Number of classes."""
        return self.shares.shape[1]

    def rows(self, chosen: Tensor) -> "Shares":
        """The targets of some rows."""
        return replace(self, shares=self.shares[chosen])

    def learnable(self) -> Tensor:
        """The classes with a finite optimum: of a softmax those with any share, of a sigmoid those that vary.

        Raises:
            DataError: there is none.
        """
        some = self.shares.amax(dim=0) > 0
        if self.link == "sigmoid":
            some &= self.shares.amin(dim=0) < 1
        if not some.any():
            raise DataError("no class can be learned: none is present in some training images and absent in others")
        return some.nonzero()[:, 0]

    def of_classes(self, classes: Tensor) -> "Shares":
        """The targets of some classes, float64."""
        return replace(self, shares=self.shares[:, classes].double())

    def loss(self, z: Tensor) -> Loss:
        """The mean loss as a function of coefficients (r, K) of features z (N, r); scores in z's precision."""
        partition = LINKS[self.link].partition
        moment = z.double().T @ self.shares.double() / len(z)  # (r, K): the part of the gradient that is constant

        def value_and_gradient(v: Tensor) -> tuple[Tensor, Tensor]:
            value, slope = partition(z @ v.to(z.dtype))
            return value.double().mean() - (moment * v).sum(), (z.T @ slope).double() / len(z) - moment

        return value_and_gradient


Targets = OneClass | Shares

# ---------------------------------------------------------------- one problem


@dataclass(frozen=True)
class Solution:
    """A minimum of the penalised loss.

    Attributes:
        weight: (d, K), bias: (K,), float64.
        gradient: norm of the gradient there.
        steps: steps of the descent.
        converged: whether it is within the tolerance of the optimum.
    """

    weight: Tensor
    bias: Tensor
    gradient: float
    steps: int
    converged: bool


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
    targets: Targets,
    l2: float,
    start: Solution | None = None,
    basis: Basis | None = None,
    tolerance: float = TOLERANCE,
    max_steps: int = 1000,
) -> Solution:
    """The minimum of the penalised loss over W (d, K) and b (K,), the bias without penalty.

    L-BFGS in the coordinates V = diag(c v + l2)^(1/2) U^T W, where U and v are the features' principal axes and
    variances and c bounds the curvature of A: the problem is then well conditioned even for correlated features, and
    tens of steps reach its optimum. The descent ends where |gradient| <= tolerance * l2 * |W|, norms over all entries.
    This bounds the distance to the optimal W by tolerance * |W|, since the loss is l2-strongly convex in W.

    Args:
        x: (N, d) float32 or float64, standardised; products with x are computed in its precision, the rest in float64.
        targets: of the N rows.
        l2: weight of |W|^2 / 2.
        start: a solution to start from; zeros otherwise.
        basis: the principal axes of x where they are known already.
        tolerance: relative error of the weights at which a solution counts as the optimum.
    """
    basis = basis or Basis.of(x)
    rank, classes = basis.axes.shape[1], targets.count
    stretch = (basis.variance * targets.curvature + l2).rsqrt()[:, None]  # (r, 1)
    z = torch.cat([basis.rotated * stretch.T.to(x.dtype), x.new_ones(len(x), 1)], dim=1)  # (N, r + 1)
    penalty = torch.cat([l2 * stretch**2, stretch.new_zeros(1, 1)])  # (r + 1, 1)
    loss = targets.loss(z)
    v = penalty.new_zeros(rank + 1, classes)
    if start is not None:
        v[:rank] = (basis.axes.T @ start.weight) / stretch
        v[rank] = start.bias
    at: dict[str, float] = {}  # at the latest point: |gradient|, and the bound of the distance to the optimum

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        v = torch.from_numpy(flat).to(penalty).view(rank + 1, classes)
        value, gradient = loss(v)
        value = value + (penalty * v**2).sum() / 2
        gradient = gradient + penalty * v
        size = torch.cat([gradient[:rank] / stretch, gradient[rank:]]).norm()  # U does not change the norm
        at["gradient"] = float(size)
        at["error"] = float(size / (l2 * (stretch * v[:rank]).norm().clamp_min(FLOOR)))
        return float(value), gradient.flatten().cpu().numpy()

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


# ---------------------------------------------------------------- the choice of the penalty


@dataclass(frozen=True)
class Regression:
    """A fitted regression.

    Attributes:
        mean, scale: (d,) standardisation, from the features of the fit.
        solution: the optimum.
        classes: (K,) int64, the classes that have a score; those that the fit cannot learn have none.
        l2: the penalty.
        converged: whether every solution of the fit, those that rank penalties included, reached its optimum.
        held_out: the score on the held-out rows, by penalty; empty before the choice.
    """

    mean: Tensor
    scale: Tensor
    solution: Solution
    classes: Tensor
    l2: float
    converged: bool
    held_out: dict[float, float]

    def scores(self, features: Tensor) -> Tensor:
        """Scores s (M, K) float64 of features (M, d)."""
        x = standardise(features.to(self.mean.device), self.mean, self.scale)
        return x @ self.solution.weight + self.solution.bias


def choose_and_fit(
    features: Tensor,
    targets: Targets,
    held: Tensor,
    score: Callable[[Regression], float],
    grid: Sequence[float] = L2_GRID,
) -> Regression:
    """Choose the l2 penalty by ``score`` of fits without the held-out rows, then fit on all rows.

    The penalty with the highest score wins; of equal ones the strongest. A single penalty is not scored. Dimensions are
    standardised to mean 0 and variance 1, separately for the two fits.

    Args:
        features: (N, d). targets: of the N rows.
        held: (N,) bool, the rows that the first fits do not see; ``score`` knows their features.
        score: a number of a fit; higher is better.
        grid: penalties.

    Raises:
        DataError: no class that can be learned from the rows that are not held out.
    """
    grid = sorted(grid, reverse=True)
    path = fit_path(features[~held], targets.rows(~held), grid) if len(grid) > 1 else {}
    held_out = {l2: score(fit) for l2, fit in path.items()}
    l2 = max(grid, key=lambda value: held_out.get(value, 0))  # max keeps the first, strongest one of equals
    near, classes = path.get(l2), targets.learnable()
    start = near.solution if near is not None and torch.equal(near.classes, classes) else None
    mean, scale = standardisation(features)
    solution = solve(standardise(features, mean, scale), targets.of_classes(classes), l2, start)
    converged = solution.converged and all(fit.converged for fit in path.values())
    return Regression(mean, scale, solution, classes, l2, converged, held_out)


def fit_path(features: Tensor, targets: Targets, grid: Sequence[float]) -> dict[float, Regression]:
    """Fits that only rank penalties, each started from the one before; ``grid`` goes from strong to weak.

    In float32, which is twice as fast, and in float64 where float32's rounding ends the descent too early.
    """
    classes = targets.learnable()
    targets = targets.of_classes(classes)
    mean, scale = standardisation(features)
    x = standardise(features, mean, scale)
    basis = Basis.of(x.float())
    path, solution = {}, None
    for l2 in grid:
        solution = solve(x.float(), targets, l2, solution, basis, PATH_TOLERANCE)
        if not solution.converged:
            solution = solve(x, targets, l2, solution, tolerance=PATH_TOLERANCE)
        path[l2] = Regression(mean, scale, solution, classes, l2, solution.converged, {})
    return path
