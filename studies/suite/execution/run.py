"""One run: from its configuration to a flat record of numbers. All that can change a number is reached from here.

This file and all it imports from ``scd`` and ``baselines`` are part of every run's identity (identity.py).
"""

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import nn

from scd.atomic import write_atomically
from scd.data.images import ImageSet, load_images
from scd.data.loader import MemoryBatches, StreamBatches
from scd.data.recipes import build_recipe
from scd.data.sources.source import Source, open_source
from scd.data.views import Recipe, ViewMaker
from scd.errors import DataError, UsageError, unknown
from scd.evaluation.protocol import PROTOCOL_VERSION, EvaluationData, evaluate
from scd.nn.backbone import build_backbone
from scd.profiling.flops import training_flops
from scd.profiling.parameters import count_parameters
from scd.seeds import derive_seed
from scd.training.budget import Budget
from scd.training.loop import Observer, TrainingSummary, pretrain
from studies.suite.planning.study import RunSpec

Progress = Callable[[int, int, float], None]
IMAGES_AT_ONCE = 128  # whose views are made together, where a batch has fewer
LOG_EVERY = 10  # steps per line of progress.jsonl; the record's losses are means over so many steps


class Trace(Protocol):
    """What looks at a method while it learns, see :class:`scd.evaluation.map_trace.MapTrace`."""

    def observer(self, method: nn.Module, steps: int | None) -> Observer | None: ...

    def numbers(self) -> dict[str, float]: ...


@dataclass(frozen=True)
class Runtime:
    """How a run is executed; nothing here changes its numbers.

    Args:
        device: index of the GPU, where the accelerator is one.
        nodes: machines, with ``training.devices`` GPUs in all.
        loader_workers: decoding processes, for streamed data.
        checkpoint_seconds: time between checkpoints.
        progress: told (step, steps, loss) now and then.
    """

    device: int = 0
    nodes: int = 1
    loader_workers: int = 4
    checkpoint_seconds: float = 60.0
    progress: Progress | None = None


def execute(spec: RunSpec, run_dir: Path, runtime: Runtime | None = None) -> dict[str, Any]:
    """Pretrain and evaluate one run, going on from its checkpoint if there is one; leaves ``backbone.safetensors``.

    Returns:
        Flat record. Times in seconds, FLOPs with 2 per multiply-add, accuracies in [0, 1]. Empty on DDP ranks above 0.

    Raises:
        UsageError: data or settings that cannot be used, or a loss that is not finite.
    """
    runtime = runtime or Runtime()
    config, training = spec.config, spec.config["training"]
    source = open_data(config["data"], spec.locations)
    check_fingerprint(config["data"], source)
    recipe = build_recipe_of(config)
    method = build_method(config)
    cost = training_flops(method, recipe, training["batch_size"]).total
    parameters = count_parameters(method)
    fabric = build_fabric(training, runtime)
    data = evaluation_data(source, config)
    trace = open_trace(config, data, fabric.device, run_dir)
    summary, steps_per_epoch = train(method, recipe, source, config, cost, fabric, run_dir, runtime, trace)
    if not fabric.is_global_zero:
        return {}
    method.to(fabric.device)
    began = perf_counter()
    scores = evaluate(
        method,
        data,
        size=config["evaluation"]["size"],
        seed=seed_of(config, "probe"),
        protocols=tuple(config["evaluation"]["protocols"]),
        device=fabric.device,
    )
    for protocol in config["evaluation"]["further"]:
        scores |= build(protocol)(method, source, config, fabric.device)
    seconds_eval = perf_counter() - began
    export_backbone(method.backbone, run_dir / "backbone.safetensors")
    steps = summary.steps if summary else 0
    return {
        **scores,
        **(trace.numbers() if trace and summary else {}),
        "protocol_version": PROTOCOL_VERSION,
        "supervision": method.supervision,
        "steps": steps,
        "epochs": steps / steps_per_epoch,
        "images_seen": steps * training["batch_size"],
        "flops_per_step": cost,
        "total_flops": cost * steps,
        "parameters_trained": parameters.trained,
        "parameters_momentum": parameters.momentum,
        "parameters_backbone": parameters.inference,
        "seconds_pretrain": summary.seconds if summary else 0.0,
        "seconds_views": summary.views_seconds if summary else 0.0,
        "seconds_eval": seconds_eval,
        "images_per_second": summary.images_per_second if summary else None,
        "loss_first": first_loss(run_dir),
        "loss_last": summary.losses.get("loss") if summary else None,
        **{f"train_{name}": value for name, value in (summary.losses if summary else {}).items() if name != "loss"},
    }


def train(
    method: nn.Module,
    recipe: Recipe,
    source: Source,
    config: Mapping[str, Any],
    cost: float,
    fabric: Fabric,
    run_dir: Path,
    runtime: Runtime,
    trace: Trace | None,
) -> tuple[TrainingSummary | None, int]:
    """The summary of pretraining, None for a budget of 0 steps (random weights), and the steps of an epoch."""
    training, data, order = config["training"], config["data"], seed_of(config, "order")
    if data["stream"]:
        batches = StreamBatches(
            source, "train", data["size"], training["batch_size"], order, workers=runtime.loader_workers
        )
    else:
        images = load_images(source, "train", data["size"], data["train_limit"])
        batches = MemoryBatches(images.to(fabric.device), training["batch_size"], order)
    budget = training["budget"]
    if budget["value"] == 0:
        return None, batches.steps_per_epoch
    length = Budget(**budget)
    steps_at_once = max(1, IMAGES_AT_ONCE // training["batch_size"])
    seed = seed_of(config, "views")
    steps = length.steps(batches.steps_per_epoch, cost)
    summary = pretrain(
        method,
        batches,
        ViewMaker(recipe, seed, fabric.device, masks=method.needs == "masks", steps_at_once=steps_at_once),
        steps=steps,
        max_seconds=length.seconds,
        optimizer=config["optimizer"],
        schedule=config["schedule"],
        seed=seed,
        fabric=fabric,
        run_dir=run_dir,
        log_every=LOG_EVERY,
        checkpoint_seconds=runtime.checkpoint_seconds,
        progress=runtime.progress or (lambda step, steps, loss: None),
        observer=trace.observer(method, steps) if trace else None,
    )
    return summary, batches.steps_per_epoch


def open_trace(config: Mapping[str, Any], data: EvaluationData, device: torch.device, run_dir: Path) -> Trace | None:
    """What looks at the maps during training, if the configuration asks for it."""
    trace = config["evaluation"]["trace"]
    if not trace or not trace["points"]:
        return None
    return build(trace)(data.test, config["evaluation"]["size"], device, run_dir / "trace")


# ---------------------------------------------------------------- the parts, from their configuration


def seed_of(config: Mapping[str, Any], axis: str) -> int:
    """The seed of one source of chance: its own, or the run's."""
    own = config["seed_of"][axis]
    return config["seed"] if own is None else own


def open_data(data: Mapping[str, Any], locations: Mapping[str, Any]) -> Source:
    """The image source of a configuration, from where it lies on this machine."""
    options = {key: value for key, value in data["options"].items() if value is not None}
    if "_target_" in options:  # a generator of its own, which only the runs that use it depend on
        return build(options)
    if isinstance(options.get("columns"), Mapping):
        options["columns"] = {key: name for key, name in options["columns"].items() if name is not None}
    places = dict(locations)
    name = places.pop("path") if data["name"] == "path" else data["name"]
    return open_source(str(name), **options, **places)


def check_fingerprint(data: Mapping[str, Any], source: Source) -> None:
    """The data must be those that the run was planned with, wherever they lie."""
    expected = data.get("fingerprint")
    if expected is not None and expected != source.fingerprint:
        raise DataError(f"data '{source.name}' changed after the study was planned; give the command again")


def evaluated_split(source: Source) -> str:
    """The split that is evaluated: test, or validation where the set has no test labels of its own."""
    for name in ("test", "validation"):
        if name in source.splits:
            return name
    raise DataError(f"data '{source.name}' has no split to evaluate on; it has {', '.join(source.splits)}")


def evaluation_data(source: Source, config: Mapping[str, Any]) -> EvaluationData:
    """Images for the protocols: those of training for the probes to learn from, and the test split."""
    data, limits = config["data"], config["evaluation"]

    def load(split: str, kind: str) -> ImageSet:
        allowed = [limit for limit in (data[f"{kind}_limit"], limits[f"{kind}_limit"]) if limit is not None]
        return load_images(source, split, data["size"], min(allowed, default=None))

    return EvaluationData(train=load("train", "train"), test=load(evaluated_split(source), "test"))


def build_recipe_of(config: Mapping[str, Any]) -> Recipe:
    """The view recipe of a configuration."""
    views = config["views"]
    return build_recipe(views["recipe"], views["size"], views["scale"], views["extra"])


def build_method(config: Mapping[str, Any]) -> nn.Module:
    """Backbone, method and wrapper, each initialised from a seed of its own, so that arms share what they share."""
    seed = seed_of(config, "init")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init", "backbone"))
        named = "_target_" not in config["backbone"]
        backbone = build_backbone(**config["backbone"]) if named else build(config["backbone"])
        torch.manual_seed(derive_seed(seed, "init", "method"))
        method = build(config["method"], backbone)
        if config["wrapper"] is not None:
            torch.manual_seed(derive_seed(seed, "init", "wrapper"))
            method = build(config["wrapper"], method)
    return method


def build(config: Mapping[str, Any], *given: Any) -> Any:
    """The object that ``_target_`` names, made of ``given`` and the other entries; ``_partial_: true`` binds them only.

    Raises:
        UsageError: no such module or class, or an argument that it does not take.
    """
    target = config.get("_target_")
    if not target:
        raise UsageError(f"a configuration without _target_ cannot be built: {dict(config)}")
    module, _, name = target.rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"_target_ '{target}' cannot be imported: {error}") from error
    signs = ("_target_", "_partial_")
    options = {key: _build_nested(value) for key, value in config.items() if key not in signs}
    accepted = inspect.signature(made).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        for key in options:
            if key not in accepted:
                raise unknown(f"argument of {name}", key, accepted)
    return partial(made, *given, **options) if config.get("_partial_") else made(*given, **options)


def _build_nested(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(value)
        return {key: _build_nested(item) for key, item in value.items()}
    return [_build_nested(item) for item in value] if isinstance(value, list) else value


def build_fabric(training: Mapping[str, Any], runtime: Runtime) -> Fabric:
    """Fabric for one device, or DDP over ``training.devices`` GPUs that Slurm or torchrun started."""
    devices, accelerator = training["devices"], training["accelerator"]
    if accelerator not in ("cpu", "cuda"):
        raise unknown("accelerator (training.accelerator)", accelerator, ("cpu", "cuda"))
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise UsageError("training.accelerator=cuda, but torch sees no GPU here; give training.accelerator=cpu")
    if devices == 1:
        place = [runtime.device] if accelerator == "cuda" else 1
        return Fabric(accelerator=accelerator, devices=place, precision=training["precision"])
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices // runtime.nodes,
        num_nodes=runtime.nodes,
        strategy="ddp",
        precision=training["precision"],
    )
    fabric.launch()
    return fabric


# ---------------------------------------------------------------- what a run leaves


def export_backbone(backbone: nn.Module, path: Path) -> None:
    """The trained backbone's weights and running statistics as safetensors, written whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    write_atomically(path, lambda unfinished: save_file(state, unfinished))


def first_loss(run_dir: Path) -> float | None:
    """The mean loss of the first line of progress.jsonl, None without one."""
    path = run_dir / "progress.jsonl"
    if not path.exists():
        return None
    with path.open(encoding="utf-8") as lines:
        line = lines.readline()
    return json.loads(line)["loss"] if line else None
