"""Cells and files of images as pictures: upright, 8 bits a channel; what cannot be read is named by row and file.

Rules, for every format:

* A picture is turned upright as its EXIF orientation says. Masks, boxes and polygons belong to the upright picture; a
  mask that has an orientation of its own is turned by it. Annotations whose size is that of the stored, unturned
  picture are refused, because tools differ in what they mean by it; where the size cannot tell (a square picture, a
  half turn, a mirror image), they count as drawn on the upright one.
* 16-bit values are scaled from their whole range: 65535 becomes 255. A picture, grey or in colour, whose values all lie
  in the lowest 16th of it holds 8, 10 or 12 bits and is refused. 32-bit integers and floats have no known range and are
  refused.
* Of an animation the first frame counts. Transparency and colour profiles are ignored.
"""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from scd.errors import DataError

ORIENTATION = 0x0112  # tag of EXIF
BITS, PHOTOMETRIC, PLANES, SAMPLE_FORMAT = 258, 262, 284, 339  # tags of TIFF
SIGNED = 2  # of SAMPLE_FORMAT
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")  # modes of 16-bit grey values
NOT_USED = 4095  # a 16-bit picture whose values end here holds 8, 10 or 12 bits, and would be all but black
TO_WHOLE_RANGE = "scale them to the whole range, or save it with 8 bits"
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # of Pillow, for a broken file
BAD_EXIF = (OSError, SyntaxError, ValueError, KeyError, TypeError, OverflowError, ZeroDivisionError, struct.error)


def picture(cell: dict | None, row: int, source: str) -> Image.Image:
    """The RGB picture of a cell ``{bytes, path}`` of a column of images, upright.

    Raises:
        DataError: no image, or one that cannot be decoded, by source, row and file.
    """
    return as_rgb(upright(open_cell(cell, "image", row, source)), f"{place(cell, row, source)}: the image")


def open_cell(cell: dict | None, column: str, row: int, source: str) -> Image.Image:
    """The image of one cell of an undecoded column, as it is stored.

    Raises:
        DataError: no image, or one that cannot be decoded, by source, row and file.
    """
    if cell is None or (cell.get("bytes") is None and not cell.get("path")):
        raise DataError(f"'{source}' row {row}: no {column}")
    try:
        image = Image.open(io.BytesIO(cell["bytes"]) if cell.get("bytes") is not None else cell["path"])
        deep = is_deep_colour(image)
        require_known_tiff(image)
        image.load()
    except UNREADABLE as error:
        why = "an array of NumPy; save it as PNG" if is_array(cell) else reason(error)
        raise DataError(f"{place(cell, row, source)}: the {column} cannot be decoded ({why})") from error
    if deep:
        require_high_bytes(image, f"{place(cell, row, source)}: the {column}")
    return image


def is_array(cell: dict) -> bool:
    """Whether a cell that is no image holds or names a file of NumPy."""
    stored, path = cell.get("bytes") or b"", str(cell.get("path") or "")
    return stored[:6] == b"\x93NUMPY" or (not stored and path.endswith((".npy", ".npz")))


def is_deep_colour(image: Image.Image) -> bool:
    """Whether an opened file, of which no pixel is read yet, has 16 bits for each of several channels."""
    return len(image.getbands()) > 1 and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def require_known_tiff(image: Image.Image) -> None:
    """Raise ValueError for a TIFF file that Pillow decodes without an error, but to other values."""
    if image.format != "TIFF":
        return
    bits = max(image.tag_v2.get(BITS, (1,)))
    if bits == 8 and SIGNED in image.tag_v2.get(SAMPLE_FORMAT, ()):
        raise ValueError("8 bits with a sign, whose range is not known; save it with values from 0 to 255")
    if bits != 16:
        return
    if image.tag_v2.get(PLANES) == 2 and len(image.getbands()) > 1:
        raise ValueError("16 bits a channel, stored channel by channel; store them pixel by pixel")
    if image.tag_v2.get(PHOTOMETRIC) == 0:
        raise ValueError("16 bits, of which 0 is white; save it with 0 as black")


def require_high_bytes(image: Image.Image, what: str) -> None:
    """The rule of :func:`scaled` for a picture of 16 bits a channel in colour.

    NOTE: Pillow keeps the high byte of each value, so a black picture cannot be told from one of 8-bit values; both are
    refused.

    Raises:
        DataError: values that end at 4095; ``what`` names the picture.
    """
    highest = max(image.getchannel(band).getextrema()[1] for band in image.getbands() if band != "A")
    if highest <= NOT_USED >> 8:
        raise DataError(f"{what} has 16-bit values that end below {(highest + 1) << 8} of 65535; {TO_WHOLE_RANGE}")


def place(cell: dict, row: int, source: str) -> str:
    """Source, row and file of a cell, for messages."""
    return f"'{source}' row {row}" + (f" ({cell['path']})" if cell.get("path") else "")


def reason(error: Exception) -> str:
    """Why a file cannot be decoded; Pillow names the memory's address of bytes, which helps nobody."""
    return "not an image, or of an unknown format" if isinstance(error, UnidentifiedImageError) else str(error)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a picture, 1 (as stored) where there is none or it cannot be read."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except BAD_EXIF:
        return 1
    return value if value in TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    turn = orientation(image)
    if turn == 1:
        return image
    turned = image.transpose(TURNS[turn])
    turned.format = image.format
    return turned


def as_rgb(image: Image.Image, what: str) -> Image.Image:
    """The picture with 8 bits for each of three channels.

    Raises:
        DataError: values whose range is not known; ``what`` names the picture.
    """
    if image.mode in DEEP:
        image = scaled(image, what)
    elif image.mode in ("I", "F"):
        held = "32-bit integers" if image.mode == "I" else "floats"
        raise DataError(f"{what} holds {held}, whose range is not known; save it with 8 or 16 bits")
    try:
        return image.convert("RGB")
    except UNREADABLE as error:
        raise DataError(f"{what} ({image.mode}) cannot be converted to RGB ({error})") from error


def scaled(image: Image.Image, what: str) -> Image.Image:
    """16-bit grey values as 8-bit ones: 65535 becomes 255."""
    values = np.asarray(image).astype(np.uint32)
    if 0 < values.max() <= NOT_USED:
        raise DataError(f"{what} has 16-bit values that end at {values.max()} of 65535; {TO_WHOLE_RANGE}")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def stored_size(path: Path) -> tuple[tuple[int, int], int]:
    """Width and height of an image file as it is stored, and its EXIF orientation; only the head of the file is read.

    Raises:
        DataError: a file that is not an image, by name.
    """
    try:
        with Image.open(path) as image:
            return image.size, orientation(image)
    except UNREADABLE as error:
        raise DataError(f"'{path}' cannot be decoded ({reason(error)})") from error


def upright_size(path: Path, annotated: tuple[int, int] | None) -> tuple[int, int]:
    """Width and height of the upright picture in a file.

    Args:
        annotated: width and height that the annotations give for it, where they give them.

    Raises:
        DataError: a file that is not an image, or annotations of a picture of another size, by name.
    """
    size, turn = stored_size(path)
    shown = size[::-1] if turn in SIDEWAYS else size
    if annotated is None or annotated == shown:
        return shown
    given, is_ = "{}x{}".format(*annotated), "{}x{}".format(*shown)
    if annotated == size:
        raise DataError(
            f"'{path}' is stored as {given} and turned to {is_} by its EXIF orientation, and its annotations are for "
            f"{given}; turn the stored picture upright, or annotate the upright one"
        )
    raise DataError(f"'{path}' is {is_}, its annotations are for a picture of {given}")
