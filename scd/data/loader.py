"""Batches by step: the same images at the same step for every arm of a seed, and exact continuation at any step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from scd.data.images import ImageSet, decode_row, undecoded
from scd.data.sources.source import Source
from scd.errors import UsageError
from scd.seeds import generator


@dataclass
class Batch:
    """Images of one step (this process's rows of it).

    Args:
        images: (B, 3, S, S) uint8.
        masks: (B, S, S) uint8 {0, 1}, or None.
        labels: (B,) int64, or None.
        indices: (B,) int64 row numbers in the data set.
        rows: which rows of the global batch these are.
        total: size of the global batch.
    """

    images: Tensor
    masks: Tensor | None
    labels: Tensor | None
    indices: Tensor
    rows: slice
    total: int


class BatchOrder:
    """Which rows make up which step: every epoch a permutation of its own, the incomplete last batch dropped.

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
        """(batch_size,) data set rows of a step, counted from 0 over all epochs."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, torch.randperm(self.length, generator=generator(self.seed, "order", epoch))
        return self._epoch[1][place * self.batch_size : (place + 1) * self.batch_size]


class MemoryBatches:
    """Batches of images that are in memory."""

    def __init__(self, image_set: ImageSet, batch_size: int, seed: int):
        self.image_set = image_set
        self.order = BatchOrder(len(image_set), batch_size, seed)
        self.steps_per_epoch = self.order.steps_per_epoch

    def iterate(self, start_step: int, stop_step: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The batches of steps ``start_step`` to ``stop_step - 1``; the rows of process ``rank`` of ``world``."""
        rows = self.order.rows(world, rank)
        for step in range(start_step, stop_step):
            indices = self.order.indices(step)[rows]
            part = self.image_set.subset(indices)
            yield Batch(part.images, part.masks, part.labels, indices, rows, self.order.batch_size)


class StreamBatches:
    """Batches decoded on the fly by worker processes, for sets that do not fit in memory.

    Args:
        source, split: what to read.
        canvas: side in pixels of the square uint8 images that views are cut from.
        batch_size, seed: as for :class:`BatchOrder`.
        workers: number of decoding processes; 0 decodes in this one.
    """

    def __init__(self, source: Source, split: str, canvas: int, batch_size: int, seed: int, workers: int = 4):
        self.rows_of_source = DecodedRows(source, split, canvas)
        self.order = BatchOrder(len(self.rows_of_source), batch_size, seed)
        self.steps_per_epoch = self.order.steps_per_epoch
        self.workers = workers

    def iterate(self, start_step: int, stop_step: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The batches of steps ``start_step`` to ``stop_step - 1``; the rows of process ``rank`` of ``world``."""
        rows = self.order.rows(world, rank)
        loader = DataLoader(
            self.rows_of_source,
            batch_sampler=_StepIndices(self.order, range(start_step, stop_step), rows),
            num_workers=self.workers,
            collate_fn=_collate,
            prefetch_factor=4 if self.workers else None,
        )
        for images, masks, labels, indices in loader:
            yield Batch(images, masks, labels, indices, rows, self.order.batch_size)


class DecodedRows(Dataset):
    """Rows of a split as arrays on a square canvas."""

    def __init__(self, source: Source, split: str, canvas: int):
        self.source = source
        self.canvas = canvas
        self.records = undecoded(source.split(split))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        return {"index": np.int64(row), **decode_row(self.records[row], row, self.source, self.canvas)}


class _StepIndices:
    """The batch sampler: one list of rows per step."""

    def __init__(self, order: BatchOrder, steps: range, rows: slice):
        self.order, self.steps, self.rows = order, steps, rows

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        return (self.order.indices(step)[self.rows].tolist() for step in self.steps)


def _collate(records: Sequence[dict]) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
    def stack(column: str) -> Tensor | None:
        if column not in records[0]:
            return None
        return torch.from_numpy(np.stack([record[column] for record in records]))

    return stack("image"), stack("mask"), stack("label"), stack("index")
