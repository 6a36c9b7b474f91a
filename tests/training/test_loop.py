"""The loop against one written by hand; budgets in seconds, errors, precision, devices, and the real methods."""

import math
import pickle

import pytest
import torch
from lightning_fabric import Fabric
from tiny_training import (
    SETTINGS,
    Batches,
    Views,
    logged,
    resumed,
    state_hash,
    ticking,
    tiny_method,
    tiny_run,
)

from baselines.byol import BYOL
from baselines.moco import MoCo
from scd.data.images import ImageSet
from scd.data.loader import MemoryBatches
from scd.data.recipes import build_recipe
from scd.data.views import ViewMaker
from scd.errors import UsageError
from scd.method import ParameterGroup
from scd.nn.backbone import build_backbone
from scd.scd import SCD
from scd.seeds import derive_seed, generator
from scd.training.checkpoint import list_checkpoints
from scd.training.loop import NonFiniteLoss, pretrain, seed_generators
from scd.training.schedules import Schedule


def test_equals_a_loop_written_by_hand():
    """Plain PyTorch, step by step, gives the very same weights and losses."""
    method, batches, views = tiny_method(), Batches(), Views()
    weights = method.backbone.parameters()
    optimizer = torch.optim.SGD(weights, lr=0.05, momentum=0.9, weight_decay=1e-4, fused=True)
    schedule, losses = Schedule(warmup_epochs=1, per="epoch"), []
    for step, batch in enumerate(batches.iterate(0, 24)):
        optimizer.param_groups[0]["lr"] = 0.05 * schedule.factor(step, 24, 4)
        seed_generators(derive_seed(3, "method", step), torch.device("cpu"))
        loss = method(views.make(batch, step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            method.after_step((step + 1) / 24)
        losses.append(loss.item())
    looped, summary = tiny_run()
    assert state_hash(looped) == state_hash(method)
    assert summary.losses["loss"] == math.fsum(losses[-4:]) / 4


def test_clipping_and_weight_decay_of_the_loop_equal_those_by_hand():
    method, batches, views = tiny_method(), Batches(), Views()
    optimizer = torch.optim.SGD(method.backbone.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for step, batch in enumerate(batches.iterate(0, 24)):
        optimizer.param_groups[0]["weight_decay"] = 1e-2 + (1e-4 - 1e-2) * 0.5 * (1 + math.cos(math.pi * step / 24))
        optimizer.param_groups[0]["lr"] = 0.05 * Schedule().factor(step, 24, 4)
        seed_generators(derive_seed(3, "method", step), torch.device("cpu"))
        optimizer.zero_grad()
        method(views.make(batch, step))["loss"].backward()
        for parameter in method.backbone.parameters():
            torch.nn.utils.clip_grad_norm_([parameter], 0.02)
        optimizer.step()
        with torch.no_grad():
            method.after_step((step + 1) / 24)
    options = {**SETTINGS["optimizer"], "clip": 0.02}
    looped, _ = tiny_run(optimizer=options, schedule={"final_weight_decay": 1e-2})
    for ours, theirs in zip(looped.state_dict().values(), method.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_groups_of_a_method_equal_a_loop_by_hand_and_resume_exactly(tmp_path):
    """The last layer learns three times as fast, without decay, at a rate that no schedule changes."""

    def grouped():
        method = tiny_method()
        *rest, weight, bias = method.backbone.parameters()
        method.parameter_groups = lambda: [ParameterGroup(rest), ParameterGroup([weight, bias], 3.0, 0.0, True)]
        return method

    by_hand, batches, views = grouped(), Batches(), Views()
    groups = [{"params": group.parameters} for group in by_hand.parameter_groups()]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=1e-4)
    optimizer.param_groups[1].update(lr=3 * 0.05, weight_decay=0.0)
    for step, batch in enumerate(batches.iterate(0, 24)):
        optimizer.param_groups[0]["lr"] = 0.05 * Schedule().factor(step, 24, 4)
        seed_generators(derive_seed(3, "method", step), torch.device("cpu"))
        optimizer.zero_grad()
        by_hand(views.make(batch, step))["loss"].backward()
        optimizer.step()
        with torch.no_grad():
            by_hand.after_step((step + 1) / 24)
    looped, _ = tiny_run(tmp_path, method=grouped(), schedule={})
    for ours, theirs in zip(looped.state_dict().values(), by_hand.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)
    list_checkpoints(tmp_path / "checkpoints")[0][1].unlink()
    again, _ = tiny_run(tmp_path, method=grouped(), schedule={})
    assert resumed(tmp_path) == [23] and state_hash(again) == state_hash(looped)


def test_after_step_gets_the_share_done_without_gradient():
    method, _ = tiny_run()
    assert method.progress == [(step + 1) / 24 for step in range(24)]
    assert not any(method.grad_enabled)


def test_no_folder_writes_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_run(None)
    assert list(tmp_path.iterdir()) == []


def test_log_and_checkpoints_do_not_change_the_numbers(tmp_path):
    settings = [{}, {"log_every": 1}, {"log_every": 100}, {"checkpoint_seconds": 1e9}]
    hashes = {state_hash(tiny_run(tmp_path / str(i), **change)[0]) for i, change in enumerate(settings)}
    assert hashes == {state_hash(tiny_run(None)[0])}
    assert [step for step, _ in list_checkpoints(tmp_path / "2" / "checkpoints")] == [24, 23]


def test_the_seed_decides_and_the_global_random_state_is_restored():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    method = tiny_method()
    torch.manual_seed(11)
    one, _ = tiny_run(method=method)
    assert torch.rand(3).equal(expected)
    assert state_hash(tiny_run(seed=4)[0]) != state_hash(one)


def test_the_summary_counts_the_time_of_views_and_steps(monkeypatch):
    """Loading and views take 3 s a step, everything else none."""
    _, summary = tiny_run(batches=ticking(monkeypatch, 3.0), steps=8)
    assert (summary.steps, summary.seconds, summary.views_seconds) == (8, 24.0, 24.0)
    assert summary.images_per_second == 8 * 8 / 24


def test_views_of_several_steps_at_once_do_not_change_the_numbers():
    expected = state_hash(tiny_run()[0])
    views = Views(steps_at_once=5)
    assert state_hash(tiny_run(views=views)[0]) == expected
    assert views.blocks == [[*range(0, 5)], [*range(5, 10)], [*range(10, 15)], [*range(15, 20)], [*range(20, 24)]]


def test_a_run_resumes_within_views_of_several_steps(tmp_path):
    method, _ = tiny_run(tmp_path, views=Views(steps_at_once=5))
    list_checkpoints(tmp_path / "checkpoints")[0][1].unlink()
    views = Views(steps_at_once=5)
    again, _ = tiny_run(tmp_path, views=views)
    assert resumed(tmp_path) == [23] and views.blocks == [[20, 21, 22, 23]]
    assert state_hash(again) == state_hash(method)


# ---------------------------------------------------------------- seconds


def test_a_budget_of_seconds_ends_by_the_clock(tmp_path, monkeypatch):
    """A step takes 0.5 s: the eighth begins when 4 s are over, and is the last one."""
    calls, batches = [], ticking(monkeypatch, 0.5)
    monkeypatch.setattr("scd.training.log.REPORT_SECONDS", -1.0)
    options = {"steps": None, "max_seconds": 4.0, "schedule": {}, "progress": lambda *call: calls.append(call)}
    method, summary = tiny_run(tmp_path, batches=batches, **options)
    assert (summary.steps, summary.seconds) == (8, 4.0)
    assert method.progress == [step / 8 for step in range(1, 9)]
    assert [call[:2] for call in calls] == [(step, 8) for step in range(1, 9)]
    lines = logged(tmp_path)
    assert [line["step"] for line in lines] == [4, 8]
    assert lines[-1]["lr"] == pytest.approx(0.05 * Schedule().factor_by_time(7 / 8, 7, 4))
    assert batches.closed
    again, second = tiny_run(tmp_path, batches=ticking(monkeypatch, 0.5), **options)
    assert second == summary and state_hash(again) == state_hash(method)


# ---------------------------------------------------------------- errors


def test_nan_loss_stops_with_one_line_that_helps(tmp_path):
    with pytest.raises(NonFiniteLoss) as caught:
        tiny_run(tmp_path, method=tiny_method(nan_at=13))
    error, text = caught.value, str(caught.value)
    assert text.startswith("the loss is nan at step 13 (lr 0.0")
    assert "try a lower optimizer.lr" in text and "the checkpoint of step 13 is finite" in text
    assert "\n" not in text and "precision" not in text
    assert error.step == 13 and math.isnan(error.scalars["loss"]) and math.isfinite(error.scalars["pull"])
    assert error.lr == 0.05 * Schedule(warmup_epochs=1, per="epoch").factor(13, 24, 4)
    assert [step for step, _ in list_checkpoints(tmp_path / "checkpoints")] == [13, 12]
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.step, copy.lr) == (text, 13, error.lr)


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    """The weights are not finite after step 10; its loss was, when the checkpoint is due."""
    with pytest.raises(NonFiniteLoss, match=r"backbone.0.weight is NaN or infinite \(1 of \d+ tensors"):
        tiny_run(tmp_path, method=tiny_method(nan_weights_at=10))
    assert [step for step, _ in list_checkpoints(tmp_path / "checkpoints")] == [9, 8]
    with pytest.raises(NonFiniteLoss, match="at step 23"):
        tiny_run(None, method=tiny_method(nan_weights_at=24))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"steps": 0}, "at least 1 step, not 0"),
        ({"steps": None}, "a number of steps, or of seconds, and not both"),
        ({"max_seconds": 5}, "a number of steps, or of seconds, and not both"),
        ({"steps": None, "max_seconds": -1}, "a finite number above 0, not -1"),
        ({"log_every": 0}, "log_every is at least 1 step"),
        ({"schedule": {"warmup_epoch": 1}}, "unknown schedule option 'warmup_epoch'; did you mean 'warmup_epochs'"),
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
    assert 0 < summary.views_seconds < summary.seconds
    lines = logged(tmp_path / "calm")
    tiny_run(tmp_path / "cut", fabric=fabric())
    list_checkpoints(tmp_path / "cut" / "checkpoints")[0][1].unlink()
    tiny_run(tmp_path / "cut", fabric=fabric())
    assert resumed(tmp_path / "cut") == [20]
    for one, two in zip(lines, logged(tmp_path / "cut"), strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    with pytest.raises(NonFiniteLoss, match="at step 13 "):
        tiny_run(fabric=fabric(), method=tiny_method(nan_at=13))


def test_a_norm_of_zero_is_refused():
    with pytest.raises(UsageError, match="optimizer.clip is a norm above 0, or null, not 0"):
        tiny_run(optimizer={**SETTINGS["optimizer"], "clip": 0})


# ---------------------------------------------------------------- real methods on real views


def images(count=48, size=16):
    """Four kinds of coloured noise."""
    random = generator(0, "images")
    labels = torch.arange(count) % 4
    colours = torch.randint(0, 200, (4, 3, 1, 1), generator=random)
    pixels = colours[labels] + torch.randint(0, 55, (count, 3, size, size), generator=random)
    return ImageSet(pixels.to(torch.uint8), labels, None, None, None)


def build(name):
    """MoCo with grouped BN and shuffled keys, or BYOL, both below SCD."""
    torch.manual_seed(derive_seed(1, "init"))
    backbone = build_backbone("resnet_tiny", widths=[8, 16], strides=[1, 2], channels_last=True)
    if name == "moco":
        return SCD(MoCo(backbone, dim=16, queue_size=64, momentum=0.9, bn_groups=2))
    return SCD(BYOL(backbone, dim=16, hidden=32, momentum=0.9))


def train(name, run_dir, steps=12):
    method = build(name)
    recipe = build_recipe("mocov2" if name == "moco" else "byol", 16)
    summary = pretrain(
        method,
        MemoryBatches(images(), 16, 1),
        ViewMaker(recipe, 1),
        steps=steps,
        optimizer={"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
        schedule={"name": "cosine"},
        seed=1,
        fabric=Fabric(accelerator="cpu", devices=1),
        run_dir=run_dir,
        log_every=4,
        checkpoint_seconds=0.0,
    )
    return method, summary


@pytest.mark.parametrize("name", ["moco", "byol"])
def test_resumes_exactly_and_logs_its_parts(tmp_path, name):
    method, summary = train(name, tmp_path / "calm")
    train(name, tmp_path / "cut")
    list_checkpoints(tmp_path / "cut" / "checkpoints")[0][1].unlink()
    again, second = train(name, tmp_path / "cut")
    assert resumed(tmp_path / "cut") == [11]
    assert state_hash(again) == state_hash(method)
    lines = logged(tmp_path / "calm")
    assert logged(tmp_path / "cut") == lines
    assert {"step", "epoch", "lr", "momentum", "loss", "image_loss", "triplet_loss"} <= set(lines[-1])
    assert lines[-1]["momentum"] == (0.9 if name == "moco" else 1.0)
    assert summary.losses["loss"] == lines[-1]["loss"] and second.losses == summary.losses


def test_target_and_queue_moved_and_gradients_did_not_touch_the_target():
    fresh, (trained, _) = build("moco"), train("moco", None)
    before, after = fresh.state_dict(), trained.state_dict()
    assert not after["siamese.matcher.queue.keys"].equal(before["siamese.matcher.queue.keys"])
    assert not after[first_target(after)].equal(before[first_target(before)])
    assert all(p.grad is None for name, p in trained.named_parameters() if "target" in name)


def first_target(state):
    """The name of the first weight of the momentum backbone."""
    return next(name for name in state if name.startswith("siamese.target_backbone") and name.endswith("weight"))


def test_the_method_of_a_run_that_is_a_first_part_sees_the_progress_of_the_longer_training(tmp_path):
    """The run ends and saves its last snapshot after its own steps."""
    whole, _ = tiny_run(tmp_path / "whole", schedule={}, steps=40, log_every=4)
    kept = []
    part, _ = tiny_run(
        tmp_path / "part", schedule={"total_epochs": 10}, log_every=4, snapshots=[0.5, 1],
        save_snapshot=lambda step, share, tensors: kept.append((step, share)),
    )  # fmt: skip
    assert part.progress == pytest.approx(whole.progress[:24]) and kept == [(12, 0.5), (24, 1)]
    momentum = [[line["momentum"] for line in logged(tmp_path / name)][:6] for name in ("whole", "part")]
    assert momentum[0] == pytest.approx(momentum[1])
