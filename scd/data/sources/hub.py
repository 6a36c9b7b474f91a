"""Data sets of the Hugging Face hub, and a clear word when there is no network."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
from datasets import Dataset

from scd.data.sources.files import SPLIT_FOLDERS
from scd.errors import DataError


def load_hub(repo: str, config: str | None, revision: str | None, cache: Path) -> dict[str, Dataset]:
    """Splits of a hub data set, downloaded once into ``cache``.

    Raises:
        DataError: the hub cannot be reached and no copy is in the cache, or it has no such data set; the text says
            what to put where and which option then to use.
    """
    try:
        with errors_only("huggingface_hub"):  # it would tell of each of its tries; ours is the one word
            found = datasets.load_dataset(repo, config, revision=revision, cache_dir=str(cache))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"cannot get '{repo}' from the hub ({reason}); without a network, put train.parquet and test.parquet into "
            f"a folder and use data=FOLDER, or name the files with the source parquet (train=FILE test=FILE)"
        ) from error
    splits = {SPLIT_FOLDERS[name]: split for name, split in found.items() if name in SPLIT_FOLDERS}
    if not splits:
        raise DataError(f"'{repo}' has the splits {', '.join(found)}; none is named train, validation or test")
    return splits


@contextmanager
def errors_only(name: str) -> Iterator[None]:
    """The named logger's warnings are not shown meanwhile."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
