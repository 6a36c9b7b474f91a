"""The base class: defaults, the fingerprint of all splits, and data sets in the cache."""

import pytest
from datasets import Dataset

from scd.data.sources.source import Source, cached_dataset, named_splits, split_of
from scd.errors import DataError, UsageError


def test_the_fingerprint_covers_every_split():
    rows = Dataset.from_dict({"image": [1]})
    source = Source("mine", {"train": rows, "test": rows}, {"train": "a", "test": "b"})
    assert source.version == source.fingerprint[:8] and source.class_names is source.mask_kind is None
    for fingerprints in ({"train": "c", "test": "b"}, {"train": "a", "test": "c"}, {"train": "a"}):
        assert Source("mine", {"train": rows}, fingerprints).fingerprint != source.fingerprint
    assert Source("other", {}, {"test": "b", "train": "a"}).fingerprint == source.fingerprint
    assert not Source.embedded and Source.test_options == ()


def test_options_become_tuples():
    source = Source("mine", {}, {}, class_names=["a"], background_names=["b"], foreground=[1, 2], version="7")
    assert (source.class_names, source.background_names, source.foreground) == (("a",), ("b",), (1, 2))
    assert source.version == "7"


def test_an_unknown_split_says_which_there_are():
    with pytest.raises(UsageError, match="unknown split of 'mine' 'tran'; did you mean 'train'. valid: train"):
        Source("mine", {"train": Dataset.from_dict({"image": [1]})}, {"train": "a"}).split("tran")


def test_a_data_set_is_made_once(monkeypatch, tmp_path):
    monkeypatch.setenv("SCD_CACHE", str(tmp_path))
    made = []

    def make():
        made.append(1)
        return Dataset.from_dict({"number": [3, 4]})

    for _ in range(2):
        assert cached_dataset("kind", "key", make)["number"][:] == [3, 4]
    assert made == [1] and (tmp_path / "kind" / "key").is_dir()


def test_splits_are_known_by_their_usual_names():
    names = ["Testing", "cat", "dev", "TRAIN", "validate"]
    assert named_splits(names, "set") == {"train": "TRAIN", "test": "Testing", "validation": "dev"}
    assert list(named_splits(["val", "train"], "set")) == ["train", "validation"]
    assert [split_of(name) for name in ("eval", "Valid", "trainset", "")] == ["test", "validation", None, None]
    with pytest.raises(DataError, match="'set' has two names of the train split, 'Train' and 'training'; keep one"):
        named_splits(["training", "Train"], "set")


def test_labelled_is_said_of_the_training_images():
    labelled, bare = Dataset.from_dict({"image": [1], "label": [0]}), Dataset.from_dict({"image": [1]})
    assert Source("mine", {"train": labelled, "test": bare}, {}).labelled
    assert not Source("mine", {"train": bare, "test": labelled}, {}, class_names=["a"]).labelled
