"""From a study's specs to runs that can be started: data opened, budgets turned into steps, costs counted."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import pandas

from scd.data.sources.source import Source
from scd.errors import DataError, UsageError
from scd.evaluation.protocol import check_data
from scd.profiling.flops import training_flops
from scd.training.budget import Budget
from studies.suite.execution import run
from studies.suite.execution.store import Status, Store
from studies.suite.planning.identity import ENTRY, canonical, code_fingerprint, target_modules
from studies.suite.planning.study import RunSpec, Standing, merge

ASSUMED_SPEED = {"cpu": 1.5e10, "cuda": 2e13}  # FLOP/s of one run, said beside every estimate that uses it
EMBEDDED = ("shapes", "scenes")  # generators: a set is its options and its code
ALIKE = 10  # steps that cost at most so many times more or less tell how fast a run will be
EVALUATION_SHARE = 0.1  # of the median run's training, for the progress bar


@dataclass(frozen=True)
class Planned:
    """A spec whose budget is a number of steps (None: seconds) and what these cost.

    Args:
        spec: with the data's fingerprint in its configuration, which is now complete.
        steps: optimiser steps; flops_per_step: 2 per multiply-add.
        seconds: the budget, where it is one of time.
    """

    spec: RunSpec
    steps: int | None
    flops_per_step: float
    seconds: float | None = None

    @property
    def flops(self) -> float:
        """Training FLOPs of the whole run; 0 where time is the budget."""
        return (self.steps or 0) * self.flops_per_step


def resolve(specs: Iterable[RunSpec], check: bool = True) -> list[Planned]:
    """The specs, complete; those of equal configurations get one identity.

    Opens every data set and builds every method once, on no data, so that wrong settings end here and not in a worker.

    Args:
        check: also load the images, and make sure that the protocols can work with them, before anything is trained.

    Raises:
        UsageError: data, a method or a budget that cannot be used.
    """
    return Resolver(check).resolve(specs)


def is_embedded(data: Mapping[str, Any]) -> bool:
    """Whether a run's data are the suite's own, which can be composed otherwise and may be shown."""
    return data["name"] in EMBEDDED


def training_images(source: Source) -> int:
    """How many images a source has to train on; a DataError where it has no such split."""
    if "train" not in source.splits:
        raise DataError(f"data '{source.name}' has no split 'train'; it has {', '.join(source.splits)}")
    return len(source.splits["train"])


class Resolver:
    """Remembers opened data and counted methods between specs."""

    def __init__(self, check: bool):
        self.check = check
        self.data: dict[str, tuple[str | None, int]] = {}
        self.costs: dict[str, float] = {}

    def resolve(self, specs: Iterable[RunSpec]) -> list[Planned]:
        """All specs in their order."""
        return [self.complete(spec) for spec in specs]

    def complete(self, spec: RunSpec) -> Planned:
        """One spec with its data's fingerprint and its budget in steps."""
        config, training = spec.config, spec.config["training"]
        fingerprint, images = self.open(config, spec.locations)
        epoch = images // training["batch_size"]
        if not epoch:
            raise UsageError(
                f"training.batch_size={training['batch_size']} is more than the {images} training images of "
                f"'{config['data']['name']}'"
            )
        cost = self.cost(config)
        steps = self.steps(config, epoch, cost)
        seconds = None
        if steps is None:
            seconds, budget = training["budget"]["value"], training["budget"]
        else:
            budget = {"unit": "steps", "value": steps}
        complete = merge(config, {"data": {"fingerprint": fingerprint}})
        complete["training"]["budget"] = budget
        return Planned(replace(spec, config=complete), steps, cost, seconds)

    def open(self, config: Mapping[str, Any], locations: Mapping[str, Any]) -> tuple[str | None, int]:
        """Fingerprint and number of training images of the data.

        Embedded images have no fingerprint: their options, and the generator's code, are in the run's identity anyway,
        so a plan need not draw them.
        """
        data = config["data"]
        key = _key(data, locations, config["evaluation"])
        if key not in self.data:
            embedded = is_embedded(data)
            fingerprint, found = None, data["options"].get("train")
            if self.check or not embedded:
                source = run.open_data(data, locations)
                found = training_images(source)
                if self.check:
                    check_data(run.evaluation_data(source, config), config["evaluation"]["protocols"])
                fingerprint = None if embedded else source.fingerprint
            limit = data["train_limit"]
            self.data[key] = fingerprint, found if limit is None else min(found, limit)
        return self.data[key]

    def cost(self, config: Mapping[str, Any]) -> float:
        """Training FLOPs per step of a configuration."""
        parts = {name: config[name] for name in ("views", "backbone", "method", "wrapper")}
        batch = config["training"]["batch_size"]
        key = _key(parts, batch)
        if key not in self.costs:
            method = run.build_method({**parts, "seed": 0, "seed_of": {"init": None}})
            self.costs[key] = training_flops(method, run.build_recipe_of(config), batch).total
        return self.costs[key]

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


def _key(*parts: Any) -> str:
    return json.dumps(canonical(parts), sort_keys=True)


def unique(planned: Iterable[Planned]) -> dict[str, Planned]:
    """The different runs by id, all arms of the first seed first: a study that is stopped leaves whole pairs."""
    ordered = sorted(planned, key=lambda item: item.spec.labels.get("seed", 0))
    return {item.spec.id: item for item in ordered}


def work(runs: Mapping[str, Planned]) -> dict[str, float]:
    """How much each run counts in the progress bar, in FLOPs; evaluation counts a little, too."""
    extra = EVALUATION_SHARE * median([item.flops for item in runs.values()] or [0]) or 1.0
    return {name: item.flops + extra for name, item in runs.items()}


def estimate(runs: Mapping[str, Planned], store: Store, workers: int) -> tuple[float, str]:
    """Seconds that the missing runs take, and on what this rests."""
    missing = [item for name, item in runs.items() if store.status(name) is not Status.DONE]
    typical = median([item.flops_per_step for item in missing] or [1.0])
    alike = (typical / ALIKE, typical * ALIKE)
    records = [record for record in store.finished() if alike[0] < record["flops_per_step"] < alike[1]]
    speeds = [record["total_flops"] / record["seconds_pretrain"] for record in records if record["seconds_pretrain"]]
    evaluation = median([record["seconds_eval"] for record in records] or [5.0])
    if speeds:
        speed, basis = median(speeds), f"{len(speeds)} finished runs of such a size in this store"
    else:
        accelerator = missing[0].spec.config["training"]["accelerator"] if missing else "cpu"
        speed = ASSUMED_SPEED[accelerator]
        basis = f"an assumed {speed / 1e9:,.0f} GFLOP/s a run, since the store has no finished run of such a size"
    seconds = sum((item.seconds if item.seconds else item.flops / speed) + evaluation for item in missing)
    return seconds / max(1, min(workers, len(missing))), basis


def table(planned: Sequence[Planned], store: Store) -> str:
    """The plan: one row per arm, budget and axis, with how many of its runs are done."""
    rows = []
    for item in planned:
        labels = {key: value for key, value in item.spec.labels.items() if key != "seed"}
        done = store.status(item.spec.id) is Status.DONE
        steps = item.steps if item.steps is not None else f"{item.seconds:g} s"
        rows.append({**labels, "steps": steps, "TFLOP a run": item.flops / 1e12, "runs": 1, "done": int(done)})
    frame = pandas.DataFrame(rows)
    keys = [column for column in frame.columns if column not in ("runs", "done")]
    summed = frame.groupby(keys, sort=False, dropna=False)[["runs", "done"]].sum().reset_index()
    summed["missing"] = summed["runs"] - summed["done"]
    return summed.to_markdown(index=False, floatfmt=".3g")


def collect(planned: Iterable[Planned], store: Store) -> pandas.DataFrame:
    """One row per finished spec: its labels, the record's numbers, and ``run``, the id."""
    rows = []
    for item in planned:
        record = store.record(item.spec.id)
        if record is not None:
            rows.append({**item.spec.labels, **record, "run": item.spec.id})
    return pandas.DataFrame(rows)


def standing(planned: Sequence[Planned], store: Store) -> Standing:
    """How far the study is, what failed, and which machines made its records."""
    runs = unique(planned)
    done = {name: record for name in runs if (record := store.record(name)) is not None}
    failed = {name: reason for name in runs if name not in done and (reason := store.failure(name))}
    seen = {json.dumps(found, sort_keys=True): found for name in done if (found := store.environment(name))}
    return Standing(
        planned=len(runs),
        done=len(done),
        failed=failed,
        fingerprint=study_fingerprint(item.spec for item in runs.values()),
        environments=tuple(seen.values()),
        seconds=sum(record["seconds_pretrain"] + record["seconds_eval"] for record in done.values()),
        plan=tuple(item.spec for item in planned),
    )


def study_fingerprint(specs: Iterable[RunSpec]) -> str:
    """Fingerprint of all code that a study's runs reach; a page that names another one is stale."""
    modules = {name for spec in specs for name in target_modules(spec.config)}
    return code_fingerprint((ENTRY, *sorted(modules)))
