"""What the classifiers on frozen features share: the labelled images that they learn from, and what these must have."""

from dataclasses import dataclass
from typing import ClassVar

from scd.data.images import ImageSet
from scd.errors import unknown
from scd.evaluation.labels import check_classes
from scd.evaluation.protocol import PROBE, EvaluationData, Protocol

TRAIN = "train"
LEARNS_FROM = {
    PROBE: "images for probes (the training images, where the data have no split of their own for it)",
    TRAIN: "the training images of the pretraining",
}


@dataclass(kw_only=True)
class ClassProbe(Protocol):
    """A classifier of images on frozen features.

    Args:
        learns_from: "probe" or "train". Where the data have a split of their own for probes, it is free of what the
            training images are correlated with: accuracies say what the features hold. A second protocol with
            "train" says what a user gets whose labelled images are those of pretraining; it is left out where both are
            the same images.

    Raises:
        UsageError: no such images.
    """

    learns_from: str = PROBE
    least: ClassVar[int]  # images that each class needs
    title: ClassVar[str]  # of the classifier, in messages

    def __post_init__(self) -> None:
        if self.learns_from not in LEARNS_FROM:
            raise unknown("learns_from of a probe", self.learns_from, LEARNS_FROM)

    def applies(self, data: EvaluationData) -> bool:
        return data.has("label") and (self.learns_from == PROBE or data.has_probe)

    def check(self, data: EvaluationData) -> None:
        learned = self.learned(data)
        check_classes(learned.labels, data.test.labels, learned.class_names, least=self.least, name=self.title)

    def label(self, name: str) -> str:
        """The label of a number; probes that learn from the training images say so."""
        return name if self.learns_from == PROBE else f"{name} under shift"

    def learned(self, data: EvaluationData) -> ImageSet:
        """The images that the classifier learns from."""
        return data.probe if self.learns_from == PROBE else data.train
