"""What the methods of the suite declare: their classes, configurations, settings by tier, and where they are arms."""

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from scd.errors import DataError, UsageError
from scd.maps.source import MapSource
from scd.method import Method
from scd.siamese import JointEmbedding, MomentumSiamese
from scd.wrapper import Wrapper
from studies.suite.analysis.results import FOLDER, read_about
from studies.suite.planning.assembly import build_method
from studies.suite.planning.command_line import choices, load_study, presets, resolve_settings
from studies.suite.planning.resolve import with_classes
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, merge

ROOT = Path(__file__).resolve().parents[2]
TIERS = ("smoke", "cpu", "gpu", "paper")
KINDS = (Wrapper, MomentumSiamese, JointEmbedding, Method, MapSource)  # the most special first
HOSTS = ("moco", "byol", "simsiam", "dino", "slotcon")  # tried in this order as the host of a wrapper
CLASSES = 10  # of the images, for a method that needs their number


@dataclass(frozen=True)
class Configuration:
    """A file of ``studies/conf/method`` or ``wrapper``.

    Attributes:
        group: "method" or "wrapper"; name: of the file; target: the class that it builds.
        host: the method that a wrapper is shown around; "" for a method.
        needs, supervision: of the built method.
        tiers: tier -> the settings that a run has there, dotted name -> value.
        deviations: tier -> point -> sentence.
        problem: why it cannot be built around any of ``HOSTS``; empty where it can.
    """

    group: str
    name: str
    target: str
    host: str = ""
    needs: tuple[str, ...] = ()
    supervision: str = ""
    tiers: dict[str, dict[str, Any]] = field(default_factory=dict)
    deviations: dict[str, dict[str, str]] = field(default_factory=dict)
    problem: str = ""

    @property
    def overrides(self) -> dict[str, str]:
        """What an arm says to have it."""
        return {"method": self.name} if self.group == "method" else {"method": self.host, "wrapper": self.name}


def modules(root: Path = ROOT) -> list[str]:
    """The modules that have a page: SCD, and every file of ``baselines``."""
    files = sorted(path for path in (root / "baselines").glob("*.py") if path.stem != "__init__")
    return ["scd.scd", *(f"baselines.{path.stem}" for path in files)]


def public_classes(module: ModuleType) -> list[type]:
    """The classes that a module defines, in its order, without those whose name begins with an underscore."""
    order = [node.name for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)]
    return [getattr(module, name) for name in order if not name.startswith("_")]


def kind_of(made: type) -> str:
    """The contract that a class fulfils, "" for a part such as a matcher."""
    return next((kind.__name__ for kind in KINDS if issubclass(made, kind)), "")


# -------------------------------------------------------------------- configurations and their settings


@cache
def settings_of(tier: str) -> Settings:
    """The settings of a tier with nothing else said."""
    return resolve_settings("documentation", [f"tier={tier}"])


def arm_of(overrides: Mapping[str, Any]) -> Arm:
    """An arm without words."""
    return Arm("", "", dict(overrides), "", "")


def of_module(module: str) -> list[Configuration]:
    """The files of ``method`` and ``wrapper`` whose class is in a module, with what they resolve to on each tier."""
    found = presets()
    return [
        described(group, name)
        for group in ("method", "wrapper")
        for name in choices(group)
        if found[group][name]["_target_"].rpartition(".")[0] == module
    ]


@cache
def described(group: str, name: str) -> Configuration:
    """A configuration with its declarations and settings; a wrapper around the first host that it accepts."""
    target, problem = presets()[group][name]["_target_"], ""
    for host in HOSTS if group == "wrapper" else ("",):
        named = Configuration(group, name, target, host)
        try:
            method = built(named.overrides)
        except UsageError as error:
            problem = problem or str(error)
            continue
        tiers = {tier: settings_of(tier).configure(arm_of(named.overrides), 0) for tier in TIERS}
        deviations = {tier: own_deviations(tier, named) for tier in TIERS}
        needs = tuple(sorted(method.needs))
        shown = {tier: dict(shown_settings(config, group)) for tier, config in tiers.items()}
        return Configuration(group, name, target, host, needs, method.supervision, shown, deviations)
    return Configuration(group, name, target, problem=problem)


def built(overrides: Mapping[str, Any]) -> Method:
    """The method of an arm, at the smallest tier."""
    config = settings_of("smoke").configure(arm_of(overrides), 0)
    return build_method({**config, "method": with_classes(config["method"], CLASSES, "the documentation's images")})


def own_deviations(tier: str, named: Configuration) -> dict[str, str]:
    """The sentences of a recipe on a tier, without those of a wrapper's host."""
    return settings_of(tier).deviations(arm_of(named.overrides)).get(named.target.rpartition(".")[2], {})


def shown_settings(config: Mapping[str, Any], group: str) -> Iterator[tuple[str, Any]]:
    """The settings that a page shows: the arguments of the method or wrapper, then what its recipe may set."""
    yield from flat(config[group], f"{group}.")
    for part in ("backbone", "views", "annotations", "optimizer", "schedule"):
        yield from flat(config[part], f"{part}.")
    for key in ("batch_size", "budget", "precision", "devices"):
        yield from flat({key: config["training"][key]}, "training.")


def flat(mapping: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Nested values by dotted name; what hydra alone reads, and values that are not set, are left out."""
    for key, value in mapping.items():
        if key in ("_partial_", "_recursive_", "_convert_") or (key == "_target_" and prefix.count(".") == 1):
            continue
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def targets(value: Any) -> set[str]:
    """The modules of every ``_target_`` in a configuration."""
    if isinstance(value, Mapping):
        own = {value["_target_"].rpartition(".")[0]} if isinstance(value.get("_target_"), str) else set()
        return own.union(*(targets(item) for item in value.values()))
    return set().union(*(targets(item) for item in value)) if isinstance(value, list | tuple) else set()


# -------------------------------------------------------------------- where a method is an arm


@dataclass(frozen=True)
class ArmOfPage:
    """An arm of a committed page.

    Attributes:
        page, arm, label: names.
        own: modules of its wrapper and map source, or of its method where it has no wrapper; host: of the method that
            its wrapper is put around.
    """

    page: str
    arm: str
    label: str
    own: frozenset[str]
    host: frozenset[str] = frozenset()


@cache
def arms_of_pages(reports: Path = ROOT / "reports") -> tuple[ArmOfPage, ...]:
    """Every arm of every committed page whose numbers mean something."""
    found = []
    for path in sorted((reports / FOLDER).glob("*.json")):
        try:
            about = read_about(path)
        except DataError:
            continue
        if not about.get("meaningful", True):
            continue
        declared = {arm.name: arm for arm in load_study(about["study"]).arms}
        for name in about["arms"]:
            label = declared[name].label if name in declared else name
            method, wrapper = parts_of_arm(about, declared.get(name), name)
            own, host = (wrapper, method) if wrapper else (method, {})
            found.append(ArmOfPage(about["page"], name, label, frozenset(targets(own)), frozenset(targets(host))))
    return tuple(found)


def parts_of_arm(about: Mapping[str, Any], declared: Arm | None, name: str) -> tuple[Any, Any]:
    """An arm's method and wrapper: as the page recorded them, or as the study declares them; None where unknown."""
    if about["base"].get("method") and name in {about.get("reference"), *about.get("overrides", {})}:
        config = merge(about["base"], about["overrides"].get(name, {}))
    elif declared is not None:
        config = settings_of("cpu").configure(declared, 0)
    else:
        return None, None
    return config.get("method"), config.get("wrapper")
