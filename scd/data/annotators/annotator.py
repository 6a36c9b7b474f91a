"""Annotations: what a method needs of its training images beyond pixels and labels.

An :class:`Annotator` computes masks, boxes or segments of images on the square canvas that views are cut from. Each one
is a file of this folder. :func:`annotate` runs it once per set of images and keeps the result in the cache.
"""

import hashlib
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from scd.data.array_file import ArrayFile
from scd.data.cache import cached_folder, content_hash
from scd.data.images import ImageSet, check_request, image_parts, images_key
from scd.data.masks import require_object_and_background
from scd.data.sources.source import Source
from scd.errors import DataError

KINDS = ("masks", "boxes", "segments")
COLUMNS = {"masks": "mask", "labels": "label", "backgrounds": "background"}  # fields of ImageSet and their columns
UNKNOWN = -1  # in segments: a pixel of no segment


class Annotator(ABC):
    """Computes one kind of annotation.

    Subclasses set the attributes and implement ``__call__``. Their attributes hold their options: text, numbers, lists
    and networks (``nn.Module``).

    Attributes:
        provides: "masks", "boxes" or "segments".
        supervision: what the annotations are learned from, of ``scd.method.SUPERVISION``; pages print it.
        needs: what the images must have, of the fields "masks", "labels" and "backgrounds" of an ``ImageSet``.
    """

    provides: str
    supervision: str = "none"
    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def __call__(self, images: Tensor, part: ImageSet) -> Tensor | list[Tensor]:
        """Annotations of some images.

        Args:
            images: (B, 3, S, S) uint8.
            part: the same images with the data's labels and masks, as far as they are in ``needs``.

        Returns:
            masks (B, S, S) uint8, 1 on the object and 0 elsewhere; or segments (B, S, S) integers from 0, -1 where
            unknown; or boxes, one (n_i, 4) float tensor per image, x0, y0, x1, y1 in [0, 1] of the canvas.
        """


class Annotations:
    """Annotations of a set of images, in the images' order.

    Args:
        values: masks or segments (N, S, S), or the boxes of all images (M, 4) one after the other.
        ends: for boxes, (N,) the row after each image's last box.
    """

    def __init__(self, values: np.ndarray, ends: np.ndarray | None = None):
        self.values = values
        self.ends = ends

    def __len__(self) -> int:
        return len(self.values if self.ends is None else self.ends)

    def rows(self, indices: Tensor | Sequence[int]) -> Tensor | list[Tensor]:
        """The annotations of these images, in this order."""
        indices = np.asarray(indices)
        if self.ends is None:
            return torch.from_numpy(self.values[indices])
        starts = np.concatenate([[0], self.ends])[:-1]
        return [torch.from_numpy(np.array(self.values[starts[i] : self.ends[i]])) for i in indices]


def annotate(annotator: Annotator, source: Source, split: str, size: int, limit: int | None = None) -> Annotations:
    """The annotations of the images that :func:`scd.data.images.load_images` gives for these arguments.

    They are computed once and read from the cache afterwards, a few rows at a time. The cache's key covers the images,
    the annotator's options and the source code of its module; code that the module imports is not covered.

    Raises:
        UsageError: unknown split, or an impossible size or limit.
        DataError: images without what the annotator needs, or one that cannot be decoded.
        ValueError: the annotator returned something else than it provides.
    """
    dataset = source.split(split)
    check_request(split, size, limit)
    name = type(annotator).__name__
    for column in sorted(annotator.needs):
        if COLUMNS[column] not in dataset.column_names:
            raise DataError(f"{name} needs {column}, but '{source.name}' {split} has no column '{COLUMNS[column]}'")
    count = len(dataset) if limit is None else min(limit, len(dataset))
    key = content_hash({"images": images_key(source, split, size, count), "annotator": identity(annotator)})

    def checked() -> Iterator[Tensor | list[Tensor]]:
        hidden = dict.fromkeys(set(COLUMNS) - annotator.needs)
        held: set[int] = set()  # values of the masks
        for part in image_parts(source, split, size, limit):
            if "masks" in annotator.needs:
                held |= set(part.masks.unique().tolist())
            values = annotator(part.images, replace(part, **hidden))
            check_values(annotator, values, part.images)
            yield values
        if "masks" in annotator.needs:
            what = f"'{source.name}' {split}"
            require_object_and_background(torch.tensor(sorted(held)), source.mask_kind, source.foreground, what)

    write = (
        write_boxes if annotator.provides == "boxes" else partial(write_maps, annotator.provides, (count, size, size))
    )
    folder = cached_folder("annotations", key, lambda unfinished: write(checked(), unfinished))
    ends = folder / "ends.npy"
    return Annotations(np.load(folder / "values.npy", mmap_mode="c"), np.load(ends) if ends.is_file() else None)


def identity(annotator: Annotator) -> dict[str, Any]:
    """What the annotations depend on beside the images: class, options and the source code of the class's module."""
    code = inspect.getsource(sys.modules[type(annotator).__module__])
    return {
        "class": f"{type(annotator).__module__}.{type(annotator).__qualname__}",
        "provides": annotator.provides,
        "options": {key: _plain(value) for key, value in sorted(vars(annotator).items())},
        "code": hashlib.sha256(code.encode()).hexdigest(),
    }


def check_values(annotator: Annotator, values: Tensor | list[Tensor], images: Tensor) -> None:
    """Raise ValueError if ``values`` are not what the annotator provides, see :class:`Annotator`."""
    name, kind, canvas = type(annotator).__name__, annotator.provides, (len(images), *images.shape[2:])
    if kind == "boxes":
        if len(values) != len(images):
            raise ValueError(f"{name} gave boxes of {len(values)} images, not of {len(images)}")
        for boxes in values:
            if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
                raise ValueError(f"{name} gave boxes {boxes.dtype} {tuple(boxes.shape)}, they must be float (n, 4)")
            inside = ((boxes >= 0) & (boxes <= 1)).all() and (boxes[:, 2:] >= boxes[:, :2]).all()
            if not inside:
                raise ValueError(f"{name} gave a box that is not x0 <= x1, y0 <= y1 in [0, 1]")
        return
    if tuple(values.shape) != canvas or values.is_floating_point():
        raise ValueError(f"{name} gave {kind} {values.dtype} {tuple(values.shape)}, they must be integers {canvas}")
    low, high = {"masks": (0, 1), "segments": (UNKNOWN, torch.iinfo(torch.int16).max)}[kind]
    if int(values.min()) < low or int(values.max()) > high:
        raise ValueError(f"{name} gave {kind} of {int(values.min())} to {int(values.max())}, not {low} to {high}")


def write_maps(kind: str, shape: tuple[int, int, int], parts: Iterable[Tensor], folder: Path) -> None:
    """Write masks or segments (N, S, S) part by part."""
    dtype = {"masks": np.uint8, "segments": np.int16}[kind]
    with ArrayFile(folder / "values.npy", dtype, shape) as array:
        for part in parts:
            array.append(part.numpy())


def write_boxes(parts: Iterable[list[Tensor]], folder: Path) -> None:
    """Write the boxes of all images one after the other, and where those of each image end."""
    boxes = [one.to(torch.float32).numpy() for part in parts for one in part]
    np.save(folder / "values.npy", np.concatenate([np.zeros((0, 4), np.float32), *boxes]))
    np.save(folder / "ends.npy", np.cumsum([len(one) for one in boxes]))


def _plain(value: Any) -> Any:
    """An option as a JSON value, a network as the hash of its weights. Raises TypeError for any other object."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if not isinstance(value, nn.Module):
        raise TypeError(f"an annotator's options are numbers, text, lists, mappings and networks, not {value!r}")
    digest = hashlib.sha256()
    for name, tensor in sorted(value.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {"network": type(value).__qualname__, "weights": digest.hexdigest()}
