"""The embedded generator ``scenes``: several objects of several classes on a background of several regions.

Objects and backgrounds come from the families of :mod:`scd.data.sources.drawing`, which ``shapes`` uses too. With one
object of scale 0.3 to 0.6 on one region the images are object-centric: the two forms differ in composition alone.
An image is composed from back to front: background regions, clutter, then the objects, later ones over earlier ones.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from scd.data.cache import content_hash
from scd.data.sources import drawing
from scd.data.sources.drawing import (
    CHUNK,
    LEVELS,
    add_clutter,
    as_column,
    background_names,
    class_names,
    paint_backgrounds,
    paint_objects,
    pixel_grid,
    place_objects,
    smooth_field,
)
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source, cached_dataset
from scd.errors import UsageError
from scd.seeds import derive_seed

VERSION = "1"
TRIES = 8  # attempts to place an object without hiding another
VISIBLE = 0.25  # share of an object's area that must stay visible
SMALLEST = 3  # pixels across; a smaller object may fall between the pixels
MOST = 200  # objects in an image; their numbers are 8-bit pixel values


@dataclass(frozen=True)
class ScenesOptions:
    """Options of the generator.

    Args:
        classes: number of object classes C, and of background classes, 2 to 25.
        size: side of the square images in pixels.
        train, test: number of images in each split.
        objects: smallest and largest number of objects in an image, drawn uniformly.
        scale: range of an object's extent (diameter of the disc of its area) as a fraction of the image's side.
        clutter: largest number of small distractor blobs on the background.
        regions: smallest and largest number of background regions in an image, drawn uniformly; no two regions of an
            image have one class.
        seed: seed of the images; it is independent of the seeds of runs.
        rho_train, rho_test: probability that the class of the k-th region is the partner (the class of the same number)
            of the k-th object's; where another region has that class already, the two are exchanged.
    """

    classes: int = 10
    size: int = 48
    train: int = 3000
    test: int = 1500
    objects: tuple[int, int] = (2, 6)
    scale: tuple[float, float] = (0.15, 0.4)
    clutter: int = 3
    regions: tuple[int, int] = (1, 3)
    seed: int = 1
    rho_train: float = 0.0
    rho_test: float = 0.0

    def __post_init__(self):
        for name, kind in (("objects", int), ("scale", float), ("regions", int)):
            ends = getattr(self, name)
            if not isinstance(ends, (tuple, list)) or len(ends) != 2 or any(kind(end) != end for end in ends):
                raise UsageError(f"scenes: {name} is {ends}, it needs two numbers, the smallest and the largest")
            object.__setattr__(self, name, tuple(kind(end) for end in ends))
        if not 2 <= self.classes <= LEVELS**2:
            raise UsageError(f"scenes: classes is {self.classes}, it must lie in 2 to {LEVELS**2}")
        if self.size < 16:
            raise UsageError(f"scenes: size is {self.size}, it must be at least 16 pixels")
        if self.train < 1 or self.test < 1:
            raise UsageError(f"scenes: train={self.train} and test={self.test} must be at least 1")
        if not 1 <= self.objects[0] <= self.objects[1] <= MOST:
            raise UsageError(f"scenes: objects is {self.objects}, it needs 1 <= low <= high <= {MOST}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UsageError(f"scenes: scale is {self.scale}, it needs 0 < low <= high <= 1")
        if self.scale[0] * self.size < SMALLEST:
            raise UsageError(
                f"scenes: scale {self.scale[0]} of {self.size} pixels is less than {SMALLEST} pixels across"
            )
        if self.clutter < 0:
            raise UsageError(f"scenes: clutter is {self.clutter}, it must be 0 or more")
        for name in ("rho_train", "rho_test"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"scenes: {name} is {getattr(self, name)}, it must lie in 0 to 1")
        if not 1 <= self.regions[0] <= self.regions[1] <= self.classes:
            raise UsageError(f"scenes: regions is {self.regions}, it needs 1 <= low <= high <= classes={self.classes}")

    def of_split(self, split: str) -> dict:
        """The options that a split depends on, with its own number of images."""
        shared = {
            key: value for key, value in asdict(self).items() if key not in ("train", "test", "rho_train", "rho_test")
        }
        return {**shared, "split": split, "count": getattr(self, split), "rho": getattr(self, f"rho_{split}")}


class Scenes(Source):
    """The generator as an image source, drawn once and kept in the cache.

    Columns: ``image``; ``mask`` (255 on any object); ``instances`` (PNG, 0 = none, k = k-th object); ``semantic`` (PNG
    of segment ids: class names, then background names); ``objects`` with ``bbox`` ([x, y, w, h] in pixels, around the
    visible part), ``category`` and ``iscrowd``; ``label`` where every image has one object, ``background`` where every
    image has one region.

    Args: see :class:`ScenesOptions`.

    Raises:
        UsageError: an impossible value.
    """

    embedded = True
    test_options = ("test", "rho_test")

    def __init__(
        self,
        classes: int = ScenesOptions.classes,
        size: int = ScenesOptions.size,
        train: int = ScenesOptions.train,
        test: int = ScenesOptions.test,
        objects: tuple[int, int] = ScenesOptions.objects,
        scale: tuple[float, float] = ScenesOptions.scale,
        clutter: int = ScenesOptions.clutter,
        regions: tuple[int, int] = ScenesOptions.regions,
        seed: int = ScenesOptions.seed,
        rho_train: float = ScenesOptions.rho_train,
        rho_test: float = ScenesOptions.rho_test,
    ):
        options = ScenesOptions(classes, size, train, test, objects, scale, clutter, regions, seed, rho_train, rho_test)
        versions = {"generator": "scenes", "version": VERSION, "families": drawing.VERSION}
        fingerprints = {split: content_hash({**versions, **options.of_split(split)}) for split in ("train", "test")}
        super().__init__(
            "scenes",
            {
                split: cached_dataset("scenes", fingerprint, partial(to_dataset, options, split))
                for split, fingerprint in fingerprints.items()
            },
            fingerprints,
            version=VERSION,
            class_names=class_names(classes),
            background_names=background_names(classes),
            mask_kind="binary",
            description=f"embedded generator scenes {VERSION}: {_range(options.objects)} objects of {classes} classes "
            f"on {_range(options.regions)} regions of as many background classes, {size} px, "
            f"background correlation {rho_train:g} in train and {rho_test:g} in test",
        )

    @classmethod
    def check_options(cls, **options: Any) -> None:
        ScenesOptions(**options)

    @classmethod
    def example(cls, folder: Path) -> "Scenes":
        return cls(classes=3, size=24, train=8, test=4)


@dataclass
class RenderedScenes:
    """Images (N, S, S, 3) uint8; instances (N, S, S) uint8, 0 or the object's number; semantic (N, S, S) uint8, things
    0 to C - 1 and background classes from C on; classes (N, most objects) int64 by object number, -1 beyond the image's
    number of objects; grounds (N, most regions) int64, -1 beyond its number of regions."""

    images: np.ndarray
    instances: np.ndarray
    semantic: np.ndarray
    classes: np.ndarray
    grounds: np.ndarray


def render(options: ScenesOptions, split: str, count: int) -> RenderedScenes:
    """The first ``count`` images of a split; they do not depend on how many are asked for."""
    chunks = [_chunk(options, split, index) for index in range(-(-count // CHUNK))]
    return RenderedScenes(
        *(
            np.concatenate([getattr(chunk, field) for chunk in chunks])[:count]
            for field in RenderedScenes.__dataclass_fields__
        )
    )


def _chunk(options: ScenesOptions, split: str, index: int) -> RenderedScenes:
    """CHUNK images of one seed; background, clutter and each object have streams of their own."""

    def rng(*parts: str | int) -> np.random.Generator:
        return np.random.default_rng(derive_seed(options.seed, "scenes", VERSION, split, index, *parts))

    region, grounds = split_regions(partial(rng, "regions"), options)
    labels = object_labels(rng, options)
    make_partners(grounds, labels, rng("partners"), getattr(options, f"rho_{split}"))
    image = np.empty((CHUNK, options.size, options.size, 3), np.float32)
    semantic = np.empty(region.shape, np.uint8)
    for number in range(options.regions[1]):
        rows = np.nonzero(grounds[:, number] >= 0)[0]
        painted = paint_backgrounds(rng("background", number), grounds[rows, number], options)
        where = region == number
        image[where] = painted[where[rows]]
        semantic[where] = np.broadcast_to(as_column(grounds[:, number]), where.shape)[where] + options.classes
    add_clutter(image, rng("clutter"), options)
    instances, classes = add_objects(image, semantic, labels, rng, options)
    image += np.float32(0.02) * rng("noise").standard_normal(image.shape, dtype=np.float32)
    pixels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return RenderedScenes(pixels, instances, semantic, classes, grounds)


# ---------------------------------------------------------------- composition


def split_regions(rng, options: ScenesOptions) -> tuple[np.ndarray, np.ndarray]:
    """Regions (N, S, S) uint8 of the background, and the class of each (N, most regions), -1 where there is none.

    Each further region is cut from the largest one by a straight or wavy line, which leaves at least three
    tenths of it on either side.
    """
    low, high = options.regions
    count = rng("count").integers(low, high + 1, size=CHUNK)
    grounds = rng("class").permuted(np.tile(np.arange(options.classes), (CHUNK, 1)), axis=1)[:, :high]
    grounds = np.where(np.arange(high) < count[:, None], grounds, -1)
    region = np.zeros((CHUNK, options.size, options.size), np.uint8)
    x, y = pixel_grid(options.size)
    for number in range(1, high):
        draw = rng("border", number)
        angle = as_column(draw.uniform(0, 2 * np.pi, CHUNK))
        bend = as_column(np.maximum(draw.uniform(-0.08, 0.08, CHUNK), 0))  # half of the borders are straight
        side = x * np.cos(angle) + y * np.sin(angle) + bend * smooth_field(draw, CHUNK, options.size, low=1.0, high=2.0)
        areas = np.stack([(region == k).sum(axis=(1, 2)) for k in range(number)])
        inside = region == as_column(areas.argmax(axis=0)).astype(np.uint8)
        ranked = np.sort(np.where(inside, side, np.inf).reshape(CHUNK, -1), axis=1)
        cut = (draw.uniform(0.3, 0.7, CHUNK) * areas.max(axis=0)).astype(int)
        beyond = inside & (side >= as_column(ranked[np.arange(CHUNK), cut]))
        region[beyond & as_column(count > number)] = number
    return region, grounds


def object_labels(rng, options: ScenesOptions) -> np.ndarray:
    """The classes (N, most objects) that objects are drawn with, -1 beyond the image's number of objects."""
    low, high = options.objects
    count = rng("objects").integers(low, high + 1, size=CHUNK)
    balanced = np.arange(CHUNK) % options.classes  # over the chunk
    labels = np.stack([rng("class", number).permuted(balanced) for number in range(high)], axis=1)
    return np.where(np.arange(high) < count[:, None], labels, -1)


def make_partners(grounds: np.ndarray, labels: np.ndarray, draw: np.random.Generator, rho: float) -> None:
    """Give region k the number of object k's class with probability ``rho``, in place, see :class:`ScenesOptions`.

    Args:
        grounds: (N, most regions), and labels: (N, most objects), -1 where there is none.
    """
    chosen = draw.random(grounds.shape) < rho
    for k in range(min(grounds.shape[1], labels.shape[1])):
        for row in np.nonzero(chosen[:, k] & (grounds[:, k] >= 0) & (labels[:, k] >= 0))[0]:
            same = np.nonzero(grounds[row] == labels[row, k])[0]
            if not len(same):
                grounds[row, k] = labels[row, k]
            elif same[0] > k:  # the class of an earlier region stays
                grounds[row, [k, same[0]]] = grounds[row, [same[0], k]]


def add_objects(image, semantic, labels, rng, options: ScenesOptions) -> tuple[np.ndarray, np.ndarray]:
    """Paint the objects with these labels onto images and semantic maps, in place.

    Returns instances (N, S, S) and classes by object number.

    An object that would leave less than a quarter of an earlier one visible is drawn again, and left out after
    TRIES attempts. NOTE: a fresh draw has a fresh size, so crowded images have slightly smaller objects.
    """
    high = options.objects[1]
    instances = np.zeros(image.shape[:3], np.uint8)
    classes = np.full((CHUNK, high), -1)
    areas = np.zeros((CHUNK, high + 1), int)  # whole area by object number
    placed = np.zeros(CHUNK, int)
    for number in range(high):
        own = labels[:, number]
        rows = np.nonzero(own >= 0)[0]
        for attempt in range(TRIES):
            if not len(rows):
                break
            mask, u, v = place_objects(rng("outline", number, attempt), own[rows], options)
            over = np.where(mask, as_column(placed[rows] + 1).astype(np.uint8), instances[rows])
            fits = (_areas(over, high) >= VISIBLE * areas[rows]).all(axis=1)
            good, mask = rows[fits], mask[fits]
            painted = paint_objects(rng("object", number, attempt), own[good], u[fits], v[fits], options)
            which, row, column = np.nonzero(mask)
            image[good[which], row, column] = painted[which, row, column]
            semantic[good[which], row, column] = own[good[which]]
            instances[good] = over[fits]
            placed[good] += 1
            areas[good, placed[good]] = mask.sum(axis=(1, 2))
            classes[good, placed[good] - 1] = own[good]
            rows = rows[~fits]
    return instances, classes


def _areas(instances: np.ndarray, most: int) -> np.ndarray:
    """Visible pixels (N, most + 1) of every object number, of 0 the pixels without object."""
    n = len(instances)
    keys = instances.reshape(n, -1) + (most + 1) * np.arange(n)[:, None]
    return np.bincount(keys.ravel(), minlength=n * (most + 1)).reshape(n, most + 1)


def boxes_of(instances: np.ndarray, most: int) -> np.ndarray:
    """Boxes x, y, w, h (N, most, 4) float in pixels around each object number's pixels (N, S, S); 0 where none."""
    out = np.zeros((len(instances), most, 4))
    for number in range(most):
        mask = instances == number + 1
        for axis, lines in enumerate((mask.any(axis=1), mask.any(axis=2))):  # columns give x, rows give y
            first, last = lines.argmax(axis=1), lines.shape[1] - lines[:, ::-1].argmax(axis=1)
            out[:, number, axis], out[:, number, 2 + axis] = first, last - first
        out[~mask.any(axis=(1, 2)), number] = 0
    return out


# ---------------------------------------------------------------- as a data set


def to_dataset(options: ScenesOptions, split: str) -> Dataset:
    """A split as a data set, see :class:`Scenes`."""
    rendered = render(options, split, getattr(options, split))
    things = ClassLabel(names=list(class_names(options.classes)))
    stuff = ClassLabel(names=list(background_names(options.classes)))
    boxes, number = boxes_of(rendered.instances, options.objects[1]), (rendered.classes >= 0).sum(axis=1)
    columns = {
        "image": [encode_png(image) for image in rendered.images],
        "mask": [encode_png((instances > 0).astype(np.uint8) * 255) for instances in rendered.instances],
        "instances": [encode_png(instances) for instances in rendered.instances],
        "semantic": [encode_png(semantic) for semantic in rendered.semantic],
        "objects": [
            {"bbox": boxes[i, :k].tolist(), "category": rendered.classes[i, :k].tolist(), "iscrowd": [0] * int(k)}
            for i, k in enumerate(number)
        ],
    }
    objects = {
        "bbox": List(List(Value("float32"), length=4)),
        "category": List(things),
        "iscrowd": List(Value("int32")),
    }
    features = {"image": Image(), "mask": Image(), "instances": Image(), "semantic": Image(), "objects": objects}
    if options.objects == (1, 1):
        columns["label"], features["label"] = rendered.classes[:, 0], things
    if options.regions == (1, 1):
        columns["background"], features["background"] = rendered.grounds[:, 0], stuff
    return Dataset.from_dict(columns, features=Features(features))


def _range(ends: tuple[int, int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
