"""MoCo against the official order of operations, and its key shuffling."""

import copy
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from torch import nn

from baselines.moco import QUEUE_SIZE, QUEUE_SIZE_SMALL, MoCo
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.backbone import build_backbone
from scd.nn.norm import GroupedBatchNorm2d
from scd.nn.vit import tokens_of, vit
from scd.scd import SCD
from scd.training.loop import pretrain


def moco(**options) -> MoCo:
    torch.manual_seed(0)
    return MoCo(build_backbone("resnet_tiny", widths=(4, 6, 8)), **{"dim": 8, "queue_size": 24, **options}).train()


def views(seed: int, rows: int = 8, **more: str) -> dict[str, View]:
    draw = torch.Generator().manual_seed(seed)
    rectangles, flips = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(rows, 4), torch.zeros(rows, dtype=torch.bool)
    roles = {"v1": "global", "v2": "global", **more}
    return {
        name: View(name, role, torch.randn(rows, 3, 16, 16, generator=draw), rectangles, flips)
        for name, role in roles.items()
    }


def embed(backbone: nn.Module, head: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return F.normalize(head(backbone(images).mean(dim=(2, 3))), dim=1)


@pytest.mark.parametrize("symmetric", [False, True])
def test_steps_equal_the_official_order(symmetric):
    """Official: query forward, EMA, key forward, logits on the old queue, enqueue, backward, optimiser step."""
    m, tau, lr = 0.7, 0.2, 0.1
    method = moco(momentum=m, temperature=tau, symmetric=symmetric)
    query = nn.ModuleList([copy.deepcopy(method.backbone), copy.deepcopy(method.projector)])
    key = copy.deepcopy(query).requires_grad_(False)
    queue = list(method.matcher.queue.keys.clone())  # a list of keys, the oldest first
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=lr)
    reference = torch.optim.SGD(query.parameters(), lr=lr)
    for i in range(5):
        batch = views(i)
        loss = method(Batch(batch))["loss"]

        images = [batch["v1"].images, batch["v2"].images]
        directions = [(0, 1), (1, 0)] if symmetric else [(0, 1)]
        q = {a: embed(*query, images[a]) for a, _ in directions}
        with torch.no_grad():
            for theta_k, theta_q in zip(key.parameters(), query.parameters(), strict=True):
                theta_k.copy_(theta_k * m + theta_q * (1 - m))
            k = {b: embed(*key, images[b]) for _, b in directions}
        negatives = torch.stack(queue)
        losses = []
        for a, b in directions:
            logits = torch.cat([(q[a] * k[b]).sum(dim=1, keepdim=True), q[a] @ negatives.T], dim=1) / tau
            losses.append(F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)))
        for _, b in directions:
            queue = queue[len(k[b]) :] + list(k[b])
        expected = sum(losses) / len(losses)  # the mean here, the sum in the official demo

        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        for each, value in ((optimizer, loss), (reference, expected)):
            each.zero_grad()
            value.backward()
            each.step()
        method.after_step((i + 1) / 5)
    torch.testing.assert_close(method.projector.layers[0].weight, query[1].layers[0].weight, atol=1e-5, rtol=1e-4)
    stored = method.matcher.queue.keys
    nearest = (torch.stack(queue) @ stored.T).max(dim=1).values
    torch.testing.assert_close(nearest, torch.ones(24), atol=1e-4, rtol=0)


def test_head_is_the_official_one():
    kinds = [type(layer) for layer in moco().projector.layers]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear]
    assert moco().projector.layers[0].out_features == 8 and moco(hidden=20).projector.layers[0].out_features == 20
    assert [type(layer) for layer in moco(hidden=0).projector.layers] == [nn.Linear]
    assert all(layer.bias is not None for layer in moco().projector.layers if isinstance(layer, nn.Linear))
    assert (QUEUE_SIZE, QUEUE_SIZE_SMALL) == (65536, 4096)
    assert MoCo(build_backbone("resnet_tiny", widths=(4, 4, 4))).matcher.queue.keys.shape == (65536, 128)


def test_bn_groups_split_both_backbones():
    method = moco(bn_groups=4)
    for backbone in (method.backbone, method.target_backbone):
        norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
        assert norms and all(isinstance(norm, GroupedBatchNorm2d) and norm.groups == 4 for norm in norms)


def test_shuffling_keeps_the_order_of_keys_and_changes_their_partners():
    method = moco(bn_groups=4)
    images = views(0)["v1"].images
    with torch.no_grad():
        torch.manual_seed(1)
        order = torch.randperm(8)
        torch.manual_seed(1)
        features = method.encode_target(images)
        ordered = method.target_backbone(images)
        by_hand = method.target_backbone(images[order])
    for place, image in enumerate(order.tolist()):
        torch.testing.assert_close(features.maps[image], by_hand[place])
    assert (features.maps - ordered).abs().max() > 1e-3  # other images share a key's statistics
    torch.testing.assert_close(features.pooled, features.maps.mean(dim=(2, 3)))


def test_no_shuffling_without_groups_and_in_eval_mode():
    images = views(0)["v1"].images
    for method in (moco(bn_groups=1), moco(bn_groups=4).eval()):
        before = torch.get_rng_state()
        features = method.encode_target(images)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(features.maps, method.target_backbone(images))


def test_no_shuffling_of_a_backbone_without_batch_norm():
    """So that what a ViT attaches to its maps stays with them."""
    torch.manual_seed(0)
    backbone = vit("vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2)
    method = MoCo(backbone, dim=8, queue_size=24, bn_groups=4).train()
    before = torch.get_rng_state()
    features = method.encode_target(views(0)["v1"].images)
    assert torch.equal(torch.get_rng_state(), before)
    assert tokens_of(features.maps).attention.shape == (8, 2, 4, 4)


def test_pairs_and_keys_of_the_two_forms():
    batch = views(0, local0="extra")
    assert moco().pairs(batch) == [("v1", "v2"), ("local0", "v2")]
    assert moco(symmetric=True).pairs(batch) == [("v1", "v2"), ("v2", "v1"), ("local0", "v2"), ("local0", "v1")]
    for symmetric, keys in ((False, 8), (True, 16)):
        method = moco(symmetric=symmetric, queue_size=32)
        before = method.matcher.queue.keys.clone()
        method(Batch(batch))
        method.after_step(0.5)
        changed = (method.matcher.queue.keys != before).any(dim=1)
        assert changed.sum() == keys and changed[:keys].all()


def test_a_second_matcher_has_the_same_settings_and_a_queue_of_its_own():
    method = moco(temperature=0.3)
    other = method.new_matcher()
    assert other.temperature == 0.3 and other.queue.keys.shape == (24, 8)
    assert not torch.equal(other.queue.keys, method.matcher.queue.keys)


def test_a_batch_that_does_not_fit_says_what_to_change():
    method = moco(queue_size=20)
    method(Batch(views(0)))
    with pytest.raises(UsageError, match="holds 20 keys, .* set queue_size to a multiple of 8, for example 16"):
        method.after_step(0.5)
    with pytest.raises(UsageError, match="a batch of 8 does not split into 3 batch-norm groups"):
        moco(bn_groups=3)(Batch(views(0)))


# ---------------------------------------------------------------- several processes


class DoubleViews:
    """Two noisy views in float64; a process's rows are those of the whole batch in one process."""

    steps_at_once = 1

    def several(self, batches, steps):
        return [self.make(batch, step) for batch, step in zip(batches, steps, strict=True)]

    def make(self, batch, step):
        draw, made = torch.Generator().manual_seed(step), {}
        rectangles = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64).expand(batch.total, 4)
        for name in ("v1", "v2"):
            images = torch.randn(batch.total, 3, 12, 12, generator=draw, dtype=torch.float64) + batch.total / 2
            parts = images[batch.rows], rectangles[batch.rows], torch.zeros(batch.total, dtype=torch.bool)[batch.rows]
            made[name] = View(name, "global", *parts)
        return Batch(made)


class Rows:
    """Batches that only tell which rows of the whole batch a process has."""

    steps_per_epoch = 4

    def iterate(self, start, stop, rank=0, world=1):
        for _ in range(start, stop):
            yield SimpleNamespace(total=8, rows=slice(rank * 8 // world, (rank + 1) * 8 // world))


def trained(wrapped: bool, bn_groups: int, fabric: Fabric) -> tuple[dict[str, torch.Tensor], float]:
    """The state after 6 steps in float64, and the mean loss."""
    method = moco(bn_groups=bn_groups, symmetric=wrapped)
    if wrapped:
        method = SCD(method, projection_dim=8)
    torch.manual_seed(1)
    summary = pretrain(
        method.double(), Rows(), DoubleViews(), steps=6, seed=0, fabric=fabric, log_every=6,
        optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}, schedule={"name": "constant"},
    )  # fmt: skip
    return method.state_dict(), summary.losses["loss"]


def train_as_one_of_two(rank: int, folder: Path, wrapped: bool) -> None:
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "none", "MASTER_PORT": "0"}
    os.environ |= place
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", plugins=TorchElasticEnvironment())
    fabric.launch()
    torch.save(trained(wrapped, 1, fabric), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="two processes without a second import of torch need fork")
@pytest.mark.parametrize("wrapped", [False, True])
def test_two_processes_equal_one_with_two_groups(tmp_path, wrapped):
    """Keys are shuffled over both processes; weights, queue and running statistics agree to 1e-10 in float64."""
    context = multiprocessing.get_context("fork")
    pair = [context.Process(target=train_as_one_of_two, args=(rank, tmp_path, wrapped)) for rank in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(timeout=120)
    assert [process.exitcode for process in pair] == [0, 0]
    expected, loss = trained(wrapped, 2, Fabric(accelerator="cpu", devices=1))
    for rank in range(2):
        state, own_loss = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert own_loss == pytest.approx(loss, rel=1e-6)  # logged in float32
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, rtol=1e-10, atol=1e-10, msg=f"{name} on process {rank}")
