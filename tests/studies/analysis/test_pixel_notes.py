"""What is noted of pixels: sets that are dark, images of one colour or with transparent parts, and odd sizes."""

import io
import re

import numpy as np
import pytest
from datasets import Dataset, Image
from PIL import Image as PillowImage

from scd.data.sources.columns import read_columns
from scd.data.sources.source import Source
from scd.errors import DataError
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.image_notes import notes_on_images
from studies.suite.analysis.pixel_notes import alpha_of, notes_on_pixels

SPLITS = ("train", "test")


def stored(image: PillowImage.Image, kind: str = "png", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(seed: int, height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def photo(seed: int, height: int = 8, width: int = 8) -> bytes:
    return stored(PillowImage.fromarray(noise(seed, height, width)))


def data(train: list[bytes], test: list[bytes], canvas: int = 8, **limits) -> EvaluationData:
    splits = {
        split: Dataset.from_dict({"image": cells}).cast_column("image", Image())
        for split, cells in zip(SPLITS, (train, test), strict=True)
    }
    source = Source(**read_columns("mine", splits, {split: [split] for split in splits}))
    return EvaluationData(source, canvas, **limits)


def photos(count: int = 3) -> list[bytes]:
    return [photo(100 + number) for number in range(count)]


def deep(highest: int, marked: int = 0) -> bytes:
    """A picture of 16-bit grey values from 0 to ``highest``; so many pixels have the largest value, as for no value."""
    values = np.linspace(0, highest, 1024).astype(np.uint16)
    values[:marked] = 65535
    return stored(PillowImage.fromarray(values.reshape(32, 32)))


DARK = (
    "The {} images are dark: {}. Values are read as they stand, those of 16 bits from their whole range (65535); if "
    "your images use a part of it, scale them."
)


@pytest.mark.parametrize(
    ("highest", "marked", "shown"),
    [
        (10_000, 0, "no pixel of the 3 that were looked at is above 39 of 255"),
        (16_383, 0, "no pixel of the 3 that were looked at is above 64 of 255"),
        (40_000, 0, None),
        (5_000, 3, "99% of the values of the 3 that were looked at are at most 19 of 255"),
        (5_000, 30, None),  # a fiftieth of the pixels
    ],
)
def test_values_that_use_a_part_of_their_range_are_noted(highest, marked, shown):
    """Three pixels at the end of the range, as where there is no value, hid that the others were all but black."""
    found = notes_on_pixels(data([deep(highest, marked)] * 3, [deep(highest, marked)] * 3))
    assert found == ([DARK.format(words, shown) for words in ("training", "test")] if shown else [])


def test_a_dark_image_among_others_is_not_noted():
    dark = [stored(PillowImage.fromarray(noise(1) // 9))]
    assert notes_on_pixels(data(dark + photos(5), photos())) == []


def icon(seed: int) -> bytes:
    """One colour everywhere; what is shown lies in the transparency."""
    alpha = np.zeros((8, 8, 1), np.uint8)
    alpha[2:6, 3:7] = 255
    return stored(PillowImage.fromarray(np.concatenate([np.full((8, 8, 3), 130 + seed, np.uint8), alpha], axis=2)))


def test_icons_whose_shape_lies_in_their_transparency_are_refused():
    """Every image became one colour without a word."""
    text = (
        "'mine' train: 3 of the 4 training images that were looked at have one colour alone, and what they show lies "
        "in their transparency, which is not read; paste them on a background and save them without transparency"
    )
    with pytest.raises(DataError, match=re.escape(text)):
        notes_on_images(data([icon(1), icon(2), icon(3), photo(4)], photos()))


def cut_out(seed: int) -> PillowImage.Image:
    image = PillowImage.fromarray(noise(seed))
    image.putalpha(PillowImage.fromarray(np.triu(np.full((8, 8), 255, np.uint8))))
    return image


def transparent_colour(seed: int) -> PillowImage.Image:
    image = PillowImage.fromarray(noise(seed)).quantize(16)
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize("draw", [cut_out, transparent_colour, lambda seed: cut_out(seed).convert("LA")])
def test_transparent_parts_are_noted(draw):
    note = (
        "Images with transparent parts, whose transparency is ignored, so that the colours below it are shown: 2 of "
        "the 3 training images that were looked at."
    )
    assert notes_on_pixels(data([stored(draw(1)), stored(draw(2)), photo(3)], photos())) == [note]


def test_an_opaque_image_has_no_transparent_parts():
    opaque = PillowImage.fromarray(noise(1, channels=4)[..., :3]).convert("RGBA")
    assert alpha_of(opaque) == (255, 255) == alpha_of(PillowImage.fromarray(noise(1)))
    assert notes_on_pixels(data([stored(opaque)] * 3, photos())) == []


def plain(value: int) -> bytes:
    return stored(PillowImage.new("RGB", (8, 8), (value, 200, 200)))


@pytest.mark.parametrize(("count", "noted"), [(2, True), (1, False)])
def test_images_of_one_colour_are_noted(count, noted):
    train = [plain(number) for number in range(count)] + photos(15)
    note = f"Images of one colour alone: {count} of the {count + 15} training images that were looked at."
    assert notes_on_pixels(data(train, photos())) == ([note] if noted else [])


def test_images_that_hardly_fit_the_canvas_are_noted():
    """A picture of two pixels was enlarged, and a strip of two rows cut to a square, without a word."""
    odd = [photo(1, 1, 2), photo(2, 4, 21), photo(3, 4, 20), photo(4, 50, 9)]
    assert notes_on_pixels(data(odd, photos(), canvas=8)) == [
        "Images that are enlarged more than 2 times, to the canvas of 8 px: 1 of the 4 training images that were "
        "looked at; the smallest has 2x1 px.",
        "Long images, of which the central square keeps less than 20%: 2 of the 4 training images that were looked at.",
    ]


def test_at_most_64_images_within_the_limits_are_looked_at():
    train = photos(100) + [plain(9)] * 50
    assert notes_on_pixels(data(train, photos(), train_limit=100)) == []
    (note,) = notes_on_pixels(data(train, photos()))
    assert note.endswith("of the 64 training images that were looked at.")


def test_a_broken_image_is_named():
    with pytest.raises(DataError, match="'mine' row 1: the image cannot be decoded"):
        notes_on_pixels(data([photo(1), b"broken"], photos()))
