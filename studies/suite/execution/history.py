"""Which files made a stored run stale: its code today beside its code at the commit of its record.

A record keeps the commit and whether the code had uncommitted changes, and no hash of a single file. The files are
therefore found by comparing the commit with the files on the disk. Comments and docstrings do not count, as in ids
(``planning/identity.py``). With uncommitted changes the commit is the code of the run only where it gives the run's id;
otherwise the answer says that other files may have changed.
"""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scd.errors import UsageError
from studies.suite.planning.identity import ROOT, canonical, fresh_fingerprint, reachable
from studies.suite.planning.staleness import module_file

COMMIT = re.compile("[0-9a-f]{7,64}")
SHOWN = 3  # files that a reason names
SECONDS = 60  # for one call of git


class History:
    """The code of earlier commits, each unpacked once; to be used in a ``with`` block.

    Args:
        base: a folder in a git checkout that holds the packages.
    """

    def __init__(self, base: Path = ROOT):
        self.base = base
        self.trees: dict[str, Path | None] = {}
        self.temporary = TemporaryDirectory(prefix="scd-history-")
        self.changed = lru_cache(maxsize=None)(self._changed)
        self.fingerprint = lru_cache(maxsize=None)(self._fingerprint)
        self.differs = lru_cache(maxsize=None)(self._differs)

    def __enter__(self) -> "History":
        return self

    def __exit__(self, *error: object) -> None:
        self.temporary.cleanup()

    def tree(self, commit: str) -> Path | None:
        """The Python files of a commit; None where the repository does not have it."""
        if commit not in self.trees:
            packed = (
                None
                if not COMMIT.fullmatch(commit)
                else _git(self.base, "archive", "--format=tar", commit, "--", "*.py")
            )
            self.trees[commit] = None if packed is None else self._unpacked(packed, commit)
        return self.trees[commit]

    def uncommitted(self) -> set[str]:
        """Python files that differ from the last commit, or are new."""
        said = _git(self.base, "status", "--porcelain", "-z", "--untracked-files=all", "--", ".")
        top = _git(self.base, "rev-parse", "--show-prefix")
        prefix = (top or b"").decode().strip()
        names = [entry[3:] for entry in (said or b"").decode(errors="replace").split("\0") if len(entry) > 3]
        return {name.removeprefix(prefix) for name in names if name.endswith(".py")}

    def gives(self, run: str, contents: Sequence[Any], roots: tuple[str, ...], commit: str) -> bool:
        """Whether the code of a commit gives a run its id.

        Args:
            contents: what the id covers beside the code, in its order (``planning/identity.py``).
            roots: the modules whose code it covers.
        """
        code = self.fingerprint(roots, commit)
        text = json.dumps([*map(canonical, contents), code], sort_keys=True, separators=(",", ":"))
        return code is not None and hashlib.sha256(text.encode()).hexdigest()[:16] == run

    def _changed(self, roots: tuple[str, ...], commit: str) -> tuple[str, ...]:
        """The files of the code that ``roots`` reach which differ from those of the commit, the changed ones first.

        A file that is reached on one side alone is named where it exists on that side alone: otherwise the import that
        reaches it is the change.
        """
        tree = self.tree(commit)
        now, then = self._reached(roots, self.base), self._reached(roots, tree)
        changed = [path for path in sorted(now & then) if self.differs(path, commit)]
        gone = [path for path in sorted(then - now) if not (self.base / path).exists()]
        new = [path for path in sorted(now - then) if not (tree / path).exists()]
        return (*changed, *gone, *new)

    def _fingerprint(self, roots: tuple[str, ...], commit: str) -> str | None:
        tree = self.tree(commit)
        try:
            return None if tree is None else fresh_fingerprint(roots, tree)
        except (UsageError, SyntaxError):
            return None

    def _differs(self, path: str, commit: str) -> bool:
        """Whether a file that exists on both sides has changed in more than comments, docstrings and layout."""
        old, new = (self.tree(commit) / path).read_bytes(), (self.base / path).read_bytes()
        if old == new:
            return False
        try:
            return _own_fingerprint(path, old) != _own_fingerprint(path, new)
        except SyntaxError:
            return True

    @staticmethod
    def _reached(roots: Sequence[str], base: Path) -> set[str]:
        there = [root for root in roots if module_file(root, base)]
        try:
            return {module_file(name, base) for name in reachable(there, base)}
        except SyntaxError:
            return {module_file(name, base) for name in there}

    def _unpacked(self, packed: bytes, commit: str) -> Path:
        folder = Path(self.temporary.name) / commit
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in archive.getmembers():
                if member.isfile():
                    path = folder / member.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.extractfile(member).read())
        return folder


def why_stale(
    history: History, run: str, contents: Sequence[Any], roots: tuple[str, ...], environment: Mapping[str, Any] | None
) -> tuple[tuple[str, ...], str]:
    """The files that made a run stale, and one phrase that says what is known.

    Args:
        contents, roots: as for :meth:`History.gives`.
        environment: that of its record; None for a run that has not finished.
    """
    git = (environment or {}).get("git") or {}
    commit, dirty = git.get("commit"), git.get("dirty")
    if not commit:
        missing = "it did not finish" if environment is None else "its record has no commit"
        return (), f"its code has changed; the file is not known, because {missing}"
    short = commit[:12]
    if history.tree(commit) is None:
        return (), f"its code has changed; the file is not known, because commit {short} is not in this repository"
    files = history.changed(roots, commit)
    exact = dirty is False or history.gives(run, contents, roots, commit)
    if not files:
        if exact:
            return (), f"no file of its code has changed since {short}: the rule of ids has"
        return (), f"its code had uncommitted changes on {short}, which no record keeps"
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    text = f"{', '.join(files[:SHOWN])}{more} changed since {short}"
    return files, text if exact else f"{text}; it had uncommitted changes, so other files may have changed, too"


def _own_fingerprint(path: str, content: bytes) -> str:
    """The fingerprint of one file alone, in a folder where it can import nothing."""
    with TemporaryDirectory() as name:
        file = Path(name) / path
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return fresh_fingerprint((module,), Path(name))


def _git(folder: Path, *words: str) -> bytes | None:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
