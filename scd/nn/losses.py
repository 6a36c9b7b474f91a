"""The losses between embeddings: contrast with a queue (MoCo), regression (BYOL), triplets (SCD).

All of them compute in float32 where the embeddings come in a narrower type.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.errors import unknown
from scd.nn.precision import at_least_float32, no_autocast

TERMS = ("both", "consistency", "discrimination")
DISTANCES = ("squared_euclidean", "euclidean", "cosine")


def info_nce(q: Tensor, k: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Mean over the batch of -log( e^{q·k/tau} / (e^{q·k/tau} + sum_n e^{q·n/tau}) ) (MoCo, eq. 1).

    The chance level is ln(1 + K). With a fresh queue the loss rises at first, since random keys are easy negatives.

    Args:
        q: queries (B, D), unit length.
        k: their positives (B, D), unit length.
        negatives: (K, D), unit length, the same for every query.
        temperature: tau.
    """
    with no_autocast(q):
        q, k, negatives = (at_least_float32(x) for x in (q, k, negatives))
        positive = (q * k).sum(dim=1) / temperature  # (B,)
        others = (q @ negatives.T / temperature).logsumexp(dim=1)  # (B, K) -> (B,)
        return (torch.logaddexp(positive, others) - positive).mean()


def byol_regression(p: Tensor, z: Tensor) -> Tensor:
    """Mean over the batch of || n(p) - n(z) ||^2 = 2 - 2 cos(p, z) (BYOL, eq. 2), in [0, 4].

    Args:
        p: predictions (B, D) of any length.
        z: targets (B, D) of any length; no gradient flows into them.
    """
    with no_autocast(p):
        p, z = (F.normalize(at_least_float32(x), dim=1) for x in (p, z.detach()))
        return (2.0 - 2.0 * (p * z).sum(dim=1)).mean()


def triplet(
    anchor: Tensor,
    positive: Tensor,
    negatives: Sequence[Tensor],
    margin: float,
    distance: str = "squared_euclidean",
    terms: str = "both",
) -> Tensor:
    """Mean over the batch and over the negatives of max(0, margin + d(a, p) - d(a, n)).

    Each negative makes its own triplet, so the scale does not depend on how many there are.

    Args:
        anchor: (B, D).
        positive: (B, D).
        negatives: one (B, D) tensor, or several.
        margin: by how much the negative has to be farther away than the positive, in units of the distance.
        distance: "squared_euclidean" (in [0, 4] on unit vectors), "euclidean" or "cosine" (1 - cos).
        terms: "both"; "consistency": d(a, p) only; "discrimination": max(0, margin - d(a, n)) only.

    Raises:
        UsageError: an unknown distance or choice of terms.
    """
    if terms not in TERMS:
        raise unknown("terms", terms, TERMS)
    with no_autocast(anchor):
        near = _distance(anchor, positive, distance)  # (B,)
        if terms == "consistency":
            return near.mean()
        pull = near if terms == "both" else torch.zeros_like(near)
        hinges = [F.relu(margin + pull - _distance(anchor, negative, distance)) for negative in negatives]
        return torch.stack(hinges).mean()


def _distance(a: Tensor, b: Tensor, kind: str) -> Tensor:
    a, b = at_least_float32(a), at_least_float32(b)
    if kind == "squared_euclidean":
        return (a - b).square().sum(dim=1)
    if kind == "euclidean":
        return ((a - b).square().sum(dim=1) + 1e-12).sqrt()  # finite gradient where a = b
    if kind == "cosine":
        return 1.0 - F.cosine_similarity(a, b, dim=1)
    raise unknown("distance", kind, DISTANCES)
