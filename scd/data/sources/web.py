"""The embedded generator ``web``: training images as they might come from the web, in exact shares.

Object-centric images are mixed with scenes, with images of backgrounds alone and with images of other domains; classes
may have a long tail, and some images may be slightly changed copies of others. Objects and backgrounds come from the
families of :mod:`scd.data.sources.drawing`. The test images are those of ``shapes``: one object of each class as often.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, Features, Image

from scd.data.cache import content_hash
from scd.data.sources import drawing, scenes, shapes
from scd.data.sources.drawing import (
    CHUNK,
    add_clutter,
    background_names,
    class_names,
    paint_backgrounds,
    paint_objects,
    place_objects,
)
from scd.data.sources.foreign import paint_foreign
from scd.data.sources.png import encode_png
from scd.data.sources.scenes import ScenesOptions
from scd.data.sources.shapes import ShapesOptions
from scd.data.sources.source import Source, cached_dataset
from scd.errors import UsageError
from scd.seeds import derive_seed

VERSION = "1"
KINDS = ("object-centric", "scene", "background only", "foreign")
SHIFT, GAIN = 1 / 24, 0.1  # of a near-duplicate: at most this share of the side on each axis, and 1 +- this


@dataclass(frozen=True)
class WebOptions:
    """Options of the generator.

    Args:
        classes: number of object classes C, and of background classes, 2 to 25.
        size: side of the square images in pixels.
        train: number of training images, near-duplicates included; test: of test images.
        scenes, backgrounds, foreign: shares of the different training images that are scenes, that show a background
            and no object, and that are of other domains (:mod:`scd.data.sources.foreign`). The rest is object-centric.
            Numbers are exact: whole numbers that differ by less than 1 from the shares (largest remainders).
        tail: exponent a of the classes' frequencies among objects, which are in proportion to (c + 1)^-a for the class
            c = 0, ..., C - 1. 0: all alike. The first class is C^a times as frequent as the last one.
        duplicates: share of all training images that are near-duplicates: copies of one of the different images, which
            is drawn for each, with another brightness (a factor in 0.9 to 1.1) and shifted by up to 1/24 of the side on
            both axes; the border is repeated.
        rho_train: probability that the background is the partner of the object, see
            :class:`scd.data.sources.shapes.ShapesOptions` and :class:`scd.data.sources.scenes.ScenesOptions`;
            rho_test: the same in the test images.
        scale: extent of the object in object-centric images, as of ``shapes``.
        scene_objects, scene_scale, scene_regions: of scenes, as ``objects``, ``scale`` and ``regions`` of ``scenes``.
        clutter: largest number of small distractor blobs on a background.
        seed: of the images; it is independent of the seeds of runs.
    """

    classes: int = 10
    size: int = 48
    train: int = 3000
    test: int = 1500
    scenes: float = 0.3
    backgrounds: float = 0.1
    foreign: float = 0.2
    tail: float = 1.0
    duplicates: float = 0.2
    rho_train: float = 0.0
    rho_test: float = 0.0
    scale: tuple[float, float] = ShapesOptions.scale
    scene_objects: tuple[int, int] = ScenesOptions.objects
    scene_scale: tuple[float, float] = ScenesOptions.scale
    scene_regions: tuple[int, int] = ScenesOptions.regions
    clutter: int = 3
    seed: int = 1

    def __post_init__(self):
        for name in ("scenes", "backgrounds", "foreign", "duplicates"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"web: {name} is {getattr(self, name)}, a share lies in [0, 1]")
        if self.scenes + self.backgrounds + self.foreign > 1 + 1e-9:
            raise UsageError(
                f"web: scenes={self.scenes}, backgrounds={self.backgrounds} and foreign={self.foreign} are more than 1"
            )
        if self.duplicates == 1:
            raise UsageError("web: duplicates is 1, some images must be different ones")
        if not 0 <= self.tail <= 10:
            raise UsageError(f"web: tail is {self.tail}, it must lie in 0 to 10")
        _ = self.centric, self.crowded  # raise what is impossible

    @property
    def centric(self) -> ShapesOptions:
        """The options of object-centric images, and of the test images."""
        shared = {name: getattr(self, name) for name in (*_BOTH, "rho_train", "rho_test", "scale")}
        return ShapesOptions(**shared)

    @property
    def crowded(self) -> ScenesOptions:
        """The options of scenes."""
        own = {"objects": self.scene_objects, "scale": self.scene_scale, "regions": self.scene_regions}
        return ScenesOptions(**{name: getattr(self, name) for name in (*_BOTH, "rho_train")}, **own)

    def of_train(self) -> dict:
        """The options that the training images depend on."""
        return {name: value for name, value in asdict(self).items() if name not in ("test", "rho_test")}


_BOTH = ("classes", "size", "train", "test", "clutter", "seed")


class Web(Source):
    """The generator as an image source, drawn once and kept in the cache.

    Columns: ``image``; ``mask`` (255 on any object); of the test images also ``label`` and ``background`` (classes).
    Training images have no label: some have several objects, others have none.

    Args: see :class:`WebOptions`.

    Raises:
        UsageError: an impossible value.
    """

    embedded = True
    test_options = ("test", "rho_test")

    def __init__(
        self,
        classes: int = WebOptions.classes,
        size: int = WebOptions.size,
        train: int = WebOptions.train,
        test: int = WebOptions.test,
        scenes: float = WebOptions.scenes,
        backgrounds: float = WebOptions.backgrounds,
        foreign: float = WebOptions.foreign,
        tail: float = WebOptions.tail,
        duplicates: float = WebOptions.duplicates,
        rho_train: float = WebOptions.rho_train,
        rho_test: float = WebOptions.rho_test,
        scale: tuple[float, float] = WebOptions.scale,
        scene_objects: tuple[int, int] = WebOptions.scene_objects,
        scene_scale: tuple[float, float] = WebOptions.scene_scale,
        scene_regions: tuple[int, int] = WebOptions.scene_regions,
        clutter: int = WebOptions.clutter,
        seed: int = WebOptions.seed,
    ):
        options = WebOptions(
            classes, size, train, test, scenes, backgrounds, foreign, tail, duplicates, rho_train, rho_test, scale,
            scene_objects, scene_scale, scene_regions, clutter, seed,
        )  # fmt: skip
        parts = {"families": drawing.VERSION, "shapes": shapes.VERSION, "scenes": scenes_version()}
        versions = {"generator": "web", "version": VERSION, **parts}
        fingerprints = {
            "train": content_hash({**versions, **options.of_train(), "split": "train"}),
            "test": content_hash({**versions, **options.centric.of_split("test")}),
        }
        made = {"train": partial(to_dataset, options), "test": partial(shapes.to_dataset, options.centric, "test")}
        super().__init__(
            "web",
            {split: cached_dataset("web", fingerprints[split], make) for split, make in made.items()},
            fingerprints,
            version=VERSION,
            class_names=class_names(classes),
            background_names=background_names(classes),
            mask_kind="binary",
            description=f"embedded generator web {VERSION}: {in_words(options)}; tested on object-centric images",
        )

    @classmethod
    def check_options(cls, **options: Any) -> None:
        WebOptions(**options)

    @classmethod
    def example(cls, folder: Path) -> "Web":
        return cls(classes=3, size=24, train=12, test=4)


def scenes_version() -> str:
    """The version of the generator of scenes; ``scenes`` is also the name of an option."""
    return scenes.VERSION


def in_words(options: WebOptions) -> str:
    """What the training images are, in words."""
    numbers = Composition.of(options)
    counts = np.bincount(numbers.kinds, minlength=len(KINDS))
    mixed = ", ".join(f"{count} {kind}" for kind, count in zip(KINDS, counts, strict=True) if count)
    return (
        f"{mixed} images of {options.classes} object classes with frequencies in proportion to rank^-{options.tail:g}, "
        f"{options.train - len(numbers.kinds)} near-duplicates of them, {options.size} px, background correlation "
        f"{options.rho_train:g}"
    )


# -------------------------------------------------------------------- what there is how often


class Composition(NamedTuple):
    """What the training images are.

    Attributes:
        kinds: (D,) number in ``KINDS`` of each different image.
        copied: (train - D,) which of them each near-duplicate is made of.
        order: (train,) the different images, then the near-duplicates, in the order of the data set.
    """

    kinds: np.ndarray
    copied: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, options: WebOptions) -> "Composition":
        """The composition for some options."""
        copies = min(round(options.duplicates * options.train), options.train - 1)
        different = options.train - copies
        rest = 1 - options.scenes - options.backgrounds - options.foreign
        counts = whole_numbers([rest, options.scenes, options.backgrounds, options.foreign], different)
        kinds = np.repeat(np.arange(len(KINDS)), counts)
        copied = _generator(options, "copies").integers(different, size=copies)
        return cls(kinds, copied, _generator(options, "order").permutation(options.train))


def whole_numbers(shares: Sequence[float], total: int) -> np.ndarray:
    """Whole numbers of sum ``total`` in proportion to the shares, by largest remainders; of equal ones the first."""
    exact = np.maximum(np.asarray(shares, dtype=float), 0) / max(sum(shares), 1e-12) * total
    counts = np.floor(exact + 1e-9).astype(int)
    first = np.argsort(-(exact - counts), kind="stable")[: total - counts.sum()]
    counts[first] += 1
    return counts


def tailed(classes: int, tail: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Classes (count,) in random order with frequencies in proportion to (c + 1)^-tail, see :class:`WebOptions`."""
    weights = np.arange(1, classes + 1, dtype=float) ** -tail
    return rng.permutation(np.repeat(np.arange(classes), whole_numbers(weights, count)))


# -------------------------------------------------------------------- images


class RenderedWeb(NamedTuple):
    """Images (N, S, S, 3) uint8 and masks (N, S, S) bool of the objects, in the order of the data set."""

    images: np.ndarray
    masks: np.ndarray


def render(options: WebOptions) -> RenderedWeb:
    """The training images."""
    composition = Composition.of(options)
    counts = np.bincount(composition.kinds, minlength=len(KINDS))
    painters = (_centric, _scenes, _backgrounds, _foreign)
    parts = [paint(options, count) for paint, count in zip(painters, counts, strict=True) if count]
    images, masks = (np.concatenate(each) for each in zip(*parts, strict=True))
    images += np.float32(0.02) * _generator(options, "noise").standard_normal(images.shape, dtype=np.float32)
    copies, moved = _near_duplicates(options, images[composition.copied], masks[composition.copied])
    images, masks = np.concatenate([images, copies]), np.concatenate([masks, moved])
    pixels = (np.clip(images, 0, 1) * 255).round().astype(np.uint8)
    return RenderedWeb(pixels[composition.order], masks[composition.order])


def _centric(options: WebOptions, count: int) -> tuple[np.ndarray, np.ndarray]:
    """One object each, as ``shapes`` draws it: images (count, S, S, 3) float32 and masks (count, S, S) bool."""
    rng, own = partial(_generator, options, KINDS[0]), options.centric
    labels = tailed(own.classes, options.tail, count, rng("classes"))
    partners = rng("partners").random(count) < own.rho_train
    images = paint_backgrounds(
        rng("backgrounds"), np.where(partners, labels, rng("background classes").integers(own.classes, size=count)), own
    )
    add_clutter(images, rng("clutter"), own)
    masks, u, v = place_objects(rng("outlines"), labels, own)
    images[masks] = paint_objects(rng("objects"), labels, u, v, own)[masks]
    return images, masks


def _scenes(options: WebOptions, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Several objects each, as ``scenes`` composes them; the k-th objects of all images have the long tail."""
    own, chunks = options.crowded, -(-count // CHUNK)
    rng = partial(_generator, options, KINDS[1])
    high = own.objects[1]
    labels = np.stack([tailed(own.classes, options.tail, chunks * CHUNK, rng("classes", k)) for k in range(high)], 1)
    number = rng("objects").integers(own.objects[0], high + 1, size=len(labels))
    labels = np.where(np.arange(high) < number[:, None], labels, -1)
    parts = [_chunk_of_scenes(own, part, partial(rng, i)) for i, part in enumerate(labels.reshape(chunks, CHUNK, high))]
    images, masks = (np.concatenate(each)[:count] for each in zip(*parts, strict=True))
    return images, masks


def _chunk_of_scenes(own: ScenesOptions, labels: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    region, grounds = scenes.split_regions(partial(rng, "regions"), own)
    scenes.make_partners(grounds, labels, rng("partners"), own.rho_train)
    images = np.empty((*region.shape, 3), np.float32)
    for number in range(own.regions[1]):
        rows = np.nonzero(grounds[:, number] >= 0)[0]
        painted = paint_backgrounds(rng("background", number), grounds[rows, number], own)
        where = region == number
        images[where] = painted[where[rows]]
    add_clutter(images, rng("clutter"), own)
    instances, _ = scenes.add_objects(images, np.zeros(region.shape, np.uint8), labels, rng, own)
    return images, instances > 0


def _backgrounds(options: WebOptions, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Backgrounds of one class, each class as often, with clutter and without an object."""
    rng, own = partial(_generator, options, KINDS[2]), options.centric
    images = paint_backgrounds(rng("backgrounds"), tailed(own.classes, 0.0, count, rng("classes")), own)
    add_clutter(images, rng("clutter"), own)
    return images, np.zeros(images.shape[:3], dtype=bool)


def _foreign(options: WebOptions, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of other domains, each domain as often."""
    images = paint_foreign(partial(_generator, options, KINDS[3]), count, options.size)
    return images, np.zeros(images.shape[:3], dtype=bool)


def _near_duplicates(options: WebOptions, images: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks with another brightness, shifted."""
    rng, size = _generator(options, "changes"), options.size
    most = max(1, int(SHIFT * size))
    shifts = rng.integers(-most, most + 1, size=(len(images), 2))
    gains = rng.uniform(1 - GAIN, 1 + GAIN, size=len(images)).astype(np.float32)
    rows, columns = (np.clip(np.arange(size) + shifts[:, axis, None], 0, size - 1) for axis in (0, 1))
    place = np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]
    return images[place] * gains[:, None, None, None], masks[place]


def _generator(options: WebOptions, *parts: str | int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(options.seed, "web", VERSION, *parts))


def to_dataset(options: WebOptions) -> Dataset:
    """The training images as a data set of PNG images and masks."""
    rendered = render(options)
    columns = {
        "image": [encode_png(image) for image in rendered.images],
        "mask": [encode_png(mask.astype(np.uint8) * 255) for mask in rendered.masks],
    }
    return Dataset.from_dict(columns, features=Features(image=Image(), mask=Image()))
