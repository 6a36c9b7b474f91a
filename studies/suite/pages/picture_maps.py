"""One picture with its maps as a PNG: panels of the picture's own shape in one colour scale, each with its caption.

Panels are drawn pixel by pixel (``figimage``), so that a position of a map lies where the picture has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw
from skimage.segmentation import find_boundaries

from scd.errors import UsageError
from studies.suite.pages.figures import DPI, LOOK, PALETTE, SOFT, plt, save

SCALE = colormaps["viridis"]  # of all maps: from 0 to 1
EDGES = (255, 235, 59)  # of segments, on the picture
LEAST, MOST = 240, 480  # pixels of the longer side of a panel; a smaller picture is enlarged by a whole factor
WIDTH = 300  # pixels of a column at least, for the caption
COLUMNS, GAP, LINE, HEAD = 5, 24, 21, 76  # panels in a row; pixels between them, of a line of text, and of the head
LARGEST = 2**16  # pixels of a side of a PNG, of matplotlib
TITLE_SIZE, TEXT_SIZE = 8.0, 6.5  # points
CHARACTER = 7.6  # pixels of a character of a caption, about
BOLD = 0.68  # characters of a title to one of the other lines


@dataclass(frozen=True)
class Panel:
    """One panel.

    Args:
        title: of the method or annotator.
        lines: of the caption below.
        image: a map (h, w) in [0, 1], or the picture with something drawn on it (h, w, 3) uint8; None: there is none.
        group: panels of one run have one group.
    """

    title: str
    lines: tuple[str, ...]
    image: np.ndarray | None
    group: str = ""


def shown_size(size: tuple[int, int], most: int = MOST) -> tuple[int, int]:
    """Width and height at which a picture is drawn: its own, reduced to ``most`` pixels, or enlarged where it is small.

    Args:
        size: its width and height. most: pixels of the longer side; 0: the picture's own size, whatever it is.
    """
    longer = max(size)
    if most and longer > most:
        return max(1, round(size[0] * most / longer)), max(1, round(size[1] * most / longer))
    factor = max(1, LEAST // longer) if most else 1
    return size[0] * factor, size[1] * factor


def shown(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The picture (h, w, 3) uint8 at the size at which it is drawn."""
    if size == image.size:
        return np.asarray(image)
    filter_ = Image.Resampling.NEAREST if size[0] > image.width else Image.Resampling.BILINEAR
    return np.asarray(image.resize(size, filter_))


def with_segments(picture: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The picture (h, w, 3) with the edges of segments (S, S), which cover it whole."""
    rows, columns = (((np.arange(n) + 0.5) * len(segments) / n).astype(int) for n in picture.shape[:2])
    drawn = picture.copy()
    drawn[find_boundaries(segments[rows][:, columns], mode="inner")] = EDGES
    return drawn


def with_boxes(picture: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The picture (h, w, 3) with the outlines of boxes (n, 4), x0, y0, x1, y1 in [0, 1] of the picture."""
    drawn = Image.fromarray(picture)
    pen, (height, width) = ImageDraw.Draw(drawn), picture.shape[:2]
    for number, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        corners = (x0 * width, y0 * height, max(x1 * width - 1, x0 * width), max(y1 * height - 1, y0 * height))
        pen.rectangle(corners, outline=PALETTE[number % (len(PALETTE) - 2) + 2], width=2)
    return np.asarray(drawn)


def coloured(image: np.ndarray) -> np.ndarray:
    """A panel's image (h, w, 3) uint8: of a map the colours of the scale."""
    return image if image.ndim == 3 else palette()[levels(image)]


def levels(values: np.ndarray) -> np.ndarray:
    """Map values in [0, 1] as numbers of colours, uint8."""
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)


def palette() -> np.ndarray:
    """The 256 colours of the scale (256, 3) uint8."""
    return np.round(SCALE(np.arange(256))[:, :3] * 255).astype(np.uint8)


def draw(path: Path, title: str, note: str, panels: Sequence[Panel], size: tuple[int, int]) -> Path:
    """Write one PNG.

    Args:
        title: the name of the picture. note: what holds for all maps.
        panels: of one size. size: their width and height in pixels.

    Raises:
        UsageError: more pixels than one image may have.
    """
    width, height = size
    column = max(width, WIDTH)
    texts = [[*wrap(each.title, _characters(column, BOLD)), *_wrapped(each.lines, column)] for each in panels]
    across = min(COLUMNS, len(panels), max(1, LARGEST // (column + 2 * GAP)))
    rows = [range(start, min(start + across, len(panels))) for start in range(0, len(panels), across)]
    heights = [height + GAP + LINE * (1 + max(len(texts[place]) for place in row)) for row in rows]
    whole = (across * column + (across + 1) * GAP, HEAD + sum(heights))
    if max(whole) >= LARGEST:
        raise UsageError(f"{len(panels)} panels of {width} x {height} px are too large for one PNG; give --side={MOST}")
    with plt.rc_context(LOOK):
        figure = plt.figure(figsize=(whole[0] / DPI, whole[1] / DPI))
        _head(figure, title, note, whole)
        top = whole[1] - HEAD
        for row, below in zip(rows, heights, strict=True):
            for place in row:
                left = GAP + (place % across) * (column + GAP)
                if panels[place].image is not None:
                    figure.figimage(coloured(panels[place].image)[::-1], left, top - height, origin="lower")
                _caption(figure, texts[place], len(wrap(panels[place].title, _characters(column, BOLD))),
                         (left, top - height - 6), whole)  # fmt: skip
            top -= below
        return save(figure, path)


def _head(figure, title: str, note: str, whole: tuple[int, int]) -> None:
    """Name, colour scale and note above the panels."""
    across, down = whole
    bar = np.repeat(palette()[None, ::2], 12, axis=0)
    figure.text(GAP / across, 1 - 10 / down, title, va="top", fontsize=10, fontweight="bold", parse_math=False)
    figure.figimage(bar, GAP + LINE, down - 60)
    for place, text in ((GAP, "0"), (GAP + 1.5 * LINE + bar.shape[1], f"1   colours of all maps;   {note}")):
        figure.text(place / across, 1 - 47 / down, text, va="top", fontsize=TEXT_SIZE, color=SOFT)


def _caption(figure, lines: Sequence[str], bold: int, corner: tuple[int, int], whole: tuple[int, int]) -> None:
    """Lines of text below a panel, the first ``bold`` ones of which are its title."""
    for number, line in enumerate(lines):
        style = {"fontsize": TITLE_SIZE, "fontweight": "bold"} if number < bold else {"fontsize": TEXT_SIZE}
        place = corner[0] / whole[0], (corner[1] - LINE * number) / whole[1]
        figure.text(*place, line, va="top", parse_math=False, **style)


def _wrapped(lines: Sequence[str], column: int) -> list[str]:
    return [part for line in lines for part in wrap(line, _characters(column)) or [""]]


def _characters(column: int, share: float = 1.0) -> int:
    return max(12, int(share * column / CHARACTER))
