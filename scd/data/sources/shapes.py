"""The embedded generator ``shapes``: one object with a class on a background with a class of its own.

The families of objects and backgrounds: :mod:`scd.data.sources.drawing`.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image

from scd.data.cache import content_hash
from scd.data.sources import drawing
from scd.data.sources.drawing import (
    CHUNK,
    LEVELS,
    add_clutter,
    background_names,
    class_names,
    paint_backgrounds,
    paint_objects,
    place_objects,
)
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source, cached_dataset
from scd.errors import UsageError
from scd.seeds import derive_seed

VERSION = "1"
SPLITS = ("train", "test", "probe")


@dataclass(frozen=True)
class ShapesOptions:
    """Options of the generator.

    Args:
        classes: number of object classes, and of background classes, 2 to 25.
        size: side of the square images in pixels.
        train, test: number of images in each split.
        probe: number of images of a further split "probe", from which probes learn in the place of "train"; 0: there is
            none.
        rho_train, rho_test, rho_probe: probability that the background's class is the object's partner (the class of
            the same number); otherwise it is drawn uniformly from all.
        scale: range of the object's extent (diameter of the disc of its area) as a fraction of the image's side.
        clutter: largest number of small distractor blobs on the background.
        objects: number of objects of the image's class, each with its own place, size and colours; later ones may
            cover earlier ones; the mask is their union.
        seed: seed of the images; it is independent of the seeds of runs.
    """

    classes: int = 10
    size: int = 48
    train: int = 4000
    test: int = 2000
    probe: int = 0
    rho_train: float = 0.0
    rho_test: float = 0.0
    rho_probe: float = 0.0
    scale: tuple[float, float] = (0.3, 0.6)
    clutter: int = 3
    objects: int = 1
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "scale", tuple(float(end) for end in self.scale))
        if not 2 <= self.classes <= LEVELS**2:
            raise UsageError(f"shapes: classes is {self.classes}, it must lie in 2 to {LEVELS**2}")
        if self.size < 16:
            raise UsageError(f"shapes: size is {self.size}, it must be at least 16 pixels")
        if self.train < 1 or self.test < 1:
            raise UsageError(f"shapes: train={self.train} and test={self.test} must be at least 1")
        if self.probe < 0:
            raise UsageError(f"shapes: probe is {self.probe}, it must be 0 (no such split) or more")
        for name in ("rho_train", "rho_test", "rho_probe"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"shapes: {name} is {getattr(self, name)}, a probability lies in [0, 1]")
        if len(self.scale) != 2 or not 0.1 <= self.scale[0] <= self.scale[1] <= 1:
            raise UsageError(f"shapes: scale is {self.scale}, it needs 0.1 <= low <= high <= 1")
        if self.clutter < 0:
            raise UsageError(f"shapes: clutter is {self.clutter}, it must be 0 or more")
        if self.objects < 1:
            raise UsageError(f"shapes: objects is {self.objects}, it must be at least 1")

    def of_split(self, split: str) -> dict:
        """The options that a split depends on, with its own number of images and correlation."""
        shared = {key: value for key, value in asdict(self).items() if not key.endswith(SPLITS)}
        return {**shared, "split": split, "count": getattr(self, split), "rho": getattr(self, f"rho_{split}")}


class Shapes(Source):
    """The generator as an image source, drawn once and kept in the cache.

    Columns: ``image``, ``label``, ``mask`` (255 on the object), ``background`` (class).

    Args: see :class:`ShapesOptions`.

    Raises:
        UsageError: an impossible value.
    """

    embedded = True
    test_options = ("test", "rho_test", "probe", "rho_probe")

    def __init__(
        self,
        classes: int = ShapesOptions.classes,
        size: int = ShapesOptions.size,
        train: int = ShapesOptions.train,
        test: int = ShapesOptions.test,
        probe: int = ShapesOptions.probe,
        rho_train: float = ShapesOptions.rho_train,
        rho_test: float = ShapesOptions.rho_test,
        rho_probe: float = ShapesOptions.rho_probe,
        scale: tuple[float, float] = ShapesOptions.scale,
        clutter: int = ShapesOptions.clutter,
        objects: int = ShapesOptions.objects,
        seed: int = ShapesOptions.seed,
    ):
        options = ShapesOptions(
            classes, size, train, test, probe, rho_train, rho_test, rho_probe, scale, clutter, objects, seed
        )
        versions = {"generator": "shapes", "version": VERSION, "families": drawing.VERSION}
        splits = [split for split in SPLITS if getattr(options, split)]
        fingerprints = {split: content_hash({**versions, **options.of_split(split)}) for split in splits}
        super().__init__(
            "shapes",
            {
                split: cached_dataset("shapes", fingerprint, partial(to_dataset, options, split))
                for split, fingerprint in fingerprints.items()
            },
            fingerprints,
            version=VERSION,
            class_names=class_names(classes),
            background_names=background_names(classes),
            mask_kind="binary",
            description=f"embedded generator shapes {VERSION}: {classes} object classes on as many background classes, "
            f"{size} px, background correlation {rho_train:g} in train and {rho_test:g} in test"
            + (f", {rho_probe:g} in the images that probes learn from" if probe else ""),
        )

    @classmethod
    def check_options(cls, **options: Any) -> None:
        ShapesOptions(**options)

    @classmethod
    def example(cls, folder: Path) -> "Shapes":
        return cls(classes=2, size=16, train=8, test=4, probe=8)


@dataclass
class Rendered:
    """Images (N, S, S, 3) uint8, masks (N, S, S) uint8 0/255, labels and backgrounds (N,) int64."""

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    backgrounds: np.ndarray


def render(options: ShapesOptions, split: str, count: int, with_objects: bool = True) -> Rendered:
    """The first ``count`` images of a split; ``with_objects=False`` leaves the objects out and nothing else."""
    rho = getattr(options, f"rho_{split}")
    chunks = [_chunk(options, split, rho, i, with_objects) for i in range(-(-count // CHUNK))]
    return Rendered(
        *(
            np.concatenate([getattr(chunk, field) for chunk in chunks])[:count]
            for field in ("images", "masks", "labels", "backgrounds")
        )
    )


def to_dataset(options: ShapesOptions, split: str) -> Dataset:
    """A split as a data set of PNG images and masks with their two classes."""
    rendered = render(options, split, getattr(options, split))
    features = Features(
        image=Image(),
        label=ClassLabel(names=list(class_names(options.classes))),
        mask=Image(),
        background=ClassLabel(names=list(background_names(options.classes))),
    )
    columns = {
        "image": [encode_png(image) for image in rendered.images],
        "label": rendered.labels,
        "mask": [encode_png(mask) for mask in rendered.masks],
        "background": rendered.backgrounds,
    }
    return Dataset.from_dict(columns, features=features)


def _chunk(options: ShapesOptions, split: str, rho: float, index: int, with_objects: bool) -> Rendered:
    """CHUNK images of one seed. Classes, background and object have streams of their own, so that a change of rho,
    clutter or scale leaves the rest of the images unchanged."""
    rng = partial(_generator, options.seed, split, index)
    labels = rng("label").permuted(np.arange(CHUNK) % options.classes)  # balanced
    draw = rng("background class")
    uniform = draw.integers(options.classes, size=CHUNK)
    backgrounds = np.where(draw.random(CHUNK) < rho, labels, uniform)
    image = paint_backgrounds(rng("background"), backgrounds, options)
    add_clutter(image, rng("clutter"), options)
    masks = np.zeros(image.shape[:3], dtype=bool)
    for number in range(options.objects):
        which = f" {number}" if number else ""  # the first object's streams have no number
        mask, u, v = place_objects(rng(f"outline{which}"), labels, options)
        if with_objects:
            objects = paint_objects(rng(f"object{which}"), labels, u, v, options)
            image[mask] = objects[mask]
        masks |= mask
    image += np.float32(0.02) * rng("noise").standard_normal(image.shape, dtype=np.float32)
    pixels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return Rendered(pixels, masks.astype(np.uint8) * 255, labels, backgrounds)


def _generator(seed: int, split: str, index: int, part: str) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, "shapes", VERSION, split, index, part))
