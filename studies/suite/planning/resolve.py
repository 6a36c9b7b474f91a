"""From a study's specs to runs that can be started: data opened, budgets turned into steps, costs counted."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from scd.data.images import check_memory
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError
from scd.profiling.flops import training_flops
from scd.training.budget import Budget
from studies.suite.planning.assembly import build_method, build_views, check_arguments, open_data
from studies.suite.planning.checks import check_training, check_values
from studies.suite.planning.identity import canonical
from studies.suite.planning.protocols import build_protocol, evaluation_data
from studies.suite.planning.settings import COUNTED, is_embedded
from studies.suite.planning.study import TRAINING, RunSpec, merge

FROM_DATA = "from_data"  # a method's number of classes that is taken from the labels


@dataclass(frozen=True)
class Planned:
    """A complete spec and the length of its training.

    Args:
        spec: with the data's fingerprints, the budget in steps and the FLOPs of a step.
        steps: optimiser steps; None where the budget is one of time, 0 for a measurement.
        seconds: the budget, where it is one of time.
    """

    spec: RunSpec
    steps: int | None
    seconds: float | None = None

    @property
    def flops(self) -> float:
        """Training FLOPs of the whole run; 0 where time is the budget."""
        return (self.steps or 0) * self.spec.flops_per_step


def resolve(specs: Iterable[RunSpec], check: bool = True) -> list[Planned]:
    """The specs, complete; those of equal configurations get one identity.

    Opens every data set and builds every method once, on no data, so that wrong settings end here and not in a worker.

    Args:
        check: also load the images, and make sure that the protocols can work with them, before anything is trained.

    Raises:
        UsageError: data, a method or a budget that cannot be used.
    """
    resolver = Resolver(check)
    return [resolver.complete(spec) for spec in specs]


def unique(planned: Iterable[Planned]) -> dict[str, Planned]:
    """The different runs by key, inputs before the runs that use them, and all arms of the first seed first.

    Runs of one pretraining that are scored on the same images are one run with the protocols of all.
    """
    merged: dict[str, Planned] = {}
    for item in sorted(planned, key=lambda item: item.spec.labels.get("seed", 0)):
        for needed in item.spec.inputs.values():
            merged.setdefault(needed.with_protocols([]).key, Planned(needed.with_protocols([]), None, 0.0))
        known = merged.get(item.spec.key)
        if known is None or item.spec.kind != TRAINING:
            merged[item.spec.key] = item
            continue
        protocols = {**known.spec.evaluations, **item.spec.evaluations}
        merged[item.spec.key] = replace(known, spec=known.spec.with_protocols(list(protocols.values())))
    return merged


def training_images(source: Source) -> int:
    """How many images a source has to train on; a DataError where it has no such split."""
    if "train" not in source.splits:
        raise DataError(f"data '{source.name}' has no split 'train'; it has {', '.join(source.splits)}")
    return len(source.splits["train"])


@dataclass(frozen=True)
class OpenedData:
    """What a plan takes from a data set: fingerprints (None for embedded images), training images, classes."""

    fingerprints: dict[str, str] | None
    images: int
    classes: int | None


class Resolver:
    """Completes specs; opened data and counted methods are kept between them."""

    def __init__(self, check: bool):
        self.check = check
        self.opened: dict[str, OpenedData] = {}
        self.checked: dict[str, tuple[dict[str, Any], ...]] = {}
        self.costs: dict[str, float] = {}

    def complete(self, spec: RunSpec) -> Planned:
        """One spec with its data's fingerprints, its budget in steps, and the protocols that its data allow."""
        if spec.kind != TRAINING:
            return Planned(spec, 0)
        inputs = {name: self.input(earlier) for name, earlier in spec.inputs.items()}
        check_values(spec.config)
        opened = self.open(spec)
        config = merge(spec.config, {"data": {"fingerprints": opened.fingerprints}})
        config["method"] = with_classes(config["method"], opened.classes, config["data"]["title"])
        training = config["training"]
        epoch = opened.images // training["batch_size"]
        if not epoch:
            raise UsageError(
                f"training.batch_size={training['batch_size']} is more than the {opened.images} training images of "
                f"'{config['data']['title']}'"
            )
        cost = self.cost(config, inputs)
        steps = self.steps(config, epoch, cost)
        seconds = None
        if steps != 0:
            check_training(config, epoch, steps)
        if steps is None:
            seconds = training["budget"]["value"]
        else:
            training["budget"] = {"unit": "steps", "value": steps}
        complete = replace(spec, config=config, inputs=inputs, flops_per_step=cost)
        return Planned(complete.with_protocols(self.protocols(complete)), steps, seconds)

    def input(self, spec: RunSpec) -> RunSpec:
        """An earlier run that another one uses, complete; its evaluations are not needed."""
        return self.complete(spec.with_protocols([])).spec

    # ---------------------------------------------------------------- data

    def open(self, spec: RunSpec) -> OpenedData:
        """What the plan needs of the data.

        Embedded images have no fingerprint: their options, and the generator's code, are in the run's identity anyway,
        so a plan need not draw them.
        """
        data = spec.config["data"]
        key = _key(data, spec.locations)
        if key not in self.opened:
            embedded, fingerprints = is_embedded(data), None
            found, classes = data["options"].get("train"), data["options"].get("classes")
            if not embedded:
                source = open_data(data, spec.locations)
                fingerprints, found = dict(source.fingerprints), training_images(source)
                check_sizes(spec.config, source)
                classes = len(source.class_names) if source.labelled and source.class_names else None
            limit = data["train_limit"]
            self.opened[key] = OpenedData(fingerprints, found if limit is None else min(found, limit), classes)
        return self.opened[key]

    def protocols(self, spec: RunSpec) -> list[dict[str, Any]]:
        """The protocols whose input the data have, in their order; all of them where the data are not looked at.

        Raises:
            DataError: data that a protocol cannot work with (classes, masks), found before any training.
        """
        asked = spec.config["evaluation"]["protocols"]
        check_arguments([{key: value for key, value in config.items() if key != "name"} for config in asked])
        if not self.check:
            return asked
        key = _key(spec.config["data"], spec.locations, spec.config["evaluation"])
        if key not in self.checked:
            data = evaluation_data(spec.config, open_data(spec.config["data"], spec.locations))
            possible = []
            for config in asked:
                protocol = build_protocol(config)
                own = protocol.own_data(data)
                if protocol.applies(own):
                    protocol.check(own)
                    possible.append(config)
            self.checked[key] = tuple(possible)
        return list(self.checked[key])

    # ---------------------------------------------------------------- costs

    def cost(self, config: Mapping[str, Any], inputs: Mapping[str, RunSpec] | None = None) -> float:
        """Training FLOPs per step of a configuration."""
        parts = {name: config[name] for name in COUNTED}
        batch = config["training"]["batch_size"]
        key = _key(parts, batch)
        if key not in self.costs:
            earlier = {name: self.method(spec) for name, spec in (inputs or {}).items()}
            method = build_method({**parts, "seed": 0, "seed_of": {}}, earlier)
            views = build_views(config)
            try:
                self.costs[key] = training_flops(method, views, batch).total
            except ValueError as error:  # of torch, for example batch norm of a single image
                name = type(method).__name__
                raise UsageError(f"{name} cannot train with training.batch_size={batch}: {error}") from error
        return self.costs[key]

    def method(self, spec: RunSpec):
        """The untrained method of an earlier run, for counting."""
        inputs = {name: self.method(earlier) for name, earlier in spec.inputs.items()}
        return build_method({**spec.config, "seed": 0, "seed_of": {}}, inputs)

    def steps(self, config: Mapping[str, Any], epoch: int, cost: float) -> int | None:
        """Steps that the budget pays for; None for a budget of seconds."""
        budget = config["training"]["budget"]
        if budget["unit"] == "flops" and "reference" in budget:
            reference = self.cost({**config, **budget["reference"]})
            length = Budget(**budget["of"]).steps(epoch, reference)
            if length is None:
                raise UsageError("equal FLOPs need a budget in epochs or steps: training.budget.unit=epochs")
            return Budget("flops", length * reference).steps(epoch, cost)
        if budget["value"] == 0:
            return 0
        return Budget(**budget).steps(epoch, cost)


def check_sizes(config: Mapping[str, Any], source: Source) -> None:
    """The images that are kept in memory must fit into it; nothing is decoded.

    Raises:
        UsageError: they do not; the text says which limit to set.
    """
    data, evaluated = config["data"], evaluation_data(config, source)
    if not data["stream"]:
        check_memory(source, "train", data["size"], data["train_limit"])
    for split, limit in (("train", evaluated.train_limit), (evaluated.split, evaluated.test_limit)):
        check_memory(source, split, data["size"], limit)


def with_classes(method: Mapping[str, Any], classes: int | None, data: str) -> dict[str, Any]:
    """The method's configuration with the number of classes in the place of ``classes: from_data``.

    Raises:
        DataError: a supervised method on data without labels.
    """
    if method.get("classes") != FROM_DATA:
        return dict(method)
    if classes is None:
        raise DataError(f"'{method['_target_']}' learns from labels, and '{data}' has none; leave this arm out")
    return {**method, "classes": classes}


def _key(*parts: Any) -> str:
    return json.dumps(canonical(parts), sort_keys=True)
