"""What a reader must know of scored images that look like altered copies of training images, whatever their names.

Copies that were saved again or mirrored are counted by :mod:`scd.evaluation.copies`. Here grey thumbnails are compared,
centred and of unit length, so that brightness, contrast and colours do not matter; mirrored, turned, cropped and partly
covered ones too. Photographs of one class can look alike as well, and images of one kind (digits, radiographs) do. The
note therefore needs a share of the scored images that the training images do not reach among themselves, or images that
are like few others: a random split deals the versions of an image to both splits alike.
"""

from collections.abc import Callable

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
TURNS: dict[str, Callable[[Tensor], Tensor]] = {  # of the last two dimensions
    "mirrored left to right": lambda x: x.flip(-1),
    "mirrored top to bottom": lambda x: x.flip(-2),
    "turned by 180 degrees": lambda x: x.flip(-1, -2),
    "turned by 90 degrees": lambda x: x.rot90(1, (-2, -1)),
    "turned by 270 degrees": lambda x: x.rot90(3, (-2, -1)),
    "transposed (rows and columns exchanged)": lambda x: x.transpose(-1, -2),
    "transposed along the other diagonal": lambda x: x.flip(-1, -2).transpose(-1, -2),
}
CROPS = (1.0, 0.9, 0.8)  # share of the side of a training image that a copy may show
COVERED = 0.15  # share of the height, at either end, that a copy may cover with a banner
MOVED = 0.05  # share of the height by which a banner that was added to a copy moves its central square
FLAT = 4.0  # standard deviation of a thumbnail, of 255, below which it is compared with nothing
LEAST, TIMES = 0.05, 3  # share of the scored images that is noted, and how many times that of the training images
FEW, FEW_SHARE, MANY = 5, 0.01, 0.3  # partners of a copy at most, also as a share of all; share that is noted with them
MOST_TRAIN, MOST_TEST = 4000, 1000  # images that are compared, evenly spread
GREY = (0.299, 0.587, 0.114)


def notes_on_altered_copies(images: EvaluationData, known: int = 0) -> list[str]:
    """A note on scored images that look like altered copies of training images.

    Images that are generated, and those that do not fit into memory, are not compared.

    Args:
        known: scored images that are known to be copies; it is noted if there are twice as many.

    Raises:
        DataError: an image that cannot be decoded.
    """
    if (both := in_memory(images)) is None:
        return []
    whole = len(both[1])
    train, test = (one.images for one in both)
    train, test = train[spread(len(train), MOST_TRAIN)], test[spread(len(test), MOST_TEST)]
    own = spread(len(train), MOST_TEST)
    partners = like_partners(train, test)
    usual = float((like_partners(train, train[own], own) > 0).float().mean())
    count = int((partners > 0).sum())
    few = with_few(partners, len(train))
    if count * whole < 2 * known * len(test):
        return []
    if count < LEAST * len(test) or (count < TIMES * usual * len(test) and few < MANY * len(test)):
        return []
    others = f", and {usual:.1%} of the training images look so much like another one" if usual else ""
    return [
        f"By their pixels, {count:,} of the {len(test):,} scored images that were compared look like altered copies of "
        f"training images (resized, mirrored, turned, cropped, brighter, grey or partly covered){others}: if they are "
        "copies or frames of one scene, scores are too high. Give all versions of an image to one split."
    ]


def notes_on_trained_copies(trained: EvaluationData, scored: EvaluationData) -> list[str]:
    """A note on scored images of one source that equal, or look like altered copies of, training images of another.

    Images that are generated, and those that do not fit into memory, are not compared.

    Raises:
        DataError: an image that cannot be decoded.
    """
    sets = in_memory(trained), in_memory(scored)
    if None in sets:
        return []
    train, test = sets[0][0].images, sets[1][1].images
    train, test = train[spread(len(train), MOST_TRAIN)], test[spread(len(test), MOST_TEST)]
    partners = like_partners(train, F.interpolate(test.float(), train.shape[-1], mode="area").to(torch.uint8))
    count = with_few(partners, len(train))
    if count < LEAST * len(test):
        return []
    return [
        f"By their pixels, {count:,} of the {len(test):,} scored images that were compared are training images of "
        f"'{trained.source.name}' or altered copies of them: scores are too high. Take them out of one of the two."
    ]


def with_few(partners: Tensor, total: int) -> int:
    """How many images have partners (M,) of which there are few among so many training images, as copies have."""
    return int(((partners > 0) & (partners <= max(FEW, FEW_SHARE * total))).sum())


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
    """Whether each image looks like a training image, (M,) bool; arguments as of :func:`like_partners`."""
    return like_partners(train, test, own) > 0


def like_partners(train: Tensor, test: Tensor, own: Tensor | None = None) -> Tensor:
    """How many training images each image looks like.

    Args:
        train: (N, 3, S, S) uint8.
        test: (M, 3, S, S) uint8.
        own: (M,) the row of each image among the training images, with which it is not compared.

    Returns:
        (M,) int64.
    """
    grey, others = in_grey(train), in_grey(test)
    found = torch.zeros(len(test), len(train), dtype=torch.bool)
    covered = max(1, round(COVERED * grey.shape[-1]))
    moved = max(1, round(MOVED * grey.shape[-1]))
    pairs = [(turn(grey), others) for turn in TURNS.values()]
    for shown, asked in [
        *((crop(grey, share), others) for share in CROPS),
        *((grey[..., rows, :], others[..., rows, :]) for rows in (slice(covered, None), slice(None, -covered))),
        (grey[..., moved:, :], others[..., :-moved, :]), (grey[..., :-moved, :], others[..., moved:, :]),
    ]:  # fmt: skip
        pairs += [(shown, asked), (shown.flip(-1), asked)]
    side = min(SIDE, *(len(shown[0, 0]) for shown, _ in pairs))
    for shown, asked in pairs:
        ours, has_contrast = thumbnails(asked, side)
        found |= (ours @ thumbnails(shown, side)[0].T >= ALIKE) & has_contrast.unsqueeze(1)
    if own is not None:
        found[torch.arange(len(own)), own] = False
    return found.sum(dim=1)


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
