"""Objects from the configuration of a run: data, method, evaluation protocols.

Pretraining and evaluation both stand on this file, so it is part of every run's identity.
"""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import hydra
import torch
from hydra.errors import InstantiationException
from torch import nn

from scd.data.recipes import build_recipe, extra_crops
from scd.data.sources.source import Source
from scd.data.views import Recipe
from scd.errors import DataError, UsageError, unknown
from scd.method import Method
from scd.seeds import derive_seed
from studies.suite.planning.checks import check_types

SIGNS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


def seed_of(config: Mapping[str, Any], axis: str) -> int:
    """The seed of one source of chance: its own, or the run's."""
    own = config["seed_of"].get(axis)
    return config["seed"] if own is None else own


def open_data(data: Mapping[str, Any], locations: Mapping[str, Any]) -> Source:
    """The image source of a data configuration, from where it lies on this machine.

    Raises:
        UsageError: an option that the source does not have.
        DataError: images that cannot be read, or that changed after the study was planned.
    """
    options = {key: value for key, value in data["options"].items() if value is not None}
    source = instantiate({**options, **locations})
    for split, expected in (data.get("fingerprints") or {}).items():
        if source.fingerprints.get(split) != expected:
            raise DataError(f"data '{source.name}' changed after the study was planned; give the command again")
    return source


def build_views(config: Mapping[str, Any]) -> Recipe:
    """The view recipe of a configuration."""
    views = {key: value for key, value in config["views"].items() if value is not None and key != "recipe"}
    check_types(build_recipe, views, "views.")
    check_types(extra_crops, views.get("extra") or {}, "views.extra.")
    return build_recipe(config["views"]["recipe"], **views)


def build_method(config: Mapping[str, Any], inputs: Mapping[str, nn.Module] | None = None) -> Method:
    """Backbone, method and wrapper, each initialised from a seed of its own, so that arms share what they share.

    Args:
        inputs: methods of earlier runs, which take the place of ``{_input_: NAME}``.
    """
    seed = seed_of(config, "init")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init", "backbone"))
        backbone = instantiate(config["backbone"], inputs=inputs)
        torch.manual_seed(derive_seed(seed, "init", "method"))
        method = instantiate(config["method"], backbone, inputs=inputs)
        if config["wrapper"] is not None:
            torch.manual_seed(derive_seed(seed, "init", "wrapper"))
            method = instantiate(config["wrapper"], method, inputs=inputs)
    return method


def instantiate(config: Mapping[str, Any], *given: Any, inputs: Mapping[str, nn.Module] | None = None) -> Any:
    """The object that ``_target_`` names, made of ``given`` and the other entries; ``_partial_: true`` binds them only.

    Raises:
        UsageError: no such module or class, an argument that it does not take, or a value that it refuses.
    """
    if not config.get("_target_"):
        raise UsageError(f"a configuration without _target_ cannot be built: {dict(config)}")
    check_arguments(config)
    filled = _with_inputs(config, inputs or {})
    try:
        return hydra.utils.instantiate(filled, *given, _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UsageError):
                raise cause from error
            cause = cause.__cause__
        if error.__cause__ is not None and not isinstance(error.__cause__, TypeError | RuntimeError):
            raise error.__cause__ from error
        lines = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
        raise UsageError(f"{config['_target_']} cannot be built: {lines[0]}") from error


def check_arguments(value: Any) -> None:
    """Every ``_target_`` can be imported, and takes the arguments beside it; nothing is built.

    Raises:
        UsageError: no such module or class, or an argument that it does not take or whose type is another one.
    """
    if isinstance(value, list | tuple):
        for item in value:
            check_arguments(item)
    if not isinstance(value, Mapping):
        return
    for key, item in value.items():
        if key not in SIGNS:
            check_arguments(item)
    if "_target_" not in value:
        return
    target = value["_target_"]
    module, _, name = target.rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"_target_ '{target}' cannot be imported: {error}") from error
    accepted = inspect.signature(made).parameters
    check_types(made, {key: item for key, item in value.items() if key in accepted}, f"{name}: ")
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        return
    for key in value:
        if key not in SIGNS and key not in accepted:
            raise unknown(f"argument of {name}", key, accepted)


def _with_inputs(value: Any, inputs: Mapping[str, nn.Module]) -> Any:
    """The configuration with earlier runs' methods in the place of ``{_input_: NAME}``."""
    if isinstance(value, Mapping):
        if "_input_" in value:
            if value["_input_"] not in inputs:
                raise unknown("input of this run", value["_input_"], inputs)
            return inputs[value["_input_"]]
        return {key: _with_inputs(item, inputs) for key, item in value.items()}
    return [_with_inputs(item, inputs) for item in value] if isinstance(value, list | tuple) else value
