"""Arrays as PNG files in the cells of an ``Image`` column."""

import io

import numpy as np
from PIL import Image


def encode_png(pixels: np.ndarray, compress_level: int = 1) -> dict:
    """Pixels (H, W) or (H, W, 3) as the value that an ``Image`` column of a data set takes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=compress_level)
    return {"bytes": file.getvalue(), "path": None}
