"""Images of a split as arrays: decoded once onto a square canvas, kept in the cache and in memory."""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import psutil
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from torch import Tensor

from scd.data import decoding, masks
from scd.data.array_file import ArrayFile
from scd.data.cache import cached_folder, content_hash
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError
from scd.seeds import generator

SHARE_OF_MEMORY = 0.5  # of this machine's memory; a set that needs more is not loaded


@dataclass
class ImageSet:
    """Images in memory.

    Args:
        images: (N, 3, S, S) uint8.
        labels: (N,) int64, or None.
        masks: (N, S, S) uint8, 1 on the object, 0 elsewhere, 2 where it is unknown; or None.
        backgrounds: (N,) int64 background classes, or None.
        class_names: names of the labels, or None.
    """

    images: Tensor
    labels: Tensor | None = None
    masks: Tensor | None = None
    backgrounds: Tensor | None = None
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int] | Tensor) -> "ImageSet":
        """The images of these rows, in this order."""
        index = torch.as_tensor(indices, dtype=torch.long)
        return self._each(lambda tensor: tensor[index.to(tensor.device)])

    def to(self, device: str | torch.device) -> "ImageSet":
        """The set on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "ImageSet":
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})


def load_images(source: Source, split: str, size: int, limit: int | None = None) -> ImageSet:
    """Decode a split: the shorter side becomes ``size`` (antialiased bilinear), then a central square; masks nearest.

    Args:
        source: the images.
        split: "train", "test" or "validation".
        size: side of the square images in pixels.
        limit: at most this many images, see :func:`chosen_rows`; only these are decoded.

    Raises:
        UsageError: unknown split, an impossible size or limit, or a set too large for the memory.
        DataError: an image that cannot be decoded or a mask of another size than its image, naming the row.
    """
    dataset = source.split(split)
    check_memory(source, split, size, limit)
    rows = chosen_rows(dataset, limit)
    name = content_hash(images_key(source, split, size, len(rows)))
    folder = cached_folder("images", name, lambda unfinished: _write(source, dataset, rows, size, unfinished))
    return replace(_read(folder), class_names=source.class_names)


def image_parts(source: Source, split: str, size: int, limit: int | None = None, part: int = 256) -> Iterator[ImageSet]:
    """The images of :func:`load_images`, at most ``part`` at a time; sets that do not fit into memory are decoded part
    by part, without the cache."""
    dataset = source.split(split)
    rows = chosen_rows(dataset, limit)
    if memory_bytes(len(rows), size, "mask" in dataset.column_names) <= largest_bytes():
        loaded = load_images(source, split, size, limit)
        for start in range(0, len(rows), part):
            yield loaded.subset(range(start, min(start + part, len(rows))))
        return
    names = {"image": "images", "mask": "masks", "label": "labels", "background": "backgrounds"}
    for start in range(0, len(rows), part):
        records = list(decoded_rows(dataset, rows[start : start + part], source, size))
        columns = {
            field: torch.from_numpy(np.stack([record[column] for record in records]))
            for column, field in names.items()
            if column in records[0]
        }
        yield ImageSet(**columns, class_names=source.class_names)


def images_key(source: Source, split: str, size: int, count: int) -> list:
    """What ``count`` decoded images of a split depend on, the code that decodes them included."""
    code = [inspect.getsource(module) for module in (decoding, masks, sys.modules[__name__])]
    return [source.fingerprints[split], source.mask_kind, source.foreground, split, size, count, content_hash(code)]


# ---------------------------------------------------------------- which images, and whether they fit


def chosen_rows(dataset: Dataset, limit: int | None) -> np.ndarray:
    """Sorted row numbers of a fixed subset of ``limit`` rows, or of all rows.

    The subset is stratified by class where there are labels, and nested: a smaller limit's rows are among a larger
    one's. Without labels it is the first rows.
    """
    n = len(dataset)
    if limit is None or limit >= n:
        return np.arange(n)
    if "label" not in dataset.column_names:
        return np.arange(limit)
    labels = np.asarray(dataset["label"][:])
    order = torch.randperm(n, generator=generator(0, "subset")).numpy()
    quantile = np.empty(n)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        quantile[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(order[np.argsort(quantile[order], kind="stable")[:limit]])


def check_request(split: str, size: int, limit: int | None) -> None:
    """Raise UsageError for an impossible size or limit of a split."""
    if size < 1:
        raise UsageError(f"size is {size}, it must be at least 1 pixel")
    if limit is not None and limit < 1:
        raise UsageError(f"limit of '{split}' is {limit}, it must be at least 1")


def memory_bytes(images: int, size: int, with_masks: bool = False) -> int:
    """Bytes of so many images (3, size, size) uint8 in memory, with or without their masks."""
    return images * size * size * (4 if with_masks else 3)


def largest_bytes() -> int:
    """Bytes that one set of images may have on this machine: half of its memory."""
    return int(SHARE_OF_MEMORY * psutil.virtual_memory().total)


def check_memory(source: Source, split: str, size: int, limit: int | None = None) -> None:
    """Find out whether a split fits into memory, without decoding anything; arguments as of :func:`load_images`.

    Raises:
        UsageError: unknown split, an impossible size or limit, or a set too large for the memory of this machine.
    """
    dataset = source.split(split)
    check_request(split, size, limit)
    images = len(dataset) if limit is None else min(limit, len(dataset))
    require_memory(memory_bytes(images, size, "mask" in dataset.column_names), f"'{source.name}' {split} at {size} px")


def require_memory(needed: int, what: str) -> None:
    """Raise UsageError if ``what`` needs more bytes than one set may have."""
    if reason := too_large(needed, what):
        raise UsageError(reason)


def too_large(needed: int, what: str) -> str:
    """Why ``what`` cannot be held in memory, in one line; empty where it can."""
    if needed <= largest_bytes():
        return ""
    return (
        f"{what} needs {needed / 2**30:,.1f} GiB, more than half of this machine's memory; set a limit "
        f"(data.train_limit, evaluation.train_limit, ...) or train with data.stream=true"
    )


# ---------------------------------------------------------------- decoding


def decoded_rows(dataset: Dataset, rows: Iterable[int], source: Source, size: int) -> Iterable[dict[str, np.ndarray]]:
    """Rows as ``image`` (3, S, S) uint8 and, where the set has them, ``mask`` (S, S) uint8 {0, 1, 2}, ``label``,
    ``background``."""
    raw = undecoded(dataset)
    for row in rows:
        yield decode_row(raw[int(row)], int(row), source, size)


def undecoded(dataset: Dataset, columns: Sequence[str] = ("image", "mask")) -> Dataset:
    """The data set with images and masks as bytes or paths, so that one that cannot be decoded can be named."""
    for column in columns:
        if column in dataset.column_names:
            dataset = dataset.cast_column(column, ImageFeature(decode=False))
    return dataset


def decode_row(record: dict, row: int, source: Source, size: int) -> dict[str, np.ndarray]:
    """One record of an undecoded data set, see :func:`decoded_rows`."""
    image = decoding.picture(record["image"], row, source.name)
    out = {"image": np.asarray(square(image, size, Image.Resampling.BILINEAR)).transpose(2, 0, 1)}
    if "mask" in record:
        what = f"{decoding.place(record['mask'] or {}, row, source.name)}: the mask"
        values = masks.read_mask(record["mask"], "mask", row, source.name, source.mask_kind)
        check_size(values, image, what)
        shown = masks.foreground(values, source.mask_kind, source.foreground, what)
        out["mask"] = np.asarray(square(Image.fromarray(shown), size, Image.Resampling.NEAREST))
    for column in ("label", "background"):
        if column in record:
            out[column] = np.int64(record[column])
    return out


def check_size(values: np.ndarray, image: Image.Image, what: str) -> None:
    """Raise DataError if a mask (H, W), named by ``what``, has another size than its upright image."""
    height, width = values.shape
    if (width, height) != image.size:
        raise DataError(
            f"{what} is {width}x{height}, the image {image.width}x{image.height}; they must have one size, upright as "
            "the EXIF orientation says"
        )


def square(image: Image.Image, size: int, filter_: Image.Resampling) -> Image.Image:
    """The central square of an image, resampled once so that its side becomes ``size``."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    if image.size == (size, size):
        return image
    return image.resize((size, size), filter_, box=(left, top, left + side, top + side))


# ---------------------------------------------------------------- the cache


def _write(source: Source, dataset: Dataset, rows: np.ndarray, size: int, folder: Path) -> None:
    n = len(rows)
    shapes = {"image": (n, 3, size, size), "mask": (n, size, size), "label": (n,), "background": (n,)}
    types = {"image": np.uint8, "mask": np.uint8, "label": np.int64, "background": np.int64}
    with ExitStack() as files:
        arrays = {
            column: files.enter_context(ArrayFile(folder / f"{column}.npy", types[column], shapes[column]))
            for column in shapes
            if column in dataset.column_names
        }
        for record in decoded_rows(dataset, rows, source, size):
            for column, array in arrays.items():
                array.append(record[column][None])


@lru_cache(maxsize=8)
def _read(folder: Path) -> ImageSet:
    def array(column: str) -> Tensor | None:
        file = folder / f"{column}.npy"
        return torch.from_numpy(np.load(file)) if file.is_file() else None

    return ImageSet(array("image"), array("label"), array("mask"), array("background"))
