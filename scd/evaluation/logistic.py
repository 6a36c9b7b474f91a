"""Logistic regression on targets that are shares: what a position's pixels show, which classes an image holds.

    minimise over W (d, K), b (K,)    mean_n [ A(s_n) - t_n . s_n ] + l2/2 |W|^2        s_n = x_n W + b

A = log sum exp gives the cross-entropy of a softmax with targets that sum to 1; A = sum_k log(1 + exp s_k) gives one
logistic regression per class, all classes at once, with targets in [0, 1]. The gradient in s is A'(s) - t in both.

The linear probe of :mod:`scd.evaluation.linear` is the softmax with one class per image. Standardisation, principal
axes, penalties and the measure of the optimum are the probe's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from scd.errors import DataError, unknown
from scd.evaluation.linear import (
    FLOOR,
    HELD_OUT,
    L2_GRID,
    PATH_TOLERANCE,
    TOLERANCE,
    Basis,
    Solution,
    standardisation,
    standardise,
    stratified_part,
)


class Link(NamedTuple):
    """A link: what gives A(s) (N,) and A'(s) (N, K) of scores s (N, K), and a bound of A's curvature."""

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
class SoftRegression:
    """A fitted regression: gives scores of features, and tells how its penalty was chosen.

    Args:
        mean, scale: (d,) standardisation, from the features of the fit.
        solution: the optimum.
        classes: (K,) int64, the columns of the targets that have a score; those that the fit cannot learn have none.
        l2: the penalty.
        held_out: the score on the held-out rows, by penalty; empty before the choice.
    """

    mean: Tensor
    scale: Tensor
    solution: Solution
    classes: Tensor
    l2: float
    held_out: dict[float, float]

    def scores(self, features: Tensor) -> Tensor:
        """Scores s (M, K) float32 of features (M, d)."""
        x = standardise(features.to(self.mean.device), self.mean, self.scale)
        return (x @ self.solution.weight + self.solution.bias).float()


def choose_and_fit(
    features: Tensor,
    targets: Tensor,
    held: Tensor,
    link: str,
    score: Callable[[SoftRegression], float],
    grid: Sequence[float] = L2_GRID,
) -> SoftRegression:
    """Choose the l2 penalty by ``score`` of fits without the held-out rows, then fit on all rows.

    The penalty with the highest score wins; of equal ones the strongest.

    Args:
        features: (N, d). targets: (N, K) shares.
        held: (N,) bool, the rows that the first fits do not see; their features are for ``score`` to know.
        link: "softmax" or "sigmoid".
        score: a number of a fit, higher is better.
        grid: penalties.

    Raises:
        UsageError: an unknown link.
        DataError: no class that can be learned from the rows that are not held out.
    """
    grid = sorted(grid, reverse=True)
    path = fit_path(features[~held], targets[~held], link, grid)
    held_out = {l2: score(fit) for l2, fit in path.items()}
    l2 = max(grid, key=lambda value: held_out[value])  # max keeps the first, strongest one of equals
    near, classes = path[l2], learnable(targets, link)
    start = near.solution if torch.equal(near.classes, classes) else None
    mean, scale = standardisation(features)
    solution = solve_soft(standardise(features, mean, scale), targets[:, classes].double(), l2, link, start)
    return SoftRegression(mean, scale, solution, classes, l2, held_out)


def fit_path(features: Tensor, targets: Tensor, link: str, grid: Sequence[float]) -> dict[float, SoftRegression]:
    """Fits that only rank penalties, each started from the one before; ``grid`` goes from strong to weak.

    In float32, and in float64 from where rounding ends the descent too early.
    """
    classes = learnable(targets, link)
    mean, scale = standardisation(features)
    x, t = standardise(features, mean, scale), targets[:, classes].double()
    basis = Basis.of(x.float())
    path, solution = {}, None
    for l2 in grid:
        solution = solve_soft(x.float(), t, l2, link, solution, basis, PATH_TOLERANCE)
        if not solution.converged:
            solution = solve_soft(x, t, l2, link, solution, tolerance=PATH_TOLERANCE)
        path[l2] = SoftRegression(mean, scale, solution, classes, l2, {})
    return path


def learnable(targets: Tensor, link: str) -> Tensor:
    """Columns (K',) of targets (N, K) with a finite optimum: of a softmax those with any mass, else those that vary.

    Raises:
        UsageError: an unknown link.
        DataError: there is none.
    """
    if link not in LINKS:
        raise unknown("link", link, LINKS)
    some = targets.amax(dim=0) > 0
    if link == "sigmoid":
        some &= targets.amin(dim=0) < 1
    if not some.any():
        raise DataError("no class can be learned: none is present in some training images and absent in others")
    return some.nonzero()[:, 0]


def held_out_part(count: int, seed: int) -> Tensor:
    """Mask (count,), True for the fifth of the images on which a penalty is chosen, drawn from the seed.

    Raises:
        DataError: fewer than two images.
    """
    if count < 2:
        raise DataError(f"a probe of scenes needs at least 2 training images, there are {count}")
    return stratified_part(torch.zeros(count, dtype=torch.int64), HELD_OUT, seed)


def solve_soft(
    x: Tensor,
    targets: Tensor,
    l2: float,
    link: str,
    start: Solution | None = None,
    basis: Basis | None = None,
    tolerance: float = TOLERANCE,
    max_steps: int = 1000,
) -> Solution:
    """The minimum of the loss above, by L-BFGS in coordinates in which it is well conditioned.

    Coordinates and the end of the descent are those of :func:`scd.evaluation.linear.solve`, with the link's own bound
    of the curvature.

    Args:
        x: (N, d) float32 or float64, standardised; what is as large as N runs in its precision. targets: (N, K).
        start: a solution to start from; zeros otherwise.
        basis: the principal axes of x where they are known already.
        tolerance: relative error of the weights at which a solution counts as the optimum.
    """
    partition, curvature = LINKS[link]
    basis = basis or Basis.of(x)
    rank, classes = basis.axes.shape[1], targets.shape[1]
    stretch = (basis.variance * curvature + l2).rsqrt()[:, None]  # (r, 1)
    z = torch.cat([basis.rotated * stretch.T.to(x.dtype), x.new_ones(len(x), 1)], dim=1)  # (N, r + 1)
    penalty = torch.cat([l2 * stretch**2, stretch.new_zeros(1, 1)])  # (r + 1, 1)
    moment = z.double().T @ targets.double() / len(x)  # (r + 1, K): the part of the gradient that does not change
    v = penalty.new_zeros(rank + 1, classes)
    if start is not None:
        v[:rank] = (basis.axes.T @ start.weight) / stretch
        v[rank] = start.bias
    at: dict[str, float] = {}  # of the latest evaluation: |gradient| and the distance from the optimum that it bounds

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        v = torch.from_numpy(flat).to(penalty).view(rank + 1, classes)
        value, slope = partition(z @ v.to(z.dtype))
        loss = value.double().mean() - (moment * v).sum() + (penalty * v**2).sum() / 2
        gradient = (z.T @ slope).double() / len(x) - moment + penalty * v
        size = torch.cat([gradient[:rank] / stretch, gradient[rank:]]).norm()
        at["gradient"] = float(size)
        at["error"] = float(size / (l2 * (stretch * v[:rank]).norm().clamp_min(FLOOR)))
        return float(loss), gradient.flatten().cpu().numpy()

    def stop_at_optimum(_: np.ndarray) -> None:
        if at["error"] <= tolerance:
            raise StopIteration

    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "ftol": 0.0, "gtol": 0.0, "maxcor": 20}
    found = minimize(
        loss_and_gradient, v.flatten().cpu().numpy(), jac=True, method="L-BFGS-B", callback=stop_at_optimum,
        options=options,
    )  # fmt: skip
    loss_and_gradient(found.x)
    v = torch.from_numpy(found.x).to(penalty).view(rank + 1, classes)
    weight = basis.axes @ (stretch * v[:rank])
    return Solution(weight, v[rank], at["gradient"], int(found.nit), at["error"] <= tolerance)
