"""From the words of a command line to settings, and from settings to the configuration of a run.

Hydra composes ``studies/conf``; a wrong word gets one clear line. The configuration of a run is merged from the weakest
to the strongest: the base (``config.yaml`` and the tier), the method's own recipe, the wrapper's, what the study shares
among its arms (``run:`` in ``conf/study``), the words of the command line, an axis of the study, the arm.

A recipe is what a method, wrapper or map source sets beside its own arguments: ``views``, ``backbone``, ``optimizer``
and so on. In a method's recipe, ``method`` holds arguments of its own (in a wrapper's: ``wrapper``), so that they can
differ between tiers. ``tiers: {NAME: recipe}`` holds what is set on one tier, ``backbones: {NAME: recipe}`` what is set
on one kind of backbone (the last part of its ``_target_``: ``vit``, ``build_backbone``); both may be nested.
``deviations`` says in sentences where the recipe departs from its paper; pages print them, and no run depends on them.
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
EVERY = "all"  # arms=all
OPTIONS = "options of the backbone"  # of the kind of backbone that a recipe's ``backbones`` names
COUNTED = ("views", "backbone", "method", "wrapper")  # what the FLOPs of a training step depend on


@dataclass(frozen=True)
class Settings:
    """What a command line resolved to.

    Attributes:
        study: name of the study; tier: name of the tier.
        seeds: the paired seeds; with ``minutes`` the most that the study may use, as many as its last reading has.
        minutes: the time to add seeds in; None for the given seeds, however long they take.
        base: the run configuration that every arm starts from.
        shared: what the study's arms share, over the methods' own recipes; given: what the command line set.
        options: data.options.NAME that the command line set -> its value.
        arguments: what the command line set of methods and wrappers: ``{"method": {"dim": 64}, "presets": {...}}``.
        data: display name of the data ("shapes", "cifar10", a folder's name); locations: where they lie.
        declared: numbers of images by split and of classes, for data that are not on this machine; {} if not known.
        axes: the study's own options, e.g. ``{"rho": [0.0, 0.8], "budgets": [...]}``.
        departures: where every run departs from the papers, point -> sentence.
        presets: the configurations that may be named, by group: ``{"method": {"moco": {...}}, ...}``.
        arms: names of the chosen arms, empty for the study's default ones; ``all`` is every one.
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
    options: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    data: str = "shapes"
    locations: dict[str, Any] = field(default_factory=dict)
    declared: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    departures: dict[str, str] = field(default_factory=dict)
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)
    arms: tuple[str, ...] = ()
    usual_protocols: tuple[Any, ...] = ()
    store: Path = Path("runs")
    out: Path = Path("reports")
    launcher: dict[str, Any] = field(default_factory=dict)
    page: str = ""
    meaningful: bool = True
    command: str = ""
    minutes: float | None = None

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
        """The chosen arms in the study's order, the default ones when none is chosen, all of them for ``arms=all``.

        Raises:
            UsageError: a chosen arm that the study does not have.
        """
        valid = [arm.name for arm in arms]
        for name in self.arms:
            if name not in (*valid, EVERY):
                raise unknown("arm", name, valid)
        if EVERY in self.arms:
            return tuple(arms)
        return tuple(arm for arm in arms if (arm.name in self.arms if self.arms else arm.default))

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
        deviations = self.deviations(arm, overrides)
        return RunSpec(config, named, dict(self.locations), dict(inputs or {}), deviations=deviations)

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
        arguments, recipes = self._recipes(axis, own)
        rest = {key: value for key, value in self.base.items() if key not in arguments}
        apart = (*arguments, "deviations", OPTIONS)
        beside = [{key: value for key, value in recipe.items() if key not in apart} for _, recipe in recipes]
        config = merge(rest, *(self._named(layer) for layer in (*beside, self.shared, self.given)), axis, own)
        options = [recipe[OPTIONS] for _, recipe in recipes if OPTIONS in recipe]
        if options:  # on whichever backbone was named, but weaker than options that are set
            layers = (self.shared, self.arguments, overrides or {}, arm.overrides)
            options += [_without_preset(layer["backbone"]) for layer in layers if "backbone" in layer]
            config = merge(config, *({"backbone": each} for each in options))
        protocols = [self.protocol(item) for item in config["evaluation"]["protocols"]]
        config["evaluation"] = {**config["evaluation"], "protocols": protocols}
        return {**config, **arguments, "seed": seed}

    def deviations(self, arm: Arm, overrides: Mapping[str, Any] | None = None) -> dict[str, dict[str, str]]:
        """Where an arm departs from its papers, as the recipes of its method, wrapper and map source declare it.

        Returns:
            Class name -> point -> sentence.
        """
        found: dict[str, dict[str, str]] = {}
        for target, recipe in self._recipes(self._named(overrides or {}), self._named(arm.overrides))[1]:
            sentences = {point: text for point, text in (recipe.get("deviations") or {}).items() if text}
            if sentences:
                found[target.rpartition(".")[2]] = sentences
        return found

    # ---------------------------------------------------------------- methods, wrappers and their recipes

    def _recipes(
        self, axis: Mapping[str, Any], own: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
        """The arguments of method and wrapper, and the recipes of method, wrapper and map source, weakest first.

        Each recipe comes with the ``_target_`` that brings it.
        """
        chosen = {group: self._chosen(group, axis, own) for group in ("method", "wrapper")}
        parts = {group: config for group, (config, _) in chosen.items() if isinstance(config, Mapping)}
        if "saliency" in parts.get("wrapper", {}):
            parts["map"] = self._preset("map", parts["wrapper"]["saliency"])
            parts["wrapper"] = {**parts["wrapper"], "saliency": _without_recipe(parts["map"])}
        kind, recipes = "", {}
        for _ in range(2):  # a recipe may name the backbone that its own parts depend on
            recipes = {group: self._recipe(group, config, kind) for group, config in parts.items()}
            layers = [self._named(layer) for layer in (*recipes.values(), self.shared, self.given, axis, own)]
            named = [{"backbone": layer["backbone"]} for layer in layers if "backbone" in layer]
            backbone = merge({"backbone": self.base["backbone"]}, *named)["backbone"]
            kind = backbone["_target_"].rpartition(".")[2]
        arguments = {group: config for group, (config, _) in chosen.items()}
        for group, (_, changes) in chosen.items():
            if group in parts:
                config = _without_recipe(parts[group])
                by_recipe = recipes[group].get(group)
                arguments[group] = merge(config, by_recipe, *changes) if by_recipe else config
        return arguments, [(parts[group]["_target_"], recipe) for group, recipe in recipes.items()]

    def _chosen(
        self, group: str, axis: Mapping[str, Any], own: Mapping[str, Any]
    ) -> tuple[Any, list[Mapping[str, Any]]]:
        """The chosen method or wrapper, whole, and what it holds beside its file, weakest first."""
        base = self.base[group]
        config, changes = self._preset(group, base), [self._words(group, base)]
        for layer in (axis, own):
            item = layer.get(group, {})
            if isinstance(item, str) or (isinstance(item, Mapping) and "preset" in item):
                name, beside = (item, {}) if isinstance(item, str) else (item["preset"], item)
                config, changes = self._preset(group, item), [self._words(group, name), beside]
            elif isinstance(item, Mapping) and isinstance(config, Mapping):
                another = item.get("_target_", config["_target_"]) != config["_target_"]
                config, changes = merge({group: config}, {group: item})[group], [] if another else [*changes, item]
            elif group in layer:
                config, changes = item, []
        apart = ("preset", "recipe", "saliency")  # a map source is filled in by itself
        return config, [{key: change[key] for key in change if key not in apart} for change in changes]

    def _words(self, group: str, chosen: Any) -> Mapping[str, Any]:
        """What words of the command line set: ``method.dim=64``, or ``presets.method.moco.dim=64`` of a named one."""
        if isinstance(chosen, str):
            return self.arguments.get("presets", {}).get(group, {}).get(chosen, {})
        return self.arguments.get(group, {})

    def _recipe(self, group: str, config: Mapping[str, Any], backbone: str) -> dict[str, Any]:
        """The recipe of a method, wrapper or map source on this tier and on a kind of backbone.

        Raises:
            UsageError: a recipe that sets another part of the run than its own.
        """
        recipe = self._on_this(config.get("recipe") or {}, backbone)
        if foreign := ({"method", "wrapper"} - {group}) & set(recipe):
            name = foreign.pop()
            raise UsageError(f"the recipe of {config['_target_']} sets the {name}; only the {name}'s own recipe may")
        return recipe

    def _on_this(self, recipe: Mapping[str, Any], backbone: str) -> dict[str, Any]:
        """A recipe with its parts for this tier and this kind of backbone in their places."""
        plain = {key: value for key, value in recipe.items() if key not in ("tiers", "backbones")}
        parts = [
            self._on_this(recipe[key].get(name) or {}, backbone) if key in recipe else {}
            for key, name in (("tiers", self.tier), ("backbones", backbone))
        ]
        if "backbone" in parts[1]:
            parts[1][OPTIONS] = parts[1].pop("backbone")
        return merge(plain, *parts)

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


def _without_preset(chosen: Any) -> dict[str, Any]:
    """The options beside the name of a configuration; all of one that is given whole."""
    return {} if isinstance(chosen, str) else {key: value for key, value in chosen.items() if key != "preset"}


def _without_recipe(config: Any) -> Any:
    """The own arguments of a method, wrapper or map source."""
    return {key: value for key, value in config.items() if key != "recipe"} if isinstance(config, Mapping) else config
