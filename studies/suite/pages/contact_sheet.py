"""The contact sheet: all pictures with their maps in one HTML file without external resources."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from scd.atomic import write_text
from studies.suite.pages.answers_html import environment
from studies.suite.pages.contact_template import TEMPLATE
from studies.suite.pages.picture_maps import Panel, levels, palette

NAME = "index.html"
STOPS = 9  # of the colour scale's gradient


@dataclass(frozen=True)
class Shown:
    """One picture of the sheet.

    Args:
        name: of its file; png: name of the PNG beside the sheet.
        lines: what is known of it.
        size: width and height of its panels in pixels.
        groups: the panels without their images, each with its image as a data URI ("" where it has none). The first
            panel is the picture itself.
    """

    name: str
    png: str
    lines: tuple[str, ...]
    size: tuple[int, int]
    groups: tuple[tuple[tuple[Panel, str], ...], ...]


def entry(name: str, png: str, lines: Sequence[str], size: tuple[int, int], panels: Sequence[Panel]) -> Shown:
    """A picture for the sheet, from its panels in the order of their groups."""
    pairs = [(replace(each, image=None), "" if each.image is None else source_of(each.image)) for each in panels]
    groups = tuple(tuple(pairs) for _, pairs in groupby(pairs, key=lambda pair: pair[0].group))
    return Shown(name, png, tuple(lines), size, groups)


def write_sheet(folder: Path, shown: Sequence[Shown], notes: Sequence[str], failed: Sequence[str]) -> Path:
    """Write ``folder/index.html``.

    Args:
        notes: what was done to all pictures. failed: what could not be drawn.
    """
    colours = palette()[np.linspace(0, 255, STOPS).round().astype(int)]
    gradient = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colours.tolist())
    page = environment().from_string(TEMPLATE).render(shown=shown, notes=notes, failed=failed, gradient=gradient)
    write_text(folder / NAME, page)
    return folder / NAME


def source_of(image: np.ndarray) -> str:
    """An image as a data URI: a map (h, w) as PNG in the colours of the scale, a picture (h, w, 3) as JPEG."""
    stream = io.BytesIO()
    if image.ndim == 2:
        drawn = Image.fromarray(levels(image)).convert("P")
        drawn.putpalette(palette().tobytes())
        drawn.save(stream, "PNG", optimize=True)
        kind = "png"
    else:
        Image.fromarray(image).save(stream, "JPEG", quality=90)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
