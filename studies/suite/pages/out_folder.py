"""The folder that pages are written to: whether it can be written, and the one-line error where it cannot."""

import tempfile
from pathlib import Path

from scd.atomic import DiskFull, disk_full, is_disk_full
from scd.errors import UsageError


def check_writable(folder: Path) -> None:
    """Make the folder of the pages before any run.

    Raises:
        UsageError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: OSError) -> UsageError:
    """The one-line error for a folder of pages that cannot be written to."""
    if is_disk_full(error):
        return DiskFull(disk_full(folder))
    reason = error.strerror or error
    return UsageError(f"pages cannot be written to '{folder}': {reason}; finished runs are kept; choose --out=FOLDER")
