"""The contract of an image source.

Each format is a subclass in a file of this folder, with its options and locations as constructor arguments. A
configuration names the class; there is no other way to open images.

Masks that come with the data are for scoring. A method gets them from the oracle annotator only
(:mod:`scd.data.annotators.oracle`), and is then declared as supervised by an oracle.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import datasets
from datasets import Dataset

from scd.data.cache import cached_folder, content_hash
from scd.data.sources.quiet import without_progress_bars
from scd.errors import DataError, unknown

SPELLINGS = {  # split -> usual names of its folder or file, in any capitals
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "val", "valid", "dev"),
}


class Source:
    """Images with what is known about them, as one Hugging Face data set per split.

    The columns of a split: ``image`` and, where known, ``label``, ``mask``, ``objects``, ``background``.

    Args:
        name: for reports.
        splits: name of the split ("train", "validation" or "test") -> data set. A split "probe" holds images from which
            probes learn in the place of the training images.
        fingerprints: name of the split -> hash of its content and of the options that change it. The fingerprint of
            the training split depends on no other split.
        version: of a generator; default: the first digits of the fingerprint.
        class_names, background_names: names of the integer labels, where known.
        mask_kind: None, or one of :data:`scd.data.masks.KINDS`.
        foreground: for "classes", the ids that are foreground; None: every id above 0.
        description: one line for reports.
        notes: what was found and is not used, one sentence each; pages print them.

    Attributes:
        embedded: True for a generator of this suite: its images follow from its options and its code.
        test_options: constructor arguments that change the test split and no other.
    """

    embedded: ClassVar[bool] = False
    test_options: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Dataset],
        fingerprints: Mapping[str, str],
        *,
        version: str | None = None,
        class_names: Sequence[str] | None = None,
        background_names: Sequence[str] | None = None,
        mask_kind: str | None = None,
        foreground: Sequence[int] | None = None,
        description: str = "",
        notes: Sequence[str] = (),
    ):
        self.name = name
        self.splits = dict(splits)
        self.fingerprints = dict(fingerprints)
        self.version = self.fingerprint[:8] if version is None else version
        self.class_names = None if class_names is None else tuple(class_names)
        self.background_names = None if background_names is None else tuple(background_names)
        self.mask_kind = mask_kind
        self.foreground = None if foreground is None else tuple(foreground)
        self.description = description
        self.notes = tuple(notes)

    @classmethod
    def example(cls, folder: Path) -> "Source":
        """A tiny set of this format, written into ``folder`` where the format needs files; for tests.

        It has a split "train" of at least 8 images and a split "test" of at least 4.
        """
        raise TypeError(f"{cls.__name__} has no example of its format; the contract test needs one")

    @classmethod
    def check_options(cls, **options: Any) -> None:  # noqa: B027 (generators implement it)
        """Find impossible options of a generator; nothing is drawn. Files are checked when they are opened.

        Raises:
            UsageError: an impossible value.
        """

    @property
    def fingerprint(self) -> str:
        """Hash of all splits."""
        return content_hash(self.fingerprints)

    @property
    def labelled(self) -> bool:
        """Whether each training image has a label; ``class_names`` may be those of objects, or of another split."""
        return "train" in self.splits and "label" in self.splits["train"].column_names

    def split(self, name: str) -> Dataset:
        """One split. Raises UsageError for a split that does not exist."""
        if name not in self.splits:
            raise unknown(f"split of '{self.name}'", name, self.splits)
        return self.splits[name]


def split_of(name: str) -> str | None:
    """The split that a folder, file or hub split of this name holds, by its usual spellings; None for other names."""
    return next((split for split, names in SPELLINGS.items() if name.casefold() in names), None)


def named_splits(names: Iterable[str], where: str) -> dict[str, str]:
    """Split -> the name that stands for it, for those names that mean a split; the training split first.

    Raises:
        DataError: two names of one split.
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        split = split_of(name)
        if split is None:
            continue
        if split in found:
            raise DataError(f"'{where}' has two names of the {split} split, '{found[split]}' and '{name}'; keep one")
        found[split] = name
    return {split: found[split] for split in SPELLINGS if split in found}


def cached_dataset(kind: str, key: str, make: Callable[[], Dataset]) -> Dataset:
    """The data set that ``make()`` returns, kept as ``kind/key`` in the cache."""

    def fill(folder: Path) -> None:
        with without_progress_bars():
            make().save_to_disk(folder)

    return datasets.load_from_disk(cached_folder(kind, key, fill))
