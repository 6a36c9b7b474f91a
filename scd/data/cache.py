"""The cache of generated and decoded images and of annotations; several processes may use it at once."""

import hashlib
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from scd.atomic import DiskFull, is_disk_full
from scd.errors import DataError, UsageError

CONTENTS = "contents.json"  # in a cached folder: its files and their sizes


def cache_dir() -> Path:
    """The cache folder: the environment variable SCD_CACHE, or ~/.cache/scd-suite. It may be deleted at any time.

    Raises:
        UsageError: neither is there.
    """
    named = os.environ.get("SCD_CACHE")
    if named:
        return Path(named)
    try:
        return Path.home() / ".cache" / "scd-suite"
    except RuntimeError as error:  # no HOME, and no entry in the password file
        raise UsageError("this user has no home folder for the cache; set SCD_CACHE to a folder") from error


def cached_folder(kind: str, key: str, fill: Callable[[Path], None]) -> Path:
    """The folder ``kind/key`` of the cache, filled by ``fill(temporary folder)`` if it does not exist.

    The folder appears only when it is complete: it is written under another name and then renamed. A list of its files
    and their sizes is written with them, and a folder that does not agree with its list is filled anew. A lock lets one
    process fill it while the others wait for the result.

    Raises:
        UsageError: the cache cannot be written; the text says how to choose another folder.
        DataError: ``fill`` could not read a file outside the cache.
    """
    folder = cache_dir() / kind / key
    if _complete(folder):
        return folder
    with cache_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _complete(folder):
                unfinished = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".tmp", dir=folder.parent))
                try:
                    fill(unfinished)
                    (unfinished / CONTENTS).write_text(json.dumps(_sizes(unfinished)), encoding="utf-8")
                    if folder.exists():
                        shutil.rmtree(folder)
                    unfinished.rename(folder)
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def cached_value(kind: str, key: str, compute: Callable[[], Any]) -> Any:
    """The JSON value that ``compute()`` returns, kept as ``kind/key.json`` in the cache.

    Raises:
        UsageError: the cache cannot be written.
    """
    note = cache_dir() / kind / f"{key}.json"
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or not complete
        value = compute()
    _write_note(note, value)
    return value


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError into one line that blames the cache or, for a file outside the cache, that file.

    Args:
        folder: of the cache.

    Raises:
        DiskFull: no space is left.
        UsageError: the cache cannot be written.
        DataError: a file outside the cache cannot be read.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        if is_disk_full(error):
            raise cache_full(folder) from error
        if error.errno is None:  # of a decoder, not of the operating system
            raise DataError(f"a file cannot be read: {why}") from error
        named = error.filename
        if isinstance(named, str | os.PathLike) and not _in_cache(Path(named)):
            raise DataError(f"cannot read '{named}': {why}") from error
        raise UsageError(f"cannot write the cache {folder}: {why}; set SCD_CACHE to another folder") from error


def cache_full(folder: Path) -> DiskFull:
    """The error for a cache without space."""
    return DiskFull(f"no space is left for the cache {folder}; make room, or set SCD_CACHE to another folder")


def writable_folder(kind: str) -> Path:
    """A folder of the cache for a library that writes there itself.

    Raises:
        UsageError: it cannot be written.
    """
    folder = cache_dir() / kind
    with cache_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    return folder


def content_hash(content: object) -> str:
    """24 hexadecimal digits that identify a value: dicts, lists, text and numbers; anything else by its text."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:24]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, see :func:`file_hashes`."""
    return file_hashes([path])[0]


def file_hashes(files: Sequence[Path]) -> list[str]:
    """SHA-256 of the content of each file.

    The cache keeps one note for each folder, with name, size, and times of modification and change of its files; a file
    is read again when one of them differs. (The time of change: archives unpack with the modification times of their
    making, so two files of equal size and time may differ.)

    Raises:
        UsageError: the cache cannot be written.
        DataError: a file that cannot be read.
    """
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        by_folder[file.parent].append(file)
    found: dict[Path, str] = {}
    for folder, members in by_folder.items():
        found |= _hashes_in(folder, members)
    return [found[file] for file in files]


def _hashes_in(folder: Path, files: Sequence[Path]) -> dict[Path, str]:
    where = str(folder.resolve())
    note = cache_dir() / "hashes" / f"{hashlib.sha256(where.encode()).hexdigest()[:24]}.json"
    known = _known(note)
    found, new = {}, False
    for file in files:
        with cache_errors(note.parent):
            stat = file.stat()
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        entry = known.get(file.name)
        if entry is None or entry[:3] != state:
            with cache_errors(note.parent), file.open("rb") as opened:
                known[file.name] = entry = [*state, hashlib.file_digest(opened, "sha256").hexdigest()]
            new = True
        found[file] = entry[3]
    if new:
        _write_note(note, {"folder": where, "files": known})
    return found


def _known(note: Path) -> dict[str, list]:
    """The files of a note; none of one that is missing or damaged."""
    try:
        files = json.loads(note.read_text(encoding="utf-8"))["files"]
        return {name: entry for name, entry in files.items() if len(entry) == 4}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_note(note: Path, value: object) -> None:
    """A note of the cache: complete, or not there."""
    with cache_errors(note.parent):
        note.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(prefix=note.stem, suffix=".tmp", dir=note.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(value, file)
            os.replace(unfinished, note)
        finally:
            Path(unfinished).unlink(missing_ok=True)


def _complete(folder: Path) -> bool:
    """Whether a cached folder holds the files of its list, each of its size."""
    try:
        listed = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in listed.items())
    except (OSError, ValueError, AttributeError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CONTENTS
    }


def _in_cache(path: Path) -> bool:
    """Whether a path lies in the cache or is a folder above it, which could not be made."""
    path, cache = path.absolute(), cache_dir().absolute()
    return path.is_relative_to(cache) or cache.is_relative_to(path)
