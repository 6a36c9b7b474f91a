"""Masks of a set: an id has one colour in all palettes, and what counts for nothing is counted."""

import io
import zlib

import numpy as np
import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from scd.data.decoding import ORIENTATION
from scd.data.sources.mask_checks import check_masks, used_colours
from scd.errors import DataError

BLACK, RED, GREEN = [0, 0, 0], [255, 0, 0], [0, 255, 0]


def mask(values, *colours) -> Image.Image:
    if not colours:
        return Image.fromarray(np.uint8(values))
    picture = Image.fromarray(np.uint8(values), "P")
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


def cell(picture: Image.Image, **options) -> dict:
    stream = io.BytesIO()
    picture.save(stream, "PNG", **options)
    return {"bytes": stream.getvalue(), "path": None}


def masks(*pictures, turned: bool = False) -> Dataset:
    exif = Image.Exif()
    exif[ORIENTATION] = 6 if turned else 1
    images = [cell(Image.new("RGB", picture.size), exif=exif) for picture in pictures]
    columns = {"image": images, "mask": [cell(picture) for picture in pictures]}
    return Dataset.from_dict(columns, features=Features(image=ImageFeature(), mask=ImageFeature()))


def check(kind="classes", is_given=False, **splits) -> list[str]:
    return check_masks("mine", splits, {name: rows._fingerprint for name, rows in splits.items()}, kind, is_given)


def test_colours_of_the_ids_that_are_shown():
    assert used_colours(mask([[0, 2]], BLACK, RED, GREEN)) == {0: BLACK, 2: GREEN}
    assert used_colours(mask([[0, 2]])) == {}
    assert used_colours(mask([[0, 1]], BLACK, BLACK)) == {}  # such a palette says nothing


def test_a_palette_that_was_renumbered_is_named():
    """The class 2 became 1 in the second file, and counted as the class 1."""
    original, optimised = mask([[0, 1, 2]], BLACK, RED, GREEN), mask([[0, 1]], BLACK, GREEN)
    assert check(train=masks(original, mask([[0, 2]], BLACK, RED, GREEN))) == []
    for splits in ({"train": masks(original, optimised)}, {"train": masks(original), "test": masks(optimised)}):
        with pytest.raises(DataError, match=r"gives the id 1 the colour \[255, 0, 0\], .* the colour \[0, 255, 0\]"):
            check(**splits)
        assert check(is_given=True, **splits) == []


def test_unused_colours_may_differ():
    assert check(train=masks(mask([[0, 1]], BLACK, RED, GREEN), mask([[0, 1]], BLACK, RED))) == []


def test_unknown_ids_of_masks_whose_kind_is_given():
    """255 counted for nothing without a word, where the kind was not found but given."""
    assert check(is_given=True, train=masks(mask([[0, 1, 255]]))) == [
        "Mask pixels of the value 255 are unknown and count for nothing."
    ]


def test_masks_that_end_below_the_threshold():
    """Masks of 0 and 100 among those of 0 and 255 became empty."""
    found = check("binary", True, train=masks(mask([[0, 255]]), mask([[0, 100]]), mask([[0, 0]])))
    assert found == ["Masks with values above 0, but none above 127, which show no object: 1."]


@pytest.mark.parametrize(("third", "count"), [(128, 1), (0, 0)])
def test_a_third_level_of_jpeg_masks(third, count):
    """Unknown pixels of trimaps that were saved as JPEG counted as object or background without a word."""
    levels = np.zeros((64, 64), np.uint8)
    levels[:, 20:], levels[:, 20:30] = 255, third
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "JPEG", quality=90)
    columns = {"image": [cell(Image.new("RGB", (64, 64)))], "mask": [{"bytes": stream.getvalue(), "path": None}]}
    rows = Dataset.from_dict(columns, features=Features(image=ImageFeature(), mask=ImageFeature()))
    found = check("binary", train=rows)
    assert len(found) == count and all(
        "of the pixels of JPEG masks are near the grey level 128" in one for one in found
    )


def test_ids_that_would_be_multiplied():
    """Pillow reads the class 1 of a grey PNG of 4 bits as 17."""
    header = b"\x00\x00\x00\x0dIHDR" + (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([4, 0, 0, 0, 0])
    pixels = zlib.compress(b"\x00\x01")  # one row without a filter: the ids 0 and 1
    chunks = [header, len(pixels).to_bytes(4, "big") + b"IDAT" + pixels, b"\x00\x00\x00\x00IEND"]
    stored = b"\x89PNG\r\n\x1a\n" + b"".join(c + zlib.crc32(c[4:]).to_bytes(4, "big") for c in chunks)
    columns = {"image": [cell(Image.new("RGB", (2, 1)))], "mask": [{"bytes": stored, "path": None}]}
    rows = Dataset.from_dict(columns, features=Features(image=ImageFeature(), mask=ImageFeature()))
    text = "'mine' row 0: the mask is a grey PNG of 4 bits a pixel, whose ids would be read 17 times as large"
    with pytest.raises(DataError, match=text):
        check(train=rows)


def test_images_with_an_orientation():
    assert check("binary", train=masks(mask([[0, 255]]), turned=True)) == [
        "Images with an EXIF orientation, whose masks count as drawn on the upright picture: 1."
    ]
