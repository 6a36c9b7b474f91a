"""Where generated and decoded images are kept between runs, and how two processes share the place."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from scd.errors import UsageError


def cache_dir() -> Path:
    """The cache folder: the environment variable SCD_CACHE, or ~/.cache/scd-suite. It may be deleted at any time."""
    return Path(os.environ.get("SCD_CACHE") or Path.home() / ".cache" / "scd-suite")


def cached_folder(kind: str, key: str, fill: Callable[[Path], None]) -> Path:
    """The folder ``kind/key`` of the cache, filled by ``fill(temporary folder)`` if it does not exist.

    It appears under its name only when complete (written beside it, then renamed), and a lock lets one process fill it
    while others wait for the result.

    Raises:
        UsageError: the cache cannot be written; the text says how to choose another place.
    """
    folder = cache_dir() / kind / key
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                unfinished = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".tmp", dir=folder.parent))
                try:
                    fill(unfinished)
                    unfinished.rename(folder)
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or error
        text = f"cannot write the cache {folder.parent}: {reason}; set SCD_CACHE to another folder"
        raise UsageError(text) from error
    return folder
