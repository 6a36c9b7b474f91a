"""Data sets of the Hugging Face hub, with a message that says what to do where there is no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
from datasets import Dataset

from scd.data.cache import writable_folder
from scd.data.sources.columns import read_columns
from scd.data.sources.example import write_example_parquet
from scd.data.sources.quiet import errors_only
from scd.data.sources.source import Source, named_splits, split_of
from scd.errors import DataError


class Hub(Source):
    """A data set of the hub, downloaded once.

    Args:
        repo: OWNER/NAME, or a folder in the layout of the hub.
        config: name of the configuration, for a set that has several.
        revision: branch, tag or commit; None: the newest.
        columns, mask_kind, foreground: as of :class:`scd.data.sources.parquet.Parquet`.

    Raises:
        UsageError: an option with an impossible value.
        DataError: the hub cannot be reached and no copy is in the cache, no such data set, or a missing column.
    """

    def __init__(
        self,
        repo: str,
        config: str | None = None,
        revision: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        mask_kind: str | None = None,
        foreground: Sequence[int] | None = None,
    ):
        splits, others = download(repo, config, revision, writable_folder("hub"))
        named = {"repo": repo, "config": config, "revision": revision}
        contents = {split: {**named, "content": dataset._fingerprint} for split, dataset in splits.items()}
        read = read_columns(repo, splits, contents, columns, mask_kind, foreground)
        read["notes"] += [f"Splits of the hub that are not read: {', '.join(others)}."] if others else []
        super().__init__(**read, description=f"{repo} from the Hugging Face hub")

    @classmethod
    def example(cls, folder: Path) -> "Hub":
        write_example_parquet(folder)
        return cls(str(folder))


def download(repo: str, config: str | None, revision: str | None, cache: Path) -> tuple[dict[str, Dataset], list[str]]:
    """Splits of a hub data set, downloaded once into ``cache``, the training split first; and names of other splits.

    Where two names mean one split, the usual name is taken ("validation" before "val").

    Raises:
        DataError: the hub cannot be reached and no copy is in the cache, or it has no such data set; the text says
            where to put files and which option to use instead.
    """
    try:
        with errors_only("huggingface_hub"):  # one message instead of one for each attempt
            found = datasets.load_dataset(repo, config, revision=revision, cache_dir=str(cache))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"cannot get '{repo}' from the hub ({reason}); without a network, put train.parquet and test.parquet into "
            f"a folder and use data=FOLDER, or name the files: data=parquet data.locations.train=FILE "
            f"data.locations.test=FILE"
        ) from error
    usual = {split_of(name) for name in found if split_of(name) == name}
    taken = named_splits([name for name in found if split_of(name) == name or split_of(name) not in usual], repo)
    if not taken:
        raise DataError(f"'{repo}' has the splits {', '.join(found)}; none is named train, validation or test")
    others = [name for name in found if name not in taken.values()]
    return {split: found[name] for split, name in taken.items()}, others
