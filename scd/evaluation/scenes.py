"""The evaluation of a pretrained method on scenes, images with several objects, as one flat dict of numbers.

Four parts, all with the backbone frozen: which classes an image shows (multilabel), which class each pixel has, by a
linear classifier (segmentation) and by retrieval (dense_knn), and how far the method's own map finds the objects
(discovery). What each number means: :mod:`scd.evaluation.scene_metrics`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from scd.data.scene_set import SceneSet, scenes_once
from scd.data.sources.source import Source
from scd.errors import DataError, unknown
from scd.evaluation.discovery import discovery
from scd.evaluation.features import extract
from scd.evaluation.multilabel import multilabel_map
from scd.evaluation.segmentation import dense_features, knn_miou, labelled, linear_miou

PARTS = ("multilabel", "segmentation", "dense_knn", "discovery")
LEARNING = frozenset(PARTS) - {"discovery"}  # parts that need training images


class SceneEvaluation:
    """A further protocol of a run: called with the method, the run's source, its configuration and its device.

    Args:
        data: the scenes; None takes the run's own source, and then no number where that has no scenes.
        train_limit, test_limit: at most this many images, see :func:`scd.data.scene_set.load_scenes`.
        parts: any of "multilabel", "segmentation", "dense_knn", "discovery".
        prefix: put before the name of each number.

    Raises:
        UsageError: an unknown part.
    """

    def __init__(
        self,
        data: Source | None = None,
        train_limit: int | None = 1500,
        test_limit: int | None = 750,
        parts: Sequence[str] = PARTS,
        prefix: str = "scene_",
    ):
        for part in parts:
            if part not in PARTS:
                raise unknown("part of the scene evaluation", part, PARTS)
        self.data = data
        self.limits = {"train": train_limit, "test": test_limit}
        self.parts = frozenset(parts)
        self.prefix = prefix

    def __call__(
        self, method: nn.Module, source: Source, config: Mapping[str, Any], device: str | torch.device
    ) -> dict[str, float]:
        """Numbers of the parts that the scenes allow; the test split is scored, or validation where there is no test.

        Args:
            method: with ``backbone`` and ``saliency``, on ``device``.
            source: the run's own images.
            config: of the run: ``data.size`` is the canvas, ``evaluation.size`` the view that the network sees,
                ``seed_of.probe`` or else ``seed`` decides the held-out images and the drawn positions.

        Raises:
            UsageError: scenes that cannot be used, features that are not finite, maps outside [0, 1].
            DataError: a source without a split to evaluate on.
        """
        scenes = source if self.data is None else self.data
        split = scored_split(scenes)
        if self.data is None and not holds_scenes(source, split):
            return {}
        limits = self.limits if self.data is not None else within(self.limits, config["data"])
        canvas, size = config["data"]["size"], config["evaluation"]["size"]
        own = config["seed_of"]["probe"]
        test = scenes_once(scenes, split, canvas, limits["test"])
        numbers: dict[str, float] = {"n_test": len(test)}
        if self.parts & LEARNING:
            train = scenes_once(scenes, "train", canvas, limits["train"])
            numbers["n_train"] = len(train)
            numbers |= probe_numbers(
                method.backbone, train, test, self.parts, size, config["seed"] if own is None else own, device
            )
        if "discovery" in self.parts and any(len(masks) for masks in test.instances):
            numbers |= discovery(method, test, size, device)
        return {self.prefix + name: value for name, value in numbers.items()}


def probe_numbers(
    backbone: nn.Module,
    train: SceneSet,
    test: SceneSet,
    parts: frozenset[str],
    size: int,
    seed: int,
    device: str | torch.device,
) -> dict[str, float]:
    """``map``, ``miou_linear`` and ``miou_knn``, of the parts that are asked for and that the labels allow."""
    numbers: dict[str, float] = {}
    present = train.present
    varies = present.any(dim=0) & ~present.all(dim=0)
    if "multilabel" in parts and varies.any() and test.present.any():
        train_features, test_features = (extract(backbone, part.images, size, device=device) for part in (train, test))
        numbers["map"] = multilabel_map(train_features, present, test_features, test.present, seed)
    if parts & {"segmentation", "dense_knn"} and labelled(train.semantic) and labelled(test.semantic):
        classes = max(len(train.segment_names), len(test.segment_names))
        train_maps, test_maps = (dense_features(backbone, part.images, size, device) for part in (train, test))
        given = (train_maps, train.semantic, test_maps, test.semantic, classes, seed)
        if "segmentation" in parts:
            numbers["miou_linear"] = linear_miou(*given)
        if "dense_knn" in parts:
            numbers["miou_knn"] = knn_miou(*given)
    return numbers


def scored_split(source: Source) -> str:
    """The split that is scored: test, or validation where the set has no test split."""
    for name in ("test", "validation"):
        if name in source.splits:
            return name
    raise DataError(f"data '{source.name}' has no split to evaluate on; it has {', '.join(source.splits)}")


def holds_scenes(source: Source, split: str) -> bool:
    """Whether a source has objects with an instance map, or masks of class ids."""
    columns = source.split(split).column_names
    objects = "objects" in columns and ("instances" in columns or source.mask_kind == "instances")
    return objects or source.mask_kind == "classes"


def within(limits: Mapping[str, int | None], data: Mapping[str, Any]) -> dict[str, int | None]:
    """The smaller of these limits and those of the run's data."""
    both = {kind: (limit, data[f"{kind}_limit"]) for kind, limit in limits.items()}
    return {kind: min((one for one in pair if one is not None), default=None) for kind, pair in both.items()}
