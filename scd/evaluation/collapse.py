"""Indicators of collapse: embeddings that say the same of every image, maps that say the same of every pixel.

None of them is a quality: between two healthy networks a difference means nothing. They are printed so that a number
that comes from a collapsed network is seen to.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOW, HIGH = 0.05, 0.95


def feature_std(features: Tensor) -> float:
    """Spread of l2-normalised features: sqrt(d) times the mean over dimensions of the standard deviation over images.

    0 for a complete collapse; 1 for directions spread evenly over the sphere; pooled ReLU features, which share an
    orthant, lie between (Chen and He 2021, SimSiam, section 4.1, without the factor sqrt(d)). No unit, no better side.

    Args:
        features: (N, d), N >= 2.
    """
    z = F.normalize(features.double(), dim=1)
    return float(z.std(dim=0, correction=0).mean() * z.shape[1] ** 0.5)


def effective_rank(features: Tensor) -> float:
    """exp of the entropy (natural) of the singular values of the feature matrix, scaled to sum 1; a number in [1, d].

    1 where all features are multiples of one vector, d where all directions carry the same (Roy and Vetterli 2007;
    RankMe, Garrido et al. 2023, equation 1). Features are not centred, so that rounding noise around a collapsed
    vector does not count as rank. No better side.

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
    """Four numbers on maps (N, h, w) in [0, 1] at their own resolution, each a mean over all pixels of all images.

    * ``map_entropy``: -m log2 m - (1 - m) log2 (1 - m), in bits; 1 for a map of 0.5, 0 for one of zeros and ones.
    * ``map_saturation``: share of values below 0.05 or above 0.95.
    * ``map_area``: the mean of m, the share of the image that it calls foreground; at 0 or 1 one region is empty.
    * ``map_std``: standard deviation of m inside an image, in [0, 0.5]; 0 for a map that is constant over the image,
      which separates nothing.
    """
    m = maps.double()
    bits = (torch.special.entr(m) + torch.special.entr(1 - m)) / math.log(2)
    return {
        "map_entropy": float(bits.mean()),
        "map_saturation": float(((m < LOW) | (m > HIGH)).double().mean()),
        "map_area": float(m.mean()),
        "map_std": float(m.flatten(1).std(dim=1, correction=0).mean()),
    }
