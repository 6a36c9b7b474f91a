"""What a reader must know of images that a split holds several times, as a set with one row for each caption does."""

from hashlib import blake2b

from scd.data.images import ImageSet
from scd.errors import DataError, UsageError
from scd.evaluation.protocol import EvaluationData

LEAST = 0.01  # share of the images of a split that is noted


def notes_on_repeats(images: EvaluationData) -> list[str]:
    """Notes on images of a split that equal an earlier one of the same split and class in every pixel of the canvas.

    Equal images of two classes, and of two splits, are counted by :mod:`scd.evaluation.copies`. Images that are
    generated, and those that do not fit into memory, are not compared.

    Raises:
        DataError: an image that cannot be decoded.
    """
    if images.source.embedded:
        return []
    notes = []
    for split, words, effect in (
        ("train", "training", "which are trained on more often than others"),
        ("test", "scored", "which count more than others"),
    ):
        try:
            found = images.train if split == "train" else images.test
        except DataError:  # an image that cannot be decoded
            raise
        except UsageError:  # they do not fit into memory
            continue
        count = repeated(found)
        if count >= LEAST * len(found) and count:
            notes.append(f"{count:,} of the {len(found):,} {words} images repeat an earlier one of them, {effect}.")
    return notes


def repeated(images: ImageSet) -> int:
    """How many images equal an earlier one of the same class, or any earlier one where there are no labels."""
    labels = [0] * len(images) if images.labels is None else images.labels.tolist()
    contents = (blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images.images)
    return len(images) - len(set(zip(labels, contents, strict=True)))
