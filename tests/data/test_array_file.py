"""Arrays written part by part; a full disk is an OSError."""

import os

import numpy as np
import pytest

from scd.data.array_file import ArrayFile


def test_parts_make_the_array(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (7, 3, 4)).astype(np.int16)
    with ArrayFile(tmp_path / "a.npy", np.int16, values.shape) as file:
        file.append(values[:2])
        file.append(values[2:2])
        file.append(values[2:].transpose(0, 2, 1).copy().transpose(0, 2, 1))  # not contiguous
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), values)
    assert np.load(tmp_path / "a.npy", mmap_mode="c").dtype == np.int16


def test_rows_that_are_missing_or_of_another_shape_are_noticed(tmp_path):
    with (
        pytest.raises(ValueError, match="1 rows were written"),
        ArrayFile(tmp_path / "a.npy", np.uint8, (2, 3)) as file,
    ):
        file.append(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="rows of"), ArrayFile(tmp_path / "a.npy", np.uint8, (2, 3)) as file:
        file.append(np.zeros((2, 4)))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_an_error_of_the_system(tmp_path):
    """F14: a mapped file ended the process with a bus error."""
    (tmp_path / "a.npy").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"), ArrayFile(tmp_path / "a.npy", np.uint8, (1, 1 << 20)) as file:
        file.append(np.zeros((1, 1 << 20), np.uint8))
