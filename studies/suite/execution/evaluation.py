"""Evaluation of a pretrained method: its protocols, one after the other, on shared features.

This file, ``planning/protocols.py``, ``planning/assembly.py`` and all that they and a protocol's ``_target_`` import
from ``scd`` are part of the identity of an evaluation (``planning/identity.py``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from scd.evaluation.protocol import Context
from scd.method import Method
from studies.suite.planning.assembly import build_method, open_data, seed_of
from studies.suite.planning.protocols import build_protocol, evaluation_data


class Snapshots(Mapping[float, dict[str, Tensor]]):
    """What evaluations need of a method after shares of its training, read from the run's folder when asked for."""

    def __init__(self, folder: Path):
        files = (folder / "snapshots").glob("*.safetensors")
        self.files = {float(path.stem): path for path in sorted(files)}

    def __getitem__(self, share: float) -> dict[str, Tensor]:
        return load_file(self.files[share])

    def __iter__(self) -> Iterator[float]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


class Evaluation:
    """The evaluations of one run. Features and maps are extracted once for all protocols.

    Args:
        config: of the run; locations: where its data lie on this machine.
        folder: of its pretraining.
        device: where the method is evaluated.
        method: the trained method, or None to load it from ``folder``.
        inputs: methods of earlier runs that the method is built with.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        locations: Mapping[str, Any],
        folder: Path,
        device: str | torch.device = "cpu",
        method: Method | None = None,
        inputs: Mapping[str, nn.Module] | None = None,
    ):
        self.config = config
        self.locations = locations
        self.method = load_method(config, folder, inputs).to(device) if method is None else method
        self.source = open_data(config["data"], locations)
        self.context = Context(
            method=self.method,
            data=evaluation_data(config, self.source),
            size=config["evaluation"]["size"],
            seed=seed_of(config, "probe"),
            device=torch.device(device),
            snapshots=Snapshots(folder),
        )

    def run(self, config: Mapping[str, Any], folder: Path) -> dict[str, float]:
        """The numbers of one protocol; files that it writes go to ``folder``.

        Raises:
            UsageError: features that are not finite, or data that the protocol cannot work with.
        """
        return build_protocol(config)(replace(self.context, folder=folder))


def load_method(config: Mapping[str, Any], folder: Path, inputs: Mapping[str, nn.Module] | None = None) -> Method:
    """The trained method of a finished pretraining, in evaluation mode."""
    method = build_method(config, inputs)
    method.load_evaluated_state(load_file(folder / "method.safetensors"))
    return method.eval()
