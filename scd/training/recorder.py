"""What follows a training step when it is due: a look at the loss, a log line, snapshots, a checkpoint, a report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from torch import Tensor

from scd.training.horizon import Horizon
from scd.training.log import Reporter
from scd.training.state import Stopped, TrainingState

CHECK_EVERY = 50  # steps; the longest time a non-finite loss goes unseen where looking at it would stall the device

SaveSnapshot = Callable[[int, float, dict[str, Tensor]], None]


@dataclass
class Recorder:
    """Records a run step by step.

    Args:
        state: of the run.
        horizon: of the run.
        reporter: of the progress.
        log_every: steps per line of ``progress.jsonl``.
        checkpoint_seconds: time between checkpoints.
        snapshots: shares of the training, in [0, 1], after which ``save_snapshot`` is called.
        save_snapshot: called on the first process with (step, share, tensors of the method by name).
        stop: asked on the first process whether the training is to stop.
    """

    state: TrainingState
    horizon: Horizon
    reporter: Reporter
    log_every: int
    checkpoint_seconds: float
    snapshots: Sequence[float] = ()
    save_snapshot: SaveSnapshot | None = None
    stop: Callable[[], bool] | None = None
    line_images: int = field(init=False)
    line_seconds: float = field(init=False)
    last_save: float = field(init=False)

    def __post_init__(self) -> None:
        fabric = self.state.fabric
        waits = fabric.world_size > 1 or fabric.device.type != "cpu"
        self.check_every = min(self.log_every, CHECK_EVERY) if waits else 1
        self.begin_line()
        self.last_save = monotonic()

    def start(self, share: float) -> None:
        """Save the snapshots of a run that has done no step; report a run that has done them all."""
        if self.state.step == 0:
            self.take_snapshots(-1.0, share)
        if share >= 1:
            self.report(share)

    def record(self, images: int, lr: float, outputs: dict[str, Tensor], before: float, share: float) -> None:
        """Record a step that has just been taken.

        The snapshots come before the checkpoint: a run that is killed between the two repeats the snapshots.

        Args:
            images: source images of the step, of all processes together.
            lr: its learning rate.
            outputs: what the method returned.
            before, share: progress of the run before and after the step.

        Raises:
            NonFiniteLoss: a loss, or a state that is to be saved, is NaN or infinite.
            Stopped: the training was asked to stop; a checkpoint is saved.
        """
        state, ended = self.state, share >= 1
        state.window.add(state.step, lr, outputs)
        state.step += 1
        state.images += images
        log_due = state.step % self.log_every == 0 or ended
        check_due = log_due or state.step % self.check_every == 0
        waited, stopped = self.first_process() if check_due and not ended else (0.0, False)
        save_due = ended or stopped or (check_due and waited >= self.checkpoint_seconds)
        if check_due:
            state.settle()
        self.take_snapshots(before, share)
        if log_due:
            self.write_line(lr, share)
        if save_due:
            state.save()
            self.last_save = monotonic()
        self.report(share)
        if stopped:
            raise Stopped(f"stopped after step {state.step}, whose checkpoint is saved")

    def first_process(self) -> tuple[float, bool]:
        """Seconds since the last checkpoint, and whether to stop: of the first process, alike on all processes."""
        seen = (monotonic() - self.last_save, self.stop is not None and self.stop())
        fabric = self.state.fabric
        return seen if fabric.world_size == 1 else fabric.broadcast(seen)

    def take_snapshots(self, before: float, share: float) -> None:
        """Save the method for the shares of the training that are reached, if its state is finite."""
        reached = self.horizon.shares_reached(self.snapshots, self.state.step, before, share)
        if not reached:
            return
        self.state.settle()
        self.state.check()
        if self.state.fabric.is_global_zero:
            tensors = self.state.method.evaluated_state()
            for each in reached:
                self.save_snapshot(self.state.step, each, tensors)

    def write_line(self, lr: float, share: float) -> None:
        """Close the log window: one line of ``progress.jsonl`` with the means since the line before."""
        state, timer = self.state, self.state.timer
        pace = (state.images - self.line_images) / max(timer.total - self.line_seconds, 1e-9)
        state.losses = state.window.means()
        state.window.clear()
        line = {"step": state.step, "epoch": state.step / self.horizon.steps_per_epoch, "lr": lr}
        line |= state.method.scheduled_values(self.horizon.scheduled(share)) | state.losses
        state.log.write(line | {"images_per_second": round(pace, 2)})
        self.begin_line()

    def begin_line(self) -> None:
        """Count images and time for the pace of the next line from here on."""
        self.line_images, self.line_seconds = self.state.images, self.state.timer.total

    def report(self, share: float) -> None:
        """Report the progress."""
        state = self.state
        steps = self.horizon.expected_steps(state.step, share)
        self.reporter(state.step, steps, state.window.latest.get("loss"), share >= 1)
