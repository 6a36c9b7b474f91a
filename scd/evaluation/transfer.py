"""The usual protocols on other images than those that a run was trained on: transfer, from the same frozen backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from scd.data.images import load_images
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData, evaluate
from scd.evaluation.scenes import scored_split


class Elsewhere:
    """A further protocol of a run: called with the method, the run's source, its configuration and its device.

    Args:
        data: the other images, with a split "train" and a split "test" or "validation".
        prefix: put before the name of each number, for example "centric_" for ``centric_linear_top1``.
        protocols: of :func:`scd.evaluation.protocol.evaluate`.
        train_limit, test_limit: at most this many images, see :func:`scd.data.images.load_images`.
    """

    def __init__(
        self,
        data: Source,
        prefix: str,
        protocols: Sequence[str] = ("knn", "linear"),
        train_limit: int | None = None,
        test_limit: int | None = None,
    ):
        self.data = data
        self.prefix = prefix
        self.protocols = tuple(protocols)
        self.limits = {"train": train_limit, "test": test_limit}

    def __call__(
        self, method: nn.Module, source: Source, config: Mapping[str, Any], device: str | torch.device
    ) -> dict[str, float]:
        """The protocols' numbers under the prefix; ``data.size`` and ``evaluation.size`` are the run's own.

        Raises:
            UsageError: an unknown protocol, features that are not finite.
            DataError: no split to evaluate on, or classes that a protocol cannot work with.
        """
        canvas, own = config["data"]["size"], config["seed_of"]["probe"]
        data = EvaluationData(
            train=load_images(self.data, "train", canvas, self.limits["train"]),
            test=load_images(self.data, scored_split(self.data), canvas, self.limits["test"]),
        )
        numbers = evaluate(
            method,
            data,
            size=config["evaluation"]["size"],
            seed=config["seed"] if own is None else own,
            protocols=self.protocols,
            device=device,
        )
        return {self.prefix + name: value for name, value in numbers.items()}
