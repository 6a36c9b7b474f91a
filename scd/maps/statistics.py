"""Numbers that show the collapse of a map. They do not measure quality: among healthy maps no value is better."""

import math

import torch
from torch import Tensor

LOW, HIGH = 0.05, 0.95


@torch.no_grad()
def map_statistics(*maps: Tensor) -> dict[str, Tensor]:
    """Four scalars on maps (..., h, w) in [0, 1], each a mean over all positions of all maps.

    * ``map_area``: the mean of m, the share of the image that it calls foreground; at 0 or 1 one region is empty.
    * ``map_std``: standard deviation of m inside a map, in [0, 0.5]; 0 for a map that is constant over the image, which
      separates nothing.
    * ``map_saturation``: share of values below 0.05 or above 0.95.
    * ``map_entropy``: -m log2 m - (1 - m) log2 (1 - m), in bits; 1 for a map of 0.5, 0 for one of zeros and ones.

    Args:
        maps: one tensor, or several of different sizes (views); each of these then has the same weight.

    Returns:
        Tensors without dimensions, in float64, so that a training step need not wait for the device.
    """
    rows = torch.stack([statistics_of(each.double()) for each in maps]).mean(dim=0)
    return dict(zip(("map_area", "map_std", "map_saturation", "map_entropy"), rows.unbind(), strict=True))


def statistics_of(m: Tensor) -> Tensor:
    """Area, standard deviation, saturation and entropy (4,) of maps (..., h, w)."""
    bits = (torch.special.entr(m) + torch.special.entr(1 - m)) / math.log(2)
    saturated = ((m < LOW) | (m > HIGH)).to(m.dtype)
    spread = m.flatten(-2).std(dim=-1, correction=0)
    return torch.stack([m.mean(), spread.mean(), saturated.mean(), bits.mean()])
