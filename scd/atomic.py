"""Atomic writing: a file is complete, or it does not exist."""

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it; a partial file is removed.

    Args:
        path: where the file appears once it is complete; an older file of that name is replaced.
        write: called with the path of the temporary file. Its exceptions are passed on.
    """
    unfinished = path.with_name(f".writing-{path.name}")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
