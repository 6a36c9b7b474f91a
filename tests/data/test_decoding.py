"""Cells as upright pictures of 8 bits a channel: orientation, deep and odd modes, what cannot be read."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from scd.data.decoding import ORIENTATION, SIDEWAYS, as_rgb, picture, stored_size, upright, upright_size
from scd.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)


def stored(image: Image.Image, kind: str = "PNG", **options) -> dict:
    """The image as a cell with bytes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return {"bytes": file.getvalue(), "path": None}


def turned(orientation: int, pixels: np.ndarray = PIXELS) -> dict:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return stored(Image.fromarray(pixels), exif=exif)


def opened(cell: dict) -> np.ndarray:
    return np.asarray(picture(cell, 3, "mine"))


# ---------------------------------------------------------------- orientation


@pytest.mark.parametrize("orientation", range(10))
def test_pictures_are_turned_as_their_orientation_says(orientation):
    """F8: the photograph lay on its side. Pillow's own function is the reference; 0 and 9 mean nothing."""
    cell = turned(orientation)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(cell["bytes"])))
    np.testing.assert_array_equal(opened(cell), np.asarray(expected))


def test_damaged_exif_leaves_the_picture_as_it_is():
    cell = stored(Image.fromarray(PIXELS), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    np.testing.assert_array_equal(opened(cell), PIXELS)


def test_the_format_is_kept():
    cell = stored(Image.fromarray(PIXELS), "JPEG", exif=_exif(6))
    assert upright(Image.open(io.BytesIO(cell["bytes"]))).format == "JPEG"


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_sizes_are_those_of_the_upright_picture(tmp_path, orientation):
    file = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).save(file, exif=_exif(orientation))
    assert stored_size(file) == ((16, 8), orientation)
    shown = (8, 16) if orientation in SIDEWAYS else (16, 8)
    assert upright_size(file, None) == upright_size(file, shown) == shown
    with pytest.raises(DataError, match=r"'.*a.jpg' is .*, its annotations are for a picture of 16x9"):
        upright_size(file, (16, 9))


def test_annotations_of_the_stored_picture_are_refused(tmp_path):
    """Label Studio writes the stored size and coordinates of the upright picture, kwcoco both of the stored one."""
    file = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).save(file, exif=_exif(8))
    with pytest.raises(DataError, match=r"'.*a.jpg' is stored as 16x8 and turned to 8x16 by its EXIF orientation"):
        upright_size(file, (16, 8))


# ---------------------------------------------------------------- modes


def test_16_bits_are_scaled_from_their_range():
    """F7: Pillow's own conversion clips every value above 255 to white."""
    values = np.arange(128, dtype=np.uint16).reshape(8, 16) * 516
    for kind in ("PNG", "TIFF"):
        grey = opened(stored(Image.fromarray(values), kind))
        assert (grey[..., 0] == np.round(values / 257)).all() and (grey[..., 0] == grey[..., 2]).all()
    assert opened(stored(Image.fromarray(np.zeros((8, 16), np.uint16)))).max() == 0


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (Image.fromarray(np.full((4, 4), 40_000, np.int32)), "32-bit integers, whose range is not known"),
        (Image.fromarray(np.full((4, 4), 0.5, np.float32)), "floats, whose range is not known"),
        (Image.fromarray(np.full((4, 4), 200, np.uint16)), "16-bit values that end at 200 of 65535; scale them"),
        (Image.fromarray(np.full((4, 4), 4095, np.uint16)), "16-bit values that end at 4095 of 65535; scale them"),
    ],
)
def test_values_of_an_unknown_range_are_refused_by_file(image, text):
    cell = {**stored(image, "TIFF"), "path": "a.tif"}
    with pytest.raises(DataError, match=rf"'mine' row 3 \(a.tif\): the image .*{text}"):
        picture(cell, 3, "mine")


def stored_with_16_bits(values: np.ndarray, colour: int) -> dict:
    """A PNG file (H, W, channels) of 16 bits a channel, which Pillow does not write; ``colour`` is PNG's type."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks.items()]
    return {"bytes": b"\x89PNG\r\n\x1a\n" + b"".join(parts), "path": "a.png"}


COLOUR_TYPES = {"RGB": (2, 3), "RGBA": (6, 4), "LA": (4, 2)}  # type of PNG and number of channels


@pytest.mark.parametrize("kind", COLOUR_TYPES)
@pytest.mark.parametrize("highest", [255, 1023, 4095])
def test_16_bits_in_colour_follow_the_rule_of_grey_ones(kind, highest):
    """Values of 8, 10 or 12 bits in a file of 16 bits a channel became all but black pictures."""
    colour, channels = COLOUR_TYPES[kind]
    values = np.full((4, 4, channels), highest, np.uint16)
    if "A" in kind:
        values[..., -1] = 65535
    text = rf"row 3 \(a.png\): the image has 16-bit values that end below {highest + 1} of 65535; scale them"
    with pytest.raises(DataError, match=text):
        opened(stored_with_16_bits(values, colour))
    values[..., 0] = 40_000
    assert opened(stored_with_16_bits(values, colour))[0, 0, 0] == 156


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [
        (np.full((3, 8, 8), 40_000, np.uint16), {"photometric": "rgb", "planarconfig": "separate"}, "channel by chan"),
        (np.full((8, 8), 40_000, np.uint16), {"photometric": "miniswhite"}, "of which 0 is white"),
        (np.full((8, 8), -3, np.int8), {}, "with a sign, whose range is not known"),
    ],
)
def test_tiff_files_that_pillow_decodes_to_other_values_are_refused(values, options, text):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    with pytest.raises(DataError, match=rf"row 3: the image cannot be decoded \(.*bits.*{text}"):
        opened({"bytes": file.getvalue(), "path": None})


def test_other_modes_become_rgb():
    """1 bit, palette with transparency, grey with alpha, CMYK, an animation's first frame, one pixel, thin strips."""
    bits = np.arange(128).reshape(8, 16) % 3 == 0
    assert (opened(stored(Image.fromarray(bits)))[..., 1] == 255 * bits).all()
    palette = Image.fromarray(PIXELS).quantize(8)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(opened(stored(palette, transparency=bytes([0, 128, 255]))), expected)
    grey = Image.merge("LA", [Image.fromarray(PIXELS[..., k]) for k in range(2)])
    assert (opened(stored(grey))[..., 2] == PIXELS[..., 0]).all()
    cmyk = opened(stored(Image.fromarray(PIXELS).convert("CMYK"), "TIFF"))
    assert np.abs(cmyk.astype(int) - PIXELS).max() <= 2
    frames = [Image.fromarray(np.full((8, 16, 3), level, np.uint8)) for level in (10, 200)]
    for kind in ("GIF", "WEBP", "PNG", "MPO"):
        first = opened(stored(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert np.abs(first.astype(int) - 10).max() <= 3
    for shape in ((1, 1, 3), (1, 5000, 3), (5000, 1, 3)):
        assert opened(stored(Image.fromarray(np.zeros(shape, np.uint8)))).shape == shape


# ---------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize("cell", [None, {"bytes": None, "path": None}, {"bytes": None, "path": ""}])
def test_an_empty_cell_says_so(cell):
    """F25: an AttributeError."""
    with pytest.raises(DataError, match="'mine' row 3: no image"):
        picture(cell, 3, "mine")


def test_broken_files_are_named():
    progressive = stored(Image.fromarray(np.tile(PIXELS, (20, 20, 1))), "JPEG", progressive=True)["bytes"]
    for data, text in (
        (b"", "not an image"),
        (b"text", "not an image"),
        (progressive[: len(progressive) // 2], "truncated"),
    ):
        with pytest.raises(DataError, match=rf"'mine' row 3 \(a.jpg\): the image cannot be decoded \(.*{text}"):
            picture({"bytes": data, "path": "a.jpg"}, 3, "mine")


def test_pictures_beyond_pillows_limit_are_named(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(DataError, match="the image cannot be decoded .*exceeds limit of 100 pixels"):
        opened(stored(Image.fromarray(PIXELS)))


def test_a_conversion_that_fails_is_named():
    with pytest.raises(DataError, match=r"row 3: the image \(La\) cannot be converted to RGB"):
        as_rgb(Image.new("La", (4, 4)), "row 3: the image")
