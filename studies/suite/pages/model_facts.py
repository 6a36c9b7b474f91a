"""What the records of a run say for the model card of its backbone (:mod:`scd.export.card`)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from scd.errors import UsageError
from scd.export.backbone import is_small
from scd.export.card import Facts, Score
from scd.nn.backbone import RESNETS
from studies.suite.analysis.results import metrics_of
from studies.suite.execution.numerics import recorded_class
from studies.suite.execution.store import is_intact, read_json
from studies.suite.planning.settings import source_class
from studies.suite.planning.staleness import input_names

OWN_BUILDERS = {"scd.nn.backbone.build_backbone": "build_backbone", "scd.nn.vit.vit": "vit"}
LICENCES = {  # by the class that reads the images, or the name of a set of the hub
    "Coco": "if these are COCO's own files: annotations CC BY 4.0, photographs from Flickr under the terms of Flickr "
    "and one licence per photograph, which COCO's json files name",
    "Voc": "if these are PASCAL VOC's own files: photographs from Flickr, under the terms of Flickr",
    "ILSVRC/imagenet-1k": "ImageNet's terms of access: non-commercial research and education",
    "uoft-cs/cifar10": "the authors of CIFAR-10 state none",
}
EMBEDDED = "drawn by the suite's own code, without photographs; MIT, as the code"


def facts_of(
    folder: Path, config: Mapping[str, Any], record: Mapping[str, Any], backbone: nn.Module, licence: str = ""
) -> Facts:
    """What the model card says of a run."""
    environment, data = read_json(folder / "environment.json") or {}, config["data"]
    git = environment.get("git") or {}
    options = {key: value for key, value in config["backbone"].items() if key != "_target_"}
    source, is_embedded = source_class(data), source_class(data).embedded
    known = LICENCES.get(source.__name__) or LICENCES.get(str(data["options"].get("repo")), "")
    return Facts(
        run=folder.name,
        backbone=str(getattr(backbone, "name", type(backbone).__name__)),
        builder=OWN_BUILDERS.get(config["backbone"]["_target_"], config["backbone"]["_target_"]),
        options=options,
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        is_small=getattr(backbone, "name", "") in RESNETS and is_small(backbone),
        method=class_name(config["method"]),
        wrapper=class_name(config["wrapper"]) if config["wrapper"] else "",
        supervision=record.get("supervision", ""),
        data=str(data["title"]),
        images=images_of(data, source.__name__, is_embedded),
        licence=EMBEDDED if is_embedded else licence or known,
        is_embedded=is_embedded,
        budget=budget_of(config["training"]["budget"], record),
        is_trained=bool(record.get("steps")),
        recipe=recipe_of(config),
        numerics=numerics_of(environment),
        commit=git.get("commit") or "",
        is_uncommitted=git.get("dirty"),
        seed=config.get("seed"),
        libraries={name: number for name, number in (environment.get("libraries") or {}).items() if number},
        earlier=tuple(dict.fromkeys(input_names(config))),
        scores=tuple(scores_of(folder, str(data["title"]))),
    )


def class_name(config: Mapping[str, Any]) -> str:
    """The name of the class that a configuration builds."""
    return config["_target_"].rpartition(".")[2]


def images_of(data: Mapping[str, Any], source: str, is_embedded: bool) -> str:
    """What is recorded of the training images, in one sentence."""
    parts = [f"`{data['title']}`, {'drawn by the embedded generator' if is_embedded else 'read by'} `{source}`"]
    parts.append(f"kept as squares of {data['size']} px")
    if data["train_limit"] is not None:
        parts.append(f"at most {data['train_limit']} of them")
    if train := (data.get("fingerprints") or {}).get("train"):
        parts.append(f"fingerprint of the training images `{train}`")
    parts.append(f"options {words(data['options'])}")
    return ", ".join(parts)


def words(options: Mapping[str, Any]) -> str:
    """Options as text."""
    shown = {key: value for key, value in options.items() if key != "_target_" and value is not None}
    return ", ".join(f"{key}={value}" for key, value in shown.items()) or "none"


def budget_of(budget: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """How long a run was trained."""
    asked = f"{budget['value']:g} {budget['unit']}"
    if not record.get("steps"):
        return f"{asked}: not trained"
    counted = f", {record['total_flops']:.3g} FLOPs (2 per multiply-add)" if record.get("total_flops") else ""
    return (
        f"{asked}: {record['steps']} steps, {record['epochs']:g} epochs, {record['images_seen']} source images{counted}"
    )


def recipe_of(config: Mapping[str, Any]) -> str:
    """Optimiser, schedule, batch and views."""
    optimizer, training, views = config["optimizer"], config["training"], config["views"]
    return (
        f"{optimizer['name']}, learning rate {optimizer['lr']:g}, weight decay {optimizer['weight_decay']:g}, "
        f"{config['schedule']['name']} schedule, batches of {training['batch_size']} on {training['devices']} "
        f"device(s), {training['precision']}; views of {views['size']} px by the recipe `{views['recipe']}`"
    )


def numerics_of(environment: Mapping[str, Any]) -> str:
    """The numerics class and what makes it, as far as it is recorded."""
    name, parts = recorded_class(environment), environment.get("numerics") or {}
    if not name:
        return ""
    made = {"processor": parts.get("processor"), "kernels": parts.get("cpu_capability"), "device": parts.get("device"),
            "GPU": parts.get("gpu"), "threads": parts.get("threads")}  # fmt: skip
    return f"{name} ({', '.join(f'{key} {value}' for key, value in made.items() if value is not None)})"


def scores_of(folder: Path, title: str) -> Iterator[Score]:
    """The numbers of all finished evaluations of a run that lie in its store."""
    if folder.parent.name != "pretraining":
        return
    for path in sorted((folder.parent.parent / "evaluations").glob("*/config.json")):
        config = read_json(path) or {}
        if config.get("pretraining") != folder.name or not is_intact(path.parent):
            continue
        record, protocol = read_json(path.parent / "record.json") or {}, config["protocol"]
        try:  # definitions do not depend on the images
            metrics = metrics_of([{key: value for key, value in protocol.items() if key != "data"}])
        except UsageError:  # of older code
            metrics = {}
        own = protocol.get("data")
        images = f"{class_name(own) if own else title} ({words(own or config.get('options') or {})})"
        git = (read_json(path.parent / "environment.json") or {}).get("git") or {}
        for name, value in record["numbers"].items():
            metric = metrics.get(name.partition("@")[0])
            yield Score(
                protocol=record.get("protocol") or class_name(protocol),
                images=images,
                name=name,
                label=metric.label if metric else name,
                unit=metric.unit if metric else "",
                value=value,
                definition=metric.definition if metric else "",
                is_scored=metric is not None and metric.better is not None,
                evaluation=path.parent.name,
                commit=git.get("commit") or "",
            )
