"""Arrays that are larger than one wants to hold, written to a .npy file part by part."""

import os
from pathlib import Path
from types import TracebackType

import numpy as np


class ArrayFile:
    """A .npy file of a known shape, filled from the first row on; used in a ``with`` statement.

    The file is written and not mapped: on a full disk a mapped file ends the process with a bus error, a written one
    raises OSError.

    Args:
        path: of the new file.
        dtype, shape: of the whole array.

    Raises:
        OSError: the disk is full, or the file cannot be written.
        ValueError: at the end, if more or fewer rows were written than the shape says.
    """

    def __init__(self, path: Path, dtype: type, shape: tuple[int, ...]):
        self.dtype = np.dtype(dtype)
        self.shape = shape
        self.rows = 0
        self.file = path.open("wb")
        head = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(self.file, head)

    def append(self, rows: np.ndarray) -> None:
        """Write the next rows (n, ...)."""
        rows = np.ascontiguousarray(rows, self.dtype)
        if rows.shape[1:] != self.shape[1:]:
            raise ValueError(f"rows of {rows.shape[1:]} in an array of {self.shape}")
        self.file.write(rows.data.cast("B") if rows.size else b"")
        self.rows += len(rows)

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        try:
            if kind is None:
                self.file.flush()
                os.fsync(self.file.fileno())  # some file systems report a full disk only now
        finally:
            self.file.close()
        if kind is None and self.rows != self.shape[0]:
            raise ValueError(f"{self.rows} rows were written to an array of {self.shape}")
