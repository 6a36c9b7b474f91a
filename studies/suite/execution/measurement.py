"""Measurements of cost: a run whose configuration names a function of the method, instead of training it.

This file, ``assembly.py`` and all that they and the configuration's ``_target_`` entries import from ``scd`` and
``baselines`` are part of the identity of a measurement (``planning/identity.py``).
"""

from collections.abc import Mapping
from typing import Any

from studies.suite.planning.assembly import instantiate


def measure(config: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a measurement.

    ``config["measurement"]`` is built and called with a function that builds an arm's parts from ``config["arms"]``:
    name -> the configuration of a run.
    """
    return instantiate(config["measurement"])(config["arms"])
