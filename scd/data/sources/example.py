"""Tiny images for the examples of the file formats, see :meth:`scd.data.sources.source.Source.example`."""

from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image

from scd.data.sources.png import encode_png

CLASSES = ("dark", "light")
SIDE = 16  # pixels


def example_images(count: int, first: int = 0) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
    """Images (16, 16, 3) of a dark or light square on noise, masks (16, 16) 0/255 of the square, and classes.

    Args:
        count: number of images.
        first: number of the first one, so that splits differ.
    """
    images, masks, labels = [], [], []
    for number in range(first, first + count):
        image = np.random.default_rng(number).integers(60, 200, (SIDE, SIDE, 3), dtype=np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        corner = 2 + number % 5
        mask[corner : corner + 7, corner : corner + 7] = 255
        image[mask > 0] = 20 if number % 2 == 0 else 240
        images.append(image)
        masks.append(mask)
        labels.append(number % 2)
    return images, masks, labels


def write_example_parquet(folder: Path) -> None:
    """train.parquet and test.parquet of example images with labels and masks."""
    features = Features(image=Image(), label=ClassLabel(names=list(CLASSES)), mask=Image())
    for split, count, first in (("train", 12, 0), ("test", 6, 12)):
        images, masks, labels = example_images(count, first)
        columns = {"image": list(map(encode_png, images)), "label": labels, "mask": list(map(encode_png, masks))}
        Dataset.from_dict(columns, features=features).to_parquet(str(folder / f"{split}.parquet"))
