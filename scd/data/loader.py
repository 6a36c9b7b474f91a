"""Batches by step: the same images at the same step for every arm of a seed, and exact continuation at any step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from scd.data.annotators.annotator import Annotations
from scd.data.images import ImageSet, check_request, chosen_rows, decode_row, undecoded
from scd.data.sources.source import Source
from scd.errors import UsageError, unknown
from scd.method import NEEDS
from scd.seeds import generator

PREFETCHED = 4  # batches that each decoding process prepares in advance


@dataclass
class ImageBatch:
    """Images of one step (this process's rows of it), before views are made.

    Args:
        images: (B, 3, S, S) uint8.
        indices: (B,) int64 row numbers in the images that are trained on.
        rows: which rows of the global batch these are.
        total: size of the global batch.
        labels: (B,) int64, where they are needed.
        annotations: by kind, those that are needed, on the same canvas as the images: "masks" (B, S, S) uint8 {0, 1};
            "segments" (B, S, S) integers, -1 where unknown; "boxes" one (n_i, 4) float32 tensor per image, x0, y0, x1,
            y1 in [0, 1].
    """

    images: Tensor
    indices: Tensor
    rows: slice
    total: int
    labels: Tensor | None = None
    annotations: dict[str, Tensor | list[Tensor]] = field(default_factory=dict)


class BatchOrder:
    """Which rows make up which step: every epoch has its own permutation; an incomplete last batch is dropped.

    Args:
        length: number of images.
        batch_size: images per step, over all processes.
        seed: the run's seed; epoch e is permuted by ``generator(seed, "order", e)``.

    Raises:
        UsageError: fewer images than one batch.
    """

    def __init__(self, length: int, batch_size: int, seed: int):
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}, it must be at least 1")
        if length < batch_size:
            raise UsageError(f"{length} images do not fill one batch of {batch_size}; lower training.batch_size")
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = length // batch_size
        self._epoch: tuple[int, Tensor] | None = None

    def rows(self, world: int, rank: int) -> slice:
        """Rows of the global batch that belong to one of ``world`` processes."""
        if self.batch_size % world:
            raise UsageError(f"batch_size {self.batch_size} cannot be split over {world} processes")
        share = self.batch_size // world
        return slice(rank * share, (rank + 1) * share)

    def indices(self, step: int) -> Tensor:
        """(batch_size,) row numbers of a step, counted from 0 over all epochs."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, torch.randperm(self.length, generator=generator(self.seed, "order", epoch))
        return self._epoch[1][place * self.batch_size : (place + 1) * self.batch_size]


class MemoryBatches:
    """Batches of images that are in memory.

    Args:
        image_set: the images, on any device.
        batch_size, seed: as for :class:`BatchOrder`.
        needs: what the batches carry beside the images, of ``scd.method.NEEDS``.
        annotations: kind -> annotations of these images, in their order, for the kinds that are needed.

    Raises:
        UsageError: something is needed that the images or annotations do not have, or an impossible batch size.
    """

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int,
        seed: int,
        needs: frozenset[str] = frozenset(),
        annotations: Mapping[str, Annotations] | None = None,
    ):
        self.image_set = image_set
        self.order = BatchOrder(len(image_set), batch_size, seed)
        self.steps_per_epoch = self.order.steps_per_epoch
        self.needs = needs
        self.annotations = needed_annotations(needs, annotations or {}, len(image_set))
        if "labels" in needs and image_set.labels is None:
            raise UsageError("the method needs labels, but the images have none")

    def iterate(self, start_step: int, stop_step: int, rank: int = 0, world: int = 1) -> Iterator[ImageBatch]:
        """The batches of steps ``start_step`` to ``stop_step - 1``; the rows of process ``rank`` of ``world``."""
        rows, images, labels = self.order.rows(world, rank), self.image_set.images, self.image_set.labels
        for step in range(start_step, stop_step):
            indices = self.order.indices(step)[rows]
            yield ImageBatch(
                images.index_select(0, indices.to(images.device)),  # on the CPU five times as fast as images[indices]
                indices,
                rows,
                self.order.batch_size,
                labels[indices.to(labels.device)] if "labels" in self.needs else None,
                {kind: values.rows(indices) for kind, values in self.annotations.items()},
            )


class StreamBatches:
    """Batches decoded on the fly by worker processes, for sets that do not fit in memory.

    Args:
        source, split: what to read.
        canvas: side in pixels of the square uint8 images that views are cut from.
        batch_size, seed: as for :class:`BatchOrder`.
        limit: at most this many images, the same as of :func:`scd.data.images.load_images`.
        workers: number of decoding processes; 0 decodes in this one.
        needs, annotations: as for :class:`MemoryBatches`.

    Raises:
        UsageError: as for :class:`MemoryBatches`; or an impossible size or limit.
    """

    def __init__(
        self,
        source: Source,
        split: str,
        canvas: int,
        batch_size: int,
        seed: int,
        limit: int | None = None,
        workers: int = 4,
        needs: frozenset[str] = frozenset(),
        annotations: Mapping[str, Annotations] | None = None,
    ):
        check_request(split, canvas, limit)
        self.decoded = DecodedRows(source, split, canvas, limit, with_labels="labels" in needs)
        self.order = BatchOrder(len(self.decoded), batch_size, seed)
        self.steps_per_epoch = self.order.steps_per_epoch
        self.workers = workers
        self.annotations = needed_annotations(needs, annotations or {}, len(self.decoded))

    def iterate(self, start_step: int, stop_step: int, rank: int = 0, world: int = 1) -> Iterator[ImageBatch]:
        """The batches of steps ``start_step`` to ``stop_step - 1``; the rows of process ``rank`` of ``world``."""
        rows = self.order.rows(world, rank)
        loader = DataLoader(
            self.decoded,
            batch_sampler=_StepIndices(self.order, range(start_step, stop_step), rows),
            num_workers=self.workers,
            collate_fn=_collate,
            prefetch_factor=PREFETCHED if self.workers else None,
        )
        for images, labels, indices in loader:
            annotations = {kind: values.rows(indices) for kind, values in self.annotations.items()}
            yield ImageBatch(images, indices, rows, self.order.batch_size, labels, annotations)


def needed_annotations(
    needs: frozenset[str], annotations: Mapping[str, Annotations], images: int
) -> dict[str, Annotations]:
    """The annotations that are needed, and no others.

    Raises:
        UsageError: an unknown need, or annotations that are missing or of another number of images.
    """
    for kind in needs:
        if kind not in NEEDS:
            raise unknown("need of a method", kind, NEEDS)
    kinds = sorted(needs - {"labels"})
    for kind in kinds:
        if kind not in annotations:
            raise UsageError(f"the method needs {kind}, but no annotator provides them: annotations.{kind}=...")
        if len(annotations[kind]) != images:
            raise UsageError(f"there are {kind} of {len(annotations[kind])} images, but {images} images")
    return {kind: annotations[kind] for kind in kinds}


class DecodedRows(Dataset):
    """Rows of a split as arrays on a square canvas."""

    def __init__(self, source: Source, split: str, canvas: int, limit: int | None, with_labels: bool):
        dataset = source.split(split)
        if with_labels and "label" not in dataset.column_names:
            raise UsageError(f"the method needs labels, but '{source.name}' {split} has none")
        self.source = source
        self.canvas = canvas
        self.rows = chosen_rows(dataset, limit)
        self.records = undecoded(dataset.select_columns(["image", "label"] if with_labels else ["image"]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        row = int(self.rows[index])
        return {"index": np.int64(index), **decode_row(self.records[row], row, self.source, self.canvas)}


class _StepIndices:
    """The batch sampler: one list of indices per step."""

    def __init__(self, order: BatchOrder, steps: range, rows: slice):
        self.order, self.steps, self.rows = order, steps, rows

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        return (self.order.indices(step)[self.rows].tolist() for step in self.steps)


def _collate(records: Sequence[dict]) -> tuple[Tensor, Tensor | None, Tensor]:
    def stack(column: str) -> Tensor | None:
        if column not in records[0]:
            return None
        return torch.from_numpy(np.stack([record[column] for record in records]))

    return stack("image"), stack("label"), stack("index")
