"""Views that a method cuts itself, where the place of a crop follows from boxes, masks or maps.

A method of this kind has a recipe of one view that shows whole images (``recipe: single`` with ``scale: [1, 1]`` and
the side of the kept images). :func:`whole_images` reads that view, and :func:`cut` makes others of it, by the same
resampling, photometrics and geometry as :class:`scd.data.views.ViewMaker`.

Random numbers come from torch's global generator, which the training loop seeds before each step. They are drawn on the
CPU for the whole batch of all processes, so that devices and numbers of processes agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from scd.data.crops import RECTANGLE_DRAWS, TRIES, interpolation_matrix, nearest_pixels, pick_pixels, resample
from scd.data.photometric import PHOTOMETRIC_DRAWS, apply_photometric, draw_parameters, photometric
from scd.data.view_boxes import boxes_in_view
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from scd.nn.processes import place

WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass
class WholeImages:
    """Images as they are kept, not mirrored, with what the batch carries of them.

    Args:
        images: (B, 3, S, S) float32 in [0, 1].
        masks, segments, boxes: as of a :class:`scd.method.View` that shows whole images, or None.
    """

    images: Tensor
    masks: Tensor | None = None
    segments: Tensor | None = None
    boxes: Sequence[Tensor] | None = None


def whole_images(batch: Batch) -> WholeImages:
    """The images of a batch whose only view shows them whole.

    Raises:
        UsageError: another number of views, or a view that shows a part.
    """
    views = list(batch.views.values())
    if len(views) != 1 or not _shows_all(views[0]):
        raise UsageError(
            "a method that cuts its own views needs one view of whole images: views.recipe=single views.scale=[1,1] "
            "views.size=(the side of the images that are kept)"
        )
    (view,) = views
    mean, std = (view.images.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    boxes = view.boxes
    if boxes is not None:
        boxes = [
            boxes_in_view(own, own.new_tensor(WHOLE), flip)[0] for own, flip in zip(boxes, view.flips, strict=True)
        ]
    return WholeImages(
        unmirrored(view.images * std + mean, view.flips),
        None if view.masks is None else unmirrored(view.masks, view.flips),
        None if view.segments is None else unmirrored(view.segments, view.flips),
        boxes,
    )


def _shows_all(view: View) -> bool:
    """Whether a view shows whole images; on the meta device, where nothing has values, it is taken to."""
    rectangles = view.rectangles
    return rectangles.is_meta or torch.equal(rectangles, rectangles.new_tensor(WHOLE).expand_as(rectangles))


def unmirrored(maps: Tensor, flips: Tensor) -> Tensor:
    """Maps (B, ..., W) of which those of mirrored views (B,) are mirrored back."""
    return torch.where(flips.view(-1, *[1] * (maps.ndim - 1)), maps.flip(-1), maps)


def uniform(rows: int, columns: int) -> Tensor:
    """(rows, columns) uniform numbers in [0, 1) on the CPU: this process's rows of those of all processes."""
    rank, world = place()
    return torch.rand(world * rows, columns, device="cpu")[rank * rows : (rank + 1) * rows]


def cut(
    whole: WholeImages,
    rectangles: Tensor,
    size: int,
    distribution: str,
    name: str,
    role: str = "global",
    flip: float = 0.5,
    blur_reference: float = 224.0,
    weight: float = 1.0,
) -> View:
    """One crop of every image, mirrored and recoloured at random.

    Args:
        whole: the images.
        rectangles: (B, 4) x0, y0, x1, y1 in [0, 1] of the image, each with an area.
        size, name, role, flip, blur_reference, weight: as of a :class:`scd.data.views.CropSpec`.
        distribution: name of the photometric augmentation.

    Returns:
        The view, with the masks, segments and boxes that the images have. On the meta device it is empty: training
        FLOPs are counted there, and the views of no method belong to them.
    """
    if whole.images.is_meta:
        return _empty(whole, rectangles, size, name, role, weight)
    count, side = len(rectangles), whole.images.shape[2]
    draws = uniform(count, 1 + PHOTOMETRIC_DRAWS)
    rectangles = rectangles.to(whole.images)
    flips = (draws[:, 0] < flip).to(rectangles.device)
    x0, y0, x1, y1 = rectangles.unbind(dim=1)
    with torch.no_grad(), torch.autocast(rectangles.device.type, enabled=False):
        vertical = interpolation_matrix(y0, y1, side, size)[:, None]
        horizontal = interpolation_matrix(x0, x1, side, size, flips)[:, None]
        pixels = resample(whole.images.transpose(1, 2).contiguous(), vertical, horizontal)[0]
        parameters = draw_parameters(draws[:, 1:], photometric(distribution), size / blur_reference)
        view = View(name, role, normalise(apply_photometric(pixels, parameters)), rectangles, flips, weight=weight)
        if whole.masks is not None:
            view.masks = (resample(whole.masks[:, :, None, :], vertical, horizontal)[0][:, 0] > 0.5).float()
        if whole.segments is not None:
            rows = nearest_pixels(y0, y1, side, size)[:, None]
            columns = nearest_pixels(x0, x1, side, size, flips)[:, None]
            view.segments = pick_pixels(whole.segments, rows, columns)[0]
        if whole.boxes is not None:
            shown = zip(whole.boxes, rectangles, flips, strict=True)
            view.boxes = [boxes_in_view(own, rectangle, mirrored)[0] for own, rectangle, mirrored in shown]
    return view


def _empty(whole: WholeImages, rectangles: Tensor, size: int, name: str, role: str, weight: float) -> View:
    """A view without values."""
    count = len(rectangles)
    view = View(
        name, role, whole.images.new_empty(count, 3, size, size), rectangles,
        rectangles.new_empty(count, dtype=torch.bool), boxes=whole.boxes, weight=weight,
    )  # fmt: skip
    if whole.masks is not None:
        view.masks = whole.masks.new_empty(count, size, size)
    if whole.segments is not None:
        view.segments = whole.segments.new_empty(count, size, size)
    return view


# -------------------------------------------------------------------- rectangles


def rectangles_inside(boxes: Tensor, scale: tuple[float, float], ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> Tensor:
    """Rectangles as RandomResizedCrop draws them, each inside a box of a square image instead of the whole of it.

    Ten tries of (area ~ U(scale) of the box's, log ratio ~ U(log ratio)); the first one that fits is placed uniformly.
    If none fits: the largest central rectangle whose ratio is allowed. In a box that is the whole image these are the
    rectangles of :func:`scd.data.crops.sample_rectangles`.

    Args:
        boxes: (B, 4) x0, y0, x1, y1 in [0, 1], each with an area.
        scale: range of the area as a share of the box's.
        ratio: range of width over height in pixels.

    Returns:
        (B, 4), on the boxes' device.
    """
    draws = uniform(len(boxes), RECTANGLE_DRAWS).to(boxes.device)
    sides = boxes[:, 2:] - boxes[:, :2]  # (B, 2) width, height
    areas = (scale[0] + draws[:, :TRIES] * (scale[1] - scale[0])) * sides.prod(dim=1, keepdim=True)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = torch.exp(low + draws[:, TRIES : 2 * TRIES] * (high - low))
    tried = torch.stack([(areas * ratios).sqrt(), (areas / ratios).sqrt()], dim=2)  # (B, TRIES, 2)
    fits = (tried <= sides[:, None]).all(dim=2)
    first = fits.int().argmax(dim=1)[:, None, None].expand(-1, 1, 2)
    width, height = sides.unbind(dim=1)
    central = torch.stack([torch.minimum(width, height * ratio[1]), torch.minimum(height, width / ratio[0])], dim=1)
    found = fits.any(dim=1, keepdim=True)
    drawn = torch.where(found, tried.gather(1, first)[:, 0], central)
    corner = boxes[:, :2] + torch.where(found, draws[:, -2:], 0.5) * (sides - drawn)
    return torch.cat([corner, corner + drawn], dim=1).clamp(0, 1)


def drawn_boxes(boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One box of each image at random, and the images that have one.

    Args:
        boxes: one (n_i, 4) tensor per image; boxes without area do not count.

    Returns:
        (B, 4), the whole image where no box counts; and (B,) bool.
    """
    padded = pad_sequence([F.pad(own, (0, 0, 0, 1)) for own in boxes], batch_first=True)  # (B, n, 4), at least one row
    usable = (padded[:, :, 2:] > padded[:, :, :2]).all(dim=2)
    number = usable.sum(dim=1)
    wanted = (uniform(len(boxes), 1).to(padded.device)[:, 0] * number).long()  # among those that count
    row = (usable & (usable.cumsum(dim=1) == wanted[:, None] + 1)).int().argmax(dim=1)
    chosen = padded.gather(1, row[:, None, None].expand(-1, 1, 4))[:, 0]
    found = number > 0
    return torch.where(found[:, None], chosen, padded.new_tensor(WHOLE)), found


def dilated(boxes: Tensor, share: float) -> Tensor:
    """Boxes (B, 4) with every side moved outwards by a share of the box's own width or height, within the image."""
    margin = share * (boxes[:, 2:] - boxes[:, :2])
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1).clamp(0, 1)
