"""A folder of the user's: parquet files or images, whichever it holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scd.data.sources.example import write_example_parquet
from scd.data.sources.image_folder import ImageFolder
from scd.data.sources.parquet import Parquet
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError

SPLITS = ("train", "validation", "test")


class PathSource(Source):
    """A folder with train.parquet and test.parquet (or validation.parquet), or with images.

    A command line names it by ``data=FOLDER``. A protocol that scores on images of its own names the folder in its
    options, with the fingerprint of the content that was there when the study was planned.

    Args:
        path: the folder; a relative one starts at the working directory.
        fingerprint: of the expected content; None takes any content.
        columns, mask_kind, foreground: as of :class:`scd.data.sources.parquet.Parquet`; for parquet files only.
        test_fraction: as of :class:`scd.data.sources.image_folder.ImageFolder`; for images only.

    Raises:
        UsageError: an option that the kind of folder does not have, or one with an impossible value.
        DataError: no such folder, files that cannot be read, or another content than expected.
    """

    def __init__(
        self,
        path: str | Path,
        fingerprint: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        mask_kind: str | None = None,
        foreground: Sequence[int] | None = None,
        test_fraction: float | None = None,
    ):
        root = Path(path).expanduser()
        if root.suffix == ".parquet" and root.is_file():
            raise UsageError(
                f"'{path}' is one parquet file; give data=parquet data.locations.train={path} and a test file"
            )
        if not root.is_dir():
            raise DataError(f"no such folder: '{path}'")
        files = {split: root / f"{split}.parquet" for split in SPLITS if (root / f"{split}.parquet").is_file()}
        named = {"columns": _present(columns), "mask_kind": mask_kind, "foreground": foreground}
        if files:
            if test_fraction is not None:
                raise UsageError(f"test_fraction splits a folder of images, but '{path}' holds parquet files")
            found: Source = Parquet(**files, **named, name=root.resolve().name)
        else:
            for option, value in named.items():
                if value:
                    raise UsageError(f"{option} is an option of parquet files, but '{path}' holds none")
            found = ImageFolder(root, test_fraction)
        super().__init__(
            found.name,
            found.splits,
            found.fingerprints,
            class_names=found.class_names,
            background_names=found.background_names,
            mask_kind=found.mask_kind,
            foreground=found.foreground,
            description=found.description,
            notes=found.notes,
        )
        if fingerprint is not None and self.fingerprint != fingerprint:
            raise DataError(f"'{path}' has changed since the run was planned; give the command again")

    @classmethod
    def example(cls, folder: Path) -> "PathSource":
        write_example_parquet(folder)
        return cls(folder)


def _present(columns: Mapping[str, str | None] | None) -> dict[str, str]:
    return {ours: theirs for ours, theirs in (columns or {}).items() if theirs is not None}
