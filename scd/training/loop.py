"""The training loop: one method, one stream of batches, one optimiser; resumes exactly and measures itself.

Every random number of a step comes from the run's seed and the step's number, and a checkpoint holds everything else,
so a run that is killed at any moment and started again ends with the very weights and log of one that was not.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from time import perf_counter

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from scd.errors import UsageError, unknown
from scd.seeds import derive_seed
from scd.training.horizon import Course
from scd.training.log import Report, Reporter, RunLog
from scd.training.optimizers import build_optimizer, clip_each
from scd.training.schedules import Schedule
from scd.training.state import NonFiniteLoss, RunState

__all__ = ["NonFiniteLoss", "Observer", "TrainingSummary", "pretrain"]

CHECK_EVERY = 50  # steps; the longest time a non-finite loss goes unseen where looking at it would stall the device
ENDLESS = 10**9  # steps; where the clock ends the run


@dataclass(frozen=True)
class TrainingSummary:
    """What a finished training run amounts to; times include earlier, interrupted processes of the same run.

    Attributes:
        steps: optimiser steps done.
        seconds: time in views and steps; no checkpoints, no start-up, no work lost to an interruption.
        views_seconds: the part that loaded images and made views of them.
        step_seconds: the part of forward, backward, optimiser and ``after_step``.
        images_per_second: source images (not views) over ``seconds``, all processes together.
        losses: mean of every scalar over the last log window.
        resumed_from: steps behind the checkpoint that this process began with, None for a fresh start.
        stopped_by: "steps", or "seconds" where ``max_seconds`` ended the run.
        notes: what happened on the way, one line each (resumed; a corrupt checkpoint set aside).
    """

    steps: int
    seconds: float
    views_seconds: float
    step_seconds: float
    images_per_second: float
    losses: dict[str, float]
    resumed_from: int | None
    stopped_by: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Observer:
    """Somebody who looks at the method during training and changes nothing.

    Args:
        steps: after how many steps it looks, 0 being the untrained method.
        look: called with the number of steps done, on the first process; may be called twice for a step by a run that
            is interrupted and resumes, with the same weights.
    """

    steps: tuple[int, ...]
    look: Callable[[int], None]


class Opaque:
    """A parcel that precision plugins and DDP do not look into."""

    def __init__(self, views: dict):
        self.views = views


class Trained(nn.Module):
    """What Fabric wraps: the method behind one opaque argument.

    NOTE: under bf16-mixed Fabric would cast every floating tensor of the input, rectangles and masks included, to eight
    bits of mantissa. Autocast casts where it should; the views' geometry stays float32.
    """

    def __init__(self, method: nn.Module):
        super().__init__()
        self.method = method

    def forward(self, parcel: Opaque) -> dict[str, Tensor]:
        return self.method(parcel.views)


def pretrain(
    method: nn.Module,
    batches,
    view_maker: Callable,
    *,
    steps: int | None,
    optimizer: dict,
    schedule: dict,
    seed: int,
    fabric: Fabric,
    run_dir: Path | None = None,
    log_every: int = 50,
    checkpoint_every: int | None = None,
    checkpoint_seconds: float | None = 60.0,
    progress: Report | None = None,
    max_seconds: float | None = None,
    observer: Observer | None = None,
) -> TrainingSummary:
    """Trains a method in place, going on from the newest whole checkpoint in ``run_dir``.

    Args:
        method: ``forward(views) -> {"loss": scalar, ...}`` and ``after_step(progress)``, progress in (0, 1];
            ``needs == "masks"`` asks for the images' masks in the views.
        batches: :class:`scd.data.loader.MemoryBatches` or another with ``steps_per_epoch`` and ``iterate``.
        view_maker: :class:`scd.data.views.ViewMaker` or another of its signature, on the device of ``fabric``; one with
            ``steps_at_once`` above 1 is asked for ``several`` steps together.
        steps: optimiser steps of the whole run; None trains until ``max_seconds``.
        optimizer: options of :func:`scd.training.optimizers.build_optimizer`, and ``clip``, the norm that each parameter's
            gradient is cut to (:func:`scd.training.optimizers.clip_each`); None cuts nothing.
        schedule: options of :class:`scd.training.schedules.Schedule`.
        seed: the run's seed. PyTorch's global generator is seeded anew at every step, alike on all processes, and is
            given back as it was found.
        fabric: launched; accelerator, devices, strategy and precision ("32-true" or "bf16-mixed").
        run_dir: receives ``checkpoints/``, ``progress.jsonl`` and ``training.log``; None writes nothing.
        log_every: steps per line of ``progress.jsonl``, which holds means over these steps.
        checkpoint_every: steps between checkpoints. One is always written at the end.
        checkpoint_seconds: seconds between checkpoints, beside or instead of ``checkpoint_every``.
        progress: ``progress(step, steps, loss)``, at most four times a second and at the end; under a budget of seconds
            ``steps`` is an estimate. Without it a bar is shown on a terminal.
        max_seconds: time in views and steps after which the run ends. With ``steps=None`` it is the run's budget: the
            schedule and ``after_step`` then follow the share of it that is used up, and a resumed run is a fair
            continuation, but not the same run step for step. With ``steps`` it cuts the run short.
        observer: looks at the method on the way; its time is not counted.

    Raises:
        NonFiniteLoss: the loss or the weights are NaN or infinite. One CPU process sees a loss at once, a GPU or
            several processes up to ``CHECK_EVERY`` steps later (the text names the true step); no such state is saved.
        UsageError: wrong options, or a checkpoint of another run in ``run_dir``.
    """
    rate = Schedule(**known("schedule", schedule, [field.name for field in fields(Schedule)]))
    valid = [*list(inspect.signature(build_optimizer).parameters)[1:], "clip"]
    options = dict(known("optimizer", optimizer, valid))
    clip = options.pop("clip", None)
    check_arguments(steps, max_seconds, log_every, checkpoint_every, clip, fabric)
    method.train()
    model, stepper = fabric.setup(Trained(method), build_optimizer(method, **options))
    first = fabric.is_global_zero
    if run_dir is not None and first:
        run_dir.mkdir(parents=True, exist_ok=True)
    log = RunLog(run_dir if first else None)
    identity = {"seed": seed, "steps": steps, "max_seconds": max_seconds if steps is None else None}
    identity["processes"] = fabric.world_size
    base_lr = stepper.param_groups[0]["lr"]
    for group in stepper.param_groups:
        group["initial_weight_decay"] = group["weight_decay"]
    state = RunState(method, stepper, fabric, run_dir, log, identity)
    course = Course(steps, max_seconds, batches.steps_per_epoch, base_lr, rate, fabric, state.clock)
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    try:
        resumed_from = state.resume()
        with torch.random.fork_rng(devices), closing(Reporter(progress, first)) as reporter:
            every = (log_every, checkpoint_every, checkpoint_seconds)
            stopped_by = train(model, state, course, batches, view_maker, reporter, seed, clip, observer, *every)
    finally:
        log.close()
    return TrainingSummary(
        steps=state.step,
        seconds=state.clock.total,
        views_seconds=state.clock.seconds["views"],
        step_seconds=state.clock.seconds["step"],
        images_per_second=state.images / max(state.clock.total, 1e-9),
        losses=dict(state.losses),
        resumed_from=resumed_from,
        stopped_by=stopped_by,
        notes=tuple(log.notes),
    )


def train(
    model: nn.Module,
    state: RunState,
    course: Course,
    batches,
    view_maker: Callable,
    reporter: Reporter,
    seed: int,
    clip: float | None,
    observer: Observer | None,
    log_every: int,
    checkpoint_every: int | None,
    checkpoint_seconds: float | None,
) -> str:
    """All steps that are left, each followed by what is due: a look at the loss, a log line, a checkpoint.

    Returns:
        What ended the run, "steps" or "seconds".
    """
    fabric, method, optimizer, clock = state.fabric, state.method, state.optimizer, state.clock
    world = fabric.world_size
    check_every = 1 if world == 1 and fabric.device.type == "cpu" else min(log_every, CHECK_EVERY)
    line_images, line_seconds, last_save = state.images, clock.total, perf_counter()
    share = course.progress(state.step)
    if ended := course.ended(state.step, share):
        reporter(state.step, course.expected_steps(state.step, share), state.window.latest.get("loss"), True)
        return ended
    stop = ENDLESS if course.steps is None else course.steps
    observed = observer.steps if observer is not None and fabric.is_global_zero else ()
    if state.step == 0 and 0 in observed:
        observer.look(0)
    with closing(views_by_step(view_maker, batches, state.step, stop, method.needs == "masks", fabric)) as stream:
        clock.start()
        while not ended:
            step = state.step
            images, views = next(stream, (None, None))
            if views is None:
                raise RuntimeError(f"the batches ended after {step} steps, before the run did")
            clock.lap("views")

            lr = course.learning_rate(step, share)
            for group in optimizer.param_groups:
                group["lr"] = lr
                group["weight_decay"] = course.weight_decay(group["initial_weight_decay"], share)
            seed_generators(derive_seed(seed, "method", step), fabric.device)
            outputs = model(Opaque(views))
            state.window.add(step, lr, outputs)
            fabric.backward(outputs["loss"])
            if clip is not None:
                clip_each(method, clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            clock.lap("step")
            share = course.progress(step + 1)
            with torch.no_grad():
                method.after_step(share)
            clock.lap("step")

            state.step = done = step + 1
            state.images += images
            ended = course.ended(done, share)
            log_due = done % log_every == 0 or bool(ended)
            check_due = log_due or done % check_every == 0
            save_due = bool(ended) or (checkpoint_every is not None and done % checkpoint_every == 0)
            if checkpoint_seconds is not None and check_due and not save_due:
                waited = perf_counter() - last_save
                save_due = (waited if world == 1 else fabric.broadcast(waited)) >= checkpoint_seconds
            if check_due or save_due:
                state.settle()
            if done in observed:
                observer.look(done)
            if log_due:
                pace = (state.images - line_images) / max(clock.total - line_seconds, 1e-9)
                write_line(state, course, lr, share, pace)
                line_images, line_seconds = state.images, clock.total
            if save_due:
                state.save()
                last_save = perf_counter()
            reporter(done, course.expected_steps(done, share), state.window.latest.get("loss"), bool(ended))
            clock.start()
    return ended


def views_by_step(
    view_maker: Callable, batches, step: int, stop: int, with_masks: bool, fabric: Fabric
) -> Iterator[tuple[int, dict]]:
    """(images of the whole batch, this process's views on its device) of every step from ``step`` on.

    A view maker with ``steps_at_once`` above 1 makes the views of so many steps together. Such a block begins at a
    multiple of it, also in a run that resumes within one, so that no pixel depends on where a run was interrupted.
    """
    window = getattr(view_maker, "steps_at_once", 1)
    first = step - step % window
    stream = iter(batches.iterate(first, stop, rank=fabric.global_rank, world=fabric.world_size))
    with closing(stream) if hasattr(stream, "close") else nullcontext():
        while block := list(islice(stream, window)):
            views = make_views(view_maker, block, range(first, first + len(block)), with_masks, fabric)
            for place in range(max(0, step - first), len(block)):
                yield block[place].total, views[place]
            first += len(block)


def make_views(view_maker: Callable, block: list, steps: range, with_masks: bool, fabric: Fabric) -> list[dict]:
    """The views of the batches of some steps."""

    def here(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(fabric.device, non_blocking=True)

    images = [here(batch.images) for batch in block]
    masks = [here(batch.masks) if with_masks else None for batch in block]
    share = {"rows": block[0].rows, "total": block[0].total}
    if len(block) == 1:
        return [view_maker(images[0], steps[0], masks=masks[0], **share)]
    return view_maker.several(images, steps, masks, **share)


def write_line(state: RunState, course: Course, lr: float, share: float, pace: float) -> None:
    """Closes the window: one line of ``progress.jsonl`` with the means since the line before."""
    state.losses = state.window.means()
    state.window.clear()
    line = {"step": state.step, "epoch": state.step / course.steps_per_epoch, "lr": lr}
    momentum = getattr(getattr(state.method, "siamese", state.method), "momentum", None)
    if callable(momentum):  # the method's own, or that of the Siamese it wraps
        line["momentum"] = float(momentum(share))
    state.log.write(line | state.losses | {"images_per_second": round(pace, 2)})


def seed_generators(seed: int, device: torch.device) -> None:
    """Seeds PyTorch's global generators, for what a method draws inside ``forward`` (a shuffle of keys)."""
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
    checkpoint_every: int | None,
    clip: float | None,
    fabric: Fabric,
) -> None:
    """Raises the one-line error for arguments that do not make a run."""
    if steps is None and max_seconds is None:
        raise UsageError("a run needs a number of steps or of seconds")
    if steps is not None and steps < 1:
        raise UsageError(f"a run has at least 1 step, not {steps}")
    if max_seconds is not None and not (max_seconds > 0 and math.isfinite(max_seconds)):
        raise UsageError(f"max_seconds is a finite number above 0, not {max_seconds}")
    for name, value in (("log_every", log_every), ("checkpoint_every", checkpoint_every)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is at least 1 step, not {value}")
    if clip is not None and not clip > 0:
        raise UsageError(f"optimizer.clip is a norm above 0, or null, not {clip}")
    if getattr(fabric.strategy.precision, "scaler", None) is not None:
        raise UsageError("16-mixed keeps a loss scale outside the checkpoint: use training.precision=bf16-mixed")
