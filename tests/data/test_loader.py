"""Batches by step: order, exact continuation, shares of processes, and what the batches carry."""

import numpy as np
import pytest
import torch

from scd.data.annotators.annotator import Annotations
from scd.data.images import ImageSet, load_images
from scd.data.loader import BatchOrder, MemoryBatches, StreamBatches
from scd.data.sources.shapes import Shapes
from scd.errors import UsageError

KINDS = ["memory", "stream", "stream with workers"]
LIMIT = 33


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    return Shapes(train=60, test=20, size=24, classes=3)


@pytest.fixture(scope="module")
def annotations() -> dict[str, Annotations]:
    """Masks, segments and boxes of 33 images that say which image they belong to."""
    number = np.arange(LIMIT)
    counts = number % 3
    boxes = np.repeat(number, counts)[:, None].repeat(4, axis=1).astype(np.float32) / 100
    return {
        "masks": Annotations(np.broadcast_to(number[:, None, None] % 2, (LIMIT, 24, 24)).astype(np.uint8)),
        "segments": Annotations(np.broadcast_to(number[:, None, None], (LIMIT, 24, 24)).astype(np.int16)),
        "boxes": Annotations(boxes, np.cumsum(counts)),
    }


def batches_of(kind, source, batch_size=8, limit=None, **options):
    if kind == "memory":
        return MemoryBatches(load_images(source, "train", 24, limit), batch_size, seed=4, **options)
    workers = 2 if "workers" in kind else 0
    return StreamBatches(source, "train", 24, batch_size, seed=4, limit=limit, workers=workers, **options)


def test_every_epoch_is_another_permutation():
    order = BatchOrder(10, 3, seed=1)
    assert order.steps_per_epoch == 3
    epochs = [torch.cat([order.indices(3 * epoch + i) for i in range(3)]) for epoch in range(3)]
    assert all(len(epoch.unique()) == 9 for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(BatchOrder(10, 3, seed=1).indices(7), order.indices(7))  # random access
    assert not torch.equal(BatchOrder(10, 3, seed=2).indices(0), order.indices(0))


@pytest.mark.parametrize("kind", KINDS)
def test_iteration_continues_exactly(shapes, kind):
    images = load_images(shapes, "train", 24)
    whole = list(batches_of(kind, shapes, needs=frozenset({"labels"})).iterate(0, 10))
    tail = list(batches_of(kind, shapes, needs=frozenset({"labels"})).iterate(6, 10))
    assert batches_of(kind, shapes).steps_per_epoch == 7 and len(whole) == 10
    for a, b in zip(whole[6:], tail, strict=True):
        assert torch.equal(a.indices, b.indices) and torch.equal(a.images, b.images)
    for batch in whole:  # rows belong together
        assert torch.equal(batch.images, images.images[batch.indices])
        assert torch.equal(batch.labels, images.labels[batch.indices])
        assert (batch.rows, batch.total, batch.annotations) == (slice(0, 8), 8, {})


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("limit", [LIMIT, 1000])
def test_streamed_batches_are_those_in_memory(shapes, kind, limit):
    """Within a limit, too: the same stratified subset, in the same order."""
    first, second = (batches_of(each, shapes, limit=limit, needs=frozenset({"labels"})) for each in ("memory", kind))
    assert first.steps_per_epoch == second.steps_per_epoch == min(limit, 60) // 8
    for a, b in zip(first.iterate(0, 9), second.iterate(0, 9), strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.indices, b.indices)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_carry_what_is_needed_and_nothing_else(shapes, annotations, kind):
    plain = next(iter(batches_of(kind, shapes, limit=LIMIT, annotations=annotations).iterate(2, 3)))
    assert plain.labels is None and plain.annotations == {}
    needs = frozenset({"masks", "segments", "boxes"})
    full = next(iter(batches_of(kind, shapes, limit=LIMIT, needs=needs, annotations=annotations).iterate(2, 3)))
    assert torch.equal(full.images, plain.images) and full.labels is None and set(full.annotations) == needs
    assert full.annotations["masks"].dtype == torch.uint8 and full.annotations["masks"].shape == (8, 24, 24)
    assert torch.equal(full.annotations["masks"][:, 0, 0], full.indices % 2)
    assert torch.equal(full.annotations["segments"][:, 5, 7], full.indices)
    for boxes, index in zip(full.annotations["boxes"], full.indices.tolist(), strict=True):
        assert boxes.shape == (index % 3, 4) and torch.allclose(boxes, torch.tensor(index / 100))


def test_processes_share_the_batch(shapes, annotations):
    given = {"needs": frozenset({"segments"}), "annotations": annotations, "limit": LIMIT}
    whole = next(iter(batches_of("memory", shapes, **given).iterate(5, 6)))
    parts = [next(iter(batches_of("memory", shapes, **given).iterate(5, 6, rank, 2))) for rank in range(2)]
    assert torch.equal(torch.cat([part.indices for part in parts]), whole.indices)
    segments = torch.cat([part.annotations["segments"] for part in parts])
    assert torch.equal(segments, whole.annotations["segments"])
    assert [part.rows for part in parts] == [slice(0, 4), slice(4, 8)] and parts[0].total == 8


def test_images_may_lie_on_another_device(shapes):
    batches = MemoryBatches(load_images(shapes, "train", 24).to("meta"), 8, 0, needs=frozenset({"labels"}))
    batch = next(iter(batches.iterate(0, 1)))
    assert batch.images.device.type == batch.labels.device.type == "meta" and batch.images.shape == (8, 3, 24, 24)


def test_what_is_missing_is_said(shapes, annotations):
    images = ImageSet(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(UsageError, match="4 images do not fill one batch of 8; lower training.batch_size"):
        MemoryBatches(images, 8, 0)
    with pytest.raises(UsageError, match="batch_size is 0, it must be at least 1"):
        MemoryBatches(images, 0, 0)
    with pytest.raises(UsageError, match="batch_size 4 cannot be split over 3 processes"):
        next(iter(MemoryBatches(images, 4, 0).iterate(0, 1, 0, 3)))
    with pytest.raises(UsageError, match="the method needs labels, but the images have none"):
        MemoryBatches(images, 2, 0, needs=frozenset({"labels"}))
    with pytest.raises(UsageError, match="unknown need of a method 'mask'; did you mean 'masks'"):
        MemoryBatches(images, 2, 0, needs=frozenset({"mask"}))
    for kind in KINDS[:2]:
        with pytest.raises(UsageError, match="the method needs boxes, but no annotator provides them"):
            batches_of(kind, shapes, needs=frozenset({"boxes"}))
        with pytest.raises(UsageError, match="there are masks of 33 images, but 60 images"):
            batches_of(kind, shapes, needs=frozenset({"masks"}), annotations=annotations)
        with pytest.raises(UsageError, match="limit of 'train' is 0, it must be at least 1"):
            batches_of(kind, shapes, limit=0)
    unlabelled = Shapes(train=60, test=20, size=24, classes=3)
    unlabelled.splits["train"] = unlabelled.splits["train"].remove_columns("label")
    with pytest.raises(UsageError, match="the method needs labels, but 'shapes' train has none"):
        batches_of("stream", unlabelled, needs=frozenset({"labels"}))
