"""From the words of a command line to settings, and from settings to the configuration of a run.

Hydra composes ``studies/conf``; a wrong word gets one clear line. The configuration of a run is merged from the weakest
to the strongest: the base (``config.yaml`` and the tier), the method's own recipe, the wrapper's, what the study shares
among its arms (``run:`` in ``conf/study``), the words of the command line, an axis of the study, the arm.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scd.errors import UsageError, unknown
from studies.suite.planning.study import Arm, RunSpec, merge

PRESETS = ("method", "wrapper", "backbone", "map", "protocol", "annotator")
BUDGETS = ("epochs", "flops", "none")
COUNTED = ("views", "backbone", "method", "wrapper")  # what the FLOPs of a training step depend on


@dataclass(frozen=True)
class Settings:
    """What a command line resolved to.

    Attributes:
        study: name of the study; tier: name of the tier.
        seeds: the paired seeds; base: the run configuration that every arm starts from.
        shared: what the study's arms share, over the methods' own recipes; given: what the command line set.
        data: display name of the data ("shapes", "cifar10", a folder's name); locations: where they lie.
        axes: the study's own options, e.g. ``{"rho": [0.0, 0.8], "budgets": [...]}``.
        presets: the configurations that may be named, by group: ``{"method": {"moco": {...}}, ...}``.
        arms: names of the chosen arms, empty for all.
        usual_protocols: the protocols of the study where the command line names none; those that are already evaluated
            stay on the page.
        store, out: where runs and pages go; launcher: how runs are executed.
        page: name of the page without ``.md``: the study, and what differs from its defaults.
        meaningful: False for a tier that only tests the wiring; the page says so.
        command: the whole command, as typed.
    """

    study: str
    tier: str
    seeds: tuple[int, ...]
    base: dict[str, Any]
    shared: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    data: str = "shapes"
    locations: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)
    arms: tuple[str, ...] = ()
    usual_protocols: tuple[Any, ...] = ()
    store: Path = Path("runs")
    out: Path = Path("reports")
    launcher: dict[str, Any] = field(default_factory=dict)
    page: str = ""
    meaningful: bool = True
    command: str = ""

    # ---------------------------------------------------------------- data

    @property
    def embedded(self) -> bool:
        """Whether the images come from a generator of this suite."""
        return is_embedded(self.base["data"])

    def has_option(self, name: str) -> bool:
        """Whether the data have an option of this name, for example ``rho_train``."""
        return name in self.base["data"]["options"]

    # ---------------------------------------------------------------- arms and runs

    def select(self, arms: Sequence[Arm]) -> tuple[Arm, ...]:
        """The chosen arms in the study's order, all when none is chosen.

        Raises:
            UsageError: a chosen arm that the study does not have.
        """
        valid = [arm.name for arm in arms]
        for name in self.arms:
            if name not in valid:
                raise unknown("arm", name, valid)
        return tuple(arm for arm in arms if not self.arms or arm.name in self.arms)

    def spec(
        self,
        arm: Arm,
        seed: int,
        budget: str = "epochs",
        reference: Arm | None = None,
        overrides: Mapping[str, Any] | None = None,
        inputs: Mapping[str, RunSpec] | None = None,
        **labels: Any,
    ) -> RunSpec:
        """One run of an arm; its labels are arm, budget, seed, data and ``labels``.

        Args:
            arm: merged into the base configuration.
            seed: the number that pairs arms.
            budget: "epochs" trains as the configuration says; "flops" trains as long as costs the training FLOPs that
                ``reference`` needs for its own budget (same axes); "none" does not train (random weights).
            overrides: an axis of the study, e.g. ``{"data": {"options": {"rho_train": 0.8}}}``; it applies to the
                reference too.
            inputs: earlier runs that this one uses, by the name that the arm's configuration gives them.
        """
        if budget not in BUDGETS:
            raise unknown("budget", budget, BUDGETS)
        config = self.configure(arm, seed, overrides)
        if budget == "flops":
            if reference is None:
                raise ValueError("a FLOPs budget is counted in the training of a reference arm: pass reference=")
            compared = self.configure(reference, seed, overrides)
            config["training"]["budget"] = {
                "unit": "flops",
                "reference": {key: compared[key] for key in COUNTED},
                "of": compared["training"]["budget"],
            }
        elif budget == "none":
            config["training"]["budget"] = {"unit": "steps", "value": 0}
        named = {"arm": arm.name, "budget": budget, "seed": seed, "data": self.data, **labels}
        return RunSpec(config, named, dict(self.locations), dict(inputs or {}))

    def at_equal_epochs(
        self,
        arm: Arm,
        seed: int,
        trained: bool = True,
        overrides: Mapping[str, Any] | None = None,
        inputs: Mapping[str, RunSpec] | None = None,
        **labels: Any,
    ) -> RunSpec:
        """One run of a study whose arms all train as the base says; an untrained arm may be among them."""
        spec = self.spec(arm, seed, "epochs" if trained else "none", overrides=overrides, inputs=inputs, **labels)
        return replace(spec, labels={**spec.labels, "budget": "epochs"})

    def configure(self, arm: Arm, seed: int, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The configuration of one run, see the module for the order of precedence."""
        axis, own = self._named(overrides or {}), self._named(arm.overrides)
        both = merge(self.base, axis, own)
        method, recipe = self._without_recipe(self._preset("method", both["method"]))
        wrapper, addition = self._wrapper(both["wrapper"])
        rest = {key: value for key, value in self.base.items() if key not in ("method", "wrapper")}
        layers = [self._named(layer) for layer in (recipe, addition, self.shared, self.given)]
        config = merge(rest, *layers, _without_methods(axis), _without_methods(own))
        protocols = [self.protocol(item) for item in config["evaluation"]["protocols"]]
        config["evaluation"] = {**config["evaluation"], "protocols": protocols}
        return {**config, "method": method, "wrapper": wrapper, "seed": seed}

    # ---------------------------------------------------------------- names of configurations

    def protocol(self, item: Any) -> dict[str, Any]:
        """A protocol's whole configuration, with its ``name``, from a name, ``{preset: NAME, ...}`` or ``_target_``.

        Raises:
            UsageError: an unknown name, or a mapping that says neither.
        """
        if isinstance(item, str):
            item = {"preset": item}
        if not isinstance(item, Mapping):
            raise UsageError(f"a protocol is a name or a mapping, not {item!r}")
        if "preset" in item:
            return {"name": item.get("name", item["preset"]), **self._preset("protocol", item)}
        if "_target_" not in item:
            valid = ", ".join(sorted(self.presets.get("protocol", {})))
            raise UsageError(f"a protocol is a name ({valid}), or a mapping with preset or _target_, not {dict(item)}")
        return {"name": item["_target_"].rpartition(".")[2].lower(), **item}

    def _preset(self, group: str, chosen: Any) -> Any:
        """The content of a named configuration with the changes beside its name; anything else as it is."""
        changes: dict[str, Any] = {}
        if isinstance(chosen, Mapping) and "preset" in chosen:
            changes = {key: value for key, value in chosen.items() if key not in ("preset", "name")}
            chosen = chosen["preset"]
        if not isinstance(chosen, str):
            return chosen
        if chosen not in self.presets.get(group, {}):
            raise unknown(group, chosen, self.presets.get(group, {}))
        return merge(self.presets[group][chosen], changes)

    def _wrapper(self, chosen: Any) -> tuple[Any, dict[str, Any]]:
        """A wrapper's arguments and recipe; its map source may be named, and may have a recipe, as well."""
        wrapper, recipe = self._without_recipe(self._preset("wrapper", chosen))
        if not isinstance(wrapper, Mapping) or "saliency" not in wrapper:
            return wrapper, recipe
        saliency, more = self._without_recipe(self._preset("map", wrapper["saliency"]))
        return {**wrapper, "saliency": saliency}, merge(recipe, more)

    def _without_recipe(self, config: Any) -> tuple[Any, dict[str, Any]]:
        """The own arguments of a method, wrapper or map source, and its recipe for this tier."""
        if not isinstance(config, Mapping):
            return config, {}
        recipe = dict(config.get("recipe") or {})
        tiers = recipe.pop("tiers", {})
        for part in (recipe, *tiers.values()):
            if {"method", "wrapper"} & set(part):
                raise UsageError(
                    f"the recipe of {config['_target_']} sets another method; its arguments stand beside it"
                )
        return {key: value for key, value in config.items() if key != "recipe"}, merge(recipe, tiers.get(self.tier, {}))

    def _named(self, layer: Mapping[str, Any]) -> dict[str, Any]:
        """A layer with the names of backbones and annotators replaced by their content."""
        filled = dict(layer)
        if "backbone" in filled:
            filled["backbone"] = self._preset("backbone", filled["backbone"])
        if filled.get("annotations"):
            named = {kind: self._preset("annotator", chosen) for kind, chosen in filled["annotations"].items()}
            filled["annotations"] = named
        return filled


def is_embedded(data: Mapping[str, Any]) -> bool:
    """Whether a data configuration names a generator of this suite."""
    return source_class(data).embedded


def source_class(data: Mapping[str, Any]) -> Any:
    """The class that opens the images of a data configuration.

    Raises:
        UsageError: it cannot be imported.
    """
    target = data["options"].get("_target_", "")
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"data.options._target_ '{target}' cannot be imported: {error}") from error


def _without_methods(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in layer.items() if key not in ("method", "wrapper")}
