"""Settings of a wrong kind or range, found when the plan is made and not in a run."""

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow
import pyarrow.compute as pc

from scd.errors import DataError, UsageError, unknown
from studies.suite.planning.study import TRAINING

if TYPE_CHECKING:
    from scd.evaluation.protocol import EvaluationData
    from studies.suite.planning.settings import Settings
    from studies.suite.planning.study import RunSpec

WHOLE = {  # settings of a run that are whole numbers -> the smallest one
    "training.batch_size": 1,
    "training.devices": 1,
    "data.size": 1,
    "views.size": 1,
    "views.extra.count": 0,
    "evaluation.size": 1,
}
WHOLE_OR_NULL = {
    "data.train_limit": 1,
    "data.test_limit": 1,
    "training.log_every": 1,
    "evaluation.train_limit": 1,
    "evaluation.test_limit": 1,
    **{f"seed_of.{axis}": 0 for axis in ("init", "order", "views", "probe")},
}
CHOICES = {
    "training.accelerator": ("cpu", "cuda"),
    "training.precision": ("32-true", "bf16-mixed"),
}
OF_GENERATORS = {"rho": "rho_train", "counts": "objects", "swept": "objects", "centric": "objects"}  # axis -> option
OPEN = ("auto", "from_data", "???")  # values that stand for others of any kind
PLURAL = {int: "whole numbers", float: "numbers", bool: "truth values", str: "text"}
SCALARS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


# ---------------------------------------------------------------- kinds of values


def check_kind(key: str, value: Any, usual: Any) -> None:
    """A word of the command line has the kind of value that stands in the configuration.

    Args:
        value: what the word gives; null is checked where it is used.
        usual: what stands there without it; where that is null or one of ``OPEN``, any value is taken.

    Raises:
        UsageError: another kind.
    """
    if value is None or usual is None or usual in OPEN:
        return
    if key in CHOICES and value not in CHOICES[key]:
        raise unknown(key, value, CHOICES[key])
    if isinstance(usual, str):
        right, words = isinstance(value, str | Mapping), SCALARS[str]
    elif isinstance(usual, bool):
        right, words = isinstance(value, bool), SCALARS[bool]
    elif isinstance(usual, int | float):
        right, words = _is_number(value), SCALARS[float]
    elif isinstance(usual, Mapping):
        # a method, a backbone, ... may be given by its name
        right, words = isinstance(value, Mapping) or "_target_" in usual, "a mapping of several options"
    else:
        right, words = isinstance(value, list | tuple), f"a list: {key}=[{value}]"
    if not right:
        raise UsageError(f"{key}={shown(value)}: it must be {words}")


def check_axes(axes: Mapping[str, Any], usual: Mapping[str, Any], where: str = "axes") -> None:
    """The axes of a study have values of the kinds that stand in its configuration, each once.

    Args:
        axes: as the command line left them.
        usual: as the study's configuration has them; where it has null, any value is taken.

    Raises:
        UsageError: an axis that the study does not have, a value of another kind, a number below 0 where the study has
            a whole one, or a repeated level.
    """
    if where == "axes":
        for name in axes:
            if name not in usual:
                raise unknown("axis", name, usual)
    for name, value in axes.items():
        key, expected = f"{where}.{name}", usual.get(name)
        if expected is None or (value is None and isinstance(expected, Mapping) and "_target_" not in expected):
            continue
        if isinstance(expected, Mapping) and isinstance(value, Mapping):
            check_axes(value, expected, key)
        elif isinstance(expected, int) and not isinstance(expected, bool):
            if not fits(value, int) or value < 0:
                raise UsageError(f"{key}={shown(value)}: it must be a whole number, 0 or more")
        elif isinstance(expected, list):
            _check_levels(key, value, expected)
            if where == "axes" and any(level in value[:number] for number, level in enumerate(value)):
                raise UsageError(f"{key}={shown(value)}: it must list each level once")
        elif value is None or (isinstance(expected, Mapping) and not isinstance(value, str)):
            raise UsageError(f"{key}={shown(value)}: it needs a value; leave the word out for the usual one")


def _check_levels(key: str, value: Any, expected: Sequence[Any]) -> None:
    if not isinstance(value, list):
        raise UsageError(f"{key}={shown(value)}: it must be a list")
    for level in value:
        if expected and (level is None or isinstance(level, Mapping | list)):
            raise UsageError(f"{key}=[{shown(level)}]: its levels must be single values")
        if expected:
            check_kind(f"{key}: a level", level, expected[0])


def check_types(made: Callable[..., Any], given: Mapping[str, Any], where: str) -> None:
    """Arguments have the types that a class or function declares.

    Objects that are still to be built (``_target_``, ``_input_``) and types other than numbers, text, truth values,
    lists and mappings are not looked at.

    Args:
        where: put before the argument's name in the message.

    Raises:
        UsageError: an argument of another type.
    """
    try:
        hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
    except (AttributeError, NameError, TypeError):  # a library's class without annotations that can be resolved
        return
    for name, value in given.items():
        if name in hints and not fits(value, hints[name]):
            raise UsageError(f"{where}{name} must be {in_words(hints[name])}, not {shown(value)}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of a configuration has the type of an annotation."""
    if isinstance(value, Mapping) and ({"_target_", "_input_"} & set(value)):
        return True
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return _is_number(value)
    if hint in (str, type(None)):
        return isinstance(value, hint)
    kind = origin or hint
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if kind in (list, tuple) or kind is Sequence:
        each = [item for item in inner if item is not ...]
        return isinstance(value, list | tuple) and (not each or all(fits(item, each[0]) for item in value))
    return True


def in_words(hint: Any) -> str:
    """An annotation for people."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        kinds = [each for each in inner if each is not type(None)]
        return " or ".join(map(in_words, kinds)) + (", or null" if type(None) in inner else "")
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if hint in SCALARS:
        return SCALARS[hint]
    kind = origin or hint
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return "a mapping"
    each = [item for item in inner if item is not ...]
    return f"a list of {PLURAL[each[0]]}" if each and each[0] in PLURAL else "a list"


def shown(value: Any) -> str:
    """A value as the command line writes it; text in quotes, so that it is told from a number."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---------------------------------------------------------------- the settings of one run


def at(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def check_values(config: Mapping[str, Any]) -> None:
    """Counts and sizes of a run's configuration are whole numbers in their range, and choices are among the valid ones.

    Raises:
        UsageError: one that is not; the text names it.
    """
    for key, valid in CHOICES.items():
        if (chosen := at(config, key)) not in valid:
            raise unknown(key, chosen, valid)
    for key, least in {**WHOLE, **WHOLE_OR_NULL}.items():
        value = at(config, key)
        if value is None and (key in WHOLE_OR_NULL or key.startswith("views.extra")):
            continue
        if not fits(value, int) or value < least:
            null = ", or null" if key in WHOLE_OR_NULL else ""
            raise UsageError(f"{key}={shown(value)}: it must be a whole number, {least} or more{null}")


def check_options_hold(settings: "Settings", specs: Sequence["RunSpec"]) -> None:
    """Every ``data.options.NAME`` of the command line holds for some run: an axis of the study wins over it.

    Raises:
        UsageError: one that every run has another value of; the text names the axis that sets it, where a label does.
    """
    trained = [spec for spec in specs if spec.kind == TRAINING]
    for name, value in settings.options.items():
        found = [spec.config["data"]["options"].get(name) for spec in trained]
        if not found or any(_holds(value, each) for each in found):
            continue
        axes = [axis for axis in settings.axes if all(spec.labels.get(axis) in found for spec in trained)]
        instead = f"give axes.{axes[0]}=[{shown(value)}]" if axes else f"it has {shown(found[0])}; leave the word out"
        raise UsageError(f"data.options.{name}={shown(value)} holds for no run: the study sets it itself; {instead}")


def _holds(value: Any, found: Any) -> bool:
    """Whether a setting has this value; of a mapping (``columns.image=img``) the entries that the words give."""
    if isinstance(value, Mapping) and isinstance(found, Mapping):
        return all(key in found and _holds(each, found[key]) for key, each in value.items())
    return value == found


def check_axes_hold(settings: "Settings", given: Iterable[str]) -> None:
    """Every axis of the command line that sets an option of embedded images is given with images that have it.

    Args:
        given: keys of the words on the command line.

    Raises:
        UsageError: one whose images lack the option; the text says what they are.
    """
    for key in given:
        root, _, rest = key.lstrip("+~").partition(".")
        axis = rest.partition(".")[0]
        option = OF_GENERATORS.get(axis) if root == "axes" else None
        if option is not None and not settings.has_option(option):
            raise UsageError(
                f"axes.{axis} sets {option} of embedded images, and '{settings.data}' has no such option; leave it out"
            )


def check_training(config: Mapping[str, Any], steps_per_epoch: int, steps: int | None) -> None:
    """The optimiser and the schedule of a run that trains; nothing is trained.

    Args:
        steps: optimiser steps of the run; None for a budget of seconds.

    Raises:
        UsageError: an unknown option, a value out of range, or a warm-up that is not shorter than the run.
    """
    from torch import nn  # this module is imported where studies are listed, without torch

    from scd.training.optimizers import build_optimizer
    from scd.training.schedules import Schedule

    schedule, optimizer = config["schedule"], dict(config["optimizer"])
    clip = optimizer.pop("clip", None)
    check_types(Schedule, schedule, "schedule.")
    check_types(build_optimizer, optimizer, "optimizer.")
    if clip is not None and (not _is_number(clip) or not clip > 0):
        raise UsageError(f"optimizer.clip is a norm above 0, or null, not {shown(clip)}")
    try:
        build_optimizer(nn.Linear(1, 1), **optimizer)
    except ValueError as error:  # of torch, for combinations that it refuses
        raise UsageError(f"optimizer: {error}") from error
    rate = Schedule(**schedule)
    if steps is None:
        rate.factor_by_time(0.0, 0, steps_per_epoch)
    else:
        rate.factor(0, steps, steps_per_epoch)
    for share in config["training"]["snapshots"]:
        if not _is_number(share) or not 0 <= share <= 1:
            raise UsageError(f"training.snapshots are shares of the training in [0, 1], not {shown(share)}")


def check_lists(images: "EvaluationData") -> None:
    """Find objects whose categories or boxes are null, where an image without objects has empty lists.

    Raises:
        DataError: such a row.
    """
    for split in ("train", images.split):
        if "objects" not in images.columns(split):
            continue
        rows = images.source.split(split).select_columns(["objects"]).with_format("arrow")[:]["objects"]
        for column in rows.chunks if pyarrow.types.is_struct(rows.type) else ():
            for field in ("category", "bbox"):
                missing = pc.and_(column.is_valid(), pc.struct_field(column, field).is_null())
                if pc.any(missing).as_py():
                    raise DataError(
                        f"'{images.source.name}' {split}: {pc.sum(missing).as_py():,} images have objects whose "
                        f"'{field}' is null; an image without objects has an empty list"
                    )
