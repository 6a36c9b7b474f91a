"""COCO's run-length masks, checked before they are drawn.

A mask is read column by column: the counts are the lengths of runs of 0, 1, 0, ... The compressed form writes each
count with 5 bits a character from "0" on, the lowest bits first, bit 6 for "more follows"; from the fourth count on it
writes the difference from the count before the last. Format: COCO's mask API (maskApi.c), T.-Y. Lin and P. Dollar.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np


def decode_run_lengths(shape: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """The mask (H, W) bool of ``{"size": [H, W], "counts": a list of numbers or text}``.

    Raises:
        ValueError: another size than the image's, or counts that do not cover it exactly; the text says which.
    """
    if "size" not in shape or "counts" not in shape:
        raise ValueError("run lengths need size and counts")
    if not isinstance(shape["size"], list | tuple) or list(shape["size"]) != [height, width]:
        raise ValueError(f"its size is {shape['size']}, the image's {[height, width]}")
    counts = shape["counts"]
    counts = _uncompressed(counts) if isinstance(counts, str | bytes) else np.asarray(counts)
    if counts.ndim != 1 or (len(counts) and counts.dtype.kind not in "iuf"):
        raise ValueError("its run lengths are no list of numbers")
    if not np.isfinite(counts).all() or (counts < 0).any() or (counts != np.floor(counts)).any():
        raise ValueError("a run length is negative or no whole number")
    covered = int(counts.sum())
    if covered != height * width:
        raise ValueError(f"its run lengths cover {covered} pixels, the image has {height * width}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts.astype(np.int64)).reshape(width, height).T


def _uncompressed(text: str | bytes) -> np.ndarray:
    """The counts (n,) int64 of the compressed form. Raises ValueError for text that is none."""
    data = text.encode("utf-8") if isinstance(text, str) else text
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if ((codes < 0) | (codes > 63)).any() or (len(codes) and codes[-1] & 32):
        raise ValueError("its compressed run lengths are damaged")
    if not len(codes):
        return codes
    ends = np.flatnonzero(codes & 32 == 0)  # last character of each count
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 12:  # 60 bits
        raise ValueError("its compressed run lengths are damaged")
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    counts = np.add.reduceat((codes & 31) << (5 * places), starts)
    negative = codes[ends] & 16 > 0
    counts[negative] -= 1 << (5 * lengths[negative])
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return counts
