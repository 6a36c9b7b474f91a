"""Palettes of masks: an id has one colour in all of them, or an image tool has renumbered the ids."""

import io

import numpy as np
import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from scd.data.sources.palettes import check_palettes, used_colours
from scd.errors import DataError

BLACK, RED, GREEN = [0, 0, 0], [255, 0, 0], [0, 255, 0]


def mask(values, *colours) -> Image.Image:
    picture = Image.fromarray(np.uint8(values), "P")
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


def masks(*pictures) -> Dataset:
    cells = []
    for picture in pictures:
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        cells.append({"bytes": stream.getvalue(), "path": None})
    return Dataset.from_dict({"mask": cells}, features=Features(mask=ImageFeature()))


def check(**splits) -> None:
    check_palettes("mine", splits, {split: dataset._fingerprint for split, dataset in splits.items()})


def test_colours_of_the_ids_that_are_shown():
    assert used_colours(mask([[0, 2]], BLACK, RED, GREEN)) == {0: BLACK, 2: GREEN}
    assert used_colours(Image.fromarray(np.uint8([[0, 2]]))) == {}
    assert used_colours(mask([[0, 1]], BLACK, BLACK)) == {}  # such a palette says nothing


def test_a_palette_that_was_renumbered_is_named():
    """The class 2 became 1 in the second file, and counted as the class 1."""
    original, optimised = mask([[0, 1, 2]], BLACK, RED, GREEN), mask([[0, 1]], BLACK, GREEN)
    check(train=masks(original, mask([[0, 2]], BLACK, RED, GREEN)))
    for splits in ({"train": masks(original, optimised)}, {"train": masks(original), "test": masks(optimised)}):
        with pytest.raises(DataError, match=r"gives the id 1 the colour \[255, 0, 0\], .* the colour \[0, 255, 0\]"):
            check(**splits)


def test_unused_colours_may_differ():
    check(train=masks(mask([[0, 1]], BLACK, RED, GREEN), mask([[0, 1]], BLACK, RED)))
