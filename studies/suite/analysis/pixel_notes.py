"""What a reader must know of the pixels of a study's images, from a few images of each split.

Sets that are dark, images of one colour or with transparent parts, what of a file is not read (further frames and
channels, colour profiles), and images that hardly fit the canvas.
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageCms

from scd.data.decoding import DEEP, as_rgb, open_cell, place, upright
from scd.data.images import undecoded
from scd.data.sources.folder_scan import printable
from scd.data.sources.source import Source
from scd.errors import DataError
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.used_rows import used_rows

LOOKED_AT = 64  # images of a split
DARK, SHARE = 128, 0.99  # a set is dark if so many of its values stay below this one, of 255
FEW_LEVELS = 24  # of 255, between which nearly all values of a split lie
ONE_COLOUR = 0.1  # share of the images that have one colour alone which is noted
ENLARGED = 2  # times that an image may be enlarged without a note
NARROW = 0.2  # share of an image that its central square keeps without a note
CHANNELS = 277  # tag of TIFF
GREY = ("1", "L", "LA", "I", *DEEP)  # modes of Pillow
LOWER = 0.1  # share of the height of an image that is looked at for missing data
NEAR_END = 16  # values this near to black or white are those of a background, too
ONE_PICTURE = ("MPO", "PSD")  # forms whose further pictures belong to the first one: previews, layers
FRAMES = "Files with several pages or frames, of which the first is read"
FURTHER = "Images with more channels than are read"
INKS = "Images in the colours of print (CMYK), which are converted without their colour profile"
EQUAL_CHANNELS = 2  # levels by which the channels of a grey image that is stored in colour may differ
BAR, EVEN = 0.1, 8  # least share of a side that a bar covers, and levels by which its pixels may differ
ALL, FEWEST = 0.95, 8  # of the pairs of two images, that one is above the other; images of each split
MOST, FEW = 0.9, 0.1  # shares of the images of two splits that differ
LIKE_SRGB = ("srgb", "61966", "c2", "urgb")  # parts of names of profiles for the same colours


def border_of(pixels: np.ndarray) -> np.ndarray:
    """The outermost pixels (n, 3) of an image (H, W, 3)."""
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


LEVELS: dict[str, Callable[[np.ndarray], float]] = {  # by what images of two splits are compared
    "are brighter": lambda pixels: pixels.mean(),
    "have more contrast": lambda pixels: pixels.std(),
    "have more values at the ends of the range (0 and 255)": lambda pixels: ((pixels == 0) | (pixels == 255)).mean(),
    "have a brighter border": lambda pixels: border_of(pixels).mean(),
    "are wider for their height": lambda pixels: pixels.shape[1] / pixels.shape[0],
    "have more pixels": lambda pixels: pixels.shape[0] * pixels.shape[1],
}


@dataclass
class Looked:
    """What was seen of the images of a split.

    Attributes:
        sizes: width and height of each image.
        counts: (256,) pixels' values, of all images and channels.
        plain: images of one colour alone.
        transparent: images with transparent parts.
        hidden: those of one colour alone whose transparency shows something.
        unread: how many images have something that is not read, by a text for notes.
        profiles: how many have a colour profile other than sRGB, by its name.
        grey: images whose channels are equal.
        barred: images with bars of one colour at two opposite ends.
        levels: of each image, by what it is, a number in levels of 255 or a share: see ``LEVELS``.
        damaged: JPEG images whose lower part has one colour alone, as where data are missing.
    """

    sizes: list[tuple[int, int]] = field(default_factory=list)
    counts: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    plain: int = 0
    transparent: int = 0
    hidden: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    profiles: Counter[str] = field(default_factory=Counter)
    grey: int = 0
    barred: int = 0
    damaged: int = 0
    levels: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in LEVELS})

    def add(self, stored: Image.Image, what: str) -> None:
        """An image as it is stored; ``what`` names it in errors."""
        require_known_scale(stored, what)
        least, most = alpha_of(stored)
        self.unread.update(unread_of(stored))
        if (profile := profile_of(stored)) is not None:
            self.profiles[profile] += 1
        shown = as_rgb(upright(stored), what)
        self.damaged += stored.format == "JPEG" and has_one_colour_below(np.asarray(as_rgb(stored, what)))
        pixels = np.asarray(shown)
        self.grey += bool(np.ptp(pixels, axis=2).max() <= EQUAL_CHANNELS)
        self.barred += has_bars(pixels)
        for name, read in LEVELS.items():
            self.levels[name].append(float(read(pixels)))
        plain = all(low == high for low, high in shown.getextrema())
        self.sizes.append(shown.size)
        self.counts += np.bincount(pixels.ravel(), minlength=256)
        self.plain += plain
        self.transparent += least < 255
        self.hidden += plain and least < most

    def value_at(self, share: float) -> int:
        """The value that so many of all values do not exceed."""
        return int(np.searchsorted(np.cumsum(self.counts), share * self.counts.sum()))


def alpha_of(image: Image.Image) -> tuple[int, int]:
    """The lowest and highest opacity of an image, of 255."""
    if "A" in image.getbands() and image.mode != "LAB":
        return image.getchannel("A").getextrema()
    if "transparency" in image.info:
        return image.convert("RGBA").getchannel("A").getextrema()
    return 255, 255


def require_known_scale(image: Image.Image, what: str) -> None:
    """Raise DataError for a file of FITS with more than 8 bits, whose sign, zero and scale Pillow does not apply."""
    if image.format == "FITS" and image.mode != "L":
        raise DataError(
            f"{what} is a FITS file of more than 8 bits, whose zero and scale are not read, so that values are "
            "exchanged; save it as PNG"
        )


def unread_of(image: Image.Image) -> list[str]:
    """What of an opened file is not read, as texts for notes."""
    found = []
    if image.format not in ONE_PICTURE and getattr(image, "is_animated", False):
        found.append(FRAMES)
    if image.format == "TIFF" and image.tag_v2.get(CHANNELS, 1) > len(image.getbands()):
        found.append(FURTHER)
    if image.mode == "CMYK":
        found.append(INKS)
    return found


def profile_of(image: Image.Image) -> str | None:
    """The name of the colour profile of an image in red, green and blue; None without one, for sRGB, and for one that
    cannot be read."""
    if image.mode in (*GREY, "CMYK", "LAB") or not (stored := image.info.get("icc_profile")):
        return None
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(stored))).strip()
    except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError):
        return None
    return None if any(part in name.casefold() for part in LIKE_SRGB) else printable(name)


def has_one_colour_below(pixels: np.ndarray) -> bool:
    """Whether the last rows of an image (H, W, 3), but not all, have one colour that is neither black nor white.

    A decoder of JPEG fills what is missing of a damaged file with its last colour, and most say nothing.
    """
    below = pixels[-max(2, int(LOWER * len(pixels))) :]
    colour = below[0, 0]
    middle = ((colour >= NEAR_END) & (colour < 256 - NEAR_END)).any()
    return bool(middle and (below == colour).all() and (pixels != colour).any())


def has_bars(pixels: np.ndarray) -> bool:
    """Whether an image (H, W, 3) has bars of one colour at two opposite ends, and something between them."""
    for rows in (pixels, pixels.swapaxes(0, 1)):
        width = max(1, round(BAR * len(rows)))
        ends = np.concatenate([rows[:width], rows[-width:]]).reshape(-1, 3).astype(int)
        between = rows[width:-width].reshape(-1, 3)
        if len(between) and np.ptp(ends, axis=0).max() <= EVEN < np.ptp(between.astype(int), axis=0).max():
            return True
    return False


def spread_rows(images: EvaluationData, split: str) -> list[int]:
    """At most 64 rows of a split, evenly spread over those that are used."""
    rows = used_rows(images, split)
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), LOOKED_AT)).astype(int)].tolist()


def look_at(source: Source, split: str, rows: list[int]) -> Looked:
    """Decode some images.

    Raises:
        DataError: an image that cannot be decoded, by source, row and file.
    """
    cells, found = undecoded(source.split(split).select_columns("image")), Looked()
    for row in rows:
        cell = cells[row]["image"]
        stored = open_cell(cell, "image", row, source.name)
        found.add(stored, f"{place(cell, row, source.name)}: the image")
    return found


def notes_on_pixels(images: EvaluationData) -> list[str]:
    """Notes on the training and scored images; embedded ones need none.

    Raises:
        DataError: an image that cannot be decoded, by source, row and file; or a split of which most images have one
            colour alone, because what they show lies in their transparency.
    """
    if images.source.embedded:
        return []
    notes, looked = [], {}
    for split in ("train", images.split):
        found = look_at(images.source, split, spread_rows(images, split))
        words = "training" if split == "train" else split
        of_all = f"of the {len(found.sizes)} {words} images that were looked at"
        if found.hidden > len(found.sizes) / 2:
            raise DataError(
                f"'{images.source.name}' {split}: {found.hidden} {of_all} have one colour alone, and what they show "
                "lies in their transparency, which is not read; paste them on a background and save them without "
                "transparency"
            )
        notes += [*notes_on_dark_images(found, words), *notes_on_colours(found, of_all)]
        noted = any(note.startswith(FRAMES) for note in images.notes)  # of all files of a folder
        unread = sorted(what for what in found.unread if what != FRAMES or not noted)
        notes += [f"{what}: {found.unread[what]} {of_all}." for what in unread]
        notes += notes_on_sizes(found, of_all, images.canvas)
        looked[words] = found
    return notes + notes_on_splits_that_differ(looked)


def notes_on_splits_that_differ(looked: Mapping[str, Looked]) -> list[str]:
    """Notes on what most images of one split are, and few of the other: grey, with bars, brighter.

    Args:
        looked: words for a split -> what was seen of its images.
    """
    notes = []
    for count, text in (
        (lambda found: found.grey, "are grey"),
        (lambda found: found.barred, "have bars of one colour at two opposite ends, as letterboxes do"),
    ):
        order = sorted(looked, key=lambda words: count(looked[words]) / len(looked[words].sizes))
        (low, rare), (high, usual) = ((words, looked[words]) for words in (order[0], order[-1]))
        if count(usual) >= MOST * len(usual.sizes) and count(rare) <= FEW * len(rare.sizes):
            notes.append(
                f"{count(usual)} of the {len(usual.sizes)} {high} images that were looked at {text}, and {count(rare)} "
                f"of the {len(rare.sizes)} {low} images: the splits were prepared differently."
            )
    return notes or notes_on_levels(looked)


def notes_on_levels(looked: Mapping[str, Looked]) -> list[str]:
    """A note on a number of which nearly every image of one split has more than those of the other.

    That is so if one split was normalised, inverted or photographed otherwise; not by chance.
    """
    (one, first), (other, second) = looked.items()
    if min(len(first.sizes), len(second.sizes)) < FEWEST:
        return []
    parts = []
    for name in LEVELS:
        left, right = np.array(first.levels[name])[:, None], np.array(second.levels[name])
        above, below = (left > right).mean(), (left < right).mean()
        if max(above, below) >= ALL:
            less, more = (one, other) if below > above else (other, one)
            parts.append(f"nearly all {more} images that were looked at {name} than nearly all {less} images")
    if not parts:
        return []
    return [
        f"By their pixels, {'; '.join(parts)}. If the splits were prepared differently (normalised, inverted, turned, "
        "resized), scores are of that difference."
    ]


def notes_on_dark_images(found: Looked, words: str) -> list[str]:
    """A note on a split whose values use the lower half of their range only, but for one in a hundred.

    Such values mostly have another scale than that of their file's type, as 16-bit reflectances that end at 10000. A
    few pixels at the end of the range mark where there is no value.
    """
    high, highest = found.value_at(SHARE), found.value_at(1)
    if high >= DARK:
        return notes_on_contrast(found, words)
    shown = f"no pixel of the {len(found.sizes)} that were looked at is above {highest} of 255"
    if highest >= DARK:
        shown = f"{SHARE:.0%} of the values of the {len(found.sizes)} that were looked at are at most {high} of 255"
    return [
        f"The {words} images are dark: {shown}. Values are read as they stand, those of 16 bits from their whole range "
        "(65535); if your images use a part of it, scale them."
    ]


def notes_on_contrast(found: Looked, words: str) -> list[str]:
    """A note on a split whose values differ by a few levels only, as 16-bit values with an offset do."""
    low, high = found.value_at(1 - SHARE), found.value_at(SHARE)
    if high - low >= FEW_LEVELS:
        return []
    return [
        f"The {words} images have hardly any contrast: {2 * SHARE - 1:.0%} of the values of the {len(found.sizes)} "
        f"that were looked at lie between {low} and {high} of 255. Values are read as they stand, those of 16 bits "
        "from their whole range (65535); if yours lie in a part of it, as with an offset, scale them."
    ]


def notes_on_colours(found: Looked, of_all: str) -> list[str]:
    """Notes on colour profiles, images of one colour, those that may be damaged, and those with transparent parts."""
    notes = []
    if found.profiles:
        (name, _), *_ = found.profiles.most_common(1)
        notes.append(
            f"Images with another colour profile than sRGB (such as '{name}'), which is ignored, so that their colours "
            f"are shifted: {found.profiles.total()} {of_all}."
        )
    if found.plain >= ONE_COLOUR * len(found.sizes):
        notes.append(f"Images of one colour alone: {found.plain} {of_all}.")
    if found.damaged:
        notes.append(
            f"JPEG images whose lower part has one colour alone, as where the data of a file are damaged: "
            f"{found.damaged} {of_all}."
        )
    if found.transparent:
        notes.append(
            f"Images with transparent parts, whose transparency is ignored, so that the colours below it are shown: "
            f"{found.transparent} {of_all}."
        )
    return notes


def notes_on_sizes(found: Looked, of_all: str, canvas: int) -> list[str]:
    """Notes on images that are enlarged much, and on those of which the central square keeps little."""
    small = sorted((size for size in found.sizes if ENLARGED * min(size) < canvas), key=lambda size: size[0] * size[1])
    narrow = [size for size in found.sizes if min(size) < NARROW * max(size)]
    notes = []
    if small:
        notes.append(
            f"Images that are enlarged more than {ENLARGED} times, to the canvas of {canvas} px: {len(small)} "
            f"{of_all}; the smallest has {small[0][0]}x{small[0][1]} px."
        )
    if narrow:
        notes.append(f"Long images, of which the central square keeps less than {NARROW:.0%}: {len(narrow)} {of_all}.")
    return notes
