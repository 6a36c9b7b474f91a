"""TokenCut: the object as one side of a normalised cut through the graph of positions (arXiv 2202.11539, CVPR 2022).

    W_ij = 1 if cos(f_i, f_j) > tau else eps        D = diag(sum over j of W_ij)
    (D - W) y = lambda D y                          y of the second smallest lambda
    foreground = the side of y > mean(y) that holds the seed, argmax |y|

The features f of the paper are the last block's keys of a ViT trained with DINO. Any feature map (B, C, h, w) can be
cut, but a suitable ``tau`` depends on the features and is to be chosen on training images.

The cut is computed in float64, whatever the type of the features, by a dense solver: about 8 N^3 operations for N
positions, some milliseconds for 14 x 14.

NOTE: where W is the same between all pairs of positions (all features alike, or none alike) all eigenvalues but the
first are equal, and the solver's second eigenvector is arbitrary; the official code cuts it all the same. Nothing
separates the positions then: here all are foreground, and y is 0.
NOTE: the paper's box and mask come from ``component``, the connected part of the foreground that holds the seed; its
bilateral solver, which fits the mask to the pixels, is not built.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from scd.errors import UsageError

TIE = 1e-9  # of the largest |y|; values this close count as equal, so that rounding chooses neither seed nor side


@dataclass(frozen=True)
class Cut:
    """The two sides of one cut for each image.

    Args:
        foreground: (B, h, w) bool, the seed's side.
        eigenvector: (B, h, w) float64, y with the sign that makes the seed positive.
        component: (B, h, w) bool, the 4-connected part of the foreground that holds the seed.
        seed: (B,) int64, row-major position of the largest |y|, the first of several equal ones.
    """

    foreground: Tensor
    eigenvector: Tensor
    component: Tensor
    seed: Tensor


def affinity(features: Tensor, tau: float = 0.2, eps: float = 1e-5) -> Tensor:
    """W (B, N, N), float64: 1 between positions whose cosine is above ``tau``, the diagonal included, eps elsewhere.

    Args:
        features: (B, C, h, w), N = h·w; their lengths do not matter.
        tau: a cosine.
        eps: keeps the graph connected; without it the second eigenvector of a disconnected graph is arbitrary.

    Raises:
        UsageError: a tau outside [-1, 1), or an eps outside (0, 1).
    """
    if not -1 <= tau < 1:
        raise UsageError(f"TokenCut's tau is a cosine in [-1, 1), not {tau}")
    if not 0 < eps < 1:
        raise UsageError(f"TokenCut's eps lies strictly between 0 and 1, not at {eps}")
    unit = F.normalize(features.detach().double().flatten(2), dim=1)  # (B, C, N)
    return torch.where(unit.transpose(1, 2) @ unit > tau, unit.new_tensor(1.0), unit.new_tensor(eps))


def bipartition(features: Tensor, tau: float = 0.2, eps: float = 1e-5) -> Cut:
    """The normalised cut of each image's positions, without gradient; deterministic on one machine.

    Args:
        features: (B, C, h, w).
        tau, eps: see :func:`affinity`.

    Raises:
        UsageError: features that are not finite, or a tau or eps that :func:`affinity` refuses.
    """
    if not torch.isfinite(features).all():
        raise UsageError("the features to cut hold values that are not finite; the training diverged")
    grid = features.shape[2:]
    weights = affinity(features, tau, eps)
    y = second_eigenvector(weights)
    diagonal = torch.eye(weights.shape[1], dtype=torch.bool, device=weights.device)
    between = weights[:, ~diagonal]  # (B, N (N - 1))
    y = torch.where((between.amax(dim=1) > between.amin(dim=1))[:, None], y, 0.0)
    size = y.abs()
    largest = size >= (1 - TIE) * size.amax(dim=1, keepdim=True)
    seed = largest.to(torch.uint8).argmax(dim=1)  # the first: of several 1s argmax takes it on every device
    y = torch.where(y.gather(1, seed[:, None]) < 0, -y, y)
    uncut = (y == 0).all(dim=1, keepdim=True)
    above = y - y.mean(dim=1, keepdim=True) > TIE * size.amax(dim=1, keepdim=True)
    foreground = (above | uncut).unflatten(1, grid)
    return Cut(foreground, y.unflatten(1, grid), component_of(foreground, seed), seed)


def second_eigenvector(weights: Tensor) -> Tensor:
    """y (B, N) of (D - W) y = lambda D y for the second smallest lambda, of any sign, with y^T D y = 1.

    With y = D^(-1/2) z this is the ordinary problem of the symmetric I - D^(-1/2) W D^(-1/2), which z solves.

    Args:
        weights: W (B, N, N), symmetric, above 0.

    Raises:
        UsageError: a single position, which cannot be cut.
    """
    if weights.shape[1] < 2:
        raise UsageError("a cut needs at least 2 positions; this feature map has 1")
    scale = weights.sum(dim=2).rsqrt()  # (B, N), D^(-1/2)
    normalised = torch.eye(weights.shape[1], dtype=weights.dtype, device=weights.device) - (
        scale[:, :, None] * weights * scale[:, None, :]
    )
    return scale * torch.linalg.eigh(normalised).eigenvectors[:, :, 1]


def component_of(regions: Tensor, seed: Tensor) -> Tensor:
    """The 4-connected part (B, h, w) of each region that holds its seed; empty where the seed is outside.

    Args:
        regions: (B, h, w) bool.
        seed: (B,) row-major positions.
    """
    parts = []
    for region, position in zip(regions.cpu().numpy(), seed.tolist(), strict=True):
        labels, _ = ndimage.label(region)  # scipy's own neighbourhood in two dimensions is the 4-connected one
        parts.append(torch.from_numpy((labels == labels.flat[position]) & region))
    return torch.stack(parts).to(regions.device)
