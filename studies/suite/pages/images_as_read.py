"""One picture of a study's images as they were read: some of each split, with their labels, masks and objects.

Notes name what can be counted. That masks are upside down, that boxes lie beside their objects, or that labels are
those of other images, can be seen at a glance. The picture shows the images of a user: it is kept in the store and is
no part of a page.
"""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from datasets import Dataset
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries

from scd.atomic import write_atomically
from scd.data import decoding
from scd.data.images import check_size, undecoded
from scd.data.masks import UNKNOWN, foreground, is_object, read_mask
from scd.data.sources.columns import category_names
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from scd.seeds import derive_seed
from studies.suite.analysis.object_notes import entries_of
from studies.suite.analysis.used_rows import used_rows
from studies.suite.pages.figures import PALETTE
from studies.suite.pages.picture_maps import EDGES

FOLDER = "as_read"  # in the store
SHOWN, COLUMNS = 24, 8  # images of a split, and images in a row
SIDE, GAP, LINE = 168, 8, 17  # pixels of the longer side of an image, between images, and of a line of text
DARKENED, TINT = 0.4, (70, 110, 255)  # of what is not the object, and of what is unknown
PAPER, INK, CROPPED, CROWD = "white", "black", (255, 255, 255), (150, 150, 150)
NAMED = 6  # objects of an image that are named where they are
LEGEND = (
    "Masks: what is dark counts as background, what is blue as unknown; edges are yellow. Objects: boxes by category, "
    "crowds grey.",
    "White lines: the square that networks see, where the image is no square.",
)


def path_in(store: Path, page: str) -> Path:
    """Where the picture of a page's images is kept."""
    return store / FOLDER / f"{page}.png"


def draw(sets: Sequence[EvaluationData], path: Path) -> Path:
    """Write the picture as PNG.

    Args:
        sets: the images of the study, and those of protocols that have their own.

    Raises:
        DataError: an image or a mask that cannot be decoded, by source, row and file.
    """
    bands = []
    for images in sets:
        for split in ("train", images.split):
            rows = shown_rows(images, split)
            words = "training" if split == "train" else split
            whole = len(used_rows(images, split))
            count = f"{len(rows)} of {whole:,}, drawn at random" if len(rows) < whole else f"all {whole}"
            of_set = f" of '{images.source.name}'" if len(sets) > 1 else ""
            bands.append((f"{words} images{of_set}: {count}", cells_of(images, split, rows)))
    heights = [LINE + GAP + -(-len(cells) // COLUMNS) * (SIDE + 2 * LINE + GAP) for _, cells in bands]
    width = COLUMNS * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, GAP + (len(LEGEND) + 1) * LINE + sum(heights)), PAPER)
    pen, top = ImageDraw.Draw(sheet), GAP
    for line in LEGEND:
        pen.text((GAP, top), line, INK, font())
        top += LINE
    for (title, cells), height in zip(bands, heights, strict=True):
        pen.text((GAP, top + GAP), title, INK, font(bold=True))
        for place, (shown, lines) in enumerate(cells):
            left = GAP + place % COLUMNS * (SIDE + GAP)
            above = top + LINE + GAP + place // COLUMNS * (SIDE + 2 * LINE + GAP)
            sheet.paste(shown, (left, above))
            for number, line in enumerate(lines):
                pen.text((left, above + SIDE + number * LINE), fitted(line), INK, font())
        top += height
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda unfinished: sheet.save(unfinished, "PNG"))
    return path


def shown_rows(images: EvaluationData, split: str) -> list[int]:
    """The rows that are shown: of labelled images as many of each class as there is room for, others at random."""
    rows, dataset = used_rows(images, split), images.source.split(split)
    rows = np.random.default_rng(derive_seed(0, "images as read", split)).permutation(rows)
    if "label" not in dataset.column_names:
        return sorted(rows[:SHOWN].tolist())
    labels = np.asarray(dataset["label"][:])[rows]
    rank = np.empty(len(rows), int)  # of an image among those of its class
    for label in np.unique(labels):
        members = (labels == label).nonzero()[0]
        rank[members] = np.arange(len(members))
    chosen = np.argsort(rank, kind="stable")[:SHOWN]
    return rows[chosen[np.lexsort((rows[chosen], labels[chosen]))]].tolist()


def cells_of(images: EvaluationData, split: str, rows: Sequence[int]) -> list[tuple[Image.Image, list[str]]]:
    """Each image as it is drawn, with the lines below it."""
    source, cells = images.source, undecoded(images.source.split(split))
    return [drawn(cells[row], row, source, cells) for row in rows]


def drawn(record: Mapping[str, Any], row: int, source: Source, dataset: Dataset) -> tuple[Image.Image, list[str]]:
    """An image with its mask and its objects, and the lines below it: its label, and its objects by category."""
    picture = decoding.picture(record["image"], row, source.name)
    scale = SIDE / max(picture.size)
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    shown = picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)
    if "mask" in record:
        shown = with_mask(shown, *mask_of(record, row, source, picture))
    pen = ImageDraw.Draw(shown)
    inset = [(side - min(size)) / 2 for side in size]
    if max(inset) >= 1:
        pen.rectangle((inset[0], inset[1], size[0] - 1 - inset[0], size[1] - 1 - inset[1]), outline=CROPPED)
    lines = []
    if "label" in record:
        names = source.class_names
        lines.append(names[record["label"]] if names else str(record["label"]))
    if "objects" in record:
        names = source.class_names or category_names(dataset.features["objects"])
        lines.append(draw_objects(pen, record["objects"], names, scale))
    return shown, lines


def mask_of(record: Mapping[str, Any], row: int, source: Source, picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Where the object is (H, W) uint8, see :func:`scd.data.masks.foreground`, and the regions (H, W) that have edges.

    Raises:
        DataError: a mask that cannot be decoded or has another size than its picture.
    """
    what = f"{decoding.place(record['mask'] or {}, row, source.name)}: the mask"
    values = read_mask(record["mask"], "mask", row, source.name, source.mask_kind)
    check_size(values, picture, what)
    found = foreground(values, source.mask_kind, source.foreground, what)
    return found, values if source.mask_kind == "instances" else found


def with_mask(shown: Image.Image, found: np.ndarray, regions: np.ndarray) -> Image.Image:
    """An image with what is not the object darkened, what is unknown tinted, and the edges of regions."""
    width, height = shown.size
    down, across = (
        ((np.arange(side) + 0.5) * whole / side).astype(int)
        for side, whole in ((height, found.shape[0]), (width, found.shape[1]))
    )
    found, regions = (values[down][:, across] for values in (found, regions))
    pixels = np.asarray(shown).astype(float)
    pixels[~is_object(found)] *= DARKENED
    pixels[found == UNKNOWN] += 0.5 * np.array(TINT)
    pixels = pixels.clip(0, 255).astype(np.uint8)
    pixels[find_boundaries(regions, mode="inner")] = EDGES
    return Image.fromarray(pixels)


def draw_objects(
    pen: ImageDraw.ImageDraw, objects: Mapping[str, Any] | list[dict] | None, names: Sequence[str] | None, scale: float
) -> str:
    """Draw the boxes of objects, whose fields are lists, or each is a mapping; how many there are of each category."""
    objects = entries_of(objects)
    words = [names[one["category"]] if names else str(one["category"]) for one in objects]
    for one, word in zip(objects, words, strict=True):  # a category without a list of names may be text
        box = one.get("bbox")
        if box is None or len(box) != 4 or None in box:
            continue
        colour = CROWD if one.get("iscrowd") else PALETTE[zlib.crc32(word.encode()) % len(PALETTE)]
        left, top, wide, high = (scale * each for each in box)
        pen.rectangle((left, top, max(left, left + wide - 1), max(top, top + high - 1)), outline=colour, width=2)
        if len(objects) <= NAMED:
            place = left + 3, top + 2
            pen.rectangle(pen.textbbox(place, word, font()), fill=INK)
            pen.text(place, word, colour, font())
    return ", ".join(f"{word} {count}" for word, count in Counter(words).most_common()) or "no object"


@lru_cache(maxsize=2)
def font(bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), LINE - 6)


def fitted(text: str) -> str:
    """A text in one line, cut to the width of an image."""
    text = " ".join(text.split())
    while font().getlength(text) > SIDE and len(text) > 1:
        text = text[:-2] + "…"
    return text
