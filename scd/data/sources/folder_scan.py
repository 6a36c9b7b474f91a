"""What lies in a folder: images, and what is no image, each in the order of its path.

Rules: symbolic links are followed, and one that leads nowhere is an error. Names that begin with a dot, and folders
that systems make (``__MACOSX``, ``@eaDir``), are not looked into. A file is an image by the ending of its name, in any
capitals, if Pillow can read that format. Of a file with several pages or frames, the first is read. Nothing is skipped
without being counted.
"""

import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from scd.errors import DataError, UsageError

SYSTEM_FOLDERS = ("__MACOSX", "@eaDir")
NOT_READ_BY_PILLOW = (
    "BUFR",
    "EPS",
    "GRIB",
    "HDF5",
    "MPEG",
    "WMF",
)  # formats that it only recognises
WITH_PAGES = (".tif", ".tiff", ".gif", ".apng", ".webp")  # endings of files that may hold several pages or frames
EXAMPLES = 3  # names in a note


@dataclass
class Contents:
    """What was found below a folder.

    Attributes:
        images: their paths.
        others: files that are no images.
        hidden: names that are not looked into.
        empty: folders without an image in them or below them.
        left_out: folders that were excluded.
    """

    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)

    def notes(self, root: Path) -> list[str]:
        """What is not read, one sentence for each kind."""
        kinds = f": {endings(self.others)}" if self.others else ""
        groups = {
            "Files that are no images, not read": (self.others, kinds),
            "Hidden names and folders of the system, not read": (self.hidden, ""),
            "Folders without images": (self.empty, ""),
            "Folders left out": (self.left_out, ""),
        }
        return [
            f"{what} ({len(paths)}{more}): {first_names(paths, root)}."
            for what, (paths, more) in groups.items()
            if paths
        ]


@cache
def image_endings() -> frozenset[str]:
    """Endings, in small letters, of the files that Pillow can decode."""
    endings = Image.registered_extensions()  # loads the formats
    return frozenset(end for end, kind in endings.items() if kind in Image.OPEN and kind not in NOT_READ_BY_PILLOW)


def scan(folder: Path, left_out: Collection[str | Path] = ()) -> Contents:
    """Everything below a folder.

    Args:
        left_out: folders that are not looked into, see :func:`folders_left_out`.

    Raises:
        UsageError: one of them is no folder below ``folder``.
        DataError: a folder that cannot be read, a link that leads nowhere, or a name that is not UTF-8.
    """
    contents = Contents()
    _scan(folder, folders_left_out(folder, left_out), (), contents)
    return contents


def folders_left_out(folder: Path, names: Collection[str | Path]) -> set[Path]:
    """Real paths of the folders that are not looked into.

    Args:
        names: a relative path starts at ``folder`` or, where that is no folder below it, at the working directory. An
            absolute path below ``folder`` may be missing: results may be written there later.

    Raises:
        UsageError: a name of no folder below ``folder``.
    """
    found = set()
    for name in names:
        given = Path(name).expanduser()
        places = [path for path in (folder / given, given) if _is_below(folder, path)]
        existing = [path for path in places if path.is_dir()]
        later = [path for path in places if given.is_absolute() and not path.exists()]
        if not existing and not later:
            raise UsageError(f"left_out: '{name}' is no folder of '{folder}'; give one by its path below it")
        found.add((existing or later)[0].resolve())
    return found


def _is_below(folder: Path, path: Path) -> bool:
    """Whether a path lies in a folder, by its name or after links are followed."""
    pairs = [(Path(os.path.abspath(folder)), Path(os.path.abspath(path))), (folder.resolve(), path.resolve())]
    return any(inner != outer and inner.is_relative_to(outer) for outer, inner in pairs)


def _scan(folder: Path, left_out: Collection[Path], above: tuple[Path, ...], contents: Contents) -> None:
    real, before = folder.resolve(), len(contents.images)
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"'{folder}' cannot be read: {error.strerror or error}") from error
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS:
            contents.hidden.append(path)
        elif entry.is_dir():
            inner = path.resolve() if left_out or entry.is_symlink() else path
            if inner in left_out:
                contents.left_out.append(path)
            elif inner not in (*above, real):  # a link to a folder that it lies in
                _require_utf8(folder, entry.name)
                _scan(path, left_out, (*above, real), contents)
        elif entry.is_symlink() and not entry.is_file():
            raise DataError(f"'{path}' is a link to '{os.readlink(path)}', which does not exist; remove or mend it")
        elif path.suffix.lower() in image_endings() and entry.is_file():
            _require_utf8(folder, entry.name)
            contents.images.append(path)
        else:
            contents.others.append(path)
    if above and len(contents.images) == before:
        contents.empty.append(folder)


def _require_utf8(folder: Path, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"'{folder}' holds the name {os.fsencode(name)!r}, which is not UTF-8; rename it") from error


def with_several_pages(files: Iterable[Path]) -> list[Path]:
    """The files with more than one page (TIFF) or frame (GIF, APNG, WebP); headers alone are read."""
    return [file for file in files if file.suffix.lower() in WITH_PAGES and _has_several_pages(file)]


def _has_several_pages(file: Path) -> bool:
    """False for a file that cannot be read as an image; it is named where the images are decoded."""
    try:
        with file.open("rb") as stream:
            head = stream.read(21)
            if head[8:12] == b"WEBP":  # Pillow reads the whole file to say so
                return head[12:16] == b"VP8X" and bool(head[20] & 2)  # the flag of an animation
            stream.seek(0)
            with warnings.catch_warnings(), Image.open(stream) as image:
                warnings.simplefilter("ignore")
                return bool(getattr(image, "is_animated", False))
    except Exception:  # Pillow raises errors of many kinds for broken files
        return False


def endings(paths: Sequence[Path]) -> str:
    """How many files have each ending: "12 .txt, 1 .csv"."""
    counts = Counter(path.suffix.lower() or "no ending" for path in paths)
    return ", ".join(f"{count} {printable(ending)}" for ending, count in counts.most_common(EXAMPLES))


def first_names(paths: Sequence[Path], root: Path) -> str:
    """The first names, below ``root``: "'a.txt', 'b/c.txt', ..."."""
    names = [f"'{printable(path.relative_to(root).as_posix())}'" for path in paths[:EXAMPLES]]
    return ", ".join([*names, *(["..."] if len(paths) > EXAMPLES else [])])


def printable(text: str) -> str:
    """Text in one line of UTF-8."""
    return " ".join(text.encode(errors="backslashreplace").decode().splitlines())
