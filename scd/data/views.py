"""Views of a batch of images: what a recipe asks for, and the crops with their geometry.

A recipe names its crops; a :class:`ViewMaker` turns uint8 images into one :class:`scd.method.View` per crop. The
pixels, masks, segments, boxes and coordinate grid of a view come from the same rectangle and the same flip, so they
line up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scd.data.crops import (
    RECTANGLE_DRAWS,
    interpolation_matrix,
    nearest_pixels,
    pick_pixels,
    resample,
    row_layout,
    sample_rectangles,
)
from scd.data.loader import ImageBatch
from scd.data.photometric import (
    PHOTOMETRIC_DRAWS,
    apply_photometric,
    draw_parameters,
    photometric,
    share_blurred,
)
from scd.data.view_boxes import boxes_in_view
from scd.errors import UsageError, unknown
from scd.method import NEEDS, Batch, View
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from scd.seeds import generator

ROLES = ("global", "extra")


@dataclass(frozen=True)
class CropSpec:
    """One crop of a recipe.

    Args:
        name: the view's name; its random numbers depend on this name, the seed and the step alone.
        size: side of the square view in pixels.
        scale: range of the rectangle's area as a share of the image's area.
        ratio: range of the rectangle's width over height, drawn log-uniformly.
        photometric: name of the photometric augmentation ("mocov2", "byol1", "byol2", "local", "none").
        role: "global" views may feed the target branch, "extra" views are online only.
        flip: probability of a horizontal flip.
        rectangle_of: name of a view whose rectangle is used again, with a fresh flip and fresh photometrics.
        blur_reference: side in pixels of the papers' view, to which the blur's sigma refers; here it is scaled by
            ``size / blur_reference``.
        weight: of the view's pairs in the mean of the image-level loss.
    """

    name: str
    size: int
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    photometric: str = "mocov2"
    role: str = "global"
    flip: float = 0.5
    rectangle_of: str | None = None
    blur_reference: float = 224.0
    weight: float = 1.0

    def __post_init__(self):
        photometric(self.photometric)
        for option in ("blur_reference", "weight"):
            if not 0 < getattr(self, option) < math.inf:
                raise UsageError(f"view '{self.name}': {option} is {getattr(self, option)}, it must be above 0")
        if self.role not in ROLES:
            raise unknown("role of a view", self.role, ROLES)
        if self.size < 1:
            raise UsageError(f"view '{self.name}': size is {self.size}, it must be at least 1 pixel")
        for option in ("scale", "ratio"):
            low, high = getattr(self, option)
            if not 0 < low <= high:
                raise UsageError(f"view '{self.name}': {option} is ({low}, {high}), it needs 0 < low <= high")
        if self.scale[1] > 1:
            raise UsageError(f"view '{self.name}': scale ends at {self.scale[1]}, a crop has at most the area 1")
        if not 0 <= self.flip <= 1:
            raise UsageError(f"view '{self.name}': flip is {self.flip}, a probability lies in [0, 1]")

    @property
    def sigma_scale(self) -> float:
        """What the papers' blur sigma is multiplied by."""
        return self.size / self.blur_reference

    @property
    def share_blurred(self) -> float:
        """Share of these views that are blurred at all."""
        return share_blurred(photometric(self.photometric), self.sigma_scale)


@dataclass(frozen=True)
class Recipe:
    """The crops that are made of each image, under a name for reports."""

    name: str
    crops: tuple[CropSpec, ...]

    def __post_init__(self):
        by_name = {crop.name: crop for crop in self.crops}
        if len(by_name) < len(self.crops):
            raise UsageError(f"recipe '{self.name}': two views have the same name")
        for crop in self.crops:
            if crop.rectangle_of is None:
                continue
            if crop.rectangle_of not in by_name:
                raise unknown(f"view (rectangle_of '{crop.name}')", crop.rectangle_of, by_name)
            if by_name[crop.rectangle_of].rectangle_of is not None:
                raise UsageError(f"view '{crop.name}': '{crop.rectangle_of}' has no rectangle of its own")


class ViewMaker:
    """Makes the views of a recipe from batches of uint8 images.

    The random numbers of a view come from ``generator(seed, "augmentation", step, name)``: arms that share a view's
    name and settings share its pixels, whatever other views they have.

    Args:
        recipe: the crops.
        seed: the run's seed.
        device: where the views are made; random numbers are drawn on the CPU, so devices agree.
        needs: what the views carry beside pixels ("masks", "segments", "boxes"), and whether the batch carries
            "labels"; the image batches must have all of it.
        mean, std: normalisation of the three channels, for values in [0, 1].
        steps_at_once: how many steps' views the training loop should make together, because operations on a larger
            batch are faster. It changes no pixel.
    """

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        device: str | torch.device = "cpu",
        needs: frozenset[str] = frozenset(),
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        steps_at_once: int = 1,
    ):
        for kind in needs:
            if kind not in NEEDS:
                raise unknown("need of a method", kind, NEEDS)
        self.recipe = recipe
        self.seed = seed
        self.device = torch.device(device)
        self.needs = frozenset(needs)
        self.mean = mean
        self.std = std
        self.steps_at_once = steps_at_once
        self.crops = {crop.name: crop for crop in recipe.crops}

    def __call__(self, batch: ImageBatch, step: int) -> Batch:
        """All views of a batch.

        Args:
            batch: the images. Those of one process of several (``batch.rows`` of ``batch.total``) get the crops that
                they would get in a single process.
            step: the training step; with the seed and the view's name it fixes the random numbers.

        Raises:
            ValueError: images that are not uint8 (B, 3, S, S), rows that do not match, or annotations that are missing
                or of another size.
        """
        return self.several([batch], [step])[0]

    @torch.no_grad()
    def several(self, batches: Sequence[ImageBatch], steps: Sequence[int]) -> list[Batch]:
        """The batches of several steps, made as one larger batch; arguments and errors as for a call."""
        for batch in batches:
            self._check(batch)
        with torch.autocast(self.device.type if self.device.type != "meta" else "cpu", enabled=False):
            source = row_layout(torch.cat([batch.images for batch in batches]).to(self.device))
            draws = {
                name: torch.cat([self._draws(step, name, batch) for step, batch in zip(steps, batches, strict=True)])
                for name in self._streams()
            }
            annotations = {kind: self._joined(kind, batches) for kind in self.needs - {"labels"}}
            made = [view for crops in self._alike() for view in self._views(crops, source, draws, annotations)]
        views = {view.name: view for view in made}
        out, start = [], 0
        for batch in batches:
            rows = slice(start, start + len(batch.images))
            parts = {crop.name: views[crop.name].part(rows) for crop in self.recipe.crops}
            labels = batch.labels.to(self.device) if "labels" in self.needs else None
            out.append(Batch(parts, batch.indices.to(self.device), labels))
            start = rows.stop
        return out

    def _check(self, batch: ImageBatch) -> None:
        images, shape = batch.images, tuple(batch.images.shape)
        if images.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise ValueError(f"images must be uint8 (B, 3, S, S), not {images.dtype} {shape}")
        if len(range(*batch.rows.indices(batch.total))) != shape[0]:
            raise ValueError(f"rows {batch.rows} of {batch.total} are not the {shape[0]} images given")
        if "labels" in self.needs and batch.labels is None:
            raise ValueError("the method needs labels, but the batch has none")
        for kind in self.needs - {"labels"}:
            values = batch.annotations.get(kind)
            if values is None:
                raise ValueError(f"the method needs {kind}, but the batch has none")
            if kind == "boxes":
                if len(values) != shape[0]:
                    raise ValueError(f"there are boxes of {len(values)} images, but {shape[0]} images")
            elif tuple(values.shape) != (shape[0], *shape[2:]):
                raise ValueError(f"{kind} are {tuple(values.shape)}, images {shape}")

    def _streams(self) -> set[str]:
        return {name for crop in self.recipe.crops for name in (crop.name, crop.rectangle_of) if name is not None}

    def _alike(self) -> list[list[CropSpec]]:
        """The crops in groups of equal settings: a group is made at once, as a larger batch."""
        groups = {}
        for crop in self.recipe.crops:
            place = self.crops[crop.rectangle_of or crop.name]
            settings = (crop.size, crop.flip, crop.photometric, crop.blur_reference, place.scale, place.ratio)
            groups.setdefault(settings, []).append(crop)
        return list(groups.values())

    def _draws(self, step: int, name: str, batch: ImageBatch) -> Tensor:
        """(B, ...) uniform numbers of one view: rectangle, flip, photometrics. The layout is part of the pairing."""
        columns = RECTANGLE_DRAWS + 1 + PHOTOMETRIC_DRAWS
        return torch.rand(batch.total, columns, generator=generator(self.seed, "augmentation", step, name))[batch.rows]

    def _joined(self, kind: str, batches: Sequence[ImageBatch]) -> Tensor | tuple[Tensor, list[int]]:
        """The annotations of one kind of all batches, on the device; boxes (M, 4) with their number in each image."""
        values = [batch.annotations[kind] for batch in batches]
        if kind == "boxes":
            boxes = [one for part in values for one in part]
            return torch.cat(boxes).to(self.device), [len(one) for one in boxes]
        return torch.cat(values).to(self.device)

    def _views(
        self,
        crops: list[CropSpec],
        source: Tensor,
        draws: dict[str, Tensor],
        annotations: dict[str, Tensor | tuple[Tensor, list[int]]],
    ) -> list[View]:
        """The views (V of them) of crops with equal settings."""
        b, v, size = len(source), len(crops), crops[0].size
        places = [self.crops[crop.rectangle_of or crop.name] for crop in crops]
        own = torch.stack([draws[crop.name] for crop in crops])  # (V, B, draws)
        rectangles = torch.stack([draws[place.name][:, :RECTANGLE_DRAWS] for place in places], dim=1)  # (B, V, draws)
        rectangles = sample_rectangles(rectangles.flatten(0, 1), places[0].scale, places[0].ratio)
        rectangles = rectangles.to(self.device)  # (B*V, 4)
        flips = (own[:, :, RECTANGLE_DRAWS] < crops[0].flip).to(self.device)  # (V, B)
        x0, y0, x1, y1 = rectangles.unbind(dim=1)
        vertical = interpolation_matrix(y0, y1, source.shape[1], size).unflatten(0, (b, v))
        horizontal = interpolation_matrix(x0, x1, source.shape[3], size, flips.T.flatten()).unflatten(0, (b, v))
        cuts = resample(source, vertical, horizontal)  # (V, B, 3, s, s)
        distribution = photometric(crops[0].photometric)
        drawn = own[:, :, RECTANGLE_DRAWS + 1 :].flatten(0, 1)
        parameters = draw_parameters(drawn, distribution, crops[0].sigma_scale)
        cuts = normalise(apply_photometric(cuts.flatten(0, 1), parameters), self.mean, self.std).unflatten(0, (v, b))
        masks = segments = boxes = [None] * v
        if "masks" in annotations:
            objects = annotations["masks"].to(torch.float32)[:, :, None, :]  # (B, S, 1, S)
            masks = (resample(objects, vertical, horizontal)[:, :, 0] > 0.5).float()
        if "segments" in annotations:
            rows = nearest_pixels(y0, y1, source.shape[1], size).unflatten(0, (b, v))
            columns = nearest_pixels(x0, x1, source.shape[3], size, flips.T.flatten()).unflatten(0, (b, v))
            segments = pick_pixels(annotations["segments"], rows, columns).long()
        rectangles = rectangles.unflatten(0, (b, v)).transpose(0, 1).contiguous()  # (V, B, 4)
        if "boxes" in annotations:
            boxes = [_view_boxes(*annotations["boxes"], rectangles[i], flips[i]) for i in range(v)]
        return [
            View(crop.name, crop.role, cuts[i], rectangles[i], flips[i], masks[i], segments[i], boxes[i], crop.weight)
            for i, crop in enumerate(crops)
        ]


def _view_boxes(boxes: Tensor, counts: Sequence[int], rectangles: Tensor, flips: Tensor) -> list[Tensor]:
    """Boxes (M, 4) of all images, ``counts`` of each, as one tensor per image in the coordinates of its view."""
    image = torch.repeat_interleave(torch.tensor(counts)).to(rectangles.device)  # (M,) image of each box
    seen, _ = boxes_in_view(boxes, rectangles[image], flips[image])
    return list(seen.split(counts))
