"""Evaluation protocols and the images that they score, from the configuration of a run."""

from collections.abc import Mapping
from typing import Any

from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData, Protocol
from studies.suite.planning.assembly import instantiate


def build_protocol(config: Mapping[str, Any]) -> Protocol:
    """A protocol from its configuration; ``name`` is how the command line calls it and no argument."""
    return instantiate({key: value for key, value in config.items() if key != "name"})


def evaluation_data(config: Mapping[str, Any], source: Source) -> EvaluationData:
    """The images that a run is evaluated on, within the limits of its data and of its evaluation."""
    data, evaluation = config["data"], config["evaluation"]
    limits = {
        kind: min((n for n in (data[kind], evaluation[kind]) if n is not None), default=None)
        for kind in ("train_limit", "test_limit")
    }
    return EvaluationData(source, data["size"], **limits, streamed_limit=data["train_limit"])
