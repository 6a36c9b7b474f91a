"""Images of other domains than photographs of objects, for the embedded generator ``web``: pages, static and blocks."""

from collections.abc import Callable

import numpy as np

from scd.data.sources.drawing import as_column, pixel_grid, smooth_field

DOMAINS = ("page", "static", "blocks")  # lines of writing, coloured noise, flat rectangles as of a screen
LINES, BLOCKS = 6, 7  # of writing on a page at most; rectangles


def paint_foreign(rng: Callable[..., np.random.Generator], count: int, size: int) -> np.ndarray:
    """Images (count, size, size, 3) float32, about in [0, 1], of the domains in turn.

    Args:
        rng: a generator of random numbers for a name.
    """
    images = np.empty((count, size, size, 3), np.float32)
    for number, (name, paint) in enumerate(zip(DOMAINS, (_page, _static, _blocks), strict=True)):
        rows = np.arange(number, count, len(DOMAINS))
        if len(rows):
            images[rows] = paint(rng(name), len(rows), size)
    return images


def _page(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Dark words in lines on bright paper."""
    x, y = pixel_grid(size)
    paper = rng.uniform(0.8, 1.0, (n, 1, 1, 3)).astype(np.float32)
    ink = rng.uniform(0.0, 0.3, (n, 1, 1, 3)).astype(np.float32)
    lines = rng.uniform(0.6, 1.0, n) * LINES
    row = y * as_column(lines) + as_column(rng.random(n))
    word = x * as_column(rng.uniform(2, 5, n)) + as_column(rng.random(n)) + 0.37 * np.floor(row)
    written = ((row % 1) < 0.4) & ((word % 1) < 0.75)  # (N, S, S)
    return np.where(written[..., None], ink, paper)


def _static(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Fine noise of three channels around a colour."""
    channels = [smooth_field(rng, n, size, low=5.0, high=0.4 * size) for _ in range(3)]
    colour = rng.uniform(0.3, 0.7, (n, 1, 1, 3)).astype(np.float32)
    return colour + np.float32(0.15) * np.stack(channels, axis=3)


def _blocks(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Flat rectangles of any colours, later ones over earlier ones."""
    x, y = pixel_grid(size)
    images = np.broadcast_to(rng.random((n, 1, 1, 3)), (n, size, size, 3)).astype(np.float32)
    for _ in range(BLOCKS):
        left, top, right, bottom = np.concatenate([rng.uniform(-0.1, 0.7, (2, n)), rng.uniform(0.3, 1.1, (2, n))])
        inside = (x >= as_column(left)) & (x < as_column(right)) & (y >= as_column(top)) & (y < as_column(bottom))
        colour = rng.random((n, 1, 1, 3)).astype(np.float32)
        images = np.where(inside[..., None], colour, images)
    return images
