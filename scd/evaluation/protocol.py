"""The evaluation of one pretrained method: the protocols that the data allows, as one flat dict of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scd.data.images import ImageSet
from scd.errors import unknown
from scd.evaluation.background import choose_donors, mixed_sets, usable_foregrounds
from scd.evaluation.collapse import effective_rank, feature_std, map_indicators
from scd.evaluation.features import extract, extract_saliency
from scd.evaluation.knn import knn_top1
from scd.evaluation.linear import LinearProbe, accuracy, balanced_accuracy, check_classes, fit_linear_probe
from scd.evaluation.metrics import METRICS
from scd.evaluation.saliency import saliency_scores

__all__ = ["METRICS", "PROTOCOLS", "PROTOCOL_VERSION", "EvaluationData", "check_data", "evaluate"]

PROTOCOL_VERSION = "1"  # raise it with every change that can move a number; it travels with the record
PROTOCOLS = ("knn", "linear", "saliency", "background", "collapse")


@dataclass
class EvaluationData:
    """Images for fitting probes, and test images; no choice is ever made on the test images.

    Both stay in main memory; batches of them are moved to the device of the evaluation.
    """

    train: ImageSet
    test: ImageSet

    def parts(self, protocols: Sequence[str]) -> frozenset[str]:
        """The parts of the protocols that this data allows: their names, "background" in its two halves.

        "mixed" (objects on other backgrounds) needs labels and masks, "background_class" a class for the background.

        Raises:
            UsageError: an unknown protocol.
        """
        for name in protocols:
            if name not in PROTOCOLS:
                raise unknown("protocol", name, PROTOCOLS)

        def both(column: str) -> bool:
            return getattr(self.train, column) is not None and getattr(self.test, column) is not None

        allowed = {
            "knn": both("labels"),
            "linear": both("labels"),
            "mixed": both("labels") and both("masks"),
            "background_class": both("backgrounds"),
            "saliency": self.test.masks is not None,
            "collapse": True,
        }
        halves = {"mixed": "background", "background_class": "background"}
        return frozenset(part for part, possible in allowed.items() if possible and halves.get(part, part) in protocols)


def evaluate(
    method: nn.Module,
    data: EvaluationData,
    *,
    size: int,
    seed: int,
    protocols: Sequence[str] = PROTOCOLS,
    device: str | torch.device = "cpu",
) -> dict[str, float]:
    """All numbers of the protocols asked for; :data:`METRICS` says what each key means.

    A protocol whose input is absent (no labels, masks, background classes or maps) leaves its keys out; a key is never
    there with a made-up value. The online backbone is evaluated, in evaluation mode and float32.

    Args:
        method: has ``.backbone`` and ``saliency(images)``, lives on ``device``; left as it was found.
        data: training and test images.
        size: side in pixels of the view that the network sees.
        seed: the run's seed; it draws the part of the training set that the probe holds out, and nothing else.
        protocols: any of "knn", "linear", "saliency", "background", "collapse".

    Raises:
        UsageError: an unknown protocol, features that are not finite, maps outside [0, 1].
        DataError: classes or masks that a protocol cannot work with, see :func:`check_data`.
    """
    check_data(data, protocols)
    parts = data.parts(protocols)
    numbers: dict[str, float] = {"n_train": len(data.train), "n_test": len(data.test)}
    if parts - {"saliency"}:
        numbers |= feature_numbers(method.backbone, data, parts, size, seed, device)
    if parts & {"saliency", "collapse"}:
        numbers |= map_numbers(method, data.test, parts, size, device)
    return numbers


def check_data(data: EvaluationData, protocols: Sequence[str] = PROTOCOLS) -> None:
    """Find before any training what would stop the evaluation after it.

    Raises:
        UsageError: an unknown protocol.
        DataError: a class with fewer than 5 training images or none for its test images, a single class, objects or
            classes from which no mixed image can be made.
    """
    parts = data.parts(protocols)
    if parts & {"linear", "mixed"}:
        check_classes(data.train.labels, data.test.labels, data.train.class_names)
    if "background_class" in parts:
        check_classes(data.train.backgrounds, data.test.backgrounds, kind="background class")
    if "mixed" in parts:
        _, labels = usable_foregrounds(data.train, data.test)
        choose_donors(data.train, labels)


def feature_numbers(
    backbone: nn.Module, data: EvaluationData, parts: frozenset[str], size: int, seed: int, device: str | torch.device
) -> dict[str, float]:
    """The numbers that come from pooled features."""
    train, test = data.train, data.test
    numbers: dict[str, float] = {}
    test_features = extract(backbone, test.images, size, device=device)
    if parts - {"saliency", "collapse"}:
        train_features = extract(backbone, train.images, size, device=device)
    if "knn" in parts:
        numbers["knn_top1"] = knn_top1(train_features, train.labels, test_features, test.labels)
    if parts & {"linear", "mixed"}:
        probe = fit_linear_probe(train_features, train.labels, seed)
    if "linear" in parts:
        numbers |= linear_numbers(probe, test_features, test.labels)
    if "mixed" in parts:
        numbers |= mixed_numbers(probe, backbone, data, size, device)
    if "background_class" in parts:
        background_probe = fit_linear_probe(train_features, train.backgrounds, seed)
        numbers["background_top1"] = accuracy(background_probe.predict(test_features), test.backgrounds)
    if "collapse" in parts:
        numbers["feature_std"] = feature_std(test_features)
        numbers["effective_rank"] = effective_rank(test_features)
    return numbers


def linear_numbers(probe: LinearProbe, features: Tensor, labels: Tensor) -> dict[str, float]:
    """The linear probe's test numbers."""
    predicted = probe.predict(features)
    return {
        "linear_top1": accuracy(predicted, labels),
        "linear_balanced": balanced_accuracy(predicted, labels),
        "linear_l2": probe.l2,
    }


def mixed_numbers(
    probe: LinearProbe, backbone: nn.Module, data: EvaluationData, size: int, device: str | torch.device
) -> dict[str, float]:
    """The linear probe's accuracy on the mixed sets, and their gap."""
    sets = mixed_sets(data.train, data.test)
    same, other = (
        accuracy(probe.predict(extract(backbone, images, size, device=device)), sets.labels)
        for images in (sets.same, sets.other)
    )
    return {
        "mixed_same_top1": same,
        "mixed_rand_top1": other,
        "bg_gap": same - other,
        "n_mixed": len(sets.labels),
    }


def map_numbers(
    method: nn.Module, test: ImageSet, parts: frozenset[str], size: int, device: str | torch.device
) -> dict[str, float]:
    """The numbers that come from saliency maps; none for a method without maps."""
    maps = extract_saliency(method, test.images, size, device=device)
    if maps is None:
        return {}
    numbers = map_indicators(maps) if "collapse" in parts else {}
    return numbers | saliency_scores(maps, test.masks) if "saliency" in parts else numbers
