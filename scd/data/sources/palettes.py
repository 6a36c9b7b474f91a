"""Whether the palettes of masks agree with their ids: image tools may renumber the indices when they save a palette."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset
from datasets import Image as ImageFeature

from scd.data.cache import cached_value, content_hash
from scd.data.decoding import open_cell, place
from scd.data.masks import rows_looked_at
from scd.errors import DataError

VERSION = "1"


def check_palettes(name: str, splits: Mapping[str, Dataset], contents: Mapping[str, object]) -> None:
    """In masks of class ids, an id has one colour in the palettes of all masks.

    Masks without a palette and masks that cannot be decoded are left out.

    Args:
        name: of the source, for errors.
        splits: data sets, some with a column ``mask``; all its masks or, of more than 16,384, evenly spaced ones.
        contents: what identifies each split, for the cache.

    Raises:
        DataError: two masks disagree; the text names both.
    """
    known = Palettes("; or say data.options.mask_kind=classes if the indices are the classes")
    for split, dataset in splits.items():
        if "mask" not in dataset.column_names:
            continue
        key = content_hash([VERSION, contents[split]])
        for first, number, colour in cached_value("palettes", key, lambda dataset=dataset: _used(name, dataset)):
            known.add(first, {number: colour})


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


def _used(name: str, dataset: Dataset) -> list[list]:
    """[place of the first such mask, id, colour] of every id and colour that occur together."""
    raw = dataset.select_columns(["mask"]).cast_column("mask", ImageFeature(decode=False))
    found: dict[tuple[int, tuple[int, ...]], str] = {}
    for row in rows_looked_at(len(raw)):
        cell = raw[row]["mask"]
        try:
            colours = used_colours(open_cell(cell, "mask", row, name))
        except DataError:
            continue
        for number, colour in colours.items():
            found.setdefault((number, tuple(colour)), place(cell, row, name))
    return [[where, number, list(colour)] for (number, colour), where in found.items()]
