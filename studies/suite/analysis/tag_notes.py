"""What a reader must know of a part that is the same in all images of one class, as a tag of their author or camera.

A network may learn the tag in the place of what the images show (S. Lapuschkin et al., "Unmasking Clever Hans
Predictors and Assessing What Machines Really Learn", Nature Communications 2019: the copyright tag of VOC's horses).
"""

import torch
from torch import Tensor

from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.altered_notes import in_memory, spread

FEWEST, MOST_IMAGES = 6, 64  # images of a class that are looked at
FEWEST_CLASSES = 2
LEVELS = 8  # by which the values of such a part may vary, of 255
SHARE, NONE = 0.004, 0.0005  # of the pixels, in a class with such a part, and in half of the classes


def notes_on_tags(images: EvaluationData) -> list[str]:
    """A note on classes whose training images share a part, where most classes have none.

    Raises:
        DataError: an image that cannot be decoded.
    """
    if not images.has("label") or not images.source.class_names or (both := in_memory(images)) is None:
        return []
    train = both[0]
    shares = {}
    for label in train.labels.unique().tolist():
        rows = (train.labels == label).nonzero()[:, 0]
        if len(rows) >= FEWEST:
            shares[label] = fixed_share(train.images[rows[spread(len(rows), MOST_IMAGES)]])
    if len(shares) < FEWEST_CLASSES:
        return []
    tagged = [label for label, share in shares.items() if share >= SHARE]
    plain = sum(share <= NONE for share in shares.values())
    if not tagged or 2 * plain < len(shares):
        return []
    names = ", ".join(f"'{images.source.class_names[label]}' ({shares[label]:.1%} of the image)" for label in tagged)
    return [
        f"Classes whose training images all share a part that others lack, as a tag or a logo at one place: {names}. A "
        "network may learn it in the place of what the images show; cover it, or leave these images out."
    ]


def fixed_share(images: Tensor) -> float:
    """The share of the pixels whose values hardly vary over the images (N, 3, S, S) uint8."""
    low, high = images.amin(dim=0).int(), images.amax(dim=0).int()
    return float(((high - low).amax(dim=0) <= LEVELS).to(torch.float32).mean())
