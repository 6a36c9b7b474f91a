"""The training loop: one method, one stream of batches, one optimiser; it resumes exactly and measures itself.

Every random number of a step comes from the run's seed and the step's number, and a checkpoint holds everything else,
so a run that is killed at any moment and started again ends with the same weights and log as one that was not.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from scd.errors import UsageError, unknown
from scd.method import Batch, Method
from scd.nn.norm import average_running_statistics
from scd.seeds import derive_seed
from scd.training.horizon import Horizon
from scd.training.log import Report, Reporter, RunLog
from scd.training.optimizers import build_optimizer
from scd.training.recorder import Recorder, SaveSnapshot
from scd.training.schedules import Schedule
from scd.training.state import NonFiniteLoss, Stopped, TrainingState
from scd.training.step import take_step

__all__ = ["NonFiniteLoss", "Stopped", "TrainingSummary", "pretrain"]

ENDLESS = 10**9  # steps; where the clock ends the run


@dataclass(frozen=True)
class TrainingSummary:
    """The numbers of a finished training run; times include earlier, interrupted processes of the same run.

    Attributes:
        steps: optimiser steps done.
        seconds: time in views and steps; no checkpoints, no start-up, no work lost to an interruption.
        views_seconds: the part of it that loaded images and made views of them.
        images_per_second: source images (not views) over ``seconds``, all processes together.
        losses: mean of every scalar over the last log window.
    """

    steps: int
    seconds: float
    views_seconds: float
    images_per_second: float
    losses: dict[str, float]


class OpaqueInput:
    """Hides a batch from Fabric, which would cast its tensors, and from DDP, which would copy them."""

    def __init__(self, batch: Batch):
        self.batch = batch


class WithOpaqueInput(nn.Module):
    """The method as Fabric wraps it.

    NOTE: under bf16-mixed Fabric would cast every floating tensor of the input, rectangles and masks included, to eight
    bits of mantissa. Autocast casts where it should; the geometry of the views stays float32.
    """

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def forward(self, opaque: OpaqueInput) -> dict[str, Tensor]:
        return self.method(opaque.batch)


def pretrain(
    method: Method,
    batches,
    view_maker,
    *,
    steps: int | None,
    optimizer: dict,
    schedule: dict,
    seed: int,
    fabric: Fabric,
    max_seconds: float | None = None,
    run_dir: Path | None = None,
    log_every: int = 50,
    checkpoint_seconds: float = 60.0,
    progress: Report | None = None,
    stop: Callable[[], bool] | None = None,
    snapshots: Sequence[float] = (),
    save_snapshot: SaveSnapshot | None = None,
) -> TrainingSummary:
    """Train a method in place, continuing from the newest whole checkpoint in ``run_dir``.

    Args:
        method: any :class:`scd.method.Method`.
        batches: :class:`scd.data.loader.MemoryBatches`, or another with ``steps_per_epoch`` and ``iterate``.
        view_maker: :class:`scd.data.views.ViewMaker`, or another with ``steps_at_once`` and ``several``, on the device
            of ``fabric``. It makes the views of ``steps_at_once`` steps together.
        steps: optimiser steps of the whole run; None trains for ``max_seconds``.
        optimizer: options of :func:`scd.training.optimizers.build_optimizer`, and ``clip``, the norm that each
            parameter's gradient is clipped to (:func:`scd.training.optimizers.clip_each`); None clips nothing.
        schedule: options of :class:`scd.training.schedules.Schedule`.
        seed: the run's seed. PyTorch's global generator is seeded anew at every step, alike on all processes, and its
            state is restored at the end.
        fabric: launched; accelerator, devices, strategy and precision ("32-true" or "bf16-mixed").
        max_seconds: time in views and steps of a run with ``steps=None``. Schedule and ``after_step`` then follow the
            share of it that is over, and the step that begins after the end of the time is the last one. A resumed run
            continues in time, but is not the same run step for step.
        run_dir: receives ``checkpoints/``, ``progress.jsonl`` and ``training.log``; None writes nothing.
        log_every: steps per line of ``progress.jsonl``, which holds means over these steps.
        checkpoint_seconds: seconds between checkpoints. One is always written at the end.
        progress: ``progress(step, steps, loss)``, at most four times a second and at the end; for a run in seconds
            ``steps`` is an estimate.
        stop: asked between steps, by the first process for all; True saves a checkpoint and raises Stopped. One
            CPU process asks after each step, a GPU or several processes every ``log_every`` steps, at least every 50.
        snapshots: shares of the training, in [0, 1], after which the method is saved: 0 is before the first step, 1 at
            the end. A run of n steps saves the share s after round(s * n) steps, a run in seconds after the first step
            that reaches it. A run that is interrupted and resumed leaves the same snapshots.
        save_snapshot: ``save_snapshot(step, share, tensors)`` on the first process, with the tensors of
            ``method.evaluated_state()``; its time is not counted.

    Raises:
        NonFiniteLoss: the loss or the weights are NaN or infinite. One CPU process notices a loss at once, a GPU or
            several processes up to 50 steps later (the text names the true step); no such state is saved.
        Stopped: ``stop`` returned True before the last step.
        UsageError: wrong options, or a checkpoint of another run in ``run_dir``.
    """
    rate = Schedule(**known("schedule", schedule, [field.name for field in fields(Schedule)]))
    valid = [*list(inspect.signature(build_optimizer).parameters)[1:], "clip"]
    options = dict(known("optimizer", optimizer, valid))
    clip = options.pop("clip", None)
    check_arguments(steps, max_seconds, log_every, snapshots, clip, fabric)
    method.train()
    model, stepper = fabric.setup(WithOpaqueInput(method), build_optimizer(method, **options))
    first = fabric.is_global_zero
    if run_dir is not None and first:
        run_dir.mkdir(parents=True, exist_ok=True)
    log = RunLog(run_dir if first else None)
    identity = {"seed": seed, "steps": steps, "max_seconds": max_seconds, "processes": fabric.world_size}
    state = TrainingState(method, stepper, fabric, run_dir, log, identity)
    horizon = Horizon(steps, max_seconds, batches.steps_per_epoch, rate, fabric, state.timer)
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    try:
        state.resume()
        reporter = Reporter(progress if first else None)
        recorder = Recorder(state, horizon, reporter, log_every, checkpoint_seconds, snapshots, save_snapshot, stop)
        with torch.random.fork_rng(devices):
            train(model, recorder, batches, view_maker, seed, clip)
    finally:
        log.close()
    return TrainingSummary(
        steps=state.step,
        seconds=state.timer.total,
        views_seconds=state.timer.seconds["views"],
        images_per_second=state.images / max(state.timer.total, 1e-9),
        losses=dict(state.losses),
    )


def train(model: nn.Module, recorder: Recorder, batches, view_maker, seed: int, clip: float | None) -> None:
    """Take all steps that are left; each is followed by what is due (see :class:`Recorder`)."""
    state, horizon = recorder.state, recorder.horizon
    fabric, timer = state.fabric, state.timer
    share = horizon.progress(state.step)
    recorder.start(share)
    place = (fabric.global_rank, fabric.world_size)
    with closing(stream(view_maker, batches, state.step, horizon.steps or ENDLESS, *place)) as made:
        timer.start()
        while share < 1:
            images, batch = next(made, (0, None))
            if batch is None:
                raise RuntimeError(f"the batches ended after {state.step} steps, before the run did")
            timer.lap("views")

            before, share = share, horizon.progress(state.step + 1)
            lr = horizon.set_rates(state.optimizer, state.step, before)
            seed_generators(derive_seed(seed, "method", state.step), fabric.device)
            outputs = take_step(
                model, state.method, OpaqueInput(batch), state.optimizer, horizon.scheduled(share),
                backward=fabric.backward, clip=clip, timer=timer,
            )  # fmt: skip
            if fabric.world_size > 1:
                average_running_statistics(state.method)
                timer.lap("after_step")
            recorder.record(images, lr, outputs, before, share)
            timer.start()


def stream(
    view_maker, batches, step: int = 0, stop: int = ENDLESS, rank: int = 0, world: int = 1
) -> Iterator[tuple[int, Batch]]:
    """(images of the whole batch, the part of process ``rank`` of it) of every step from ``step`` to ``stop - 1``.

    The view maker makes the views of ``steps_at_once`` steps together. Such a block begins at a multiple of it, also in
    a run that resumes within one, so that no pixel depends on where a run was interrupted.
    """
    window = view_maker.steps_at_once
    first = step - step % window
    with closing(batches.iterate(first, stop, rank=rank, world=world)) as loaded:
        while block := list(islice(loaded, window)):
            made = view_maker.several(block, range(first, first + len(block)))
            for place in range(max(0, step - first), len(block)):
                yield block[place].total, made[place]
            first += len(block)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed PyTorch's global generators, for what a method draws inside ``forward`` (a shuffle of keys)."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would take 0.2 ms on a machine without a GPU
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def known(kind: str, options: dict, valid: list[str]) -> dict:
    """The options, if all of their names exist.

    Raises:
        UsageError: an unknown name.
    """
    for name in options:
        if name not in valid:
            raise unknown(f"{kind} option", name, valid)
    return options


def check_arguments(
    steps: int | None,
    max_seconds: float | None,
    log_every: int,
    snapshots: Sequence[float],
    clip: float | None,
    fabric: Fabric,
) -> None:
    """Raise the one-line error for arguments that do not make a run."""
    if (steps is None) == (max_seconds is None):
        raise UsageError("a run needs a number of steps, or of seconds, and not both")
    if steps is not None and steps < 1:
        raise UsageError(f"a run has at least 1 step, not {steps}")
    if max_seconds is not None and not (max_seconds > 0 and math.isfinite(max_seconds)):
        raise UsageError(f"max_seconds is a finite number above 0, not {max_seconds}")
    if log_every < 1:
        raise UsageError(f"log_every is at least 1 step, not {log_every}")
    for share in snapshots:
        if not 0 <= share <= 1:
            raise UsageError(f"a snapshot is taken after a share of the training in [0, 1], not {share}")
    if clip is not None and not clip > 0:
        raise UsageError(f"optimizer.clip is a norm above 0, or null, not {clip}")
    if getattr(fabric.strategy.precision, "scaler", None) is not None:
        raise UsageError("16-mixed keeps a loss scale outside the checkpoint: use training.precision=bf16-mixed")
