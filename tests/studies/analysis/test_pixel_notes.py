"""What is noted of pixels: sets that are dark, images of one colour or with transparent parts, and odd sizes."""

import io
import re
import struct

import numpy as np
import pytest
from datasets import Dataset, Image
from PIL import Image as PillowImage
from PIL import ImageCms

from scd.data.sources.columns import read_columns
from scd.data.sources.image_folder import ImageFolder
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


def frames(kind: str, seed: int) -> bytes:
    """A file of two pages or frames."""
    first, second = (PillowImage.fromarray(noise(seed + one)) for one in (0, 50))
    return stored(first, kind, save_all=True, append_images=[second])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_further_frames_in_parquet_files_are_noted(kind):
    """Files of a folder say so by their names; those of a column of bytes, and .png files, said nothing."""
    cells = [frames(kind, number) for number in range(3)]
    assert "Files with several pages or frames, of which the first is read: 3 of the 3 training images that were " in (
        " ".join(notes_on_pixels(data(cells, photos())))
    )


def test_a_preview_inside_a_photograph_is_no_frame():
    assert notes_on_pixels(data([frames("MPO", number) for number in range(3)], photos())) == []


def test_frames_that_the_source_has_counted_are_noted_once(tmp_path):
    for split in SPLITS:
        for number in range(4):
            (tmp_path / split).mkdir(exist_ok=True)
            first = 100 * (split == "test")
            (tmp_path / split / f"{number}.gif").write_bytes(frames("GIF", first + number))
    notes = notes_on_images(EvaluationData(ImageFolder(tmp_path), 8))
    assert [note for note in notes if "several pages" in note] == [
        "Files with several pages or frames, of which the first is read: 8."
    ]


def bands(count: int, seed: int) -> bytes:
    """A TIFF file of so many channels of 8 bits."""
    pixels = noise(seed, channels=count).tobytes()
    depths, more = struct.pack(f"<{count}H", *[8] * count), struct.pack("<2H", 0, 0)
    place = 8 + len(pixels)
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, count, place), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8)]
    tags += [(277, 3, 1, count), (278, 4, 1, 8), (279, 4, 1, len(pixels)), (338, 3, count - 3, 0)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return struct.pack("<2sHI", b"II", 42, place + len(depths) + len(more)) + pixels + depths + more + directory


@pytest.mark.parametrize("count", [4, 5])
def test_further_channels_are_noted(count):
    """The fourth channel of a satellite's picture is near infrared; nothing said that it is not read."""
    notes = notes_on_pixels(data([bands(count, number) for number in range(3)], photos()))
    assert notes == ["Images with more channels than are read: 3 of the 3 training images that were looked at."]


def profile(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def test_colour_profiles_are_noted():
    """The identity profile of LAB stands for any other one than sRGB, of which Pillow can make no file."""
    image = PillowImage.fromarray(noise(1))
    other, usual = (stored(image, icc_profile=profile(name)) for name in ("LAB", "sRGB"))
    (note,) = notes_on_pixels(data([other, usual, photo(3)], photos()))
    assert note == (
        "Images with another colour profile than sRGB (such as 'Lab identity built-in'), which is ignored, so that "
        "their colours are shifted: 1 of the 3 training images that were looked at."
    )
    assert notes_on_pixels(data([stored(image, icc_profile=b"broken"), usual], photos())) == []


def test_the_colours_of_print_are_noted():
    (note,) = notes_on_pixels(data(photos(), [stored(PillowImage.fromarray(noise(1)).convert("CMYK"), "jpeg")]))
    assert note.startswith("Images in the colours of print (CMYK), which are converted without their colour profile: 1")


def test_the_second_channel_of_lab_is_no_transparency():
    """A note spoke of transparent parts."""
    between = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    lab = ImageCms.applyTransform(PillowImage.fromarray(noise(1)), ImageCms.buildTransform(*between, "RGB", "LAB"))
    assert lab.mode == "LAB" and alpha_of(lab) == (255, 255)
    assert notes_on_pixels(data([stored(lab, "tiff")] * 2, photos())) == []


def fits(bits: int) -> bytes:
    """Values from 0 to 63 in a file of astronomy; those of 16 bits have a sign, and 32768 is added to them."""
    values = np.arange(64).reshape(8, 8)
    stored_ = values.astype(np.uint8) if bits == 8 else (values * 1024 - 32768).astype(">i2")
    cards = [("SIMPLE", "T"), ("BITPIX", bits), ("NAXIS", 2), ("NAXIS1", 8), ("NAXIS2", 8)]
    cards += [("BZERO", 32768)] if bits == 16 else []
    head = "".join(f"{name:8}= {value:>20}".ljust(80) for name, value in cards) + "END".ljust(80)
    return head.ljust(2880).encode() + stored_.tobytes().ljust(2880, b"\0")


def test_files_of_astronomy_with_a_zero_of_their_own_are_refused():
    """Dark values were read as bright ones, and bright ones as dark ones."""
    with pytest.raises(DataError, match="'mine' row 0: the image is a FITS file of more than 8 bits, whose zero"):
        notes_on_pixels(data([fits(16)] * 2, photos()))
    note = notes_on_pixels(data([fits(8)] * 2, photos()))[0]
    assert note == DARK.format("training", "no pixel of the 2 that were looked at is above 63 of 255")


def test_damaged_photographs_are_noted():
    """A decoder fills what is missing of a JPEG with one colour, and raises no error."""
    rich = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = stored(PillowImage.fromarray(rich), "jpeg", quality=90)
    damaged = whole[: len(whole) // 2] + b"\xff\xd9"
    (note,) = notes_on_pixels(data([damaged, whole, whole], photos()))
    assert note == (
        "JPEG images whose lower part has one colour alone, as where the data of a file are damaged: 1 of the 3 "
        "training images that were looked at."
    )
    for value in (255, 0):  # on a white or black ground
        rich[40:] = value
        assert notes_on_pixels(data([stored(PillowImage.fromarray(rich), "jpeg")] * 2, photos())) == []


GREY_TEST = (
    "3 of the 3 test images that were looked at are grey, and 0 of the 3 training images: the splits were prepared "
    "differently."
)


def as_grey(number: int, mode: str) -> bytes:
    return stored(PillowImage.fromarray(noise(number)).convert("L").convert(mode))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_splits_of_which_one_is_grey_are_noted(mode):
    """Grey images that were stored in colour passed for colour."""
    grey = [as_grey(number, mode) for number in range(3)]
    assert notes_on_pixels(data(photos(), grey)) == [GREY_TEST]
    assert notes_on_pixels(data(grey, grey)) == [] == notes_on_pixels(data([*photos(), grey[0]], grey))
    nearly = noise(7, 32, 32)[..., :1].repeat(3, axis=2)
    nearly[0, 0] = (100, 102, 101)
    assert notes_on_pixels(data(photos(), [stored(PillowImage.fromarray(nearly))] * 3)) == [GREY_TEST]
    nearly[0, 0] = (100, 103, 101)
    assert notes_on_pixels(data(photos(), [stored(PillowImage.fromarray(nearly))] * 3)) == []


def barred(number: int, side: int = 0, other: int = 114) -> bytes:
    """Noise between two bars, above and below or on both sides, each of an eighth of the picture."""
    pixels = noise(number, 32, 32)
    pixels[:4], pixels[-4:] = 114, other
    return stored(PillowImage.fromarray(pixels.swapaxes(0, side)))


def test_splits_of_which_one_has_bars_are_noted():
    """A test set that was padded to squares with grey, and a training set that was not."""
    note = (
        "3 of the 3 {} images that were looked at have bars of one colour at two opposite ends, as letterboxes do, and "
        "0 of the 3 {} images: the splits were prepared differently."
    )
    for side in (0, 1):
        bars = [barred(number, side) for number in range(3)]
        assert notes_on_pixels(data(photos(), bars)) == [note.format("test", "training")]
        assert notes_on_pixels(data(bars, photos())) == [note.format("training", "test")]
        assert notes_on_pixels(data(bars, bars)) == []
    assert notes_on_pixels(data(photos(), [barred(number, other=140) for number in range(3)])) == []
    one_end = noise(5, 32, 32)
    one_end[:6] = 114
    assert notes_on_pixels(data(photos(), [stored(PillowImage.fromarray(one_end))] * 3)) == []


def lit(seed: int, low: int, high: int) -> bytes:
    """An image of values between two levels."""
    return stored(PillowImage.fromarray(np.random.default_rng(seed).integers(low, high, (8, 8, 3), dtype=np.uint8)))


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (100, 255, "nearly all test images that were looked at are brighter than nearly all training images"),
        (0, 120, "nearly all training images that were looked at are brighter than nearly all test images"),
        (60, 160, "nearly all training images that were looked at have more contrast than nearly all test images"),
        (20, 200, None),
    ],
)
def test_splits_that_were_prepared_differently_are_noted(low, high, text):
    """Test images that were saved after a normalisation, or inverted, were scored as they stood."""
    train = [lit(seed, 20, 200) for seed in range(8)]
    notes = notes_on_pixels(data(train, [lit(100 + seed, low, high) for seed in range(8)]))
    assert len([note for note in notes if note.startswith("By their pixels, ")]) == (text is not None)
    assert text is None or text in notes[-1]
    assert not any(note.startswith("By") for note in notes_on_pixels(data(train, [lit(9, low, high)] * 7)))


@pytest.mark.parametrize(
    ("height", "width", "text"),
    [
        (
            10,
            6,
            "nearly all training images that were looked at are wider for their height than nearly all test images",
        ),
        (10, 15, "nearly all test images that were looked at have more pixels than nearly all training images"),
        (6, 9, None),
    ],
)
def test_splits_of_other_sizes_are_noted(height, width, text):
    """Test images were turned by a tool that drops the orientation of photographs."""
    notes = notes_on_pixels(data([photo(k, 6, 9) for k in range(8)], [photo(50 + k, height, width) for k in range(8)]))
    assert [note for note in notes if note.startswith("By their pixels, ")] == notes and len(notes) == (
        text is not None
    )
    assert text is None or text in notes[0]


@pytest.mark.parametrize(
    ("low", "high", "noted"), [(32_000, 33_000, True), (51_241, 52_181, True), (20_000, 60_000, False)]
)
def test_values_with_an_offset_are_noted(low, high, noted):
    """Hounsfield units plus 32768 became four grey levels, of which a network learned."""
    values = np.linspace(low, high, 1024).astype(np.uint16).reshape(32, 32)
    images = [stored(PillowImage.fromarray(values))] * 3
    notes = [note for note in notes_on_pixels(data(images, images)) if "hardly any contrast" in note]
    assert len(notes) == (2 if noted else 0)
    if noted:
        assert notes[0].startswith("The training images have hardly any contrast: 98% of the values of the 3 that were")
