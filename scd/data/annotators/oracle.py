"""The masks that come with the data, as masks, boxes or segments.

A method that uses them is told where the objects are. Its arm has "oracle" in its name and is declared as supervised by
an oracle; it is a control and not a competitor.
"""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from scd.data.annotators.annotator import KINDS, Annotator
from scd.data.images import ImageSet
from scd.data.masks import is_object
from scd.errors import unknown


class OracleAnnotator(Annotator):
    """The data's own foreground masks.

    Args:
        provides: "masks": the masks, with unknown pixels as background; "boxes": around each 4-connected component of a
            mask; "segments": 0 is the background, k the k-th component. NOTE: objects that touch are one component.

    Raises:
        UsageError: an unknown kind.
    """

    supervision = "oracle"
    needs = frozenset({"masks"})

    def __init__(self, provides: str = "masks"):
        if provides not in KINDS:
            raise unknown("kind of annotation", provides, KINDS)
        self.provides = provides

    def __call__(self, images: Tensor, part: ImageSet) -> Tensor | list[Tensor]:
        if self.provides == "masks":
            return is_object(part.masks).to(torch.uint8)
        components = [ndimage.label(mask)[0] for mask in is_object(part.masks).numpy()]
        if self.provides == "segments":
            return torch.from_numpy(np.stack(components))
        return [boxes_of(numbers) for numbers in components]


def boxes_of(numbers: np.ndarray) -> Tensor:
    """Boxes (n, 4) in [0, 1] around the numbers 1 to n of a map (S, S)."""
    size = len(numbers)
    found = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(numbers)]
    return torch.tensor(found, dtype=torch.float32).reshape(-1, 4) / size
