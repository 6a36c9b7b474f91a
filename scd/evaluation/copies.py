"""Copies of images that are not equal in every pixel, and images that are in more than one class."""

from hashlib import blake2b

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.data.images import ImageSet
from scd.errors import DataError, UsageError
from scd.evaluation.overlap import shared_images
from scd.evaluation.protocol import EvaluationData

THUMBNAIL = 16  # pixels a side
ALIKE = 0.99  # least correlation of two thumbnails of one picture, between all pixels of both
DISTANCE = 4.0  # largest mean absolute difference of two copies, of 255; JPEGs of quality 80 lie below it
PAIRS = 2_000_000_000  # pairs of images for which copies that differ in some pixels are looked for
BLOCK = 2048  # images whose thumbnails are compared at a time


def notes_on_copies(data: EvaluationData) -> list[str]:
    """What a reader must know of copies that :meth:`EvaluationData.overlap` does not count.

    Images that are generated, and those that do not fit into memory, are not compared. Equal images without labels are
    counted here.

    Raises:
        DataError: an image that cannot be decoded.
    """
    if data.source.embedded:
        return []
    try:
        train, test, labelled = data.train, data.test, data.has("label")
    except DataError:  # an image that cannot be decoded
        raise
    except UsageError:  # they do not fit into memory
        return []
    counts = {
        f"of the {len(test)} scored images are training images, too: scores are too high.": (
            0 if labelled else shared_images(train.images, test.images)
        ),
        f"of the {len(test)} scored images are nearly equal to a training image or to its mirror image, as copies that "
        "were saved again or flipped and neighbouring frames of a video are: scores are too high.": (
            near_copies(train.images, test.images)
        ),
        f"of the {len(train)} training images equal an image of another class.": in_several_classes(train),
        f"of the {len(test)} scored images equal an image of another class.": in_several_classes(test),
    }
    return [f"{count} {text}" for text, count in counts.items() if count]


def near_copies(train: Tensor, test: Tensor) -> int:
    """How many further test images are nearly equal to a training image or to its mirror image, as re-encoded ones are.

    Two images are copies where their thumbnails have a correlation of ``ALIKE`` and their pixels a mean absolute
    difference of ``DISTANCE`` at most. NOTE: neighbouring frames of a video can be so, too. Above ``PAIRS`` pairs only
    mirror images that are equal in every pixel are found.

    Args:
        train: (N, 3, S, S) uint8.
        test: (M, 3, S, S) uint8.
    """
    known = _equal(train, test)
    if len(train) * len(test) > PAIRS:
        return int((_equal(train.flip(-1), test) & ~known).sum())
    rest = test[~known]
    return int((_alike(train, rest) | _alike(train, rest.flip(-1))).sum()) if len(rest) else 0


def in_several_classes(images: ImageSet) -> int:
    """How many images equal an image of another class in every pixel; 0 without labels."""
    if images.labels is None:
        return 0
    labels: dict[bytes, list[int]] = {}
    for content, label in zip(_contents(images.images), images.labels.tolist(), strict=True):
        labels.setdefault(content, []).append(label)
    return sum(len(found) for found in labels.values() if len(set(found)) > 1)


def _equal(train: Tensor, test: Tensor) -> Tensor:
    """(M,) bool: the test image equals a training image in every pixel."""
    known = set(_contents(train))
    return torch.tensor([content in known for content in _contents(test)], dtype=torch.bool)


def _contents(images: Tensor) -> list[bytes]:
    """A hash of each image's pixels."""
    return [blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images]


def _alike(train: Tensor, test: Tensor) -> Tensor:
    """(M,) bool: the test image is nearly equal to the training image whose thumbnail is most like its own."""
    best, nearest = torch.full((len(test),), -1.0), torch.zeros(len(test), dtype=torch.long)
    ours = _thumbnails(test)
    for start in range(0, len(train), BLOCK):
        correlation, row = (ours @ _thumbnails(train[start : start + BLOCK]).T).max(dim=1)
        better = correlation > best
        best[better], nearest[better] = correlation[better], start + row[better]
    found = best >= ALIKE
    for rows in found.nonzero().flatten().split(BLOCK):
        difference = (test[rows].float() - train[nearest[rows]].float()).abs().mean(dim=(1, 2, 3))
        found[rows] = difference <= DISTANCE
    return found


def _thumbnails(images: Tensor) -> Tensor:
    """(N, D): pixels of small copies, centred and of unit length, so that products are correlations."""
    side = min(THUMBNAIL, images.shape[2])
    pixels = torch.cat([F.adaptive_avg_pool2d(part.float(), side).flatten(1) for part in images.split(BLOCK)])
    return F.normalize(pixels - pixels.mean(dim=1, keepdim=True), dim=1)
