"""Images in NumPy's archives: one file per split with the arrays ``images`` (N, S, S, 3) and ``labels`` (N,)."""

import os
from pathlib import Path

import numpy as np
from datasets import Dataset

from scd.data.cache import file_hash
from scd.data.sources.columns import read_columns
from scd.data.sources.example import example_images
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source


class Npz(Source):
    """A file for each split."""

    def __init__(self, train: str | os.PathLike, test: str | os.PathLike, columns: dict[str, str] | None = None):
        files = {"train": Path(train), "test": Path(test)}
        digests = {split: [file_hash(path)] for split, path in files.items()}
        splits = {split: self.read(path) for split, path in files.items()}
        super().__init__(
            **read_columns("npz", splits, digests, columns, None, None), description="images of npz archives"
        )

    @staticmethod
    def read(path: Path) -> Dataset:
        """The data set of one file."""
        arrays = np.load(path)
        images = [encode_png(image) for image in arrays["images"]]
        return Dataset.from_dict({"image": images, "label": arrays["labels"]})

    @classmethod
    def example(cls, folder: Path) -> "Npz":
        for split, count, first in (("train", 48, 0), ("test", 16, 48)):
            images, _, labels = example_images(count, first)
            np.savez(folder / f"{split}.npz", images=np.stack(images), labels=np.array(labels))
        return cls(folder / "train.npz", folder / "test.npz")
