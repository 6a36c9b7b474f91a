"""The rows of the images that a study uses: those that are trained on, and those that are scored."""

import numpy as np

from scd.data.images import chosen_rows
from scd.evaluation.protocol import EvaluationData


def used_rows(images: EvaluationData, split: str) -> np.ndarray:
    """The rows (n,) of a split within its limit: of "train", or of the split that is scored."""
    return chosen_rows(images.source.split(split), images.train_limit if split == "train" else images.test_limit)
