"""Every method of ``studies/conf``, and the batches and steps that the contract tests share.

The methods are each file of ``method/`` alone, each file of ``wrapper/`` around hosts that it accepts, and each file of
``map/`` as SCD's saliency. SCD and LEWEL are put around every host, other wrappers around the first ``HOSTS`` of them:
the tests would take too long otherwise. A new file needs no change here. The views are those of the method's recipe.
"""

import copy
import json
from collections import Counter
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from scd.data.loader import ImageBatch
from scd.data.views import Recipe, ViewMaker
from scd.errors import UsageError
from scd.method import Batch, Method
from scd.nn.queue import Queue
from scd.training.optimizers import build_optimizer
from scd.training.step import take_step
from scd.wrapper import Wrapper
from studies.suite.planning.assembly import build_method, build_views
from studies.suite.planning.command_line import choices, resolve_settings
from studies.suite.planning.resolve import with_classes
from studies.suite.planning.study import Arm

CLASSES, CANVAS = 4, 24
HOSTS = 3  # that a wrapper is tested around, unless it is one of EVERYWHERE
EVERYWHERE = ("scd", "lewel")
FIRST = ("moco", "byol", "simsiam", "dino", "barlow_twins")  # hosts in this order, then all others
SETTINGS = resolve_settings("contract", ["tier=smoke"])


# -------------------------------------------------------------------- discovery


def wrapped(wrapper: Any, method: str) -> dict[str, Any]:
    return {"method": method, "wrapper": wrapper}


ALONE = {name: {"method": name} for name in choices("method")}
ORDERED = sorted(choices("method"), key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
AROUND = {name: {host: wrapped(name, host) for host in ORDERED} for name in choices("wrapper")}
MAPS = {f"scd on moco, map {name}": wrapped({"preset": "scd", "saliency": name}, "moco") for name in choices("map")}
CANDIDATES = {**MAPS, **ALONE, **{f"{name} on {host}": AROUND[name][host] for name in AROUND for host in AROUND[name]}}
REFUSED: dict[str, str] = {}


@cache
def configuration(name: str) -> dict[str, Any]:
    config = SETTINGS.configure(Arm("", "", CANDIDATES[name], "", ""), seed=0)
    return {**config, "method": with_classes(config["method"], CLASSES, "the test's images")}


@cache
def prototype(name: str) -> Method:
    return build_method(configuration(name))


def discover() -> list[str]:
    """Names of the methods, one for each configuration; wrappers that refuse a host are kept in ``REFUSED``."""
    different = {json.dumps(configuration(name), sort_keys=True): name for name in CANDIDATES}
    found, hosts = [], Counter()
    for name in different.values():
        wrapper = name.partition(" on ")[0]
        if wrapper in AROUND and wrapper not in EVERYWHERE and hosts[wrapper] == HOSTS:
            continue
        try:
            prototype(name)
            found.append(name)
            hosts[wrapper] += 1
        except UsageError as error:
            if "wrapper" not in CANDIDATES[name] or name in MAPS:
                raise
            REFUSED[name] = str(error)
    return found


METHODS = discover()


def build(name: str) -> Method:
    return copy.deepcopy(prototype(name)).train()


def with_other_numbers(method: Method) -> Method:
    """The method with another number at every place of its state."""
    draw = torch.Generator().manual_seed(1)
    for value in method.state_dict().values():
        if value.is_floating_point():
            value += 0.1 * torch.rand(value.shape, generator=draw)
    return method


def host(name: str) -> Method:
    """The method itself, or the host inside a wrapper."""
    method = prototype(name)
    return method.siamese if isinstance(method, Wrapper) else method


def has_queue(name: str) -> bool:
    return any(isinstance(module, Queue) for module in prototype(name).modules())


# -------------------------------------------------------------------- batches and steps


def batch(name: str, seed: int = 0) -> Batch:
    """One step's views by the method's own recipe, of images that differ in colour and layout, and what it needs."""
    config = configuration(name)
    return made(build_views(config), prototype(name).needs, config["training"]["batch_size"], seed)


@cache
def made(recipe: Recipe, needs: frozenset[str], size: int, seed: int) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(size, 3, 4, 4, generator=draw)
    images = nn.functional.interpolate(coarse, size=CANVAS, mode="bilinear").mul(255).to(torch.uint8)
    regions = nn.functional.interpolate(coarse[:, :1], size=CANVAS)[:, 0]
    corners = torch.rand(size, 2, 2, 2, generator=draw).sort(dim=2).values  # (B, n, low and high, x and y)
    annotations = {
        "masks": (regions > 0.5).to(torch.uint8),
        "segments": (regions * 5).long(),
        "boxes": list(corners.flatten(2)),
    }
    labels = torch.randint(CLASSES, (size,), generator=draw)
    source = ImageBatch(images, torch.arange(size), slice(0, size), size, labels, annotations)
    return ViewMaker(recipe, seed, needs=needs)(source, seed)


def loss_of(method: Method, views: Batch) -> Tensor:
    """The loss under a fixed random state: methods may shuffle or draw."""
    torch.default_generator.manual_seed(0)  # faster than torch.manual_seed
    return method(views)["loss"]


def own_optimizer(name: str, method: Method) -> Optimizer:
    options = {key: value for key, value in configuration(name)["optimizer"].items() if key != "clip"}
    return build_optimizer(method, **options)


def step(method: Method, optimizer: Optimizer, views: Batch, progress: float = 0.5) -> Tensor:
    torch.default_generator.manual_seed(0)  # faster than torch.manual_seed
    return take_step(method, method, views, optimizer, progress)["loss"].detach()


def is_target(name: str) -> bool:
    return any(part.startswith("target_") for part in name.split("."))


def online_name(name: str) -> str:
    return ".".join(part.removeprefix("target_") for part in name.split("."))
