"""The real methods through the real loop, on real views: they learn, and go on exactly after an interruption."""

import pytest
import torch
from lightning_fabric import Fabric
from tiny_training import logged, state_hash

from baselines.byol import BYOL
from baselines.moco import MoCo
from scd.data.images import ImageSet
from scd.data.loader import MemoryBatches
from scd.data.recipes import build_recipe
from scd.data.views import ViewMaker
from scd.nn.backbone import build_backbone
from scd.scd import SCD
from scd.seeds import derive_seed, generator
from scd.training.checkpoint import list_checkpoints
from scd.training.loop import pretrain


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
        checkpoint_every=5,
        progress=lambda *_: None,
    )
    return method, summary


@pytest.mark.parametrize("name", ["moco", "byol"])
def test_resumes_exactly_and_logs_its_parts(tmp_path, name):
    method, summary = train(name, tmp_path / "calm")
    train(name, tmp_path / "cut")
    list_checkpoints(tmp_path / "cut" / "checkpoints")[0][1].unlink()
    again, second = train(name, tmp_path / "cut")
    assert second.resumed_from == 10
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
