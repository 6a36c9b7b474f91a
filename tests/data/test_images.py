"""Decoding onto the canvas, subsets, the cache, and what fits into memory."""

import io

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow
from torch.nn.functional import interpolate

from scd.data import images as module
from scd.data.images import ImageSet, check_memory, chosen_rows, image_parts, images_key, load_images, memory_bytes
from scd.data.sources.path import PathSource
from scd.data.sources.png import encode_png
from scd.data.sources.shapes import Shapes
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError


def source_of(images: list, masks: list | None = None, labels: list | None = None) -> Source:
    """A source of arrays (H, W, 3) or bytes, as if it came from a parquet file."""

    def cells(values):
        return [{"bytes": v, "path": None} if isinstance(v, bytes) else Pillow.fromarray(v) for v in values]

    columns, features = {"image": cells(images)}, {"image": Image()}
    if masks is not None:
        columns["mask"], features["mask"] = cells(masks), Image()
    if labels is not None:
        columns["label"], features["label"] = labels, ClassLabel(num_classes=max(labels) + 1)
    dataset = Dataset.from_dict(columns, features=Features(features))
    kind = "binary" if masks is not None else None
    return Source("mine", {"train": dataset}, {"train": dataset._fingerprint}, mask_kind=kind)


@pytest.fixture(scope="module")
def shapes() -> Source:
    return Shapes(train=60, test=20, size=24, classes=3)


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
    truncated = encode_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))["bytes"][:2000]
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


def test_an_upright_photograph_and_its_mask_cover_the_same_half():
    """F8: a photograph that is stored on its side, with a mask drawn on what viewers show."""
    pixels, mask = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8)
    pixels[:, :10], mask[:, :10] = 255, 255
    file, exif = io.BytesIO(), Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(pixels).transpose(Pillow.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    images = load_images(source_of([file.getvalue()], [mask]), "train", 20)
    assert torch.equal(images.images[0, 0] == 255, images.masks[0] == 1)


def test_deep_images_are_scaled_and_named(tmp_path):
    """F7, in a folder: 16 bits are scaled, floats are refused by file."""
    values = np.repeat(np.array([[0, 32896, 65535]], np.uint16), 8, axis=1).repeat(24, axis=0)
    for number in range(5):
        Pillow.fromarray(values).save(tmp_path / f"{number}.png")
    images = load_images(PathSource(tmp_path), "train", 24)
    assert images.images[0, 0].unique().tolist() == [0, 128, 255]
    for number in range(5):
        Pillow.fromarray(np.ones((24, 24), np.float32)).save(tmp_path / f"{number}.tif")
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(DataError, match=r"row 0 \(.*\d.tif\): the image holds floats"):
        load_images(PathSource(tmp_path), "train", 24)


def test_replaced_pixels_are_decoded_again(tmp_path):
    """F4: of bitmaps of one size the fingerprint stayed, and the old images came from the cache."""
    for number in range(5):
        Pillow.new("RGB", (24, 24), (9, 9, 9)).save(tmp_path / f"{number}.bmp")
    before = PathSource(tmp_path)
    assert load_images(before, "train", 24).images.max() == 9
    for number in range(5):
        Pillow.new("RGB", (24, 24), (200, 9, 9)).save(tmp_path / f"{number}.bmp")
    after = PathSource(tmp_path)
    assert load_images(after, "train", 24).images.max() == 200
    assert not set(before.fingerprints.values()) & set(after.fingerprints.values())


def test_other_code_decodes_again(shapes, monkeypatch):
    before = images_key(shapes, "train", 24, 60)
    assert before == images_key(shapes, "train", 24, 60)
    monkeypatch.setattr("inspect.getsource", lambda _: "changed")
    assert before != images_key(shapes, "train", 24, 60)


@pytest.mark.parametrize("fits", [True, False])
def test_parts_are_the_images_of_the_whole(shapes, monkeypatch, fits):
    loaded = load_images(shapes, "train", 24, limit=50)
    if not fits:
        monkeypatch.setattr(module, "largest_bytes", lambda: 0)
    parts = list(image_parts(shapes, "train", 24, limit=50, part=20))
    assert [len(part) for part in parts] == [20, 20, 10]
    for field in ("images", "masks", "labels", "backgrounds"):
        assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(loaded, field))
    assert parts[0].class_names == shapes.class_names


# ---------------------------------------------------------------- memory


def test_a_limit_loads_only_so_many_images(shapes, monkeypatch):
    decoded, decode = [], module.decode_row
    monkeypatch.setattr(module, "decode_row", lambda *given: decoded.append(given[1]) or decode(*given))
    loaded = load_images(shapes, "train", 18, limit=7)
    assert len(loaded) == len(decoded) == 7 and sorted(decoded) == chosen_rows(shapes.split("train"), 7).tolist()


def test_bytes_of_images_are_counted(shapes):
    loaded = load_images(shapes, "train", 24)
    assert memory_bytes(60, 24) == loaded.images.numel()
    assert memory_bytes(60, 24, with_masks=True) == loaded.images.numel() + loaded.masks.numel()


def test_sets_that_do_not_fit_say_so_before_anything_is_decoded(shapes, monkeypatch):
    monkeypatch.setattr(module, "largest_bytes", lambda: memory_bytes(30, 24, with_masks=True))
    monkeypatch.setattr(module, "decode_row", lambda *_: pytest.fail("decoded"))
    text = r"'shapes' train at 24 px needs 0.0 GiB, more than half of this machine's memory; set a limit \(data.train_"
    for check in (check_memory, load_images):
        with pytest.raises(UsageError, match=text):
            check(shapes, "train", 24, limit=31)
        with pytest.raises(UsageError, match=text):
            check(shapes, "train", 24)
    check_memory(shapes, "train", 24, limit=30)
    check_memory(shapes, "test", 24)
    with pytest.raises(UsageError, match="unknown split of 'shapes' 'val'"):
        check_memory(shapes, "val", 24)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="needs 223,517.4 GiB"):
        check_memory(shapes, "train", 1_000_000)


# ---------------------------------------------------------------- real sets


@pytest.mark.parametrize(
    ("name", "mask_kind", "classes"),
    [
        ("duts_tr_labelled", "binary", 19),
        ("ecssd", "binary", None),
        ("flowers17_seg", "binary", 17),
        ("coco_mini", "instances", None),
        ("coco_unlabelled", None, None),
        ("camvid", "classes", None),
        ("tiny_imagenet16", None, 16),
        ("cifar10", None, 10),
    ],
)
def test_real_sets(real_data, name, mask_kind, classes):
    if not (real_data / name).is_dir():
        pytest.skip(f"{name} is not in SCD_REAL_DATA")
    source = PathSource(real_data / name)
    assert source.name == name and source.mask_kind == mask_kind
    assert (source.class_names and len(source.class_names)) == classes
    images = load_images(source, "train", 32, limit=64)
    assert images.images.shape == (64, 3, 32, 32) and images.images.float().std() > 20
    assert (images.masks is not None) == (mask_kind is not None)
    if mask_kind:
        assert 0.02 < images.masks.float().mean() < 0.98
