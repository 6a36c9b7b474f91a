"""What the training does for speed: each measure undone alone, and the step timed beside the usual one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from torch import nn

from scd.allocator import keep_freed_memory
from scd.errors import unknown
from scd.profiling.memory import in_fresh_process
from scd.profiling.steptime import Stepper, synchronise
from scd.profiling.timed import Timed, interleaved, quartiles, ratios
from scd.profiling.workload import Build, Workload
from scd.siamese import MomentumSiamese


class Bare:
    """Forward and backward pass alone, on one batch of finished views: the best that a training loop could reach."""

    def __init__(self, workload: Workload, steps: int):
        stepper = Stepper(workload, steps)
        self.method, self.device, self.steps = stepper.method, stepper.device, steps
        _, self.batch = next(stepper.batches)

    def block(self) -> float:
        """Seconds of a block of steps without views, optimiser and momentum update."""
        synchronise(self.device)
        began = perf_counter()
        for _ in range(self.steps):
            self.method(self.batch)["loss"].backward()
            self.method.zero_grad(set_to_none=True)
        synchronise(self.device)
        return perf_counter() - began


def views_one_by_one(build: Build, steps: int) -> Timed:
    """The views of one step at a time."""
    return Stepper(build(), steps, steps_at_once=1)


def optimizer_one_by_one(build: Build, steps: int) -> Timed:
    """The optimiser as a loop over tensors, in the place of multi-tensor operations."""
    stepper = Stepper(build(), steps)
    for group in stepper.optimizer.param_groups:
        group["foreach"] = False
    return stepper


def momentum_one_by_one(build: Build, steps: int) -> Timed:
    """The momentum update as a loop over tensors; of a method with a momentum branch."""
    workload = build()
    method = workload.method
    pairs, method.momentum_pairs, after_step = method.momentum_pairs, [], method.after_step

    def looped(progress: float) -> None:
        for copy, module in pairs:
            move_one_by_one(copy, module, method.momentum_of_step(progress))
        after_step(progress)

    method.after_step = looped
    return Stepper(workload, steps)


def move_one_by_one(copy: nn.Module, module: nn.Module, m: float) -> None:
    """:func:`scd.nn.ema.ema_update` as a loop."""
    for old, new in zip(copy.parameters(), module.parameters(), strict=True):
        old.lerp_(new, 1.0 - m)


def bare(build: Build, steps: int) -> Timed:
    """Forward and backward pass alone."""
    return Bare(build(), steps)


CHANGES: dict[str, Callable[[Build, int], Timed]] = {
    "views_one_by_one": views_one_by_one,
    "optimizer_one_by_one": optimizer_one_by_one,
    "momentum_one_by_one": momentum_one_by_one,
    "bare": bare,
}


@dataclass(frozen=True)
class ChangedStep:
    """The time of a step with one change, as a multiple of the usual step's in the same rounds.

    Args:
        change: a name of ``CHANGES``.
        rounds, steps: as for :class:`scd.profiling.timed.StepTiming`.

    Raises:
        UsageError: an unknown change.
    """

    change: str
    rounds: int = 6
    steps: int = 4

    def __post_init__(self) -> None:
        if self.change not in CHANGES:
            raise unknown("change of a step", self.change, CHANGES)

    def __call__(self, arms: Mapping[str, Build]) -> dict[str, float]:
        """``time_to_usual`` of the arm "arm" and its quartiles over rounds."""
        changed = CHANGES[self.change](arms["arm"], self.steps)
        own, others = interleaved(changed, {"usual": Stepper(arms["arm"](), self.steps)}, self.rounds)
        return quartiles("time_to_usual", ratios(own, others["usual"]))


@dataclass(frozen=True)
class DefaultAllocator:
    """The time of a step under the C library's default memory allocator, as a multiple of the usual step's.

    Every value comes from a fresh process, since the setting lasts as long as its process.

    Args:
        rounds: pairs of processes.
        steps: of a block.
        blocks: of each process.
    """

    rounds: int = 4
    steps: int = 4
    blocks: int = 12

    def __call__(self, arms: Mapping[str, Build]) -> dict[str, float]:
        """``time_to_usual`` of the arm "arm" and its quartiles over rounds."""
        seconds = {keep: [] for keep in (False, True)}
        for _ in range(self.rounds):
            for keep, values in seconds.items():
                shared = (arms["arm"], keep, self.steps, self.blocks, torch.get_num_threads())
                values.append(in_fresh_process(_median_block, *shared))
        return quartiles("time_to_usual", ratios(seconds[False], seconds[True]))


def _median_block(build: Build, keep: bool, steps: int, blocks: int, threads: int) -> float:
    torch.set_num_threads(threads)
    if keep:
        keep_freed_memory()
    stepper = Stepper(build(), steps)
    stepper.block()
    return median(stepper.block() for _ in range(blocks))


@dataclass(frozen=True)
class CompiledBackbone:
    """The time of a step whose backbones went through ``torch.compile``, as a multiple of the usual step's.

    Args:
        rounds, steps: as for :class:`scd.profiling.timed.StepTiming`.
    """

    rounds: int = 6
    steps: int = 4

    def __call__(self, arms: Mapping[str, Build]) -> dict[str, float | str]:
        """``time_to_usual``, ``compile_seconds`` and, where it is ever reached, ``pays_after_steps``.

        Where no compiler works, ``unavailable`` holds the first line of its error.
        """
        stepper, usual = Stepper(arms["arm"](), self.steps), Stepper(arms["arm"](), self.steps)
        began = perf_counter()
        try:
            stepper.method.backbone.compile()
            if isinstance(stepper.method, MomentumSiamese):
                stepper.method.target_backbone.compile()
            stepper.block()
        except Exception as error:  # the compiler's stack raises errors of many kinds
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return {"unavailable": lines[0] if lines else type(error).__name__}
        seconds = perf_counter() - began
        own, others = interleaved(stepper, {"usual": usual}, self.rounds)
        saved = (median(others["usual"]) - median(own)) / self.steps
        numbers = {**quartiles("time_to_usual", ratios(own, others["usual"])), "compile_seconds": seconds}
        return {**numbers, "pays_after_steps": seconds / saved} if saved > 0 else numbers
