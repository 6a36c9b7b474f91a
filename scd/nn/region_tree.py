"""Region trees in the ids of segments: how many cuts of an image's tree separate two of its pixels.

A tree of regions is cut at three heights, which gives three segmentations, each a refinement of the next one. One id
below 2^15 holds the region of a pixel in all of them: two pixels are in one region of a cut if their ids are equal
modulo its number in ``MODULI``. A map of ids is cropped, resized and mirrored like that of any segments. A map of plain
segments with ids below 64 is a flat tree: its three cuts are the same.
"""

import torch
from torch import Tensor

from scd.nn.region_pooling import UNKNOWN

MODULI = (32768, 1024, 64)  # of the finest to the coarsest cut; each divides the one before it
CUTS = len(MODULI)
MOST = (32, 16, 64)  # regions of the image that each of these cuts may have, so that any tree's ids are below 2^15


def tree_distances(ids: Tensor, other_ids: Tensor) -> Tensor:
    """Number of cuts that separate each pixel from each of the others of its image.

    It is an ultrametric, d(p, r) <= max(d(p, q), d(q, r)): 0 within a region of the finest cut, ``CUTS`` between
    regions of the coarsest one.

    Args:
        ids: (B, P) int64.
        other_ids: (B, M) int64.

    Returns:
        (B, P, M) int64; ``UNKNOWN`` where one of the two pixels is.
    """
    moduli = torch.tensor(MODULI, device=ids.device)
    apart = ids[:, :, None, None] % moduli != other_ids[:, None, :, None] % moduli  # (B, P, M, CUTS)
    unknown = (ids == UNKNOWN)[:, :, None] | (other_ids == UNKNOWN)[:, None]
    return torch.where(unknown, UNKNOWN, apart.sum(dim=3))
