"""Images with the class of every pixel that shows an object, and regions of images with what a network sees of them.

True classes come from one of three kinds of data, the first that fits: objects with an instance map; labels with
masks, where the object has the class of its image; masks of class ids. Everything else is background.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from scd.data.crops import interpolation_matrix, resample, row_layout
from scd.data.masks import is_known, is_object
from scd.data.scene_set import SceneSet
from scd.errors import DataError
from scd.evaluation.features import BATCH, finite, frozen
from scd.evaluation.localization import extents
from scd.evaluation.protocol import EvaluationData
from scd.evaluation.scenes import holds_instances
from scd.nn.features import maps_and_vector
from scd.nn.normalisation import normalise

IGNORED = 255  # in maps of classes
BACKGROUND = 0
UNKNOWN = -1  # in maps of classes before they are numbered


@dataclass
class Regions:
    """R regions of a set of images.

    Args:
        image: (R,) int64, the row of each region's image.
        masks: (R, S, S) bool, each with a pixel at least.
    """

    image: Tensor
    masks: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def subset(self, chosen: Tensor) -> "Regions":
        """Some of the regions, by a mask (R,) or by their rows."""
        return Regions(self.image[chosen], self.masks[chosen])


def whole_masks(masks: Tensor) -> Regions:
    """Each mask (N, S, S) bool that is not empty as one region."""
    image = masks.flatten(1).any(dim=1).nonzero()[:, 0]
    return Regions(image, masks[image])


@dataclass
class ClassMaps:
    """Images with the class of each pixel.

    Args:
        images: (N, 3, S, S) uint8.
        classes: (N, S, S) uint8, 0 on the background, k on objects of the k-th class, 255 where it is unknown.
        count: number of classes with the background.
        objects: the true objects: instances, or what an image shows of one class.
    """

    images: Tensor
    classes: Tensor
    count: int
    objects: Regions = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)


def has_class_maps(data: EvaluationData) -> bool:
    """Whether the training and the scored images say which pixels show an object of which class."""
    return _kind(data) is not None


def class_maps(data: EvaluationData) -> tuple[ClassMaps, ClassMaps]:
    """The training and the scored images. The classes are those that any of them shows, numbered from 1 in order.

    Raises:
        DataError: no object in the training or in the scored images, or more than 254 classes.
    """
    raw = {split: _raw(data, split) for split in ("train", "test")}
    present: set[int] = set()
    for split, (_, ids, _) in raw.items():
        found = set(ids.unique().tolist()) - {UNKNOWN, BACKGROUND}
        if not found:
            name = split if split == "train" else data.split
            raise DataError(f"no image of '{data.source.name}' {name} shows an object of a known class")
        present |= found
    if len(present) >= IGNORED:
        raise DataError(
            f"'{data.source.name}' shows {len(present)} classes of objects; clusters are matched with 254 at most"
        )
    table = torch.full((max(present) + 2,), IGNORED, dtype=torch.uint8)  # the last entry is that of UNKNOWN
    table[BACKGROUND] = BACKGROUND
    table[torch.tensor(sorted(present))] = torch.arange(1, len(present) + 1, dtype=torch.uint8)
    train, test = (ClassMaps(images, table[ids], len(present) + 1, objects) for images, ids, objects in raw.values())
    return train, test


def _kind(data: EvaluationData) -> Literal["instances", "labels", "classes"] | None:
    if all(holds_instances(data, split) for split in ("train", data.split)):
        return "instances"
    if data.has("label") and data.has("mask"):
        return "labels"
    return "classes" if data.has("mask") and data.source.mask_kind == "classes" else None


def _raw(data: EvaluationData, part: Literal["train", "test"]) -> tuple[Tensor, Tensor, Regions]:
    """Images, maps (N, S, S) int64 of -1 (unknown), 0 and a class's number + 1, and the objects."""
    kind = _kind(data)
    if kind == "labels":
        found = data.train if part == "train" else data.test
        ids = is_object(found.masks) * (found.labels + 1)[:, None, None]
        ids[~is_known(found.masks)] = UNKNOWN
        return found.images, ids, _of_classes(ids)
    scenes = data.train_scenes if part == "train" else data.test_scenes
    ids = _of_instances(scenes) if kind == "instances" else _of_segments(scenes, data.source.foreground)
    ids[scenes.semantic == IGNORED] = UNKNOWN
    if kind == "classes":
        return scenes.images, ids, _of_classes(ids)
    image = torch.repeat_interleave(torch.tensor([len(masks) for masks in scenes.instances]))
    return scenes.images, ids, Regions(image, torch.cat(scenes.instances))


def _of_instances(scenes: SceneSet) -> Tensor:
    ids = torch.zeros(scenes.semantic.shape, dtype=torch.int64)
    for row, (masks, classes) in enumerate(zip(scenes.instances, scenes.classes, strict=True)):
        for mask, number in zip(masks, classes, strict=True):
            ids[row][mask] = number + 1
    return ids


def _of_segments(scenes: SceneSet, foreground: tuple[int, ...] | None) -> Tensor:
    ids = scenes.semantic.long()
    shown = ids > 0 if foreground is None else torch.from_numpy(np.isin(ids.numpy(), foreground))
    return torch.where(shown, ids + 1, BACKGROUND)


def _of_classes(ids: Tensor) -> Regions:
    """For each image and class that it shows the pixels of this class, as one region."""
    image, masks = [], [torch.zeros(0, *ids.shape[1:], dtype=torch.bool)]
    for row, own in enumerate(ids):
        for number in own.unique().tolist():
            if number not in (UNKNOWN, BACKGROUND):
                image.append(row)
                masks.append((own == number)[None])
    return Regions(torch.tensor(image, dtype=torch.int64), torch.cat(masks))


# ---------------------------------------------------------------- what a network sees of regions


def region_features(
    backbone: nn.Module, images: Tensor, regions: Regions, size: int, device: str | torch.device = "cpu"
) -> Tensor:
    """The backbone's vector (R, C) float32 of each region's box, cut out and resized as if it were an image.

    The box becomes square, so that its proportions change; no pixel around it is seen, but those just outside that
    antialiasing needs (see :func:`scd.data.crops.interpolation_matrix`). Batch norm in evaluation mode.

    Args:
        backbone: on ``device``, see :func:`scd.evaluation.features.extract`.
        images: (N, 3, S, S) uint8.
        size: side in pixels of the view that the network sees.

    Raises:
        UsageError: features that are not finite.
    """
    with frozen(backbone):
        parts = [
            maps_and_vector(backbone(crops.to(device)))[1].float() for crops in region_crops(images, regions, size)
        ]
    return finite(torch.cat(parts))


def region_crops(images: Tensor, regions: Regions, size: int, batch: int = BATCH) -> Iterator[Tensor]:
    """The boxes of regions as normalised images (b, 3, size, size), ``batch`` at a time."""
    side = images.shape[2]
    for image, boxes in zip(regions.image.split(batch), extents(regions.masks).float().split(batch), strict=True):
        x0, y0, x1, y1 = boxes.unbind(dim=1)
        vertical, horizontal = (
            interpolation_matrix(low, high, side, size)[:, None] for low, high in ((y0, y1), (x0, x1))
        )
        yield normalise(resample(row_layout(images[image]), vertical, horizontal)[0])
