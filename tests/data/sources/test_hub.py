"""Sets of the hub: columns under our names, and a clear message without a network."""

import pytest

from scd.data.sources.hub import Hub
from scd.data.sources.parquet import Parquet
from scd.errors import DataError


def test_a_local_copy_opens_with_renamed_columns(tmp_path):
    Parquet.example(tmp_path)
    source = Hub(str(tmp_path), columns={"image": "image", "label": "label", "mask": None})
    assert list(source.splits) == ["train", "test"] and source.class_names == ("dark", "light")
    assert source.fingerprints["train"] != Hub(str(tmp_path), columns={"background": "label"}).fingerprints["train"]


def test_without_a_network_it_says_what_to_do():
    """HF_HUB_OFFLINE is set for all tests; the text names the files and the option that work instead."""
    with pytest.raises(DataError, match="cannot get 'nobody/nothing' from the hub") as caught:
        Hub("nobody/nothing")
    text = str(caught.value)
    assert "put train.parquet and test.parquet into a folder and use data=FOLDER" in text and "\n" not in text
