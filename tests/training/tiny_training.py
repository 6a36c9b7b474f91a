"""The smallest training run that has everything a resume can lose: BN buffers, a queue, an EMA target, randomness."""

import copy
import hashlib
import json
import multiprocessing
import os
import re
import signal
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from scd.method import Batch, Method, View
from scd.seeds import derive_seed, generator
from scd.training import checkpoint, state
from scd.training.loop import pretrain


@dataclass
class Images:
    """What a loader yields for a step, as far as these view makers need it."""

    images: torch.Tensor
    rows: slice
    total: int


class Batches:
    """Random access by step: ``total`` images a batch, the same images for every number of processes."""

    def __init__(self, total=8, steps_per_epoch=4, seed=0, before=None):
        self.total, self.steps_per_epoch, self.seed, self.before = total, steps_per_epoch, seed, before
        self.closed = False

    def iterate(self, start, stop, rank=0, world=1):
        share = self.total // world
        rows = slice(rank * share, (rank + 1) * share)
        try:
            for step in range(start, stop):
                if self.before is not None:
                    self.before(step)
                images = torch.randint(0, 256, (self.total, 3, 8, 8), generator=generator(self.seed, "images", step))
                images = images[rows].to(torch.uint8)
                yield Images(images, rows, self.total)
        finally:
            self.closed = True


class Views:
    """Two noisy views; a process's rows get the same noise as in one process.

    Attributes:
        blocks: the steps of every call.
    """

    def __init__(self, seed=0, steps_at_once=1, device="cpu"):
        self.seed, self.steps_at_once, self.device, self.blocks = seed, steps_at_once, device, []

    def several(self, batches, steps):
        self.blocks.append(list(steps))
        return [self.make(batch, step) for batch, step in zip(batches, steps, strict=True)]

    def make(self, batch, step):
        images, views = batch.images.to(self.device), {}
        for name in ("v1", "v2"):
            random = generator(self.seed, "augmentation", step, name)
            noise = torch.randn(batch.total, *images.shape[1:], generator=random)[batch.rows].to(self.device)
            rectangles = torch.full((len(images), 4), 1 / 3, device=self.device)
            flips = torch.zeros(len(images), dtype=torch.bool, device=self.device)
            views[name] = View(name, "global", images / 255 - 0.5 + 0.3 * noise, rectangles, flips)
        return Batch(views)


class Tiny(Method):
    """Pulls the online view towards a shuffled, noisy target; ``norm=False`` leaves out all that mixes images."""

    def __init__(self, norm=True, nan_at=None, nan_weights_at=None):
        super().__init__()
        layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU(), nn.Flatten()]
        self.backbone = nn.Sequential(*layers, nn.Linear(288, 4)).to(memory_format=torch.channels_last)
        self.target_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.register_buffer("queue", torch.randn(16, 4))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.norm, self.nan_at, self.nan_weights_at = norm, nan_at, nan_weights_at
        self.progress, self.grad_enabled, self.dtypes = [], [], set()

    def forward(self, batch):
        views = batch.views
        self.dtypes.add((views["v1"].images.dtype, views["v1"].rectangles.dtype))
        q = self.backbone(views["v1"].images)
        with torch.no_grad():
            k = self.target_backbone(views["v2"].images)
        self.keys = k
        if self.norm:
            k = k + 0.1 * torch.randn(k.shape).to(k)  # the global generator's turn
        pull = (q - k).square().mean()
        push = (q @ self.queue.to(q).T).square().mean() if self.norm else 0.1 * q.square().mean()
        loss = pull + 0.01 * push
        if self.nan_at is not None:
            loss = loss + torch.where(self.steps == self.nan_at, torch.nan, 0.0)
        return {"loss": loss, "pull": pull.detach()}

    def scheduled_values(self, progress):
        return {"momentum": 0.9 + 0.1 * progress}

    def after_step(self, progress):
        self.progress.append(progress)
        self.grad_enabled.append(torch.is_grad_enabled())
        m = self.scheduled_values(progress)["momentum"]
        for target, online in zip(self.target_backbone.parameters(), self.backbone.parameters(), strict=True):
            target.lerp_(online, 1 - m)
        self.queue = torch.cat([self.queue[len(self.keys) :], self.keys.float()]) if self.norm else self.queue
        self.steps += 1
        if self.nan_weights_at is not None and int(self.steps) == self.nan_weights_at:
            self.backbone[0].weight[0, 0, 0, 0] = float("inf")


SETTINGS = {
    "steps": 24,
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
    "schedule": {"name": "cosine", "warmup_epochs": 1, "per": "epoch"},
    "seed": 3,
    "log_every": 4,
    "checkpoint_seconds": 0.0,  # a checkpoint after every step, in one process on the CPU
}


def tiny_method(seed=0, **options):
    torch.manual_seed(derive_seed(seed, "init"))
    return Tiny(**options)


def tiny_run(run_dir=None, method=None, batches=None, views=None, fabric=None, **changes):
    """Trains the tiny method with the settings above, with changes."""
    fabric = Fabric(accelerator="cpu", devices=1) if fabric is None else fabric
    method = tiny_method() if method is None else method
    views = Views(device=fabric.device) if views is None else views
    run = SETTINGS | changes
    return method, pretrain(method, batches or Batches(), views, fabric=fabric, run_dir=run_dir, **run)


def ticking(monkeypatch, seconds):
    """Batches that each take so many seconds, by a clock that stands still otherwise."""
    now = [0.0]
    monkeypatch.setattr("scd.training.phase_timer.perf_counter", lambda: now[0])
    return Batches(before=lambda step: now.__setitem__(0, now[0] + seconds))


def state_hash(method):
    """SHA-256 over the names and bytes of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in method.state_dict().items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def logged(run_dir):
    """The log's lines without what depends on the machine's speed."""
    lines = [json.loads(line) for line in (Path(run_dir) / "progress.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


# ---------------------------------------------------------------- real processes


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def arm(kill, batches):
    """Arranges that this process kills itself at a point: before a step, or inside the writing of a checkpoint."""
    where, step = kill

    def before(current):
        if where == "step" and current == step:
            die()

    batches.before = before
    if where == "step":
        return
    save = checkpoint.save_checkpoint

    def save_and_die(folder, current, state, keep=2):
        if current == step and where == "half written":
            write = checkpoint.HashingFile.write

            def half(file, data):
                if file.file.tell() > 3000:
                    write(file, data[: len(data) // 2])
                    file.flush()
                    die()
                return write(file, data)

            checkpoint.HashingFile.write = half
        if current == step and where == "before rename":
            checkpoint.os.replace = lambda *_: die()
        if current == step and where == "after rename":
            checkpoint.sync_folder = lambda *_: die()
        return save(folder, current, state, keep)

    state.save_checkpoint = save_and_die


def save_to(run_dir):
    """What a run calls for its snapshots: each in a file of its own."""

    def save(step, share, tensors):
        (run_dir / "snapshots").mkdir(exist_ok=True)
        torch.save(tensors, run_dir / "snapshots" / f"{share}.pt")

    return save


def killable(run_dir, kill, answer, changes):
    """A whole run in this process; writes its hash to ``answer`` if it lives to the end."""
    torch.set_num_threads(1)
    batches = Batches()
    if kill is not None:
        arm(kill, batches)
    method, summary = tiny_run(Path(run_dir), batches=batches, save_snapshot=save_to(Path(run_dir)), **changes)
    Path(answer).write_text(json.dumps({"hash": state_hash(method)} | asdict(summary)))


def resumed(run_dir):
    """The step of every resume that ``training.log`` notes."""
    path = Path(run_dir) / "training.log"
    text = path.read_text() if path.exists() else ""
    return [int(step) for step in re.findall(r"resumed from step (\d+)", text)]


def live(run_dir, tmp_path, kill=None, **changes):
    """Runs a process to its end, natural or not; returns its exit code and its answer."""
    answer = tmp_path / "answer.json"
    answer.unlink(missing_ok=True)
    process = start(killable, str(run_dir), kill, str(answer), changes)
    process.join(300)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode, json.loads(answer.read_text()) if answer.exists() else None


def ddp_worker(rank, port, answer, norm, run_dir, steps):
    """One of two processes of a run over gloo."""
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    method, summary = tiny_run(
        run_dir=run_dir and Path(run_dir), method=tiny_method(norm=norm), fabric=fabric, steps=steps
    )
    torch.save({"state": method.state_dict(), "summary": asdict(summary)}, f"{answer}.{rank}")
    torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start(target, *args):
    """A new process, forked from a server that has PyTorch loaded but has never computed anything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scd.training.loop"])
    process = context.Process(target=target, args=args)
    process.start()
    return process
