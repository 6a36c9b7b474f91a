"""A method trained by two processes with gloo, and by one process: for tests that both give the same weights."""

import multiprocessing
import os
from pathlib import Path

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment

from scd.training.loop import pretrain

SECONDS = 120  # that a process may take


def trained(method, images, fabric):
    """The state of a method after 4 steps of SGD in float64; ``images`` are both the batches and their views."""
    method.double()
    pretrain(
        method, images, images, steps=4, seed=0, fabric=fabric, log_every=4,
        optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}, schedule={"name": "constant"},
    )  # fmt: skip
    return method.state_dict()


def train_as_one_of_two(rank: int, folder: Path, build, images) -> None:
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "none", "MASTER_PORT": "0"}
    os.environ |= place
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", plugins=TorchElasticEnvironment())
    fabric.launch()
    torch.save(trained(build(1), images, fabric), folder / f"{rank}.pt")
    dist.destroy_process_group()


def assert_two_processes_equal_one(build, images, folder: Path, tolerance: float) -> None:
    """Two processes with one BN group each end with the weights of one process with two groups.

    Args:
        build: makes the method of a number of BN groups, always with the same weights.
    """
    context = multiprocessing.get_context("fork")
    pair = [context.Process(target=train_as_one_of_two, args=(rank, folder, build, images)) for rank in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(timeout=SECONDS)
    assert [process.exitcode for process in pair] == [0, 0]
    expected = trained(build(2), images, Fabric(accelerator="cpu", devices=1))
    for rank in range(2):
        state = torch.load(folder / f"{rank}.pt", weights_only=True)
        for name, value in expected.items():
            torch.testing.assert_close(
                state[name], value, rtol=tolerance, atol=tolerance, msg=f"{name} on process {rank}"
            )
