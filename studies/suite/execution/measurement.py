"""Measurements of cost: a run whose configuration names a measuring function, instead of a training.

This file, ``planning/assembly.py`` and all that they and the configuration's ``_target_`` entries import from ``scd``
and ``baselines`` are part of the identity of a measurement (``planning/identity.py``).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from scd.profiling.workload import Workload
from studies.suite.planning.assembly import build_method, build_views, instantiate


def measure(config: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a measurement.

    ``config["measurement"]`` is built and called with a function for each of ``config["arms"]`` that builds its
    workload anew (see :mod:`scd.profiling.workload`).
    """
    return instantiate(config["measurement"])({name: partial(workload, arm) for name, arm in config["arms"].items()})


def workload(config: Mapping[str, Any]) -> Workload:
    """What a step of a run of this configuration takes; computed in float32 on one device."""
    training = config["training"]
    return Workload(
        method=build_method(config),
        recipe=build_views(config),
        batch_size=training["batch_size"],
        canvas=config["data"]["size"],
        optimizer=config["optimizer"],
        device=torch.device("cuda", 0) if training["accelerator"] == "cuda" else torch.device("cpu"),
    )
