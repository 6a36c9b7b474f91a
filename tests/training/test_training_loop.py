"""The loop: schedule, log, budget by the clock, errors, precision, devices."""

import json
import math
import pickle
import time

import pytest
import torch
from lightning_fabric import Fabric
from tiny_training import SETTINGS, Batches, Views, logged, state_hash, tiny_method, tiny_run

from scd.errors import UsageError
from scd.seeds import derive_seed
from scd.training.checkpoint import list_checkpoints
from scd.training.log import ScalarWindow
from scd.training.loop import NonFiniteLoss, Observer, seed_generators
from scd.training.schedules import Schedule


def test_equals_a_loop_written_by_hand():
    """Plain PyTorch, step by step, gives the very same weights and losses."""
    method, batches, views = tiny_method(), Batches(), Views()
    optimizer = torch.optim.SGD(method.backbone.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    schedule, losses = Schedule(warmup_epochs=1, per="epoch"), []
    for step, batch in enumerate(batches.iterate(0, 24)):
        optimizer.param_groups[0]["lr"] = 0.05 * schedule.factor(step, 24, 4)
        crops = views(batch.images, step)
        seed_generators(derive_seed(3, "method", step), torch.device("cpu"))
        loss = method(crops)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            method.after_step((step + 1) / 24)
        losses.append(loss.item())
    looped, summary = tiny_run()
    assert state_hash(looped) == state_hash(method)
    assert summary.losses["loss"] == math.fsum(losses[-4:]) / 4


def test_log_lines_and_summary(tmp_path):
    method, summary = tiny_run(tmp_path, log_every=10)
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 24]
    assert list(lines[0]) == ["step", "epoch", "lr", "momentum", "loss", "pull", "images_per_second"]
    assert [line["epoch"] for line in lines] == [2.5, 5.0, 6.0]
    assert lines[0]["lr"] == 0.05 * Schedule(warmup_epochs=1, per="epoch").factor(9, 24, 4)
    assert lines[-1]["momentum"] == 1.0
    assert lines[-1]["loss"] == summary.losses["loss"]
    assert (summary.steps, summary.stopped_by, summary.resumed_from) == (24, "steps", None)
    assert summary.seconds == pytest.approx(summary.views_seconds + summary.step_seconds)
    assert summary.images_per_second == pytest.approx(24 * 8 / summary.seconds)
    assert min(summary.views_seconds, summary.step_seconds) > 0 and min(x["images_per_second"] for x in lines) > 0


def test_after_step_gets_the_share_done_without_gradient():
    method, _ = tiny_run()
    assert method.progress == [(step + 1) / 24 for step in range(24)]
    assert not any(method.grad_enabled)


def test_no_folder_writes_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_run(None)
    assert list(tmp_path.iterdir()) == []


def test_log_and_checkpoints_do_not_change_the_numbers(tmp_path):
    settings = [{}, {"log_every": 1, "checkpoint_every": 1}, {"log_every": 100, "checkpoint_seconds": 0.0}]
    hashes = {state_hash(tiny_run(tmp_path / str(i), **change)[0]) for i, change in enumerate(settings)}
    assert hashes == {state_hash(tiny_run(None)[0])}
    assert [step for step, _ in list_checkpoints(tmp_path / "2" / "checkpoints")] == [24, 23]


def test_seed_decides_and_the_callers_random_state_is_given_back():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    method = tiny_method()
    torch.manual_seed(11)
    one, _ = tiny_run(method=method)
    assert torch.rand(3).equal(expected)
    assert state_hash(tiny_run(seed=4)[0]) != state_hash(one)


def test_masks_reach_the_views_only_when_the_method_needs_them():
    views = Views()
    tiny_run(views=views, steps=2, schedule={})
    assert [masks for _, masks, _, _ in views.calls] == [None, None]
    method = tiny_method()
    method.needs = "masks"
    tiny_run(method=method, views=views, steps=2, schedule={})
    assert views.calls[-1][1].shape == (8, 8, 8)
    assert views.calls[-1][2:] == (slice(0, 8), 8)


def test_progress_callback_and_bar(monkeypatch, capsys):
    monkeypatch.setattr("scd.training.log.REPORT_SECONDS", 0.0)
    calls = []
    _, summary = tiny_run(log_every=1, progress=lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(step, 24) for step in range(1, 25)]
    assert calls[-1][2] == summary.losses["loss"]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    tiny_run(progress=None)
    assert "24/24" in capsys.readouterr().err


def test_time_spent_on_views_is_seen_as_views():
    class Slow(Views):
        def __call__(self, *args, **kwargs):
            time.sleep(0.02)
            return super().__call__(*args, **kwargs)

    _, summary = tiny_run(views=Slow(), steps=8)
    assert summary.views_seconds > 0.16
    assert summary.views_seconds > summary.step_seconds


class Together(Views):
    """Makes the views of several steps together."""

    def __init__(self, steps_at_once):
        super().__init__()
        self.steps_at_once, self.blocks = steps_at_once, []

    def several(self, images, steps, masks, rows=None, total=None):
        self.blocks.append(list(steps))
        return [self(*arguments, rows, total) for arguments in zip(images, steps, masks, strict=True)]


def test_views_of_several_steps_at_once_do_not_change_the_numbers(tmp_path):
    expected = state_hash(tiny_run()[0])
    views = Together(5)
    assert state_hash(tiny_run(views=views)[0]) == expected
    assert views.blocks == [[*range(0, 5)], [*range(5, 10)], [*range(10, 15)], [*range(15, 20)], [*range(20, 24)]]


def test_a_run_resumes_within_views_of_several_steps(tmp_path):
    class Interrupted(Together):
        def several(self, images, steps, masks, rows=None, total=None):
            if 15 in steps:
                raise KeyboardInterrupt
            return super().several(images, steps, masks, rows, total)

    with pytest.raises(KeyboardInterrupt):
        tiny_run(tmp_path, views=Interrupted(5), checkpoint_every=4)
    views = Together(5)
    method, summary = tiny_run(tmp_path, views=views, checkpoint_every=4)
    assert summary.resumed_from == 12
    assert views.blocks[0] == [10, 11, 12, 13, 14]
    assert state_hash(method) == state_hash(tiny_run()[0])


# ---------------------------------------------------------------- seconds


def slow_batches():
    return Batches(before=lambda step: time.sleep(0.01))


def test_budget_of_seconds_ends_by_the_clock(tmp_path):
    calls, batches = [], slow_batches()
    schedule = {"name": "cosine"}
    options = {"steps": None, "max_seconds": 0.4, "schedule": schedule, "progress": lambda *c: calls.append(c)}
    method, summary = tiny_run(tmp_path, batches=batches, **options)
    assert summary.stopped_by == "seconds" and 0.4 <= summary.seconds < 1.5
    assert 3 < summary.steps <= 40
    assert method.progress[-1] == 1.0
    assert all(a < b for a, b in zip(method.progress, method.progress[1:], strict=False))
    lines = logged(tmp_path)
    assert lines[-1]["step"] == summary.steps and lines[-1]["lr"] < lines[0]["lr"]
    assert calls[-1][:2] == (summary.steps, summary.steps)
    assert batches.closed
    again, second = tiny_run(tmp_path, batches=slow_batches(), **options)
    assert second.steps == summary.steps and state_hash(again) == state_hash(method)


def test_seconds_cap_a_run_of_steps_and_a_later_call_goes_on(tmp_path):
    _, short = tiny_run(tmp_path, batches=slow_batches(), max_seconds=0.1)
    assert short.stopped_by == "seconds" and 0 < short.steps < 24
    method, rest = tiny_run(tmp_path)
    assert rest.resumed_from == short.steps and rest.stopped_by == "steps" and rest.steps == 24
    assert rest.seconds > short.seconds
    assert state_hash(method) == state_hash(tiny_run()[0])


# ---------------------------------------------------------------- errors


def test_nan_loss_stops_with_one_line_that_helps(tmp_path):
    with pytest.raises(NonFiniteLoss) as caught:
        tiny_run(tmp_path, method=tiny_method(nan_at=13))
    error, text = caught.value, str(caught.value)
    assert text.startswith("the loss is nan at step 13 (lr 0.0")
    assert "try a lower optimizer.lr" in text and "the checkpoint of step 10 is finite" in text
    assert "\n" not in text and "precision" not in text
    assert error.step == 13 and math.isnan(error.scalars["loss"]) and math.isfinite(error.scalars["pull"])
    assert error.lr == 0.05 * Schedule(warmup_epochs=1, per="epoch").factor(13, 24, 4)
    assert [step for step, _ in list_checkpoints(tmp_path / "checkpoints")] == [10, 5]
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.step, copy.lr) == (text, 13, error.lr)


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    """The weights break after step 10's loss: no loss has told of it yet when the checkpoint is due."""
    with pytest.raises(NonFiniteLoss, match=r"backbone.0.weight is NaN or infinite \(1 of \d+ tensors"):
        tiny_run(tmp_path, method=tiny_method(nan_weights_at=10))
    assert [step for step, _ in list_checkpoints(tmp_path / "checkpoints")] == [5]
    with pytest.raises(NonFiniteLoss, match="at step 23"):
        tiny_run(None, method=tiny_method(nan_weights_at=24), checkpoint_every=None)


def test_nonfinite_loss_between_looks_is_found_with_its_true_step():
    """Where looking stalls the device, losses are looked at in windows; the text still names the step."""
    window = ScalarWindow(Fabric(accelerator="cpu", devices=1))
    for step in range(5):
        value = torch.tensor(float("inf") if step >= 3 else 1.0)
        window.add(step, 0.1 * step, {"loss": value, "other": torch.tensor(2.0)})
    assert window.settle() == (3, pytest.approx(0.3))
    assert window.latest == {"loss": math.inf, "other": 2.0}
    assert window.settle() is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"steps": 0}, "at least 1 step, not 0"),
        ({"steps": None}, "a number of steps or of seconds"),
        ({"max_seconds": -1}, "a finite number above 0, not -1"),
        ({"log_every": 0}, "log_every is at least 1 step"),
        ({"checkpoint_every": 0}, "checkpoint_every is at least 1 step"),
        ({"schedule": {"warmup": 1}}, "unknown schedule option 'warmup'; did you mean 'warmup_epochs'"),
        ({"optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0, "momentun": 0.9}}, "did you mean 'momentum'"),
    ],
)
def test_wrong_arguments_say_what_is_right(changes, text):
    with pytest.raises(UsageError, match=text):
        tiny_run(**changes)


def test_batches_that_end_early_are_an_error():
    class Short(Batches):
        def iterate(self, start, stop, rank=0, world=1):
            yield from super().iterate(start, 5, rank, world)

    with pytest.raises(RuntimeError, match="the batches ended after 5 steps"):
        tiny_run(batches=Short())


# ---------------------------------------------------------------- precision and devices


def test_bf16_mixed_trains_and_leaves_the_geometry_in_float32():
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    method, summary = tiny_run(fabric=fabric)
    assert method.dtypes == {(torch.float32, torch.float32)}
    assert {value.dtype for value in method.parameters()} == {torch.float32}
    exact = tiny_run()[1].losses["loss"]
    assert summary.losses["loss"] == pytest.approx(exact, rel=0.1) and summary.losses["loss"] != exact
    with pytest.raises(NonFiniteLoss, match="training.precision=32-true"):
        tiny_run(fabric=fabric, method=tiny_method(nan_at=2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_cuda_trains_times_and_resumes(tmp_path, precision):
    def fabric():
        return Fabric(accelerator="cuda", devices=1, precision=precision)

    torch.use_deterministic_algorithms(True, warn_only=True)
    _, summary = tiny_run(tmp_path / "calm", fabric=fabric())
    assert summary.views_seconds > 0 and summary.step_seconds > 0
    lines = logged(tmp_path / "calm")
    tiny_run(tmp_path / "cut", fabric=fabric())
    list_checkpoints(tmp_path / "cut" / "checkpoints")[0][1].unlink()
    _, again = tiny_run(tmp_path / "cut", fabric=fabric())
    assert again.resumed_from == 20
    for one, two in zip(lines, logged(tmp_path / "cut"), strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    with pytest.raises(NonFiniteLoss, match="at step 13 "):
        tiny_run(fabric=fabric(), method=tiny_method(nan_at=13), checkpoint_every=None)


def test_settings_of_these_tests_cross_every_boundary():
    """A checkpoint in the middle of a log window, an epoch that ends between both: what resume has to get right."""
    assert SETTINGS["checkpoint_every"] % SETTINGS["log_every"] and SETTINGS["steps"] > 4 * SETTINGS["log_every"]


def test_an_observer_sees_the_steps_and_changes_nothing():
    plain, _ = tiny_run()
    seen = []
    method = tiny_method()

    def look(step):
        seen.append((step, int(method.steps)))
        torch.rand(100)  # even one that draws: every step is seeded anew

    observed, _ = tiny_run(method=method, observer=Observer((0, 7, 24), look))
    assert seen == [(0, 0), (7, 7), (24, 24)]
    assert state_hash(observed) == state_hash(plain)


def test_an_observer_is_not_asked_again_for_what_a_checkpoint_has_behind_it(tmp_path):
    seen = []
    tiny_run(tmp_path, observer=Observer((0, 7, 24), seen.append), max_seconds=1e-9)
    tiny_run(tmp_path, observer=Observer((0, 7, 24), seen.append))
    assert seen == [0, 7, 24]


def test_clipping_and_weight_decay_of_the_loop_equal_those_by_hand():
    method, batches, views = tiny_method(), Batches(), Views()
    optimizer = torch.optim.SGD(method.backbone.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for step, batch in enumerate(batches.iterate(0, 24)):
        optimizer.param_groups[0]["weight_decay"] = 1e-2 + (1e-4 - 1e-2) * 0.5 * (1 + math.cos(math.pi * step / 24))
        optimizer.param_groups[0]["lr"] = 0.05 * Schedule().factor(step, 24, 4)
        crops = views(batch.images, step)
        seed_generators(derive_seed(3, "method", step), torch.device("cpu"))
        optimizer.zero_grad()
        method(crops)["loss"].backward()
        for parameter in method.backbone.parameters():
            torch.nn.utils.clip_grad_norm_([parameter], 0.02)
        optimizer.step()
        with torch.no_grad():
            method.after_step((step + 1) / 24)
    options = {**SETTINGS["optimizer"], "clip": 0.02}
    looped, _ = tiny_run(optimizer=options, schedule={"final_weight_decay": 1e-2})
    for ours, theirs in zip(looped.state_dict().values(), method.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_norm_of_zero_is_refused():
    with pytest.raises(UsageError, match="optimizer.clip is a norm above 0, or null, not 0"):
        tiny_run(optimizer={**SETTINGS["optimizer"], "clip": 0})
