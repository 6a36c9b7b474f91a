"""What a reader must know of scored images that look like altered copies of training images, whatever their names.

Copies that were saved again or mirrored are counted by :mod:`scd.evaluation.copies`. Here grey thumbnails are compared,
centred and of unit length, so that brightness, contrast and colours do not matter; mirrored, cropped and partly covered
ones too. Photographs of one class can look alike as well: the note therefore needs a share of the scored images that
the training images do not reach among themselves.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scd.data.images import ImageSet
from scd.errors import DataError, UsageError
from scd.evaluation.protocol import EvaluationData

SIDE = 12  # pixels of a thumbnail
ALIKE = (
    0.95  # correlation. At canvases of 48 px at most 1.8 % of the scored images of DUTS, CIFAR-10, Flowers-17, ECSSD,
)
# COCO and Tiny ImageNet have so close a training image, and 90 to 100 % of copies that were saved with JPEG quality 60
# and mirrored, cropped by 5 or 10 %, brightened by 30 %, made grey or covered by a banner of an eighth
CROPS = (1.0, 0.9, 0.8)  # share of the side of a training image that a copy may show
COVERED = 0.15  # share of the height, at either end, that a copy may cover with a banner
FLAT = 4.0  # standard deviation of a thumbnail, of 255, below which it is compared with nothing
LEAST, TIMES = 0.05, 3  # share of the scored images that is noted, and how many times that of the training images
MOST_TRAIN, MOST_TEST = 4000, 1000  # images that are compared, evenly spread
GREY = (0.299, 0.587, 0.114)


def notes_on_altered_copies(images: EvaluationData) -> list[str]:
    """A note on scored images that look like altered copies of training images.

    Images that are generated, and those that do not fit into memory, are not compared.

    Raises:
        DataError: an image that cannot be decoded.
    """
    if (both := in_memory(images)) is None:
        return []
    train, test = (one.images for one in both)
    train, test = train[spread(len(train), MOST_TRAIN)], test[spread(len(test), MOST_TEST)]
    own = spread(len(train), MOST_TEST)
    count, usual = int(are_alike(train, test).sum()), float(are_alike(train, train[own], own).float().mean())
    if count < LEAST * len(test) or count < TIMES * usual * len(test):
        return []
    others = f", and {usual:.1%} of the training images look so much like another one" if usual else ""
    return [
        f"By their pixels, {count:,} of the {len(test):,} scored images that were compared look like altered copies of "
        f"training images (resized, mirrored, cropped, brighter, grey or partly covered){others}: if they are copies, "
        "scores are too high. Give all versions of an image to one split."
    ]


def in_memory(images: EvaluationData) -> tuple[ImageSet, ImageSet] | None:
    """The training and the scored images; None for generated ones, and for those that do not fit into memory.

    Raises:
        DataError: an image that cannot be decoded.
    """
    if images.source.embedded:
        return None
    try:
        return images.train, images.test
    except DataError:  # an image that cannot be decoded
        raise
    except UsageError:  # they do not fit into memory
        return None


def are_alike(train: Tensor, test: Tensor, own: Tensor | None = None) -> Tensor:
    """Whether each image looks like a training image.

    Args:
        train: (N, 3, S, S) uint8.
        test: (M, 3, S, S) uint8.
        own: (M,) the row of each image among the training images, with which it is not compared.

    Returns:
        (M,) bool.
    """
    grey, others = in_grey(train), in_grey(test)
    best = torch.full((len(test),), -1.0)
    covered = max(1, round(COVERED * grey.shape[-1]))
    pairs = [(crop(grey, share), others) for share in CROPS]
    pairs += [(grey[..., rows, :], others[..., rows, :]) for rows in (slice(covered, None), slice(None, -covered))]
    side = min(SIDE, *(len(shown[0, 0]) for shown, _ in pairs))
    for shown, asked in pairs:
        ours, has_contrast = thumbnails(asked, side)
        for known in (shown, shown.flip(-1)):
            correlation = ours @ thumbnails(known, side)[0].T
            if own is not None:
                correlation[torch.arange(len(own)), own] = -1.0
            best = torch.where(has_contrast, best.maximum(correlation.max(dim=1).values), best)
    return best >= ALIKE


def in_grey(images: Tensor) -> Tensor:
    """Grey levels (N, 1, S, S) of images (N, 3, S, S)."""
    return torch.einsum("nchw,c->nhw", images.float(), torch.tensor(GREY)).unsqueeze(1)


def crop(images: Tensor, share: float) -> Tensor:
    """The central square of images (N, 1, S, S) that has this share of their side."""
    side = images.shape[-1]
    kept = round(share * side)
    first = (side - kept) // 2
    return images[..., first : first + kept, first : first + kept]


def thumbnails(images: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Small copies (N, side * side), centred and of unit length, and whether each has contrast, (N,) bool."""
    pixels = F.adaptive_avg_pool2d(images, side).flatten(1)
    centred = pixels - pixels.mean(dim=1, keepdim=True)
    return F.normalize(centred, dim=1), centred.std(dim=1) >= FLAT


def spread(count: int, most: int) -> Tensor:
    """At most so many row numbers, evenly spread over all."""
    return torch.from_numpy(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
