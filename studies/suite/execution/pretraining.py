"""Pretraining of one run: from its configuration to a trained method. All that can change its weights is reached here.

This file, ``assembly.py`` and all that they and the configuration's ``_target_`` entries import from ``scd`` and
``baselines`` are part of the identity of a pretraining (``planning/identity.py``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment
from safetensors.torch import save_file
from torch import Tensor, nn

from scd.atomic import write_atomically
from scd.data.annotators.annotator import annotate
from scd.data.images import load_images
from scd.data.loader import MemoryBatches, StreamBatches
from scd.data.sources.source import Source
from scd.data.views import ViewMaker
from scd.errors import UsageError, unknown
from scd.method import Method, strongest_supervision
from scd.nn.norm import batch_norm_groups
from scd.training.budget import Budget
from scd.training.loop import TrainingSummary, pretrain
from studies.suite.planning.assembly import build_method, build_views, instantiate, open_data, seed_of

Report = Callable[[int, int, float], None]
IMAGES_AT_ONCE = 128  # whose views are made together, where a batch has fewer


@dataclass(frozen=True)
class Runtime:
    """How a run is executed; nothing here changes its numbers.

    Args:
        device: index of the GPU on this machine, or of the first of several GPUs of the run.
        nodes: machines, with ``training.devices`` GPUs in all.
        local_rank: which of the run's processes on this machine this one is.
        loader_workers: decoding processes, for streamed data.
        checkpoint_seconds: time between checkpoints.
        progress: called with (step, steps, loss) now and then.
        stop: asked whether the training is to stop with a checkpoint (see :func:`scd.training.loop.pretrain`).
    """

    device: int = 0
    nodes: int = 1
    local_rank: int = 0
    loader_workers: int = 4
    checkpoint_seconds: float = 60.0
    progress: Report | None = None
    stop: Callable[[], bool] | None = None


@dataclass
class Pretrained:
    """The outcome of a pretraining.

    Attributes:
        method: trained, on its device.
        summary: of the training loop; None for a budget of 0 steps (random weights).
        steps_per_epoch: whole batches in one pass over the training images.
        supervision: what the method and its annotations learn from.
        batch_norm_groups: parts of the whole batch with BN statistics of their own, over all devices; None without BN.
    """

    method: Method
    summary: TrainingSummary | None
    steps_per_epoch: int
    supervision: str
    batch_norm_groups: int | None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def pretrain_run(
    config: Mapping[str, Any],
    locations: Mapping[str, Any],
    folder: Path,
    runtime: Runtime,
    inputs: Mapping[str, nn.Module] | None = None,
) -> Pretrained:
    """Train the method of a configuration, going on from its checkpoint in ``folder`` if there is one.

    Leaves ``method.safetensors`` (what evaluations need), ``backbone.safetensors`` and ``snapshots/SHARE.safetensors``.

    Raises:
        UsageError: data or settings that cannot be used, or a loss that is not finite.
    """
    training, data = config["training"], config["data"]
    source = open_data(data, locations)
    recipe, method = build_views(config), build_method(config, inputs)
    fabric = build_fabric(training, runtime)
    annotations, supervision = annotate_all(config, source, method, inputs)
    batches = training_batches(config, source, method, fabric, runtime, annotations)
    budget, seed = training["budget"], seed_of(config, "views")
    summary = None
    if budget["value"] != 0:
        length = Budget(**budget)
        steps_at_once = max(1, IMAGES_AT_ONCE // training["batch_size"])
        summary = pretrain(
            method,
            batches,
            ViewMaker(recipe, seed, fabric.device, needs=method.needs, steps_at_once=steps_at_once),
            steps=length.steps(batches.steps_per_epoch),
            max_seconds=length.seconds,
            optimizer=config["optimizer"],
            schedule=config["schedule"],
            seed=seed,
            fabric=fabric,
            run_dir=folder,
            log_every=training["log_every"] or batches.steps_per_epoch,
            checkpoint_seconds=runtime.checkpoint_seconds,
            progress=runtime.progress or (lambda step, steps, loss: None),
            stop=runtime.stop,
            snapshots=training["snapshots"],
            save_snapshot=partial(save_snapshot, folder / "snapshots"),
        )
    method.to(fabric.device)
    if fabric.is_global_zero:
        save_tensors(method.evaluated_state(), folder / "method.safetensors")
        save_tensors(method.backbone.state_dict(), folder / "backbone.safetensors")
    groups = batch_norm_groups(method)
    return Pretrained(method, summary, batches.steps_per_epoch, supervision, groups, fabric.device)


def annotate_all(
    config: Mapping[str, Any], source: Source, method: Method, inputs: Mapping[str, nn.Module] | None = None
) -> tuple[dict[str, Any], str]:
    """The annotations that a method needs, of the training images, and what method and annotators learn from.

    Raises:
        UsageError: the method needs masks, boxes or segments and no annotator is named for them.
    """
    data, named = config["data"], config["annotations"]
    annotations, supervision = {}, method.supervision
    for kind in sorted(method.needs - {"labels"}):
        if kind not in named:
            raise UsageError(
                f"{type(method).__name__} needs {kind}: name what provides them, for example annotations.{kind}=oracle "
                f"(the data's own, an arm with 'oracle' in its name)"
            )
        annotator = instantiate(named[kind], inputs=inputs)
        if annotator.provides != kind:
            raise UsageError(f"{type(annotator).__name__} provides {annotator.provides}, not {kind}")
        annotations[kind] = annotate(annotator, source, "train", data["size"], data["train_limit"])
        supervision = strongest_supervision(supervision, annotator.supervision)
    return annotations, supervision


def training_batches(
    config: Mapping[str, Any],
    source: Source,
    method: Method,
    fabric: Fabric,
    runtime: Runtime,
    annotations: Mapping[str, Any],
) -> MemoryBatches | StreamBatches:
    """The batches of the training images, decoded on the fly or from memory."""
    data, batch, order = config["data"], config["training"]["batch_size"], seed_of(config, "order")
    shared = {"needs": method.needs, "annotations": annotations}
    if data["stream"]:
        return StreamBatches(
            source, "train", data["size"], batch, order, limit=data["train_limit"], workers=runtime.loader_workers,
            **shared,
        )  # fmt: skip
    images = load_images(source, "train", data["size"], data["train_limit"])
    return MemoryBatches(images.to(fabric.device), batch, order, **shared)


class RunningGroup(ClusterEnvironment):
    """Tells Fabric that the process group exists already (``ranks.py``), and which part of it this process is."""

    def __init__(self, local_rank: int, per_node: int):
        self._local_rank = local_rank
        self._per_node = per_node

    creates_processes_externally = True
    main_address = ""  # read by nobody: the group is there
    main_port = 0

    @staticmethod
    def detect() -> bool:
        return dist.is_initialized()

    def world_size(self) -> int:
        return dist.get_world_size()

    def set_world_size(self, size: int) -> None:
        """Fixed by the group."""

    def global_rank(self) -> int:
        return dist.get_rank()

    def set_global_rank(self, rank: int) -> None:
        """Fixed by the group."""

    def local_rank(self) -> int:
        return self._local_rank

    def node_rank(self) -> int:
        return dist.get_rank() // self._per_node


def build_fabric(training: Mapping[str, Any], runtime: Runtime) -> Fabric:
    """Fabric for one device, or DDP over ``training.devices`` processes whose group exists already."""
    devices, accelerator = training["devices"], training["accelerator"]
    if accelerator not in ("cpu", "cuda"):
        raise unknown("accelerator (training.accelerator)", accelerator, ("cpu", "cuda"))
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise UsageError("training.accelerator=cuda, but torch sees no GPU here; give training.accelerator=cpu")
    if devices == 1:  # NOTE: an environment that is named keeps Lightning from warning of a srun that is not used
        place = [runtime.device] if accelerator == "cuda" else 1
        alone = LightningEnvironment()
        return Fabric(accelerator=accelerator, devices=place, precision=training["precision"], plugins=alone)
    if not dist.is_initialized() or dist.get_world_size() != devices:
        raise UsageError(f"training.devices={devices}, but there is no group of {devices} processes")
    per_node = devices // runtime.nodes
    fabric = Fabric(
        accelerator=accelerator,
        devices=[runtime.device + index for index in range(per_node)] if accelerator == "cuda" else per_node,
        num_nodes=runtime.nodes,
        strategy="ddp",
        precision=training["precision"],
        plugins=RunningGroup(runtime.local_rank, per_node),
    )
    fabric.launch()
    return fabric


# ---------------------------------------------------------------- what a pretraining leaves


def save_snapshot(folder: Path, step: int, share: float, state: Mapping[str, Tensor]) -> None:
    """Keep what an evaluation needs of the method after a share of the training."""
    folder.mkdir(exist_ok=True)
    save_tensors(state, folder / f"{share:.4f}.safetensors")


def save_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Tensors as a safetensors file, written completely or not at all."""
    kept = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    write_atomically(path, lambda unfinished: save_file(kept, unfinished))
