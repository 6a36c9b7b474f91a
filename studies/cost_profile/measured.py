"""Measured cost: steps of the real methods on the machine at hand; ``tests/benchmarks/profile_cost.py`` runs this."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

import scd.siamese
from scd.allocator import keep_freed_memory
from scd.data.views import ViewMaker
from scd.profiling.memory import in_fresh_process, peak, reset_peak, resident, return_freed_memory
from scd.profiling.steptime import Stepper
from studies.suite.execution.run import build_method, build_recipe_of

STEPS = 4  # of a block; its views are made at once, as in a run of the cpu tier
BLOCKS_FOR_MEMORY = 3
MEMORY_WHAT = {
    "cpu": "resident set at its peak in a process of its own that gives freed tensors back at once, less that before "
    "the method was built",
    "cuda": "the allocator's peak",
}


def example_images(size: int, count: int = 512) -> Tensor:
    """(count, 3, size, size) uint8, smooth; their content does not matter to the speed of any arm."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (smooth * 255).to(torch.uint8)


def device_of(config: dict[str, Any]) -> torch.device:
    """Where the tier trains: the first GPU, or the CPU."""
    return torch.device("cuda", 0) if config["training"]["accelerator"] == "cuda" else torch.device("cpu")


def stepper(config: dict[str, Any], steps_at_once: int = STEPS) -> Stepper:
    """Real training steps of a run configuration, in float32, in blocks of ``STEPS``."""
    device = device_of(config)
    batch = config["training"]["batch_size"]
    method = build_method(config).to(device)
    maker = ViewMaker(build_recipe_of(config), 0, device, steps_at_once=steps_at_once)
    images = example_images(config["data"]["size"], max(512, 2 * batch)).to(device)
    return Stepper(method, maker, images, batch, config["optimizer"], steps=STEPS)


def memory_of(config: dict[str, Any]) -> int | None:
    """Bytes that training takes at its peak, see ``MEMORY_WHAT``; measured in a fresh process."""
    return in_fresh_process(_memory, config, torch.get_num_threads())


def _memory(config: dict[str, Any], threads: int) -> int | None:
    torch.set_num_threads(threads)
    return_freed_memory()
    device = device_of(config)
    example_images(config["data"]["size"]).to(device)
    warm = nn.Conv2d(3, 8, 3).to(device)  # the libraries' own buffers are not the method's
    warm(torch.zeros(8, 3, 16, 16, device=device)).sum().backward()
    before = resident() if device.type == "cpu" else 0
    if before is None or not reset_peak(device):
        return None
    trained = stepper(config)
    for _ in range(BLOCKS_FOR_MEMORY):
        trained.block()
    highest = peak(device)
    return None if highest is None else highest - before


def rate_in_fresh_process(config: dict[str, Any], keep: bool, blocks: int = 12) -> float:
    """Source images per second, with the allocator as runs have it (``keep``) or as the system has it."""
    return in_fresh_process(_rate, config, keep, blocks, torch.get_num_threads())


def _rate(config: dict[str, Any], keep: bool, blocks: int, threads: int) -> float:
    torch.set_num_threads(threads)
    if keep:
        keep_freed_memory()
    trained = stepper(config)
    trained.block()
    return trained.images_per_block / median(trained.block() for _ in range(blocks))


# -------------------------------------------------------------------- variants


class Bare:
    """Forward and backward pass alone, on views that are there: what a loop could reach at best."""

    def __init__(self, trained: Stepper):
        self.trained = trained
        images = [trained.images[: trained.batch_size]]
        self.views = trained.view_maker.several(images, [0], [None])[0]

    def block(self) -> float:
        """Seconds of a block of steps without views, optimiser and momentum update."""
        began = perf_counter()
        for _ in range(self.trained.steps):
            self.trained.method(self.views)["loss"].backward()
            self.trained.method.zero_grad(set_to_none=True)
        return perf_counter() - began


class Within:
    """A stepper whose blocks run inside a context."""

    def __init__(self, trained: Stepper, context: Callable):
        self.trained = trained
        self.context = context

    def block(self) -> float:
        """Seconds of a block."""
        with self.context():
            return self.trained.block()


@contextmanager
def one_tensor_at_a_time() -> Iterator[None]:
    """The momentum update as a loop over parameters, in the place of one multi-tensor operation."""

    def loop(target: nn.Module, online: nn.Module, m: float) -> None:
        for old, new in zip(target.parameters(), online.parameters(), strict=True):
            old.lerp_(new, 1.0 - m)

    kept, scd.siamese.ema_update = scd.siamese.ema_update, loop
    try:
        yield
    finally:
        scd.siamese.ema_update = kept


def compiled(config: dict[str, Any]) -> tuple[Stepper, float]:
    """A stepper whose two backbones went through ``torch.compile``, and the seconds that this took.

    Raises:
        RuntimeError: there is no working compiler; one line says what is missing.
    """
    trained = stepper(config)
    began = perf_counter()
    try:
        trained.method.backbone.compile()
        trained.method.target_backbone.compile()
        trained.block()
    except Exception as error:  # whatever the compiler stack raises: this is a question put to it
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RuntimeError(lines[0] if lines else type(error).__name__) from error
    return trained, perf_counter() - began


def loops(config: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """What the suite does for speed, each undone alone: name -> maker of an object with ``block()``."""

    def optimiser_loop() -> Stepper:
        trained = stepper(config)
        for group in trained.optimizer.param_groups:
            group["foreach"] = False
        return trained

    turned = {**config, "backbone": {**config["backbone"], "channels_last": not config["backbone"]["channels_last"]}}
    layout = "NCHW" if config["backbone"]["channels_last"] else "channels-last"
    return {
        "views of one step at a time": lambda: stepper(config, steps_at_once=1),
        "optimiser: one tensor at a time": optimiser_loop,
        "momentum update: one tensor at a time": lambda: Within(stepper(config), one_tensor_at_a_time),
        f"memory layout: {layout}": lambda: stepper(turned),
        "bare forward and backward pass, no views, no optimiser": lambda: Bare(stepper(config)),
    }


def machine() -> dict[str, Any]:
    """What the page says of the machine."""
    return {"threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1), "torch": torch.__version__}
