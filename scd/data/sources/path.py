"""A folder of the user's: parquet files or images, whichever it holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scd.data.sources.example import write_example_parquet
from scd.data.sources.image_folder import ImageFolder
from scd.data.sources.parquet import PART, Parquet, check_parts
from scd.data.sources.source import Source, named_splits, split_of
from scd.errors import DataError, UsageError


class PathSource(Source):
    """A folder with train.parquet and test.parquet (or validation.parquet), or with images.

    The parquet files may have the other usual names of a split, may be written in parts
    (train-00000-of-00002.parquet), and may lie in a folder called ``data``, as on the hub.

    A command line names it by ``data=FOLDER``. A protocol that scores on images of its own names the folder in its
    options, with the fingerprint of the content that was there when the study was planned.

    Args:
        path: the folder; a relative one starts at the working directory.
        fingerprint: of the expected content; None takes any content.
        columns, mask_kind, foreground: as of :class:`scd.data.sources.parquet.Parquet`; for parquet files only.
        test_fraction, left_out: as of :class:`scd.data.sources.image_folder.ImageFolder`; for images only.

    Raises:
        UsageError: an option that the kind of folder does not have, or one with an impossible value.
        DataError: no such folder, files that cannot be read, splits in two forms, or another content than expected.
    """

    def __init__(
        self,
        path: str | Path,
        fingerprint: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        mask_kind: str | None = None,
        foreground: Sequence[int] | None = None,
        test_fraction: float | None = None,
        left_out: Sequence[str | Path] = (),
    ):
        root = Path(path).expanduser()
        if root.suffix == ".parquet" and root.is_file():
            raise UsageError(
                f"'{path}' is one parquet file; give data=parquet data.locations.train={path} and a test file"
            )
        if root.is_file():
            raise DataError(f"'{path}' is a file; data=FOLDER takes a folder of images or of parquet files")
        if not root.is_dir():
            raise DataError(f"no such folder: '{path}'")
        files, notes = parquet_files(root)
        named = {"columns": _present(columns), "mask_kind": mask_kind, "foreground": foreground}
        if files:
            if test_fraction is not None:
                raise UsageError(f"test_fraction splits a folder of images, but '{path}' holds parquet files")
            found: Source = Parquet(**files, **named, name=root.resolve().name)
            data = root / "data"
            folders = sorted(path.name for path in root.iterdir() if path.is_dir() and split_of(path.name))
            if folders and len(files) == 1:
                raise DataError(
                    f"'{path}' holds parquet files of one split, {next(iter(files))}, and a folder '{folders[0]}'; "
                    "give all splits in one form"
                )
            is_read = any(path.is_relative_to(data) for paths in files.values() for path in paths)
            if not is_read and any(data.glob("*.parquet")):
                folders.append(data.name)
            notes += [f"Not read beside the parquet files: {', '.join(folders)}."] if folders else []
        else:
            for option, value in named.items():
                if value:
                    raise UsageError(f"{option} is an option of parquet files, but '{path}' holds none")
            found = ImageFolder(root, test_fraction, left_out)
        super().__init__(
            found.name,
            found.splits,
            found.fingerprints,
            class_names=found.class_names,
            background_names=found.background_names,
            mask_kind=found.mask_kind,
            foreground=found.foreground,
            description=found.description,
            notes=[*notes, *found.notes],
        )
        if fingerprint is not None and self.fingerprint != fingerprint:
            raise DataError(f"'{path}' has changed since the run was planned; give the command again")

    @classmethod
    def example(cls, folder: Path) -> "PathSource":
        write_example_parquet(folder)
        return cls(folder)


def parquet_files(root: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The parquet files of each split, and a note on those of no split; none where no file is named like a split.

    Raises:
        DataError: two names of one split, or a part of one that is missing.
    """
    for folder in (root, root / "data"):
        groups: dict[str, list[Path]] = {}
        for path in sorted(folder.glob("*.parquet")):
            if path.is_file() and not path.name.startswith("."):
                groups.setdefault(PART.sub("", path.stem), []).append(path)
        if names := named_splits(groups, str(folder)):
            others = sorted(name for name in groups if name not in names.values())
            notes = [f"Not read: parquet files of no split: {', '.join(others)}."] if others else []
            found = {split: groups[name] for split, name in names.items()}
            for split, files in found.items():
                check_parts(split, files)
            return found, notes
    return {}, []


def _present(columns: Mapping[str, str | None] | None) -> dict[str, str]:
    return {ours: theirs for ours, theirs in (columns or {}).items() if theirs is not None}
