"""Images of a folder that a configuration names beside the run's own, and knows by their content."""

from pathlib import Path

from scd.data.sources.source import Source, open_source
from scd.errors import DataError


def folder_source(path: str, fingerprint: str | None = None) -> Source:
    """A folder as an image source, for protocols that score on other images than a run was trained on.

    Args:
        path: holds train.parquet and test.parquet, or images, see :func:`scd.data.sources.source.open_source`; a relative one
            starts at the working directory. It is a part of the configuration, so of a run's identity.
        fingerprint: of the content that is expected; None takes any.

    Raises:
        DataError: no such folder, or its content is another.
    """
    if not Path(path).expanduser().is_dir():
        raise DataError(f"no such folder: '{path}'")
    source = open_source(path)
    if fingerprint is not None and source.fingerprint != fingerprint:
        raise DataError(f"'{path}' has changed since the run was planned; give the command again")
    return source
