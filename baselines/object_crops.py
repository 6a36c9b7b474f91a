"""Object-aware cropping: one view inside a box, the other inside a larger one around it (Mishra et al., TMLR 2022).

    b    ~ the image's boxes                  one box, drawn anew in each step; a small one is extended
    b'   = b, each side moved outwards        by a share of the box's own width or height
    a, d = RandomResizedCrop inside b, b'     the object, and the object with what lies around it
    v1, v2 = (a, d) or (d, a)                 each with probability 0.5
    loss = host(v1, v2)

"Object-aware Cropping for Self-Supervised Learning", arXiv 2112.00319; its code is shlokk/object-cropping-ssl. Only the
places of the crops change. The method is as supervised as the boxes are.

Official settings. MoCo v2 with ResNet-50, 200 epochs, batch 128, lr 0.015, on a subset of Open Images with about 12
objects an image; dilation 0.2; v1 and v2 have MoCo v2's photometrics; area of the crops 0 to 1 of b, 0.2 to 1 of b'.

NOTE: both crops cover ``scale`` of their box. The official lower end inside b, 0, gives crops down to a single pixel.
NOTE: the dilation is relative to the box. The official code multiplies the coordinates of the corners by 1 - 0.2 and
1 + 0.2, so that boxes far from the upper left corner of the image grow more.
NOTE: the shorter sides of a box are extended to ``smallest_box`` of the image's side, and the box is moved into the
image. Officially a side below 224 px, in images of 1024 px at most, grows by 112 px on either side.
NOTE: an epoch is one pass over the images, with one box each. Officially it is one pass over all boxes.
NOTE: an image without boxes is its own box: both views are then crops of the image, as MoCo's are.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scd.data.cut_views import cut, dilated, drawn_boxes, rectangles_inside, uniform, whole_images
from scd.data.photometric import photometric
from scd.errors import UsageError
from scd.method import Batch, View
from scd.siamese import JointEmbedding
from scd.wrapper import Wrapper

NAMES = ("v1", "v2")
SWAP = 0.5  # probability that the first view is the one inside the larger box


class ObjectAwareCropping(Wrapper):
    """A host whose views are cut inside a box of the image and inside the same box with its surroundings.

    The recipe gives one view of whole images.

    Args:
        siamese: the host.
        size: side of the views in pixels.
        scale: range of a crop's area as a share of that of the box it is cut in.
        dilation: by how much each side of the larger box is moved outwards, as a share of the box's width or height.
        smallest_box: shortest side of a box, as a share of the image's.
        photometrics: names of the photometric augmentations of the first and the second view.
        blur_reference: see :class:`scd.data.views.CropSpec`.

    Raises:
        UsageError: a host that is no joint-embedding method, a size below 1, an impossible scale, a negative dilation,
            a smallest box that is no share, or names of photometric augmentations that are not two or do not exist.
    """

    needs = frozenset({"boxes"})
    addition = "views inside boxes"

    def __init__(
        self,
        siamese: JointEmbedding,
        size: int = 224,
        scale: Sequence[float] = (0.2, 1.0),
        dilation: float = 0.2,
        smallest_box: float = 0.3,
        photometrics: Sequence[str] = ("mocov2", "mocov2"),
        blur_reference: float = 224.0,
    ):
        super().__init__(siamese)
        if size < 1:
            raise UsageError(f"the size of object-aware crops is 1 pixel or more, not {size}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise UsageError(f"the scale of object-aware crops is two ascending shares in (0, 1], not {list(scale)}")
        if dilation < 0:
            raise UsageError(f"the dilation of object-aware crops is a share of 0 or more, not {dilation}")
        if not 0 < smallest_box <= 1:
            raise UsageError(f"the smallest_box of object-aware crops is a share in (0, 1], not {smallest_box}")
        if len(photometrics) != 2:
            raise UsageError(f"object-aware crops have two photometrics, one for each view, not {list(photometrics)}")
        for name in photometrics:
            photometric(name)  # raises for a name that does not exist
        self.needs = siamese.needs | type(self).needs
        self.size = size
        self.scale = tuple(scale)
        self.dilation = dilation
        self.smallest_box = smallest_box
        self.photometrics = tuple(photometrics)
        self.blur_reference = blur_reference

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The host's loss on the new views; logs the share of images with a box.

        Raises:
            UsageError: other views than one of whole images, or images without a list of boxes.
        """
        views, found = self.views(batch)
        return {**self.siamese(replace(batch, views=views)), "with_box": found.float().mean()}

    def views(self, batch: Batch) -> tuple[dict[str, View], Tensor]:
        """The two views of each image, and the images (B,) bool that have a box."""
        whole = whole_images(batch)
        if whole.boxes is None:
            raise UsageError("object-aware crops need images with boxes: name what makes them, annotations.boxes=NAME")
        drawn, found = drawn_boxes(whole.boxes)
        boxes = extended(drawn, self.smallest_box)
        inner = rectangles_inside(boxes, self.scale)
        outer = rectangles_inside(dilated(boxes, self.dilation), self.scale)
        swapped = (uniform(len(boxes), 1) < SWAP).to(boxes.device)
        places = (torch.where(swapped, outer, inner), torch.where(swapped, inner, outer))
        views = {
            name: cut(whole, rectangles, self.size, colours, name, blur_reference=self.blur_reference)
            for name, rectangles, colours in zip(NAMES, places, self.photometrics, strict=True)
        }
        return views, found


def extended(boxes: Tensor, shortest: float) -> Tensor:
    """Boxes (B, 4) whose shorter sides are extended around their centre to ``shortest``, and moved into the image."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp_min(shortest)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    low = torch.minimum((centre - sides / 2).clamp_min(0), 1 - sides)
    return torch.cat([low, low + sides], dim=1)
