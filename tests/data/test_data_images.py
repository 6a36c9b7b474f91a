"""Decoding onto the canvas, subsets, the cache, and batches by step."""

import io

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow
from torch.nn.functional import interpolate

from scd.data import images as module
from scd.data.images import ImageSet, chosen_rows, load_images
from scd.data.loader import BatchOrder, MemoryBatches, StreamBatches
from scd.data.sources.shapes import ShapesOptions, render
from scd.data.sources.source import Source, open_source
from scd.errors import DataError, UsageError


def source_of(images: list, masks: list | None = None, labels: list | None = None, key: str = "") -> Source:
    """A source of arrays (H, W, 3) or bytes, as if it came from a parquet file; ``key`` makes its cache its own."""

    def cells(values):
        return [{"bytes": v, "path": None} if isinstance(v, bytes) else Pillow.fromarray(v) for v in values]

    columns, features = {"image": cells(images)}, {"image": Image()}
    if masks is not None:
        columns["mask"], features["mask"] = cells(masks), Image()
    if labels is not None:
        columns["label"], features["label"] = labels, ClassLabel(num_classes=max(labels) + 1)
    dataset = Dataset.from_dict(columns, features=Features(features))
    kind = "binary" if masks is not None else None
    return Source("mine", "1", {"train": dataset}, f"{dataset._fingerprint}{key}", None, None, kind, "")


@pytest.fixture(scope="module")
def shapes() -> Source:
    return open_source("shapes", train=60, test=20, size=24, classes=3)


def test_the_central_square_is_cut_out():
    """A 60 x 40 image whose red is x: the canvas shows x from 10 to 50, the mask the same pixels."""
    x = np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))
    mask = np.where(x >= 4 * 30, 255, 0).astype(np.uint8)
    images = load_images(source_of([np.stack([x] * 3, axis=2)], [mask]), "train", 20)
    expected = 4 * (10 + 2 * np.arange(20) + 0.5)
    assert np.abs(images.images[0, 0].numpy() - expected)[:, 1:-1].max() <= 1
    assert images.masks[0, 0].tolist() == [0] * 10 + [1] * 10 and images.masks.dtype == torch.uint8


def test_downscaling_is_antialiased():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    ours = load_images(source_of([pixels]), "train", 16).images[0].float()
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    theirs = interpolate(tensor, size=(16, 16), mode="bilinear", antialias=True)[0]
    assert (ours - theirs).abs().max() <= 1


def test_shapes_are_loaded_as_rendered(shapes):
    images = load_images(shapes, "train", 24)
    rendered = render(ShapesOptions(train=60, test=20, size=24, classes=3), "train", 60)
    np.testing.assert_array_equal(images.images.permute(0, 2, 3, 1).numpy(), rendered.images)
    np.testing.assert_array_equal(images.masks.numpy() * 255, rendered.masks)
    np.testing.assert_array_equal(images.labels.numpy(), rendered.labels)
    np.testing.assert_array_equal(images.backgrounds.numpy(), rendered.backgrounds)
    assert images.class_names == shapes.class_names and len(images) == 60


def test_the_cache_holds_what_was_decoded(shapes, monkeypatch):
    first = load_images(shapes, "test", 20)
    module._read.cache_clear()
    monkeypatch.setattr(module, "decode_row", lambda *_: pytest.fail("decoded again"))
    again = load_images(shapes, "test", 20)
    assert torch.equal(first.images, again.images) and torch.equal(first.masks, again.masks)


def test_limit_is_stratified_and_nested(shapes):
    small, large = (chosen_rows(shapes.splits["train"], limit) for limit in (15, 30))
    assert set(small) <= set(large) and len(small) == 15
    labels = np.asarray(shapes.splits["train"]["label"][:])
    assert np.bincount(labels[small]).tolist() == [5, 5, 5]
    assert np.bincount(labels[large]).tolist() == [10, 10, 10]
    assert load_images(shapes, "train", 24, limit=15).labels.bincount().tolist() == [5, 5, 5]
    assert len(chosen_rows(shapes.splits["train"], 1000)) == 60
    unlabelled = shapes.splits["train"].remove_columns("label")
    assert chosen_rows(unlabelled, 4).tolist() == [0, 1, 2, 3]


def test_subset_and_device(shapes):
    images = load_images(shapes, "train", 24)
    part = images.subset([5, 3])
    assert torch.equal(part.images[1], images.images[3]) and part.labels[0] == images.labels[5]
    assert len(part) == len(part.masks) == len(part.backgrounds) == 2 and part.class_names == images.class_names
    assert ImageSet(images.images).subset([0]).labels is None
    assert images.to("meta").masks.device.type == "meta"


def test_grey_palette_and_transparent_images_become_rgb():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
    alpha = np.dstack([pixels] * 4)
    images = load_images(source_of([pixels, np.dstack([pixels] * 3), alpha]), "train", 20).images
    assert torch.equal(images[0], images[1]) and torch.equal(images[1], images[2])


def test_bad_images_are_named():
    good = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(DataError, match="'mine' row 1: the image cannot be decoded"):
        load_images(source_of([good, b"not an image"]), "train", 20)
    truncated = _png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))[:2000]
    with pytest.raises(DataError, match="'mine' row 0: the image cannot be decoded .*truncated"):
        load_images(source_of([truncated]), "train", 20)
    with pytest.raises(DataError, match="'mine' row 1: the mask is 10x20, the image 20x20; they must have one size"):
        load_images(source_of([good] * 2, [good[..., 0], good[:, :10, 0]]), "train", 20)
    with pytest.raises(UsageError, match="unknown split of 'mine' 'test'; valid: train"):
        load_images(source_of([good]), "test", 20)
    with pytest.raises(UsageError, match="limit of 'train' is 0, it must be at least 1"):
        load_images(source_of([good]), "train", 20, limit=0)
    with pytest.raises(UsageError, match="size is 0, it must be at least 1 pixel"):
        load_images(source_of([good]), "train", 0)


def test_bad_files_of_folders_are_named(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(5):
        Pillow.new("RGB", (8, 8)).save(tmp_path / "a" / f"{i}.png")
    for i in range(5):
        (tmp_path / "a" / f"{i}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"row 0 \(.*\.png\): the image cannot be decoded"):
        load_images(open_source(str(tmp_path)), "train", 8)


def test_sets_that_do_not_fit_are_streamed(shapes):
    with pytest.raises(
        UsageError, match="'shapes' train at 100000 px needs 1676 GiB of memory; stream it, or set a limit"
    ):
        load_images(shapes, "train", 100000)


# ------------------------------------------------------------------------------------------------ batches


def test_every_epoch_is_another_permutation():
    order = BatchOrder(10, 3, seed=1)
    assert order.steps_per_epoch == 3
    epochs = [torch.cat([order.indices(3 * epoch + i) for i in range(3)]) for epoch in range(3)]
    assert all(len(epoch.unique()) == 9 for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(BatchOrder(10, 3, seed=1).indices(7), order.indices(7))  # random access
    assert not torch.equal(BatchOrder(10, 3, seed=2).indices(0), order.indices(0))


@pytest.mark.parametrize("kind", ["memory", "stream", "stream with workers"])
def test_iteration_continues_exactly(shapes, kind):
    images = load_images(shapes, "train", 24)

    def batches():
        if kind == "memory":
            return MemoryBatches(images, 8, seed=4)
        return StreamBatches(shapes, "train", 24, 8, seed=4, workers=2 if "workers" in kind else 0)

    whole = list(batches().iterate(0, 10))
    tail = list(batches().iterate(6, 10))
    assert batches().steps_per_epoch == 7 and len(whole) == 10
    for a, b in zip(whole[6:], tail, strict=True):
        assert torch.equal(a.indices, b.indices) and torch.equal(a.images, b.images)
    for batch in whole:  # rows belong together
        assert torch.equal(batch.images, images.images[batch.indices])
        assert torch.equal(batch.masks, images.masks[batch.indices])
        assert torch.equal(batch.labels, images.labels[batch.indices])
        assert (batch.rows, batch.total) == (slice(0, 8), 8)


def test_processes_share_the_batch(shapes):
    images = load_images(shapes, "train", 24)
    whole = next(iter(MemoryBatches(images, 8, 4).iterate(5, 6)))
    parts = [next(iter(MemoryBatches(images, 8, 4).iterate(5, 6, rank, 2))) for rank in range(2)]
    assert torch.equal(torch.cat([part.indices for part in parts]), whole.indices)
    assert [part.rows for part in parts] == [slice(0, 4), slice(4, 8)] and parts[0].total == 8


def test_sets_without_labels_and_masks_give_none():
    batches = MemoryBatches(ImageSet(torch.zeros(4, 3, 8, 8, dtype=torch.uint8)), 2, 0)
    batch = next(iter(batches.iterate(0, 1)))
    assert batch.masks is None and batch.labels is None


def test_bad_batches_say_so():
    images = ImageSet(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(UsageError, match="4 images do not fill one batch of 8; lower training.batch_size"):
        MemoryBatches(images, 8, 0)
    with pytest.raises(UsageError, match="batch_size is 0, it must be at least 1"):
        MemoryBatches(images, 0, 0)
    with pytest.raises(UsageError, match="batch_size 4 cannot be split over 3 processes"):
        next(iter(MemoryBatches(images, 4, 0).iterate(0, 1, 0, 3)))


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
