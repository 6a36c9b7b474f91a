"""Atomic writing: a file is complete, or it does not exist; and the errors of a full disk."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from scd.errors import UsageError


class DiskFull(UsageError):
    """No space is left on the disk; finished files are kept."""


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


def write_text(path: Path, text: str) -> None:
    """Write to a file beside ``path``, flush it to the disk, rename it.

    Raises:
        DiskFull: no space is left (or the quota is used up); the file beside it is removed.
    """
    handle, name = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        if is_disk_full(error):
            raise DiskFull(disk_full(path.parent)) from error
        raise


def is_disk_full(error: BaseException | None) -> bool:
    """Whether this error, or the one it came from, says that no space is left."""
    while error is not None:
        if isinstance(error, DiskFull) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_full(where: Path) -> str:
    """The one-line message for a full disk."""
    return f"no space is left in '{where}': finished runs are kept; make room and give the same command again"
