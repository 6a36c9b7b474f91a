"""Views of a batch of images: what a recipe asks for, and the crops with their geometry.

A recipe names its crops; a :class:`ViewMaker` turns a uint8 batch into one :class:`View` per crop. Pixels, masks and
the coordinate grid of a view come from the same rectangle and the same flip, so dense methods, masks and boxes line up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scd.data.crops import RECTANGLE_DRAWS, interpolation_matrix, resample, row_layout, sample_rectangles
from scd.data.photometric import PHOTOMETRIC_DRAWS, apply_photometric, draw_parameters, photometric
from scd.errors import UsageError, unknown
from scd.seeds import generator

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class CropSpec:
    """One crop of a recipe.

    Args:
        name: the view's name; its random numbers depend on this name, the seed and the step alone.
        size: side of the square view in pixels.
        scale: range of the rectangle's area as a share of the image's area.
        ratio: range of the rectangle's width over height, drawn log-uniformly.
        photometric: name of a photometric recipe ("mocov2", "byol1", "byol2", "local", "none").
        role: "global" views may feed the target branch, "extra" views are online only.
        flip: probability of a horizontal flip.
        rectangle_of: name of a view whose rectangle is used again, with a fresh flip and fresh photometrics.
    """

    name: str
    size: int
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    photometric: str = "mocov2"
    role: str = "global"
    flip: float = 0.5
    rectangle_of: str | None = None

    def __post_init__(self):
        photometric(self.photometric)
        if self.role not in ("global", "extra"):
            raise unknown("role of a view", self.role, ("global", "extra"))
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


@dataclass(frozen=True)
class Recipe:
    """The crops that one image yields, by a name for the report."""

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


@dataclass
class View:
    """One crop of every image in a batch, with its geometry.

    Args:
        name: the crop's name.
        role: "global" or "extra".
        images: (B, 3, s, s) float32, normalised.
        boxes: (B, 4) x0, y0, x1, y1 of the rectangle in [0, 1] of the source image.
        flips: (B,) bool, True where the view is mirrored left to right.
        masks: (B, s, s) float in {0, 1}, 1 on the object, or None.
    """

    name: str
    role: str
    images: Tensor
    boxes: Tensor
    flips: Tensor
    masks: Tensor | None = None

    def part(self, rows: slice) -> "View":
        """The view of some of the images."""
        masks = None if self.masks is None else self.masks[rows]
        return View(self.name, self.role, self.images[rows], self.boxes[rows], self.flips[rows], masks)

    def grid(self, h: int, w: int) -> Tensor:
        """Source coordinates (B, h, w, 2), x then y in [0, 1], of the centres of an h x w feature grid."""
        x0, y0, x1, y1 = self.boxes.unbind(dim=1)
        u = (torch.arange(w, device=self.boxes.device, dtype=self.boxes.dtype) + 0.5) / w
        v = (torch.arange(h, device=self.boxes.device, dtype=self.boxes.dtype) + 0.5) / h
        u = torch.where(self.flips[:, None], 1 - u, u)  # (B, w)
        x = x0[:, None] + u * (x1 - x0)[:, None]
        y = y0[:, None] + v * (y1 - y0)[:, None]  # (B, h)
        return torch.stack([x[:, None, :].expand(-1, h, -1), y[:, :, None].expand(-1, -1, w)], dim=3)


class ViewMaker:
    """Cuts the views of a recipe out of uint8 batches.

    The random numbers of a view come from ``generator(seed, "augmentation", step, name)``: arms that share a view's
    name and settings share its pixels, whatever other views they have.

    Args:
        recipe: the crops.
        seed: the run's seed.
        device: where the views are made; random numbers are drawn on the CPU, so devices agree.
        masks: cut the masks, too (for methods that declare that they need them).
        mean, std: normalisation of the three channels, for values in [0, 1].
        blur_reference: side of the view, in pixels, that the papers' blur sigma refers to; None takes sigma as pixels.
        steps_at_once: how many steps' views the training loop should ask for together: a tensor operation on a small
            batch costs as much as one on a larger batch. It changes no pixel.
    """

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        device: str | torch.device = "cpu",
        masks: bool = False,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        blur_reference: int | None = 224,
        steps_at_once: int = 1,
    ):
        self.recipe = recipe
        self.seed = seed
        self.device = torch.device(device)
        self.masks = masks
        self.mean = mean
        self.std = std
        self.blur_reference = blur_reference
        self.steps_at_once = steps_at_once
        self.crops = {crop.name: crop for crop in recipe.crops}

    def __call__(
        self,
        images: Tensor,
        step: int,
        masks: Tensor | None = None,
        rows: slice | None = None,
        total: int | None = None,
    ) -> dict[str, View]:
        """All views of a batch.

        Args:
            images: (B, 3, S, S) uint8.
            step: the training step; with the seed and the view's name it fixes the random numbers.
            masks: (B, S, S) uint8 {0, 1}; used only by a maker with ``masks=True``.
            rows, total: these B images are rows ``rows`` of a batch of ``total`` (one process of several); they get
                the crops that they would get in one process.

        Raises:
            ValueError: images that are not uint8 (B, 3, S, S), rows that do not match, masks missing or of another
                size.
        """
        return self.several([images], [step], [masks], rows, total)[0]

    @torch.no_grad()
    def several(
        self,
        images: Sequence[Tensor],
        steps: Sequence[int],
        masks: Sequence[Tensor | None],
        rows: slice | None = None,
        total: int | None = None,
    ) -> list[dict[str, View]]:
        """All views of the batches of several steps, made as one larger batch; arguments and errors as for a call."""
        for batch, objects in zip(images, masks, strict=True):
            rows, total = self._check(batch, objects, rows, total)
        with torch.autocast(self.device.type if self.device.type != "meta" else "cpu", enabled=False):
            source = row_layout(torch.cat(list(images)).to(self.device))
            objects = torch.cat(list(masks)).to(self.device, torch.float32)[:, :, None, :] if self.masks else None
            draws = {
                name: torch.cat([self._draws(step, name, rows, total) for step in steps]) for name in self._streams()
            }
            made = [view for crops in self._alike() for view in self._views(crops, source, objects, draws)]
        views = {view.name: view for view in made}
        share = len(images[0])
        return [
            {crop.name: views[crop.name].part(slice(i * share, (i + 1) * share)) for crop in self.recipe.crops}
            for i in range(len(steps))
        ]

    def _check(self, images: Tensor, masks: Tensor | None, rows: slice | None, total: int | None) -> tuple[slice, int]:
        shape = tuple(images.shape)
        if images.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise ValueError(f"images must be uint8 (B, 3, S, S), not {images.dtype} {shape}")
        total = shape[0] if total is None else total
        rows = slice(0, total) if rows is None else rows
        if len(range(*rows.indices(total))) != shape[0]:
            raise ValueError(f"rows {rows} of {total} are not the {shape[0]} images given")
        if self.masks and masks is None:
            raise ValueError("this view maker cuts masks, but none were given: the data has no masks")
        if self.masks and tuple(masks.shape) != (shape[0], *shape[2:]):
            raise ValueError(f"masks are {tuple(masks.shape)}, images {shape}")
        return rows, total

    def _streams(self) -> set[str]:
        return {name for crop in self.recipe.crops for name in (crop.name, crop.rectangle_of) if name is not None}

    def _alike(self) -> list[list[CropSpec]]:
        """The crops in groups of equal settings: a group is made in one go, as a larger batch."""
        groups = {}
        for crop in self.recipe.crops:
            place = self.crops[crop.rectangle_of or crop.name]
            settings = (crop.size, crop.flip, crop.photometric, place.scale, place.ratio)
            groups.setdefault(settings, []).append(crop)
        return list(groups.values())

    def _draws(self, step: int, name: str, rows: slice, total: int) -> Tensor:
        """(B, ...) uniform numbers of one view: rectangle, flip, photometrics. The layout is part of the pairing."""
        columns = RECTANGLE_DRAWS + 1 + PHOTOMETRIC_DRAWS
        return torch.rand(total, columns, generator=generator(self.seed, "augmentation", step, name))[rows]

    def _views(
        self, crops: list[CropSpec], source: Tensor, objects: Tensor | None, draws: dict[str, Tensor]
    ) -> list[View]:
        """The views (V of them) of crops with equal settings."""
        b, v, size = len(source), len(crops), crops[0].size
        places = [self.crops[crop.rectangle_of or crop.name] for crop in crops]
        own = torch.stack([draws[crop.name] for crop in crops])  # (V, B, draws)
        boxes = torch.stack([draws[place.name][:, :RECTANGLE_DRAWS] for place in places], dim=1)  # (B, V, draws)
        boxes = sample_rectangles(boxes.flatten(0, 1), places[0].scale, places[0].ratio).to(self.device)  # (B*V, 4)
        flips = (own[:, :, RECTANGLE_DRAWS] < crops[0].flip).to(self.device)  # (V, B)
        x0, y0, x1, y1 = boxes.unbind(dim=1)
        vertical = interpolation_matrix(y0, y1, source.shape[1], size).unflatten(0, (b, v))
        horizontal = interpolation_matrix(x0, x1, source.shape[3], size, flips.T.flatten()).unflatten(0, (b, v))
        cuts = resample(source, vertical, horizontal)  # (V, B, 3, s, s)
        sigma_scale = 1.0 if self.blur_reference is None else size / self.blur_reference
        recipe = photometric(crops[0].photometric)
        parameters = draw_parameters(own[:, :, RECTANGLE_DRAWS + 1 :].flatten(0, 1), recipe, sigma_scale)
        cuts = normalise(apply_photometric(cuts.flatten(0, 1), parameters), self.mean, self.std).unflatten(0, (v, b))
        masks = [None] * v if objects is None else (resample(objects, vertical, horizontal)[:, :, 0] > 0.5).float()
        boxes = boxes.unflatten(0, (b, v)).transpose(0, 1).contiguous()  # (V, B, 4)
        return [View(crop.name, crop.role, cuts[i], boxes[i], flips[i], masks[i]) for i, crop in enumerate(crops)]


def normalise(images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """(images - mean) / std of images (B, 3, s, s) in [0, 1], in place."""
    return images.sub_(images.new_tensor(mean).view(1, 3, 1, 1)).mul_(
        images.new_tensor(std).reciprocal_().view(1, 3, 1, 1)
    )
