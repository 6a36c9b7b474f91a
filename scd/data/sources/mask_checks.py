"""Masks of a set beside their kind: palettes that agree with the ids, and notes on what counts for nothing."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image

from scd.data.cache import cached_value, content_hash
from scd.data.decoding import UNREADABLE, open_cell, orientation, place
from scd.data.masks import END, GREY_KINDS, THRESHOLD, VOID, grey_levels, rows_looked_at
from scd.errors import DataError

VERSION = "2"
PNG = b"\x89PNG\r\n\x1a\n"
GREY_FACTORS = {2: 85, 4: 17}  # bits of a grey PNG -> number by which Pillow multiplies its values
UNKNOWN_ID = "Mask pixels of the value 255 are unknown and count for nothing."
DARK = "Masks with values above 0, but none above 127, which show no object"
MIDDLE = slice(112, 144)  # grey levels near 128
PEAK, LEAST = 0.5, 0.01  # shares of the pixels between black and white, and of all, above which they are a third level
TURNED = "Images with an EXIF orientation, whose masks count as drawn on the upright picture"


def check_masks(
    name: str, splits: Mapping[str, Dataset], contents: Mapping[str, object], kind: str, is_given: bool
) -> list[str]:
    """Notes on the masks of a set. All of a split's masks count or, of more than 16,384, evenly spaced ones.

    Args:
        name: of the source, for errors.
        splits: data sets, some with a column ``mask``. Masks that cannot be decoded are left out.
        contents: what identifies each split, for the cache.
        kind: of the masks, of :data:`scd.data.masks.KINDS`.
        is_given: whether the user has said the kind; else it was found, and what it ignores is noted there.

    Raises:
        DataError: palettes that give a class id several colours, unless the user says that the masks are classes; ids
            in a form in which they are read as others.
    """
    found = {
        split: cached_value(
            "mask-checks",
            content_hash([VERSION, contents[split], kind]),
            lambda dataset=dataset: _look(name, dataset, kind),
        )
        for split, dataset in splits.items()
        if "mask" in dataset.column_names
    }
    if kind == "classes" and not is_given:
        known = Palettes("; or say data.options.mask_kind=classes if the indices are the classes")
        for split in found.values():
            for where, number, colour in split["colours"]:
                known.add(where, {number: colour})
    middle, between, total = (sum(split[key] for split in found.values()) for key in ("middle", "between", "pixels"))
    notes = [UNKNOWN_ID] if kind == "classes" and is_given and any(split["void"] for split in found.values()) else []
    counted = {what: sum(split[key] for split in found.values()) for what, key in ((DARK, "dark"), (TURNED, "turned"))}
    if kind == "binary" and middle > max(PEAK * between, LEAST * total):
        notes.append(
            f"{middle / total:.1%} of the pixels of JPEG masks are near the grey level 128, as in trimaps; they count "
            "as object or background, unless data.options.mask_kind=trimap says that they are unknown."
        )
    return notes + [f"{what}: {count:,}." for what, count in counted.items() if count]


@dataclass
class Palettes:
    """The colour of each id in the palettes of some masks, with the place where it was first seen.

    Args:
        otherwise: of the error, what else may be done.
    """

    otherwise: str = ""
    colours: dict[int, tuple[list[int], str]] = field(default_factory=dict)

    def add(self, where: str, colours: Mapping[int, list[int]]) -> None:
        """Add those of a mask, see :func:`used_colours`. Raises DataError where they differ from earlier ones."""
        for number, colour in colours.items():
            known, there = self.colours.setdefault(number, (colour, where))
            if known != colour:
                raise DataError(
                    f"masks of class ids whose palettes differ: {there} gives the id {number} the colour {known}, "
                    f"{where} the colour {colour}. Image tools renumber a palette when they save it; use the original "
                    f"masks{self.otherwise}"
                )


def used_colours(image: Any) -> dict[int, list[int]]:
    """Id -> colour [red, green, blue] of the ids that a mask shows and its palette holds.

    Empty without a palette, and for one that gives all of several ids the same colour.
    """
    if image.mode != "P":
        return {}
    palette = np.array(image.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    shown = np.unique(np.asarray(image)).tolist()
    colours = {number: palette[number].tolist() for number in shown if number < len(palette)}
    return colours if len(colours) == 1 or len(set(map(tuple, colours.values()))) > 1 else {}


def require_whole_ids(cell: Mapping[str, Any], what: str) -> None:
    """Raise DataError for a grey PNG of 2 or 4 bits a pixel, whose ids Pillow multiplies.

    Args:
        cell: undecoded, of an image that can be read.
        what: names it.
    """
    with io.BytesIO(cell["bytes"]) if cell.get("bytes") is not None else Path(cell["path"]).open("rb") as stored:
        head = stored.read(26)  # signature, then IHDR: width, height, bits, colour type (0 = grey)
    if head[:8] == PNG and head[25] == 0 and head[24] in GREY_FACTORS:
        raise DataError(
            f"{what} is a grey PNG of {head[24]} bits a pixel, whose ids would be read {GREY_FACTORS[head[24]]} times "
            "as large; save it with 8 bits a pixel"
        )


def is_turned(cell: dict | None) -> bool:
    """Whether the picture of an undecoded cell has an EXIF orientation, by its header; False if it cannot be read."""
    stored = (cell or {}).get("bytes")
    try:
        with Image.open(io.BytesIO(stored) if stored is not None else (cell or {}).get("path") or "") as image:
            return orientation(image) != 1
    except UNREADABLE:
        return False


def _look(name: str, dataset: Dataset, kind: str) -> dict[str, Any]:
    """[place of the first mask, id, colour] of the ids and colours that occur together; what is counted."""
    columns = {column: ImageFeature(decode=False) for column in ("image", "mask")}
    raw = dataset.select_columns(list(columns))
    for column, feature in columns.items():
        raw = raw.cast_column(column, feature)
    colours: dict[tuple[int, tuple[int, ...]], str] = {}
    void, dark, turned = False, 0, 0
    compressed = np.zeros(256, np.int64)  # grey levels of JPEG masks
    for row in rows_looked_at(len(raw)):
        record = raw[row]
        where = place(record["mask"] or {}, row, name)
        try:
            mask = open_cell(record["mask"], "mask", row, name)
            turned += orientation(mask) == 1 and is_turned(record["image"])
            if kind in GREY_KINDS:
                levels = grey_levels(mask, where)
                dark += bool(0 < levels.max() <= THRESHOLD)
                if mask.format == "JPEG":
                    compressed += np.bincount(levels.ravel(), minlength=256)
                continue
        except DataError:
            continue
        require_whole_ids(record["mask"], f"{where}: the mask")
        void |= bool((np.asarray(mask) == VOID).any())
        for number, colour in used_colours(mask).items():
            colours.setdefault((number, tuple(colour)), where)
    listed = [[where, number, list(colour)] for (number, colour), where in colours.items()]
    levels = {"middle": compressed[MIDDLE], "between": compressed[END : 256 - END], "pixels": compressed}
    return {
        "colours": listed, "void": void, "dark": dark, "turned": turned,
        **{name: int(counts.sum()) for name, counts in levels.items()},
    }  # fmt: skip
