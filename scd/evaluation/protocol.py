"""The contract of an evaluation protocol, and what a protocol works on: a pretrained method and a set of images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from scd.data.images import ImageSet, load_images
from scd.data.masks import require_object_and_background
from scd.data.scene_set import SceneSet, scenes_once
from scd.data.sources.source import Source
from scd.errors import DataError
from scd.evaluation.features import extract, extract_saliency
from scd.evaluation.metric import Metric
from scd.evaluation.overlap import shared_images
from scd.method import Method

SCORED = ("test", "validation")  # the splits that can be scored, in order of preference
PROBE = "probe"  # the split from which probes learn, where there is one
Part = Literal["train", "probe", "test"]
N_TRAIN = Metric("training images", "images", None, "labelled images on which the probes are fitted")
N_TEST = Metric("test images", "images", None, "images on which the numbers are measured")
Result = TypeVar("Result")


@dataclass(kw_only=True)
class Protocol(ABC):
    """A way to evaluate a pretrained method. Subclasses are built from a configuration.

    A subclass implements :meth:`definitions` and :meth:`measure`. One that needs labels, masks or objects also
    implements :meth:`applies`, and one that can fail on some data :meth:`check`.

    Args:
        data: images to evaluate on; None for those of the run.
        prefix: put before the name of each number.
        train_limit, test_limit: use at most this many images, see :func:`scd.data.images.load_images`. Limits of the
            run hold as well: the smallest one counts.
        canvas: side in pixels of the square images; None for that of the run.
    """

    data: Source | None = None
    prefix: str = ""
    train_limit: int | None = None
    test_limit: int | None = None
    canvas: int | None = None

    @property
    def metrics(self) -> dict[str, Metric]:
        """Every number that this protocol can return, under its prefix.

        A number that is measured at several points of the training is called ``NAME@SHARE``; ``NAME`` is listed here.
        """
        return {self.prefix + name: metric for name, metric in self.definitions().items()}

    def own_data(self, data: "EvaluationData") -> "EvaluationData":
        """The images of this protocol: its own source and canvas where it has any, within its limits and the run's."""
        return data.derived(
            data.source if self.data is None else self.data,
            data.canvas if self.canvas is None else self.canvas,
            smaller(data.train_limit, self.train_limit),
            smaller(data.test_limit, self.test_limit),
            smaller(data.streamed_limit, self.train_limit),
        )

    def applies(self, data: "EvaluationData") -> bool:
        """Whether the images, from :meth:`own_data`, have what the protocol needs."""
        return True

    def check(self, data: "EvaluationData") -> None:  # noqa: B027 (implementing it is optional)
        """Find before any training what would stop the protocol after it, on the images of :meth:`own_data`.

        Raises:
            DataError: classes, masks or objects that the protocol cannot work with.
        """

    def __call__(self, context: "Context") -> dict[str, float]:
        """The numbers by name. Empty where the images, or the method, lack what the protocol needs.

        Raises:
            UsageError: features that are not finite, maps outside [0, 1].
            DataError: see :meth:`check`.
        """
        context = context.for_protocol(self)
        if not self.applies(context.data):
            return {}
        self.check(context.data)
        return {self.prefix + name: value for name, value in self.measure(context).items()}

    @abstractmethod
    def definitions(self) -> dict[str, Metric]:
        """The definition of every number, without the prefix."""

    @abstractmethod
    def measure(self, context: "Context") -> dict[str, float]:
        """The numbers without the prefix, for images to which the protocol applies and that pass its check.

        The method is left as it was found, and so is the state of torch's random number generators.
        """


class EvaluationData:
    """The images of one source for evaluation, loaded when they are first used. No choice is made on the test images.

    Args:
        source: has the split "train", and "test" or "validation".
        canvas: side in pixels of the square images.
        train_limit, test_limit: at most this many images, see :func:`scd.data.images.load_images`.
        streamed_limit: the limit of training images for a protocol that does not hold them in memory; None: all.

    All images stay in main memory; batches of them are moved to the device of the evaluation.
    """

    def __init__(
        self,
        source: Source,
        canvas: int,
        train_limit: int | None = None,
        test_limit: int | None = None,
        streamed_limit: int | None = None,
    ) -> None:
        self.source = source
        self.canvas = canvas
        self.train_limit = train_limit
        self.test_limit = test_limit
        self.streamed_limit = streamed_limit
        self._derived: dict[tuple, EvaluationData] = {}

    def derived(
        self,
        source: Source,
        canvas: int,
        train_limit: int | None,
        test_limit: int | None,
        streamed_limit: int | None = None,
    ) -> "EvaluationData":
        """The images of a source, the same object for the same arguments, so that its images are loaded once."""
        key = (id(source), canvas, train_limit, test_limit, streamed_limit)
        if key == (id(self.source), self.canvas, self.train_limit, self.test_limit, self.streamed_limit):
            return self
        if key not in self._derived:
            self._derived[key] = EvaluationData(source, canvas, train_limit, test_limit, streamed_limit)
        return self._derived[key]

    @property
    def streamed(self) -> "EvaluationData":
        """The same images for a protocol that does not hold the training images in memory."""
        return self.derived(self.source, self.canvas, self.streamed_limit, self.test_limit, self.streamed_limit)

    @cached_property
    def split(self) -> str:
        """The split that is scored: "test", or "validation" where there is no test split or it has no labels.

        Raises:
            DataError: neither of the two.
        """
        present = [name for name in SCORED if name in self.source.splits]
        if not present:
            found = ", ".join(self.source.splits)
            raise DataError(f"data '{self.source.name}' has no split to evaluate on; it has {found}")
        labelled = [name for name in present if "label" in self.columns(name)]
        return (labelled or present)[0]

    @property
    def notes(self) -> list[str]:
        """What a reader must know about these images: what their source does not use, and which split is scored."""
        notes = list(self.source.notes)
        if self.split != SCORED[0]:
            why = "have no labels" if SCORED[0] in self.source.splits else "do not exist"
            notes.append(f"The {self.split} images are scored, because {SCORED[0]} images {why}.")
        return notes

    def overlap(self) -> list[str]:
        """A note where scored images are training images, too; of labelled images that are not generated."""
        if self.source.embedded or not self.has("label"):
            return []
        shared, total = shared_images(self.train.images, self.test.images), len(self.test)
        if not shared:
            return []
        return [f"{shared} of the {total} scored images are training images, too: accuracies are too high."]

    def columns(self, split: str) -> frozenset[str]:
        """The columns of a split. Sources give a column of labels only to splits whose images are all labelled.

        Raises:
            UsageError: a split that does not exist.
        """
        return frozenset(self.source.split(split).column_names)

    def has(self, column: str) -> bool:
        """Whether the training images and the test images have a column."""
        return column in self.columns("train") and column in self.columns(self.split)

    @cached_property
    def train(self) -> ImageSet:
        """The training images, on which probes are fitted."""
        return load_images(self.source, "train", self.canvas, self.train_limit)

    @property
    def has_probe(self) -> bool:
        """Whether the source has images of their own from which probes learn, a split "probe"."""
        return PROBE in self.source.splits

    @cached_property
    def probe(self) -> ImageSet:
        """The images from which probes learn: a split of their own, or the training images."""
        return load_images(self.source, PROBE, self.canvas, self.train_limit) if self.has_probe else self.train

    def origin(self, part: Part) -> Part:
        """The part whose images these are: "train" for "probe" where probes have no images of their own."""
        return "train" if part == PROBE and not self.has_probe else part

    @cached_property
    def test(self) -> ImageSet:
        """The images that are scored."""
        return load_images(self.source, self.split, self.canvas, self.test_limit)

    def check_masks(self, part: Literal["train", "test"]) -> None:
        """Raise DataError if the masks of the training or the scored images show no object, or no background."""
        split = self.split if part == "test" else part
        what = f"'{self.source.name}' {split}"
        require_object_and_background(getattr(self, part).masks, self.source.mask_kind, self.source.foreground, what)

    @cached_property
    def train_scenes(self) -> SceneSet:
        """The training images with their objects and segments."""
        return scenes_once(self.source, "train", self.canvas, self.train_limit)

    @cached_property
    def test_scenes(self) -> SceneSet:
        """The scored images with their objects and segments."""
        return scenes_once(self.source, self.split, self.canvas, self.test_limit)


@dataclass
class Context:
    """What a protocol works with.

    Attributes:
        method: the pretrained method, on ``device``; protocols leave it as it was found.
        data: the images.
        size: side in pixels of the view that the network sees.
        seed: draws what a protocol draws: held-out images, new weights, the order of images.
        device: where the method lives.
        snapshots: share of the training in [0, 1] -> the method's ``evaluated_state()`` then; {} if none were kept.
        folder: where a protocol may write files, or None.
        known: results that are computed once, see :meth:`once`; shared by the contexts of one evaluation.
    """

    method: Method
    data: EvaluationData
    size: int
    seed: int
    device: torch.device | str = "cpu"
    snapshots: Mapping[float, Mapping[str, Tensor]] = field(default_factory=dict)
    folder: Path | None = None
    known: dict[tuple, object] = field(default_factory=dict, repr=False)

    def for_protocol(self, protocol: Protocol, folder: Path | None = None) -> "Context":
        """This context with the images of a protocol, and ``folder`` for its files."""
        return replace(self, data=protocol.own_data(self.data), folder=self.folder if folder is None else folder)

    def features(self, part: Part) -> Tensor:
        """Pooled features (N, C) of images of :class:`EvaluationData`, see :func:`scd.evaluation.features.extract`."""
        part = self.data.origin(part)
        images = getattr(self.data, part)
        return self.once(
            ("features", part), lambda: extract(self.method.backbone, images.images, self.size, device=self.device)
        )

    def maps(self) -> Tensor | None:
        """The method's maps (N, h, w) of the test images, see :func:`scd.evaluation.features.extract_saliency`."""
        return self.once(
            "maps", lambda: extract_saliency(self.method, self.data.test.images, self.size, device=self.device)
        )

    def once(self, name: Hashable, compute: Callable[[], Result]) -> Result:
        """The result of ``compute``, computed once for a name, method, data, view size and seed."""
        key = (name, self.method, self.data, self.size, self.seed)
        if key not in self.known:
            self.known[key] = compute()
        return self.known[key]


def smaller(first: int | None, second: int | None) -> int | None:
    """The smaller of two limits; None is no limit."""
    return min((limit for limit in (first, second) if limit is not None), default=None)
