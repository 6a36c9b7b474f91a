"""A method's maps over its training: the same test images, scored with the weights of several points in training."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from scd.atomic import write_atomically
from scd.data.crops import interpolation_matrix, resample, row_layout
from scd.data.images import ImageSet
from scd.errors import UsageError
from scd.evaluation.collapse import MAP_METRICS, map_indicators
from scd.evaluation.emergence import LABEL_FREE, extractor_metrics, label_free, read
from scd.evaluation.features import BATCH, extract_saliency, frozen
from scd.evaluation.localization import scores
from scd.evaluation.metric import Metric
from scd.evaluation.protocol import Context, Protocol
from scd.evaluation.saliency import METRICS, saliency_scores
from scd.method import Method, View
from scd.nn.normalisation import normalise

SIDE = 0.75  # of the rectangle whose own map is compared with the whole image's
CORNERS = torch.tensor([[0.0, 0.0], [1 - SIDE, 0.0], [0.0, 1 - SIDE], [1 - SIDE, 1 - SIDE]])  # x0, y0
SCORES = {name: metric for name, metric in METRICS.items() if not name.endswith("_whole")}

VIEW_AGREEMENT = Metric(
    "agreement between views",
    "correlation in [-1, 1]",
    None,
    f"Pearson correlation over positions of the map of a corner rectangle ({SIDE:g} of the side) with the part of the "
    "whole image's map that covers it; mean over the images where both vary",
)


@dataclass(kw_only=True)
class MapsOverTraining(Protocol):
    """The maps' numbers at each snapshot of the training, and at its end.

    The number ``NAME`` after a share of the training is called ``NAME@SHARE``, for example ``saliency_iou@0.25``. The
    first maps are written to the context's folder as ``SHARE.safetensors``, each (n, h, w) float: ``learned``, the
    method's own map, and with ``extractors`` also ``attention``, mean over heads, and ``tokencut``, 0 or 1. A run
    without snapshots has no numbers.

    Args:
        images: number of test images that are scored, the first ones.
        kept: number of these whose maps are written.
        extractors: also score the class token's attention and TokenCut, see :mod:`scd.evaluation.emergence`; a method
            without a map of its own then has numbers too.
        tau: of TokenCut.

    Raises:
        UsageError: fewer than 1 image, or a negative number of maps.
    """

    images: int = 500
    kept: int = 8
    extractors: bool = False
    tau: float = 0.2

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UsageError(f"maps over training: images is {self.images}, it must be at least 1")
        if self.kept < 0:
            raise UsageError(f"maps over training: kept is {self.kept}, it must be 0 or more")

    def definitions(self) -> dict[str, Metric]:
        further = extractor_metrics(*LABEL_FREE) if self.extractors else {}
        return {**SCORES, **MAP_METRICS, "view_agreement": VIEW_AGREEMENT, **further}

    def measure(self, context: Context) -> dict[str, float]:
        test = context.data.test.subset(range(min(self.images, len(context.data.test))))
        numbers = {}
        for share, method in methods_over_training(context):
            found, maps = self.look(method, test, context)
            numbers |= {f"{name}@{share}": value for name, value in found.items()}
            if context.folder is not None and maps and self.kept:
                kept = {name: value[: self.kept].cpu().contiguous() for name, value in maps.items()}
                save_maps(kept, context.folder / f"{share}.safetensors")
        return numbers

    def look(self, method: Method, test: ImageSet, context: Context) -> tuple[dict[str, float], dict[str, Tensor]]:
        """The numbers of a method, and its maps by extractor."""
        numbers, maps, predictions = {}, {}, {}
        if self.extractors:
            readings = read(method, test.images, context.size, self.tau, device=context.device)
            learned, predictions = readings.learned, label_free(readings)
            maps = {name: predictions[name].soft for name in ("attention", "tokencut") if name in predictions}
        else:
            learned = extract_saliency(method, test.images, context.size, device=context.device)
        if learned is not None:
            maps["learned"] = learned
            numbers |= map_indicators(learned)
            if test.masks is not None:
                found = saliency_scores(learned, test.masks)
                numbers |= {name: found[name] for name in SCORES}
            agreement = view_agreement(method, test.images, learned, context.size, context.device)
            if agreement is not None:
                numbers["view_agreement"] = agreement
        if test.masks is not None:
            numbers |= scores(predictions, test.masks)
        return numbers, maps


def methods_over_training(context: Context) -> Iterator[tuple[str, Method]]:
    """A copy of the method with the weights of each snapshot in turn, and at the end the method itself.

    Nothing without snapshots: the method was not trained, or none were kept.
    """
    shares = sorted(context.snapshots)
    if not shares:
        return
    copied = copy.deepcopy(context.method)
    for share in shares:
        if share < 1:
            copied.load_evaluated_state(context.snapshots[share])
            yield share_text(share), copied
    yield share_text(1), context.method


def share_text(share: float) -> str:
    """A share of the training in the name of a number: two decimals, more where two do not tell it."""
    return f"{share:.2f}" if abs(share - round(share, 2)) < 1e-9 else f"{share:g}"


def save_maps(maps: dict[str, Tensor], path: Path) -> None:
    """Write maps as safetensors, completely or not at all."""
    write_atomically(path, lambda unfinished: save_file(maps, unfinished))


# ---------------------------------------------------------------- agreement between views


def view_agreement(
    method: Method, images: Tensor, maps: Tensor, size: int, device: str | torch.device, batch: int = BATCH
) -> float | None:
    """How far a map depends on the place in the image and not on the view: a correlation in [-1, 1].

    Pearson's correlation, over positions, between the map of a corner rectangle (3/4 of the side, corners in turn over
    the images) and the part of the whole image's map that covers it; mean over the images where both vary. None where
    no image has two maps that vary.

    Args:
        maps: (N, h, w) of the whole images.
    """
    corners = CORNERS[torch.arange(len(images)) % len(CORNERS)]
    correlations = []
    with frozen(method):
        for rows in torch.arange(len(images)).split(batch):
            view = part_view(images[rows].to(device), corners[rows], SIDE, size)
            inside = method.saliency(view).float().to(maps.device)
            correlations.append(correlation(inside, part_of_maps(maps[rows], corners[rows], inside.shape[1:])))
    values = torch.cat(correlations)
    values = values[values.isfinite()]
    return float(values.mean()) if len(values) else None


def part_view(images: Tensor, corner: Tensor, side: float, size: int) -> View:
    """The test-time view, ``size`` pixels wide, of squares of uint8 images; ``corner`` (B, 2) is x0, y0 in [0, 1]."""
    corner = corner.to(images.device)
    across, down = (
        interpolation_matrix(low, low + side, images.shape[2], size)[:, None] for low in corner.unbind(dim=1)
    )
    pixels = normalise(resample(row_layout(images), down, across)[0])
    unflipped = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    return View("part", "global", pixels, torch.cat([corner, corner + side], dim=1), unflipped)


def part_of_maps(maps: Tensor, corner: Tensor, shape: tuple[int, int]) -> Tensor:
    """The squares at ``corner`` of maps (B, h, w), bilinear, on a grid of ``shape``."""
    h, w = shape
    y = (torch.arange(h, device=maps.device) + 0.5) / h * SIDE
    x = (torch.arange(w, device=maps.device) + 0.5) / w * SIDE
    corner = corner.to(maps.device)
    grid_x = (corner[:, 0, None, None] + x).expand(-1, h, -1)
    grid_y = (corner[:, 1, None, None] + y[:, None]).expand(-1, -1, w)
    grid = torch.stack([grid_x, grid_y], dim=3) * 2 - 1  # (B, h, w, 2) in [-1, 1]
    return F.grid_sample(maps[:, None], grid, mode="bilinear", padding_mode="border", align_corners=False)[:, 0]


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation (B,) over positions of two maps (B, h, w); NaN where one of them does not vary."""
    a, b = (m.flatten(1).double() for m in (first, second))
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    spread = a.norm(dim=1) * b.norm(dim=1)
    varies = (a.abs().amax(dim=1) > 1e-6) & (b.abs().amax(dim=1) > 1e-6)
    return torch.where(varies, (a * b).sum(dim=1) / spread.clamp_min(1e-300), float("nan"))
