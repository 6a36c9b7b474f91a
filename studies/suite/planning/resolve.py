"""From a study's specs to runs that can be started: data opened, budgets turned into steps, costs counted."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scd.data.images import memory_bytes, require_memory, too_large
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError
from scd.evaluation.protocol import EvaluationData, smaller
from scd.profiling.flops import training_flops
from scd.profiling.training_memory import TrainingMemory, training_memory
from scd.training.budget import Budget
from studies.suite.planning.assembly import SIGNS, build_method, build_views, check_arguments, open_data
from studies.suite.planning.checks import check_lists, check_training, check_values
from studies.suite.planning.identity import canonical
from studies.suite.planning.protocols import build_protocol, evaluation_data
from studies.suite.planning.settings import COUNTED, is_embedded, source_class
from studies.suite.planning.study import TRAINING, RunSpec, merge

FROM_DATA = "from_data"  # a method's number of classes that is taken from the labels
# the images of a protocol that are not drawn or opened for a plan that is only shown
NOT_OPENED = {"_target_": "scd.data.sources.source.Source", "name": "not opened", "splits": {}, "fingerprints": {}}


@dataclass(frozen=True)
class Planned:
    """A complete spec and the length of its training.

    Args:
        spec: with the data's fingerprints, the budget in steps and the FLOPs of a step.
        steps: optimiser steps; None where the budget is one of time, 0 for a measurement.
        seconds: the budget, where it is one of time.
        memory: that training needs on one device, of a plan that is only shown.
    """

    spec: RunSpec
    steps: int | None
    seconds: float | None = None
    memory: TrainingMemory | None = None

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


def preview(specs: Iterable[RunSpec], declared: Mapping[str, Any]) -> tuple[list[Planned], list[str]]:
    """The specs, complete but for what this machine lacks, with the memory of each; and what could not be found out.

    Data that are not here are known by what their configuration declares; runs are then shown that cannot start here.

    Args:
        declared: numbers of images and classes: ``{"train": 1281167, "test": 50000, "classes": 1000}``, or {}.

    Raises:
        UsageError: a method or a budget that cannot be used, or data that are not here and are declared nowhere.
    """
    resolver = Resolver(check=False, declared=declared, shown=True)
    return [resolver.complete(spec) for spec in specs], list(resolver.notes)


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
    """What a plan takes from a data set.

    Attributes:
        name: of the data; fingerprints: by split, None for embedded images.
        splits: number of images by split; masked: those whose images have masks; scored: the one that is scored.
        classes: number of classes, None without labels.
        limit: of the training images.
    """

    name: str
    fingerprints: dict[str, str] | None
    splits: dict[str, int]
    masked: frozenset[str]
    scored: str
    classes: int | None
    limit: int | None

    @property
    def images(self) -> int:
        """Images to train on."""
        return smaller(self.splits["train"], self.limit)

    def bytes_of(self, split: str, size: int, limit: int | None = None) -> int:
        """What a split, or so many of its images, takes in memory."""
        return memory_bytes(smaller(self.splits[split], limit), size, split in self.masked)


class Resolver:
    """Completes specs; opened data and counted methods are kept between them.

    Args:
        check: as of :func:`resolve`.
        declared, shown: as of :func:`preview`; ``shown`` estimates memory, and notes what cannot run here.

    Attributes:
        notes: what cannot run here, or could not be found out, each once.
    """

    def __init__(self, check: bool, declared: Mapping[str, Any] | None = None, shown: bool = False):
        self.check = check
        self.declared = declared or {}
        self.shown = shown
        self.notes: dict[str, None] = {}
        self.memories: dict[str, TrainingMemory] = {}
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
        memory = self.memory(config, opened, inputs) if self.shown and steps != 0 else None
        return Planned(complete.with_protocols(self.protocols(complete)), steps, seconds, memory)

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
            self.opened[key] = self.find(data, spec.locations)
        opened = self.opened[key]
        for what, needed in sets_in_memory(spec.config, opened).items():
            if not self.shown:
                require_memory(needed, what)
            elif reason := too_large(needed, what):
                self.notes[f"this plan cannot run here: {reason}"] = None
        return opened

    def find(self, data: Mapping[str, Any], locations: Mapping[str, Any]) -> OpenedData:
        """What the plan needs of the data: from a generator's options, from the images, or as it is declared."""
        options, limit = data["options"], data["train_limit"]
        if is_embedded(data):
            check_generator(data)
            splits = {split: options[split] for split in ("train", "test", "probe") if options.get(split)}
            return OpenedData(data["title"], None, splits, frozenset(splits), "test", options.get("classes"), limit)
        try:
            source = open_data(data, locations)
        except DataError as error:
            if not (self.shown and self.declared) or are_here(locations):
                raise
            self.notes[f"'{data['title']}' is not here, its sizes are those that are declared: {error}"] = None
            splits = {split: self.declared[split] for split in ("train", "test")}
            masked = frozenset(splits if self.declared.get("masks") else ())
            return OpenedData(data["title"], {}, splits, masked, "test", self.declared.get("classes"), limit)
        training_images(source)
        scored = EvaluationData(source, data["size"]).split
        splits = {split: len(dataset) for split, dataset in source.splits.items()}
        masked = frozenset(split for split, dataset in source.splits.items() if "mask" in dataset.column_names)
        classes = len(source.class_names) if source.labelled and source.class_names else None
        return OpenedData(source.name, dict(source.fingerprints), splits, masked, scored, classes, limit)

    def protocols(self, spec: RunSpec) -> list[dict[str, Any]]:
        """The protocols whose input the data have, in their order; all of them where the data are not looked at.

        Raises:
            DataError: data that a protocol cannot work with (classes, masks), found before any training.
        """
        asked = spec.config["evaluation"]["protocols"]
        check_arguments([{key: value for key, value in config.items() if key != "name"} for config in asked])
        if not self.check and (is_embedded(spec.config["data"]) or not spec.config["data"].get("fingerprints")):
            for config in asked:
                own = {} if config.get("data") is None else {"data": NOT_OPENED}
                build_protocol({**config, **own})  # finds impossible options
            return asked  # embedded images are not drawn for a plan that is only shown; others may not be here
        key = _key(spec.config["data"], spec.locations, spec.config["evaluation"])
        if key not in self.checked:
            data = evaluation_data(spec.config, open_data(spec.config["data"], spec.locations))
            possible = []
            for config in asked:
                protocol = build_protocol(config)
                own = protocol.own_data(data)
                if protocol.applies(own):
                    if self.check:
                        check_lists(own)
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

    def memory(
        self, config: Mapping[str, Any], opened: OpenedData, inputs: Mapping[str, RunSpec] | None = None
    ) -> TrainingMemory:
        """What training needs on one of the devices of a run."""
        training, data = config["training"], config["data"]
        mixed = "mixed" in training["precision"]
        options = {"optimizer": config["optimizer"]["name"], "mixed": mixed, "processes": training["devices"]}
        images = 0 if data["stream"] else opened.bytes_of("train", data["size"], data["train_limit"])
        parts = {name: config[name] for name in COUNTED}
        key = _key(parts, training["batch_size"], options, images)
        if key not in self.memories:
            earlier = {name: self.method(spec) for name, spec in (inputs or {}).items()}
            method = build_method({**parts, "seed": 0, "seed_of": {}}, earlier)
            views = build_views(config)
            self.memories[key] = training_memory(method, views, training["batch_size"], images=images, **options)
        return self.memories[key]

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
            if length * reference * (1 + 1e-12) < cost:  # as of Budget
                raise UsageError(too_short(config, epoch, length, reference, cost))
            return Budget("flops", length * reference).steps(epoch, cost)
        if budget["value"] == 0:
            return 0
        return Budget(**budget).steps(epoch, cost)


def are_here(locations: Mapping[str, Any]) -> bool:
    """Whether data lie where a configuration says, so that what is wrong with them is a fault of theirs."""
    places = [place for named in locations.values() for place in (named if isinstance(named, list) else [named])]
    return bool(places) and all(Path(str(place)).expanduser().exists() for place in places)


def sets_in_memory(config: Mapping[str, Any], opened: OpenedData) -> dict[str, int]:
    """The sets of images that a run holds in main memory, in words, with their bytes; nothing is decoded."""
    data, evaluation, found = config["data"], config["evaluation"], {}

    def add(split: str, size: int, limit: int | None) -> None:
        what = f"'{opened.name}' {split} at {size} px"
        found[what] = max(found.get(what, 0), opened.bytes_of(split, size, limit))

    if not data["stream"]:
        add("train", data["size"], data["train_limit"])
    for protocol in evaluation["protocols"]:
        if protocol.get("data") is None and not protocol.get("stream"):
            size = protocol.get("canvas") or data["size"]
            for split, kind in (("train", "train_limit"), (opened.scored, "test_limit")):
                add(split, size, smaller(smaller(data[kind], evaluation[kind]), protocol.get(kind)))
    return found


def too_short(config: Mapping[str, Any], epoch: int, length: int, reference: float, cost: float) -> str:
    """Why equal FLOPs pay for no step of a method, in one line: mostly there are too few images.

    Args:
        epoch: steps of one pass over the training images; length: steps of the reference.
        reference, cost: FLOPs of a step of the reference and of the method.
    """
    steps, batches = (f"{n} {what}" for n, what in ((length, "step(s)"), (epoch, "batch(es)")))
    return (
        f"equal FLOPs pay for no step of '{config['method']['_target_']}': the budget is that of {steps} of the "
        f"reference, and one step costs as much as {cost / reference:.3g} of them; '{config['data']['title']}' has too "
        f"few training images ({batches} of {config['training']['batch_size']}): give more images, a lower "
        "training.batch_size or a higher training.budget.value, or leave out equal FLOPs with axes.budgets=[epochs]"
    )


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


def check_generator(data: Mapping[str, Any]) -> None:
    """The options of embedded images are possible; nothing is drawn.

    Raises:
        UsageError: an option that the generator does not have, or an impossible value.
    """
    check_arguments(data["options"])
    given = {key: value for key, value in data["options"].items() if key not in SIGNS and value is not None}
    source_class(data).check_options(**given)


def _key(*parts: Any) -> str:
    return json.dumps(canonical(parts), sort_keys=True)
