"""Run lengths against masks, and counts that do not cover their image."""

import numpy as np
import pytest

from scd.data.sources.run_lengths import decode_run_lengths


def counts_of(mask: np.ndarray) -> list[int]:
    flat = mask.ravel(order="F").astype(np.int8)
    changes = np.flatnonzero(np.diff(flat, prepend=0, append=2))
    return np.diff(changes, prepend=0).tolist()


def compressed(counts: list[int]) -> str:
    """COCO's text, written a second time from the description of the format."""
    text = ""
    for k, count in enumerate(counts):
        value = count - counts[k - 2] if k > 2 else count
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(bits + (32 if more else 0) + 48)
    return text


@pytest.mark.parametrize("seed", range(20))
def test_masks_come_back(seed):
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 80, 2).tolist()
    mask = random.random((height, width)) < (0, 1, 0.02, 0.5)[seed % 4]
    counts = counts_of(mask)
    for given in (counts, [float(count) for count in counts], compressed(counts), compressed(counts).encode()):
        decoded = decode_run_lengths({"size": [height, width], "counts": given}, height, width)
        np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([2, 3], "cover 5 pixels, the image has 6"),
        ([2, 5], "cover 7 pixels, the image has 6"),
        ([], "cover 0 pixels"),
        ("", "cover 0 pixels"),
        (compressed([2, 3]), "cover 5 pixels"),
        (compressed([2, 4]) + "P", "damaged"),
        ("P" * 13 + "0", "damaged"),
        ("é", "damaged"),
        ([8, -2], "negative or no whole number"),
        (compressed([8, 3, 1, -6]), "negative or no whole number"),
        ([2.5, 3.5], "negative or no whole number"),
        (["2", "4"], "no list of numbers"),
        ([[2, 4]], "no list of numbers"),
        (None, "no list of numbers"),
    ],
)
def test_counts_are_checked_first(counts, text):
    """F17: a mask shorter than its image was filled up with uninitialised memory."""
    with pytest.raises(ValueError, match=text):
        decode_run_lengths({"size": [2, 3], "counts": counts}, 2, 3)


def test_the_size_is_checked():
    with pytest.raises(ValueError, match=r"its size is \[3, 2\], the image's \[2, 3\]"):
        decode_run_lengths({"size": [3, 2], "counts": [6]}, 2, 3)
