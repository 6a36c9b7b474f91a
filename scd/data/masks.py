"""What the masks of a set hold, decided once for the whole set, and the one way to read their pixels.

    binary     grey levels, the object above 127; soft and JPEG-compressed borders are cut there
    trimap     255 is the object, 128 (or 127) unknown, 0 the background
    classes    ids of classes; 255 is unknown
    instances  k > 0 is the k-th object

Grey levels (binary, trimap): of a palette image the grey of its colours; of 1 bit 0 and 255; of 16 bits a share of
their range. Ids (classes, instances): of a palette image the indices; of 1 bit 0 and 1; of 16 bits the numbers as they
are. Both take grey pictures that are stored in colour, and transparent ones whose object is their opaque part; coloured
pictures are refused. The kind is decided from these same values, see :func:`find_kind`.
"""

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image

from scd.data.cache import cached_value, content_hash
from scd.data.decoding import DEEP, open_cell, place, upright
from scd.errors import DataError, UsageError

KINDS = ("binary", "trimap", "classes", "instances")
GREY_KINDS = ("binary", "trimap")
UNKNOWN = 2  # in a mask of an object: neither object nor background
VOID = 255  # among class ids: unknown
THRESHOLD = 127  # grey levels above are the object
END = 16  # grey levels this near to black or white are its end
MIXED = 0.3  # share of grey levels between the ends that soft borders stay below
MANY_CLASSES = 200  # more ids than this, without 255, are as likely to be grey levels
MOST_LOOKED_AT = 16_384  # masks of a split
JPEG_GREY = 12  # levels by which the channels of a grey picture may differ after JPEG compression
ASK = f"say what they are: data.options.mask_kind={'|'.join(KINDS)}"


# ---------------------------------------------------------------- pixels


def read_mask(cell: dict | None, column: str, row: int, source: str, kind: str) -> np.ndarray:
    """The values (H, W) of a mask, upright: uint8 grey levels for binary masks and trimaps, int64 ids for others.

    Raises:
        DataError: no mask, or one that cannot be decoded or is coloured, by source, row and file.
    """
    image = upright(open_cell(cell, column, row, source))
    what = f"{place(cell, row, source)}: the {column}"
    return grey_levels(image, what) if kind in GREY_KINDS else ids(image, what)


def ids(image: Image.Image, what: str) -> np.ndarray:
    """The ids (H, W) int64 that a mask shows. Raises DataError for a coloured one, named by ``what``."""
    if image.mode in ("1", "P", "I", *DEEP):
        return np.asarray(image).astype(np.int64)
    return _one_channel(image, what).astype(np.int64)


def grey_levels(image: Image.Image, what: str) -> np.ndarray:
    """The grey levels (H, W) uint8 that a mask shows. Raises DataError for a coloured one, named by ``what``."""
    if image.mode in ("I", *DEEP):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{what} has values from {values.min()} to {values.max()}, which are no grey levels")
        return (values if values.max() <= 255 else (values + 128) // 257).astype(np.uint8)
    return _one_channel(image, what)


def foreground(values: np.ndarray, kind: str, chosen: Sequence[int] | None, what: str) -> np.ndarray:
    """Where the object is: (H, W) uint8, 1 on the object, 0 elsewhere, 2 where it is unknown.

    Args:
        values: see :func:`read_mask`.
        kind: of the set's masks.
        chosen: for masks of classes, the ids that are the object; None: every id above 0. 255 is unknown unless chosen.

    Raises:
        DataError: values that cannot be of this kind; ``what`` names the mask.
    """
    if kind == "binary":
        if 0 < values.max() < END:
            raise DataError(f"{what} has the values 0 to {values.max()}, for binary masks it needs 0 to 255; {ASK}")
        return (values > THRESHOLD).astype(np.uint8)
    if kind == "trimap":
        out = (values > 191).astype(np.uint8)
        out[(values > 63) & (values <= 191)] = UNKNOWN
        return out
    if kind == "instances":
        return (values > 0).astype(np.uint8)
    out = (values > 0 if chosen is None else np.isin(values, list(chosen))).astype(np.uint8)
    if chosen is None or VOID not in chosen:
        out[values == VOID] = UNKNOWN
    return out


def is_object(values: Any) -> Any:
    """Where masks of objects (arrays or tensors, see :func:`foreground`) show the object, as bool."""
    return (values > 0) & (values != UNKNOWN)


def is_known(values: Any) -> Any:
    """Where masks of objects (arrays or tensors) show the object or the background, as bool."""
    return values != UNKNOWN


def require_object_and_background(masks: Any, kind: str | None, chosen: Sequence[int] | None, what: str) -> None:
    """The rule for whatever compares with masks of objects, or learns from them: some pixel of the set is the object,
    and some the background. Without a background every map is right; without an object every map is wrong.

    Args:
        masks: (N, H, W) of a set, see :func:`foreground`; or the different values that they have.
        kind, chosen: of the set's masks.

    Raises:
        DataError: masks of one thing alone; ``what`` names the set.
    """
    for missing, found in (("background", masks == 0), ("object", is_object(masks))):
        if not found.any():
            ids = "all ids above 0" if chosen is None else f"the ids {', '.join(map(str, chosen))}"
            hint = "; check that white is the object and black the background"
            if kind == "classes":
                hint = f": {ids} are the object; say which are: data.options.foreground=[1]"
            elif kind == "instances" and missing == "object":
                hint = "; leave out the protocols that need masks"
            elif kind == "instances":
                hint = "; of class ids say so, and which are the object: data.options.mask_kind=classes "
                hint += "data.options.foreground=[1]"
            raise DataError(f"no mask of {what} shows any {missing}{hint}")


def _one_channel(image: Image.Image, what: str) -> np.ndarray:
    """Grey levels (H, W) uint8 of a picture of 8 bits or less a channel."""
    if image.mode == "F":
        raise DataError(f"{what} holds floats; save it with 8 bits")
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("L", "1"):
        return np.asarray(image.convert("L"))
    alpha = np.asarray(image.getchannel("A")) if "A" in image.getbands() else None
    colours = np.asarray(image.convert("RGBA").convert("RGB") if alpha is not None else image.convert("RGB"))
    visible = colours if alpha is None else colours[alpha > 0]
    allowed = JPEG_GREY if image.format == "JPEG" else 0
    if visible.size and int(np.ptp(visible.astype(np.int16), axis=-1).max()) > allowed:
        raise DataError(f"{what} is a coloured picture ({image.mode}); a mask has one channel, or a palette")
    grey = np.asarray(Image.fromarray(colours).convert("L")) if allowed else colours[..., 0]
    if alpha is None or (alpha == 255).all():
        return grey
    if len(np.unique(grey[alpha > 0])) <= 1:
        return alpha  # the object is what is not transparent
    if grey[alpha < 255].any():
        raise DataError(f"{what} shows one thing by its grey levels and another by its transparency; save it without")
    return grey


# ---------------------------------------------------------------- the kind of a set


@dataclass
class Levels:
    """How many pixels of a split's masks have which value, as grey levels and as ids."""

    grey: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    numbers: np.ndarray = field(default_factory=lambda: np.zeros(65536, np.int64))
    coloured: bool = False  # some palette has colours
    palette: bool = False
    compressed: bool = False  # JPEG, which keeps no ids
    one_beside_void: bool = False  # a mask that holds 1 and 255

    def add(self, image: Image.Image, what: str) -> None:
        self.palette |= image.mode == "P"
        self.compressed |= image.format == "JPEG"
        try:
            self.grey += np.bincount(grey_levels(image, what).ravel(), minlength=256)
        except DataError:
            if image.mode not in ("P", "I", *DEEP):
                raise
            self.coloured = True
        values = ids(image, what)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{what} has values from {values.min()} to {values.max()}; ids go from 0 to 65535")
        counted = np.bincount(values.ravel(), minlength=65536)
        self.one_beside_void |= bool(counted[1] and counted[VOID])
        self.numbers += counted

    def kind(self) -> str | None:
        """ "binary", "trimap" or "classes"; None where the values allow several."""
        by_grey = None if self.coloured else self._kind_of(self.grey)
        if by_grey == "trimap" and self.palette and (self.numbers[:256] != self.grey).any():
            return None  # or three classes with grey colours
        if by_grey in GREY_KINDS:
            return by_grey
        return "classes" if self._kind_of(self.numbers) == "classes" else None

    def text(self) -> str:
        """The values, for messages."""
        values = np.flatnonzero(self.numbers).tolist()
        shown = values if len(values) <= 6 else [*values[:4], "...", values[-1]]
        return f"the values {', '.join(map(str, shown))}" if values else "no masks"

    def _kind_of(self, counts: np.ndarray) -> str | None:
        held = set(np.flatnonzero(counts).tolist())
        if len(held) <= 1:
            return None  # every mask that was seen is empty, or full
        white, below = 255 in held, any(counts[256 - END : 255])
        between = int(counts[END : 256 - END].sum())
        if self.compressed:
            ends = any(counts[:END]) and (white or below)
            return "binary" if ends and between <= MIXED * counts.sum() else None
        if held == {0, 255}:
            return "binary"
        if held <= {0, 127, 128, 255}:
            return "trimap" if {0, 255} <= held else None
        if max(held) > 255:
            return "classes"
        if below:  # soft borders reach the levels next to white; ids hardly do
            return "binary" if any(counts[:END]) and between <= MIXED * counts.sum() else None
        if held == {0, 1, 255} and not self.one_beside_void:
            return None  # masks of 0 and 1 among masks of 0 and 255
        if white:
            return "classes" if any(counts[1:END]) else None
        return "classes" if len(held) <= MANY_CLASSES else None


def find_kind(name: str, splits: Mapping[str, Dataset], contents: Mapping[str, object]) -> tuple[str, list[str]]:
    """What the masks of a set hold, and notes on what is ignored of them.

    The training split decides; masks of other splits must not contradict it. All masks of a split are looked at or, of
    more than 16,384, as many evenly spaced ones.

    * Two values that are black and white are binary, and so are masks with values at both ends, some of them next to
      white, and few between (soft or compressed borders). 0, 128 and 255 are a trimap.
    * Other values are class ids. So are 0 and 1, and the indices of palette images whose colours are not black, white
      and soft borders between them.
    * Masks that are all empty or all full, and values that can be ids as well as grey levels, are not guessed.

    Masks that cannot be decoded say so when they are used, unless none can.

    Args:
        name: of the source, for errors.
        splits: data sets with a column ``mask``, the training split first.
        contents: what identifies each split, for the cache.

    Raises:
        UsageError: masks that can be of several kinds, or of different kinds in different splits.
        DataError: coloured masks, or masks of which none can be decoded.
    """
    code = inspect.getsource(sys.modules[__name__])
    found = {
        split: cached_value("mask-kinds", content_hash([code, contents[split]]), partial(_look, name, dataset))
        for split, dataset in splits.items()
        if "mask" in dataset.column_names
    }
    first = next(iter(found))
    kind, values = found[first]["kind"], found[first]["values"]
    if kind is None:
        raise UsageError(f"the masks of '{name}' {first} hold {values}, which does not tell what they mean; {ASK}")
    for split, other in found.items():
        if other["kind"] not in (None, kind):
            raise UsageError(
                f"the masks of '{name}' {first} look like {kind} ({values}), those of {split} like {other['kind']} "
                f"({other['values']}); {ASK}"
            )
    return kind, _notes(kind, found)


def _look(name: str, dataset: Dataset) -> dict[str, Any]:
    """The kind of a split's masks, or None; their values as text; whether 255 is among them; how many were not seen."""
    raw = dataset.select_columns(["mask"]).cast_column("mask", ImageFeature(decode=False))
    levels, rows, broken = Levels(), rows_looked_at(len(raw)), []
    for row in rows:
        cell = raw[row]["mask"]
        try:
            image = open_cell(cell, "mask", row, name)
        except DataError as error:
            broken.append(error)
            continue
        levels.add(image, f"{place(cell, row, name)}: the mask")
    if len(broken) == len(rows):
        raise broken[0]
    return {
        "kind": levels.kind(),
        "values": levels.text(),
        "void": bool(levels.numbers[VOID]),
        "not_seen": len(raw) - len(rows),
    }


def _notes(kind: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    notes = []
    if kind == "trimap":
        notes.append("Mask pixels of the value 128 are unknown and count for nothing.")
    if kind == "classes" and any(split["void"] for split in found.values()):
        notes.append("Mask pixels of the value 255 are unknown and count for nothing.")
    left = sum(split["not_seen"] for split in found.values())
    if left:
        notes.append(f"The kind of the masks ({kind}) was found without {left:,} of them.")
    return notes


def rows_looked_at(count: int) -> list[int]:
    """The rows of a split whose masks decide its kind."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_LOOKED_AT)).astype(np.int64)).tolist()
