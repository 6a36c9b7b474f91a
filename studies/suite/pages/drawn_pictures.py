"""Pictures of the user with the maps of networks: read, annotated, shown to each network, and drawn.

Of a picture's pixels only small copies are kept between the networks; it is read again where it is drawn.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from scd.data.images import ImageSet
from scd.data.pictures import canvas, read_picture, whole_picture
from scd.errors import UsageError
from scd.evaluation.whole_pictures import TAU, Network, at_size, backbone_maps, network_of, own_map
from scd.method import Method
from studies.suite.pages import contact_sheet, picture_maps
from studies.suite.pages.exported_backbones import load_exported
from studies.suite.pages.picture_maps import Panel
from studies.suite.pages.shown_runs import StoredRun, load
from studies.suite.planning.assembly import instantiate
from studies.suite.planning.command_line import presets
from studies.suite.planning.staleness import Standing

CANVAS = 128  # side of the squares that annotators see; RBD's choices were made at this size
BOXES = 20  # of selective search that are drawn, the first ones
ANNOTATORS = ("rbd", "felzenszwalb", "selective_search")
NOTES = (  # on all pictures of a sheet
    "Pictures are upright as their EXIF orientation says; transparency and colour profiles are ignored.",
    "A network sees the whole picture: its shorter side is resized to the side that the run was evaluated at, and the "
    "aspect ratio is kept up to 4 to 1. The captions say what was done.",
    "A map has the positions of the network's last feature map. It is interpolated bilinearly to the picture's size.",
    f"TokenCut shows the whole foreground of the cut, at tau = {TAU}, which suits ViTs that were trained with DINO.",
    "No map is inverted: one that marks the background has the colour of 0 on the object.",
)


@dataclass
class Picture:
    """A picture while its maps are made; of its pixels only small copies are kept.

    Args:
        path: of its file; png: name of its PNG.
        size: width and height, upright.
        copies: (width, height) -> the picture at that size, as a network sees it.
        annotated: what each annotator found.
        panels: of the runs, in their order, with maps in the place of images.
    """

    path: Path
    png: str
    size: tuple[int, int]
    copies: dict[tuple[int, int], Image.Image] = field(default_factory=dict)
    annotated: dict[str, np.ndarray] = field(default_factory=dict)
    panels: list[tuple[Panel, Tensor | None]] = field(default_factory=list)


@dataclass(frozen=True)
class Subject:
    """A network whose maps are drawn.

    Args:
        title: what it is called; lines: of its captions; group: equal for its panels.
        method: None for an exported backbone.
    """

    title: str
    lines: tuple[str, ...]
    group: str
    backbone: nn.Module
    network: Network
    method: Method | None = None


# -------------------------------------------------------------------- networks


def subject_of(run: StoredRun) -> Subject:
    """A stored run as a network to draw.

    Raises:
        UsageError: its weights do not fit, or an earlier run that it needs is missing.
    """
    method = load(run)
    lines = [f"run {run.id}", f"trained on {run.training}", f"supervision: {run.supervision}"]
    if run.judgement.standing is not Standing.CURRENT:
        lines.append("made by older code, drawn with today's")
    try:
        network = network_of(method.backbone, run.config["evaluation"]["size"])
    except UsageError as error:
        raise UsageError(f"run {run.id}: {error}; choose another run") from error
    return Subject(run.name, tuple(lines), run.id, method.backbone, network, method)


def exported_subject(path: Path) -> Subject:
    """An exported backbone as a network to draw.

    Raises:
        UsageError: a file that is none, or that fits no network.
    """
    exported = load_exported(path)
    lines = (f"{path.name}, names of {exported.naming}", "training and supervision: the file does not say")
    try:
        network = network_of(exported.backbone, exported.side)
    except UsageError as error:
        raise UsageError(f"'{path}': {error}; give the folder of its run") from error
    return Subject(f"exported {exported.name}", lines, str(path), exported.backbone, network)


# -------------------------------------------------------------------- pictures


def annotators() -> dict[str, Any]:
    """The annotators that are drawn, with the options of ``conf/annotator``."""
    return {name: instantiate(presets()["annotator"][name]) for name in ANNOTATORS}


def read(path: Path, png: str, annotators: dict[str, Any]) -> Picture:
    """A picture with what the annotators make of it.

    Raises:
        DataError: a file that is no picture.
    """
    image = read_picture(path)
    square = canvas(image, CANVAS)
    picture = Picture(path, png, image.size)
    for name, annotator in annotators.items():  # of RBD the soft maps, which its masks are cut from
        found = annotator.maps(square) if name == "rbd" else annotator(square, ImageSet(square))
        picture.annotated[name] = found[0].numpy()
    return picture


def png_names(files: Sequence[Path]) -> list[str]:
    """A name for the PNG of each file: that of the file, with what tells it from others of the same name."""
    stems = Counter(file.stem.casefold() for file in files)
    taken, names = set(), []
    for file in files:
        name = file.stem if stems[file.stem.casefold()] == 1 else f"{file.parent.name}-{file.name}"
        number = 1
        while (unique := name if number == 1 else f"{name}-{number}").casefold() in taken:
            number += 1
        taken.add(unique.casefold())
        names.append(f"{unique}.png")
    return names


def panels_of(subject: Subject, picture: Picture) -> list[tuple[Panel, Tensor | None]]:
    """The maps (h, w) of a network for one picture, with their captions; None in the place of one that there is not.

    Raises:
        UsageError: maps outside [0, 1], or features that are not finite.
    """
    seen = subject.network.seen(picture.size)
    size = seen.width, seen.height
    if size not in picture.copies:
        picture.copies[size] = read_picture(picture.path).resize(size, Image.Resampling.BILINEAR)
    view = whole_picture(picture.copies[size], seen)
    found = backbone_maps(subject.backbone, view)
    own = None if subject.method is None else own_map(subject.method, view)
    panels: list[tuple[Panel, Tensor | None]] = []

    def add(title: str, values: Tensor | None, *lines: str) -> None:
        held = () if values is None else (f"{values.shape[1]} x {values.shape[0]} positions, {value_range(values)}",)
        panels.append((Panel(title, (*lines, *held, *subject.lines, seen.words), None, subject.group), values))

    if own is not None:
        add(subject.title, own, "the method's own map")
    elif subject.method is not None and type(subject.method).saliency is not Method.saliency:
        add(subject.title, None, "its own map needs the true mask, which this picture does not have")
    if found.foreground is None:
        add(f"TokenCut, {subject.title}", None, f"{found.positions} positions are too many to cut")
    else:
        add(f"TokenCut, {subject.title}", found.foreground, f"cut of the {found.source}")
    if found.attention is not None:
        add(f"Attention, {subject.title}", found.attention, "class token to patches, mean over heads, rescaled")
    return panels


def value_range(values: Any) -> str:
    """The least and the largest value of a map."""
    return f"values {float(values.min()):.2f} to {float(values.max()):.2f}"


def write(picture: Picture, out: Path, side: int) -> contact_sheet.Shown:
    """Write the PNG of a picture into a folder; its entry of the sheet.

    Args:
        side: most pixels of the longer side of a panel; 0: the picture's own size.
    """
    size = picture_maps.shown_size(picture.size, side)
    image = picture_maps.shown(read_picture(picture.path), size)
    panels = annotator_panels(picture, image)
    for panel, values in picture.panels:
        panels.append(replace(panel, image=None if values is None else at_size(values, *size).clamp(0, 1).numpy()))
    scale = "drawn at its own size" if size == picture.size else f"drawn at {size[0]} x {size[1]} px"
    lines = f"{picture.size[0]} x {picture.size[1]} px, upright", scale
    picture_maps.draw(out / picture.png, picture.path.name, "; ".join(lines), panels, size)
    return contact_sheet.entry(str(picture.path), picture.png, lines, size, panels)


def annotator_panels(picture: Picture, image: np.ndarray) -> list[Panel]:
    """The picture (h, w, 3), and what annotators that were not trained make of it."""
    size, group = (image.shape[1], image.shape[0]), "without training"
    said = f"squeezed to {CANVAS} x {CANVAS} px, not cropped", "not trained; supervision: none"
    saliency, segments, boxes = (picture.annotated[name] for name in ANNOTATORS)
    drawn = at_size(torch.from_numpy(saliency), *size).clamp(0, 1).numpy()
    first = f"the first {BOXES} of {len(boxes)} boxes" if len(boxes) > BOXES else f"{len(boxes)} boxes"
    return [
        Panel("Picture", (f"{picture.size[0]} x {picture.size[1]} px, upright",), image, group),
        Panel("RBD", ("robust background detection", value_range(saliency), *said), drawn, group),
        Panel("Felzenszwalb", (f"{segments.max() + 1} segments of like colour", *said),
              picture_maps.with_segments(image, segments), group),
        Panel("Selective search", (first, *said), picture_maps.with_boxes(image, boxes[:BOXES]), group),
    ]  # fmt: skip
