"""The cache of generated and decoded images and of annotations; several processes may use it at once."""

import hashlib
import json
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

    The folder appears only when it is complete: it is written under another name and then renamed. A lock lets one
    process fill it while the others wait for the result.

    Raises:
        UsageError: the cache cannot be written; the text says how to choose another folder.
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


def content_hash(content: object) -> str:
    """24 hexadecimal digits that identify a value: dicts, lists, text and numbers; anything else by its text."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:24]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, kept in the cache under the file's path, size and modification time."""
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:24]
    note = cache_dir() / "hashes" / f"{key}.json"
    if note.is_file():
        return json.loads(note.read_text())["sha256"]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    note.parent.mkdir(parents=True, exist_ok=True)
    unfinished = note.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(json.dumps({"path": str(path), "sha256": digest}))
    unfinished.replace(note)
    return digest
