"""Indicators of collapse: features that are the same for every image, maps that are the same at every position.

None of them measures quality: a difference between two healthy networks has no meaning. They show whether a network has
collapsed, in which case its other numbers mean little.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.protocol import N_TEST, Context, Protocol
from scd.maps.statistics import map_statistics

MAP_METRICS = {
    "map_entropy": Metric(
        "map entropy",
        "bits per pixel",
        None,
        "mean binary entropy of the map's values; 1 for 0.5 everywhere, 0 for 0/1",
    ),
    "map_saturation": Metric("map saturation", SHARE, None, "share of map values below 0.05 or above 0.95"),
    "map_area": Metric(
        "map area", SHARE, None, "mean of the map's values; at 0 or 1 one of the two regions is empty (collapse)"
    ),
    "map_std": Metric(
        "map contrast",
        "map units, in [0, 0.5]",
        None,
        "standard deviation of the map inside an image, mean over images; 0: a constant map, no separation (collapse)",
    ),
    "map_place_share": Metric(
        "map variance by position",
        "share of the variance, at most 1",
        None,
        "share of the maps' variance that the position alone explains (adjusted R^2 of a one-way analysis of "
        "variance); 1: one map for all images, about 0: position does not matter",
    ),
}
FEATURE_METRICS = {
    "feature_std": Metric(
        "feature spread",
        "1 = even over the sphere",
        None,
        "sqrt(d) x standard deviation over test images of the l2-normalised pooled features, mean over d dimensions; "
        "0: collapse",
    ),
    "effective_rank": Metric(
        "effective rank",
        "dimensions, in [1, d]",
        None,
        "exp of the entropy of the normalised singular values of the test features (not centred; RankMe); 1: collapse",
    ),
}


@dataclass(kw_only=True)
class Collapse(Protocol):
    """Indicators of collapse of the features and, where the method has maps, of the maps."""

    def definitions(self) -> dict[str, Metric]:
        return {**FEATURE_METRICS, **MAP_METRICS, "n_test": N_TEST}

    def measure(self, context: Context) -> dict[str, float]:
        features, maps = context.features("test"), context.maps()
        numbers = {
            "feature_std": feature_std(features),
            "effective_rank": effective_rank(features),
            "n_test": len(features),
        }
        return numbers if maps is None else numbers | map_indicators(maps)


def feature_std(features: Tensor) -> float:
    """Spread of l2-normalised features: sqrt(d) times the mean over dimensions of the standard deviation over images.

    0 for a complete collapse; 1 for directions spread evenly over the sphere; pooled ReLU features, which share an
    orthant, lie between (Chen and He 2021, SimSiam, section 4.1, without the factor sqrt(d)). No unit.

    Args:
        features: (N, d), N >= 2.
    """
    z = F.normalize(features.double(), dim=1)
    return float(z.std(dim=0, correction=0).mean() * z.shape[1] ** 0.5)


def effective_rank(features: Tensor) -> float:
    """exp of the entropy (natural) of the singular values of the feature matrix, scaled to sum 1; a number in [1, d].

    1 where all features are multiples of one vector, d where all directions carry the same (Roy and Vetterli 2007;
    RankMe, Garrido et al. 2023, equation 1). Features are not centred, so that rounding noise around a collapsed
    vector does not count as rank.

    Args:
        features: (N, d).
    """
    x = features.double()
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    # rounding in the eigenvalues (1e-16 of the largest) is 1e-8 of the largest singular value
    singular = torch.where(singular > 1e-7 * singular.max(), singular, 0.0)
    p = singular / singular.sum().clamp_min(1e-300)
    return float(torch.special.entr(p).sum().exp())


def map_indicators(maps: Tensor) -> dict[str, float]:
    """Statistics of maps (N, h, w) in [0, 1] at their own resolution: ``map_area`` and so on, see ``MAP_METRICS``.

    ``map_place_share`` is left out for a single image and for maps without variance.
    """
    numbers = {name: float(value) for name, value in map_statistics(maps).items()}
    share = place_share(maps)
    return numbers if share is None else {**numbers, "map_place_share": share}


def place_share(maps: Tensor) -> float | None:
    """Share of the maps' variance that the position alone explains: 1 where all images have one map.

    1 - (mean over positions of the variance over images) / (variance over images and positions), both unbiased: the
    adjusted R^2 of a one-way analysis of variance. About 0, or a little below, where the position does not matter. None
    for a single image or maps without variance.

    Args:
        maps: (N, h, w).
    """
    x = maps.double()
    if len(x) < 2 or x.var(correction=0) < 1e-12:
        return None
    return float(1 - x.var(dim=0).mean() / x.var())
