"""ContraCAM's two augmentations: views inside a box of the object, and view 1 before another background.

    object-aware random crop    v1, v2 = crops of one box of the image, drawn uniformly among its boxes
    background mixup            v1 <- m v1 + (1 - m) b     with probability 0.4; m: the object's mask in view 1, b:
                                                           another image's view 1 without its object

S. Mo et al., "Object-aware Contrastive Learning for Debiased Scene Representation", NeurIPS 2021, arXiv 2108.00049. The
boxes and masks are those of class activation maps of a network that was trained before
(:mod:`scd.data.annotators.contracam`); then a new one is trained from scratch, with one of the two augmentations. The
host's loss stays as it is. Boxes and masks may come from anywhere else; what they are learned from is then declared
with them.

Official settings. ResNet-18, MoCo (queue 65536, m 0.999, tau 0.2, dim 128, BN in the head) or BYOL, batch 256, SGD with
lr 0.03, 800 epochs; crops of 8 to 100 % of the image or of the box.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scd.data.cut_views import WholeImages, cut, drawn_boxes, rectangles_inside, uniform, whole_images
from scd.data.photometric import photometric as photometrics_of
from scd.errors import UsageError
from scd.method import Batch, View
from scd.siamese import JointEmbedding
from scd.wrapper import Wrapper

NAMES = ("v1", "v2")  # of the views


class ObjectAwareRandomCrop(Wrapper):
    """A host whose two views are cut inside one box of each image.

    The recipe gives one view of whole images. An image without boxes is its own box.

    NOTE: ratios of 3/4 to 4/3, and the fallback where no rectangle fits, are those of RandomResizedCrop inside the box.

    Args:
        siamese: the host.
        size: side of the views in pixels.
        scale: range of a view's area as a share of the box's.
        photometric: name of the photometric augmentation of both views.
        blur_reference: see :class:`scd.data.views.CropSpec`.

    Raises:
        UsageError: a size below 1, an impossible scale, or an unknown photometric augmentation.
    """

    needs = frozenset({"boxes"})
    addition = "views inside a box"

    def __init__(
        self,
        siamese: JointEmbedding,
        size: int = 224,
        scale: Sequence[float] = (0.08, 1.0),
        photometric: str = "mocov2",
        blur_reference: float = 224.0,
    ):
        super().__init__(siamese)
        if size < 1:
            raise UsageError(f"the object-aware crop's size is 1 pixel or more, not {size}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise UsageError(f"the object-aware crop's scale is two ascending shares in (0, 1], not {list(scale)}")
        photometrics_of(photometric)
        self.needs = siamese.needs | type(self).needs
        self.size = size
        self.scale = tuple(scale)
        self.photometric = photometric
        self.blur_reference = blur_reference

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The host's loss on the new views; logs the share of images that have a box."""
        whole = whole_images(batch)
        boxes, found = drawn_boxes(whole.boxes)
        views = {name: self.inside(whole, boxes, name) for name in NAMES}
        return {**self.siamese(replace(batch, views=views)), "with_box": found.float().mean()}

    def inside(self, whole: WholeImages, boxes: Tensor, name: str) -> View:
        """A view inside the boxes (B, 4)."""
        rectangles = rectangles_inside(boxes, self.scale)
        return cut(whole, rectangles, self.size, self.photometric, name, blur_reference=self.blur_reference)


class BackgroundMixup(Wrapper):
    """A host whose first view has, in some images, the background of another image.

    Where the mask is 0, view 1 shows the background-only version of another image of the batch (:func:`backgrounds`).
    The recipe's views stay as they are otherwise, and view 2 is never mixed. Images are mixed after the colours were
    changed, as in the released code.

    NOTE: the mask is binary. The paper mixes with the soft map, and has a background where that is below 0.2.
    NOTE: the other image is drawn among those of this process's batch that have a background. In the released code a
    partner has one with the same probability as an image is mixed, and the last 50 backgrounds step in for the others.
    NOTE: an image stays as it is where its mask is empty in view 1, where the mask's box fills the view, and where no
    other image has a background; the last case apart, as in the released code.

    Args:
        siamese: the host.
        probability: that the view 1 of an image is mixed.

    Raises:
        UsageError: a probability outside [0, 1].
    """

    needs = frozenset({"masks"})
    addition = "mixture with another background"

    def __init__(self, siamese: JointEmbedding, probability: float = 0.4):
        super().__init__(siamese)
        if not 0 <= probability <= 1:
            raise UsageError(f"background mixup's probability is a share in [0, 1], not {probability}")
        self.needs = siamese.needs | type(self).needs
        self.probability = probability

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The host's loss; logs the shares of images that were mixed, and that have a background."""
        first = next(name for name, view in batch.views.items() if view.role == "global")
        view = batch.views[first]
        background, has = backgrounds(view.images, *tight_boxes(view.masks))
        draws = uniform(len(has), 2).to(has.device)
        partners, found = drawn_partners(has, draws[:, 1])
        chosen = (draws[:, 0] < self.probability) & has & found
        weights = torch.where(chosen[:, None, None], view.masks, 1.0)[:, None]
        images = weights * view.images + (1 - weights) * background[partners]
        views = {**batch.views, first: replace(view, images=images)}
        shares = {"mixed": chosen.float().mean(), "with_background": has.float().mean()}
        return {**self.siamese(replace(batch, views=views)), **shares}


# -------------------------------------------------------------------- backgrounds


def tight_boxes(masks: Tensor) -> tuple[Tensor, Tensor]:
    """The box around each mask, in pixels.

    Args:
        masks: (B, h, w) in {0, 1}.

    Returns:
        (B, 4) int64: first column, first row, and the column and the row after the last; (B,) bool, False for a mask
        that is empty.
    """
    rows, columns = (masks > 0).any(dim=2), (masks > 0).any(dim=1)  # (B, h), (B, w)
    low = [lines.int().argmax(dim=1) for lines in (columns, rows)]
    high = [lines.shape[1] - lines.flip(1).int().argmax(dim=1) for lines in (columns, rows)]
    return torch.stack([*low, *high], dim=1), rows.any(dim=1)


def backgrounds(images: Tensor, boxes: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Images with their object covered by copies of a band of their background.

    The band is the largest of the rectangles above, left of, right of and below the box that go across the image. It is
    repeated over the whole image, from the upper or left border on, and shows inside the box.

    NOTE: the released code takes a band on the right or below from the last column or row of the box on, and does not
    cover these.

    Args:
        images: (B, 3, h, w).
        boxes: (B, 4), of :func:`tight_boxes`.
        found: (B,) bool, whether an image has a box.

    Returns:
        (B, 3, h, w); and (B,) bool, False where there is no box or where it fills the image. Such images are unchanged.
    """
    height, width = images.shape[2:]
    x0, y0, x1, y1 = boxes[:, :, None].unbind(dim=1)  # (B, 1) each
    x, y = (torch.arange(side, device=boxes.device)[None] for side in (width, height))
    areas = torch.cat([y0 * width, x0 * height, (width - x1) * height, (height - y1) * width], dim=1)  # (B, 4)
    has = found & (areas > 0).any(dim=1)
    band = areas.argmax(dim=1, keepdim=True)  # the first of equal ones
    start = torch.cat([torch.zeros_like(x0), torch.zeros_like(x0), x1, y1], dim=1).gather(1, band)
    length = torch.cat([y0, x0, width - x1, height - y1], dim=1).gather(1, band).clamp_min(1)
    upright = (band == 0) | (band == 3)  # copies lie above each other
    rows = torch.where(upright, (start + y % length).clamp(max=height - 1), y)  # (B, h)
    columns = torch.where(upright, x, (start + x % length).clamp(max=width - 1))  # (B, w)
    covered = images.gather(2, rows[:, None, :, None].expand(images.shape))
    covered = covered.gather(3, columns[:, None, None, :].expand(images.shape))
    inside = ((y >= y0) & (y < y1))[:, :, None] & ((x >= x0) & (x < x1))[:, None, :]  # (B, h, w)
    return torch.where((inside & has[:, None, None])[:, None], covered, images), has


def drawn_partners(has: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """For each image another one that has a background, each of them with the same probability.

    Args:
        has: (B,) bool, whether an image has a background.
        draws: (B,) in [0, 1).

    Returns:
        (B,) rows of the batch; and (B,) bool, False where no other image has a background.
    """
    order = has.int().argsort(descending=True, stable=True)  # those that have one come first
    rank = has.cumsum(0) - 1  # of an image among them
    others = has.sum() - has.int()
    place = (draws * others).long()
    place = place + (has & (place >= rank))  # leave the image itself out
    return order[place.clamp(max=len(has) - 1)], others > 0
