"""Scoring networks that were trained elsewhere: their weights are read, their evaluations executed and recorded.

``STORE/checkpoints/ID/`` holds an evaluation as ``STORE/evaluations/ID/`` does (``store.py``), with the outcomes of its
test images. Its id covers the weights' content, the backbone, the data, the protocol's configuration and the code;
where the file lies is no part of it. Weights are not copied into the store.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import omegaconf
import torch
from torch import nn

from scd.atomic import disk_full, is_disk_full
from scd.checkpoints.fitting import Fitted, load_checkpoint, vit_of
from scd.checkpoints.reading import read_checkpoint
from scd.checkpoints.scored import Scored
from scd.errors import UsageError
from scd.evaluation.outcomes import Outcome, SharedContext, read_outcomes
from scd.evaluation.protocol import EvaluationData
from scd.seeds import derive_seed
from studies.suite.execution import machine
from studies.suite.execution.progress import Bar
from studies.suite.execution.run import one_line
from studies.suite.execution.store import Records, Status
from studies.suite.planning.assembly import instantiate, open_data
from studies.suite.planning.identity import canonical, code_of, evaluation_id
from studies.suite.planning.protocols import build_protocol, evaluation_data
from studies.suite.planning.resolve import Resolver
from studies.suite.planning.scoring import AUTO, NONE, Request, require_something, small_data
from studies.suite.planning.study import RunSpec, merge

FOLDER = "checkpoints"  # in the store
HYDRA = (  # classes of a hydra configuration, which solo-learn's files carry
    omegaconf.DictConfig,
    omegaconf.ListConfig,
    omegaconf.base.ContainerMetadata,
    omegaconf.base.Metadata,
    omegaconf.nodes.AnyNode,
)
CHECKPOINT, RANDOM, SUPERVISED = "checkpoint", "random", "supervised"
LABELS = {CHECKPOINT: "checkpoint", RANDOM: "random weights", SUPERVISED: "supervised weights"}
ENTRIES = ("scd.checkpoints.fitting", "scd.checkpoints.scored", "studies.suite.planning.assembly")
SEED_OF_RANDOM = 0
OTHER_TRAININGS = ("dino", "mae", "clip", "laion", "openai", "datacomp", "mim", "ssl", "swsl", "seer", "ijepa", "yfcc")
FEW_IMAGES = 30
VERSIONS = 9  # of each object, in scd.evaluation.invariance


@dataclass(frozen=True)
class Scorable:
    """A network to score.

    Attributes:
        name: "checkpoint", "random" or "supervised".
        backbone: with its weights.
        weights: what identifies them: the file's hash with what was chosen of it, or the seed.
        fitted: what was read; None for random weights. source: where the weights come from, in words.
    """

    name: str
    backbone: nn.Module
    weights: dict[str, Any]
    fitted: Fitted | None = None
    source: str = ""

    @property
    def label(self) -> str:
        """For tables."""
        return LABELS[self.name]


@dataclass(frozen=True)
class Scoring:
    """Everything that is scored, complete.

    Attributes:
        request: the command line. config: of data, evaluation and backbone, with the data's fingerprints.
        protocols: those that apply. left_out: names of the others.
        networks: the checkpoint first. remarks: what is missing beside it, and how to give it.
        images: numbers of images by part. locations: where the data lie.
    """

    request: Request
    config: dict[str, Any]
    protocols: list[dict[str, Any]]
    left_out: tuple[str, ...]
    networks: tuple[Scorable, ...]
    remarks: tuple[str, ...]
    images: dict[str, int]
    locations: dict[str, Any]

    @cached_property
    def data(self) -> EvaluationData:
        """The images, opened once for all networks."""
        return evaluation_data(self.config, open_data(self.config["data"], self.locations))

    def id(self, network: Scorable, protocol: Mapping[str, Any], fresh: bool = False) -> str:
        """The identity of one evaluation."""
        data = {key: value for key, value in self.config["data"].items() if key not in ("title", "probe_l2")}
        parts = {"weights": network.weights, "backbone": self.config["backbone"], "data": data}
        code = code_of(self.config["backbone"], ENTRIES, fresh)
        text = json.dumps([canonical(parts), code], sort_keys=True)
        return evaluation_id(hashlib.sha256(text.encode()).hexdigest()[:16], self.config, protocol, fresh)

    def pairs(self) -> list[tuple[Scorable, dict[str, Any]]]:
        """Every network with every protocol, network by network: its features are extracted once."""
        return [(network, protocol) for network in self.networks for protocol in self.protocols]

    def work(self, protocol: Mapping[str, Any], is_first: bool) -> float:
        """About how many images a protocol puts through the network."""
        name, inner, test = protocol["name"], protocol["protocol"], self.images["test"]
        further = {
            "background": 2 * min(inner.get("objects", test), test),
            "invariance": 3 * VERSIONS * min(inner.get("objects", test), test),
            "scenes": len(self.request.seeds) * (self.images["train"] + test),
            "comus": 3 * len(self.request.seeds) * (self.images["train"] + test),
            "emergence": 2 * test,
        }
        trained = 30 * self.images["train"] if name.startswith(("finetune", "detection")) else 0
        return further.get(name, 1) + trained + (sum(self.images.values()) if is_first else 0)


# ---------------------------------------------------------------- planning


def prepare(request: Request, check: bool = True) -> Scoring:
    """Read the weights, open the data, and find out which protocols apply. Nothing is computed.

    Args:
        check: also load the images and let the protocols check them; without it, generated images are not all drawn.

    Raises:
        UsageError: weights, data or options that cannot be used.
    """
    if request.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device=cuda: PyTorch sees no GPU here; give device=cpu")
    networks, remarks = networks_of(request)
    remarks += sizes(networks[0].backbone, request.size)
    spec = request.spec()
    data = spec.config["data"] if check else small_data(spec.config["data"])
    shown = RunSpec(merge(spec.config, {"data": data}), spec.labels, spec.locations)
    resolver = Resolver(check=True)
    opened = resolver.open(shown)
    config = merge(spec.config, {"data": {"fingerprints": opened.fingerprints}})
    own = merge(shown.config, {"data": {"fingerprints": opened.fingerprints}})
    possible = applicable(RunSpec(own, spec.labels, spec.locations), resolver, check)
    require_something(possible, request)
    names = {protocol["name"] for protocol in possible}
    limits = config["data"]["train_limit"], config["data"]["test_limit"]
    splits = opened.splits if check or opened.fingerprints is not None else spec.config["data"]["options"]
    counts = {part: splits.get(part) or 0 for part in ("train", "probe")} | {"test": splits[opened.scored]}
    images = {
        part: min(count, limit) if (limit := limits[part == "test"]) is not None else count
        for part, count in counts.items()
    }
    left_out = tuple(each["name"] for each in request.protocols if each["name"] not in names)
    if images["test"] < FEW_IMAGES:
        remarks += (
            f"There are {images['test']} test images: intervals over so few are too short, and a number of 0 or 100 % "
            "has one of width 0.",
        )
    return Scoring(request, config, possible, left_out, networks, remarks, images, dict(spec.locations))


def applicable(spec: RunSpec, resolver: Resolver, check: bool) -> list[dict[str, Any]]:
    """The protocols whose input the data have; with ``check`` also those that can work with them."""
    if check:
        return resolver.protocols(spec)
    data = evaluation_data(spec.config, open_data(spec.config["data"], spec.locations))
    found = []
    for config in spec.config["evaluation"]["protocols"]:
        protocol = build_protocol(config)
        if protocol.applies(protocol.own_data(data)):
            found.append(config)
    return found


def networks_of(request: Request) -> tuple[tuple[Scorable, ...], tuple[str, ...]]:
    """The checkpoint, the supervised weights where there are any, and random weights of the same backbone.

    Raises:
        UsageError: a file that cannot be read or does not fit.
    """
    own = build(request)
    fitted = load_checkpoint(read_checkpoint(request.checkpoint, HYDRA), own, request.branch, request.prefix)
    weights = {"sha256": fitted.sha256, "place": fitted.place, "prefix": fitted.prefix}
    networks = [Scorable(CHECKPOINT, own, weights, fitted, f"`{fitted.file}`")]
    remarks = []
    found = supervised_file(request)
    if found is not None:
        path, source = found
        other = build(request)
        read = load_checkpoint(read_checkpoint(path, HYDRA), other)
        if read.sha256 == fitted.sha256 and read.place == fitted.place and read.prefix == fitted.prefix:
            raise UsageError("supervised= is the same network as checkpoint=; give another file, or supervised=none")
        place = {"sha256": read.sha256, "place": read.place, "prefix": read.prefix}
        networks.append(Scorable(SUPERVISED, other, place, read, source))
    elif request.supervised != NONE:
        remarks.append(
            f"No supervised weights of {request.backbone_word} stand beside the checkpoint: none were given, and "
            "no cache of torchvision or timm on this machine has them. `supervised=FILE` adds them (nothing is "
            "downloaded unasked)."
        )
    networks.append(Scorable(RANDOM, build(request), {"seed": SEED_OF_RANDOM}, None, "initial weights, seed 0"))
    return tuple(networks), tuple(remarks)


def sizes(backbone: nn.Module, size: int) -> tuple[str, ...]:
    """What a ViT does with images of another side than it was built for, in a sentence.

    Raises:
        UsageError: a side that its patches do not divide.
    """
    model = vit_of(backbone)
    if model is None:
        return ()
    patch, built = model.patch_embed.patch_size[0], (model.patch_embed.img_size or (size,))[0]
    if size % patch:
        near = max(patch, round(size / patch) * patch)
        raise UsageError(f"size={size}: images of {size} px do not split into patches of {patch} px; give size={near}")
    if size == built or model.pos_embed is None:
        return ()
    return (
        f"The ViT was built for {built} px and sees {size} px: {(size // patch) ** 2} patches in the place of "
        f"{(built // patch) ** 2}, with its position embeddings interpolated.",
    )


def build(request: Request) -> nn.Module:
    """The backbone with the initial weights of seed 0, those of a study's runs of that seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(SEED_OF_RANDOM, "init", "backbone"))
        return instantiate(request.backbone)


def supervised_file(request: Request) -> tuple[Path, str] | None:
    """The file of supervised weights and where it comes from; None where there is none, or it is not wanted."""
    if request.supervised == NONE:
        return None
    if request.supervised != AUTO:
        path = Path(request.supervised).expanduser()
        return path, f"`{path.name}`"
    return cached_weights(request.backbone)


def cached_weights(backbone: Mapping[str, Any]) -> tuple[Path, str] | None:
    """Supervised weights of a library's backbone that lie in its cache on this machine; nothing is downloaded.

    Weights that were trained with another normalisation of colours than ImageNet's are left out: on these images they
    would score too low.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache
    from torchvision.models import get_model_weights

    from scd.nn.backbone import RESNETS
    from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD

    name, options = backbone.get("name", ""), set(backbone) - {"_target_", "name", "channels_last", "vector"}
    if options - {"padding"} or backbone.get("padding", "zeros") != "zeros":
        return None
    if name in RESNETS:
        for weights in get_model_weights(name):
            path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
            if path.is_file():
                return path, f"torchvision's {weights}, from the cache of this machine"
    model = name.removeprefix("timm/")
    found = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    if found is None or not found.hf_hub_id or not is_supervised(found.tag):
        return None
    if (tuple(found.mean), tuple(found.std)) != (IMAGENET_MEAN, IMAGENET_STD):
        return None
    path = try_to_load_from_cache(f"{found.hf_hub_id}", "model.safetensors")
    return (
        (Path(path), f"timm's {model}.{found.tag}, from the cache of this machine") if isinstance(path, str) else None
    )


def is_supervised(tag: str) -> bool:
    """Whether the tag of timm's weights names a training on ImageNet's labels and nothing else."""
    words = set(tag.split("_"))
    labelled = bool(words & {"in1k", "in12k", "in21k", "in22k"}) or any(word.endswith("in1k") for word in words)
    return labelled and not any(word.startswith(OTHER_TRAININGS) for word in words)


# ---------------------------------------------------------------- executing


def score(scoring: Scoring, records: Records) -> dict[str, str]:
    """Do what is missing; finished evaluations are kept whatever happens.

    Returns:
        Name of the network and the protocol -> why it failed.
    """
    pairs = scoring.pairs()
    keys = {f"{network.name}/{protocol['name']}": (network, protocol) for network, protocol in pairs}
    ids = {key: scoring.id(*pair) for key, pair in keys.items()}
    done = [key for key, run in ids.items() if records.status(run) is Status.DONE]
    first = {network.name: protocol["name"] for network, protocol in reversed(pairs)
             if f"{network.name}/{protocol['name']}" not in done}  # fmt: skip
    work = {
        key: scoring.work(protocol, first.get(network.name) == protocol["name"])
        for key, (network, protocol) in keys.items()
    }
    failed: dict[str, str] = {}
    if len(done) == len(keys):
        return failed
    with Bar(work, done, len(keys), ids) as bar:
        for network in scoring.networks:
            missing = {key: protocol for key, (each, protocol) in keys.items() if each is network and key not in done}
            if not missing:
                continue
            context = context_of(scoring, network)
            for key, protocol in missing.items():
                reason = _one(
                    scoring,
                    network,
                    protocol,
                    context,
                    records,
                    lambda seen, at=key: bar.at(at, min(seen, work[at]), work[at]),
                )
                if reason:
                    failed[key] = reason
                bar.end(key, reason)
            network.backbone.cpu()
    return failed


def context_of(scoring: Scoring, network: Scorable) -> SharedContext:
    """What the protocols work with; the same images for every network."""
    device = torch.device(scoring.request.device)
    method = Scored(network.backbone).to(device).eval()
    return SharedContext(method, scoring.data, scoring.request.size, scoring.request.seeds[0], device)


def _one(
    scoring: Scoring,
    network: Scorable,
    protocol: Mapping[str, Any],
    context: SharedContext,
    records: Records,
    progress: Callable[[int], None],
) -> str:
    """One evaluation, recorded; why it failed, or nothing."""
    run = scoring.id(network, protocol)
    with records.claim(run) as folder:
        if folder is None:
            return "" if records.status(run) is Status.DONE else "another process works on it; give the command again"
        try:
            if scoring.id(network, protocol, fresh=True) != run:
                raise UsageError("the code changed in the meantime; give the command again")
            config = {"weights": network.weights, "backbone": scoring.config["backbone"], "protocol": protocol}
            records.begin(run, config)
            began = perf_counter()
            with counted(network.backbone, progress):
                numbers = build_protocol(protocol)(replace(context, folder=folder))
            record = {"protocol": protocol["name"], "numbers": numbers, "seconds": perf_counter() - began}
            records.finish(run, record, machine.describe(None, scoring.request.device))
        except Exception as error:
            reason = _reason(error, folder)
            records.fail(run, reason, error)
            return reason
    return ""


@contextmanager
def counted(backbone: nn.Module, progress: Callable[[int], None]):
    """Within the context, ``progress`` hears how many images the backbone has seen."""
    seen = 0

    def count(module: nn.Module, inputs: Sequence[Any], output: Any) -> None:
        nonlocal seen
        seen += len(inputs[0])
        progress(seen)

    handle = backbone.register_forward_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _reason(error: Exception, folder: Path) -> str:
    if is_disk_full(error):
        return disk_full(folder)
    return one_line(error)


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class Scores:
    """What the store has of one network.

    Attributes:
        numbers: by name, of all finished protocols; protocol_of: name of a number -> protocol.
        outcomes: of the numbers that have them.
        runs: protocol -> id of its evaluation. environments: of the records.
    """

    numbers: dict[str, float]
    protocol_of: dict[str, str]
    outcomes: dict[str, dict[int, Outcome]]
    runs: dict[str, str]
    environments: tuple[dict[str, Any], ...]


def scores_of(scoring: Scoring, network: Scorable, records: Records) -> Scores:
    """The finished evaluations of a network."""
    numbers: dict[str, float] = {}
    protocol_of: dict[str, str] = {}
    outcomes: dict[str, dict[int, Outcome]] = {}
    runs, environments = {}, []
    for protocol in scoring.protocols:
        run = scoring.id(network, protocol)
        record = records.record(run)
        if record is None:
            continue
        fresh = {name: value for name, value in record["numbers"].items() if name not in numbers}
        numbers |= fresh
        protocol_of |= dict.fromkeys(fresh, protocol["name"])
        outcomes |= read_outcomes(records.folder(run))
        runs[protocol["name"]] = run
        environments.append(records.environment(run) or {})
    return Scores(numbers, protocol_of, outcomes, runs, tuple(environments))
