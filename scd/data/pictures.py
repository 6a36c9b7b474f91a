"""Pictures of any size as a network sees them whole: where they are, how they are read, and what is done to their size.

Studies train and evaluate on central squares. Here nothing is cut off: the shorter side becomes the side that a network
was evaluated at, and the longer one keeps the aspect ratio, rounded to whole positions of the network's map. So the
corners of the map are those of the picture.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scd.data.decoding import picture, place
from scd.data.sources.folder_scan import scan
from scd.errors import DataError, UsageError
from scd.method import View, whole_view
from scd.nn.normalisation import normalise

LONGEST = 4.0  # longer over shorter side up to which a network sees a picture undistorted; it bounds time and memory


def find_pictures(path: Path, results: Path | None = None) -> tuple[list[Path], list[str]]:
    """The pictures that a path names, in the order of their paths, and notes on what else lies there.

    A file counts as a picture whatever its name. Of a folder and the folders in it, files count by the rules of
    :mod:`scd.data.sources.folder_scan`.

    Args:
        results: a folder that is not looked into, where it lies in the folder.

    Raises:
        UsageError: no such path, or a folder without pictures.
        DataError: a folder that cannot be read, or a link that leads nowhere.
    """
    if path.is_file():
        return [path], []
    if not path.is_dir():
        raise UsageError(f"there is no picture or folder '{path}'; give the path of a picture, or of a folder of them")
    inside = results is not None and results.is_dir() and path.resolve() in results.resolve().parents
    contents = scan(path, [results.resolve()] if inside else [])
    if not contents.images:
        count = len(contents.others)
        others = f"; it has {count} file{' of another kind' if count == 1 else 's of other kinds'}" if count else ""
        raise UsageError(f"the folder '{path}' has no pictures{others}; put .jpg, .png or .tif files into it")
    return contents.images, contents.notes(path)


def read_picture(path: Path) -> Image.Image:
    """The picture in a file, RGB and upright, by the rules of :mod:`scd.data.decoding`.

    Raises:
        DataError: no picture, or one whose values have no known range, by the name of the file.
    """
    cell = {"bytes": None, "path": str(path)}
    try:
        return picture(cell, 0, path.name)
    except DataError as error:
        raise DataError(f"'{path}': {str(error).removeprefix(f'{place(cell, 0, path.name)}: ')}") from error


@dataclass(frozen=True)
class Seen:
    """The size at which a network sees a picture.

    Args:
        width, height: in pixels.
        is_squeezed: whether the aspect ratio of the picture was given up.
    """

    width: int
    height: int
    is_squeezed: bool

    @property
    def words(self) -> str:
        """What was done to the picture, in a phrase."""
        kept = "aspect ratio not kept" if self.is_squeezed else f"shorter side {min(self.width, self.height)} px"
        return f"resized to {self.width} x {self.height} px ({kept}), not cropped"


def seen_size(size: tuple[int, int], side: int, step: int = 1, square: bool = False) -> Seen:
    """The size at which a network sees a picture whole.

    Args:
        size: width and height of the picture in pixels.
        side: what the shorter side becomes.
        step: the longer side becomes a multiple of it: the pixels of one position of the network's map.
        square: whether the network takes squares alone; the picture is squeezed into one then.
    """
    ratio = max(size) / min(size)
    if square:
        return Seen(side, side, is_squeezed=size[0] != size[1])
    longer = side if ratio == 1 else max(side, step * round(side * min(ratio, LONGEST) / step))
    width, height = (longer, side) if size[0] >= size[1] else (side, longer)
    return Seen(width, height, is_squeezed=ratio > LONGEST)


def whole_picture(image: Image.Image, seen: Seen) -> View:
    """The view (1, 3, h, w) of a whole picture: resized once (bilinear, antialiased) and normalised, not mirrored."""
    resized = image.resize((seen.width, seen.height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1)[None]
    return whole_view(normalise(pixels.to(torch.float32).div_(255)))


def canvas(image: Image.Image, side: int) -> torch.Tensor:
    """The whole picture squeezed into a square (1, 3, side, side) uint8, as annotators take images."""
    resized = image.resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1)[None].contiguous()
