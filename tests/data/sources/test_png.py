"""Arrays survive as PNG."""

import io

import numpy as np
import pytest
from PIL import Image

from scd.data.sources.png import encode_png


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_pixels_are_kept(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    cell = encode_png(pixels)
    assert cell["path"] is None
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(cell["bytes"]))), pixels)
